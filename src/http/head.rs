//! Request and response heads: tokenised by httparse, judged by the rules of HANDSHAKE.

use super::{fields::Fields, refusal::Refusal};

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
    /// Largest request line and largest single field, bytes (`large_client_header_buffers` size).
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
    pub body: super::body::Framing,
    /// The connection may carry another request after this one.
    pub keep_alive: bool,
    /// `Expect: 100-continue` was sent.
    pub expects_continue: bool,
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
    /// The connection may be used again after this response.
    pub keep_alive: bool,
}

/// Parses a request head from the front of `buffer`. Empty lines before the request line: one is skipped.
///
/// # Errors
/// The refusal of HANDSHAKE's table; it is known as early as the bytes allow.
pub fn parse_request(_buffer: &[u8], _limits: &HeadLimits) -> Result<Parsed<RequestHead>, Refusal> {
    unimplemented!()
}

/// Parses a response head from the front of `buffer`, of at most `head_bytes` bytes (`proxy_buffer_size`).
///
/// # Errors
/// A 502 with the reason.
pub fn parse_response(_buffer: &[u8], _head_bytes: usize) -> Result<Parsed<ResponseHead>, Refusal> {
    unimplemented!()
}
