//! Plain HTTP over kept connections: a client's requests, a backend's answers, their bodies checked as frames are.

use super::{
    frame::{Flow, Frame, Pattern, Side},
    upgrade::{FIELDS, field},
};

/// A client's side: what it asks next, and what of the answer is here.
pub struct Exchange {
    /// The bodies it must get, one frame each.
    flow: Flow,
    sequence: u32,
    received: Vec<u8>,
}

/// A backend's side: what it was asked for.
pub struct Question {
    client: u32,
    sequence: u32,
    closes: bool,
}

/// A backend's answer, whole.
pub struct Answer {
    pub bytes: Vec<u8>,
    /// The connection ends with it.
    pub closes: bool,
}

impl Exchange {
    pub fn new(flow: Flow) -> Self {
        Self { flow, sequence: 0, received: Vec::new() }
    }

    /// The next request, with the fields a browser of today sends.
    pub fn request(&self) -> Vec<u8> {
        format!(
            "GET /plain/{client}/{sequence} HTTP/1.1\r\n\
             Host: localhost\r\n\
             User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
             Accept: */*\r\n\
             Accept-Language: en-US,en;q=0.5\r\n\
             Accept-Encoding: gzip, deflate, br, zstd\r\n\
             Referer: http://localhost/\r\n\
             Connection: keep-alive\r\n\
             Cookie: session=0123456789abcdef0123456789abcdef\r\n\
             Sec-Fetch-Dest: empty\r\n\
             Sec-Fetch-Mode: cors\r\n\
             Sec-Fetch-Site: same-origin\r\n\r\n",
            client = self.flow.tunnel,
            sequence = self.sequence,
        )
        .into_bytes()
    }

    /// Takes bytes of the answer; true when it is whole and the next request may go.
    pub fn take(&mut self, bytes: &[u8], pattern: &Pattern) -> Result<bool, String> {
        self.received.extend_from_slice(bytes);
        let mut fields = [httparse::EMPTY_HEADER; FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(&self.received).map_err(|error| error.to_string())?;
        let httparse::Status::Complete(head) = parsed else { return Ok(false) };
        if response.code != Some(200) {
            return Err(format!("answered {} instead of 200", response.code.unwrap_or(0)));
        }
        let expected = Frame::new(&self.flow, self.sequence);
        let length = field(response.headers, "content-length").and_then(|value| std::str::from_utf8(value).ok());
        if length != Some(expected.len().to_string().as_str()) {
            return Err(format!("a Content-Length of {length:?} instead of {}", expected.len()));
        }
        let body = &self.received[head..];
        if expected.matches(0, body, pattern) != Some(body.len()) {
            return Err("a wrong body".into());
        }
        let whole = body.len() == expected.len();
        if whole {
            self.received.clear();
            self.sequence += 1;
        }
        Ok(whole)
    }
}

impl Question {
    /// Reads the path, and what the proxy says of the connection; None: not a plain request's path.
    pub fn read(path: &str, connection: Option<&[u8]>) -> Option<Self> {
        let (client, sequence) = path.strip_prefix("/plain/")?.split_once('/')?;
        let closes = connection.is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        Some(Self { client: client.parse().ok()?, sequence: sequence.parse().ok()?, closes })
    }

    /// The frame that was asked for, as a body.
    pub fn answer(&self, payload: usize, pattern: &Pattern) -> Answer {
        let frame = Frame::new(&Flow { from: Side::Backend, tunnel: self.client, payload }, self.sequence);
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n{}\r\n",
            frame.len(),
            if self.closes { "Connection: close\r\n" } else { "" }
        );
        let [prefix, body] = frame.rest(0, pattern);
        Answer { bytes: [head.as_bytes(), prefix, body].concat(), closes: self.closes }
    }
}
