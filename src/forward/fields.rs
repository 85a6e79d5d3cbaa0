//! Which fields pass from one connection to the other, and what a value may look like.

use crate::http::fields::Fields;

/// Fields that say something about one connection or frame one message, so they are never passed on as they are.
/// `Keep-Alive`, `Proxy-Connection` and `HTTP2-Settings` are old or foreign, but their senders mean the connection too.
const OURS: [&str; 9] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// True for a field that is ours to write.
pub(super) fn is_ours(name: &[u8]) -> bool {
    OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_bytes()))
}

/// True where `Connection` nominates a field and may: what a backend trusts a proxy to have set cannot be taken away by a
/// client that writes `Connection: X-Real-IP` (Traefik CVE-2024-45410).
pub(super) fn is_nominated(fields: &Fields, name: &[u8]) -> bool {
    const TRUSTED: [&str; 3] = ["forwarded", "host", "x-real-ip"];
    const TRUSTED_PREFIXES: [&str; 2] = ["x-forwarded-", "sec-websocket-"];
    let trusted = TRUSTED.iter().any(|trusted| name.eq_ignore_ascii_case(trusted.as_bytes()))
        || TRUSTED_PREFIXES.iter().any(|prefix| has_prefix(name, prefix));
    !trusted && fields.members("connection").any(|member| member.eq_ignore_ascii_case(name))
}

/// True where `name` begins with `prefix` (any case).
pub(super) fn has_prefix(name: &[u8], prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|front| front.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// The fields of a message that pass on to the other side.
pub(super) fn passing(fields: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.iter().filter(|(name, _)| !is_ours(name) && !is_nominated(fields, name))
}

/// A value made here, from variables or a redirect, fit for a field: control bytes, which could end the field and begin
/// another, come to stand percent-encoded. (nginx writes them as they are: `return 302 /x$uri` splits its response.)
pub(super) fn value(text: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(text.len());
    crate::route::escape::control(text.trim_ascii(), &mut value);
    value
}

/// Appends a field line.
pub(super) fn line(out: &mut Vec<u8>, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    for part in [name.as_ref(), b": ", value.as_ref(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}
