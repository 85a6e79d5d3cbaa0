//! Message bodies: which framing a head declares (RFC 9112 section 6), and the chunked coding.

use super::{head::ResponseHead, refusal::Refusal};

/// How a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked transfer coding.
    Chunked,
    /// Until the connection closes (responses only).
    UntilClose,
}

/// The framing of the response to a request of `method`.
///
/// # Errors
/// 502 for framing that two readers could understand differently.
pub fn response_framing(_head: &ResponseHead, _method: &str) -> Result<Framing, Refusal> {
    unimplemented!()
}

/// Reads the chunked coding; the caller keeps the bytes.
#[derive(Debug, Default)]
pub struct Dechunker {
    // to be designed: state only, no buffer
}

/// One step of a [`Dechunker`] over the front of its input.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The input is used up to `consumed`; more is needed.
    Partial {
        /// Bytes to drop from the input's front.
        consumed: usize,
    },
    /// Body bytes at `start..end` of the input; drop up to `end`.
    Data {
        /// First byte.
        start: usize,
        /// One past the last.
        end: usize,
    },
    /// The body, its trailers included, ended; what follows `consumed` belongs to the next message.
    End {
        /// Bytes to drop from the input's front.
        consumed: usize,
    },
}

/// Why a chunked body was refused; the connection cannot be used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl Dechunker {
    /// Looks at the front of `input`: call again with what is left after each step.
    ///
    /// # Errors
    /// A size that is no hexadecimal number or overflows, a missing CRLF, a line or trailer beyond its limit.
    pub fn step(&mut self, _input: &[u8]) -> Result<Chunk, Malformed> {
        unimplemented!()
    }
}
