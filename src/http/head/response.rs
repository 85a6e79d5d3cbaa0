//! A backend's response head.

use super::{
    Parsed, ResponseHead, Version,
    extent::{self, Bounds},
    first_line, keeps_alive, lines,
};
use crate::{
    http::{
        body::declared_framing,
        refusal::{Flaw, Refusal},
    },
    limits::RESPONSE_FIELDS,
};

const NOT_HTTP: Flaw =
    Flaw::new("upstream_not_http", "the backend's answer does not begin with an HTTP/1.x status line");
const TOO_LARGE: Flaw = Flaw::new("upstream_head_too_large", "the backend's response head is over proxy_buffer_size");
const TOO_MANY: Flaw = Flaw::new("upstream_too_many_fields", "the backend's response head has too many fields");

/// Parses a response head from the front of `buffer`, of at most `head_bytes` bytes (`proxy_buffer_size`).
///
/// # Errors
/// A 502 with the reason.
pub fn parse_response(buffer: &[u8], head_bytes: usize) -> Result<Parsed<ResponseHead>, Refusal> {
    parse(buffer, head_bytes).map_err(|flaw| flaw.refuse(502))
}

fn parse(buffer: &[u8], head_bytes: usize) -> Result<Parsed<ResponseHead>, Flaw> {
    let line = StatusLine::parse(first_line(buffer, head_bytes))?;
    let bounds = Bounds { line: head_bytes, head: head_bytes, fields: RESPONSE_FIELDS };
    let extent = extent::measure(buffer, bounds).map_err(|excess| match excess {
        extent::Excess::Fields => TOO_MANY,
        _ => TOO_LARGE,
    })?;
    let (Some(line), Some(extent)) = (line, extent) else { return Ok(Parsed::Partial) };
    let raw = buffer.get(line.len..extent.head).unwrap_or_default();
    let fields = lines::fields(raw, extent.fields, |_| true)?;
    let keep_alive = keeps_alive(&fields, line.version);
    let head = ResponseHead {
        status: line.status,
        reason: line.reason.into(),
        version: line.version,
        // Of a response without a body too: its fields are passed on, and somebody may believe them.
        body: declared_framing(&fields, line.version)?,
        fields,
        keep_alive,
    };
    Ok(Parsed::Complete(head, extent.head))
}

/// A status line that is whole and well formed.
struct StatusLine<'a> {
    status: u16,
    reason: &'a [u8],
    version: Version,
    /// Bytes with the line's end.
    len: usize,
}

impl<'a> StatusLine<'a> {
    /// `HTTP/1.1 200`
    const CODE_END: usize = 12;

    /// Judges what has come of a status line; none when it is acceptable so far.
    fn parse(line: &'a [u8]) -> Result<Option<Self>, Flaw> {
        // httparse would skip empty lines, which no backend has a reason to send.
        if matches!(line.first(), Some(b'\r' | b'\n')) {
            return Err(NOT_HTTP);
        }
        let mut parsed = httparse::Response::new(&mut []);
        parsed.parse(line).map_err(|_| NOT_HTTP)?;
        if parsed.code.is_some_and(|code| !(100..=599).contains(&code)) {
            return Err(NOT_HTTP);
        }
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        let (Some(version), Some(status)) = (parsed.version, parsed.code) else { return Err(NOT_HTTP) };
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        // httparse gives no reason at all where it has a high byte.
        let reason = line.get(Self::CODE_END..).unwrap_or_default().trim_ascii();
        Ok(Some(Self { status, reason, version, len: line.len() }))
    }
}
