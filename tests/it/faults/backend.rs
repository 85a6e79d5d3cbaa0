//! Backends that refuse, hang, break off, lie or flood.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{Fault, site};
use crate::util::{
    Backend, Driver, Ending, Proxy, Wire, beyond_nginx, eventually, frames, on_both_drivers,
    ports::{self, Blackhole, Refusing},
    process::Running,
    python_module,
};

on_both_drivers![
    one_that_refuses,
    one_that_hangs_in_connect,
    one_that_hangs_before_its_head,
    one_that_hangs_within_its_head,
    one_that_closes_within_its_head,
    one_that_resets_the_handshake,
    one_that_resets_a_tunnel,
    one_that_stops_within_a_frame,
    one_that_floods,
    one_that_talks_without_end,
    one_that_is_killed_and_comes_back,
    one_of_two_that_is_killed,
];

/// What a client, by ws and by wss, gets of an upgrade that comes to nothing.
#[track_caller]
fn is_refused(fault: &Fault, status: u16, reason: &str) {
    for tls in [false, true] {
        let mut client = fault.client(tls);
        client.send(frames::request("/", "x"));
        assert_eq!(client.response().status(), status, "tls: {tls}");
        client.expect_gone();
    }
    let written = format!("{status} {reason}");
    fault.happened(2, &written, &written, "longsplice_refusals_total", reason);
}

fn one_that_refuses(driver: Driver) {
    beyond_nginx!();
    let dead = Refusing::new();
    let fault = Fault::at(site("").set("backend", dead.address()).on(driver).start());
    is_refused(&fault, 502, "upstream_connect");
}

fn one_that_hangs_in_connect(driver: Driver) {
    beyond_nginx!();
    let hole = Blackhole::new();
    let fault = Fault::at(site("proxy_connect_timeout 1s;").set("backend", hole.address()).on(driver).start());
    is_refused(&fault, 504, "upstream_connect_timeout");
}

fn one_that_hangs_before_its_head(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::silent();
    let fault = Fault::before(&backend, "proxy_read_timeout 1s;", driver);
    is_refused(&fault, 504, "upstream_read_timeout");
}

fn one_that_hangs_within_its_head(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso");
        drop(wire.ending());
    });
    let fault = Fault::before(&backend, "proxy_read_timeout 1s;", driver);
    is_refused(&fault, 504, "upstream_read_timeout");
}

fn one_that_closes_within_its_head(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso");
    });
    let fault = Fault::before(&backend, "", driver);
    is_refused(&fault, 502, "upstream_closed_early");
}

fn one_that_resets_the_handshake(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.reset();
    });
    let fault = Fault::before(&backend, "", driver);
    is_refused(&fault, 502, "upstream_reset");
}

fn one_that_resets_a_tunnel(driver: Driver) {
    beyond_nginx!();
    for tls in [false, true] {
        let (_backend, fault, mut client, mut server) = Fault::in_a_tunnel(tls, "", driver);
        // Within a frame.
        let frame = frames::server(frames::BINARY, vec![7; 1000]);
        server.send(&frame[..500]);
        assert_eq!(client.exactly(500), frame[..500]);
        server.reset();
        assert_eq!(client.ending().1, Ending::Reset, "tls: {tls}");
        drop(client);
        fault.ended("upstream_reset");
    }
}

/// Half a frame, and never the rest: the tunnel's idle time ends it, with no word put inside the frame.
fn one_that_stops_within_a_frame(driver: Driver) {
    beyond_nginx!();
    for tls in [false, true] {
        let (_backend, fault, mut client, mut server) = Fault::in_a_tunnel(tls, "websocket_timeout 1s;", driver);
        let frame = frames::server(frames::BINARY, vec![7; 1000]);
        server.send(&frame[..500]);
        let (bytes, ending) = client.ending();
        assert_eq!((bytes.len(), ending), (500, Ending::Closed), "tls: {tls}");
        server.expect_gone();
        fault.ended("idle_timeout");
    }
}

/// As fast as it can, to a client that does not read: what it sends stays with it. Then the client reads on, or leaves.
fn one_that_floods(driver: Driver) {
    beyond_nginx!();
    for tls in [false, true] {
        let (_backend, fault, mut client, mut server) = Fault::in_a_tunnel(tls, "", driver);
        let flood = Arc::new(frames::stream(40 << 20, 5, false));
        let (sent, bytes) = (Arc::new(AtomicUsize::new(0)), flood.clone());
        let count = sent.clone();
        let flooding = thread::spawn(move || {
            for piece in bytes.chunks(256 << 10) {
                if server.try_send(piece).is_err() {
                    return;
                }
                count.fetch_add(piece.len(), Relaxed);
            }
        });
        assert!(stops_growing(&sent) < flood.len(), "all of it went nowhere");
        assert!(fault.before.grown(&fault.proxy) < 8 << 20, "{} bytes", fault.before.grown(&fault.proxy));
        assert!(client.exactly(8 << 20) == flood[..8 << 20], "tls: {tls}: something else came");
        drop(client);
        flooding.join().expect("it is told");
        fault.before.assert_same(&fault.proxy);
        fault.proxy.written("reasons.log", &["101 client_"]);
    }
}

/// Waits until a count has stood still for a while; the count.
fn stops_growing(count: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    while before != count.load(Relaxed) {
        before = count.load(Relaxed);
        thread::sleep(Duration::from_millis(300));
    }
    before
}

/// Interim answers without end; a 101 with far more behind it than anybody asked for; an answer nobody waits for the end of.
fn one_that_talks_without_end(driver: Driver) {
    beyond_nginx!();
    let interims = Backend::serve(|mut wire, _| {
        wire.head();
        while wire.try_send("HTTP/1.1 102 Processing\r\n\r\n".repeat(100)).is_ok() {}
    });
    let fault = Fault::before(&interims, "", driver);
    for tls in [false, true] {
        let mut client = fault.client(tls);
        client.send(frames::request("/", "x"));
        let mut heads = 0;
        let last = loop {
            let head = client.head();
            if head.status() != 102 {
                break head.status();
            }
            heads += 1;
        };
        assert_eq!((heads, last), (16, 502));
    }
    fault.happened(2, "502 upstream_interim", "502 upstream_interim", "longsplice_refusals_total", "upstream_interim");
    let head = Backend::serve(|mut wire, _| {
        wire.head();
        let _ = wire.try_send("HTTP/1.1 101 Switching Protocols\r\n");
        while wire.try_send("X-More: and more\r\n".repeat(100)).is_ok() {}
    });
    let fault = Fault::before(&head, "", driver);
    is_refused(&fault, 502, "upstream_too_many_fields");
}

/// Real WebSocket servers, killed with tunnels open: every client is told, and the next ones are served as soon as there is a server
/// again, or by the other one meanwhile.
fn one_that_is_killed_and_comes_back(driver: Driver) {
    beyond_nginx!();
    let Some(python) = python_module("websockets") else { return };
    let port = ports::free();
    let start = || PythonEcho::start(&python, port);
    let server = start();
    let setup = site("").set("backend", format!("127.0.0.1:{port}")).on(driver);
    let fault = Fault::at(setup.start());
    let mut tunnels: Vec<Wire> = (0..40)
        .map(|number| {
            let mut client = fault.client(number % 2 == 1);
            client.websocket("/").echoes("hello");
            client
        })
        .collect();
    server.kill();
    for client in &mut tunnels {
        assert_ne!(client.ending().1, Ending::Open);
    }
    drop(tunnels);
    let mut client = fault.client(false);
    client.send(frames::request("/", "x"));
    assert_eq!(client.response().status(), 502, "while there is none");
    drop(client);
    let _server = start();
    // One server is never taken out, as in nginx: the first that comes is served.
    for tls in [false, true] {
        fault.client(tls).websocket("/").echoes("again");
    }
    fault.before.assert_same(&fault.proxy);
    let ends = |reason: &str| fault.figure(&format!("longsplice_tunnels_closed_total{{reason=\"{reason}\"}}"));
    assert_eq!(ends("upstream_reset") + ends("upstream_closed"), 40);
    assert_eq!(fault.log_has("(upstream_reset)") + fault.log_has("(upstream_closed)"), 40);
    assert_eq!(fault.log_has("502 upstream_connect"), 1);
}

/// An echo server by Python's `websockets`.
struct PythonEcho(Option<Running>);

impl PythonEcho {
    fn start(python: &Path, port: u16) -> Self {
        let script = format!(
            "import asyncio\nfrom websockets.asyncio.server import serve\n\
             async def echo(socket):\n    async for message in socket:\n        await socket.send(message)\n\
             async def main():\n    async with serve(echo, '127.0.0.1', {port}) as server:\n        await server.serve_forever()\n\
             asyncio.run(main())"
        );
        let running = Running::spawn(Command::new(python).args(["-c", &script]));
        assert!(eventually(|| ports::listened_on(port)), "it says: {}", running.said());
        Self(Some(running))
    }

    fn kill(self) {
        drop(self);
    }
}

impl Drop for PythonEcho {
    /// SIGKILL.
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Running::kill);
    }
}

/// Two of a group, one of which is killed: it is left alone for its fail_timeout, and then asked again.
fn one_of_two_that_is_killed(driver: Driver) {
    beyond_nginx!();
    let Some(python) = python_module("websockets") else { return };
    let port = ports::free();
    let server = PythonEcho::start(&python, port);
    let other = Backend::echo();
    let text = "log_format reasons '$status $close_reason'; access_log %dir%/reasons.log reasons;
         upstream app { server %first% max_fails=1 fail_timeout=2s; server %second%; }
         server { listen %http%; location / { proxy_pass http://app; } }";
    let setup = Proxy::config(text).set("first", format!("127.0.0.1:{port}")).set("second", other.address());
    let fault = Fault::at(setup.main("worker_processes 1;").watched().on(driver).start());
    let open = |count: usize| {
        for _ in 0..count {
            fault.client(false).websocket("/");
        }
    };
    open(4);
    assert_eq!(other.connections(), 2);
    server.kill();
    open(6);
    assert_eq!((other.connections(), fault.log_has("502 upstream_connect")), (8, 0), "nobody got a 502");
    fault.proxy.logged(&["trying the next server"]);
    assert_eq!(fault.log_has("trying the next server"), 1, "it was asked once");
    let series = format!(
        "longsplice_upstream_state{{upstream=\"app\",server=\"127.0.0.1:{port}\",address=\"127.0.0.1:{port}\",state=\"failed\"}}"
    );
    assert_eq!(fault.figure(&series), 1);
    let _server = PythonEcho::start(&python, port);
    assert!(eventually(|| {
        let before = other.connections();
        open(2);
        other.connections() == before + 1
    }));
    fault.before.assert_same(&fault.proxy);
}

/// A name that stops resolving: the file that names it is refused with the place, and what runs goes on.
#[test]
fn a_name_that_does_not_resolve() {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = |name: &str| {
        format!(
            "upstream app {{ server {name}:%port%; }}\nserver {{ listen %http%; location / {{ proxy_pass http://app; }} }}"
        )
    };
    let setup = Proxy::config(&text("localhost")).set("port", backend.address().port()).watched();
    let mut fault = Fault::at(setup.start());
    let mut tunnel = fault.client(false);
    tunnel.websocket("/").echoes("before");
    fault.proxy.rewrite("", &text("no-such-host.invalid"));
    fault.proxy.running().signal(Signal::SIGHUP);
    let line = fault.proxy.logged(&["[emerg]", "host not found in upstream", "no-such-host.invalid"]);
    assert!(line.contains("nginx.conf:"), "{line}");
    assert!(eventually(|| fault.figure("longsplice_config_reloads_total{result=\"failed\"}") == 1));
    tunnel.echoes("behind");
    fault.client(false).websocket("/").echoes("and new ones");
    drop(tunnel);
    fault.before.assert_same(&fault.proxy);
    // At start there is nothing to go on with.
    let finished = Proxy::config(&text("no-such-host.invalid")).set("port", 1).run(&[]);
    finished.expect_code(1).expect(&["host not found in upstream", "no-such-host.invalid", "nginx.conf:"]);
}
