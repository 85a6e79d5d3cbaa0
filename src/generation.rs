//! One reading of the configuration, and what was made of it.
//!
//! A session, its requests and its tunnel are served by the generation that was current when they began; a reload makes the next one
//! current and changes nothing in those before it. A generation is freed when the last who was served by it has gone.

use std::sync::Arc;

use crate::{
    config::Config,
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
}

impl Generation {
    /// The first of a program.
    pub fn first(config: Arc<Config>, upstreams: Arc<Upstreams>, logs: Arc<Logs>, board: &Board) -> Arc<Self> {
        let loaded = board.load(1, config.bytes);
        Arc::new(Self { number: 1, config, upstreams, logs, loaded })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A generation of a configuration made by hand; its log goes to stderr.
    pub(crate) fn generation(config: Arc<Config>) -> Arc<Generation> {
        let upstreams = Arc::new(Upstreams::resolve(&config).unwrap());
        let logs = Logs::open(&config).unwrap();
        Generation::first(config, upstreams, logs, &Board::default())
    }
}
