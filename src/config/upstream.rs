//! `upstream`: groups of backends.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// An `upstream` group.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name, or `host:port` of an implicit group.
    pub name: Box<str>,
    /// `file:line:column` where it was named, for an error about its address.
    pub place: Box<str>,
    /// Its servers.
    pub servers: Vec<UpstreamServer>,
    /// An `upstream` block (not made by a `proxy_pass` to an address).
    pub declared: bool,
    /// `keepalive` and its like; none: connections serve one request.
    pub keepalive: Option<KeepIdle>,
}

/// Which connections to backends are kept for another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepIdle {
    /// `keepalive`: so many that wait, in each worker.
    pub connections: usize,
    /// `keepalive_requests` (1000): so many requests each carries.
    pub requests: u64,
    /// `keepalive_timeout` (60s): so long one waits.
    pub timeout: Duration,
    /// `keepalive_time` (1h): none older is kept.
    pub lifetime: Duration,
}

/// `server` in `upstream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Where.
    pub address: BackendAddress,
    /// As written, for logs.
    pub name: Box<str>,
    /// `weight=` (1)
    pub weight: u32,
    /// `max_fails=` (1); 0: never counted out.
    pub max_fails: u32,
    /// `fail_timeout=` (10s)
    pub fail_timeout: Duration,
    /// `max_conns=` (0: no limit): requests and tunnels at once, of all workers.
    pub max_conns: u32,
    /// `backup`
    pub backup: bool,
    /// `down`
    pub down: bool,
    /// `drain`: nothing new, and at a reload its tunnels are asked to end.
    pub drain: bool,
}

impl UpstreamServer {
    /// With the defaults of nginx for everything else.
    pub fn new(address: BackendAddress, name: &str) -> Self {
        Self {
            address,
            name: name.into(),
            weight: 1,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            max_conns: 0,
            backup: false,
            down: false,
            drain: false,
        }
    }
}

/// A backend's address before names are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// A literal address.
    Ip(SocketAddr),
    /// A name to resolve.
    Name(Box<str>, u16),
    /// A unix socket's path.
    Unix(PathBuf),
}
