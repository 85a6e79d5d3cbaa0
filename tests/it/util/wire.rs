//! One end of a connection, byte by byte: a client's, or a scripted backend's.

mod message;
mod stream;

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use socket2::SockRef;

pub use self::message::{Head, Response};
use self::stream::Stream;
use super::{PATIENCE, frames};

/// How the peer's stream of bytes ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// FIN; over TLS after close_notify.
    Closed,
    /// FIN without close_notify (TLS only).
    Truncated,
    /// RST.
    Reset,
    /// Still open when the wait was over.
    Open,
}

/// One end of a connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    /// Received and not taken yet.
    buffer: Vec<u8>,
    /// Everything received, for who wants to look later.
    record: Option<Arc<Mutex<Vec<u8>>>>,
    timeout: Duration,
}

impl Wire {
    pub fn over(stream: impl Stream + 'static) -> Self {
        stream.set_timeout(PATIENCE);
        Self { stream: Box::new(stream), buffer: Vec::new(), record: None, timeout: PATIENCE }
    }

    pub fn connect(address: SocketAddr) -> Self {
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).unwrap_or_else(|e| panic!("connect {address}: {e}"));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(stream)
    }

    pub fn connect_unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).unwrap_or_else(|e| panic!("connect {}: {e}", path.display())))
    }

    pub fn recorded(mut self, record: Arc<Mutex<Vec<u8>>>) -> Self {
        self.record = Some(record);
        self
    }

    /// How long a read may wait; [`PATIENCE`] unless set.
    pub fn patience(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = timeout;
        self.stream.set_timeout(timeout);
        self
    }

    /// A second handle on the same TCP connection, for a thread that only writes; bytes received stay with `self`.
    pub fn writer(&self) -> Self {
        Self::over(self.tcp().try_clone().expect("a second handle"))
    }

    pub fn tcp(&self) -> &TcpStream {
        self.stream.tcp().expect("a TCP connection")
    }

    // Sending

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).unwrap_or_else(|e| panic!("send: {e}"));
        self
    }

    /// A plain write: as much as is taken now.
    pub fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    /// Sends what was written and has not gone: records of TLS.
    pub fn flush(&mut self) -> &mut Self {
        self.stream.flush().expect("flush");
        self
    }

    /// As [`Self::flush`], of one that does not block: true when all has gone, or nothing can go any more.
    pub fn try_flush(&mut self) -> bool {
        self.stream.flush().err().is_none_or(|error| error.kind() != ErrorKind::WouldBlock)
    }

    /// Sends `bytes` in writes of `size` bytes.
    pub fn send_in_pieces(&mut self, bytes: impl AsRef<[u8]>, size: usize) -> &mut Self {
        for piece in bytes.as_ref().chunks(size) {
            self.send(piece);
        }
        self
    }

    /// Sends in small pieces with a rest between, so that each arrives on its own.
    pub fn dribble(&mut self, bytes: impl AsRef<[u8]>, size: usize, rest: Duration) -> &mut Self {
        for piece in bytes.as_ref().chunks(size) {
            self.send(piece);
            std::thread::sleep(rest);
        }
        self
    }

    /// Ends our half: FIN, or close_notify over TLS.
    pub fn finish(&mut self) -> &mut Self {
        self.stream.finish();
        self
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    // Receiving

    /// One read into the buffer; how the stream ended, if it did.
    fn fill(&mut self) -> Option<Ending> {
        let mut chunk = [0; 64 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Some(Ending::Closed),
                Ok(length) => {
                    self.buffer.extend_from_slice(&chunk[..length]);
                    if let Some(record) = &self.record {
                        record.lock().unwrap().extend_from_slice(&chunk[..length]);
                    }
                    return None;
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Some(Ending::Open),
                    ErrorKind::UnexpectedEof => return Some(Ending::Truncated),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Some(Ending::Reset),
                    _ => panic!("read: {error}"),
                },
            }
        }
    }

    /// A plain read: what is buffered first.
    pub fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() {
            match self.fill() {
                None => {}
                Some(Ending::Closed | Ending::Truncated) => return Ok(0),
                Some(Ending::Reset) => return Err(ErrorKind::ConnectionReset.into()),
                Some(Ending::Open) => return Err(ErrorKind::TimedOut.into()),
            }
        }
        let length = self.buffer.len().min(into.len());
        into[..length].copy_from_slice(&self.take(length));
        Ok(length)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// A head, or None when the stream ended before one began.
    pub fn try_head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                return Some(Head::parse(&self.take(end + 4)));
            }
            if let Some(ending) = self.fill() {
                assert!(
                    self.buffer.is_empty() && ending != Ending::Open,
                    "{ending:?} inside a head: {:?}",
                    String::from_utf8_lossy(&self.buffer)
                );
                return None;
            }
        }
    }

    pub fn head(&mut self) -> Head {
        self.try_head().expect("closed before a head")
    }

    /// Exactly this many bytes.
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            if let Some(ending) = self.fill() {
                panic!("{ending:?} after {} of {length} bytes", self.buffer.len());
            }
        }
        self.take(length)
    }

    /// Up to and with the next `\n`.
    pub fn text_line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return String::from_utf8_lossy(&self.take(end + 1)).into_owned();
            }
            if let Some(ending) = self.fill() {
                panic!("{ending:?} inside a line: {:?}", String::from_utf8_lossy(&self.buffer));
            }
        }
    }

    /// A chunked body, its coding undone; trailers are dropped. None when it ended before its last chunk.
    pub fn try_chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            while !self.buffer.contains(&b'\n') {
                if self.fill().is_some() {
                    return None;
                }
            }
            let line = self.text_line();
            let size = line.trim_end().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {line:?}"));
            if size == 0 {
                while self.text_line() != "\r\n" {}
                return Some(body);
            }
            while self.buffer.len() < size + 2 {
                if self.fill().is_some() {
                    return None;
                }
            }
            body.extend(self.take(size));
            assert_eq!(self.take(2), b"\r\n", "behind a chunk");
        }
    }

    /// The body of a message with this head; a response's by default runs until the connection closes.
    pub fn body(&mut self, head: &Head) -> Vec<u8> {
        if head.chunked() {
            return self.try_chunks().expect("closed inside a chunked body");
        }
        match head.get("content-length") {
            Some(length) => self.exactly(length.parse().expect("a length")),
            None if head.line.starts_with("HTTP/") => self.rest(),
            None => Vec::new(),
        }
    }

    /// The answer to a request whose answer has a body (not HEAD), interim answers skipped.
    pub fn response(&mut self) -> Response {
        let mut head = self.head();
        while head.status() < 200 {
            head = self.head();
        }
        let body = if matches!(head.status(), 204 | 304) { Vec::new() } else { self.body(&head) };
        Response { head, body }
    }

    /// The answer to a HEAD request: it has no body whatever its head says.
    pub fn response_to_head(&mut self) -> Response {
        Response { head: self.head(), body: Vec::new() }
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    /// `GET` with Host `x`, on a connection that may be used again.
    pub fn get(&mut self, target: &str) -> Response {
        self.ask(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    /// Everything until the stream ends, and how it ended.
    pub fn ending(&mut self) -> (Vec<u8>, Ending) {
        let ending = loop {
            if let Some(ending) = self.fill() {
                break ending;
            }
        };
        (std::mem::take(&mut self.buffer), ending)
    }

    /// Everything until the peer's clean end.
    pub fn rest(&mut self) -> Vec<u8> {
        let (bytes, ending) = self.ending();
        assert_eq!(ending, Ending::Closed, "after {} bytes", bytes.len());
        bytes
    }

    /// The peer ends the connection without another byte (FIN or RST).
    pub fn expect_gone(&mut self) {
        let (bytes, ending) = self.ending();
        assert!(bytes.is_empty(), "more came: {:?}", String::from_utf8_lossy(&bytes));
        assert_ne!(ending, Ending::Open, "still open after {:?}", self.timeout);
    }

    // WebSocket

    /// Asks for a WebSocket with Host `x` and reads the answer's head.
    pub fn upgrade(&mut self, target: &str) -> Head {
        self.send(frames::request(target, "x"));
        self.head()
    }

    /// As [`Self::upgrade`]; panics unless it is a 101 with the right `Sec-WebSocket-Accept`.
    pub fn websocket(&mut self, target: &str) -> &mut Self {
        let head = self.upgrade(target);
        assert_eq!(head.status(), 101, "{}", head.raw);
        assert_eq!(head.get("sec-websocket-accept"), Some(frames::ACCEPT), "{}", head.raw);
        assert!(head.get("upgrade").is_some_and(|token| token.eq_ignore_ascii_case("websocket")), "{}", head.raw);
        self
    }

    /// The backend's side: reads a WebSocket request and answers 101.
    pub fn accept_websocket(&mut self) -> Head {
        let head = self.head();
        let answer = frames::switching(&head);
        self.send(answer);
        head
    }

    /// The next frame: its opcode and its payload, unmasked.
    pub fn frame(&mut self) -> (u8, Vec<u8>) {
        let head = self.exactly(2);
        let length = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.exactly(2).try_into().expect("two bytes"))),
            127 => u64::from_be_bytes(self.exactly(8).try_into().expect("eight bytes")),
            short => u64::from(short),
        };
        let mask = if head[1] & 0x80 == 0 { [0; 4] } else { self.exactly(4).try_into().expect("four bytes") };
        let mut payload = self.exactly(usize::try_from(length).expect("a length that fits"));
        frames::mask(&mut payload, mask);
        (head[0] & 0x0f, payload)
    }

    /// The code of the close frame that comes next; None when the next frame is another.
    pub fn closed_with(&mut self) -> Option<u16> {
        match self.frame() {
            (frames::CLOSE, payload) => Some(u16::from_be_bytes([*payload.first()?, *payload.get(1)?])),
            _ => None,
        }
    }

    /// Sends one masked text frame and reads the echo.
    pub fn echoes(&mut self, text: &str) {
        self.send(frames::client(frames::TEXT, text));
        assert_eq!(self.frame(), (frames::TEXT, text.as_bytes().to_vec()));
    }
}
