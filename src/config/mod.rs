//! The configuration: nginx's language read into one immutable value.
//!
//! `lexer` and `tree` turn text into directives with places, `directives` is the table of what each may be,
//! `build` makes the typed [`Config`] of it, `lint` says what will surprise its author.

mod build;
mod check;
pub mod diagnostic;
pub mod directives;
mod events;
mod follow;
mod level;
mod lexer;
pub mod lint;
mod load;
mod names;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod values;

pub use events::{TunnelEvent, TunnelEvents};
pub use load::{LoadOptions, Loaded, Source, load};

pub use crate::route::origin::Origin;

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    http::head::HeadLimits,
    route::{
        access::Rule,
        location::Locations,
        map::Map,
        rewrite::{Regex, Script},
        server_name::{ServerId, ServerNames},
    },
    tls::{BackendTls, ServerTls},
    variables::Template,
    websocket::handshake::Protocols,
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

/// One address, and the servers that listen on it.
#[derive(Debug)]
pub struct Listener {
    /// Where.
    pub address: ListenAddress,
    /// Socket options.
    pub options: ListenOptions,
    /// `ssl`.
    pub ssl: bool,
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

/// What is inherited down to a location.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `proxy_set_header`: name and value; an empty value removes the field. Includes none of the defaults
    /// (`Host $proxy_host`, `Connection close`), which are the forwarding's.
    pub set_headers: Vec<(Box<str>, Template)>,
    /// `proxy_http_version` 1.0 or 1.1; default 1.1.
    pub proxy_http_10: bool,
    /// `proxy_connect_timeout` (60s)
    pub connect_timeout: Duration,
    /// `proxy_read_timeout` (60s): for plain HTTP.
    pub read_timeout: Duration,
    /// `proxy_send_timeout` (60s)
    pub send_timeout: Duration,
    /// Idle time of a tunnel: `websocket_timeout` if set, else `proxy_read_timeout` if the file sets it, else 1h. Zero: never.
    pub tunnel_timeout: Duration,
    /// `websocket_max_lifetime` (off: zero).
    pub max_lifetime: Duration,
    /// Its `jitter=`, percent (10): so much of it may be missing.
    pub lifetime_jitter: u8,
    /// `websocket_ping` (off: zero).
    pub ping: Duration,
    /// `send_timeout` (60s), toward the client.
    pub client_send_timeout: Duration,
    /// `client_body_timeout` (60s)
    pub body_timeout: Duration,
    /// `keepalive_timeout` (75s); zero: no keep-alive.
    pub keepalive_timeout: Duration,
    /// Second argument of `keepalive_timeout`: sent as `Keep-Alive: timeout=`.
    pub keepalive_header: Option<u64>,
    /// `keepalive_requests` (1000)
    pub keepalive_requests: u64,
    /// `client_max_body_size`, bytes (1m); 0: no limit.
    pub max_body_bytes: u64,
    /// `add_header`
    pub add_headers: Vec<AddHeader>,
    /// `proxy_hide_header`, lower case, nginx's own (Date, Server, X-Pad, X-Accel-...) not included: Date and Server are left alone.
    pub hide_headers: Vec<Box<str>>,
    /// `proxy_pass_header`, lower case.
    pub pass_headers: Vec<Box<str>>,
    /// `proxy_redirect`; `default` is already expanded for the location.
    pub redirects: Vec<Redirect>,
    /// `proxy_method`
    pub method: Option<Template>,
    /// `proxy_buffer_size`: largest response head, bytes (default 16k: nginx's 4k/8k is often raised).
    pub response_head_bytes: usize,
    /// `error_page`
    pub error_pages: Vec<ErrorPage>,
    /// `proxy_intercept_errors`
    pub intercept_errors: bool,
    /// `proxy_next_upstream` and its limits.
    pub next_upstream: NextUpstream,
    /// `access_log`; empty: off.
    pub access_logs: Vec<AccessLog>,
    /// `access_log_interval` (off: zero).
    pub access_log_interval: Duration,
    /// `error_log`, when set below main: the lowest level written; empty: main's.
    pub error_logs: Vec<ErrorLog>,
    /// `upgrade_protocols`
    pub protocols: Protocols,
    /// `websocket_origin`; none: any.
    pub origins: Option<Vec<Origin>>,
    /// `proxy_ssl_*`
    pub backend_tls: Arc<BackendTls>,
    /// `proxy_ssl_name`: the name to verify and to send as SNI; none: `$proxy_host`, without a port.
    pub backend_tls_name: Option<Template>,
    /// `server_tokens`
    pub server_tokens: bool,
    /// `default_type`
    pub default_type: Box<str>,
    /// `proxy_socket_keepalive` (on)
    pub backend_keepalive: bool,
    /// `tcp_user_timeout` (120s); zero: the system's.
    pub user_timeout: Duration,
    /// `reset_timedout_connection`
    pub reset_timedout: bool,
    /// `allow` and `deny`, in the order of the file.
    pub access: Vec<Rule>,
}

/// `add_header`.
#[derive(Debug, Clone)]
pub struct AddHeader {
    /// Field name.
    pub name: Box<str>,
    /// Value; nothing is sent when it expands to nothing.
    pub value: Template,
    /// `always`: on every status, not only 200, 201, 204, 206, 301, 302, 303, 304, 307, 308.
    pub always: bool,
}

/// `proxy_redirect FROM TO`.
#[derive(Debug, Clone)]
pub enum Redirect {
    /// A prefix of Location (and Refresh) and what replaces it.
    Prefix(Template, Template),
    /// A regular expression and the whole new value.
    Regex(Regex, Template),
}

/// `error_page`.
#[derive(Debug, Clone)]
pub struct ErrorPage {
    /// Statuses it is for.
    pub statuses: Vec<u16>,
    /// `=CODE`, or `=` (0: the status of the page).
    pub status: Option<u16>,
    /// Where to. A full URL (`http://...`) becomes a 302.
    pub target: Fallback,
}

/// `proxy_next_upstream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextUpstream {
    /// `error`
    pub error: bool,
    /// `timeout`
    pub timeout: bool,
    /// `invalid_header`
    pub invalid_header: bool,
    /// `non_idempotent`
    pub non_idempotent: bool,
    /// `http_500` ... as statuses.
    pub statuses: Vec<u16>,
    /// `proxy_next_upstream_tries`; 0: no limit but the number of servers.
    pub tries: u32,
    /// `proxy_next_upstream_timeout`; zero: none.
    pub timeout_total: Duration,
}

/// `access_log`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Where to.
    pub target: LogTarget,
    /// The format, compiled.
    pub format: Arc<LogFormat>,
    /// `if=`
    pub condition: Option<Template>,
    /// `buffer=`; none: written at once.
    pub buffer: Option<LogBuffer>,
    /// `events=`
    pub events: TunnelEvents,
}

/// `buffer=SIZE [flush=TIME]` of `access_log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBuffer {
    /// Bytes that are gathered for one write.
    pub bytes: usize,
    /// Longest time a line waits for that; none: as long as it takes.
    pub flush: Option<Duration>,
}

/// `log_format`.
#[derive(Debug)]
pub struct LogFormat {
    /// Its name.
    pub name: Box<str>,
    /// How values are escaped.
    pub escape: Escape,
    /// The line.
    pub template: Template,
}

/// `escape=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// `"`, `\` and bytes outside 32 to 126 as `\xXX`; no value as `-`.
    Default,
    /// As JSON strings; no value as nothing.
    Json,
    /// As it is.
    None,
}

/// Where a log is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// A file, opened for appending.
    File(PathBuf),
    /// `stderr` and `/dev/stderr`.
    Stderr,
    /// `/dev/stdout`.
    Stdout,
}

/// `error_log FILE LEVEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorLog {
    /// Where to.
    pub target: LogTarget,
    /// Lowest level.
    pub level: Level,
}

/// nginx's levels, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Level {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

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
    /// `backup`
    pub backup: bool,
    /// `down`
    pub down: bool,
    /// `drain`: nothing new, and at a reload its tunnels are asked to end.
    pub drain: bool,
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
