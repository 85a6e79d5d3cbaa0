//! What an idle tunnel costs: thousands of them, and the program's own memory.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit};

use crate::util::{Backend, Driver, Proxy, Wire, beyond_nginx, eventually, frames, on_both_drivers};

on_both_drivers![an_idle_tunnel_is_small, an_idle_tunnel_over_tls_is_small];

/// Tunnels that bring the program's tables and caches to size.
const FIRST: usize = 300;

fn an_idle_tunnel_is_small(driver: Driver) {
    // Some 170 bytes in three tables; the goal is 300. A buffer, a task or the request would show.
    costs_at_most(600, 4000, driver, "listen %http%;", Proxy::connect);
}

fn an_idle_tunnel_over_tls_is_small(driver: Driver) {
    // The goal is 4,000.
    let listen = "listen %https% ssl; ssl_certificate %dir%/a.crt; ssl_certificate_key %dir%/a.key;";
    costs_at_most(5500, 1000, driver, listen, |proxy| proxy.connect_tls("a.example"));
}

/// Opens tunnels that carry one message each way and reads what they cost once the program has come to rest.
#[track_caller]
fn costs_at_most(bytes: usize, tunnels: usize, driver: Driver, listen: &str, connect: impl Fn(&Proxy) -> Wire) {
    beyond_nginx!();
    // Both ends of every tunnel are ours: one of these tests at a time.
    static DESCRIPTORS: Mutex<()> = Mutex::new(());
    let _turn = DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner);
    let backend = Backend::serve(keeping());
    let proxy =
        Proxy::config(&format!("server {{ {listen} access_log off; location / {{ proxy_pass http://%backend%; }} }}"))
            .main("worker_processes 1;")
            .certificate("a", &["a.example"])
            .set("backend", backend.address())
            .on(driver)
            .start();
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("RLIMIT_NOFILE");
    let tunnels = tunnels.min(usize::try_from(limit / 4).expect("a limit that fits"));
    let open = |count: usize| -> Vec<Wire> {
        let tunnel = |_| {
            let mut client = connect(&proxy);
            client.websocket("/");
            client.echoes("x");
            client
        };
        (0..count).map(tunnel).collect()
    };
    let _first = open(FIRST);
    // Longer than a worker waits for more before it gives back what the handshakes took.
    thread::sleep(Duration::from_secs(2));
    let before = proxy.private_bytes();
    let _more = open(tunnels);
    let each = || proxy.private_bytes().saturating_sub(before) / tunnels;
    assert!(eventually(|| each() <= bytes), "{} bytes an idle tunnel, at most {bytes} expected", each());
}

/// A backend that echoes one message and keeps the socket, without a thread for it.
fn keeping() -> impl Fn(Wire, usize) + Send + Sync {
    let kept = Mutex::new(Vec::new());
    move |mut wire, _| {
        wire.accept_websocket();
        let (_, word) = wire.frame();
        wire.send(frames::server(frames::TEXT, word));
        kept.lock().unwrap().push(wire);
    }
}
