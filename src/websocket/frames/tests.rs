use proptest::prelude::*;

use super::*;

fn frame(first: u8, sender: Sender, payload: usize) -> Vec<u8> {
    let mask = if sender == Sender::Client { MASK } else { 0 };
    let mut frame = vec![first];
    match payload {
        0..=125 => frame.push(mask | payload as u8),
        126..=0xffff => {
            frame.push(mask | 126);
            frame.extend((payload as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend((payload as u64).to_be_bytes());
        }
    }
    let key = if mask == 0 { 0 } else { 4 };
    // Payload bytes that would be nonsense as a header.
    frame.extend(std::iter::repeat_n(0xff, payload + key));
    frame
}

fn client(bytes: &[u8]) -> Result<u32, Violation> {
    Frames::default().advance(bytes, Sender::Client, 0)
}

fn server(bytes: &[u8]) -> Result<u32, Violation> {
    Frames::default().advance(bytes, Sender::Server, 0)
}

#[test]
fn frames_in_one_buffer_are_counted_and_end_at_a_boundary() {
    let mut frames = Frames::default();
    assert!(frames.at_boundary());
    let bytes: Vec<u8> =
        [0, 1, 125, 126, 65535, 65536].iter().flat_map(|len| frame(0x82, Sender::Client, *len)).collect();
    assert_eq!(frames.advance(&bytes, Sender::Client, 0), Ok(6));
    assert!(frames.at_boundary());
}

#[test]
fn a_payload_may_span_buffers_and_be_skipped_unseen() {
    let mut frames = Frames::default();
    assert_eq!(frames.advance(&frame(0x82, Sender::Server, 100_000)[..1000], Sender::Server, 0), Ok(1));
    assert_eq!(frames.payload_left(), 100_010 - 1000);
    assert!(!frames.at_boundary());
    frames.skip(99_000);
    assert_eq!(frames.advance(&[0; 9], Sender::Server, 0), Ok(0));
    assert_eq!(frames.payload_left(), 1);
    assert_eq!(frames.advance(&[0, 0x81, 0], Sender::Server, 0), Ok(1));
    assert!(frames.at_boundary());
}

#[test]
fn within_a_header_is_no_boundary() {
    let mut frames = Frames::default();
    for byte in [0x82, 0xfe, 0] {
        assert_eq!(frames.advance(&[byte], Sender::Client, 0), Ok(0));
        assert!(!frames.at_boundary());
        assert_eq!(frames.payload_left(), 0);
    }
    assert_eq!(frames.advance(&[200], Sender::Client, 0), Ok(1));
    assert_eq!(frames.payload_left(), 204);
}

#[test]
fn only_clients_mask() {
    assert_eq!(client(&[0x81, 0x00]), Err(Violation("a client frame is not masked")));
    assert_eq!(server(&[0x81, 0x80]), Err(Violation("a server frame is masked")));
    assert_eq!(client(&[0x81]), Ok(0), "not known yet");
}

#[test]
fn opcodes_are_known_ones() {
    for opcode in 0..16 {
        assert_eq!(client(&[0x80 | opcode, 0x80]).is_ok(), matches!(opcode, 1 | 2 | 8 | 9 | 10), "{opcode}");
    }
}

#[test]
fn rsv_bits_are_those_an_extension_allows() {
    for bits in [0x10, 0x20, 0x40] {
        assert!(client(&[0x81 | bits, 0x80]).is_err());
        assert!(Frames::default().advance(&[0x81 | bits, 0x80], Sender::Client, bits).is_ok());
        assert!(Frames::default().advance(&[0x81 | bits, 0x80], Sender::Client, 0x70 & !bits).is_err());
    }
}

#[test]
fn control_frames_are_whole_and_short() {
    assert_eq!(server(&[0x09, 0x00]), Err(Violation("a fragmented control frame")));
    assert_eq!(server(&[0x89, 126]), Err(Violation("a control frame over 125 bytes")));
    assert_eq!(server(&frame(0x8a, Sender::Server, 125)), Ok(1));
}

#[test]
fn lengths_are_in_their_shortest_form_and_below_2_to_the_63() {
    assert!(server(&[0x82, 126, 0, 125]).is_err());
    assert!(server(&[0x82, 126, 0, 126]).is_ok());
    assert!(server(&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]).is_err());
    assert!(server(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]).is_ok());
    assert!(server(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]).is_err());
    let mut frames = Frames::default();
    assert_eq!(frames.advance(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Sender::Client, 0), Ok(1));
    assert_eq!(frames.payload_left(), (1 << 63) + 3);
    assert!(!frames.is_lost());
}

#[test]
fn fragments_follow_each_other_with_control_frames_between() {
    assert_eq!(server(&[0x01, 0, 0x89, 0, 0x00, 0, 0x80, 0, 0x82, 0]), Ok(5));
    assert_eq!(server(&[0x80, 0]), Err(Violation("a continuation of no message")));
    assert_eq!(server(&[0x01, 0, 0x81, 0]), Err(Violation("a new message within a fragmented one")));
}

#[test]
fn http_on_a_tunnel_is_no_frame() {
    assert!(client(b"GET / HTTP/1.1\r\n").is_err());
    assert!(server(b"HTTP/1.1 200 OK\r\n").is_err());
}

#[test]
fn after_a_violation_the_place_is_lost_and_nothing_is_counted() {
    let mut frames = Frames::default();
    assert!(frames.advance(&[0x81, 0x00], Sender::Client, 0).is_err());
    assert!(frames.is_lost());
    assert_eq!(frames.advance(&frame(0x82, Sender::Client, 3), Sender::Client, 0), Ok(0));
    frames.skip(1 << 40);
    assert_eq!(frames.payload_left(), u64::MAX);
    assert!(!frames.at_boundary());
}

/// What `advance` must say, read one byte at a time from RFC 6455's figure, without any care for speed. The number of frames
/// begun, and whether the input was in order and ended between frames.
fn reference(bytes: &[u8], sender: Sender, rsv: u8) -> (Option<u32>, bool) {
    let mut at = 0;
    let (mut begun, mut fragmented) = (0, false);
    let byte = |at: usize| bytes.get(at).copied();
    while at < bytes.len() {
        let (Some(first), Some(second)) = (byte(at), byte(at + 1)) else { return (Some(begun), false) };
        let (fin, opcode, masked) = (first >> 7 == 1, first & 15, second >> 7 == 1);
        let control = opcode >= 8;
        let ordered = control || (opcode == 0) == fragmented;
        let known = [0, 1, 2, 8, 9, 10].contains(&opcode);
        let fine = known && ordered && masked == (sender == Sender::Client) && first & 0x70 & !rsv == 0;
        if !fine || control && (!fin || second & 127 > 125) {
            return (None, false);
        }
        let width = match second & 127 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if at + 2 + width > bytes.len() {
            return (Some(begun), false);
        }
        let long = bytes[at + 2..at + 2 + width].iter().fold(0u128, |length, byte| length << 8 | u128::from(*byte));
        let length = if width == 0 { u128::from(second & 127) } else { long };
        if width == 2 && length < 126 || width == 8 && !(65536..1 << 63).contains(&length) {
            return (None, false);
        }
        begun += 1;
        if !control {
            fragmented = !fin;
        }
        let end = at as u128 + 2 + width as u128 + if masked { 4 } else { 0 } + length;
        if end > bytes.len() as u128 {
            return (Some(begun), false);
        }
        at = end as usize;
    }
    (Some(begun), true)
}

fn stream(sender: Sender) -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8a, 0xc1]);
    let length = prop_oneof![0usize..8, 120usize..130, Just(300), Just(65535), Just(65536)];
    let part = prop_oneof![
        20 => (first, length).prop_map(move |(first, length)| frame(first, sender, length)),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn any_sender() -> impl Strategy<Value = Sender> {
    prop_oneof![Just(Sender::Client), Just(Sender::Server)]
}

proptest! {
    #[test]
    fn any_split_gives_what_the_reference_says(
        (sender, bytes) in any_sender().prop_flat_map(|sender| (Just(sender), stream(sender))),
        rsv in prop::sample::select(vec![0, 0x40, 0x70]),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        skipping: bool,
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (mut frames, mut begun) = (Frames::default(), Some(0));
        for cut in cuts.windows(2) {
            let mut piece = &bytes[cut[0]..cut[1]];
            if skipping && !frames.is_lost() {
                let skipped = frames.payload_left().min(piece.len() as u64);
                frames.skip(skipped);
                piece = &piece[skipped as usize..];
            }
            begun = begun.and_then(|begun| Some(begun + frames.advance(piece, sender, rsv).ok()?));
        }
        let (expected, at_boundary) = reference(&bytes, sender, rsv);
        prop_assert_eq!(begun, expected);
        prop_assert_eq!(frames.at_boundary(), at_boundary);
        prop_assert_eq!(frames.is_lost(), expected.is_none());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), sender in any_sender(), rsv: u8) {
        let mut frames = Frames::default();
        for piece in bytes.chunks(3) {
            let _ = frames.advance(piece, sender, rsv);
        }
    }
}

#[test]
fn a_boundary_is_found_wherever_reading_stops() {
    for sender in [Sender::Client, Sender::Server] {
        let (first, second) = (frame(0x82, sender, 70_000), frame(0x81, sender, 3));
        let stream = [&first[..], &second].concat();
        for start in [0, 1, 2, 5, 9, 10, 13, 14, 15, 69_000, first.len() - 1] {
            let mut frames = Frames::default();
            let before = frames.advance(&stream[..start], sender, 0).unwrap();
            let (used, begun) = frames.advance_to_boundary(&stream[start..], sender, 0).unwrap();
            if start == 0 {
                assert_eq!((used, begun), (0, 0), "it is at one already");
            } else {
                assert_eq!((start + used, before + begun), (first.len(), 1), "from {start}");
            }
            assert!(frames.at_boundary());
        }
        let mut frames = Frames::default();
        frames.advance(&first[..3], sender, 0).unwrap();
        assert_eq!(frames.advance_to_boundary(&first[3..100], sender, 0), Ok((97, 1)), "none yet");
        assert!(!frames.at_boundary());
    }
}

#[test]
fn a_close_frame_is_noticed_and_nothing_of_ours_may_follow() {
    for pieces in [1, 2, 100] {
        let mut frames = Frames::default();
        let stream = [frame(0x01, Sender::Client, 5), frame(0x89, Sender::Client, 0)].concat();
        frames.advance(&stream, Sender::Client, 0).unwrap();
        assert!(!frames.has_closed());
        for piece in frame(0x88, Sender::Client, 2).chunks(pieces) {
            frames.advance(piece, Sender::Client, 0).unwrap();
        }
        assert!(frames.has_closed() && frames.at_boundary() && !frames.has_ended());
    }
    let mut frames = Frames::default();
    frames.end();
    assert!(frames.has_ended() && !frames.at_boundary());
    assert_eq!(frames.advance(&[0xff; 20], Sender::Server, 0), Ok(0));
    frames.lost();
    assert!(!frames.has_ended());
}
