//! `listen`: where connections come in, and how their sockets are set up.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use crate::route::server_name::{ServerId, ServerNames};

/// One address, and the servers that listen on it.
#[derive(Debug)]
pub struct Listener {
    /// Where.
    pub address: ListenAddress,
    /// Socket options.
    pub options: ListenOptions,
    /// `ssl`.
    pub ssl: bool,
    /// `proxy_protocol`: connections begin with its header.
    pub proxy_protocol: bool,
    /// The server for names that none has: `default_server`, else the first.
    pub default: ServerId,
    /// Names of every server on this address.
    pub names: ServerNames,
    /// All servers on this address.
    pub servers: Vec<ServerId>,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket's path.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// `listen`'s parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// `backlog=`; default 511 as nginx, raised by the guide in `tuning`.
    pub backlog: i32,
    /// `rcvbuf=`, bytes.
    pub rcvbuf: Option<usize>,
    /// `sndbuf=`, bytes.
    pub sndbuf: Option<usize>,
    /// `so_keepalive=`. None: off. Default: [`KeepAlive::OURS`], unlike nginx's, which is the system's.
    pub keepalive: Option<KeepAlive>,
    /// `tcp_user_timeout` of the default server; zero: the system's.
    pub user_timeout: Duration,
    /// `ipv6only=`; default on.
    pub ipv6only: bool,
    /// `fastopen=`
    pub fastopen: Option<i32>,
    /// `deferred`
    pub deferred: bool,
}

/// `so_keepalive=idle:interval:count`; None: the system's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeepAlive {
    /// TCP_KEEPIDLE
    pub idle: Option<Duration>,
    /// TCP_KEEPINTVL
    pub interval: Option<Duration>,
    /// TCP_KEEPCNT
    pub count: Option<u32>,
}

impl KeepAlive {
    /// A peer that vanished is noticed within two minutes: the first probe leaves after one of silence, below what NATs and balancers wait
    /// for (Azure's 4 minutes, AWS' 350 s), and a million idle connections send 17,000 packets a second. The system's default is
    /// two hours.
    pub const OURS: Self =
        Self { idle: Some(Duration::from_secs(60)), interval: Some(Duration::from_secs(15)), count: Some(4) };
}
