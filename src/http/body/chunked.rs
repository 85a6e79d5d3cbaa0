//! The chunked transfer coding (RFC 9112 section 7.1), read by a machine that keeps a few bytes of state and no buffer.
//!
//! What is read is never passed on as it was written: bodies are sent with chunk sizes of our own, without extensions and
//! without trailers, so nothing of an ambiguous chunk line survives to a second reader.

use std::{io::Write, ops::Deref};

use crate::{
    http::fields::is_tchar,
    limits::{CHUNK_LINE_BYTES, TRAILER_BYTES},
};

/// The last chunk, without trailers.
pub const CHUNKED_END: &[u8] = b"0\r\n\r\n";

/// Reads the chunked coding; the caller keeps the bytes.
#[derive(Debug, Default)]
pub struct Dechunker {
    state: State,
    /// The size being read, then what is left of the chunk's data.
    left: u64,
    /// Bytes of the current chunk line, or of the trailer section.
    line: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Size,
    /// After at least one digit.
    Digits,
    /// Blanks behind the size: some old servers pad it.
    Blanks,
    /// Behind `;`.
    Extension,
    /// Behind the CR of a chunk line.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty one that ends the body.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    End,
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
    pub fn step(&mut self, input: &[u8]) -> Result<Chunk, Malformed> {
        let mut at = 0;
        loop {
            match self.state {
                State::Data => return Ok(self.data(at, input.len())),
                State::End => return Ok(Chunk::End { consumed: at }),
                _ => {}
            }
            let Some(&byte) = input.get(at) else { return Ok(Chunk::Partial { consumed: at }) };
            self.state = self.next(byte)?;
            at += 1;
        }
    }

    /// In the data of a chunk, of which the input has what lies between `start` and `available`.
    fn data(&mut self, start: usize, available: usize) -> Chunk {
        let here = available - start;
        if here == 0 {
            return Chunk::Partial { consumed: start };
        }
        let taken = usize::try_from(self.left).map_or(here, |left| left.min(here));
        self.left -= taken as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        Chunk::Data { start, end: start + taken }
    }

    /// The state after a byte that is not data.
    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        match self.state {
            State::Size | State::Digits | State::Blanks | State::Extension => self.size_line(byte),
            State::SizeLf => expect(byte, b'\n').map(|()| self.size_line_ended()),
            State::DataCr => expect(byte, b'\r').map(|()| State::DataLf),
            State::DataLf => expect(byte, b'\n').map(|()| State::Size),
            State::Trailer | State::TrailerName | State::TrailerValue => self.trailer(byte),
            State::TrailerLf => expect(byte, b'\n').map(|()| State::Trailer),
            State::EndLf => expect(byte, b'\n').map(|()| State::End),
            // `step` has dealt with these.
            State::Data | State::End => Ok(self.state),
        }
    }

    fn size_line(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        if self.line > CHUNK_LINE_BYTES {
            return Err(Malformed("a chunk line is too long"));
        }
        match (self.state, byte) {
            (State::Size | State::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte),
            (State::Size, _) => Err(Malformed("a chunk has no size")),
            (_, b'\r') => Ok(State::SizeLf),
            (State::Digits | State::Blanks, b';') => Ok(State::Extension),
            (State::Digits | State::Blanks, b' ' | b'\t') => Ok(State::Blanks),
            (State::Extension, byte) if is_text(byte) => Ok(State::Extension),
            (State::Extension, _) => Err(Malformed("a control byte in a chunk extension")),
            _ => Err(Malformed("a chunk size is no hexadecimal number")),
        }
    }

    fn digit(&mut self, digit: u8) -> Result<State, Malformed> {
        let value = char::from(digit).to_digit(16).unwrap_or_default();
        let size = self.left.checked_mul(16).ok_or(Malformed("a chunk size is over 64 bits"))?;
        self.left = size | u64::from(value);
        Ok(State::Digits)
    }

    fn size_line_ended(&mut self) -> State {
        self.line = 0;
        if self.left == 0 { State::Trailer } else { State::Data }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Malformed> {
        self.line += 1;
        if self.line > TRAILER_BYTES {
            return Err(Malformed("the trailer section is too large"));
        }
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::EndLf),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::Trailer | State::TrailerName, byte) if is_tchar(byte) => Ok(State::TrailerName),
            (State::TrailerValue, byte) if is_text(byte) => Ok(State::TrailerValue),
            _ => Err(Malformed("a trailer is no field")),
        }
    }
}

fn expect(byte: u8, expected: u8) -> Result<(), Malformed> {
    if byte == expected { Ok(()) } else { Err(Malformed("CRLF is missing in a chunked body")) }
}

/// Field content: no control byte but TAB.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

/// The line before a chunk's data; the data is followed by CRLF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    text: [u8; 18],
    len: u8,
}

impl Deref for ChunkHead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }
}

/// The line before `len` bytes of data. Not for 0, which would end the body: see [`CHUNKED_END`].
pub fn chunk_head(len: usize) -> ChunkHead {
    debug_assert_ne!(len, 0);
    let mut text = [0; 18];
    let mut rest = &mut text[..];
    // 16 digits and CRLF at most: it fits.
    let _ = write!(rest, "{len:x}\r\n");
    let len = (18 - rest.len()) as u8;
    ChunkHead { text, len }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds pieces as a caller would: what a step did not take is offered again with the next piece.
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<u8>, Option<usize>), Malformed> {
        let (mut dechunker, mut body, mut total) = (Dechunker::default(), Vec::new(), 0);
        let mut pending = Vec::new();
        for piece in pieces {
            pending.extend_from_slice(piece);
            loop {
                let (used, more) = match dechunker.step(&pending)? {
                    Chunk::Partial { consumed } => (consumed, false),
                    Chunk::Data { start, end } => {
                        body.extend_from_slice(&pending[start..end]);
                        (end, true)
                    }
                    Chunk::End { consumed } => return Ok((body, Some(total + consumed))),
                };
                pending.drain(..used);
                total += used;
                if !more {
                    break;
                }
            }
        }
        Ok((body, None))
    }

    fn whole(text: &[u8]) -> Result<(Vec<u8>, Option<usize>), Malformed> {
        decode([text])
    }

    #[test]
    fn a_body_ends_where_its_last_chunk_ends() {
        let text = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\nGET /";
        assert_eq!(whole(text), Ok((b"hello0123456789".to_vec(), Some(text.len() - 5))));
    }

    #[test]
    fn extensions_padding_and_trailers_are_read_and_dropped() {
        let text = b"3  ;a;b=c\t\r\nabc\r\n2 \r\nde\r\n000\r\nX-Sum: 1\r\nEmpty:\r\n\r\n";
        assert_eq!(whole(text), Ok((b"abcde".to_vec(), Some(text.len()))));
    }

    #[test]
    fn only_crlf_ends_a_line() {
        for bad in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r\n0\n\r\n",
            b"5\r\nhello\r\n0\r\n\n",
            b"5;a\nx\r\nhello",
            b"5;a\rx\r\nhello",
            b"5\rhello",
            b"5\r\nhelloX\r\n",
            b"0\r\nA: b\nC: d\r\n\r\n",
            b"0\r\nA: b\r\n\rX",
        ] {
            assert!(whole(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_size_is_hexadecimal_digits_and_no_more() {
        for bad in ["", ";a", "x", "0x5", "+5", "-5", " 5", "5 5", "5_", "g", "5,"] {
            assert!(whole(format!("{bad}\r\nhello\r\n").as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_over_64_bits_is_refused_and_leading_zeros_are_not() {
        assert_eq!(whole(b"10000000000000000\r\n"), Err(Malformed("a chunk size is over 64 bits")));
        assert_eq!(whole(b"ffffffffffffffff\r\nab"), Ok((b"ab".to_vec(), None)));
        assert_eq!(whole(b"00000000000000000002\r\nab\r\n"), Ok((b"ab".to_vec(), None)));
    }

    #[test]
    fn lines_and_trailers_are_bounded() {
        let long = [b"1;".to_vec(), vec![b'a'; CHUNK_LINE_BYTES]].concat();
        assert_eq!(whole(&long), Err(Malformed("a chunk line is too long")));
        let trailers = [b"0\r\n".to_vec(), b"A: bcdefgh\r\n".repeat(TRAILER_BYTES / 10)].concat();
        assert_eq!(whole(&trailers), Err(Malformed("the trailer section is too large")));
    }

    #[test]
    fn a_request_is_not_swallowed_as_a_trailer() {
        assert!(whole(b"0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").is_err());
        assert!(whole(b"0\r\n folded: x\r\n\r\n").is_err());
    }

    #[test]
    fn after_the_end_nothing_is_consumed() {
        let mut dechunker = Dechunker::default();
        assert_eq!(dechunker.step(b"0\r\n\r\nrest"), Ok(Chunk::End { consumed: 5 }));
        assert_eq!(dechunker.step(b"rest"), Ok(Chunk::End { consumed: 0 }));
    }

    #[test]
    fn our_own_chunk_lines_are_hexadecimal() {
        assert_eq!(&*chunk_head(1), b"1\r\n");
        assert_eq!(&*chunk_head(256 << 10), b"40000\r\n");
        assert_eq!(&*chunk_head(usize::MAX), b"ffffffffffffffff\r\n");
    }

    prop_compose! {
        fn nearly_chunked()(parts in proptest::collection::vec(prop_oneof![
            Just(b"5\r\nhello\r\n".to_vec()),
            Just(b"a;x=y\r\n0123456789\r\n".to_vec()),
            Just(b"0\r\n".to_vec()),
            Just(b"X: y\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..4),
        ], 0..8)) -> Vec<u8> { parts.concat() }
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_body(text in nearly_chunked(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]);
            prop_assert_eq!(decode(pieces), whole(&text));
        }

        #[test]
        fn what_we_encode_decodes_to_itself(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..6)) {
            let mut text = Vec::new();
            for chunk in &chunks {
                text.extend_from_slice(&chunk_head(chunk.len()));
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(CHUNKED_END);
            prop_assert_eq!(whole(&text), Ok((chunks.concat(), Some(text.len()))));
        }
    }
}
