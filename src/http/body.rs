//! Message bodies: which framing a head declares (RFC 9112 section 6), and the chunked coding.

mod chunked;

pub use chunked::{CHUNKED_END, Chunk, ChunkHead, Dechunker, Malformed, chunk_head};

use super::{
    fields::Fields,
    head::{ResponseHead, Version},
    refusal::{Flaw, Refusal},
};

const TWO_LENGTHS: Flaw = Flaw::new("two_content_lengths", "more than one Content-Length field");
const BAD_LENGTH: Flaw = Flaw::new("bad_content_length", "Content-Length is not one decimal number of 64 bits");
const TWO_CODINGS: Flaw = Flaw::new("two_transfer_encodings", "more than one Transfer-Encoding field");
const BAD_CODING: Flaw = Flaw::new("bad_transfer_encoding", "Transfer-Encoding is not the one word chunked");
const UNKNOWN_CODING: Flaw = Flaw::new("unknown_transfer_coding", "a transfer coding other than chunked");
const CODING_IN_10: Flaw = Flaw::new("transfer_encoding_in_http_10", "Transfer-Encoding in an HTTP/1.0 message");
const LENGTH_AND_CODING: Flaw =
    Flaw::new("length_and_transfer_encoding", "both Content-Length and Transfer-Encoding, a smuggling attempt");

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

/// The framing of a request's body.
///
/// # Errors
/// 400, or 501 for a transfer coding other than chunked.
pub(super) fn request_framing(fields: &Fields, version: Version) -> Result<Framing, Refusal> {
    declared_framing(fields, version).map_err(|flaw| flaw.refuse(if flaw == UNKNOWN_CODING { 501 } else { 400 }))
}

/// The framing of the response to a request of `method`.
pub fn response_framing(head: &ResponseHead, method: &str) -> Framing {
    match head.body {
        _ if is_bodiless(method, head.status) => Framing::None,
        Framing::None => Framing::UntilClose,
        framing => framing,
    }
}

/// True where a response has no body whatever its fields say (RFC 9112 section 6.3).
pub fn is_bodiless(method: &str, status: u16) -> bool {
    method == "HEAD" || matches!(status, 100..=199 | 204 | 304)
}

/// What the fields say: no framing at all, a length, or chunked. Anything that is not exactly one of these is a flaw, because
/// somebody between client and backend will read it another way.
pub(super) fn declared_framing(fields: &Fields, version: Version) -> Result<Framing, Flaw> {
    let length = fields.single("content-length").map_err(|_| TWO_LENGTHS)?.map(parse_length).transpose()?;
    let Some(coding) = fields.single("transfer-encoding").map_err(|_| TWO_CODINGS)? else {
        return Ok(length.map_or(Framing::None, Framing::Length));
    };
    if version < Version::Http11 {
        return Err(CODING_IN_10);
    }
    if length.is_some() {
        return Err(LENGTH_AND_CODING);
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let known = |member: &[u8]| member.eq_ignore_ascii_case(b"chunked");
    let unknown = super::fields::list(coding).any(|member| !known(member));
    Err(if unknown { UNKNOWN_CODING } else { BAD_CODING })
}

/// 1*DIGIT, without sign, list or blank, that fits 64 bits.
fn parse_length(value: &[u8]) -> Result<u64, Flaw> {
    if value.is_empty() {
        return Err(BAD_LENGTH);
    }
    let number = value.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.ok_or(BAD_LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{Parsed, parse_response};

    fn fields(lines: &[(&str, &str)]) -> Fields {
        Fields::from_pairs(lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    fn request(lines: &[(&str, &str)]) -> Result<Framing, (u16, &'static str)> {
        request_framing(&fields(lines), Version::Http11).map_err(|refusal| (refusal.status, refusal.reason))
    }

    fn response(status: u16, method: &str, lines: &[(&str, &str)]) -> Result<Framing, u16> {
        let fields: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        match parse_response(format!("HTTP/1.1 {status} X\r\n{fields}\r\n").as_bytes(), 4096) {
            Ok(Parsed::Complete(head, _)) => Ok(response_framing(&head, method)),
            Ok(Parsed::Partial) => panic!("a whole head"),
            Err(refusal) => Err(refusal.status),
        }
    }

    #[test]
    fn content_length_is_one_decimal_number() {
        assert_eq!(request(&[("Content-Length", "0")]), Ok(Framing::Length(0)));
        assert_eq!(request(&[("content-length", "18446744073709551615")]), Ok(Framing::Length(u64::MAX)));
        for bad in ["", "+1", "-1", "1,1", "1, 1", "1 1", "0x1", "1_0", "18446744073709551616", "9".repeat(40).as_str()]
        {
            assert_eq!(request(&[("Content-Length", bad)]), Err((400, "bad_content_length")), "{bad:?}");
        }
    }

    #[test]
    fn content_length_on_two_lines_is_refused_even_when_equal() {
        for second in ["5", "6"] {
            let lines = [("Content-Length", "5"), ("content-length", second)];
            assert_eq!(request(&lines), Err((400, "two_content_lengths")));
        }
    }

    #[test]
    fn transfer_encoding_is_chunked_and_nothing_else() {
        assert_eq!(request(&[("Transfer-Encoding", "Chunked")]), Ok(Framing::Chunked));
        for bad in
            ["gzip, chunked", "chunked, gzip", "identity", "xchunked", "\"chunked\"", "chunked;q=1", "chunked\u{b}"]
        {
            assert_eq!(request(&[("Transfer-Encoding", bad)]), Err((501, "unknown_transfer_coding")), "{bad:?}");
        }
        for bad in ["", "chunked, chunked", "chunked,", ","] {
            assert_eq!(request(&[("Transfer-Encoding", bad)]), Err((400, "bad_transfer_encoding")), "{bad:?}");
        }
        let twice = [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")];
        assert_eq!(request(&twice), Err((400, "two_transfer_encodings")));
    }

    #[test]
    fn transfer_encoding_with_content_length_is_refused() {
        let both = [("Transfer-Encoding", "chunked"), ("Content-Length", "5")];
        assert_eq!(request(&both), Err((400, "length_and_transfer_encoding")));
    }

    #[test]
    fn transfer_encoding_needs_http_11() {
        let refusal = request_framing(&fields(&[("Transfer-Encoding", "chunked")]), Version::Http10).unwrap_err();
        assert_eq!((refusal.status, refusal.reason), (400, "transfer_encoding_in_http_10"));
    }

    #[test]
    fn responses_end_by_length_by_chunks_or_by_close() {
        assert_eq!(response(200, "GET", &[("Content-Length", "3")]), Ok(Framing::Length(3)));
        assert_eq!(response(200, "GET", &[("Transfer-Encoding", "chunked")]), Ok(Framing::Chunked));
        assert_eq!(response(200, "GET", &[]), Ok(Framing::UntilClose));
    }

    #[test]
    fn head_1xx_204_and_304_have_no_body_whatever_they_declare() {
        let length = [("Content-Length", "3")];
        assert_eq!(response(200, "HEAD", &length), Ok(Framing::None));
        for status in [100, 101, 103, 204, 304] {
            assert_eq!(response(status, "GET", &length), Ok(Framing::None), "{status}");
        }
    }

    #[test]
    fn a_response_framed_in_two_ways_is_a_502() {
        for method in ["GET", "HEAD"] {
            let both = [("Transfer-Encoding", "chunked"), ("Content-Length", "5")];
            assert_eq!(response(200, method, &both), Err(502));
            assert_eq!(response(200, method, &[("Content-Length", "5"), ("Content-Length", "5")]), Err(502));
            assert_eq!(response(200, method, &[("Transfer-Encoding", "gzip, chunked")]), Err(502));
        }
        for status in [100, 101, 204, 304] {
            assert_eq!(response(status, "GET", &[("Content-Length", "1, 2")]), Err(502), "{status}");
        }
    }
}
