//! The head a client gets.

use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;

use super::{
    fields::{has_prefix, is_ours, line, passing, value},
    redirect::rewritten,
};
use crate::{
    config::Settings,
    http::{
        body::{Framing, is_bodiless},
        date::imf_fixdate,
        fields::Fields,
        head::ResponseHead,
        refusal::{phrase, status_sent},
    },
    request::Request,
    websocket::handshake::Upgrade,
};

/// The head of a backend's response for the client, with the body framed as `framing` says (never chunked to a 1.0 client:
/// the caller chooses). Records status and fields in the request.
///
/// Date and Server are the backend's; a missing Date is added. Of a response without body to HEAD, and of a 304, the backend's
/// Content-Length is kept: it says what a GET would bring. Where `error_page` wants another status, it has that one.
pub fn response_head(request: &mut Request, head: &ResponseHead, framing: Framing, client_keep_alive: bool) -> Vec<u8> {
    let settings = Arc::clone(request.settings());
    let mut reply = Reply::new(request, request.error_status.unwrap_or(head.status));
    reply.pass(request, head, &settings);
    if framing == Framing::None && (&*request.head.method == "HEAD" || head.status == 304) {
        reply.keep_length(&head.fields);
    }
    reply.date_if_missing();
    reply.add(request, &settings);
    reply.frame(framing);
    reply.connection(&settings, client_keep_alive && framing != Framing::UntilClose);
    let reason = if reply.status == head.status { &head.reason } else { phrase(reply.status).as_bytes() };
    reply.finish(request, reason)
}

/// The 101 that opens a tunnel for the client. Records status and fields in the request.
pub fn switching_head(request: &mut Request, head: &ResponseHead, upgrade: &Upgrade) -> Vec<u8> {
    let settings = Arc::clone(request.settings());
    let mut reply = Reply::new(request, 101);
    reply.field("Upgrade", upgrade.token.as_bytes());
    reply.field("Connection", b"upgrade");
    reply.pass(request, head, &settings);
    reply.add(request, &settings);
    reply.finish(request, phrase(101).as_bytes())
}

/// A backend's 1xx that passes through: not for a 1.0 client, which does not know such answers.
pub fn interim_head(head: &ResponseHead) -> Vec<u8> {
    let mut out = status_line(head.status, &head.reason);
    for (name, value) in passing(&head.fields) {
        line(&mut out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// A complete answer of our own: `return`, redirects, error pages. Records status and fields in the request.
///
/// `extra` are fields beyond those of every answer (Location, [`crate::http::refusal::Refusal::fields`]). An empty
/// `content_type` is left out. `head_only`: an answer to HEAD. The bytes are empty for 444 and 499, with which nothing is sent.
pub fn own_response(
    request: &mut Request,
    status: u16,
    content_type: &str,
    body: &[u8],
    extra: &[(&str, &[u8])],
    keep_alive: bool,
    head_only: bool,
) -> Vec<u8> {
    let settings = Arc::clone(request.settings());
    let mut reply = Reply::new(request, status_sent(status));
    if matches!(status, 444 | 499) {
        return Vec::new();
    }
    let bodiless = is_bodiless("", status);
    reply.field("Server", if settings.server_tokens { PRODUCT_AND_VERSION } else { "longsplice" }.as_bytes());
    reply.date_if_missing();
    if !bodiless {
        if !content_type.is_empty() {
            reply.field("Content-Type", content_type.as_bytes());
        }
        reply.frame(Framing::Length(body.len() as u64));
    }
    for (name, text) in extra {
        reply.field(name, value(text));
    }
    reply.add(request, &settings);
    reply.connection(&settings, keep_alive);
    let mut out = reply.finish(request, phrase(status_sent(status)).as_bytes());
    if !head_only && !bodiless {
        out.extend_from_slice(body);
    }
    out
}

const PRODUCT_AND_VERSION: &str = concat!("longsplice/", env!("CARGO_PKG_VERSION"));

fn status_line(status: u16, reason: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(format!("HTTP/1.1 {status} ").as_bytes());
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
    out
}

/// Text of the backend, of the file, or made here.
type Text<'a> = Cow<'a, [u8]>;

/// A response head in the making.
struct Reply<'a> {
    status: u16,
    fields: Vec<(Text<'a>, Text<'a>)>,
}

impl<'a> Reply<'a> {
    /// `$status` has its value from here on: `add_header` may use it.
    fn new(request: &mut Request, status: u16) -> Self {
        request.status = status;
        Self { status, fields: Vec::with_capacity(24) }
    }

    fn field(&mut self, name: &'a str, value: impl Into<Text<'a>>) {
        self.fields.push((Cow::Borrowed(name.as_bytes()), value.into()));
    }

    fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// The backend's fields that are neither of its connection nor hidden, addresses in them made ours.
    fn pass(&mut self, request: &mut Request, head: &'a ResponseHead, settings: &Settings) {
        for (name, value) in passing(&head.fields).filter(|(name, _)| !is_hidden(name, settings)) {
            let rewritten = rewritten(request, &settings.redirects, name, value);
            self.fields.push((name.into(), rewritten.map_or(value.into(), Cow::Owned)));
        }
    }

    fn keep_length(&mut self, fields: &'a Fields) {
        if let Ok(Some(length)) = fields.single("content-length") {
            self.field("Content-Length", length);
        }
    }

    /// RFC 9110 section 6.6.1: who passes on an answer without Date adds one.
    fn date_if_missing(&mut self) {
        if let Some(date) = imf_fixdate(Timestamp::now()).filter(|_| !self.has("date")) {
            self.field("Date", date.into_bytes());
        }
    }

    /// `add_header`. As in nginx it takes the place of the backend's ETag and Last-Modified, and otherwise stands beside its fields.
    fn add(&mut self, request: &mut Request, settings: &'a Settings) {
        const PLAIN: [u16; 10] = [200, 201, 204, 206, 301, 302, 303, 304, 307, 308];
        let plain = PLAIN.contains(&self.status);
        // `$sent_http_NAME` sees what the answer has so far.
        request.sent_fields = self.sent();
        for add in settings.add_headers.iter().filter(|add| !is_ours(add.name.as_bytes()) && (add.always || plain)) {
            let value = value(&add.value.expand(request));
            if ["etag", "last-modified"].iter().any(|name| add.name.eq_ignore_ascii_case(name)) {
                self.fields.retain(|(name, _)| !name.eq_ignore_ascii_case(add.name.as_bytes()));
            }
            if !value.is_empty() {
                self.field(&add.name, value);
            }
        }
    }

    fn frame(&mut self, framing: Framing) {
        match framing {
            Framing::Length(length) => self.field("Content-Length", length.to_string().into_bytes()),
            Framing::Chunked => self.field("Transfer-Encoding", b"chunked".as_slice()),
            Framing::None | Framing::UntilClose => {}
        }
    }

    fn connection(&mut self, settings: &Settings, keep_alive: bool) {
        let connection: &[u8] = match (keep_alive, self.has("upgrade")) {
            (true, false) => b"keep-alive",
            (true, true) => b"keep-alive, upgrade",
            (false, false) => b"close",
            (false, true) => b"close, upgrade",
        };
        self.field("Connection", connection);
        if let Some(timeout) = settings.keepalive_header.filter(|_| keep_alive) {
            self.field("Keep-Alive", format!("timeout={timeout}").into_bytes());
        }
    }

    fn sent(&self) -> Fields {
        Fields::from_pairs(self.fields.iter().map(|(name, value)| (&**name, &**value)))
    }

    fn finish(self, request: &mut Request, reason: &[u8]) -> Vec<u8> {
        request.sent_fields = self.sent();
        let mut out = status_line(self.status, reason);
        for (name, value) in &self.fields {
            line(&mut out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// What the backend says to nginx and not to the client, and `proxy_hide_header`; unless `proxy_pass_header` lets it pass.
fn is_hidden(name: &[u8], settings: &Settings) -> bool {
    let among = |names: &[Box<str>]| names.iter().any(|hidden| name.eq_ignore_ascii_case(hidden.as_bytes()));
    let hidden = has_prefix(name, "x-accel-") || name.eq_ignore_ascii_case(b"x-pad") || among(&settings.hide_headers);
    hidden && !among(&settings.pass_headers)
}
