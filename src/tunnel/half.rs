//! One direction of a tunnel: from one end's socket to the other's.

use crate::{sys::Pipe, websocket::frames::Frames};

/// State of one direction. Idle, it owns nothing outside itself.
#[derive(Debug, Default)]
pub(super) struct Half {
    /// Where the frames of this direction stand; lost from the start when the tunnel is no websocket.
    pub frames: Frames,
    /// Bytes moved, without TLS.
    pub bytes: u64,
    /// What the receiving socket would not take yet. While there is any, nothing is read: that is the backpressure.
    pub waiting: Waiting,
    /// A frame has begun: the first was judged.
    pub began: bool,
    /// It waits for its turn.
    pub queued: bool,
    /// The sender ended its direction and all of it was read, or the receiver takes no more.
    pub ended: bool,
    /// The receiver was told the end in TLS, where it speaks TLS.
    pub notified: bool,
    /// The receiver was sent FIN, or is gone.
    pub passed_on: bool,
    /// The end came without close_notify over TLS.
    pub truncated: bool,
    /// Bulk: payload goes through a pipe.
    pub splicing: bool,
    /// Small splices in a row: at [`super::FEW_SMALL_SPLICES`] copying is cheaper again.
    pub small_splices: u8,
}

/// Bytes on their way between two sockets.
#[derive(Debug, Default)]
pub(super) enum Waiting {
    /// None: the rule.
    #[default]
    Nothing,
    /// Copied ones (TLS records where the receiver speaks TLS).
    Bytes(Box<Rest>),
    /// In a pipe.
    Piped(Box<Filled>),
}

/// The part of a buffer that was not sent.
#[derive(Debug)]
pub(super) struct Rest {
    pub bytes: Box<[u8]>,
    pub sent: usize,
}

/// A pipe with this many bytes in it.
#[derive(Debug)]
pub(super) struct Filled {
    pub pipe: Pipe,
    pub bytes: usize,
}

impl Waiting {
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}
