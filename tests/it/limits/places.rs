//! A place under `limit_conn`: free again whatever has become of who had it.

use std::{net::SocketAddr, time::Duration};

use nix::sys::signal::Signal;

use super::{PASS, is_free};
use crate::util::{
    Backend, Driver, Proxy, Wire, beyond_nginx, eventually, frames,
    leaks::{Leaks, figure},
    on_both_drivers,
};

on_both_drivers![a_place_is_free_again_however_its_tunnel_ends, a_place_is_free_again_however_a_request_ends,];

/// A server whose every path may have one connection of a key, `?key=`.
fn one_each(directives: &str, backend: SocketAddr, driver: Driver) -> Proxy {
    Proxy::config(&format!(
        "limit_conn_zone $arg_key zone=key:1m;
         server {{ listen %http%;
           location / {{ limit_conn key 1; {directives} {PASS} }} }}"
    ))
    .set("backend", backend)
    .watched()
    .on(driver)
    .start()
}

fn a_place_is_free_again_however_its_tunnel_ends(driver: Driver) {
    // What the backend does when it is told to.
    let backend = Backend::serve(|mut wire, _| {
        if wire.try_head().map(|head| wire.try_send(frames::switching(&head))).is_none() {
            return;
        }
        wire.patience(Duration::from_secs(60));
        let mut word = [0; 64];
        while let Ok(length @ 1..) = wire.read_some(&mut word) {
            let _ = length;
            match word.iter().position(|byte| *byte == b'#').map(|at| word[at + 1]) {
                Some(b'c') => return,
                Some(b'r') => return wire.reset(),
                _ => {}
            }
        }
    });
    let proxy = one_each("websocket_timeout 1s;", backend.address(), driver);
    let before = Leaks::of(&proxy);
    let tells = |wire: &mut Wire, what: u8| {
        // Not masked for its backend to read; an opaque payload for the proxy.
        wire.send([&[0x82, 0x80 | 2, 0, 0, 0, 0, b'#'][..], &[what]].concat());
    };
    type End<'a> = Box<dyn Fn(Wire) + 'a>;
    let ends: Vec<(&str, End<'_>)> = vec![
        ("client_closes", Box::new(drop)),
        ("client_resets", Box::new(Wire::reset)),
        ("client_finishes", Box::new(|mut wire| drop(wire.finish().ending()))),
        (
            "backend_closes",
            Box::new(|mut wire| {
                tells(&mut wire, b'c');
                wire.ending();
            }),
        ),
        (
            "backend_resets",
            Box::new(|mut wire| {
                tells(&mut wire, b'r');
                wire.ending();
            }),
        ),
        (
            "protocol_error",
            Box::new(|mut wire| {
                wire.send([0xff; 16]);
                wire.ending();
            }),
        ),
        ("idle", Box::new(|mut wire| drop(wire.ending()))),
    ];
    for (name, end) in ends {
        let target = format!("/?key={name}");
        let mut wire = proxy.connect();
        assert_eq!(wire.upgrade(&target).status(), 101, "{name}");
        assert_eq!(proxy.connect().upgrade(&target).status(), 503, "{name}: taken");
        end(wire);
        is_free(&proxy, &target);
    }
    beyond_nginx!();
    proxy.logged(&["[error]", "limiting connections by zone \"key\" (503 limit_conn)", "client: 127.0.0.1"]);
    assert!(figure(&proxy, "longsplice_limit_zone_requests_total{zone=\"key\",result=\"rejected\"}") >= 7);
    assert!(figure(&proxy, "longsplice_refusals_total{reason=\"limit_conn\"}") >= 7);
    before.assert_same(&proxy);
    assert_eq!(figure(&proxy, "longsplice_limit_zone_keys{zone=\"key\"}"), 0);
}

fn a_place_is_free_again_however_a_request_ends(driver: Driver) {
    let backend = Backend::serve(|mut wire, _| {
        while let Some(head) = wire.try_head() {
            match head.target() {
                "/?key=declined" => drop(wire.try_send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")),
                "/?key=broken" => return,
                "/?key=silent" => drop(wire.ending()),
                _ => drop(wire.try_send(frames::switching(&head))),
            }
        }
    });
    let proxy = one_each("proxy_read_timeout 1s;", backend.address(), driver);
    let upgrade = |target: &str| proxy.connect().upgrade(target).status();
    // Twice each, and the second time as soon as the first is answered.
    for (name, status) in [("declined", 404), ("broken", 502), ("silent", 504)] {
        let target = format!("/?key={name}");
        assert_eq!((upgrade(&target), upgrade(&target)), (status, status), "{name}");
    }
    let bad = "GET /?key=bad HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n";
    assert_ne!(proxy.connect().ask(bad).status(), 503);
    is_free(&proxy, "/?key=bad");
    // A client that leaves within its handshake.
    let mut client = proxy.connect();
    client.send(frames::request("/?key=silent", "x"));
    proxy.logged(&["/?key=silent"]);
    drop(client);
    let answers = || upgrade("/?key=silent") == 504;
    assert!(eventually(answers), "{}", proxy.log());
    // The next request of a connection is not beside the one before it.
    let plain = one_each("", Backend::echo().address(), driver);
    let mut client = plain.connect();
    let statuses: Vec<u16> = (0..3).map(|_| client.get("/?key=same").status()).collect();
    assert!(statuses.iter().all(|status| *status == 502 || *status == 200), "{statuses:?}");
}

#[test]
fn workers_share_their_zones() {
    let backend = Backend::echo();
    let text = format!(
        "limit_conn_zone $host zone=all:1m; limit_req_zone $host zone=fast:1m rate=1r/m;
         server {{ listen %http%; location / {{ limit_conn all 8; {PASS} }}
           location /req {{ limit_req zone=fast burst=19 nodelay; {PASS} }} }}"
    );
    let proxy = Proxy::config(&text).main("worker_processes 2;").set("backend", backend.address()).start();
    let open = proxy.tunnels("/", 8);
    for _ in 0..12 {
        assert_eq!(proxy.connect().upgrade("/").status(), 503, "whichever worker it is");
    }
    drop(open);
    is_free(&proxy, "/");
    let passed = (0..40).filter(|_| proxy.get("/req").status() == 200).count();
    assert_eq!(passed, 20);
}

#[test]
fn places_outlive_reloads_and_workers() {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = |key: &str, limit: u32, size: &str| {
        format!(
            "limit_conn_zone {key} zone=all:{size};
             server {{ listen %http%; location / {{ limit_conn all {limit}; {PASS} }} }}"
        )
    };
    let start = Proxy::config(&text("$host", 3, "1m")).main("worker_processes 3;").set("backend", backend.address());
    let mut proxy = start.start();
    let open = |proxy: &Proxy| {
        let mut wire = proxy.connect();
        (wire.upgrade("/").status() == 101).then_some(wire)
    };
    let mut tunnels: Vec<_> = (0..3).map(|_| open(&proxy).expect("a place")).collect();
    assert!(open(&proxy).is_none());
    let reload = |proxy: &mut Proxy, main: &str, text: &str, number: u32| {
        proxy.rewrite(main, text);
        proxy.running().signal(Signal::SIGHUP);
        proxy.logged(&[&format!("configuration {number} is in use")]);
    };
    // Fewer workers: their tunnels move to the one that stays.
    reload(&mut proxy, "worker_processes 1;", &text("$host", 3, "1m"), 2);
    assert!(open(&proxy).is_none(), "the zone goes on");
    tunnels.iter_mut().for_each(|tunnel| tunnel.echoes("still"));
    drop(tunnels.pop());
    is_free(&proxy, "/");
    assert!(eventually(|| open(&proxy).is_some()));
    reload(&mut proxy, "worker_processes 2;", &text("$host", 4, "1m"), 3);
    let more: Vec<_> = (0..2).map(|_| open(&proxy).expect("a place more")).collect();
    assert!(open(&proxy).is_none(), "two of each configuration");
    // Another key is another zone: what was counted by the old one is counted there.
    reload(&mut proxy, "worker_processes 2;", &text("$host$uri", 1, "1m"), 4);
    let other = open(&proxy).expect("a place");
    assert!(open(&proxy).is_none());
    drop((tunnels, more));
    assert!(open(&proxy).is_none());
    drop(other);
    assert!(eventually(|| open(&proxy).is_some()));
}
