//! What a client may not begin its tunnel with: none of it gets to the backend.

use super::{Case, Expected, case, rules};
use crate::util::frames;

rules![the_first_frame_is_masked, the_first_frame_has_a_known_opcode, the_first_frame_has_no_bit_that_nobody_agreed_to];

fn bad(name: &str, frame: Vec<u8>) -> Case {
    Case { frame: Some(frame), ..case(name, frames::request("/ws", "x"), Expected::Ended) }
}

/// Sent with the request for the tunnel.
fn early(name: &str, frame: Vec<u8>) -> Case {
    let sent = [frames::request("/ws", "x").into_bytes(), frame].concat();
    Case { frame: Some(Vec::new()), ..case(name, sent, Expected::Ended) }
}

fn the_first_frame_is_masked() -> Vec<Case> {
    vec![
        bad("an unmasked text", frames::raw(0x81, false, "GET /smuggled")),
        bad("an unmasked close", frames::raw(0x88, false, "")),
        bad("a request in place of a frame", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        early("an unmasked text before the 101", frames::raw(0x81, false, "GET /smuggled")),
        early("a request before the 101", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ]
}

fn the_first_frame_has_a_known_opcode() -> Vec<Case> {
    [3, 7, 11, 15].map(|opcode| bad(&format!("opcode {opcode}"), frames::raw(0x80 | opcode, true, "x"))).into()
}

fn the_first_frame_has_no_bit_that_nobody_agreed_to() -> Vec<Case> {
    [("RSV1", 0x40), ("RSV2", 0x20), ("RSV3", 0x10)]
        .map(|(name, bit)| bad(name, frames::raw(0x81 | bit, true, "x")))
        .into()
}
