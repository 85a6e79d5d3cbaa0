//! Which requests may become a tunnel and which answers open one (RFC 6455 section 4, RFC 9110 section 7.8).

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::http::{
    body::Framing,
    fields::{Fields, is_token},
    head::{RequestHead, ResponseHead, Version},
    refusal::{Flaw, Refusal},
};

const TWO_UPGRADES: Flaw = Flaw::new("two_upgrades", "more than one Upgrade field");
const UPGRADE_METHOD: Flaw = Flaw::new("upgrade_method", "an upgrade by another method than GET");
const UPGRADE_WITH_BODY: Flaw = Flaw::new("upgrade_with_body", "an upgrade with Content-Length or Transfer-Encoding");
const VERSION: Flaw = Flaw::new("websocket_version", "Sec-WebSocket-Version is not the one number 13");
const TWO_KEYS: Flaw = Flaw::new("two_websocket_keys", "more than one Sec-WebSocket-Key field");
const BAD_KEY: Flaw = Flaw::new("bad_websocket_key", "Sec-WebSocket-Key is not 16 bytes in base64");

const UNASKED_101: Flaw = Flaw::new("upstream_unasked_101", "the backend switched protocols though nobody asked");
const OLD_101: Flaw = Flaw::new("upstream_bad_101", "the backend switched protocols in HTTP/1.0");
const WRONG_UPGRADE: Flaw = Flaw::new("upstream_wrong_upgrade", "the backend switched to a protocol nobody asked for");
const NO_CONNECTION: Flaw = Flaw::new("upstream_bad_101", "the backend's 101 has no Connection: upgrade");
const WRONG_ACCEPT: Flaw = Flaw::new("upstream_wrong_accept", "the backend's Sec-WebSocket-Accept is missing or wrong");
const WRONG_SUBPROTOCOL: Flaw =
    Flaw::new("upstream_wrong_subprotocol", "the backend chose a subprotocol nobody offered");
const WRONG_EXTENSION: Flaw =
    Flaw::new("upstream_wrong_extension", "the backend agreed to an extension nobody offered");

/// permessage-deflate's only bit, RSV1 (RFC 7692 section 6).
const RSV1: u8 = 0x40;
const RSV_ALL: u8 = 0x70;

/// Which Upgrade tokens may become a tunnel (`upgrade_protocols`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocols {
    /// Any token except `h2c`.
    Any,
    /// These, in lower case.
    Only(Vec<Box<str>>),
}

impl Protocols {
    /// `h2c` never is: it would let a client past every rule here by speaking HTTP/2 to the backend.
    fn allow(&self, token: &str) -> bool {
        let known = match self {
            Self::Any => true,
            Self::Only(tokens) => tokens.iter().any(|allowed| allowed.eq_ignore_ascii_case(token)),
        };
        // Its version, if somebody sends one, is not everybody's to look at.
        let name = token.split('/').next().unwrap_or_default();
        known && !name.eq_ignore_ascii_case("h2c")
    }
}

/// An upgrade the client asked for and the rules allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The only token that is forwarded, as the client spelt it.
    pub token: Box<str>,
    /// What makes it a websocket. None for another protocol, whose tunnel is opaque.
    pub websocket: Option<Offer>,
}

/// What a client's websocket handshake allows its answer to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The `Sec-WebSocket-Accept` a true backend will answer with.
    pub accept: [u8; 28],
    /// Names of the extensions offered: without one, no RSV bit may ever appear.
    pub extensions: Vec<Box<[u8]>>,
    /// Subprotocols offered.
    pub subprotocols: Vec<Box<[u8]>>,
}

/// Judges a request head: none when it is plain HTTP (no upgrade asked, or one whose `Connection` does not say so).
///
/// # Errors
/// 400 for a malformed upgrade, 426 for another WebSocket version, and so on: HANDSHAKE's section Upgrade.
/// An Upgrade token that is not allowed is plain HTTP: the field is simply not forwarded.
pub fn judge_request(head: &RequestHead, protocols: &Protocols) -> Result<Option<Upgrade>, Refusal> {
    // A 1.0 client that sends Upgrade does not mean it (RFC 9110 section 7.8).
    if head.version < Version::Http11 || !head.fields.lists("connection", "upgrade") {
        return Ok(None);
    }
    let Some(upgrade) = head.fields.single("upgrade").map_err(|_| TWO_UPGRADES.refuse(400))? else { return Ok(None) };
    let Some(token) = allowed_token(upgrade, protocols) else { return Ok(None) };
    if head.body != Framing::None {
        return Err(UPGRADE_WITH_BODY.refuse(400));
    }
    if &*head.method != "GET" {
        return Err(UPGRADE_METHOD.refuse(400));
    }
    let websocket = token.eq_ignore_ascii_case("websocket").then(|| offer(&head.fields)).transpose()?;
    Ok(Some(Upgrade { token: token.into(), websocket }))
}

/// The first protocol of a list that may become a tunnel.
fn allowed_token<'a>(upgrade: &'a [u8], protocols: &Protocols) -> Option<&'a str> {
    crate::http::fields::list(upgrade)
        .filter(|protocol| protocol.splitn(2, |byte| *byte == b'/').all(is_token))
        .filter_map(|protocol| str::from_utf8(protocol).ok())
        .find(|protocol| protocols.allow(protocol))
}

fn offer(fields: &Fields) -> Result<Offer, Refusal> {
    if fields.single("sec-websocket-version") != Ok(Some(b"13")) {
        return Err(VERSION.refuse(426));
    }
    let key = fields.single("sec-websocket-key").map_err(|_| TWO_KEYS.refuse(400))?;
    let key = key.filter(|key| is_key(key)).ok_or(BAD_KEY.refuse(400))?;
    Ok(Offer {
        accept: accept_of(key),
        extensions: extensions(fields).map(Into::into).collect(),
        subprotocols: fields.members("sec-websocket-protocol").map(Into::into).collect(),
    })
}

/// 16 bytes in base64, padded, with no stray bits: the one spelling RFC 6455 section 4.1 allows.
fn is_key(key: &[u8]) -> bool {
    let mut decoded = [0; 18];
    key.len() == 24 && STANDARD.decode_slice(key, &mut decoded) == Ok(16)
}

/// RFC 6455 section 4.2.2: the key and a fixed text, through SHA-1 and base64.
fn accept_of(key: &[u8]) -> [u8; 28] {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut accept = [0; 28];
    // 20 bytes are 28 in base64: it fits.
    let _ = STANDARD.encode_slice(sha1.finish(), &mut accept);
    accept
}

/// Names in `Sec-WebSocket-Extensions`, without their parameters. A comma within a quoted parameter would end a name too early
/// and be noticed as a name nobody offered; no registered extension has one.
fn extensions(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let name = |extension: &'_ [u8]| extension.iter().position(|byte| *byte == b';').unwrap_or(extension.len());
    fields.members("sec-websocket-extensions").map(move |extension| extension[..name(extension)].trim_ascii())
}

/// What a backend's final answer to an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A valid 101: the tunnel opens. `rsv` are the RSV bits an agreed extension may use (0x40 permessage-deflate, else 0x70 for
    /// extensions unknown to us, 0 when none was agreed), as they stand in a frame's first byte.
    Switched {
        /// Allowed RSV bits.
        rsv: u8,
    },
    /// Not 101: plain HTTP.
    Plain,
}

/// Judges a backend's answer. `asked` is none for a request that was no upgrade: then 101 is refused.
///
/// # Errors
/// 502: a 101 nobody asked for, or one with the wrong Upgrade, Connection or Sec-WebSocket-Accept, or with
/// an extension or subprotocol that was not offered.
pub fn judge_answer(head: &ResponseHead, asked: Option<&Upgrade>) -> Result<Answer, Refusal> {
    if head.status != 101 {
        return Ok(Answer::Plain);
    }
    judge_switch(head, asked).map(|rsv| Answer::Switched { rsv }).map_err(|flaw| flaw.refuse(502))
}

fn judge_switch(head: &ResponseHead, asked: Option<&Upgrade>) -> Result<u8, Flaw> {
    let asked = asked.ok_or(UNASKED_101)?;
    if head.version < Version::Http11 {
        return Err(OLD_101);
    }
    let upgrade = head.fields.single("upgrade").ok().flatten().unwrap_or_default();
    if !upgrade.eq_ignore_ascii_case(asked.token.as_bytes()) {
        return Err(WRONG_UPGRADE);
    }
    if !head.fields.lists("connection", "upgrade") {
        return Err(NO_CONNECTION);
    }
    asked.websocket.as_ref().map_or(Ok(0), |offer| judge_acceptance(&head.fields, offer))
}

fn judge_acceptance(fields: &Fields, offer: &Offer) -> Result<u8, Flaw> {
    if fields.single("sec-websocket-accept") != Ok(Some(&offer.accept)) {
        return Err(WRONG_ACCEPT);
    }
    let chosen = fields.single("sec-websocket-protocol").map_err(|_| WRONG_SUBPROTOCOL)?;
    if chosen.is_some_and(|chosen| !offer.subprotocols.iter().any(|offered| **offered == *chosen)) {
        return Err(WRONG_SUBPROTOCOL);
    }
    extensions(fields).try_fold(0, |rsv, agreed| {
        if !offer.extensions.iter().any(|offered| offered.eq_ignore_ascii_case(agreed)) {
            return Err(WRONG_EXTENSION);
        }
        Ok(rsv | if agreed.eq_ignore_ascii_case(b"permessage-deflate") { RSV1 } else { RSV_ALL })
    })
}

#[cfg(test)]
mod tests;
