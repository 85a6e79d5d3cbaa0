//! Clients that leave, break off, lie or take nothing.

use std::{net::Shutdown, sync::mpsc, thread, time::Duration};

use super::Fault;
use crate::util::{
    Backend, Driver, Ending, PATIENCE, Wire, beyond_nginx, eventually, frames, on_both_drivers, pattern,
};

on_both_drivers![
    one_that_resets_within_its_head,
    one_that_resets_before_its_answer,
    one_that_leaves_as_the_backend_agrees,
    one_that_resets_within_its_tls_handshake,
    one_that_resets_a_tunnel,
    one_that_resets_a_tunnel_it_has_half_closed,
    one_that_sends_no_tls_within_a_tunnel,
    one_that_ends_without_close_notify,
    one_that_half_closes_and_goes_on_reading,
];

fn one_that_resets_within_its_head(driver: Driver) {
    beyond_nginx!();
    let (backend, _backends) = Backend::accepting();
    let fault = Fault::before(&backend, "", driver);
    for tls in [false, true] {
        let mut client = fault.client(tls);
        client.send("GET / HTTP/1.1\r\nHost: x\r\nUpgr");
        fault.is_reading(1);
        client.reset();
    }
    fault.proxy.logged(&["[info]", "reading a request head failed", "104: Connection reset by peer"]);
    fault.before.assert_same(&fault.proxy);
    assert_eq!(backend.connections(), 0);
}

/// The backend has the request; its client has gone.
fn one_that_resets_before_its_answer(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::silent();
    let fault = Fault::before(&backend, "", driver);
    for (number, tls) in [false, true].into_iter().enumerate() {
        let mut client = fault.client(tls);
        client.send(frames::request("/", "x"));
        backend.wait_received(number, 10);
        client.reset();
    }
    fault.happened(2, "499 client_closed", "499 client_closed", "longsplice_refusals_total", "client_closed");
}

/// The 101 and the client's RST meet within us.
fn one_that_leaves_as_the_backend_agrees(driver: Driver) {
    beyond_nginx!();
    let (sender, receiver) = mpsc::channel();
    let backend = Backend::serve(move |mut wire, _| {
        let head = wire.head();
        let _ = sender.send((wire, head));
    });
    let fault = Fault::before(&backend, "", driver);
    let rounds = 40;
    for round in 0..rounds {
        let mut client = fault.client(round % 2 == 1);
        client.send(frames::request("/", "x"));
        let (mut server, head) = receiver.recv_timeout(PATIENCE).expect("a request");
        let greeting = [frames::switching(&head).into(), frames::server(frames::TEXT, "hello")].concat();
        let leaving = thread::spawn(move || if round % 4 < 2 { drop(client) } else { client.reset() });
        let _ = server.try_send(greeting);
        leaving.join().expect("it has left");
        assert_ne!(server.ending().1, Ending::Open, "round {round}");
    }
    fault.before.assert_same(&fault.proxy);
    // Each is one of both, and none is both or neither.
    let lines = || std::fs::read_to_string(fault.proxy.dir().join("reasons.log")).unwrap_or_default();
    let ends = |line: &str| line.starts_with("101 client_") || line == "499 client_closed";
    assert!(eventually(|| lines().lines().count() == rounds), "{}", lines());
    assert!(lines().lines().all(ends), "{}", lines());
}

fn one_that_resets_within_its_tls_handshake(driver: Driver) {
    beyond_nginx!();
    let (backend, _backends) = Backend::accepting();
    let fault = Fault::before(&backend, "", driver);
    // The first bytes of a ClientHello that would go on; then a whole one, whose answer is never read.
    let hello = client_hello();
    for length in [20, hello.len()] {
        let mut client = Wire::connect(fault.proxy.address("https"));
        client.send(&hello[..length]);
        fault.is_reading(1);
        client.reset();
        fault.is_reading(0);
    }
    assert!(
        eventually(|| fault.log_has("TLS handshake failed (104: Connection reset by peer)") == 2),
        "{}",
        fault.proxy.log()
    );
    assert_eq!(fault.figure("longsplice_tls_failures_total"), 2);
    fault.before.assert_same(&fault.proxy);
}

/// As a client of ours says it.
fn client_hello() -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("x").expect("a name");
    let config = crate::util::tls::Client::default().config;
    let mut client = rustls::ClientConnection::new(config, name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("into memory");
    hello
}

fn one_that_resets_a_tunnel(driver: Driver) {
    beyond_nginx!();
    for tls in [false, true] {
        let (_backend, fault, mut client, mut server) = Fault::in_a_tunnel(tls, "", driver);
        let frame = frames::client(frames::BINARY, vec![7; 1000]);
        client.send(&frame[..500]);
        assert_eq!(server.exactly(500), frame[..500]);
        client.reset();
        assert_eq!(server.ending().1, Ending::Reset, "tls: {tls}");
        fault.ended("client_reset");
    }
}

/// FIN, then RST while the backend still has much to say.
fn one_that_resets_a_tunnel_it_has_half_closed(driver: Driver) {
    beyond_nginx!();
    for tls in [false, true] {
        let (_backend, fault, mut client, mut server) = Fault::in_a_tunnel(tls, "", driver);
        client.finish();
        assert_eq!(server.rest(), b"", "the FIN was passed on");
        let writing = thread::spawn(move || {
            let bytes = frames::stream(32 << 20, 1, false);
            assert!(server.try_send(bytes).is_err(), "nobody takes all of that");
        });
        client.exactly(1 << 20);
        client.reset();
        writing.join().expect("the backend is told");
        // It was the first to end, and it ended in good order; what came then cut the backend short.
        fault.before.assert_same(&fault.proxy);
        fault.proxy.written("reasons.log", &["101 client_"]);
    }
}

/// Bytes that are no record, and a record whose tag is wrong: the end of the tunnel, told to both.
fn one_that_sends_no_tls_within_a_tunnel(driver: Driver) {
    beyond_nginx!();
    let record = [&[23, 3, 3, 0, 64][..], &pattern(64, 7)].concat();
    for garbage in [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), record] {
        let (_backend, fault, mut client, mut server) = Fault::in_a_tunnel(true, "", driver);
        let said = frames::client(frames::TEXT, "before it");
        client.send(&said);
        assert_eq!(server.exactly(said.len()), said);
        std::io::Write::write_all(&mut client.tcp(), &garbage).expect("sent");
        assert_ne!(server.ending().1, Ending::Open);
        let alert = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.ending()));
        // rustls takes the alert for an error, and so does `ending`.
        assert!(alert.is_err() || alert.is_ok_and(|(_, ending)| ending != Ending::Open));
        fault.ended("tls_error");
        fault.proxy.logged(&["[warn]", "client", "(tls_error)"]);
    }
}

fn one_that_ends_without_close_notify(driver: Driver) {
    beyond_nginx!();
    let (_backend, fault, client, mut server) = Fault::in_a_tunnel(true, "", driver);
    client.tcp().shutdown(Shutdown::Write).expect("FIN");
    assert_ne!(server.ending().1, Ending::Open);
    drop(client);
    fault.ended("client_truncated");
}

fn one_that_half_closes_and_goes_on_reading(driver: Driver) {
    beyond_nginx!();
    for tls in [false, true] {
        let (_backend, fault, mut client, mut server) = Fault::in_a_tunnel(tls, "", driver);
        client.finish();
        assert_eq!(server.rest(), b"");
        let late = frames::stream(3 << 20, 2, false);
        let expected = late.clone();
        let writing = thread::spawn(move || server.send(&late).finish().tcp().shutdown(Shutdown::Both));
        let (bytes, ending) = client.patience(Duration::from_secs(10)).ending();
        assert!(bytes == expected && ending == Ending::Closed, "{} bytes, {ending:?}", bytes.len());
        let _ = writing.join().expect("sent");
        drop(client);
        fault.ended("client_closed");
    }
}
