//! Readers that stop for ever, with senders that push as much as they can, both ways.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use super::stopped::stop;
use crate::util::{Leaks, PATIENCE, Proxy, Wire, beyond_nginx, eventually, frames, leaks::figure, proxy::Setup, tls};

/// Of each socket of ours. With those that the kernel grows by itself a thousand tunnels would hold all the memory it has for TCP.
const SOCKET_BYTES: usize = 16 << 10;

/// A thousand, ws and wss in turn; fewer where the kernel has so little memory for TCP that it would hold all connections up (tcp(7),
/// `tcp_mem`: with a megabyte and a half for each the middle one, in pages of 4 KiB, is what a machine of 24 GB has).
fn count() -> usize {
    let pages = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap_or_default();
    let pressure: usize = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    (pressure * 4096 / (3 << 19)).clamp(20, 1000)
}

/// What the program may hold of its own memory for so many: `HELD_BYTES` for each of two workers, and for each direction what
/// `CROWDED_READ_BYTES` brings: that much, a TLS record that has not come whole, heads and tags of records, the allocator's rounding.
fn most(tunnels: usize) -> usize {
    2 * (64 << 20) + 2 * tunnels * (48 << 10)
}

const TEXT: &str = "log_format reasons '$status $close_reason'; access_log %dir%/reasons.log reasons;
    server { listen %http% rcvbuf=64k sndbuf=32k; listen %https% ssl rcvbuf=64k sndbuf=32k;
        ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
        location / { proxy_pass http://%backend%; }
        location /brief { websocket_timeout 2s; proxy_pass http://%backend%; } }
    server { listen %acknowledged% sndbuf=32k; tcp_user_timeout 2s; location / { proxy_pass http://%backend%; } }";

/// A socket with small buffers. Segments as on a real network: loopback's 64 KiB would let the kernel give each end megabytes.
fn small_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(SOCKET_BYTES).expect("SO_RCVBUF");
    socket.set_send_buffer_size(SOCKET_BYTES).expect("SO_SNDBUF");
    socket.set_tcp_mss(1400).expect("TCP_MAXSEG");
    socket
}

fn small_client(address: SocketAddr) -> TcpStream {
    let socket = small_socket();
    socket.connect(&address.into()).expect("connect");
    socket.into()
}

/// Backends' ends, as many as have come, without a thread for each.
struct Ends {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<Wire>>>,
}

impl Ends {
    fn listen() -> Self {
        let socket = small_socket();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
        socket.listen(1024).expect("listen");
        let address = socket.local_addr().expect("its address").as_socket().expect("TCP");
        let listener: std::net::TcpListener = socket.into();
        let ends = Arc::<Mutex<Vec<Wire>>>::default();
        let kept = Arc::clone(&ends);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut wire = Wire::over(stream);
                let Some(head) = wire.try_head() else { return };
                wire.send(frames::switching(&head));
                kept.lock().unwrap().push(wire);
            }
        });
        Self { address, ends }
    }

    /// The one that has come last.
    fn last(&self) -> Wire {
        let mut last = None;
        assert!(eventually(|| {
            last = last.take().or_else(|| self.ends.lock().unwrap().pop());
            last.is_some()
        }));
        last.expect("just seen")
    }
}

/// One end of a tunnel, which sends what it can and reads nothing.
struct End {
    wire: Wire,
    stream: Arc<Vec<u8>>,
    sent: usize,
}

impl End {
    fn new(wire: Wire, stream: &Arc<Vec<u8>>) -> Self {
        wire.tcp().set_nonblocking(true).expect("O_NONBLOCK");
        Self { wire, stream: Arc::clone(stream), sent: 0 }
    }

    /// True when something went.
    fn push(&mut self) -> bool {
        let at = self.sent % self.stream.len();
        let most = self.stream.len().min(at + 16_384);
        match self.wire.write_some(&self.stream[at..most]) {
            Ok(count) => {
                self.sent += count;
                true
            }
            // There is no room, or no tunnel any more.
            Err(_) => false,
        }
    }
}

/// A tunnel, and its two ends.
struct Stuck([End; 2]);

impl Stuck {
    /// Both read what the other has sent, to the last byte.
    fn read_on(self) {
        let [client, backend] = self.0;
        let (from_client, from_backend) = (client.sent, backend.sent);
        let streams = [Arc::clone(&backend.stream), Arc::clone(&client.stream)];
        let read = |mut end: End, stream: Arc<Vec<u8>>, length: usize| {
            // What TLS has not sent yet goes on its way with the first reads.
            end.wire.tcp().set_nonblocking(false).expect("O_NONBLOCK");
            end.wire.flush();
            let mut expected = stream.iter().cycle();
            let mut left = length;
            while left > 0 {
                let piece = end.wire.exactly(left.min(64 << 10));
                left -= piece.len();
                assert!(piece.iter().eq(expected.by_ref().take(piece.len())), "bytes were altered");
            }
            end
        };
        let [of_backend, of_client] = streams;
        let at_client = thread::spawn(move || read(client, of_backend, from_backend));
        let at_backend = thread::spawn(move || read(backend, of_client, from_client));
        drop((at_client.join().expect("the client"), at_backend.join().expect("the backend")));
    }
}

struct Site {
    proxy: Proxy,
    ends: Ends,
    streams: [Arc<Vec<u8>>; 2],
    tls: tls::Client,
}

impl Site {
    fn start() -> Self {
        Self::of(Proxy::config(TEXT).certificate("x", &["x"]))
    }

    fn of(setup: Setup) -> Self {
        let ends = Ends::listen();
        let setup = setup.watched().set("backend", ends.address);
        let streams = [true, false].map(|masked| Arc::new(frames::stream(1 << 20, 3, masked)));
        Self { proxy: setup.start(), ends, streams, tls: tls::Client::default() }
    }

    fn tunnel(&self, target: &str, listener: &str, tls: bool) -> Stuck {
        let socket = small_client(self.proxy.address(listener));
        let mut client = if tls {
            tls::handshake_over(socket, b"", "x", &self.tls).expect("TLS").wire()
        } else {
            Wire::over(socket)
        };
        client.websocket(target);
        let [of_client, of_backend] = &self.streams;
        Stuck([End::new(client, of_client), End::new(self.ends.last(), of_backend)])
    }

    fn tunnels(&self, target: &str, count: usize) -> Vec<Stuck> {
        let is_tls = |number: usize| !number.is_multiple_of(2);
        (0..count)
            .map(|number| self.tunnel(target, if is_tls(number) { "https" } else { "http" }, is_tls(number)))
            .collect()
    }

    /// Bytes that the workers hold for readers.
    fn held(&self) -> i64 {
        (0..2).map(|worker| figure(&self.proxy, &format!("longsplice_worker_held_bytes{{worker=\"{worker}\"}}"))).sum()
    }
}

/// Pushes until nothing has gone anywhere for half a second.
fn fill(tunnels: &mut [Stuck]) {
    let deadline = Instant::now() + 4 * PATIENCE;
    let mut moved = Instant::now();
    while moved.elapsed() < Duration::from_millis(500) {
        assert!(Instant::now() < deadline, "it takes more and more");
        let mut ends = tunnels.iter_mut().flat_map(|tunnel| &mut tunnel.0);
        let any = ends.by_ref().fold(false, |any, end| end.push() | any);
        if any {
            moved = Instant::now();
        } else {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_thousand_readers_that_stop_take_bounded_memory_and_may_read_on() {
    beyond_nginx!();
    let site = Site::start();
    let proxy = &site.proxy;
    drop(site.tunnels("/", 4));
    let before = Leaks::of(proxy);
    let tunnels = count();
    let mut stuck = site.tunnels("/", tunnels);
    let open = proxy.private_bytes();
    fill(&mut stuck);
    let (grown, held) = (proxy.private_bytes().saturating_sub(open), site.held());
    let sent: usize = stuck.iter().flat_map(|tunnel| &tunnel.0).map(|end| end.sent).sum();
    let each = grown / (2 * tunnels);
    eprintln!(
        "{tunnels} tunnels stuck both ways: {} MiB on their way, {} MiB more of our memory, {each} bytes a direction, {} MiB held",
        sent >> 20,
        grown >> 20,
        held >> 20
    );
    assert!(grown <= most(tunnels), "{grown} bytes for {tunnels} tunnels, at most {} expected", most(tunnels));
    // Others are served meanwhile.
    let mut other = site.tunnel("/", "http", false);
    let [client, backend] = &mut other.0;
    client.wire.send(frames::client(frames::TEXT, "x"));
    backend.wire.tcp().set_nonblocking(false).expect("O_NONBLOCK");
    assert_eq!(backend.wire.frame(), (frames::TEXT, b"x".to_vec()));
    drop(other);
    stuck.drain(..20).for_each(Stuck::read_on);
    drop(stuck);
    before.assert_same_within(proxy, 32 << 20);
}

#[test]
fn readers_that_stop_are_let_go_with_a_reason() {
    beyond_nginx!();
    let site = Site::start();
    let proxy = &site.proxy;
    let before = Leaks::of(proxy);
    let mut stuck = site.tunnels("/brief", 20);
    stuck.extend((0..10).map(|_| site.tunnel("/", "acknowledged", false)));
    fill(&mut stuck);
    // A reader whose kernel says for two seconds that it has no room has no more than one that is gone (tcp(7), TCP_USER_TIMEOUT).
    let closed = |reason: &str| figure(proxy, &format!("longsplice_tunnels_closed_total{{reason=\"{reason}\"}}"));
    assert!(eventually(|| closed("idle_timeout") == 20), "{}", proxy.log());
    // Whichever side is found out first.
    assert!(eventually(|| closed("client_lost") + closed("upstream_lost") == 10), "{}", proxy.log());
    drop(stuck);
    before.assert_same_within(proxy, 32 << 20);
}

/// `limits::HELD_BYTES`: 64 MiB, and behind that what `CROWDED_READ_BYTES` brings each. Without it these would hold half as much again.
#[test]
fn past_64_mib_that_readers_have_not_taken_each_read_takes_little() {
    beyond_nginx!();
    const TUNNELS: usize = 600;
    const PUSHED: usize = 300 << 10;
    if count() < TUNNELS {
        eprintln!("skipped: the kernel has too little memory for TCP (tcp_mem)");
        return;
    }
    let text = "server { listen %http% rcvbuf=1m; location / { proxy_pass http://%backend%; } }";
    let mut site = Site::of(Proxy::config(text).main("user root; worker_processes 1;"));
    let tunnel = |_| {
        let mut client = site.proxy.connect();
        client.websocket("/");
        Stuck([End::new(client, &site.streams[0]), End::new(site.ends.last(), &site.streams[1])])
    };
    let mut stuck: Vec<_> = (0..TUNNELS).map(tunnel).collect();
    // While it is stopped more comes for each than one read takes.
    stop(&mut site.proxy);
    assert!(eventually(|| {
        let clients = stuck.iter_mut().map(|Stuck([client, _])| client);
        clients.filter(|client| client.sent < PUSHED).map(End::push).count() == 0
    }));
    site.proxy.running().signal(Signal::SIGCONT);
    let mut held = 0;
    assert!(eventually(|| {
        thread::sleep(Duration::from_millis(100));
        let before = std::mem::replace(&mut held, site.held());
        held > 0 && held == before
    }));
    eprintln!("{TUNNELS} tunnels hold {} MiB", held >> 20);
    let bound = 64 << 20;
    assert!(held > bound, "{held} bytes: it came to no bound");
    assert!(held <= bound + (256 << 10) + TUNNELS as i64 * (16 << 10), "{held} bytes");
    stuck.drain(..20).for_each(Stuck::read_on);
}
