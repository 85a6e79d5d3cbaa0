//! Both ends of the upgrade: the head a browser sends, and what a backend makes of it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tungstenite::handshake::derive_accept_key;

use super::exchange::Question;

pub const FIELDS: usize = 32;

/// The upgrade request of a tunnel, with the fields a browser of today sends.
pub fn request(tunnel: u32) -> Vec<u8> {
    format!(
        "GET /tunnel/{tunnel} HTTP/1.1\r\n\
         Host: localhost\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: */*\r\n\
         Accept-Language: en-US,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Sec-WebSocket-Version: 13\r\n\
         Origin: http://localhost\r\n\
         Sec-WebSocket-Key: {key}\r\n\
         Connection: keep-alive, Upgrade\r\n\
         Cookie: session=0123456789abcdef0123456789abcdef\r\n\
         Sec-Fetch-Dest: empty\r\n\
         Sec-Fetch-Mode: websocket\r\n\
         Sec-Fetch-Site: same-origin\r\n\
         Pragma: no-cache\r\n\
         Cache-Control: no-cache\r\n\
         Upgrade: websocket\r\n\r\n",
        key = key(tunnel)
    )
    .into_bytes()
}

/// What a backend was asked for.
pub enum Asked {
    /// An upgrade: which tunnel, and the answer.
    Tunnel(u32, Vec<u8>),
    /// No upgrade.
    Plain(Question),
}

/// Reads a request head as a backend does. Its length and what it asks for; None: more bytes are needed.
pub fn answer(head: &[u8]) -> Result<Option<(usize, Asked)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(head).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let path = request.path.unwrap_or_default();
    if let Some(question) = Question::read(path, field(request.headers, "connection")) {
        return Ok(Some((length, Asked::Plain(question))));
    }
    let tunnel = path.strip_prefix("/tunnel/").and_then(|id| id.parse().ok());
    let tunnel = tunnel.ok_or("the backend was asked for another path")?;
    if field(request.headers, "upgrade") != Some(b"websocket") {
        return Err("the backend was not asked to upgrade".into());
    }
    let key = field(request.headers, "sec-websocket-key").ok_or("no Sec-WebSocket-Key reached the backend")?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key)
    );
    Ok(Some((length, Asked::Tunnel(tunnel, answer.into_bytes()))))
}

/// Reads the answer as the client does. Its length; None: more bytes are needed.
pub fn judge(head: &[u8], tunnel: u32) -> Result<Option<usize>, String> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = response.parse(head).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or(0);
    if status != 101 {
        return Err(format!("answered {status} instead of 101"));
    }
    if field(response.headers, "sec-websocket-accept") != Some(derive_accept_key(key(tunnel).as_bytes()).as_bytes()) {
        return Err("a wrong Sec-WebSocket-Accept".into());
    }
    Ok(Some(length))
}

fn key(tunnel: u32) -> String {
    BASE64_STANDARD.encode(u128::from(tunnel).to_be_bytes())
}

pub fn field<'a>(fields: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    fields.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
}
