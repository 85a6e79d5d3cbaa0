//! What travels: websocket frames whose every byte both ends can work out, so that every byte is checked.
//!
//! A frame is its head, a tag (tunnel and sequence number) and a stretch of one fixed pattern that begins elsewhere in
//! each frame. The receiver makes the same frame and compares: a byte lost, doubled, moved, altered or of another tunnel
//! shows. The bytes are compared as they are on the wire, masked or not: no proxy looks below the mask, and the load's own
//! time is what a bench has least of.

/// Tunnel and sequence number, big endian, in front of the pattern.
const TAG_BYTES: usize = 8;
/// A prime, so that no block of a buffer, page or pipe can be swapped with another unseen.
const PERIOD: usize = 65_521;
/// Head with a 64-bit length and a mask (RFC 6455 section 5.2), and the tag.
const PREFIX_BYTES: usize = 14 + TAG_BYTES;

/// Which end of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Client,
    Backend,
}

/// The bytes all payloads are cut from.
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// Long enough for frames of `longest` bytes of payload.
    pub fn new(longest: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let period: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .take(PERIOD)
        .collect();
        Self(period.iter().copied().cycle().take(longest + PERIOD).collect())
    }
}

/// One direction of one tunnel: who sends, which tunnel, bytes of payload in each frame.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    pub from: Side,
    pub tunnel: u32,
    pub payload: usize,
}

/// One frame of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    body_from: usize,
    body_len: usize,
}

impl Frame {
    pub fn new(flow: &Flow, sequence: u32) -> Self {
        let payload = flow.payload.max(TAG_BYTES);
        let mut prefix = [0; PREFIX_BYTES];
        let mut prefix_len = 0;
        let mut put = |bytes: &[u8]| {
            prefix[prefix_len..prefix_len + bytes.len()].copy_from_slice(bytes);
            prefix_len += bytes.len();
        };
        let mask_bit = if flow.from == Side::Client { 0x80 } else { 0 };
        put(&[0x82]); // FIN, binary
        match payload {
            0..=125 => put(&[mask_bit | payload as u8]),
            126..=0xffff => {
                put(&[mask_bit | 126]);
                put(&(payload as u16).to_be_bytes());
            }
            _ => {
                put(&[mask_bit | 127]);
                put(&(payload as u64).to_be_bytes());
            }
        }
        if flow.from == Side::Client {
            put(&(flow.tunnel.wrapping_mul(0x9e37_79b9) ^ sequence).to_be_bytes());
        }
        put(&flow.tunnel.to_be_bytes());
        put(&sequence.to_be_bytes());
        let body_from = (flow.tunnel as usize * 7919 + sequence as usize * 104_729) % PERIOD;
        Self { prefix, prefix_len, body_from, body_len: payload - TAG_BYTES }
    }

    pub fn len(&self) -> usize {
        self.prefix_len + self.body_len
    }

    /// The frame from byte `at` on, in two pieces of which the first may be empty.
    pub fn rest<'a>(&'a self, at: usize, pattern: &'a Pattern) -> [&'a [u8]; 2] {
        let body = &pattern.0[self.body_from..self.body_from + self.body_len];
        match at.checked_sub(self.prefix_len) {
            Some(within) => [&[], &body[within..]],
            None => [&self.prefix[at..self.prefix_len], body],
        }
    }

    /// How many of `bytes` are the frame's from `at` on: all, or up to the frame's end. None: they are not.
    pub fn matches(&self, at: usize, bytes: &[u8], pattern: &Pattern) -> Option<usize> {
        let mut done = 0;
        for expected in self.rest(at, pattern) {
            let piece = expected.len().min(bytes.len() - done);
            if bytes[done..done + piece] != expected[..piece] {
                return None;
            }
            done += piece;
        }
        Some(done)
    }
}

/// A place in a flow.
#[derive(Debug)]
struct Cursor {
    flow: Flow,
    sequence: u32,
    frame: Frame,
    at: usize,
}

impl Cursor {
    fn new(flow: Flow) -> Self {
        Self { flow, sequence: 0, frame: Frame::new(&flow, 0), at: 0 }
    }

    /// Moves on; true at the end of a frame.
    fn advance(&mut self, bytes: usize) -> bool {
        self.at += bytes;
        let ended = self.at == self.frame.len();
        if ended {
            self.at = 0;
            self.sequence = self.sequence.wrapping_add(1);
            self.frame = Frame::new(&self.flow, self.sequence);
        }
        ended
    }
}

/// What an end receives, checked.
#[derive(Debug)]
pub struct Inbound(Cursor);

impl Inbound {
    pub fn new(flow: Flow) -> Self {
        Self(Cursor::new(flow))
    }

    /// The frame that comes next, or is half here.
    pub fn sequence(&self) -> u32 {
        self.0.sequence
    }

    /// Checks what came; how many frames ended in it.
    pub fn check(&mut self, mut bytes: &[u8], pattern: &Pattern) -> Result<u32, String> {
        let mut frames = 0;
        while !bytes.is_empty() {
            let cursor = &mut self.0;
            let Some(taken) = cursor.frame.matches(cursor.at, bytes, pattern) else {
                return Err(format!("wrong bytes near byte {} of a frame", cursor.at));
            };
            frames += u32::from(cursor.advance(taken));
            bytes = &bytes[taken..];
        }
        Ok(frames)
    }
}

/// What an end sends.
#[derive(Debug)]
pub struct Outbound {
    cursor: Cursor,
    /// Frames still to be sent, the one in hand included.
    pub owed: u64,
}

impl Outbound {
    pub fn new(flow: Flow) -> Self {
        Self { cursor: Cursor::new(flow), owed: 0 }
    }

    /// What to send next.
    pub fn rest<'a>(&'a self, pattern: &'a Pattern) -> [&'a [u8]; 2] {
        self.cursor.frame.rest(self.cursor.at, pattern)
    }

    /// So much was sent; true when that ended a frame.
    pub fn sent(&mut self, bytes: usize) -> bool {
        let ended = self.cursor.advance(bytes);
        self.owed -= u64::from(ended);
        ended
    }
}
