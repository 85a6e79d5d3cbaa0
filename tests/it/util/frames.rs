//! WebSocket's handshake and frames (RFC 6455) as plain bytes.

use tungstenite::handshake::derive_accept_key;

use super::Head;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The key and the answer to it of RFC 6455 section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A WebSocket request as browsers send it.
pub fn request(target: &str, host: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// The 101 to a request.
pub fn switching(request: &Head) -> String {
    let key = request.get("sec-websocket-key").unwrap_or_else(|| panic!("no key in {}", request.raw));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
}

/// Masks or unmasks.
pub fn mask(payload: &mut [u8], key: [u8; 4]) {
    if key != [0; 4] {
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
}

fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(bit | u8::try_from(short).expect("below 126")),
        medium @ 126..65536 => {
            bytes.push(bit | 126);
            bytes.extend(u16::try_from(medium).expect("below 65536").to_be_bytes());
        }
        long => {
            bytes.push(bit | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let start = bytes.len() + if key.is_some() { 4 } else { 0 };
    bytes.extend(key.iter().flatten());
    bytes.extend_from_slice(payload);
    mask(&mut bytes[start..], key.unwrap_or_default());
    bytes
}

/// A whole message in one masked frame, as a client sends it.
pub fn client(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(0x80 | opcode, payload.as_ref(), Some([0x37, 0xfa, 0x21, 0x3d]))
}

/// A whole message in one frame, as a server sends it.
pub fn server(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(0x80 | opcode, payload.as_ref(), None)
}

/// A frame with this first byte (FIN, RSV and opcode bits as given), masked or not.
pub fn raw(first: u8, masked: bool, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frame(first, payload.as_ref(), masked.then_some([1, 2, 3, 4]))
}

/// Binary frames of many sizes, together at least `total` bytes long.
pub fn stream(total: usize, seed: u64, masked: bool) -> Vec<u8> {
    const SIZES: [usize; 8] = [1, 125, 126, 4096, 16_384, 65_535, 65_536, 900_001];
    let payload = super::pattern(900_001, seed);
    let mut bytes = Vec::with_capacity(total + 1_000_000);
    for size in SIZES.iter().cycle() {
        if bytes.len() >= total {
            break;
        }
        // A zero key is a valid one (section 5.3) and keeps this quick in a debug build.
        bytes.extend(frame(0x80 | BINARY, &payload[..*size], masked.then_some([0; 4])));
    }
    bytes
}
