//! Faults of the host: no descriptors, no memory, no room on the disk, a process that is stopped, signals, crowds, readers that do not
//! read. What clients get, what the log says and how often, what is counted, that tunnels live on, and that nothing is left behind.

mod crowd;
mod disk;
mod readers;
mod shortage;
mod signals;
mod stopped;

use std::{sync::Arc, thread};

use crate::util::{Proxy, Wire, frames, proxy::Setup};

/// ws and wss before `%backend%`, a line `STATUS REASON` for each request and tunnel, and more directives of the server.
fn site(directives: &str) -> Setup {
    let text = format!(
        "log_format reasons '$status $close_reason';
         server {{ listen %http%; listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
             access_log %dir%/reasons.log reasons; {directives}
             location / {{ proxy_pass http://%backend%; }} }}"
    );
    // Whose limits are changed while it runs must be of the same user (prlimit(2)).
    Proxy::config(&text).main("user root;").certificate("x", &["x"]).watched()
}

/// Tunnels with something said in each, ws and wss in turn.
fn tunnels(proxy: &Proxy, count: usize) -> Vec<Wire> {
    let open = |number: usize| {
        let mut wire = if number.is_multiple_of(2) { proxy.connect() } else { proxy.connect_tls("x") };
        wire.websocket("/");
        wire.echoes("before");
        wire
    };
    (0..count).map(open).collect()
}

/// Sends much both ways at once through a tunnel whose backend echoes, and compares every byte.
fn much_passes(wire: &mut Wire, bytes: usize) {
    let message = crate::util::pattern(bytes, 7);
    let stream = Arc::new(frames::client(frames::BINARY, &message));
    let (mut writer, sent) = (wire.writer(), Arc::clone(&stream));
    let writing = thread::spawn(move || {
        writer.send_in_pieces(&*sent, 300_001);
    });
    let (opcode, echo) = wire.frame();
    assert_eq!((opcode, echo.len()), (frames::BINARY, bytes));
    assert!(echo == message, "bytes were altered");
    writing.join().expect("the writer");
}
