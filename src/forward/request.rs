//! The head a backend gets.

use std::sync::Arc;

use super::{
    fields::{is_ours, line, passing, value},
    target::request_target,
};
use crate::{
    config::{ProxyPass, Settings},
    http::{
        body::Framing,
        fields::{Fields, is_token, list},
        refusal::{Flaw, Refusal},
    },
    request::Request,
    websocket::handshake::Upgrade,
};

const BAD_METHOD: Flaw = Flaw::new("bad_proxy_method", "proxy_method expands to no token");
const LENGTH_REQUIRED: Flaw =
    Flaw::new("length_required", "a chunked body for a backend that is spoken to in HTTP/1.0 (proxy_http_version)");

/// The method the backend gets: `proxy_method`, else the client's; an upgrade is always a GET. The framing of the response
/// depends on it.
///
/// # Errors
/// 500 where `proxy_method` expands to no token.
pub fn backend_method(request: &mut Request, upgrade: Option<&Upgrade>) -> Result<Box<str>, Refusal> {
    let settings = Arc::clone(request.settings());
    let method = settings.method.as_ref().filter(|_| upgrade.is_none()).map(|method| method.expand(request));
    let Some(method) = method.filter(|method| !method.is_empty()) else { return Ok(request.head.method.clone()) };
    let method = String::from_utf8(method).ok().filter(|method| is_token(method.as_bytes()));
    method.map(Into::into).ok_or(BAD_METHOD.refuse(500))
}

/// The request line and head for the backend. `request.proxy_host` must be set: it is the default Host.
///
/// `upgrade` is what [`crate::websocket::handshake::judge_request`] allowed; without it neither `Upgrade` nor
/// `Connection: upgrade` is sent, whatever the file says. `keep`: nor `Connection: close` ([`keeps_backend`]). `Expect` is left out: the proxy answers it.
///
/// # Errors
/// 411 for a chunked body where `proxy_http_version 1.0` is set: its length would have to be known before it has come, and
/// nothing here keeps a body. 500 where variables of the file expand to what cannot be sent.
pub fn request_head(
    request: &mut Request,
    pass: &ProxyPass,
    upgrade: Option<&Upgrade>,
    keep: bool,
) -> Result<Vec<u8>, Refusal> {
    let settings = Arc::clone(request.settings());
    // There is no upgrade in 1.0.
    let http_10 = settings.proxy_http_10 && upgrade.is_none();
    if http_10 && request.head.body == Framing::Chunked {
        return Err(LENGTH_REQUIRED.refuse(411));
    }
    let method = backend_method(request, upgrade)?;
    let target = request_target(request, pass)?;
    let set = SetFields::expand(request, &settings, upgrade);

    let mut out = Vec::with_capacity(target.len() + 1024);
    for part in [method.as_bytes(), b" ", &target, if http_10 { b" HTTP/1.0\r\n" } else { b" HTTP/1.1\r\n" }] {
        out.extend_from_slice(part);
    }
    line(&mut out, "Host", set.host().unwrap_or(request.proxy_host.as_bytes()));
    connection_lines(upgrade, keep, &mut out);
    framing_line(request.head.body, &mut out);
    set.append(&mut out);
    for (name, value) in passing(&request.head.fields) {
        let answered = name.eq_ignore_ascii_case(b"expect");
        let superseded = name.eq_ignore_ascii_case(b"host") || set.names(name);
        if !answered && !superseded {
            line(&mut out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

/// In HTTP/1.1 a connection that nobody says anything about is kept.
fn connection_lines(upgrade: Option<&Upgrade>, keep: bool, out: &mut Vec<u8>) {
    match upgrade {
        Some(upgrade) => {
            line(out, "Upgrade", upgrade.token.as_bytes());
            line(out, "Connection", "upgrade");
        }
        None if keep => {}
        None => line(out, "Connection", "close"),
    }
}

/// True where the backend's connection is fit for another request: HTTP/1.1, and no `proxy_set_header Connection` that comes to
/// `close`. An upgrade has its own use for it.
pub fn keeps_backend(request: &mut Request, upgrade: Option<&Upgrade>) -> bool {
    let settings = Arc::clone(request.settings());
    if upgrade.is_some() || settings.proxy_http_10 || authenticates_connection(&request.head.fields) {
        return false;
    }
    let mut set = settings.set_headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection"));
    let closes = |text: &[u8]| list(text).any(|member| member.eq_ignore_ascii_case(b"close"));
    !set.any(|(_, template)| closes(&template.expand(request)))
}

/// NTLM and Negotiate may prove who is at a connection and not who sent a request (RFC 4559 section 6): nobody else may have it then.
fn authenticates_connection(fields: &Fields) -> bool {
    let of_connection =
        |scheme: &[u8]| [&b"ntlm"[..], b"negotiate"].iter().any(|name| scheme.eq_ignore_ascii_case(name));
    fields.all("authorization").any(|value| value.split(u8::is_ascii_whitespace).next().is_some_and(of_connection))
}

/// The body goes on as it came, only that chunks get sizes of ours.
fn framing_line(body: Framing, out: &mut Vec<u8>) {
    match body {
        Framing::Length(length) => line(out, "Content-Length", length.to_string()),
        Framing::Chunked => line(out, "Transfer-Encoding", "chunked"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// What `proxy_set_header` lines come to: they take the place of the client's fields of these names.
struct SetFields<'a> {
    fields: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> SetFields<'a> {
    fn expand(request: &mut Request, settings: &'a Settings, upgrade: Option<&Upgrade>) -> Self {
        let websocket = upgrade.is_some_and(|upgrade| upgrade.websocket.is_some());
        // The answer is judged by the key the client sent, so the backend must see that one.
        let handshake = |name: &str| {
            name.eq_ignore_ascii_case("sec-websocket-key") || name.eq_ignore_ascii_case("sec-websocket-version")
        };
        let ours = |name: &str| is_ours(name.as_bytes()) || websocket && handshake(name);
        let fields = settings.set_headers.iter().filter(|(name, _)| !ours(name));
        Self { fields: fields.map(|(name, template)| (&**name, value(&template.expand(request)))).collect() }
    }

    fn names(&self, name: &[u8]) -> bool {
        self.fields.iter().any(|(set, _)| name.eq_ignore_ascii_case(set.as_bytes()))
    }

    /// The first Host that is not empty. (nginx sends none at all where it is empty, which no 1.1 backend may accept.)
    fn host(&self) -> Option<&[u8]> {
        let host = |(name, value): &&(&str, Vec<u8>)| name.eq_ignore_ascii_case("host") && !value.is_empty();
        self.fields.iter().find(host).map(|(_, value)| value.as_slice())
    }

    /// An empty value removes the field.
    fn append(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.fields {
            if !value.is_empty() && !name.eq_ignore_ascii_case("host") {
                line(out, name, value);
            }
        }
    }
}
