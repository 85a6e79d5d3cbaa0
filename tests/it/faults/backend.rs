//! Backends that refuse, hang, break off, lie or flood.

use std::sync::mpsc;

use super::{Fault, site};
use crate::util::{
    Backend, Driver, Ending, Wire, beyond_nginx, frames, on_both_drivers,
    ports::{Blackhole, Refusing},
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
];

/// A backend that accepts the WebSocket and hands the connection over.
pub fn accepting() -> (Backend, mpsc::Receiver<Wire>) {
    let (sender, receiver) = mpsc::channel();
    let backend = Backend::serve(move |mut wire, _| {
        wire.accept_websocket();
        let _ = sender.send(wire);
    });
    (backend, receiver)
}

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
        let (backend, backends) = accepting();
        let fault = Fault::before(&backend, "", driver);
        let (mut client, mut server) = fault.ends(tls, &backends);
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
        let (backend, backends) = accepting();
        let fault = Fault::before(&backend, "websocket_timeout 1s;", driver);
        let (mut client, mut server) = fault.ends(tls, &backends);
        let frame = frames::server(frames::BINARY, vec![7; 1000]);
        server.send(&frame[..500]);
        let (bytes, ending) = client.ending();
        assert_eq!((bytes.len(), ending), (500, Ending::Closed), "tls: {tls}");
        server.expect_gone();
        fault.ended("idle_timeout");
    }
}
