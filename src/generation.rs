//! One reading of the configuration, and what was made of it.
//!
//! A session, its requests and its tunnel are served by the generation that was current when they began; a reload makes the next one
//! current and changes nothing in those before it. A generation is freed when the last who was served by it has gone.

mod routes;

use std::{collections::HashMap, sync::Arc};

pub use self::routes::Routes;
use crate::{
    config::{Config, ListenAddress},
    observe::{
        Logs,
        board::{Board, Loaded},
    },
    upstream::Upstreams,
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
    board: Arc<Board>,
    listeners: HashMap<ListenAddress, usize>,
}

impl Generation {
    /// The first of a program.
    pub fn first(config: Arc<Config>, upstreams: Arc<Upstreams>, logs: Arc<Logs>, board: Arc<Board>) -> Arc<Self> {
        Self::numbered(1, config, upstreams, logs, board)
    }

    /// The one that follows this.
    pub fn next(&self, config: Arc<Config>, upstreams: Arc<Upstreams>, logs: Arc<Logs>) -> Arc<Self> {
        Self::numbered(self.number + 1, config, upstreams, logs, Arc::clone(&self.board))
    }

    fn numbered(
        number: u64,
        config: Arc<Config>,
        upstreams: Arc<Upstreams>,
        logs: Arc<Logs>,
        board: Arc<Board>,
    ) -> Arc<Self> {
        let addresses = config.listeners.iter().map(|listener| listener.address.clone());
        let listeners = addresses.enumerate().map(|(index, address)| (address, index)).collect();
        let loaded = board.load(number, config.bytes);
        Arc::new(Self { number, config, upstreams, logs, loaded, board, listeners })
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
