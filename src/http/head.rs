//! Request and response heads: tokenised by httparse, judged by the rules of HANDSHAKE.
//!
//! A head is parsed again whenever bytes arrive. What has not come to its end is only measured (one pass of memchr over its
//! line ends), and of its content just the first line is judged, so a head that is dripped byte by byte costs little and is
//! still refused as early as its first bytes allow. The same bytes are refused for the same reason however they arrive.

mod extent;
mod lines;
mod request;
mod response;

use std::borrow::Cow;

pub use request::{parse_request, request_line};
pub use response::parse_response;

use super::{body::Framing, fields::Fields};

/// HTTP version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// Bounds of a request head, from the server block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadLimits {
    /// Largest request line and largest single field, bytes with the line's end (`large_client_header_buffers` size).
    pub line_bytes: usize,
    /// Largest head, bytes (`large_client_header_buffers` number x size).
    pub head_bytes: usize,
    /// Most fields (`max_headers`).
    pub fields: usize,
    /// Keep fields whose name has an underscore (`underscores_in_headers`).
    pub underscores: bool,
    /// Collapse `//` in the path used for matching (`merge_slashes`).
    pub merge_slashes: bool,
}

/// Where parsing stands.
#[derive(Debug)]
pub enum Parsed<T> {
    /// More bytes are needed; what is there is acceptable so far.
    Partial,
    /// The head, and the number of bytes it took.
    Complete(T, usize),
}

/// A request head that passed every rule of HANDSHAKE's first table.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// As sent: an upper-case token.
    pub method: Box<str>,
    /// As sent: origin-form, absolute-form, or `*` (OPTIONS).
    pub target: Box<[u8]>,
    /// 1.0 or 1.1.
    pub version: Version,
    /// Every field that was kept.
    pub fields: Fields,
    /// The host name of the request in lower case, without port: from the absolute target, else from Host, else empty.
    pub host: Box<[u8]>,
    /// Host as sent, with its port, or empty.
    pub authority: Box<[u8]>,
    /// The path for matching: percent-decoded, dot segments resolved, slashes merged. Starts with `/`.
    pub path: Vec<u8>,
    /// The part after `?` as sent, without `?`; none when there is no `?`.
    pub query: Option<Box<[u8]>>,
    /// Framing of the body.
    pub body: Framing,
    /// The connection may carry another request after this one.
    pub keep_alive: bool,
    /// `Expect: 100-continue` was sent.
    pub expects_continue: bool,
}

impl RequestHead {
    /// Path and query as sent, without scheme and authority: what nginx calls `$request_uri` and what is forwarded.
    /// An absolute target whose path is empty has the path `/` (RFC 9112 section 3.2.1), but with OPTIONS and without a query it means the
    /// server as a whole (section 3.2.4).
    pub fn origin_form(&self) -> Cow<'_, [u8]> {
        match request::split_target(&self.target) {
            request::Target::Origin(target) => Cow::Borrowed(target),
            request::Target::Asterisk => Cow::Borrowed(b"*"),
            request::Target::Absolute { rest: b"", .. } if &*self.method == "OPTIONS" => Cow::Borrowed(b"*"),
            request::Target::Absolute { rest, .. } if rest.starts_with(b"/") => Cow::Borrowed(rest),
            request::Target::Absolute { rest, .. } => Cow::Owned([b"/", rest].concat()),
            request::Target::Other => Cow::Borrowed(b"/"),
        }
    }
}

/// A backend's response head that passed the rules.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// 100 to 599.
    pub status: u16,
    /// As sent; may be empty.
    pub reason: Box<[u8]>,
    /// 1.0 or 1.1.
    pub version: Version,
    /// Every field.
    pub fields: Fields,
    /// What they say of its body: see [`super::body::response_framing`].
    pub body: Framing,
    /// The connection may be used again after this response.
    pub keep_alive: bool,
}

/// The first line with its end, or what has come of it, cut where its bound cuts it.
fn first_line(head: &[u8], bound: usize) -> &[u8] {
    let line = &head[..head.len().min(bound)];
    memchr::memchr(b'\n', line).map_or(line, |newline| &line[..=newline])
}

/// What `Connection` says about the connection after this message; without it HTTP/1.1 keeps it and 1.0 does not
/// (RFC 9112 section 9.3).
fn keeps_alive(fields: &Fields, version: Version) -> bool {
    match version {
        _ if fields.lists("connection", "close") => false,
        Version::Http11 => true,
        Version::Http10 => fields.lists("connection", "keep-alive"),
    }
}

#[cfg(test)]
mod tests;
