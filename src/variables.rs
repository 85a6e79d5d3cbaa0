//! nginx's variables and the texts that contain them.
//!
//! A [`Template`] is compiled once from the configuration and expanded for every request by a [`Scope`].

use std::sync::{LazyLock, OnceLock};

use jiff::tz::TimeZone;

use crate::{limits::EXPANSION_BYTES, proxy_protocol::Tlv};

/// `$nginx_version`: the stable release of nginx whose language and variables this program speaks. Who asks wants to know
/// what to expect, and the program's own version would read as an nginx of the year 2002.
pub const NGINX_VERSION: &str = "1.28.0";

/// `$hostname`, also in `server_name`: this machine's name in lower case, as it was when first asked for (nginx: at
/// start).
pub fn hostname() -> &'static str {
    static HOSTNAME: OnceLock<String> = OnceLock::new();
    HOSTNAME.get_or_init(|| {
        let name = nix::unistd::gethostname().unwrap_or_default();
        name.to_string_lossy().to_ascii_lowercase()
    })
}

/// The zone of `$time_local`, `$time_iso8601` and the error log: what `TZ` or /etc/localtime said when first asked for. Read once, as nginx'
/// libc does: a worker may not open files, and would be on UTC once jiff looks again, after five minutes.
pub fn local_zone() -> TimeZone {
    static ZONE: LazyLock<TimeZone> = LazyLock::new(TimeZone::system);
    ZONE.clone()
}

/// Index of a variable that requests can write: made by `set`, by a named capture, or by a `map`.
pub type Slot = usize;

/// A name after `$`, resolved when the configuration is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// One the program computes: `$host`, `$remote_addr` ...
    Known(Known),
    /// `$http_NAME`: a request field, in lower case with dashes.
    RequestField(Box<str>),
    /// `$sent_http_NAME`: a field of the answer to the client.
    SentField(Box<str>),
    /// `$upstream_http_NAME`: a field of the backend's answer.
    UpstreamField(Box<str>),
    /// `$arg_NAME`.
    Argument(Box<str>),
    /// `$cookie_NAME`.
    Cookie(Box<str>),
    /// `$proxy_protocol_tlv_NAME`.
    ProxyProtocolTlv(Tlv),
    /// `$1` to `$9`: the captures of the last matched regular expression.
    Capture(u8),
    /// Written by `set` or by a named capture `(?<name>...)`.
    Slot(Slot),
    /// The value of `map` number N, computed when first used.
    Map(usize),
}

macro_rules! known {
    ($($(#[$doc:meta])* $name:ident $text:literal,)*) => {
        /// Variables the program computes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Known { $($(#[$doc])* #[doc = concat!("`$", $text, "`")] $name,)* }
        impl Known {
            /// Every name, for "did you mean".
            pub const NAMES: &'static [&'static str] = &[$($text,)*];
            /// The variable of this name (without `$`).
            pub fn named(name: &str) -> Option<Known> {
                match name { $($text => Some(Known::$name),)* _ => None }
            }
            /// Its name without `$`.
            pub fn name(self) -> &'static str { match self { $(Known::$name => $text,)* } }
        }
    };
}

known! {
    Host "host",
    RemoteAddr "remote_addr",
    RemotePort "remote_port",
    RemoteUser "remote_user",
    BinaryRemoteAddr "binary_remote_addr",
    RealipRemoteAddr "realip_remote_addr",
    RealipRemotePort "realip_remote_port",
    ProxyProtocolAddr "proxy_protocol_addr",
    ProxyProtocolPort "proxy_protocol_port",
    ProxyProtocolServerAddr "proxy_protocol_server_addr",
    ProxyProtocolServerPort "proxy_protocol_server_port",
    ProxyAddXForwardedFor "proxy_add_x_forwarded_for",
    ProxyHost "proxy_host",
    ProxyPort "proxy_port",
    Scheme "scheme",
    Https "https",
    ServerName "server_name",
    ServerAddr "server_addr",
    ServerPort "server_port",
    ServerProtocol "server_protocol",
    Request "request",
    RequestMethod "request_method",
    RequestUri "request_uri",
    Uri "uri",
    DocumentUri "document_uri",
    Args "args",
    QueryString "query_string",
    IsArgs "is_args",
    RequestId "request_id",
    RequestLength "request_length",
    RequestTime "request_time",
    RequestCompletion "request_completion",
    ContentLength "content_length",
    ContentType "content_type",
    Status "status",
    BytesSent "bytes_sent",
    BodyBytesSent "body_bytes_sent",
    BytesReceived "bytes_received",
    LimitConnStatus "limit_conn_status",
    LimitReqStatus "limit_req_status",
    Connection "connection",
    ConnectionRequests "connection_requests",
    ConnectionTime "connection_time",
    Msec "msec",
    TimeLocal "time_local",
    TimeIso8601 "time_iso8601",
    Hostname "hostname",
    Pid "pid",
    Pipe "pipe",
    NginxVersion "nginx_version",
    UpstreamAddr "upstream_addr",
    UpstreamStatus "upstream_status",
    UpstreamConnectTime "upstream_connect_time",
    UpstreamHeaderTime "upstream_header_time",
    UpstreamResponseTime "upstream_response_time",
    UpstreamResponseLength "upstream_response_length",
    UpstreamBytesSent "upstream_bytes_sent",
    UpstreamBytesReceived "upstream_bytes_received",
    SslProtocol "ssl_protocol",
    SslCipher "ssl_cipher",
    SslCurve "ssl_curve",
    SslServerName "ssl_server_name",
    SslSessionReused "ssl_session_reused",
    /// Ours: why the tunnel or request ended (`client_closed`, `idle_timeout` ...), `-` while it lives.
    CloseReason "close_reason",
    /// Ours: what a tunnel's line is about (`open`, `interval`, `close`); none for a plain request.
    TunnelEvent "tunnel_event",
    /// Ours: websocket frames from the client.
    FramesReceived "frames_received",
    /// Ours: websocket frames to the client.
    FramesSent "frames_sent",
}

impl Known {
    /// True when a tunnel's value is known only at its end.
    pub const fn waits_for_the_end(self) -> bool {
        matches!(
            self,
            Self::RequestTime
                | Self::RequestLength
                | Self::RequestCompletion
                | Self::BytesSent
                | Self::BodyBytesSent
                | Self::BytesReceived
                | Self::ConnectionTime
                | Self::Msec
                | Self::TimeLocal
                | Self::TimeIso8601
                | Self::UpstreamResponseTime
                | Self::UpstreamResponseLength
                | Self::UpstreamBytesSent
                | Self::UpstreamBytesReceived
                | Self::CloseReason
                | Self::TunnelEvent
                | Self::FramesReceived
                | Self::FramesSent
        )
    }
}

/// Text with variables in it, compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// Its pieces in order; empty for the empty text.
    pub parts: Vec<Part>,
}

/// A piece of a [`Template`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Bytes as they stand.
    Text(Box<[u8]>),
    /// A variable's value; nothing when it has none.
    Variable(Variable),
}

/// What a template is expanded against: one request.
pub trait Scope {
    /// Appends the variable's value to `out`. False, and nothing appended, when it has no value:
    /// an access log prints that as `-`.
    fn append(&mut self, variable: &Variable, out: &mut Vec<u8>) -> bool;
}

impl Template {
    /// A template without variables.
    pub fn text(text: impl Into<Vec<u8>>) -> Self {
        let text: Vec<u8> = text.into();
        if text.is_empty() {
            return Self::default();
        }
        Self { parts: vec![Part::Text(text.into_boxed_slice())] }
    }

    /// The text of a template that has no variables.
    pub fn constant(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// True unless it is plain that no text in it was percent-decoded on its way.
    pub fn may_be_decoded(&self) -> bool {
        use Variable::{Capture, Known as Program, Map, Slot};
        let decoded = |part: &Part| {
            let Part::Variable(variable) = part else { return false };
            matches!(variable, Program(Known::Uri | Known::DocumentUri) | Capture(_) | Slot(_) | Map(_))
        };
        self.parts.iter().any(decoded)
    }

    /// Appends the expansion to `out`, cut at [`EXPANSION_BYTES`].
    pub fn expand_into(&self, scope: &mut dyn Scope, out: &mut Vec<u8>) {
        let start = out.len();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(variable) => {
                    scope.append(variable, out);
                }
            }
            if out.len() - start > EXPANSION_BYTES {
                out.truncate(start + EXPANSION_BYTES);
                return;
            }
        }
    }

    /// The expansion.
    pub fn expand(&self, scope: &mut dyn Scope) -> Vec<u8> {
        let mut out = Vec::new();
        self.expand_into(scope, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variable is a text of ours; `$1` has no value.
    struct Fixed(&'static [u8]);

    impl Scope for Fixed {
        fn append(&mut self, variable: &Variable, out: &mut Vec<u8>) -> bool {
            let known = *variable != Variable::Capture(1);
            out.extend_from_slice(if known { self.0 } else { b"" });
            known
        }
    }

    fn template(variable: Variable) -> Template {
        Template {
            parts: vec![
                Part::Text(b"<".as_slice().into()),
                Part::Variable(variable),
                Part::Text(b">".as_slice().into()),
            ],
        }
    }

    #[test]
    fn variables_are_put_between_the_texts_and_missing_ones_are_empty() {
        assert_eq!(template(Variable::Slot(0)).expand(&mut Fixed(b"x")), b"<x>");
        assert_eq!(template(Variable::Capture(1)).expand(&mut Fixed(b"x")), b"<>");
    }

    #[test]
    fn an_expansion_is_cut_at_its_limit_and_leaves_alone_what_was_there() {
        let long: &'static [u8] = &[b'x'; EXPANSION_BYTES + 1];
        let mut out = b"before".to_vec();
        template(Variable::Slot(0)).expand_into(&mut Fixed(long), &mut out);
        assert_eq!(out.len(), "before".len() + EXPANSION_BYTES);
    }

    #[test]
    fn only_a_text_without_variables_is_constant() {
        assert_eq!(Template::text("").constant(), Some(b"".as_slice()));
        assert_eq!(Template::text("a").constant(), Some(b"a".as_slice()));
        assert_eq!(template(Variable::Slot(0)).constant(), None);
    }

    #[test]
    fn every_name_finds_its_variable() {
        for name in Known::NAMES {
            assert_eq!(Known::named(name).map(Known::name), Some(*name));
        }
        assert_eq!(Known::named("no_such"), None);
    }
}
