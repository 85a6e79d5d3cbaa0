//! Frames the proxy sends of its own: close and ping.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::frames::Sender;

/// Longest reason: a control frame has at most 125 bytes, two of which are the code (RFC 6455 sections 5.5 and 5.5.1).
const REASON_BYTES: usize = 123;

/// The endpoint is going away (RFC 6455 section 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// The service is restarted: clients may come back, after a random while (IANA's registry of close codes).
pub const SERVICE_RESTART: u16 = 1012;

/// A ping without payload, to a client (RFC 6455 section 5.5.2).
pub const PING: [u8; 2] = [0x89, 0];

/// A close frame with a status code and a short reason (RFC 6455 section 5.5.1), masked where a client sends it. The reason is cut at
/// 123 bytes, between characters: an endpoint fails the connection over broken UTF-8.
pub fn close_frame(sender: Sender, code: u16, reason: &str) -> Vec<u8> {
    let reason = reason
        .char_indices()
        .map(|(start, c)| start + c.len_utf8())
        .take_while(|end| *end <= REASON_BYTES)
        .last()
        .map_or("", |end| &reason[..end]);
    let mut frame = vec![0x88, (2 + reason.len()) as u8];
    let payload = code.to_be_bytes().into_iter().chain(reason.bytes());
    match sender {
        Sender::Server => frame.extend(payload),
        Sender::Client => {
            frame[1] |= 0x80;
            let key = masking_key();
            frame.extend(key);
            frame.extend(payload.zip(key.into_iter().cycle()).map(|(byte, key)| byte ^ key));
        }
    }
    frame
}

/// Four bytes that nobody can foretell (RFC 6455 section 5.3): std keys its hashers with the system's randomness.
fn masking_key() -> [u8; 4] {
    (RandomState::new().build_hasher().finish() as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::frames::Frames;

    #[test]
    fn a_close_frame_has_code_and_reason() {
        assert_eq!(close_frame(Sender::Server, 1001, ""), [0x88, 2, 0x03, 0xe9]);
        assert_eq!(close_frame(Sender::Server, 1012, "bye"), [0x88, 5, 0x03, 0xf4, b'b', b'y', b'e']);
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let frame = close_frame(Sender::Server, 1001, &"é".repeat(100));
        assert_eq!((frame.len(), frame[1]), (126, 124));
        assert_eq!(std::str::from_utf8(&frame[4..]), Ok("é".repeat(61).as_str()));
    }

    #[test]
    fn a_close_frame_of_a_client_is_masked() {
        let frame = close_frame(Sender::Client, 1001, "bye");
        assert_eq!(frame[..2], [0x88, 0x85]);
        let unmasked: Vec<u8> =
            frame[6..].iter().zip(frame[2..6].iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        assert_eq!(unmasked, [0x03, 0xe9, b'b', b'y', b'e']);
        assert_ne!(frame[2..6], close_frame(Sender::Client, 1001, "bye")[2..6], "a key is used once");
    }

    #[test]
    fn both_are_whole_frames() {
        for (sender, frame) in [
            (Sender::Server, PING.to_vec()),
            (Sender::Server, close_frame(Sender::Server, 1001, "bye")),
            (Sender::Client, close_frame(Sender::Client, 1001, "bye")),
        ] {
            let mut frames = Frames::default();
            assert_eq!(frames.advance(&frame, sender, 0), Ok(1));
            assert!(frames.at_boundary());
        }
    }
}
