//! The demo's backend: an HTTP and WebSocket server of the plainest kind, a thread a connection, bounded.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use tungstenite::{
    Error, Message, Utf8Bytes, WebSocket,
    handshake::derive_accept_key,
    protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
};

use super::{chat::Room, shared::Shared};
use crate::limits::{DEMO_CONNECTIONS, DEMO_FIELDS, DEMO_HEAD_BYTES, DEMO_MESSAGE_BYTES, DEMO_WAIT_SECS};

/// What every connection needs.
struct Site {
    page: String,
    room: Arc<Room>,
    connections: AtomicUsize,
}

/// Serves in the background for the rest of the process' life.
///
/// # Errors
/// No thread.
pub(super) fn start(listener: TcpListener, page: String) -> io::Result<()> {
    let site = Arc::new(Site { page, room: Arc::default(), connections: AtomicUsize::new(0) });
    thread::Builder::new().name("demo".to_owned()).spawn(move || {
        for stream in listener.incoming() {
            match stream {
                Ok(stream) => site.accept(stream),
                // No descriptor, mostly: one may be free in a moment.
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    })?;
    Ok(())
}

impl Site {
    fn accept(self: &Arc<Self>, mut stream: TcpStream) {
        let Some(place) = Place::take(self) else {
            let _ = refuse(&mut stream);
            return;
        };
        // A connection whose thread cannot be started is closed by dropping it.
        let _ = thread::Builder::new().name("demo-connection".to_owned()).spawn(move || {
            // A connection that fails concerns nobody else.
            let _ = place.0.serve(stream);
        });
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let wait = Duration::from_secs(DEMO_WAIT_SECS);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait))?;
        stream.set_write_timeout(Some(wait))?;
        let Some(request) = read_request(&mut stream)? else {
            return respond(&mut stream, "400 Bad Request", "text/plain", b"this is no request\n");
        };
        match (request.path.as_str(), &request.key) {
            ("/ws/echo", Some(_)) => echo(upgrade(stream, request)?),
            ("/ws/chat", Some(_)) => self.room.join(upgrade(stream, request)?),
            ("/ws/echo" | "/ws/chat", None) => respond(
                &mut stream,
                "426 Upgrade Required",
                "text/plain",
                b"this is a WebSocket: try wscat -c ws://...\n",
            ),
            ("/", _) => respond(&mut stream, "200 OK", "text/html; charset=utf-8", self.page.as_bytes()),
            ("/whoami", _) => respond(&mut stream, "200 OK", "text/plain; charset=utf-8", &request.head),
            _ => respond(&mut stream, "404 Not Found", "text/plain", b"there are /, /whoami, /ws/chat and /ws/echo\n"),
        }
    }
}

/// One of the connections served at once; given back when dropped.
struct Place(Arc<Site>);

impl Place {
    fn take(site: &Arc<Site>) -> Option<Self> {
        let taken = site.connections.fetch_update(Relaxed, Relaxed, |now| (now < DEMO_CONNECTIONS).then_some(now + 1));
        taken.is_ok().then(|| Self(Arc::clone(site)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

/// What the backend wants to know of a request.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    path: String,
    /// `Sec-WebSocket-Key`, of an upgrade.
    key: Option<Vec<u8>>,
    /// The head as it arrived: what the proxy made of it.
    head: Vec<u8>,
    /// What came behind it.
    rest: Vec<u8>,
}

/// Reads a request head. None: it is none, or too large.
fn read_request(stream: &mut TcpStream) -> io::Result<Option<Request>> {
    let deadline = Instant::now() + Duration::from_secs(DEMO_WAIT_SECS);
    let mut buffer = Vec::new();
    loop {
        match parse(&buffer) {
            Ok(None) if buffer.len() < DEMO_HEAD_BYTES && Instant::now() < deadline => {}
            Ok(None) | Err(_) => return Ok(None),
            Ok(request) => return Ok(request),
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => buffer.extend(piece.iter().take(length)),
        }
    }
}

/// None: more bytes are needed.
fn parse(buffer: &[u8]) -> Result<Option<Request>, httparse::Error> {
    let mut fields = [httparse::EMPTY_HEADER; DEMO_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = request.parse(buffer)? else { return Ok(None) };
    let field = |name: &str| {
        request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let upgrade = field("upgrade").is_some_and(|token| token.eq_ignore_ascii_case(b"websocket"));
    let target = request.path.unwrap_or_default();
    let (head, rest) = buffer.split_at_checked(length).unwrap_or((buffer, &[]));
    Ok(Some(Request {
        path: target.split('?').next().unwrap_or_default().to_owned(),
        key: field("sec-websocket-key").filter(|_| upgrade).map(<[u8]>::to_vec),
        head: head.to_vec(),
        rest: rest.to_vec(),
    }))
}

/// Answers 101. From then on a client may be silent for as long as it likes.
fn upgrade(mut stream: TcpStream, request: Request) -> io::Result<WebSocket<Shared>> {
    let accept = derive_accept_key(request.key.as_deref().unwrap_or_default());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )?;
    stream.set_read_timeout(None)?;
    Ok(WebSocket::from_partially_read(Shared::new(stream), request.rest, Role::Server, Some(settings())))
}

/// Message sizes are bounded: a demo must not be a way to fill the memory.
pub(super) fn settings() -> WebSocketConfig {
    WebSocketConfig::default().max_message_size(Some(DEMO_MESSAGE_BYTES)).max_frame_size(Some(DEMO_MESSAGE_BYTES))
}

fn echo(mut socket: WebSocket<Shared>) -> io::Result<()> {
    loop {
        let message = match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => message,
            // tungstenite answers pings and closes by itself, at the next read or write.
            Ok(_) => continue,
            Err(error) => {
                refuse_message(&mut socket, &error);
                return Ok(());
            }
        };
        if socket.send(message).is_err() {
            return Ok(());
        }
    }
}

/// Tells the client why, where it sent too much or no UTF-8: 1009 and 1007 (RFC 6455 section 7.4.1).
pub(super) fn refuse_message(socket: &mut WebSocket<Shared>, error: &Error) {
    let code = match error {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        _ => return,
    };
    // A client that is gone needs no reason.
    let _ = socket.close(Some(CloseFrame { code, reason: Utf8Bytes::default() }));
    let _ = socket.flush();
}

/// Says that there is no place, without a thread: reads what has come, since closing a socket with unread bytes would
/// reset the connection and lose the answer.
fn refuse(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let _ = stream.read(&mut [0; 4096])?;
    answer(stream, "503 Service Unavailable", "text/plain", b"the demo is full\n")
}

/// Answers, and closes once the client has (or has sent more than it may).
fn respond(stream: &mut TcpStream, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
    answer(stream, status, kind, body)?;
    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream.take(DEMO_MESSAGE_BYTES as u64), &mut io::sink())?;
    Ok(())
}

fn answer(stream: &mut TcpStream, status: &str, kind: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat())
}

/// A listener on a free loopback port.
pub(super) fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use tungstenite::client;

    use super::*;

    fn site() -> SocketAddr {
        let (listener, address) = listen().unwrap();
        start(listener, "<html>the page</html>".to_owned()).unwrap();
        address
    }

    fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn connect(address: SocketAddr, path: &str) -> WebSocket<TcpStream> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client(format!("ws://{address}{path}"), stream).unwrap().0
    }

    fn text(socket: &mut WebSocket<TcpStream>) -> String {
        socket.read().unwrap().into_text().unwrap().to_string()
    }

    #[test]
    fn plain_http_gives_the_page_and_the_head_it_saw() {
        let address = site();
        assert!(get(address, "GET / HTTP/1.1\r\n\r\n").ends_with("<html>the page</html>"));
        let answer = get(address, "GET /whoami?x HTTP/1.1\r\nX-Real-IP: 10.1.1.1\r\n\r\n");
        assert!(answer.contains("\r\n\r\nGET /whoami?x HTTP/1.1\r\nX-Real-IP: 10.1.1.1\r\n"));
        assert!(get(address, "GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(get(address, "GET /ws/echo HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 426 "));
        assert!(get(address, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        assert!(
            get(address, &format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(2 * DEMO_HEAD_BYTES)))
                .starts_with("HTTP/1.1 400 ")
        );
    }

    #[test]
    fn echo_gives_back_what_came_with_the_request_too() {
        let mut socket = connect(site(), "/ws/echo");
        for message in [Message::text("hello"), Message::binary(vec![0; 100_000]), Message::text("")] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message);
        }
    }

    #[test]
    fn a_message_beyond_the_limit_ends_the_connection() {
        let mut socket = connect(site(), "/ws/echo");
        // Its header alone is enough for the answer, and leaves nothing unread that would turn it into a reset.
        let too_long = (DEMO_MESSAGE_BYTES as u64 + 1).to_be_bytes();
        socket.get_mut().write_all(&[&[0x82, 0xff], &too_long[..], &[0; 4]].concat()).unwrap();
        match socket.read() {
            Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Size),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn chat_lines_reach_everybody_with_a_name() {
        let address = site();
        let (mut ann, mut bob) = (connect(address, "/ws/chat"), connect(address, "/ws/chat"));
        for socket in [&mut ann, &mut bob] {
            assert!(text(socket).starts_with("* you are guest-"));
        }
        ann.send(Message::text("/name Ann")).unwrap();
        ann.send(Message::text("hello")).unwrap();
        while text(&mut bob) != "Ann: hello" {}
        while text(&mut ann) != "Ann: hello" {}
        bob.send(Message::text("hi")).unwrap();
        loop {
            let line = text(&mut ann);
            if line.ends_with(": hi") {
                assert!(line.starts_with("guest-"));
                break;
            }
        }
        drop(bob);
        while !text(&mut ann).ends_with(" left") {}
    }

    #[test]
    fn more_connections_than_the_limit_are_told_so() {
        let address = site();
        let held: Vec<_> = (0..DEMO_CONNECTIONS).map(|_| connect(address, "/ws/echo")).collect();
        assert!(get(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503 "));
        drop(held);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !get(address, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 ") {
            assert!(Instant::now() < deadline, "places are given back");
            thread::sleep(Duration::from_millis(10));
        }
    }
}
