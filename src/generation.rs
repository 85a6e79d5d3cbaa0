//! One reading of the configuration, and what was made of it.
//!
//! A session, its requests and its tunnel are served by the generation that was current when they began; a reload makes the next one
//! current and changes nothing in those before it. A generation is freed when the last who was served by it has gone.

mod routes;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

pub use self::routes::Routes;
use crate::{
    config::{Config, ListenAddress},
    observe::{
        Logs,
        board::{Board, Loaded},
        tally::Tallies,
    },
    upstream::Upstreams,
    zone::Zones,
};

/// See the module.
#[derive(Debug)]
pub struct Generation {
    /// 1 at the start of the program, one more with each reload.
    pub number: u64,
    /// What the file says.
    pub config: Arc<Config>,
    /// Backends' state.
    pub upstreams: Arc<Upstreams>,
    /// The logs that its configuration names.
    pub logs: Arc<Logs>,
    /// What is known of it beyond its own life: when it was read, how many tunnels it has.
    pub loaded: Arc<Loaded>,
    /// What outlives it.
    pub board: Arc<Board>,
    /// What `limit_conn` and `limit_req` know.
    pub zones: Zones,
    /// What is counted of its servers and of their backends.
    pub tallies: Tallies,
    listeners: HashMap<ListenAddress, usize>,
}

impl Generation {
    /// The first of a program.
    pub fn first(config: Arc<Config>, upstreams: Arc<Upstreams>, logs: Arc<Logs>, board: Arc<Board>) -> Arc<Self> {
        Self::numbered(1, config, upstreams, logs, board, &Zones::default())
    }

    /// The one that follows this.
    pub fn next(&self, config: Arc<Config>, upstreams: Arc<Upstreams>, logs: Arc<Logs>) -> Arc<Self> {
        Self::numbered(self.number + 1, config, upstreams, logs, Arc::clone(&self.board), &self.zones)
    }

    fn numbered(
        number: u64,
        config: Arc<Config>,
        upstreams: Arc<Upstreams>,
        logs: Arc<Logs>,
        board: Arc<Board>,
        zones: &Zones,
    ) -> Arc<Self> {
        let zones = Zones::follow(&config, zones);
        let addresses = config.listeners.iter().map(|listener| listener.address.clone());
        let listeners = addresses.enumerate().map(|(index, address)| (address, index)).collect();
        let loaded = board.load(number, config.bytes);
        let tallies = board.kept.tallies(&config, upstreams.groups.iter().map(|group| group.addresses()));
        let generation = Self { number, config, upstreams, logs, loaded, board, zones, tallies, listeners };
        generation.drain_what_was_drained();
        Arc::new(generation)
    }

    /// Whoever drained a backend by hand did not take that back by reloading the file.
    fn drain_what_was_drained(&self) {
        for (index, group) in self.upstreams.groups.iter().enumerate() {
            for peer in 0..group.len() {
                let tally = self.tallies.number(index, peer).and_then(|number| self.tallies.peer(number));
                group.set_drained(peer, tally.is_some_and(|tally| tally.drained.load(Relaxed)));
            }
        }
    }

    /// A tunnel was opened by a server. What it is to its backend, its [`crate::upstream::Leg`] counts.
    pub fn tunnel_opened(&self, server: usize) {
        self.loaded.tunnels.fetch_add(1, Relaxed);
        self.tallies.server(server).iter().for_each(|server| server.tunnels.open());
    }

    /// And has ended.
    pub fn tunnel_ended(&self, server: usize) {
        self.loaded.tunnels.fetch_sub(1, Relaxed);
        self.tallies.server(server).iter().for_each(|server| server.tunnels.end());
    }

    /// Index of the listener at an address; none: its configuration names no such address.
    pub fn listener(&self, address: &ListenAddress) -> Option<usize> {
        self.listeners.get(address).copied()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A generation of a configuration made by hand; its log goes to stderr.
    pub(crate) fn generation(config: Arc<Config>) -> Arc<Generation> {
        let upstreams = Arc::new(Upstreams::resolve(&config).unwrap());
        let logs = Logs::open(&config).unwrap();
        Generation::first(config, upstreams, logs, Arc::default())
    }
}
