//! One request, from its head to its line in the access log: what nginx's variables are read from.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    http::{fields::Fields, head::RequestHead},
    route::{location::LocationId, server_name::ServerId},
    tls::TlsFacts,
};

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6 with port.
    Tcp(SocketAddr),
    /// A unix socket: nginx shows `unix:` with the path where there is one.
    Unix(Box<str>),
}

/// What is known of a client's connection, for all of its requests.
#[derive(Debug)]
pub struct ClientConnection {
    /// Serial number in this process (`$connection`).
    pub serial: u64,
    /// Who.
    pub remote: Address,
    /// At which address of ours.
    pub local: Address,
    /// TLS, once its handshake is done.
    pub tls: Option<TlsFacts>,
    /// When it was accepted.
    pub accepted: Instant,
}

/// One attempt at a backend.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attempt {
    /// Address tried.
    pub address: Box<str>,
    /// Status of its answer, or 502/504 for what went wrong; 0 until known.
    pub status: u16,
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
}

/// A request being served.
pub struct Request {
    /// The configuration it is served by.
    pub config: Arc<Config>,
    /// Its connection.
    pub client: Rc<ClientConnection>,
    /// Which request of the connection it is, from 1.
    pub ordinal: u64,
    /// Its head; a refused head leaves an empty one.
    pub head: RequestHead,
    /// The request line as it arrived, for `$request`, also where the head was refused.
    pub line: Box<[u8]>,
    /// Bytes of head and body received.
    pub received: u64,
    /// When its first byte came.
    pub started: Instant,
    /// `$uri` as it stands after rewrites.
    pub uri: Vec<u8>,
    /// `$args` as they stand after rewrites.
    pub args: Vec<u8>,
    /// True once a rewrite or an internal redirect changed the URI: what is forwarded is then built from `uri`.
    pub uri_changed: bool,
    /// Variables written so far, by slot.
    pub slots: Vec<Option<Vec<u8>>>,
    /// Map values computed so far, by map.
    pub mapped: Vec<Option<Vec<u8>>>,
    /// `$1`...
    pub captures: Vec<Vec<u8>>,
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
}
