//! The chunked coding, beside a decoder that has the whole body before it.

use super::pieces::pieces;
use crate::{
    http::body::{CHUNKED_END, Chunk, Dechunker, chunk_head},
    limits::{CHUNK_LINE_BYTES, TRAILER_BYTES},
};

/// A body, whole and in pieces.
pub fn chunked(data: &[u8]) {
    let whole = decode([data]);
    assert_eq!(whole, decode(pieces(data)), "in pieces");
    let expected = reference(data).map(|(body, rest)| (body, data.len() - rest.len()));
    let ended = whole.and_then(|(body, end)| Some((body, end?)));
    assert_eq!(ended, expected);
    if let Some((body, _)) = expected {
        let again = if body.is_empty() { vec![] } else { [&chunk_head(body.len()), &body[..], b"\r\n"].concat() };
        let again = [&again[..], CHUNKED_END].concat();
        assert_eq!(decode([&again[..]]), Some((body, Some(again.len()))));
    }
}

/// The body as far as it has come, and where it ended if it did. None: it was refused.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<(Vec<u8>, Option<usize>)> {
    let (mut dechunker, mut body, mut used) = (Dechunker::default(), Vec::new(), 0);
    for piece in pieces {
        let mut rest = piece;
        loop {
            let consumed = match dechunker.step(rest).ok()? {
                Chunk::Partial { consumed } => {
                    assert_eq!(consumed, rest.len(), "nothing is left to be offered again");
                    used += consumed;
                    break;
                }
                Chunk::Data { start, end } => {
                    assert!(start < end);
                    body.extend_from_slice(&rest[start..end]);
                    end
                }
                Chunk::End { consumed } => return Some((body, Some(used + consumed))),
            };
            used += consumed;
            rest = &rest[consumed..];
        }
    }
    Some((body, None))
}

/// A body that is whole, and what follows it (RFC 9112 section 7.1).
fn reference(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, behind) = line(rest)?;
        let size = size(line)?;
        if size == 0 {
            return Some((body, without_trailers(behind)?));
        }
        let (data, behind) = behind.split_at_checked(size)?;
        body.extend_from_slice(data);
        rest = behind.strip_prefix(b"\r\n")?;
    }
}

fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memmem::find(text, b"\r\n")?;
    Some((&text[..end], &text[end + 2..]))
}

fn size(line: &[u8]) -> Option<usize> {
    if line.len() + 1 > CHUNK_LINE_BYTES {
        return None;
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, tail) = line.split_at(digits);
    let tail = tail.trim_ascii_start();
    let extension = matches!(tail.first(), None | Some(b';')) && is_text(line);
    extension.then_some(usize::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?)
}

fn without_trailers(mut rest: &[u8]) -> Option<&[u8]> {
    let mut bytes = 0;
    loop {
        let (line, behind) = line(rest)?;
        bytes += line.len() + 1;
        if bytes > TRAILER_BYTES {
            return None;
        }
        if line.is_empty() {
            return Some(behind);
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        if !crate::http::fields::is_token(&line[..colon]) || !is_text(line) {
            return None;
        }
        rest = behind;
    }
}

fn is_text(line: &[u8]) -> bool {
    line.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}
