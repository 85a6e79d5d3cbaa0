//! The configuration: nginx's language read into one immutable value.
//!
//! `lexer` and `tree` turn text into directives with places, `directives` is the table of what each may be,
//! `build` makes the typed [`Config`] of it, `lint` says what will surprise its author.

mod bind;
mod build;
mod check;
pub mod diagnostic;
pub mod directives;
mod events;
mod follow;
mod level;
mod lexer;
mod limit;
pub mod lint;
mod listen;
mod load;
mod logs;
pub(crate) mod names;
mod settings;
pub(crate) mod template;
#[cfg(test)]
mod tests;
pub(crate) mod tree;
mod upstream;
pub(crate) mod values;

pub use bind::{Bind, Sources};
pub use events::{TunnelEvent, TunnelEvents};
pub use limit::{LimitConn, LimitReq, ONE_REQUEST, Pace, UpgradeRate, Zone};
pub use listen::{KeepAlive, ListenAddress, ListenOptions, Listener};
pub use load::{LoadOptions, Loaded, Source, load};
pub use logs::{AccessLog, ErrorLog, Escape, Level, LogBuffer, LogFormat, LogTarget};
pub use settings::{AddHeader, ErrorPage, NextUpstream, Redirect, Settings};
pub use upstream::{BackendAddress, KeepIdle, Upstream, UpstreamServer};

pub use crate::route::origin::Origin;

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    http::head::HeadLimits,
    route::{location::Locations, map::Map, rewrite::Script},
    tls::ServerTls,
    variables::Template,
};

/// Everything one file (and its includes) says.
#[derive(Debug)]
pub struct Config {
    /// The main context and `events`.
    pub main: Main,
    /// One for each distinct address of the file.
    pub listeners: Vec<Listener>,
    /// Server blocks in the order of the file.
    pub servers: Vec<Server>,
    /// Upstream groups, and one implicit group for each `proxy_pass` to a host or address without `upstream` block.
    pub upstreams: Vec<Upstream>,
    /// `map` blocks, by [`crate::variables::Variable::Map`]'s number.
    pub maps: Vec<Map>,
    /// Names of the writable variables, by slot.
    pub slots: Vec<Box<str>>,
    /// `limit_conn_zone`
    pub connection_zones: Vec<Zone>,
    /// `limit_req_zone`, and its `rate=` in thousandths of a request per second.
    pub request_zones: Vec<(Zone, u64)>,
    /// `upgrade_rate`; none: off.
    pub upgrade_rate: Option<UpgradeRate>,
    /// Size of its text, includes too, bytes.
    pub bytes: u64,
}

/// The main context.
#[derive(Debug, Clone)]
pub struct Main {
    /// Worker threads (`worker_processes`; `auto` = cores this process may use). Default `auto`: unlike nginx's 1.
    pub workers: usize,
    /// CPU for each worker (`worker_cpu_affinity`; default `auto`: worker N on the N-th allowed core). None: not pinned.
    pub affinity: Option<Vec<Vec<usize>>>,
    /// `worker_rlimit_nofile`.
    pub nofile: Option<u64>,
    /// `worker_connections`: connections (client and backend) a worker may have. None: what nofile allows.
    pub worker_connections: Option<usize>,
    /// `busy_poll`: how long a worker asks for events before it sleeps. Zero: it sleeps at once.
    pub busy_poll: Duration,
    /// `user NAME [GROUP]`; honoured when started as root.
    pub user: Option<(Box<str>, Option<Box<str>>)>,
    /// `pid FILE`. None: no pid file.
    pub pid: Option<PathBuf>,
    /// How a process ends that is told to quit.
    pub drain: Drain,
    /// `daemon on`. Default off: unlike nginx.
    pub daemon: bool,
    /// `use io_uring | epoll`.
    pub driver: Driver,
    /// `sandbox`
    pub sandbox: Sandbox,
    /// `upgrade_timeout`: how long the program that replaces this one may take to be ready.
    pub upgrade_timeout: Duration,
    /// `error_log` of the main context; servers' and locations' own are in [`Settings`].
    pub error_logs: Vec<ErrorLog>,
    /// The prefix (`-p`).
    pub prefix: PathBuf,
}

/// `worker_shutdown_timeout`, `drain_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// `drain_delay` (0s): everything is served as before meanwhile, but the status says that this process ends.
    pub delay: Duration,
    /// `drain_timeout` (30s): time over which tunnels are asked to end.
    pub window: Duration,
    /// `worker_shutdown_timeout` (60s): when whoever is left is closed.
    pub timeout: Duration,
    /// `drain_close_code` (1001).
    pub code: u16,
    /// `drain_on_reload` (off)
    pub on_reload: bool,
}

/// `use`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// epoll: the default, since it measures better (one system call a wake-up less).
    Epoll,
    /// io_uring waits for the epoll instance; falls back with a line in the log.
    IoUring,
}

/// `sandbox`: what becomes of rights that nobody needs once the program serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sandbox {
    /// They are given up, as far as the kernel has the means.
    #[default]
    On,
    /// Calls that would fail are made, and the kernel logs them; files stay as open as they are.
    Log,
    /// `user` says it all, as in nginx.
    Off,
}

/// A `server` block.
#[derive(Debug)]
pub struct Server {
    /// The first name, for `$server_name` and logs; may be empty.
    pub name: Box<str>,
    /// `file:line` of the block.
    pub place: Box<str>,
    /// Bounds of request heads.
    pub head: HeadLimits,
    /// `client_header_timeout`
    pub header_timeout: Duration,
    /// TLS, when any listener of it is `ssl`.
    pub tls: Option<Arc<ServerTls>>,
    /// The server's own rewrite directives.
    pub script: Script,
    /// Which location.
    pub routes: Locations,
    /// The locations, by id, those made by `if` blocks included.
    pub locations: Vec<Location>,
    /// Settings while no location is chosen.
    pub settings: Arc<Settings>,
}

/// A `location` block (or an `if` block in one that has settings of its own).
#[derive(Debug)]
pub struct Location {
    /// As written, for logs: `/ws/`, `~ \.php$`, `@fallback`.
    pub name: Box<str>,
    /// `internal`
    pub internal: bool,
    /// Rewrite directives.
    pub script: Script,
    /// What a request here gets once the script is through.
    pub content: Content,
    /// Everything else.
    pub settings: Arc<Settings>,
}

/// Where the answer of a location comes from.
#[derive(Debug)]
pub enum Content {
    /// `proxy_pass`
    Proxy(ProxyPass),
    /// Nothing: 404, since no files are served here.
    NotFound,
    /// `try_files` whose files never exist here: its last argument.
    Fallback(Fallback),
    /// `status`: the live page and its JSON.
    Status {
        /// `status_admin`: tunnels may be closed and backends drained from there.
        admin: bool,
    },
    /// `metrics`: what Prometheus reads.
    Metrics,
    /// `stub_status`
    StubStatus,
}

/// The last argument of `try_files`, or the target of `error_page`.
#[derive(Debug, Clone)]
pub enum Fallback {
    /// `=404`
    Status(u16),
    /// `@name`
    Named(Box<str>),
    /// A path, with `?args` if any.
    Uri(Template),
}

/// `proxy_pass`.
#[derive(Debug)]
pub struct ProxyPass {
    /// To where.
    pub target: ProxyTarget,
    /// `https://`
    pub tls: bool,
    /// The URI part: replaces the part of the path the location matched. With variables: the whole request URI.
    pub uri: Option<Template>,
    /// Length of the location's prefix that `uri` replaces (0 with a regex, named or `if` location, where nginx has no URI part).
    pub prefix: usize,
}

/// The host part of `proxy_pass`.
#[derive(Debug)]
pub enum ProxyTarget {
    /// A group, and `$proxy_host` as it was written.
    Upstream(usize, Box<str>),
    /// A text with variables that expands to `host[:port]`, `unix:path` or a group's name, optionally with the scheme in
    /// front and a URI behind: judged at the request.
    Variable(Template),
}
