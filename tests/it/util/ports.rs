//! Ports and addresses for tests that run side by side.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use socket2::{Domain, Socket, Type};

/// Ports below those the kernel gives to outgoing connections (32768 up), so that no client of another test can hold one.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that is free now and that no other test of this process gets.
pub fn free() -> u16 {
    let start = process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("below 65536");
        // Both families: tests listen on `[::]` too, and a SO_REUSEPORT listener would hide behind one family.
        if TcpListener::bind(("0.0.0.0", port)).is_ok() && TcpListener::bind(("::1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port")
}

/// True when some socket listens on the port, in the network of this thread: read from the kernel, since a connection made only to look
/// is one that the program under test would serve, log and count.
pub fn listened_on(port: u16) -> bool {
    let needle = format!(":{port:04X} ");
    ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].iter().any(|table| {
        fs::read_to_string(table).unwrap_or_default().lines().any(|line| {
            // sl local_address rem_address st; 0A is TCP_LISTEN.
            let mut columns = line.split_ascii_whitespace().skip(1);
            let local = columns.next().unwrap_or_default();
            let state = columns.nth(1).unwrap_or_default();
            state == "0A" && format!("{local} ").ends_with(&needle)
        })
    })
}

/// An address where every connection is refused, for as long as this lives: bound, and never listening.
pub struct Refusing(Socket);

impl Refusing {
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bind");
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().ok().and_then(|address| address.as_socket()).expect("its address")
    }
}

/// An address whose handshakes are never answered: a listening socket whose backlog is full (Linux then drops SYNs).
pub struct Blackhole {
    listener: Socket,
    _queued: Vec<TcpStream>,
}

impl Blackhole {
    pub fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("bind");
        listener.listen(0).expect("listen");
        let address = listener.local_addr().ok().and_then(|address| address.as_socket()).expect("its address");
        let queued = (0..8)
            .map_while(|_| TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200)).ok())
            .collect();
        Self { listener, _queued: queued }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().ok().and_then(|address| address.as_socket()).expect("its address")
    }
}
