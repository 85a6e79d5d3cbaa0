//! A request's head.

use super::{
    HeadLimits, Parsed, RequestHead, Version,
    extent::{self, Bounds, Excess},
    first_line, keeps_alive, lines,
};
use crate::http::{
    body::request_framing,
    fields::Fields,
    host::host_of,
    path,
    refusal::{Flaw, Refusal},
};

const TLS: Flaw = Flaw::new("tls_on_plain_port", "a TLS ClientHello where plain HTTP is spoken");
const BAD_METHOD: Flaw = Flaw::new("bad_method", "the method is no upper-case token followed by one space");
const BAD_TARGET: Flaw = Flaw::new("bad_target", "the request target is empty, or has a byte that may not stand there");
const BAD_FORM: Flaw = Flaw::new("bad_target_form", "the request target is neither a path nor an http URL");
const BAD_REQUEST_LINE: Flaw =
    Flaw::new("bad_request_line", "the request line does not end with HTTP/1.1 and a line end");
const NO_HOST: Flaw = Flaw::new("no_host", "an HTTP/1.1 request without Host");
const TWO_HOSTS: Flaw = Flaw::new("two_hosts", "more than one Host field");
const BAD_HOST: Flaw = Flaw::new("bad_host", "Host is no valid host[:port]");
const OTHER_HOST: Flaw = Flaw::new("host_mismatch", "the authority of the request target is not the one of Host");

/// Parses a request head from the front of `buffer`. Empty lines before the request line: one is skipped.
///
/// # Errors
/// The refusal of HANDSHAKE's table; it is known as early as the bytes allow.
pub fn parse_request(buffer: &[u8], limits: &HeadLimits) -> Result<Parsed<RequestHead>, Refusal> {
    let skipped = empty_line(buffer);
    let head = &buffer[skipped..];
    let line = RequestLine::parse(first_line(head, limits.line_bytes.min(limits.head_bytes)))?;
    let bounds = Bounds { line: limits.line_bytes, head: limits.head_bytes, fields: limits.fields };
    let extent = extent::measure(head, bounds).map_err(too_large)?;
    let (Some(line), Some(extent)) = (line, extent) else { return Ok(Parsed::Partial) };
    let kept = |name: &str| limits.underscores || !name.contains('_');
    let raw = head.get(line.len..extent.head).unwrap_or_default();
    let fields = lines::fields(raw, extent.fields, kept).map_err(bad_request)?;
    Ok(Parsed::Complete(judge(&line, fields, limits)?, skipped + extent.head))
}

fn bad_request(flaw: Flaw) -> Refusal {
    flaw.refuse(400)
}

/// Length of the empty line that may stand before a request line (RFC 9112 section 2.2).
fn empty_line(buffer: &[u8]) -> usize {
    match buffer {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => 0,
    }
}

/// The request line at the front of `buffer` as far as it has come, without its line end: what a log shows, also of a head
/// that is refused.
pub fn request_line(buffer: &[u8]) -> &[u8] {
    let line = first_line(&buffer[empty_line(buffer)..], usize::MAX);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn too_large(excess: Excess) -> Refusal {
    match excess {
        Excess::FirstLine => Refusal::new(414, "request_line_too_long", "over the size of large_client_header_buffers"),
        Excess::FieldLine => {
            Refusal::new(431, "field_too_long", "a field over the size of large_client_header_buffers")
        }
        Excess::Head => Refusal::new(431, "head_too_large", "over all of large_client_header_buffers"),
        Excess::Fields => Refusal::new(431, "too_many_fields", "more fields than max_headers"),
    }
}

/// A request line that is whole and well formed.
struct RequestLine<'a> {
    method: &'a str,
    target: &'a [u8],
    version: Version,
    /// Bytes with the line's end.
    len: usize,
}

impl<'a> RequestLine<'a> {
    /// Judges what has come of a request line; none when it is acceptable so far.
    fn parse(line: &'a [u8]) -> Result<Option<Self>, Refusal> {
        let mut parsed = httparse::Request::new(&mut []);
        let outcome = parsed.parse(line);
        if let Err(error) = outcome {
            return match (parsed.method, parsed.path) {
                // TLS record type 22, handshake (RFC 8446 section 5.1): no method begins with it.
                (None, _) if line.first() == Some(&0x16) => Err(TLS),
                (None, _) => Err(BAD_METHOD),
                (_, None) => Err(BAD_TARGET),
                _ if error == httparse::Error::Version => return other_version(line).map(|()| None),
                _ => Err(BAD_REQUEST_LINE),
            }
            .map_err(bad_request);
        }
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        // httparse skips more empty lines than we want to, and then finds nothing in what is left.
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(bad_request(BAD_REQUEST_LINE));
        };
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let line = Self { method, target: target.as_bytes(), version, len: line.len() };
        line.judge().map(|()| Some(line))
    }

    fn judge(&self) -> Result<(), Refusal> {
        if self.method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(bad_request(BAD_METHOD));
        }
        // nginx's answer as well: a tunnel to anywhere, and an echo of what the browser may not see.
        if matches!(self.method, "CONNECT" | "TRACE") {
            return Err(Refusal::new(405, "method_not_allowed", "CONNECT and TRACE are never served"));
        }
        if self.target.iter().any(|byte| *byte == b'#' || !byte.is_ascii()) {
            return Err(bad_request(BAD_TARGET));
        }
        match split_target(self.target) {
            Target::Other => Err(bad_request(BAD_FORM)),
            Target::Asterisk if self.method != "OPTIONS" => Err(bad_request(BAD_FORM)),
            _ => Ok(()),
        }
    }
}

/// Judges what stands where `HTTP/1.1` should: 505 for another version, 400 for anything else. Not refused while it may become
/// a version.
fn other_version(line: &[u8]) -> Result<(), Refusal> {
    let version = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    for (at, &byte) in version.iter().take(8).enumerate() {
        let fits = match at {
            5 | 7 => byte.is_ascii_digit(),
            _ => b"HTTP/_._".get(at) == Some(&byte),
        };
        if !fits {
            return Err(bad_request(BAD_REQUEST_LINE));
        }
    }
    if version.len() < 8 {
        return Ok(());
    }
    Err(Refusal::new(505, "http_version", "neither HTTP/1.1 nor HTTP/1.0"))
}

/// The forms of a request target (RFC 9112 section 3.2).
pub(super) enum Target<'a> {
    /// `/path?query`
    Origin(&'a [u8]),
    /// `http://authority/path?query`
    Absolute {
        /// `host[:port]`
        authority: &'a [u8],
        /// Path and query; the path may be empty.
        rest: &'a [u8],
    },
    /// `*`
    Asterisk,
    /// Neither.
    Other,
}

pub(super) fn split_target(target: &[u8]) -> Target<'_> {
    if target.starts_with(b"/") {
        return Target::Origin(target);
    }
    if target == b"*" {
        return Target::Asterisk;
    }
    let scheme = |scheme: &[u8]| {
        target
            .split_at_checked(scheme.len())
            .filter(|(found, _)| found.eq_ignore_ascii_case(scheme))
            .map(|(_, rest)| rest)
    };
    let Some(rest) = scheme(b"http://").or_else(|| scheme(b"https://")) else { return Target::Other };
    let authority_len = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(authority_len);
    Target::Absolute { authority, rest }
}

/// The rules that need the whole head.
fn judge(line: &RequestLine, fields: Fields, limits: &HeadLimits) -> Result<RequestHead, Refusal> {
    let (authority, origin): (_, &[u8]) = match split_target(line.target) {
        Target::Absolute { authority, rest } => (Some(authority), rest),
        Target::Origin(target) => (None, target),
        Target::Asterisk | Target::Other => (None, b""),
    };
    let authority: Box<[u8]> = authority_of(&fields, line.version, authority).map_err(bad_request)?.into();
    let host = match &*authority {
        [] => Box::default(),
        authority => host_of(authority).ok_or(BAD_HOST).map_err(bad_request)?,
    };
    let (path, query) = match memchr::memchr(b'?', origin) {
        Some(mark) => (&origin[..mark], Some(origin[mark + 1..].into())),
        None => (origin, None),
    };
    let path = path::normalise(path, limits.merge_slashes).map_err(bad_request)?;
    let body = request_framing(&fields, line.version)?;
    let keep_alive = keeps_alive(&fields, line.version);
    let expects_continue = line.version == Version::Http11 && fields.lists("expect", "100-continue");
    Ok(RequestHead {
        method: line.method.into(),
        target: line.target.into(),
        version: line.version,
        fields,
        host,
        authority,
        path,
        query,
        body,
        keep_alive,
        expects_continue,
    })
}

/// Who the request is for: Host, which 1.1 needs exactly once and with which an absolute target must agree. A 1.0 client may
/// leave Host out; then its absolute target, if it sent one, says it.
fn authority_of<'a>(fields: &'a Fields, version: Version, target: Option<&'a [u8]>) -> Result<&'a [u8], Flaw> {
    match (fields.single("host").map_err(|_| TWO_HOSTS)?, target) {
        (None, _) if version == Version::Http11 => Err(NO_HOST),
        (Some(b""), _) | (None, Some(b"")) => Err(BAD_HOST),
        (Some(host), Some(target)) if !host.eq_ignore_ascii_case(target) => Err(OTHER_HOST),
        (host, target) => Ok(host.or(target).unwrap_or_default()),
    }
}
