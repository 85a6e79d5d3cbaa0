//! Where frames begin and end (RFC 6455 section 5.2). Payload is never looked at and never unmasked.

/// One direction's place in the stream of frames. Small: two live in every idle tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    /// Bytes of the current frame behind its length, masking key included; [`LOST`] once the place is lost.
    left: u64,
    /// The front of a header that has not come whole.
    head: [u8; LENGTH_END],
    /// Bytes in `head`.
    gathered: u8,
    /// A message was begun and its last fragment has not come.
    in_message: bool,
}

const _: () = assert!(size_of::<Frames>() <= 24);

/// Longest header without masking key: two bytes and a 64-bit length.
const LENGTH_END: usize = 10;
/// Longer than any frame: its length has 63 bits and its masking key 4 bytes.
const LOST: u64 = u64::MAX;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Bytes of a masking key.
const KEY_BYTES: u64 = 4;
/// Longest payload of a control frame.
const CONTROL_BYTES: u8 = 125;

/// Who sends in this direction (RFC 6455 section 5.1: only clients mask).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Frames must be masked.
    Client,
    /// Frames must not be masked.
    Server,
}

/// A rule of framing that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation(pub &'static str);

impl Frames {
    /// Advances over `bytes` and returns how many frames began in them: those whose header came to its end.
    ///
    /// # Errors
    /// The frame header that breaks RFC 6455: unknown opcode, an RSV bit outside `rsv`, wrong masking, a control
    /// frame that is fragmented or longer than 125 bytes, a fragment out of order, a length not in its shortest form or
    /// over 2^63-1. Known from the header's second byte on, lengths from their last. The place is lost then: see [`Frames::lost`].
    pub fn advance(&mut self, bytes: &[u8], sender: Sender, rsv: u8) -> Result<u32, Violation> {
        let begun = self.walk(bytes, sender, rsv);
        if begun.is_err() {
            self.lost();
        }
        begun
    }

    fn walk(&mut self, mut bytes: &[u8], sender: Sender, rsv: u8) -> Result<u32, Violation> {
        if self.is_lost() {
            return Ok(0);
        }
        let mut begun = 0;
        loop {
            // A frame that ends in these bytes leaves those of the next; else they are all its own.
            let Some(rest) = usize::try_from(self.left).ok().and_then(|left| bytes.get(left..)) else {
                self.left -= bytes.len() as u64;
                return Ok(begun);
            };
            self.left = 0;
            bytes = rest;
            if bytes.is_empty() {
                return Ok(begun);
            }
            let used = match self.gathered {
                0 => self.begin(bytes, sender, rsv)?,
                _ => self.go_on(bytes[0], sender, rsv)?,
            };
            bytes = &bytes[used..];
            begun += u32::from(self.gathered == 0);
        }
    }

    /// Reads a header at the front of `bytes`, or keeps what has come of it. Returns how many bytes it took.
    fn begin(&mut self, bytes: &[u8], sender: Sender, rsv: u8) -> Result<usize, Violation> {
        if let Some((used, left)) = self.header(bytes, sender, rsv)? {
            self.left = left;
            return Ok(used);
        }
        // Incomplete, so shorter than the longest header.
        let here = bytes.len().min(LENGTH_END);
        self.head[..here].copy_from_slice(&bytes[..here]);
        self.gathered = here as u8;
        Ok(here)
    }

    /// Adds a byte to the header gathered so far.
    fn go_on(&mut self, byte: u8, sender: Sender, rsv: u8) -> Result<usize, Violation> {
        let mut head = self.head;
        let end = usize::from(self.gathered) + 1;
        head[end - 1] = byte;
        match self.header(&head[..end], sender, rsv)? {
            Some((_, left)) => (self.left, self.gathered) = (left, 0),
            None => (self.head, self.gathered) = (head, end as u8),
        }
        Ok(1)
    }

    /// Judges a header as far as it has come. Where its length is whole: bytes up to the length's end, and bytes behind it.
    #[inline]
    fn header(&mut self, bytes: &[u8], sender: Sender, rsv: u8) -> Result<Option<(usize, u64)>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        self.judge(*first, *second, sender, rsv)?;
        let key = if second & MASK == 0 { 0 } else { KEY_BYTES };
        let (used, payload) = match second & LENGTH {
            126 => match rest.first_chunk() {
                Some(length) => (4, u64::from(u16::from_be_bytes(*length))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (LENGTH_END, u64::from_be_bytes(*length)),
                None => return Ok(None),
            },
            short => (2, u64::from(short)),
        };
        match used {
            4 if payload < 126 => return Err(Violation("a length is not in its shortest form")),
            LENGTH_END if payload <= u64::from(u16::MAX) => {
                return Err(Violation("a length is not in its shortest form"));
            }
            LENGTH_END if payload >> 63 != 0 => return Err(Violation("a length is over 63 bits")),
            _ => {}
        }
        if first & CONTROL == 0 {
            self.in_message = first & FIN == 0;
        }
        Ok(Some((used, payload + key)))
    }

    /// The rules for a header's first two bytes.
    #[inline]
    fn judge(&self, first: u8, second: u8, sender: Sender, rsv: u8) -> Result<(), Violation> {
        if first & RSV & !rsv != 0 {
            return Err(Violation("an RSV bit that no extension allows"));
        }
        if (second & MASK != 0) != (sender == Sender::Client) {
            return Err(Violation(match sender {
                Sender::Client => "a client frame is not masked",
                Sender::Server => "a server frame is masked",
            }));
        }
        match first & OPCODE {
            0 if !self.in_message => Err(Violation("a continuation of no message")),
            1 | 2 if self.in_message => Err(Violation("a new message within a fragmented one")),
            0..=2 => Ok(()),
            8..=10 if first & FIN == 0 => Err(Violation("a fragmented control frame")),
            8..=10 if second & LENGTH > CONTROL_BYTES => Err(Violation("a control frame over 125 bytes")),
            8..=10 => Ok(()),
            _ => Err(Violation("an unknown opcode")),
        }
    }

    /// Bytes of the current frame still to come (its masking key counted with the payload): that many may be moved without
    /// being looked at. Once the place is lost: `u64::MAX`.
    pub fn payload_left(&self) -> u64 {
        self.left
    }

    /// Skips `bytes` of payload moved without being looked at; at most [`Frames::payload_left`].
    pub fn skip(&mut self, bytes: u64) {
        if !self.is_lost() {
            self.left = self.left.saturating_sub(bytes);
        }
    }

    /// True between two frames: a frame of our own could be put here.
    pub fn at_boundary(&self) -> bool {
        self.left == 0 && self.gathered == 0
    }

    /// Gives up knowing where frames begin: from here on any number of bytes may be moved unseen, none is counted, and no
    /// boundary is ever found again. For a tunnel that goes on after a [`Violation`], since its bytes are its ends' own business.
    pub fn lost(&mut self) {
        *self = Self { left: LOST, ..Self::default() };
    }

    /// [`Frames::lost`] was called, or [`Frames::advance`] met a violation.
    pub fn is_lost(&self) -> bool {
        self.left == LOST
    }
}

#[cfg(test)]
mod tests;
