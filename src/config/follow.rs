//! What a configuration takes over from the one before it: the sessions that clients may resume.

use std::sync::Arc;

use super::{Config, Listener};
use crate::{route::server_name::ServerId, tls::ServerTls};

impl Config {
    /// Goes on with the TLS sides of the virtual hosts that stay: whole, where neither the file nor the certificates say anything
    /// else, and with their ticket keys and session caches otherwise. What one host issued still opens no other.
    pub fn follow(&mut self, before: &Config) {
        // Servers without a certificate share the side of the default server.
        let mut sides: Vec<(Arc<ServerTls>, Arc<ServerTls>)> = Vec::new();
        for server in 0..self.servers.len() {
            let Some(read) = self.servers[server].tls.clone() else { continue };
            let known = sides.iter().find(|(known, _)| Arc::ptr_eq(known, &read)).map(|(_, side)| Arc::clone(side));
            let side = known.unwrap_or_else(|| {
                let side = self.continued(server, &read, before);
                sides.push((read, Arc::clone(&side)));
                side
            });
            self.servers[server].tls = Some(side);
        }
    }

    fn continued(&self, server: ServerId, read: &Arc<ServerTls>, before: &Config) -> Arc<ServerTls> {
        match self.same_host(server, before) {
            None => Arc::clone(read),
            Some(known) if known.is_as(read) => Arc::clone(known),
            Some(known) => {
                let mut side = ServerTls::clone(read);
                side.resume(known);
                Arc::new(side)
            }
        }
    }

    /// The side of the server of the same name that listened at one of the same addresses.
    fn same_host<'a>(&self, server: ServerId, before: &'a Config) -> Option<&'a Arc<ServerTls>> {
        let listens = |listeners: &[Listener], server| {
            let own =
                listeners.iter().filter(|listener: &&Listener| listener.ssl && listener.servers.contains(&server));
            own.map(|listener| listener.address.clone()).collect::<Vec<_>>()
        };
        let name = &self.servers[server].name;
        let addresses = listens(&self.listeners, server);
        let stayed = |known: &ServerId| {
            let its = listens(&before.listeners, *known);
            its.iter().any(|address| addresses.contains(address))
        };
        let named = (0..before.servers.len()).filter(|known| before.servers[*known].name == *name);
        named.filter(stayed).find_map(|known| before.servers[known].tls.as_ref())
    }
}
