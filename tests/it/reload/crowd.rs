//! Clients whose tunnels live through reloads, and clients that come meanwhile.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use crate::util::{PATIENCE, Wire, frames};

/// Opens tunnels until it is told to stop, sends a message through each, and asks for the version; how often, and how often in vain.
pub struct Stream {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Stream {
    pub fn start(address: SocketAddr) -> Self {
        let (over, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (is_over, count) = (Arc::clone(&over), Arc::clone(&done));
        let thread = thread::spawn(move || {
            let mut failures = Vec::new();
            while !is_over.load(Relaxed) {
                if let Err(why) = one_client(address) {
                    failures.push(why);
                }
                count.fetch_add(1, Relaxed);
            }
            failures
        });
        Self { over, done, thread }
    }

    /// How many clients there were.
    #[track_caller]
    pub fn end(self) -> usize {
        self.over.store(true, Relaxed);
        let failures = self.thread.join().expect("the stream of clients");
        assert!(failures.is_empty(), "{} of {:?} clients: {failures:?}", failures.len(), self.done);
        self.done.load(Relaxed)
    }
}

fn one_client(address: SocketAddr) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let connect = || TcpStream::connect_timeout(&address, PATIENCE).map(Wire::over).map_err(failed("connect"));
    let mut client = connect()?;
    client.try_send("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").map_err(failed("send"))?;
    let (answer, _) = client.ending();
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(format!("answer: {:?}", String::from_utf8_lossy(&answer)));
    }
    let mut client = connect()?;
    client.try_send(frames::request("/", "x")).map_err(failed("send"))?;
    match client.try_head() {
        Some(head) if head.status() == 101 => {}
        head => return Err(format!("handshake: {head:?}")),
    }
    client.try_send(frames::client(frames::TEXT, "hello")).map_err(failed("send"))?;
    match client.frame() {
        (frames::TEXT, echo) if echo == b"hello" => Ok(()),
        other => Err(format!("echo: {other:?}")),
    }
}

/// A message through each: all are on their way before the first echo is read.
#[track_caller]
pub fn all_echo(tunnels: &mut [Wire], text: &str) {
    for client in &mut *tunnels {
        client.send(frames::client(frames::TEXT, text));
    }
    for client in tunnels {
        assert_eq!(client.frame(), (frames::TEXT, text.as_bytes().to_vec()));
    }
}
