//! One request, from its head to its line in the access log: what nginx's variables are read from.

pub mod routing;
mod variables;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::SockAddr;

use crate::{
    config::{Config, Listener, Location, Server, Settings, TunnelEvent},
    http::{
        body::Framing,
        fields::Fields,
        head::{RequestHead, Version},
    },
    proxy_protocol::Proxied,
    route::{
        location::LocationId,
        rewrite::{Captures, Rewritable},
        server_name::ServerId,
    },
    tls::TlsFacts,
    variables::Slot,
    zone::{Limited, Place},
};

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6 with port.
    Tcp(SocketAddr),
    /// A unix socket: nginx shows `unix:` with the path where there is one.
    Unix(Box<str>),
}

impl From<&SockAddr> for Address {
    fn from(address: &SockAddr) -> Self {
        match address.as_socket() {
            Some(address) => Self::Tcp(address),
            None => Self::Unix(
                address
                    .as_pathname()
                    .map(|path| path.to_string_lossy().into_owned())
                    .unwrap_or_default()
                    .into_boxed_str(),
            ),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{path}"),
        }
    }
}

impl Address {
    /// Its IP address; none of a unix socket.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }
}

/// What is known of a client's connection, for all of its requests.
#[derive(Debug, Clone)]
pub struct ClientConnection {
    /// Serial number in this process (`$connection`).
    pub serial: u64,
    /// Who.
    pub remote: Address,
    /// At which address of ours.
    pub local: Address,
    /// Whose connection it is by its PROXY protocol header, where the listener asks for one and it names somebody.
    pub proxied: Option<Box<Proxied>>,
    /// TLS, once its handshake is done.
    pub tls: Option<TlsFacts>,
    /// When it was accepted.
    pub accepted: Instant,
}

/// One attempt at a backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attempt {
    /// Address tried.
    pub address: Arc<str>,
    /// Status of its answer, or 502/504 for what went wrong; 0 until known.
    pub status: u16,
    /// When it began, since [`Request::started`].
    pub began: Duration,
    /// To establish the connection, TLS included.
    pub connect_time: Option<Duration>,
    /// Until the response head was there.
    pub header_time: Option<Duration>,
    /// Until the end of the response.
    pub response_time: Option<Duration>,
    /// Bytes sent to it.
    pub bytes_sent: u64,
    /// Bytes received from it.
    pub bytes_received: u64,
    /// Bytes of its response's body.
    pub body_bytes: u64,
    /// What has gone through the tunnel that it became.
    pub tunnelled: Traffic,
}

/// What has gone through a tunnel so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes from the client, without TLS.
    pub from_client: u64,
    /// Bytes to the client.
    pub from_upstream: u64,
    /// Frames from the client.
    pub frames_from_client: u64,
    /// Frames to the client.
    pub frames_from_upstream: u64,
}

/// A request being served.
pub struct Request {
    /// The configuration it is served by.
    pub config: Arc<Config>,
    /// Its connection.
    pub client: Arc<ClientConnection>,
    /// Who sent it, where somebody who is believed (`set_real_ip_from`) said so: see [`Request::remote`].
    pub real_ip: Option<Address>,
    /// Which request of the connection it is, from 1.
    pub ordinal: u64,
    /// Its head; a refused head leaves an empty one.
    pub head: RequestHead,
    /// The request line as it arrived, for `$request`, also where the head was refused.
    pub line: Box<[u8]>,
    /// Bytes of head and body received.
    pub received: u64,
    /// What has gone through its tunnel.
    pub tunnelled: Traffic,
    /// What its line is about, once it is a tunnel.
    pub event: Option<TunnelEvent>,
    /// When its first byte came.
    pub started: Instant,
    /// `$uri` as it stands after rewrites.
    pub uri: Vec<u8>,
    /// `$args` as they stand after rewrites.
    pub args: Vec<u8>,
    /// True once a rewrite or an internal redirect changed the URI: what is forwarded is then built from `uri`.
    pub uri_changed: bool,
    /// False after `rewrite ... break`: `uri` is then forwarded whole, and the URI part of `proxy_pass` is ignored.
    pub prefix_matched: bool,
    /// True once a rewrite, `error_page` or `try_files` changed the request: `internal` locations are open to it.
    pub internal: bool,
    /// Changes of the URI so far, against [`crate::limits::INTERNAL_REDIRECTS`].
    pub redirects: u8,
    /// An `error_page` is being served: there is no error page of an error page.
    pub error_paged: bool,
    /// The status an `error_page` wants the answer of its target to have, whatever that answer's own status.
    pub error_status: Option<u16>,
    /// Variables written so far, by slot.
    pub slots: Vec<Option<Vec<u8>>>,
    /// Map values computed so far, by map.
    pub mapped: Vec<Option<Vec<u8>>>,
    /// `$1`...
    pub captures: Vec<Vec<u8>>,
    /// They are of a text that was percent-decoded, and so are these variables.
    captures_decoded: bool,
    decoded_slots: Vec<Slot>,
    /// Server chosen.
    pub server: ServerId,
    /// Location chosen.
    pub location: Option<LocationId>,
    /// `$proxy_host` and `$proxy_port`.
    pub proxy_host: Box<str>,
    /// See `proxy_host`.
    pub proxy_port: Box<str>,
    /// Backends tried.
    pub attempts: Vec<Attempt>,
    /// The backend's response fields (`$upstream_http_NAME`).
    pub upstream_fields: Fields,
    /// Status sent; 0 until known.
    pub status: u16,
    /// Fields sent (`$sent_http_NAME`).
    pub sent_fields: Fields,
    /// Bytes sent to the client.
    pub bytes_sent: u64,
    /// Of these, the body (for a tunnel: what went through it).
    pub body_bytes_sent: u64,
    /// Why it ended.
    pub close_reason: Option<&'static str>,
    /// `$request_id`, made when first used.
    pub id: Option<[u8; 16]>,
    /// Nesting of variables being computed.
    pub depth: u8,
    /// It was received together with the end of the request before it (`$pipe`).
    pub pipelined: bool,
    /// Its answer was sent whole (`$request_completion`).
    pub completed: bool,
    /// What `limit_conn` said; none: it was not asked.
    pub limit_conn_status: Option<Limited>,
    /// What `limit_req` said; none: it was not asked.
    pub limit_req_status: Option<Limited>,
    /// Its places in zones of `limit_conn`, for as long as it or its tunnel lives.
    pub places: Vec<Place>,
}

impl Request {
    /// A request whose head was accepted. `server` is what holds until [`Request::choose_server`]: the listener's
    /// default, or the one TLS chose by SNI. `line` is the request line as it arrived.
    pub fn new(
        config: Arc<Config>,
        client: Arc<ClientConnection>,
        ordinal: u64,
        server: ServerId,
        head: RequestHead,
        line: impl Into<Box<[u8]>>,
        started: Instant,
    ) -> Self {
        Self {
            uri: head.path.clone(),
            args: head.query.as_deref().unwrap_or_default().to_vec(),
            slots: vec![None; config.slots.len()],
            mapped: vec![None; config.maps.len()],
            config,
            client,
            real_ip: None,
            ordinal,
            head,
            line: line.into(),
            received: 0,
            tunnelled: Traffic::default(),
            event: None,
            started,
            uri_changed: false,
            prefix_matched: true,
            internal: false,
            redirects: 0,
            error_paged: false,
            error_status: None,
            captures: Vec::new(),
            captures_decoded: false,
            decoded_slots: Vec::new(),
            server,
            location: None,
            proxy_host: Box::default(),
            proxy_port: Box::default(),
            attempts: Vec::new(),
            upstream_fields: Fields::default(),
            status: 0,
            sent_fields: Fields::default(),
            bytes_sent: 0,
            body_bytes_sent: 0,
            close_reason: None,
            id: None,
            depth: 0,
            pipelined: false,
            completed: false,
            limit_conn_status: None,
            limit_req_status: None,
            places: Vec::new(),
        }
    }

    /// The request's tunnel at a moment of its life.
    pub fn tunnel(&mut self, event: TunnelEvent, traffic: Traffic, now: Instant) {
        self.event = Some(event);
        self.tunnelled = traffic;
        let lived = now.saturating_duration_since(self.started);
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.tunnelled = traffic;
            attempt.response_time = Some(lived.saturating_sub(attempt.began));
        }
    }

    /// A request whose head was refused, or never came: for the answer and the line in the log. `line` is the first line
    /// of what arrived, as far as it arrived.
    pub fn refused(
        config: Arc<Config>,
        client: Arc<ClientConnection>,
        ordinal: u64,
        server: ServerId,
        line: impl Into<Box<[u8]>>,
        started: Instant,
    ) -> Self {
        Self::new(config, client, ordinal, server, no_head(), line, started)
    }

    /// Chooses the server block by the request's host name; without a match it stays the one chosen so far.
    pub fn choose_server(&mut self, listener: &Listener) {
        let Some(found) = listener.names.find(&self.head.host) else { return };
        self.server = found.server;
        self.set_captures(Captures { numbered: found.captures, named: found.named }, false);
    }

    /// The server block.
    pub fn server(&self) -> &Server {
        &self.config.servers[self.server]
    }

    /// The location, once one is chosen.
    pub fn location(&self) -> Option<&Location> {
        self.location.and_then(|location| self.server().locations.get(location))
    }

    /// The settings in force: the location's, or the server's while no location is chosen.
    pub fn settings(&self) -> &Arc<Settings> {
        self.location().map_or(&self.server().settings, |location| &location.settings)
    }

    /// Limits of its location have not judged it yet. Once some have, on whatever way it goes on, they do not again (as in nginx).
    pub fn awaits_limits(&self) -> bool {
        let settings = self.settings();
        let of_requests = self.limit_req_status.is_none() && !settings.limit_req.limits.is_empty();
        of_requests || self.limit_conn_status.is_none() && !settings.limit_conn.limits.is_empty()
    }

    /// Who sent it: whom a proxy in front names that is believed, else the connection's other end.
    pub fn remote(&self) -> &Address {
        self.real_ip.as_ref().unwrap_or(&self.client.remote)
    }

    /// Asks for the client's address by the settings in force, until it is found. As in nginx that is done twice, by the server's
    /// settings before anything else, and by the location's before its access rules.
    pub fn find_real_ip(&mut self) {
        if self.real_ip.is_none()
            && let Some(real_ip) = &self.settings().real_ip
        {
            let proxied = self.client.proxied.as_ref().map(|proxied| proxied.source);
            let found = real_ip.find(self.client.remote.ip(), &self.head.fields, proxied);
            self.real_ip = found.map(Address::Tcp);
        }
    }

    /// `$scheme`
    pub fn scheme(&self) -> &'static str {
        if self.client.tls.is_some() { "https" } else { "http" }
    }

    /// A location where the client can find it: before a path comes `scheme://host[:port]` of the request (nginx's
    /// `absolute_redirect on`), with the port the client connected to unless it is the scheme's own. Nothing comes before it for a
    /// client that named no host, on a unix socket of a server without name.
    pub fn absolute(&self, location: Vec<u8>) -> Vec<u8> {
        if !location.starts_with(b"/") {
            return location;
        }
        let local = match &self.client.local {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        };
        let host = match local {
            Some(SocketAddr::V6(local)) if self.head.host.is_empty() => format!("[{}]", local.ip()),
            Some(SocketAddr::V4(local)) if self.head.host.is_empty() => local.ip().to_string(),
            _ => String::from_utf8_lossy(self.host()).into_owned(),
        };
        if host.is_empty() {
            return location;
        }
        let scheme = self.scheme();
        let default_port = if scheme == "https" { 443 } else { 80 };
        let port = local.map(|local| local.port()).filter(|port| *port != default_port);
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        [format!("{scheme}://{host}{port}").into_bytes(), location].concat()
    }

    /// `$host`: the name asked for, else the server's own.
    pub fn host(&self) -> &[u8] {
        if self.head.host.is_empty() { self.server().name.as_bytes() } else { &self.head.host }
    }
}

/// What stands for a head that is not there.
fn no_head() -> RequestHead {
    RequestHead {
        method: Box::default(),
        target: Box::default(),
        version: Version::Http11,
        fields: Fields::default(),
        host: Box::default(),
        authority: Box::default(),
        path: Vec::new(),
        query: None,
        body: Framing::None,
        keep_alive: false,
        expects_continue: false,
    }
}

impl Rewritable for Request {
    fn uri(&self) -> &[u8] {
        &self.uri
    }

    fn args(&self) -> &[u8] {
        &self.args
    }

    fn was_encoded(&self) -> bool {
        let path = self.head.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        path.iter().any(|byte| matches!(byte, b'%' | b'+'))
    }

    fn set_uri(&mut self, uri: Vec<u8>, args: Vec<u8>) {
        self.uri = uri;
        self.args = args;
        self.uri_changed = true;
        self.internal = true;
    }

    fn set_args(&mut self, args: Vec<u8>) {
        self.args = args;
        self.uri_changed = true;
    }

    fn leave_prefix(&mut self) {
        self.prefix_matched = false;
    }

    fn set_location(&mut self, location: LocationId) {
        self.location = Some(location);
    }

    fn set_slot(&mut self, slot: Slot, value: Vec<u8>) {
        if let Some(written) = self.slots.get_mut(slot) {
            *written = Some(value);
            self.decoded_slots.retain(|decoded| *decoded != slot);
        }
    }

    fn set_captures(&mut self, captures: Captures, decoded: bool) {
        self.captures = captures.numbered;
        self.captures_decoded = decoded;
        for (slot, value) in captures.named {
            self.set_slot(slot, value);
            if decoded {
                self.decoded_slots.push(slot);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
