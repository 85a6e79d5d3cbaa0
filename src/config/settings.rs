//! What is inherited down to a location.

use std::{sync::Arc, time::Duration};

use super::{AccessLog, Bind, ErrorLog, Fallback, LimitConn, LimitReq};
use crate::{
    proxy_protocol,
    route::{access::Rule, origin::Origin, real_ip::RealIp, rewrite::Regex},
    tls::BackendTls,
    variables::Template,
    websocket::handshake::Protocols,
};

/// What is inherited down to a location.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `proxy_set_header`: name and value; an empty value removes the field. Includes none of the defaults
    /// (`Host $proxy_host`, `Connection close`), which are the forwarding's.
    pub set_headers: Vec<(Box<str>, Template)>,
    /// `proxy_http_version` 1.0 or 1.1; default 1.1.
    pub proxy_http_10: bool,
    /// `proxy_protocol`: the version of the header that connections to backends begin with; none: off.
    pub proxy_protocol: Option<proxy_protocol::Version>,
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
    /// `proxy_bind`; none: the kernel takes an address.
    pub bind: Option<Bind>,
    /// `proxy_socket_keepalive` (on)
    pub backend_keepalive: bool,
    /// `tcp_user_timeout` (120s); zero: the system's.
    pub user_timeout: Duration,
    /// `reset_timedout_connection`
    pub reset_timedout: bool,
    /// `allow` and `deny`, in the order of the file.
    pub access: Vec<Rule>,
    /// `limit_conn`
    pub limit_conn: LimitConn,
    /// `limit_req`
    pub limit_req: LimitReq,
    /// `set_real_ip_from` and its like; none: a client has its connection's address.
    pub real_ip: Option<RealIp>,
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
