//! Upstream groups at run time: addresses, whose turn it is, who is out for now. Shared by all workers.

use std::{net::SocketAddr, path::PathBuf, time::Instant};

use crate::config::Config;

/// A resolved address of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Backend {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// Every group of a configuration, by [`crate::config::ProxyTarget::Upstream`]'s number.
#[derive(Debug)]
pub struct Upstreams {
    /// The groups.
    pub groups: Vec<Group>,
}

/// One group: each address of each of its servers is a peer.
#[derive(Debug)]
pub struct Group {}

/// A peer chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Index of the peer in its group.
    pub peer: usize,
    /// Its address.
    pub backend: Backend,
}

/// Peers a request has tried.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    // a bit set
}

/// A backend whose name did not resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// `file:line:column`.
    pub place: String,
    /// nginx's words: `host not found in upstream "x"`, with the resolver's reason.
    pub message: String,
}

impl Upstreams {
    /// Resolves every name (on helper threads, bounded in time) and makes the groups.
    ///
    /// # Errors
    /// Every name that has no address.
    pub fn resolve(_config: &Config) -> Result<Self, Vec<Unresolved>> {
        unimplemented!()
    }
}

impl Group {
    /// Number of peers, backups included.
    pub fn len(&self) -> usize {
        unimplemented!()
    }

    /// True without peers (never, by construction).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whose turn it is: smooth weighted round robin among the peers that are not down, not counted out and not yet tried;
    /// then the backups. A peer counted out for `fail_timeout` gets one request after it. As nginx, a group of one peer is never
    /// counted out. None: no peer is left (nginx: "no live upstreams").
    pub fn choose(&self, _tried: &mut Tried, _now: Instant) -> Option<Choice> {
        unimplemented!()
    }

    /// The peer failed. True when that counts it out now (worth a line in the log).
    pub fn failed(&self, _peer: usize, _now: Instant) -> bool {
        unimplemented!()
    }

    /// The peer answered.
    pub fn succeeded(&self, _peer: usize) {
        unimplemented!()
    }
}
