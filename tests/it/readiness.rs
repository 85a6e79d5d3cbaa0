//! `?ready` of a status location: what balancers in front ask.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use nix::sys::signal::Signal;

use crate::util::{PATIENCE, Proxy, eventually};

/// The answer as text; empty: nobody answered.
fn ask(address: SocketAddr) -> String {
    let mut answer = Vec::new();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /status?ready HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")?;
        stream.read_to_end(&mut answer)
    });
    // What came before a reset was an answer.
    drop(asked);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_serving_process_is_ready_and_one_that_quits_is_not() {
    let mut proxy = Proxy::config("server { listen %http%; location /status { status; } }").start();
    let ready = ask(proxy.http());
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\n\r\nready\n"), "{ready}");
    let http = proxy.http();
    proxy.running().signal(Signal::SIGQUIT);
    // Either it still listens and says 503, or nobody answers: no balancer takes that for ready.
    assert!(eventually(|| !ask(http).starts_with("HTTP/1.1 200 ")));
}
