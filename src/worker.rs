//! A worker: one pinned thread, one monoio runtime, its own listening sockets, tunnel table, wheel and inbox.

use std::{os::fd::OwnedFd, sync::Arc, thread::JoinHandle};

use crate::{
    config::Config,
    observe::{Logs, counters::Counters},
    upstream::Upstreams,
};

/// What a worker starts with.
pub struct Plan {
    /// 0, 1, ...
    pub id: usize,
    /// CPUs it may run on; none: not pinned.
    pub cpus: Option<Vec<usize>>,
    /// The configuration.
    pub config: Arc<Config>,
    /// Backends' state, shared.
    pub upstreams: Arc<Upstreams>,
    /// Logs, shared.
    pub logs: Arc<Logs>,
    /// What this worker counts; the server reads it.
    pub counters: Arc<Counters>,
    /// A bound and listening socket for each of `config.listeners`, in its order.
    pub sockets: Vec<OwnedFd>,
}

/// A message to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Close everything now.
    Stop,
    /// Accept nothing more; finish requests; end when the last tunnel has gone.
    Quit,
}

/// A running worker.
pub struct Handle {
    /// Its thread; ends after `Stop` or a finished `Quit`.
    pub thread: JoinHandle<()>,
    // inbox
}

impl Handle {
    /// Sends a message.
    pub fn send(&self, _message: Message) {
        unimplemented!()
    }
}

/// Starts a worker.
///
/// # Errors
/// No thread, no epoll instance, no eventfd.
pub fn start(_plan: Plan) -> std::io::Result<Handle> {
    unimplemented!()
}
