//! How long tunnels live: lifetimes, pings, and peers that vanish.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::util::{Backend, Driver, Elsewhere, Proxy, Wire, beyond_nginx, frames, on_both_drivers};

on_both_drivers![a_lifetime_ends_a_tunnel_that_is_in_use, pings_come_between_frames];

fn a_lifetime_ends_a_tunnel_that_is_in_use(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let lifetime = "websocket_max_lifetime 2s jitter=20%;";
    let proxy = Proxy::in_location(lifetime, backend.address(), driver);
    let mut client = proxy.tunnel("/");
    let start = Instant::now();
    let mut echoed = 0;
    let (opcode, said) = loop {
        client.send(frames::client(frames::TEXT, "still here"));
        let frame = client.frame();
        if frame.0 != frames::TEXT {
            break frame;
        }
        echoed += 1;
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!((opcode, &said[..2]), (frames::CLOSE, &1001u16.to_be_bytes()[..]));
    assert!(said.ends_with(b"max_lifetime") && echoed > 10);
    let lived = start.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_secs(4)).contains(&lived), "{lived:?}");
    client.send(frames::client(frames::CLOSE, 1001u16.to_be_bytes())).finish();
    proxy.logged(&["(max_lifetime)"]);
}

fn pings_come_between_frames(driver: Driver) {
    beyond_nginx!();
    const LENGTH: usize = 4 << 20;
    let (go_on, gone_on) = mpsc::channel::<()>();
    let gone_on = std::sync::Mutex::new(gone_on);
    let backend = Backend::serve(move |mut wire, _| {
        wire.accept_websocket();
        // Long enough for a pipe, and held up in the middle.
        let frame = frames::server(frames::BINARY, vec![7; LENGTH]);
        wire.send(&frame[..LENGTH / 2]);
        let _ = gone_on.lock().unwrap().recv();
        wire.send(&frame[LENGTH / 2..]);
        wire.rest();
    });
    let proxy = Proxy::in_location("websocket_ping 500ms;", backend.address(), driver);
    let mut client = proxy.tunnel("/");
    let begun = client.exactly(LENGTH / 2);
    client.patience(Duration::from_millis(1200));
    assert!(client.read_some(&mut [0; 1]).is_err(), "a ping within a frame");
    client.patience(crate::util::PATIENCE);
    go_on.send(()).unwrap();
    let frame = frames::server(frames::BINARY, vec![7; LENGTH]);
    let rest = client.exactly(frame.len() - begun.len());
    assert!([begun, rest].concat() == frame, "the frame was altered");
    for _ in 0..2 {
        assert_eq!(client.frame(), (frames::PING, Vec::new()));
    }
    // The pong goes on to the backend, as RFC 6455 section 5.5.3 allows.
    let pong = frames::client(frames::PONG, "");
    client.send(&pong);
    assert!(crate::util::eventually(|| backend.received(0).ends_with(&pong)));
}

/// A tunnel that nothing goes through: keep-alive probes find out.
#[test]
fn a_client_that_vanished_in_silence_is_noticed() {
    beyond_nginx!();
    let Some(elsewhere) = Elsewhere::new(1) else { return };
    let backend = Backend::echo();
    let text = format!(
        "tcp_user_timeout 3s; server {{ listen {}:19713 so_keepalive=1s:1s:2; location / {{ proxy_pass http://%backend%; }} }}",
        elsewhere.ours
    );
    let proxy = Proxy::config(&text).set("backend", backend.address()).start();
    proxy.logged(&["ready:"]);
    let mut client = elsewhere.within(|| Wire::connect(elsewhere.here(19713)));
    client.websocket("/");
    client.echoes("here");
    elsewhere.vanish();
    let start = Instant::now();
    proxy.logged(&["(client_lost)"]);
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
}

/// A backend that is being spoken to.
#[test]
fn a_backend_that_vanished_is_noticed() {
    beyond_nginx!();
    let Some(elsewhere) = Elsewhere::new(2) else { return };
    let backend =
        elsewhere.within(|| Backend::serve_at(elsewhere.there(19714), |wire, _| crate::util::backend::echo(wire)));
    let proxy = Proxy::in_location("tcp_user_timeout 2s;", backend.address(), Driver::Epoll);
    let mut client = proxy.tunnel("/");
    client.echoes("here");
    elsewhere.vanish();
    let start = Instant::now();
    client.send(frames::client(frames::TEXT, "anybody there?"));
    proxy.logged(&["(upstream_lost)"]);
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    client.expect_gone();
}
