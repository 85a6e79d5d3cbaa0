//! Where frames begin and end (RFC 6455 section 5.2). Payload is never looked at and never unmasked.

/// One direction's place in the stream of frames. Packed: two live in every idle tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(Rust, packed)]
pub struct Frames {
    /// Bytes of the current frame behind its head, masking key included; [`LOST`] once the place is lost. Within a head that has not
    /// come whole: its first byte, then as much of its length as there is.
    left: u64,
    /// Bytes of such a head ([`GATHERED`]), and the flags below.
    stage: u8,
}

const _: () = assert!(size_of::<Frames>() == 9);

/// Longer than any frame: its length has 63 bits and its masking key 4 bytes.
const LOST: u64 = u64::MAX;
/// Bits of `stage` that count.
const GATHERED: u8 = 0x0f;
/// The head that has not come whole has a 64-bit length.
const LONG: u8 = 0x40;
/// A close frame has begun: nothing of ours may follow it (RFC 6455 section 5.5.1).
const CLOSED: u8 = 0x20;
/// A message was begun and its last fragment has not come.
const IN_MESSAGE: u8 = 0x80;

/// Bytes of a head without masking key, by the size of its length.
const HEAD_SHORT: usize = 2;
const HEAD_16: usize = 4;
const HEAD_64: usize = 10;

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
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
        while self.is_in_head() {
            let [byte, rest @ ..] = bytes else { return Ok(0) };
            self.gather(*byte, sender, rsv)?;
            bytes = rest;
            begun = u32::from(!self.is_in_head());
        }
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
            let Some(used) = self.head(bytes, sender, rsv)? else {
                bytes.iter().try_for_each(|byte| self.gather(*byte, sender, rsv))?;
                return Ok(begun);
            };
            bytes = &bytes[used..];
            begun += 1;
        }
    }

    /// Reads the head at the front of `bytes` and returns its length. None: it has not come whole, and nothing was done.
    #[inline]
    fn head(&mut self, bytes: &[u8], sender: Sender, rsv: u8) -> Result<Option<usize>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (used, payload) = match second & LENGTH {
            126 => match rest.first_chunk() {
                Some(length) => (HEAD_16, u64::from(u16::from_be_bytes(*length))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (HEAD_64, u64::from_be_bytes(*length)),
                None => return Ok(None),
            },
            short => (HEAD_SHORT, u64::from(short)),
        };
        self.judge(*first, *second, sender, rsv)?;
        self.enter(used, payload, sender)?;
        Ok(Some(used))
    }

    /// Takes one byte of a head that has not come whole.
    fn gather(&mut self, byte: u8, sender: Sender, rsv: u8) -> Result<(), Violation> {
        match usize::from(self.stage & GATHERED) {
            0 => self.left = u64::from(byte),
            1 => {
                self.judge(self.left as u8, byte, sender, rsv)?;
                match byte & LENGTH {
                    126 => {}
                    127 => self.stage |= LONG,
                    short => return self.enter(HEAD_SHORT, u64::from(short), sender),
                }
                self.left = 0;
            }
            gathered => {
                self.left = self.left << 8 | u64::from(byte);
                let head = if self.stage & LONG == 0 { HEAD_16 } else { HEAD_64 };
                if gathered + 1 == head {
                    return self.enter(head, self.left, sender);
                }
            }
        }
        self.stage += 1;
        Ok(())
    }

    /// Goes on to the payload behind a head of `head` bytes.
    #[inline]
    fn enter(&mut self, head: usize, payload: u64, sender: Sender) -> Result<(), Violation> {
        match head {
            HEAD_16 if payload < 126 => return Err(Violation("a length is not in its shortest form")),
            HEAD_64 if payload <= u64::from(u16::MAX) => {
                return Err(Violation("a length is not in its shortest form"));
            }
            HEAD_64 if payload >> 63 != 0 => return Err(Violation("a length is over 63 bits")),
            _ => {}
        }
        let key = if sender == Sender::Client { KEY_BYTES } else { 0 };
        self.left = payload + key;
        self.stage &= IN_MESSAGE | CLOSED;
        Ok(())
    }

    /// The rules for a head's first two bytes.
    #[inline]
    fn judge(&mut self, first: u8, second: u8, sender: Sender, rsv: u8) -> Result<(), Violation> {
        if first & RSV & !rsv != 0 {
            return Err(Violation("an RSV bit that no extension allows"));
        }
        if (second & MASK != 0) != (sender == Sender::Client) {
            return Err(Violation(match sender {
                Sender::Client => "a client frame is not masked",
                Sender::Server => "a server frame is masked",
            }));
        }
        let in_message = self.stage & IN_MESSAGE != 0;
        match first & OPCODE {
            0 if !in_message => return Err(Violation("a continuation of no message")),
            1 | 2 if in_message => return Err(Violation("a new message within a fragmented one")),
            0..=2 => {}
            8..=10 if first & FIN == 0 => return Err(Violation("a fragmented control frame")),
            8..=10 if second & LENGTH > CONTROL_BYTES => return Err(Violation("a control frame over 125 bytes")),
            8 => {
                self.stage |= CLOSED;
                return Ok(());
            }
            9 | 10 => return Ok(()),
            _ => return Err(Violation("an unknown opcode")),
        }
        self.stage = self.stage & !IN_MESSAGE | if first & FIN == 0 { IN_MESSAGE } else { 0 };
        Ok(())
    }

    /// Bytes of the current frame still to come (its masking key counted with the payload): that many may be moved without
    /// being looked at. Once the place is lost: `u64::MAX`.
    pub fn payload_left(&self) -> u64 {
        if self.is_in_head() { 0 } else { self.left }
    }

    /// Skips `bytes` of payload moved without being looked at; at most [`Frames::payload_left`].
    pub fn skip(&mut self, bytes: u64) {
        if !self.is_lost() {
            self.left = self.left.saturating_sub(bytes);
        }
    }

    /// Of a head that has not come whole, its first byte, as long as that is all there is.
    pub fn only_byte(&self) -> Option<u8> {
        (!self.is_lost() && self.stage & GATHERED == 1).then_some(self.left as u8)
    }

    /// True between two frames: a frame of our own could be put here.
    pub fn at_boundary(&self) -> bool {
        self.left == 0 && !self.is_in_head()
    }

    /// Advances over `bytes` up to the next boundary, and no further. Returns how many of them that was, and how many frames began; all
    /// of them where there is no boundary.
    ///
    /// # Errors
    /// As [`Frames::advance`].
    pub fn advance_to_boundary(&mut self, bytes: &[u8], sender: Sender, rsv: u8) -> Result<(usize, u32), Violation> {
        let (mut used, mut begun) = (0, 0);
        while used < bytes.len() && !self.at_boundary() {
            // Heads are taken byte by byte: where one ends is known at its end.
            let step = self.payload_left().clamp(1, (bytes.len() - used) as u64) as usize;
            begun += self.advance(&bytes[used..used + step], sender, rsv)?;
            used += step;
        }
        Ok((used, begun))
    }

    /// A close frame was begun.
    pub fn has_closed(&self) -> bool {
        self.stage & CLOSED != 0
    }

    /// A close frame of ours is put here: whatever the sender still sends is no part of the stream any more.
    pub fn end(&mut self) {
        *self = Self { left: LOST, stage: CLOSED };
    }

    /// [`Frames::end`] was called.
    pub fn has_ended(&self) -> bool {
        self.is_lost() && self.has_closed()
    }

    /// Gives up knowing where frames begin: from here on any number of bytes may be moved unseen, none is counted, and no
    /// boundary is ever found again. For a tunnel that goes on after a [`Violation`], since its bytes are its ends' own business.
    pub fn lost(&mut self) {
        *self = Self { left: LOST, stage: 0 };
    }

    /// [`Frames::lost`] was called, or [`Frames::advance`] met a violation.
    pub fn is_lost(&self) -> bool {
        self.left == LOST
    }

    fn is_in_head(&self) -> bool {
        self.stage & GATHERED != 0
    }
}

#[cfg(test)]
mod tests;
