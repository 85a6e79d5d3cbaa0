//! Upstream groups at run time: addresses, whose turn it is, who is out for now. Shared by all workers.

mod group;
pub(crate) mod open;
pub mod ports;
mod resolve;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

pub use self::{
    group::{Choice, Group, Seen, Tried},
    open::{Held, Leg, Open},
};
use crate::config::{Config, Upstream};

/// A resolved address of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Backend {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Backend {
    /// As `$upstream_addr` shows it: `127.0.0.1:3000`, `[::1]:3000`, `unix:/run/app.sock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Every group of a configuration, by [`crate::config::ProxyTarget::Upstream`]'s number.
#[derive(Debug)]
pub struct Upstreams {
    /// The groups. One that a reload leaves as it is belongs to both configurations.
    pub groups: Vec<Arc<Group>>,
    /// What is open, whatever configuration began it.
    pub open: Arc<Open>,
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
    /// Resolves every name (on helper threads, bounded in time) and makes the groups. Blocks: for the control plane, not for a
    /// worker.
    ///
    /// # Errors
    /// Every name that has no address.
    pub fn resolve(config: &Config) -> Result<Self, Vec<Unresolved>> {
        Self::resolved(config, Arc::default())
    }

    fn resolved(config: &Config, open: Arc<Open>) -> Result<Self, Vec<Unresolved>> {
        let groups = resolve::groups(&config.upstreams, resolve::system)?;
        groups.iter().zip(&config.upstreams).for_each(|(group, upstream)| group.count_in(&open, &upstream.name));
        Ok(Self { groups: groups.into_iter().map(Arc::new).collect(), open })
    }

    /// Resolves those of the configuration that comes next. Groups that are as they were go on, and in the others the addresses that
    /// stay keep what has happened to them: a reload must not send requests to a backend that is known to be out.
    ///
    /// # Errors
    /// As [`Upstreams::resolve`].
    pub fn follow(&self, before: &Config, config: &Config) -> Result<Self, Vec<Unresolved>> {
        let Self { mut groups, open } = Self::resolved(config, Arc::clone(&self.open))?;
        for (group, upstream) in groups.iter_mut().zip(&config.upstreams) {
            let is_it = |known: &Upstream| (&known.name, known.declared) == (&upstream.name, upstream.declared);
            let Some(known) = before.upstreams.iter().position(is_it).and_then(|index| self.groups.get(index)) else {
                continue;
            };
            if group.is_as(known) {
                group.clone_from(known);
            } else {
                group.inherit(known);
            }
        }
        Ok(Self { groups, open })
    }
}
