//! The status location that a configuration file has.

use std::net::SocketAddr;

use super::place::{Address, Place};
use crate::{
    config::{Config, Content, ListenAddress, Listener, Location},
    route::server_name::ServerId,
};

/// The first status location of a configuration that a request from this host can reach.
    ///
    /// # Errors
    /// There is none, or none whose address and path are fixed.
    pub(super) fn find(config: &Config) -> Result<Place, String> {
        let mut plain_first: Vec<&Listener> = config.listeners.iter().collect();
        plain_first.sort_by_key(|listener| listener.ssl);
        plain_first.into_iter().find_map(|listener| at(config, listener)).ok_or_else(|| {
            if config.servers.iter().flat_map(|server| &server.locations).any(is_status) {
                "its status location has no fixed path, or its server no fixed name: say the URL".to_owned()
            } else {
                "it has no status location; `location = /status { status; allow 127.0.0.1; deny all; }` makes one".to_owned()
            }
        })
    }
}

fn is_status(location: &crate::config::Location) -> bool {
    matches!(location.content, Content::Status { .. })
}

/// The first status location behind a listening address.
fn at(config: &Config, listener: &Listener) -> Option<Place> {
    let (address, own) = reachable(&listener.address);
    listener.servers.iter().find_map(|id| {
        let host = host_of(config, listener, *id, &own)?;
        let locations = config.servers.get(*id)?.locations.iter();
        let path = locations.filter(|location| is_status(location)).find_map(|location| path_of(&location.name))?;
        Some(Place { address: address.clone(), tls: listener.ssl, host, path: path.to_owned() })
    })
}

/// How to reach a listening address from here, and a `Host` for it.
fn reachable(address: &ListenAddress) -> (Address, String) {
    match address {
        ListenAddress::Unix(path) => (Address::Unix(path.clone()), "localhost".to_owned()),
        ListenAddress::Tcp(listening) => {
            let ip = match listening {
                SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
                SocketAddr::V6(v6) if v6.ip().is_unspecified() => "::1".to_owned(),
                other => other.ip().to_string(),
            };
            let host = if listening.is_ipv6() { format!("[{ip}]") } else { ip.clone() };
            (Address::Tcp(ip, listening.port()), host)
        }
    }
}

/// The `Host` that leads to a server: its first name, or any at all when it is the default.
fn host_of(config: &Config, listener: &Listener, id: ServerId, own: &str) -> Option<String> {
    let name = &config.servers.get(id)?.name;
    let leads_there = listener.names.find(name.as_bytes()).is_some_and(|found| found.server == id);
    match leads_there && !name.starts_with(['~', '*', '.']) {
        true => Some(name.to_string()),
        false => (listener.default == id).then(|| own.to_owned()),
    }
}

/// A path that a location surely answers: that of an exact or a prefix location.
fn path_of(name: &str) -> Option<&str> {
    let path = name.strip_prefix("= ").or_else(|| name.strip_prefix("^~ ")).unwrap_or(name);
    path.starts_with('/').then_some(path)
}

