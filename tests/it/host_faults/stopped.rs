//! Processes that are stopped for a while (SIGSTOP, SIGCONT): time has jumped when they go on. A clock that is set otherwise cannot be had
//! on a machine that others use; that no deadline asks it is held by `tidy`.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::util::{
    Backend, Driver, Leaks, Proxy, Wire, beyond_nginx, eventually, frames, leaks::figure, on_both_drivers,
};

on_both_drivers![what_came_while_it_was_stopped_is_served_and_what_was_due_is_due_once];

const TEXT: &str = "log_format reasons '$uri $status $close_reason';
    server { listen %http%; access_log %dir%/reasons.log reasons; client_header_timeout 3s;
        location / { websocket_timeout 3s; proxy_pass http://%backend%; }
        location /ping { websocket_ping 1s; proxy_pass http://%backend%; }
        location /slow { proxy_connect_timeout 1s; proxy_read_timeout 1s; proxy_pass http://%backend%; } }";

fn tunnels(proxy: &Proxy, target: &str, count: usize) -> Vec<Wire> {
    let open = |_| {
        let mut wire = proxy.tunnel(target);
        wire.echoes("before");
        wire
    };
    (0..count).map(open).collect()
}

/// Stops it, and waits until each of its threads has stopped: kill(2) does not.
pub(super) fn stop(proxy: &mut Proxy) {
    proxy.running().signal(Signal::SIGSTOP);
    let is_stopped = |thread: fs::DirEntry| {
        // proc(5): the state stands behind the name in parentheses.
        let stat = fs::read_to_string(thread.path().join("stat")).expect("the thread lives");
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    let threads = || fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("the process lives");
    assert!(eventually(|| threads().flatten().all(is_stopped)));
}

/// Frames that come before `deadline`: their opcodes.
fn heard(wire: &mut Wire, deadline: Instant) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        // What has come by then is heard later, too.
        wire.patience(deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let mut piece = [0; 512];
        match wire.read_some(&mut piece) {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => break,
        }
    }
    // Pings of ours have no payload.
    bytes.chunks(2).map(|head| head[0] & 0x0f).collect()
}

fn what_came_while_it_was_stopped_is_served_and_what_was_due_is_due_once(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = Proxy::config(TEXT).watched().set("backend", backend.address()).on(driver).start();
    let before = Leaks::of(&proxy);
    let (mut spoken_to, mut silent) = (tunnels(&proxy, "/", 200), tunnels(&proxy, "/", 3));
    let mut pinged = tunnels(&proxy, "/ping", 2);
    // However long it took to open them all.
    spoken_to.iter_mut().chain(&mut silent).for_each(|wire| wire.echoes("just now"));
    for wire in &mut pinged {
        wire.send(frames::client(frames::TEXT, "no ping for a second"));
        while wire.frame().0 == frames::PING {}
    }
    let mut late: Vec<Wire> = (0..20).map(|_| proxy.connect()).collect();
    for wire in &mut late {
        wire.send("GET / HTTP/1.1\r\nHo");
    }
    let mut never = proxy.connect();
    never.send("GET / HTTP/1.1\r\nHo");
    stop(&mut proxy);
    for wire in &mut spoken_to {
        wire.send(frames::client(frames::TEXT, "while it was stopped"));
    }
    for wire in &mut late {
        wire.send("st: x\r\n\r\n");
    }
    let stopped = Instant::now();
    for wire in &mut pinged {
        // One that left before the stop.
        heard(wire, Instant::now() + Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(3500).saturating_sub(stopped.elapsed()));
    proxy.running().signal(Signal::SIGCONT);
    let continued = Instant::now();
    for wire in &mut pinged {
        assert_eq!(wire.patience(Duration::from_secs(10)).frame().0, frames::PING);
        let more = heard(wire, Instant::now() + Duration::from_millis(300));
        // Each second brings another, and this test may have had to wait for its turn.
        let seconds = continued.elapsed().as_secs() as usize;
        assert!(more.len() <= seconds, "one for all that were due, and {} in {seconds} seconds", more.len());
    }
    for wire in &mut spoken_to {
        assert_eq!(wire.frame(), (frames::TEXT, b"while it was stopped".to_vec()));
        wire.echoes("behind it");
    }
    assert!(late.iter_mut().all(|wire| wire.response().status() == 200), "heads that were complete in time");
    assert_eq!(never.response().status(), 408);
    let series = "longsplice_tunnels_closed_total{reason=\"idle_timeout\"}";
    assert!(eventually(|| figure(&proxy, series) == silent.len() as i64), "{}", proxy.log());
    spoken_to.iter_mut().for_each(|wire| wire.echoes("all are there"));
    drop((spoken_to, silent, pinged, late, never));
    before.assert_same(&proxy);
}

/// Front, middle, back: to the front a stopped middle is a backend, to the back a client.
#[test]
fn a_backend_and_a_client_that_are_stopped_are_waited_for() {
    beyond_nginx!();
    let backend = Backend::echo();
    let back = Proxy::config(TEXT).watched().set("backend", backend.address()).start();
    let mut middle = Proxy::config("server { listen %http%; location / { proxy_pass http://%backend%; } }")
        .set("backend", back.http())
        .start();
    let front = Proxy::config(TEXT).watched().set("backend", middle.http()).start();
    let before = (Leaks::of(&front), Leaks::of(&back));
    let (mut patient, brief) = (tunnels(&front, "/ping", 4), tunnels(&front, "/", 2));
    stop(&mut middle);
    let mut asked = front.connect();
    asked.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut upgraded = front.connect();
    assert_eq!(upgraded.upgrade("/slow").status(), 504);
    assert_eq!(asked.response().status(), 504);
    front.logged(&["[error]", "upstream timed out (110: Connection timed out) while reading response header"]);
    let message = crate::util::pattern(8 << 20, 3);
    let mut writer = patient[0].writer();
    let stream = frames::client(frames::BINARY, &message);
    let writing = thread::spawn(move || {
        writer.send(stream);
    });
    let series = "longsplice_tunnels_closed_total{reason=\"idle_timeout\"}";
    assert!(eventually(|| figure(&front, series) == 2), "{}", front.log());
    middle.running().signal(Signal::SIGCONT);
    loop {
        // Pings of both proxies on the way come first.
        match patient[0].frame() {
            (frames::BINARY, echo) => break assert!(echo == message, "bytes were altered"),
            (opcode, _) => assert_eq!(opcode, frames::PING),
        }
    }
    writing.join().expect("the writer");
    for wire in &mut patient[1..] {
        wire.send(frames::client(frames::TEXT, "goes on"));
        while wire.frame() != (frames::TEXT, b"goes on".to_vec()) {}
    }
    drop((patient, brief, asked, upgraded));
    before.0.assert_same_within(&front, 16 << 20);
    before.1.assert_same_within(&back, 16 << 20);
}
