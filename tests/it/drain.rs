//! How a process lets its connections go: SIGQUIT and SIGTERM.

use std::{
    net::TcpStream,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal::{SIGQUIT, SIGTERM};

use crate::util::{
    Backend, Driver, Ending, PATIENCE, Proxy, Wire, beyond_nginx, eventually, frames, leaks::figure, on_both_drivers,
    ports, process::Running, proxy::Setup, python_module,
};

on_both_drivers![
    a_quit_closes_tunnels_in_good_order,
    a_message_under_way_comes_to_its_end,
    a_client_that_never_answers_is_closed_in_time,
    closes_are_spread_over_the_window,
    a_handshake_under_way_keeps_the_listeners_open,
    a_stop_says_goodbye,
];

fn setup(backend: &Backend, main: &str, driver: Driver) -> Setup {
    Proxy::config(
        "log_format reason '$request_uri $close_reason';
         server { listen %http%; listen %https% ssl; ssl_certificate %dir%/a.crt; ssl_certificate_key %dir%/a.key;
           access_log %dir%/reasons reason; location / { proxy_pass http://%backend%; } }",
    )
    .main(main)
    .certificate("a", &["a.example"])
    .set("backend", backend.address())
    .on(driver)
}

/// A close frame of ours.
fn close(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// What a client does that is told to close: it says so too, and waits for the end.
#[track_caller]
fn answers(client: &mut Wire, code: u16, reason: &str) {
    assert_eq!(client.frame(), (frames::CLOSE, close(code, reason)));
    client.send(frames::client(frames::CLOSE, code.to_be_bytes()));
    assert_eq!(client.rest(), b"", "nothing follows a close frame");
}

/// Waits until the program has ended by itself, and well.
#[track_caller]
fn ends(mut proxy: Proxy) -> String {
    assert!(proxy.running().wait().success(), "{}", proxy.log());
    // What it said last may still be in the pipe.
    proxy.logged(&[" connections, ", " requests, "]);
    proxy.log()
}

fn a_quit_closes_tunnels_in_good_order(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = setup(&backend, "drain_timeout 1s;", driver).start();
    let mut clients = [proxy.connect(), proxy.connect_tls("a.example"), proxy.connect()];
    for client in &mut clients {
        client.websocket("/ws");
        client.echoes("before");
    }
    proxy.running().signal(SIGQUIT);
    // Tunnels go on until it is their turn; what was sent before it is not lost.
    clients[0].send(frames::client(frames::TEXT, "last words"));
    let mut said = vec![clients[0].frame()];
    if said[0].0 == frames::TEXT {
        said.push(clients[0].frame());
        assert_eq!(said[0].1, b"last words");
    }
    assert_eq!(said.pop(), Some((frames::CLOSE, close(1001, "drain"))));
    clients[0].send(frames::client(frames::CLOSE, 1001u16.to_be_bytes()));
    assert_eq!(clients[0].rest(), b"");
    for client in &mut clients[1..] {
        answers(client, 1001, "drain");
        client.finish();
    }
    clients[0].finish();
    for _ in 0..3 {
        proxy.written("reasons", &["/ws drain"]);
    }
    let log = ends(proxy);
    assert!(log.contains("closed: drain 3"), "{log}");
    // The client's own answer, masked, is the last that the backend heard.
    let heard = backend.received(0);
    assert!(heard.ends_with(&frames::client(frames::CLOSE, 1001u16.to_be_bytes())), "{heard:x?}");
}

fn a_message_under_way_comes_to_its_end(driver: Driver) {
    beyond_nginx!();
    // Short enough to be copied, and long enough for a pipe.
    for length in [50_000, 6 << 20] {
        let (go_on, gone_on) = mpsc::channel::<()>();
        let gone_on = std::sync::Mutex::new(gone_on);
        let backend = Backend::serve(move |mut wire, _| {
            wire.accept_websocket();
            let frame = frames::server(frames::BINARY, vec![7; length]);
            let (first, second) = frame.split_at(length / 2);
            wire.send(first);
            let _ = gone_on.lock().unwrap().recv();
            wire.send(second);
            // What comes too late is not put behind the close frame.
            let _ = wire.try_send(frames::server(frames::TEXT, "too late"));
            wire.rest();
        });
        let mut proxy = setup(&backend, "drain_timeout 0;", driver).start();
        let mut client = proxy.connect();
        client.websocket("/");
        let begun = client.exactly(length / 2);
        proxy.running().signal(SIGQUIT);
        proxy.logged(&["SIGQUIT"]);
        client.patience(Duration::from_millis(400));
        assert!(client.read_some(&mut [0; 1]).is_err(), "something was put into a frame");
        client.patience(PATIENCE);
        go_on.send(()).unwrap();
        let frame = frames::server(frames::BINARY, vec![7; length]);
        let rest = client.exactly(frame.len() - begun.len());
        assert!([begun, rest].concat() == frame, "the message was altered");
        assert_eq!(client.frame(), (frames::CLOSE, close(1001, "drain")));
        client.send(frames::client(frames::CLOSE, 1001u16.to_be_bytes())).finish();
        assert_eq!(client.rest(), b"");
        ends(proxy);
    }
}

fn a_client_that_never_answers_is_closed_in_time(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy =
        setup(&backend, "drain_timeout 0; worker_shutdown_timeout 2s; drain_close_code 1012;", driver).start();
    let (mut plain, mut tls) = (proxy.connect(), proxy.connect_tls("a.example"));
    plain.websocket("/");
    tls.websocket("/");
    let start = Instant::now();
    proxy.running().signal(SIGQUIT);
    for client in [&mut plain, &mut tls] {
        assert_eq!(client.frame(), (frames::CLOSE, close(1012, "drain")));
        assert_eq!(client.ending(), (Vec::new(), Ending::Closed), "FIN, close_notify, and no RST");
    }
    let log = ends(proxy);
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(log.contains("a close frame was not answered (drain)"), "{log}");
    assert!(log.contains("closed: drain 2"), "{log}");
    for number in 0..2 {
        // Its backend heard of the end all the same: a masked close frame of 7 bytes, its code 1001.
        let heard = backend.received(number);
        let frame = &heard[heard.len() - 13..];
        assert_eq!(frame[..2], [0x88, 0x87]);
        assert_eq!([frame[6] ^ frame[2], frame[7] ^ frame[3]], 1001u16.to_be_bytes());
    }
}

fn closes_are_spread_over_the_window(driver: Driver) {
    beyond_nginx!();
    const TUNNELS: usize = 200;
    let backend = Backend::echo();
    let mut proxy = setup(&backend, "drain_timeout 4s;", driver).start();
    let clients: Vec<Wire> = (0..TUNNELS)
        .map(|_| {
            let mut client = proxy.connect();
            client.websocket("/");
            client
        })
        .collect();
    let start = Instant::now();
    proxy.running().signal(SIGQUIT);
    let waiting: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                assert_eq!(client.frame().0, frames::CLOSE);
                let told = start.elapsed();
                client.send(frames::client(frames::CLOSE, 1001u16.to_be_bytes())).rest();
                client.finish();
                told
            })
        })
        .collect();
    let mut quarters = [0; 4];
    for told in waiting {
        let told = told.join().unwrap();
        assert!(told < Duration::from_millis(5500), "{told:?}");
        quarters[(told.as_secs() as usize).min(3)] += 1;
    }
    // 50 in each, were it exact.
    assert!(quarters.iter().all(|count| (15..=110).contains(count)), "{quarters:?}");
    ends(proxy);
}

fn a_stop_says_goodbye(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = setup(&backend, "", driver).start();
    let (mut plain, mut tls) = (proxy.connect(), proxy.connect_tls("a.example"));
    plain.websocket("/");
    tls.websocket("/");
    tls.echoes("x");
    let start = Instant::now();
    proxy.running().signal(SIGTERM);
    for client in [&mut plain, &mut tls] {
        assert_eq!(client.frame(), (frames::CLOSE, close(1001, "shutdown")));
        assert_eq!(client.ending(), (Vec::new(), Ending::Closed));
    }
    let log = ends(proxy);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(log.contains("closed: shutdown 2"), "{log}");
}

#[test]
fn whoever_answers_lets_a_stop_end_at_once() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = setup(&backend, "", Driver::Epoll).start();
    let mut client = proxy.connect();
    client.websocket("/");
    proxy.running().signal(SIGTERM);
    answers(&mut client, 1001, "shutdown");
    client.finish();
    ends(proxy);
}

#[test]
fn requests_are_finished_and_idle_connections_closed() {
    beyond_nginx!();
    let (answer, answered) = mpsc::channel::<()>();
    let answered = std::sync::Mutex::new(answered);
    let backend = Backend::http(move |head, _| {
        if head.target() == "/slow" {
            let _ = answered.lock().unwrap().recv();
        }
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone".to_vec()
    });
    let mut proxy = setup(&backend, "", Driver::Epoll).start();
    let (mut idle, mut silent, mut slow) = (proxy.connect(), proxy.connect(), proxy.connect());
    assert_eq!(idle.get("/").status(), 200);
    slow.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(eventually(|| backend.received_at_all().windows(5).any(|bytes| bytes == b"/slow")));
    proxy.running().signal(SIGQUIT);
    idle.expect_gone();
    silent.expect_gone();
    answer.send(()).unwrap();
    let response = slow.response();
    assert_eq!((response.status(), response.get("connection")), (200, Some("close")));
    assert_eq!(slow.rest(), b"");
    slow.finish();
    ends(proxy);
}

#[test]
fn listeners_close_last() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = setup(&backend, "drain_timeout 0;", Driver::Epoll).start();
    let mut client = proxy.connect();
    // Whether its tunnel has been opened by the time of the signal, nobody knows.
    client.websocket("/");
    let http = proxy.http();
    proxy.running().signal(SIGQUIT);
    assert_eq!(client.frame().0, frames::CLOSE);
    // As long as a tunnel is there requests are answered, one a connection (each worker hears of it on its own),
    assert!(eventually(|| {
        let response = Wire::connect(http).get("/");
        assert_eq!(response.status(), 200);
        response.get("connection") == Some("close")
    }));
    // but none becomes a tunnel.
    assert!(eventually(|| Wire::connect(http).upgrade("/").status() == 503));
    proxy.logged(&["(503 draining)"]);
    for _ in 0..20 {
        assert_eq!(Wire::connect(http).get("/").status(), 200, "each worker listens");
    }
    client.send(frames::client(frames::CLOSE, 1001u16.to_be_bytes())).rest();
    client.finish();
    ends(proxy);
    assert!(!ports::listened_on(http.port()));
}

/// A backend that answers upgrades once it is told to, and everything else at once.
fn hesitant() -> (Backend, mpsc::Sender<()>) {
    let (grant, granted) = mpsc::channel::<()>();
    let granted = std::sync::Mutex::new(granted);
    let backend = Backend::serve(move |mut wire, _| {
        while let Some(head) = wire.try_head() {
            if head.get("upgrade").is_none() {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            } else if granted.lock().unwrap().recv().is_ok() {
                wire.send(frames::switching(&head));
                wire.rest();
                return;
            }
        }
    });
    (backend, grant)
}

fn a_handshake_under_way_keeps_the_listeners_open(driver: Driver) {
    beyond_nginx!();
    let (backend, grant) = hesitant();
    let mut proxy = setup(&backend, "drain_timeout 0;", driver).start();
    let mut client = proxy.connect();
    client.send(frames::request("/", "x"));
    assert!(eventually(|| backend.received(0).ends_with(b"\r\n\r\n")));
    let http = proxy.http();
    proxy.running().signal(SIGQUIT);
    assert!(eventually(|| Wire::connect(http).get("/").get("connection") == Some("close")));
    for _ in 0..20 {
        assert_eq!(Wire::connect(http).get("/").status(), 200, "there is no tunnel yet, but there will be one");
    }
    grant.send(()).unwrap();
    assert_eq!(client.head().status(), 101);
    assert_eq!(Wire::connect(http).get("/").status(), 200, "there is one");
    answers(&mut client, 1001, "drain");
    client.finish();
    ends(proxy);
    assert!(!ports::listened_on(http.port()));
}

#[test]
fn a_handshake_without_an_answer_holds_nothing_up_for_ever() {
    beyond_nginx!();
    let backend = Backend::silent();
    let mut proxy = setup(&backend, "worker_shutdown_timeout 1s;", Driver::Epoll).start();
    let mut client = proxy.connect();
    client.send(frames::request("/", "x"));
    assert!(eventually(|| backend.received(0).ends_with(b"\r\n\r\n")));
    let start = Instant::now();
    proxy.running().signal(SIGQUIT);
    ends(proxy);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    client.expect_gone();
}

/// It waits for its turn by `limit_req`, and will be refused then.
#[test]
fn an_upgrade_that_comes_too_late_is_not_waited_for() {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = "limit_req_zone $scheme zone=slow:1m rate=1r/m;
        server { listen %http%; location / { limit_req zone=slow burst=9; proxy_pass http://%backend%; }
          location /nothing { return 204; } }";
    let setup = Proxy::config(text).main("worker_processes 1; drain_timeout 1h; worker_shutdown_timeout 2h;");
    let mut proxy = setup.set("backend", backend.address()).watched().start();
    let pending = "longsplice_worker_handshakes_pending{worker=\"0\"}";
    let writing = "longsplice_connections{state=\"writing\"}";
    let mut first = proxy.connect();
    first.websocket("/");
    let mut early = proxy.connect();
    early.send(frames::request("/", "x"));
    assert!(eventually(|| figure(&proxy, pending) == 1));
    proxy.running().signal(SIGQUIT);
    assert!(eventually(|| proxy.get("/nothing").get("connection") == Some("close")));
    let mut late = proxy.connect();
    late.send(frames::request("/", "x"));
    // The two, and who asks.
    assert!(eventually(|| figure(&proxy, writing) == 3));
    assert_eq!(figure(&proxy, pending), 1);
    drop(early);
    assert!(eventually(|| figure(&proxy, pending) == 0));
    proxy.running().signal(SIGTERM);
    ends(proxy);
}

#[test]
fn with_a_delay_everything_goes_on_for_a_while() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = setup(&backend, "drain_delay 1s; drain_timeout 0;", Driver::Epoll).start();
    let mut before = proxy.connect();
    before.websocket("/");
    let start = Instant::now();
    proxy.running().signal(SIGQUIT);
    proxy.logged(&["SIGQUIT"]);
    let mut late = proxy.connect();
    late.websocket("/");
    late.echoes("still here");
    before.echoes("and so am I");
    for client in [&mut before, &mut late] {
        answers(client, 1001, "drain");
        client.finish();
    }
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    ends(proxy);
}

#[test]
fn a_second_quit_changes_nothing_and_a_stop_ends_a_quit() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = setup(&backend, "drain_timeout 1h; worker_shutdown_timeout 2h;", Driver::Epoll).start();
    let mut clients: Vec<Wire> = (0..20).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.websocket("/");
    }
    proxy.running().signal(SIGQUIT);
    proxy.logged(&["SIGQUIT: quitting;"]);
    proxy.running().signal(SIGQUIT);
    proxy.logged(&["SIGQUIT: quitting already"]);
    clients[7].echoes("an hour is long");
    let start = Instant::now();
    proxy.running().signal(SIGTERM);
    for client in &mut clients {
        assert_eq!(client.frame().0, frames::CLOSE);
        assert_eq!(client.ending().1, Ending::Closed);
    }
    ends(proxy);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn an_end_that_is_no_websocket_gets_fin() {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\nhello");
        wire.rest();
    });
    let text = "server { listen %http%; location / { upgrade_protocols any; proxy_pass http://%backend%; } }";
    let mut proxy = Proxy::config(text).main("drain_timeout 0;").set("backend", backend.address()).start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n");
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.exactly(5), b"hello");
    proxy.running().signal(SIGQUIT);
    assert_eq!(client.rest(), b"");
    assert!(ends(proxy).contains("closed: drain 1"));
}

const RECONNECTING: &str = r#"
import asyncio, sys
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
async def main():
    count = 0
    # As its documentation has it: a new connection for each that was closed.
    async for socket in connect(sys.argv[1]):
        count += 1
        await socket.send(f"message {count}")
        print(await socket.recv(), flush=True)
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            print("closed", closed.rcvd.code, closed.rcvd.reason, flush=True)
        if count == 2:
            break
asyncio.run(main())
"#;

/// The client sees 1001, comes back by itself, and is served by the process that is there by then.
#[test]
fn python_s_client_comes_back() {
    beyond_nginx!();
    let Some(interpreter) = python_module("websockets") else { return };
    let backend = Backend::echo();
    let address = format!("127.0.0.1:{}", ports::free());
    let start = || {
        let text = format!("server {{ listen {address}; location / {{ proxy_pass http://%backend%; }} }}");
        let proxy = Proxy::config(&text).main("drain_timeout 0;").set("backend", backend.address()).start();
        assert!(eventually(|| TcpStream::connect(&address).is_ok()));
        proxy
    };
    let mut first = start();
    let mut client = Running::spawn(Command::new(interpreter).args(["-c", RECONNECTING, &format!("ws://{address}/")]));
    assert!(eventually(|| client.said().contains("message 1")), "{}", client.said());
    first.running().signal(SIGQUIT);
    assert!(eventually(|| client.said().contains("closed 1001 drain")), "{}", client.said());
    ends(first);
    let mut second = start();
    assert!(eventually(|| client.said().contains("message 2")), "{}", client.said());
    second.running().signal(SIGQUIT);
    assert!(client.wait().success(), "{}", client.said());
    ends(second);
}
