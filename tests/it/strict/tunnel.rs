//! What goes through an established tunnel, and how it ends.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::util::{
    Backend, Driver, Ending, PATIENCE, Proxy, Wire, beyond_nginx, checksum, eventually, frames, on_both_drivers,
    pattern,
};

on_both_drivers![
    echoes_of_every_size_come_back_in_order,
    both_directions_run_at_once,
    early_bytes_follow_the_head_once_the_backend_agreed,
    early_bytes_of_a_refused_upgrade_are_dropped,
    bytes_behind_the_101_reach_the_client,
    fragments_and_control_frames_between_them_pass,
    late_data_arrives_after_the_clients_fin,
    late_data_arrives_after_the_backends_fin,
    a_clients_reset_reaches_the_backend,
    a_backends_reset_reaches_the_client,
    silence_ends_a_tunnel,
    the_clients_activity_keeps_a_tunnel,
    the_backends_activity_keeps_a_tunnel,
    a_backend_that_stops_reading_stops_its_client,
    a_client_that_stops_reading_stops_its_backend,
    a_thousand_tunnels_echo_right,
];

/// Both ends of a tunnel: the client's and the backend's.
fn ends(proxy: &Proxy, backends: &mpsc::Receiver<Wire>) -> (Wire, Wire) {
    (proxy.tunnel("/"), backends.recv_timeout(PATIENCE).expect("the backend's end"))
}

fn echoes_of_every_size_come_back_in_order(driver: Driver) {
    const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20, 16 << 20];
    let backend = Backend::echo();
    let proxy = Proxy::before(backend.address(), driver);
    let mut client = proxy.tunnel("/");
    for size in SIZES {
        let payload = pattern(size, size as u64);
        let message = frames::client(frames::BINARY, &payload);
        let pieces: &[usize] = match size {
            0..1000 => &[1, 7, 4096],
            1000..100_000 => &[1021, 65_536],
            _ => &[65_537],
        };
        for piece in pieces {
            client.send_in_pieces(&message, *piece);
            let (opcode, echo) = client.frame();
            assert_eq!(
                (opcode, echo.len(), checksum(&echo)),
                (frames::BINARY, size, checksum(&payload)),
                "pieces of {piece}"
            );
        }
    }
}

fn both_directions_run_at_once(driver: Driver) {
    const TOTAL: usize = 24 << 20;
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::before(backend.address(), driver);
    let (mut client, mut server) = ends(&proxy, &backends);
    let (up, down) = (Arc::new(frames::stream(TOTAL, 1, true)), Arc::new(frames::stream(TOTAL, 2, false)));
    let writers = [(client.writer(), up.clone()), (server.writer(), down.clone())].map(|(mut wire, bytes)| {
        thread::spawn(move || {
            wire.send_in_pieces(&*bytes, 70_001);
        })
    });
    let reader = {
        let up = up.clone();
        thread::spawn(move || assert!(server.exactly(up.len()) == *up, "the backend received something else"))
    };
    assert!(client.exactly(down.len()) == *down, "the client received something else");
    reader.join().expect("the backend's end");
    for writer in writers {
        writer.join().expect("a writer");
    }
}

fn early_bytes_follow_the_head_once_the_backend_agreed(driver: Driver) {
    let (agree, agreed) = mpsc::channel();
    let agreed = Mutex::new(agreed);
    let backend = Backend::serve(move |mut wire, _| {
        let head = wire.head();
        agreed.lock().unwrap().recv_timeout(PATIENCE).expect("the word");
        wire.send(frames::switching(&head));
        drop(wire.ending());
    });
    let proxy = Proxy::before(backend.address(), driver);
    let early = [frames::client(frames::TEXT, "early"), frames::client(frames::BINARY, pattern(5000, 5))].concat();
    let mut client = proxy.connect();
    client.send([frames::request("/", "x").into_bytes(), early.clone()].concat());
    assert!(eventually(|| backend.received(0).ends_with(b"\r\n\r\n")), "the head alone, until the backend has agreed");
    thread::sleep(Duration::from_millis(200));
    let head = backend.received(0);
    assert!(head.ends_with(b"\r\n\r\n"), "early bytes went to a backend that has not agreed");
    agree.send(()).expect("the backend waits");
    assert_eq!(client.head().status(), 101);
    let late = frames::client(frames::TEXT, "late");
    client.send(&late);
    let received = backend.wait_received(0, head.len() + early.len() + late.len());
    assert!(received[head.len()..] == [early, late].concat(), "early bytes first, then the rest");
}

fn early_bytes_of_a_refused_upgrade_are_dropped(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::http(|_, _| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno".to_vec());
    let proxy = Proxy::before(backend.address(), driver);
    let mut client = proxy.connect();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    client.send([frames::request("/", "x"), smuggled.to_owned()].concat());
    assert_eq!(client.response().text(), "no");
    client.expect_gone();
    assert!(!String::from_utf8_lossy(&backend.received_at_all()).contains("smuggled"));
}

fn bytes_behind_the_101_reach_the_client(driver: Driver) {
    let backend = Backend::serve(|mut wire, _| {
        let head = wire.head();
        wire.send([frames::switching(&head).into_bytes(), frames::server(frames::TEXT, "at once")].concat());
        drop(wire.ending());
    });
    let proxy = Proxy::before(backend.address(), driver);
    let mut client = proxy.connect();
    assert_eq!(client.websocket("/").frame(), (frames::TEXT, b"at once".to_vec()));
}

fn fragments_and_control_frames_between_them_pass(driver: Driver) {
    let backend = Backend::echo();
    let proxy = Proxy::before(backend.address(), driver);
    let mut client = proxy.tunnel("/");
    client.send(frames::raw(frames::TEXT, true, "frag"));
    client.send(frames::client(frames::PING, "in between"));
    client.send(frames::raw(frames::CONTINUATION, true, "men"));
    client.send(frames::raw(0x80 | frames::CONTINUATION, true, "ted"));
    assert_eq!(client.frame(), (frames::PONG, b"in between".to_vec()));
    assert_eq!(client.frame(), (frames::TEXT, b"fragmented".to_vec()));
    // One byte at a time: heads and masks cut everywhere.
    client.dribble(frames::client(frames::TEXT, "byte by byte"), 1, Duration::from_millis(2));
    assert_eq!(client.frame(), (frames::TEXT, b"byte by byte".to_vec()));
}

fn late_data_arrives_after_the_clients_fin(driver: Driver) {
    beyond_nginx!();
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::before(backend.address(), driver);
    let (client, server) = ends(&proxy, &backends);
    let late = frames::server(frames::BINARY, pattern(1 << 20, 8));
    late_data_arrives((client, frames::client(frames::TEXT, "last")), (server, late));
}

fn late_data_arrives_after_the_backends_fin(driver: Driver) {
    beyond_nginx!();
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::before(backend.address(), driver);
    let (client, server) = ends(&proxy, &backends);
    let late = frames::client(frames::BINARY, pattern(1 << 20, 8));
    late_data_arrives((server, frames::server(frames::TEXT, "last")), (client, late));
}

/// One end says its last words and ends its half; what the other says behind that arrives whole.
fn late_data_arrives((mut one, last): (Wire, Vec<u8>), (mut other, late): (Wire, Vec<u8>)) {
    one.send(&last).finish();
    assert_eq!(other.rest(), last, "the last words and the FIN");
    other.send(&late);
    thread::sleep(Duration::from_millis(300));
    other.send(&late).finish();
    assert!(one.rest() == [late.clone(), late].concat(), "what was said behind the FIN");
}

fn a_clients_reset_reaches_the_backend(driver: Driver) {
    beyond_nginx!();
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::before(backend.address(), driver);
    let (client, mut server) = ends(&proxy, &backends);
    client.reset();
    assert_eq!(server.ending().1, Ending::Reset);
}

fn a_backends_reset_reaches_the_client(driver: Driver) {
    beyond_nginx!();
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::before(backend.address(), driver);
    let (mut client, server) = ends(&proxy, &backends);
    server.reset();
    assert_eq!(client.ending().1, Ending::Reset);
}

fn silence_ends_a_tunnel(driver: Driver) {
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::in_location("proxy_read_timeout 1s;", backend.address(), driver);
    let (mut client, mut server) = ends(&proxy, &backends);
    let started = Instant::now();
    client.expect_gone();
    server.expect_gone();
    assert!(started.elapsed() > Duration::from_millis(700), "after {:?}", started.elapsed());
}

/// Frames from `speaker` every 300 ms for three times the timeout: the tunnel lives, and ends once they stop.
fn one_side_keeps_the_tunnel(speaker: &mut Wire, listener: &mut Wire, frame: &[u8]) {
    for _ in 0..10 {
        speaker.send(frame);
        assert_eq!(listener.exactly(frame.len()), frame);
        thread::sleep(Duration::from_millis(300));
    }
    speaker.expect_gone();
    listener.expect_gone();
}

fn the_clients_activity_keeps_a_tunnel(driver: Driver) {
    beyond_nginx!();
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::in_location("websocket_timeout 1s;", backend.address(), driver);
    let (mut client, mut server) = ends(&proxy, &backends);
    one_side_keeps_the_tunnel(&mut client, &mut server, &frames::client(frames::PING, "up"));
}

fn the_backends_activity_keeps_a_tunnel(driver: Driver) {
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::in_location("proxy_read_timeout 1s;", backend.address(), driver);
    let (mut client, mut server) = ends(&proxy, &backends);
    one_side_keeps_the_tunnel(&mut server, &mut client, &frames::server(frames::PING, "down"));
}

/// What a writer whose reader stopped could send before it had to wait: the sockets' buffers, no more.
const WRITTEN_AT_MOST: usize = 48 << 20;
const GROWTH_AT_MOST: usize = 16 << 20;

/// Writes until nothing has been taken for a second; how much went out.
fn write_until_stuck(wire: &mut Wire, bytes: &[u8]) -> usize {
    let socket = wire.tcp().try_clone().expect("a second handle");
    socket.set_nonblocking(true).expect("non-blocking");
    let (mut sent, mut moved) = (0, Instant::now());
    while sent < bytes.len() && moved.elapsed() < Duration::from_secs(1) {
        match std::io::Write::write(&mut &socket, &bytes[sent..]) {
            Ok(length) => (sent, moved) = (sent + length, Instant::now()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("write: {error}"),
        }
    }
    socket.set_nonblocking(false).expect("blocking again");
    sent
}

fn a_stopped_reader_stops_its_writer(proxy: &Proxy, writer: &mut Wire, mut reader: Wire, bytes: Vec<u8>) {
    let before = proxy.resident_bytes();
    let sent = write_until_stuck(writer, &bytes);
    let growth = proxy.resident_bytes().saturating_sub(before);
    assert!(sent < WRITTEN_AT_MOST, "{sent} bytes went out though nobody read them");
    assert!(growth < GROWTH_AT_MOST, "the proxy grew by {growth} bytes");
    let bytes = Arc::new(bytes);
    let expected = bytes.clone();
    let reading = thread::spawn(move || assert!(reader.exactly(expected.len()) == *expected, "something else arrived"));
    writer.send(&bytes[sent..]);
    reading.join().expect("all of it arrives once the reader reads");
}

fn a_backend_that_stops_reading_stops_its_client(driver: Driver) {
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::before(backend.address(), driver);
    let (mut client, server) = ends(&proxy, &backends);
    a_stopped_reader_stops_its_writer(&proxy, &mut client, server, frames::stream(WRITTEN_AT_MOST, 3, true));
}

fn a_client_that_stops_reading_stops_its_backend(driver: Driver) {
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::before(backend.address(), driver);
    let (client, mut server) = ends(&proxy, &backends);
    a_stopped_reader_stops_its_writer(&proxy, &mut server, client, frames::stream(WRITTEN_AT_MOST, 4, false));
}

fn a_thousand_tunnels_echo_right(driver: Driver) {
    let backend = Backend::echo();
    let proxy = Proxy::before(backend.address(), driver);
    let mut clients: Vec<Wire> = (0..1000).map(|_| proxy.connect()).collect();
    // All requests, then all answers: the handshakes overlap.
    for client in &mut clients {
        client.send(frames::request("/", "x"));
    }
    for client in &mut clients {
        assert_eq!(client.head().status(), 101);
    }
    for round in 0..3 {
        let word = |number: usize| format!("tunnel {number}, round {round}");
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(frames::client(frames::TEXT, word(number)));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.frame(), (frames::TEXT, word(number).into_bytes()));
        }
    }
}
