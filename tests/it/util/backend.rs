//! Backends over real sockets, a thread a connection.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tungstenite::{Message, protocol::WebSocketConfig};

use super::{Wire, checksum, eventually};

type Record = Arc<Mutex<Vec<u8>>>;

/// A backend that keeps every byte it receives.
pub struct Backend {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Record>>>,
    stopped: Arc<AtomicBool>,
}

impl Backend {
    /// Runs `serve` for every connection; its number (from 0) comes with it. The connection closes when `serve` returns.
    pub fn serve(serve: impl Fn(Wire, usize) + Send + Sync + 'static) -> Self {
        Self::serve_at("127.0.0.1:0".parse().expect("an address"), serve)
    }

    /// As [`Self::serve`], at an address of the caller's.
    pub fn serve_at(address: SocketAddr, serve: impl Fn(Wire, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("bind");
        let address = listener.local_addr().expect("its address");
        let accept = move || {
            listener.accept().ok().map(|(stream, _)| {
                let _ = stream.set_nodelay(true);
                Wire::over(stream)
            })
        };
        Self::run(address, accept, serve)
    }

    /// As [`Self::serve`], on a unix socket that anybody may connect to.
    pub fn serve_unix(path: &Path, serve: impl Fn(Wire, usize) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).expect("bind");
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("its mode");
        let accept = move || listener.accept().ok().map(|(stream, _)| Wire::over(stream));
        Self::run("0.0.0.0:0".parse().expect("an address"), accept, serve)
    }

    fn run(
        address: SocketAddr,
        accept: impl Fn() -> Option<Wire> + Send + 'static,
        serve: impl Fn(Wire, usize) + Send + Sync + 'static,
    ) -> Self {
        let connections = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let (records, stop, serve) = (connections.clone(), stopped.clone(), Arc::new(serve));
        thread::spawn(move || {
            while let Some(wire) = accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let record = Record::default();
                let number = {
                    let mut records = records.lock().unwrap();
                    records.push(record.clone());
                    records.len() - 1
                };
                let serve = serve.clone();
                // Small stacks: some tests hold thousands of connections.
                thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn(move || serve(wire.recorded(record), number))
                    .expect("a thread");
            }
        });
        Self { address, connections, stopped }
    }

    /// Accepts and reads whatever comes, and never says a word.
    pub fn silent() -> Self {
        Self::serve(|mut wire, _| drop(wire.ending()))
    }

    /// Reads one request, body included, sends `answer` as it stands, and closes.
    pub fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::serve(move |mut wire, _| {
            if let Some(head) = wire.try_head() {
                wire.body(&head);
                let _ = wire.try_send(&answer);
            }
        })
    }

    /// Answers every request with a 200 whose body is `name`, and keeps the connection.
    pub fn named(name: &'static str) -> Self {
        Self::http(move |_, _| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).into_bytes())
    }

    /// Answers every request with what `answer` makes of its head and body, and keeps the connection.
    pub fn http(answer: impl Fn(&super::Head, &[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::serve(move |mut wire, _| {
            while let Some(head) = wire.try_head() {
                let body = wire.body(&head);
                if wire.try_send(answer(&head, &body)).is_err() {
                    return;
                }
            }
        })
    }

    /// Answers every request with its own head as the body: what the backend saw. The length and the checksum of the
    /// request's body are in `X-Body-Length` and `X-Body-Sum`; a field `X-Answer` of the request is the status of the answer.
    pub fn mirror() -> Self {
        Self::http(mirrored)
    }

    /// A WebSocket server that sends back every message; requests that are no upgrade are mirrored.
    pub fn echo() -> Self {
        Self::serve(|wire, _| echo(wire))
    }

    /// Accepts every WebSocket and hands the connection over.
    pub fn accepting() -> (Self, mpsc::Receiver<Wire>) {
        let (sender, receiver) = mpsc::channel();
        let backend = Self::serve(move |mut wire, _| {
            wire.accept_websocket();
            let _ = sender.send(wire);
        });
        (backend, receiver)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap().len()
    }

    /// What arrived on connection `number`, so far.
    pub fn received(&self, number: usize) -> Vec<u8> {
        let record = self.connections.lock().unwrap().get(number).cloned();
        record.map(|record| record.lock().unwrap().clone()).unwrap_or_default()
    }

    /// What arrived on all connections, so far.
    pub fn received_at_all(&self) -> Vec<u8> {
        let records = self.connections.lock().unwrap().clone();
        records.iter().flat_map(|record| record.lock().unwrap().clone()).collect()
    }

    /// Waits until connection `number` has received this much.
    pub fn wait_received(&self, number: usize, length: usize) -> Vec<u8> {
        assert!(
            eventually(|| self.received(number).len() >= length),
            "backend received {} of {length} bytes",
            self.received(number).len()
        );
        self.received(number)
    }
}

impl Drop for Backend {
    /// The listener goes with its thread, which a last connection wakes; connections end with their clients.
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = std::net::TcpStream::connect_timeout(&self.address, Duration::from_millis(200));
    }
}

fn mirrored(head: &super::Head, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nX-Body-Length: {}\r\nX-Body-Sum: {:x}\r\n\r\n",
        head.get("x-answer").unwrap_or("200 OK"),
        head.raw.len(),
        body.len(),
        checksum(body)
    );
    if head.method() != "HEAD" {
        answer.push_str(&head.raw);
    }
    answer.into_bytes()
}

/// Bytes already read, then the stream: what a WebSocket library goes on with.
struct Resumed(Wire);

impl std::io::Read for Resumed {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_some(into)
    }
}

impl std::io::Write for Resumed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.try_send(bytes).map(|()| bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Serves requests with their mirror image until one asks for a WebSocket, then echoes its messages.
pub fn echo(mut wire: Wire) {
    loop {
        let Some(head) = wire.try_head() else { return };
        if head.get("sec-websocket-key").is_some() {
            if wire.try_send(super::frames::switching(&head)).is_err() {
                return;
            }
            break;
        }
        let body = wire.body(&head);
        if wire.try_send(mirrored(&head, &body)).is_err() {
            return;
        }
    }
    // An idle tunnel is no error: let tests hold it as long as they like.
    wire.patience(Duration::from_secs(300));
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let mut socket =
        tungstenite::WebSocket::from_raw_socket(Resumed(wire), tungstenite::protocol::Role::Server, Some(config));
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                if socket.send(message).is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(tungstenite::Error::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
