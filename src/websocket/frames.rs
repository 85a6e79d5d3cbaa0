//! Where frames begin and end (RFC 6455 section 5.2). Payload is never looked at and never unmasked.

/// One direction's place in the stream of frames. Small: two live in every idle tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frames {
    // to be designed: payload bytes left (u64), header bytes gathered so far (at most 14) and their count,
    // at most 24 bytes in all
}

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
    /// Advances over `bytes` and returns how many frames began in them.
    ///
    /// # Errors
    /// The frame header that breaks RFC 6455: unknown opcode, an RSV bit outside `rsv`, wrong masking, a control
    /// frame that is fragmented or longer than 125 bytes, a length not in its shortest form or over 2^63-1.
    pub fn advance(&mut self, _bytes: &[u8], _sender: Sender, _rsv: u8) -> Result<u32, Violation> {
        unimplemented!()
    }

    /// Payload bytes of the current frame still to come: that many may be moved without being looked at.
    pub fn payload_left(&self) -> u64 {
        unimplemented!()
    }

    /// Skips `bytes` of payload moved without being looked at; at most [`Frames::payload_left`].
    pub fn skip(&mut self, _bytes: u64) {
        unimplemented!()
    }

    /// Stops following frames.
    pub fn lost(&mut self) {
        unimplemented!()
    }

    /// True between two frames: a frame of our own could be put here.
    pub fn at_boundary(&self) -> bool {
        unimplemented!()
    }
}
