//! Which requests may become a tunnel and which answers open one (RFC 6455 section 4, RFC 9110 section 7.8).

use crate::http::{
    head::{RequestHead, ResponseHead},
    refusal::Refusal,
};

/// Which Upgrade tokens may become a tunnel (`upgrade_protocols`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocols {
    /// Any token except `h2c`.
    Any,
    /// These, in lower case.
    Only(Vec<Box<str>>),
}

/// An upgrade the client asked for and the rules allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The only token that is forwarded, as the client spelt it.
    pub token: Box<str>,
    /// For websocket: the `Sec-WebSocket-Accept` a true backend will answer with. None for another protocol.
    pub accept: Option<[u8; 28]>,
    /// For websocket: the request offered an extension at all, so that RSV bits may appear once one is agreed.
    pub extensions_offered: bool,
}

/// Judges a request head: none when it is plain HTTP (no upgrade asked, or one whose `Connection` does not say so).
///
/// # Errors
/// 400 for a malformed upgrade, 426 for another WebSocket version, and so on: HANDSHAKE's section Upgrade.
/// An Upgrade token that is not allowed is plain HTTP: the field is simply not forwarded.
pub fn judge_request(_head: &RequestHead, _protocols: &Protocols) -> Result<Option<Upgrade>, Refusal> {
    unimplemented!()
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
pub fn judge_answer(_head: &ResponseHead, _asked: Option<&Upgrade>) -> Result<Answer, Refusal> {
    unimplemented!()
}
