//! One side of a tunnel, and the direction of what it sends.

use std::io;

use bitflags::bitflags;

use crate::{sys::Pipe, tls, websocket::frames::Frames};

/// A side, without its socket. Idle and without TLS it owns nothing.
#[derive(Debug)]
pub(super) struct Half {
    /// See there.
    pub marks: Marks,
    /// [`Half::rsv`] and [`Half::small_splices`].
    bits: u8,
    /// Where the frames it sends stand; lost from the start when the tunnel is no websocket.
    pub frames: Frames,
    /// What of it was moved.
    pub moved: Moved,
}

const _: () = assert!(size_of::<Half>() == 22);

/// The RSV bits of a frame's first byte (RFC 6455 section 5.2).
const RSV: u8 = 0x70;

/// What went in one direction, TLS left out. Packed: two are in every tunnel's cache line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C, packed)]
pub(super) struct Moved {
    bytes_low: u32,
    bytes_high: u16,
    frames: u32,
}

impl Moved {
    /// Bytes; past 256 TiB no more are counted.
    pub fn bytes(self) -> u64 {
        u64::from(self.bytes_high) << 32 | u64::from(self.bytes_low)
    }

    /// Frames begun; past 2^32 no more are counted. None where nothing is followed: no websocket, or frames that are none.
    pub fn frames(self) -> u32 {
        self.frames
    }

    pub fn add(&mut self, bytes: u64, frames: u32) {
        let bytes = self.bytes().saturating_add(bytes).min((1 << 48) - 1);
        (self.bytes_low, self.bytes_high) = (bytes as u32, (bytes >> 32) as u16);
        self.frames = self.frames.saturating_add(frames);
    }
}

bitflags! {
    /// What is known of a side.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Marks: u16 {
        /// There may be something to receive.
        const READABLE = 1;
        /// FIN or RST has come: the read that finds the end must not be left out.
        const LEFT = 1 << 1;
        /// It takes nothing more (EPOLLHUP, EPOLLERR).
        const GONE = 1 << 2;
        /// RST has come: the end of what it sent is no FIN, even where a `send` has used up the error.
        const RESET = 1 << 3;
        /// EPOLLOUT is wanted, and
        const WANTS_OUTPUT = 1 << 4;
        /// it was asked for.
        const HAS_OUTPUT = 1 << 5;
        /// What it sends waits for its turn.
        const QUEUED = 1 << 6;
        /// Bulk: payload goes through a pipe.
        const SPLICING = 1 << 7;
        /// It ended its direction and all of it was read, or the receiver takes no more.
        const ENDED = 1 << 8;
        /// The end came without close_notify over TLS.
        const TRUNCATED = 1 << 9;
        /// The receiver was told the end in TLS, where it speaks TLS.
        const NOTIFIED = 1 << 10;
        /// The receiver was sent FIN, or is gone.
        const PASSED_ON = 1 << 11;
        /// It took less than it was given the last time; EPOLLOUT will tell when that is over.
        const FULL = 1 << 12;
        /// It was the first to end.
        const FIRST = 1 << 13;
        /// The other side is told at the next boundary that we part, or has been ([`Frames::has_ended`]).
        const PARTING = 1 << 14;
        /// Its connection timed out: nothing came back from it any more (ETIMEDOUT).
        const LOST = 1 << 15;
    }
}

impl Half {
    /// A side whose frames may use these RSV bits.
    pub fn new(rsv: u8) -> Self {
        Self { marks: Marks::empty(), bits: rsv & RSV, frames: Frames::default(), moved: Moved::default() }
    }

    /// The RSV bits its frames may use.
    pub fn rsv(&self) -> u8 {
        self.bits & RSV
    }

    /// Small splices in a row: at [`super::FEW_SMALL_SPLICES`] copying is cheaper again.
    pub fn small_splices(&self) -> u8 {
        self.bits & !RSV
    }

    pub fn set_small_splices(&mut self, count: u8) {
        self.bits = self.rsv() | count;
    }

    /// All of these marks are set.
    pub fn is(&self, marks: Marks) -> bool {
        self.marks.contains(marks)
    }

    pub fn set(&mut self, marks: Marks) {
        self.marks.insert(marks);
    }

    pub fn clear(&mut self, marks: Marks) {
        self.marks.remove(marks);
    }
}

/// What only some tunnels have, and most of them for a moment only. By [`super::Side`].
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// The session of a side that speaks TLS.
    pub tls: [Option<Box<tls::Session>>; 2],
    /// What a side has sent and the other would not take yet. While there is any, nothing more of that side is read: that is the
    /// backpressure.
    pub waiting: [Waiting; 2],
    /// The close frame that the client gets at the next boundary.
    pub last_words: Option<Box<[u8]>>,
}

impl Extra {
    /// What these sessions need; nothing, without any.
    pub fn of(tls: [Option<Box<tls::Session>>; 2]) -> Option<Box<Self>> {
        tls.iter().any(Option::is_some).then(|| Box::new(Self { tls, ..Self::default() }))
    }

    pub fn is_plain(&self) -> bool {
        self.tls.iter().all(Option::is_none)
    }

    /// Nothing in it is needed any more.
    pub fn is_idle(&self) -> bool {
        self.is_plain() && self.waiting.iter().all(Waiting::is_nothing) && self.last_words.is_none()
    }
}

/// Bytes on their way between two sockets.
#[derive(Debug, Default)]
pub(super) enum Waiting {
    /// None: the rule.
    #[default]
    Nothing,
    /// Copied ones (TLS records where the receiver speaks TLS).
    Bytes(Rest),
    /// In a pipe.
    Piped(Filled),
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

impl Filled {
    /// What is in the pipe, out of it.
    ///
    /// # Errors
    /// read(2)'s.
    pub fn unpipe(&self) -> io::Result<Rest> {
        Ok(Rest { bytes: self.pipe.take(self.bytes)?, sent: 0 })
    }
}

impl Waiting {
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// What it takes of our own memory.
    pub fn held(&self) -> usize {
        match self {
            Self::Bytes(rest) => rest.bytes.len(),
            Self::Nothing | Self::Piped(_) => 0,
        }
    }
}
