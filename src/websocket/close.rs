//! Frames the proxy sends of its own: close and ping, to a client (never masked).

/// Longest reason: a control frame has at most 125 bytes, two of which are the code (RFC 6455 sections 5.5 and 5.5.1).
const REASON_BYTES: usize = 123;

/// A close frame with a status code and a short reason (RFC 6455 section 5.5.1). The reason is cut at 123 bytes, between
/// characters: a client fails the connection over broken UTF-8.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = reason
        .char_indices()
        .map(|(start, c)| start + c.len_utf8())
        .take_while(|end| *end <= REASON_BYTES)
        .last()
        .map_or("", |end| &reason[..end]);
    let mut frame = vec![0x88, (2 + reason.len()) as u8];
    frame.extend(code.to_be_bytes());
    frame.extend(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_has_code_and_reason() {
        assert_eq!(close_frame(1001, ""), [0x88, 2, 0x03, 0xe9]);
        assert_eq!(close_frame(1012, "bye"), [0x88, 5, 0x03, 0xf4, b'b', b'y', b'e']);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close_frame(1001, &"é".repeat(100));
        assert_eq!((frame.len(), frame[1]), (126, 124));
        assert_eq!(std::str::from_utf8(&frame[4..]), Ok("é".repeat(61).as_str()));
    }
}
