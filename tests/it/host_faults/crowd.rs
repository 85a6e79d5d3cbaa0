//! Clients that come and go at once, many of them.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use super::{site, tunnels};
use crate::util::{Backend, Leaks, Proxy, beyond_nginx, eventually, frames, leaks::figure};

/// Half a request, and the first half of a record that may become a ClientHello.
const BEGINNINGS: [&[u8]; 3] =
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\nUser-A", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"];
const THREADS: usize = 4;

/// 100,000 connections; `LONGSPLICE_TEST_CONNECTS` says another number.
fn connects() -> usize {
    std::env::var("LONGSPLICE_TEST_CONNECTS").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000)
}

/// Connects, says the beginning of something, and closes: with FIN, or with RST. A connection of a caller's own address: a closed one
/// keeps its port for a minute.
fn come_and_go(to: SocketAddr, caller: u8, beginning: &[u8], reset: bool) {
    let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 1, caller], 0)).into()).expect("bind");
    socket.connect(&to.into()).expect("connect");
    // Whoever has closed on us by then need not hear it.
    let _ = socket.write_all(beginning);
    if reset {
        socket.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }
}

#[test]
fn a_hundred_thousand_that_come_and_go_leave_nothing_behind() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site("").main("error_log stderr notice;").set("backend", backend.address()).start();
    let before = Leaks::of(&proxy);
    let mut open = tunnels(&proxy, 4);
    let (http, https) = (proxy.http(), proxy.address("https"));
    let accepted = figure(&proxy, "longsplice_connections_accepted_total");
    let begun = Instant::now();
    let each = connects() / THREADS;
    let crowd: Vec<_> = (0..THREADS)
        .map(|thread| {
            thread::spawn(move || {
                for number in 0..each {
                    let beginning = BEGINNINGS[number % BEGINNINGS.len()];
                    let to = if beginning.first() == Some(&0x16) { https } else { http };
                    let caller = (thread * 4 + number % 4 + 1) as u8;
                    come_and_go(to, caller, beginning, number % 8 < 4);
                }
            })
        })
        .collect();
    let mut served = 0;
    while !crowd.iter().all(thread::JoinHandle::is_finished) {
        assert!(begun.elapsed() < Duration::from_secs(60), "it takes too long");
        open.iter_mut().for_each(|wire| wire.echoes("in the crowd"));
        assert_eq!(proxy.get("/").status(), 200);
        served += 1;
        thread::sleep(Duration::from_millis(20));
    }
    crowd.into_iter().for_each(|thread| thread.join().expect("a part of the crowd"));
    eprintln!("{} connections in {:?}, {served} requests meanwhile", each * THREADS, begun.elapsed());
    let came = (each * THREADS) as i64;
    assert!(eventually(|| figure(&proxy, "longsplice_connections_accepted_total") - accepted >= came));
    open.iter_mut().for_each(|wire| wire.echoes("still here"));
    assert!(proxy.log().lines().count() < 20, "{}", proxy.log());
    drop(open);
    before.assert_same_within(&proxy, 16 << 20);
}

/// Backends that accept nobody: connections to them wait in their queues, and have no descriptor here. As many as the queues must have
/// room for (listen(2), `somaxconn`).
fn silent(room: usize) -> Vec<Socket> {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("somaxconn");
    let most = text.trim().parse::<usize>().expect("a number").min(8_192);
    let listen = |_| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
        socket.listen(most as i32).expect("listen");
        socket
    };
    (0..=room / most).map(listen).collect()
}

/// `limits::HANDSHAKES_PENDING`, which no setting takes away: two descriptors each, of one worker.
#[test]
fn upgrades_under_way_are_bounded_without_any_setting() {
    beyond_nginx!();
    const MOST: usize = 8_192;
    let (silent, echo) = (silent(MOST), Backend::echo());
    let address =
        |socket: &Socket| socket.local_addr().ok().and_then(|address| address.as_socket()).expect("its address");
    let servers: String = silent.iter().map(|socket| format!("server {} max_fails=0;", address(socket))).collect();
    let text = format!(
        "upstream silent {{ {servers} }}
         server {{ listen %http% backlog=4096; location / {{ proxy_pass http://silent; }}
             location /echo {{ proxy_pass http://%backend%; }} location /plain {{ return 200; }} }}"
    );
    let main = "worker_processes 1; error_log stderr warn; events { worker_connections 19000; }";
    let proxy = Proxy::config(&text).main(main).watched().set("backend", echo.address()).start();
    let request = frames::request("/", "x");
    let begun = Instant::now();
    let mut waiting = Vec::new();
    let under_way = || figure(&proxy, "longsplice_connections{state=\"writing\"}") as usize;
    while waiting.len() < MOST {
        for _ in 0..1_024 {
            let mut client = TcpStream::connect(proxy.http()).expect("connect");
            client.write_all(request.as_bytes()).expect("a request");
            waiting.push(client);
        }
        // More would only fill the queue of the listener.
        assert!(eventually(|| under_way() >= waiting.len()), "{} of {}: {}", under_way(), waiting.len(), proxy.log());
    }
    eprintln!("{MOST} upgrades under way after {:?}", begun.elapsed());
    let head = proxy.connect().upgrade("/echo");
    assert!(head.status() == 503 && head.get("retry-after").is_some(), "{head:?}");
    proxy.logged(&["[warn]", "limiting upgrades, 1 refused (503 handshake_brake)"]);
    assert_eq!(proxy.get("/plain").status(), 200, "plain requests are not upgrades");
    drop(waiting.pop());
    assert!(eventually(|| proxy.connect().upgrade("/echo").status() == 101), "there is room again");
}
