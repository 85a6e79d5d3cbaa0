//! Connections to backends: how many a server may have.

use std::{thread, time::Duration};

use nix::sys::signal::Signal;

use crate::util::{Backend, Driver, Proxy, Wire, beyond_nginx, eventually, frames, on_both_drivers};

on_both_drivers![
    a_server_has_max_conns_tunnels_and_no_more_over_all_workers,
    however_a_tunnel_ends_its_place_is_free_again,
    tunnels_of_before_a_reload_count_and_those_of_a_worker_that_left,
];

/// Names a group by its servers, with `%backend%` at hand.
const GROUP: &str = "upstream group { zone group 64k; %servers% }
    server { listen %http%; location / { proxy_pass http://group; proxy_http_version 1.1; websocket_timeout 1h;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; } %more% }";

fn group(servers: &str, more: &str) -> String {
    GROUP.replace("%servers%", servers).replace("%more%", more)
}

/// Asks for a tunnel: it, or the status of the refusal.
fn tunnel(proxy: &Proxy) -> Result<Wire, u16> {
    let mut client = proxy.connect();
    match client.upgrade("/").status() {
        101 => Ok(client),
        status => Err(status),
    }
}

/// Asks until there is a place.
#[track_caller]
fn tunnel_in_time(proxy: &Proxy) -> Wire {
    let mut found = None;
    assert!(
        eventually(|| {
            found = tunnel(proxy).ok();
            found.is_some()
        }),
        "no place is free; it says:\n{}",
        proxy.log()
    );
    found.expect("found")
}

#[track_caller]
fn assert_full(proxy: &Proxy) {
    assert_eq!(tunnel(proxy).err(), Some(502), "there is a place");
}

fn reload(proxy: &mut Proxy, number: usize) {
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&[&format!("configuration {number} is in use")]);
}

fn a_server_has_max_conns_tunnels_and_no_more_over_all_workers(driver: Driver) {
    beyond_nginx!();
    let backends = [Backend::echo(), Backend::echo()];
    let servers = backends.each_ref().map(|backend| format!("server {} max_conns=3;", backend.address())).concat();
    let proxy = Proxy::config(&group(&servers, "location = /status { status; } location = /metrics { metrics; }"))
        .main("worker_processes 4;")
        .on(driver)
        .start();
    let mut tunnels: Vec<_> = (0..6).map(|_| tunnel(&proxy).expect("a place")).collect();
    assert_eq!(backends.each_ref().map(Backend::connections), [3, 3]);
    for _ in 0..8 {
        assert_full(&proxy);
    }
    proxy.logged(&[
        "[error]",
        "no live upstreams while connecting to upstream: 2 of 2 servers have max_conns (502 max_conns)",
    ]);
    let metrics = proxy.get("/metrics").text();
    for line in ["longsplice_refusals_total{reason=\"max_conns\"} 8", "longsplice_upstream_connections_max{"] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let status: serde_json::Value = serde_json::from_slice(&proxy.get("/status?json").body).expect("JSON");
    let server = &status["upstreams"][0]["servers"][0];
    assert_eq!((server["connections"].as_u64(), server["max_conns"].as_u64()), (Some(3), Some(3)));
    assert_eq!(backends.each_ref().map(Backend::connections), [3, 3], "nobody else was let through");
    // A server that is full is no failed one.
    assert!(!proxy.log().contains("temporarily disabled"));
    tunnels.pop().expect("one").finish();
    let mut client = tunnel_in_time(&proxy);
    client.echoes("there is a place");
    assert_full(&proxy);
}

#[test]
fn storms_do_not_get_past_max_conns() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::config(&group(&format!("server {} max_conns=5;", backend.address()), ""))
        .main("worker_processes 4;")
        .start();
    let opened: Vec<_> = thread::scope(|scope| {
        let client = || (0..20).filter_map(|_| tunnel(&proxy).ok()).collect::<Vec<_>>();
        let clients = [(); 4].map(|()| scope.spawn(client));
        clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
    });
    assert_eq!((opened.len(), backend.connections()), (5, 5));
}

/// How a client makes an end of its tunnel.
type Leave = fn(Wire);

/// Waits for the other side to leave, and does too.
fn end(client: &mut Wire) {
    client.ending();
}

fn however_a_tunnel_ends_its_place_is_free_again(driver: Driver) {
    beyond_nginx!();
    // What the tunnel is sent first says how its backend leaves.
    let backend = Backend::serve(|mut wire, _| {
        if wire.try_head().is_none_or(|head| {
            let switching = frames::switching(&head);
            wire.try_send(switching).is_err()
        }) {
            return;
        }
        match wire.frame().1.as_slice() {
            b"finish" => wire.finish(),
            b"reset" => return wire.reset(),
            _ => &mut wire,
        };
        wire.patience(Duration::from_secs(300)).ending();
    });
    let settings = "location = /idle { proxy_pass http://group; websocket_timeout 1s; }
        location = /old { proxy_pass http://group; websocket_max_lifetime 1s jitter=0%; }";
    let proxy = Proxy::config(&group(&format!("server {} max_conns=1;", backend.address()), settings))
        .main("worker_processes 2;")
        .on(driver)
        .start();
    let ends: [(&str, Leave); 7] = [
        ("/", |mut client| end(client.finish())),
        ("/", Wire::reset),
        ("/", |mut client| end(client.send(frames::server(frames::TEXT, "no mask")))),
        ("/", |mut client| end(client.send(frames::client(frames::TEXT, "finish")))),
        ("/", |mut client| end(client.send(frames::client(frames::TEXT, "reset")))),
        ("/idle", |mut client| end(&mut client)),
        ("/old", |mut client| end(&mut client)),
    ];
    for (number, (path, leave)) in ends.into_iter().enumerate() {
        let mut client = None;
        let has_place = eventually(|| {
            let mut wire = proxy.connect();
            client = (wire.upgrade(path).status() == 101).then_some(wire);
            client.is_some()
        });
        assert!(has_place, "the end before {number} left the place taken; it says:\n{}", proxy.log());
        if number == 0 {
            assert_full(&proxy);
        }
        leave(client.expect("a tunnel"));
    }
    let mut last = tunnel_in_time(&proxy);
    last.send(frames::client(frames::TEXT, "stay"));
    assert_full(&proxy);
}

fn tunnels_of_before_a_reload_count_and_those_of_a_worker_that_left(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let server = format!("server {} max_conns=2;", backend.address());
    let mut proxy = Proxy::config(&group(&server, "")).main("worker_processes 2;").on(driver).start();
    let mut tunnels = [tunnel(&proxy).expect("a place"), tunnel(&proxy).expect("a place")];
    // The same group; one that is different; one worker less, whose tunnels the other one gets; without the server, and with it.
    let heavier = server.replace("max_conns", "weight=3 max_conns");
    let elsewhere = "server 127.0.0.1:1;".to_owned();
    let files = [(2, &server), (2, &heavier), (1, &heavier), (1, &elsewhere), (2, &server)];
    for (number, (workers, servers)) in files.into_iter().enumerate() {
        proxy.rewrite(&format!("worker_processes {workers};"), &group(servers, ""));
        reload(&mut proxy, number + 2);
        assert_full(&proxy);
    }
    tunnels.iter_mut().for_each(|tunnel| tunnel.echoes("still here"));
    let [first, _second] = tunnels;
    first.reset();
    let _third = tunnel_in_time(&proxy);
    assert_full(&proxy);
}

#[test]
fn backups_are_asked_when_the_others_are_full() {
    let [primary, backup] = [Backend::echo(), Backend::echo()];
    let servers = format!("server {} max_conns=1; server {} backup max_conns=1;", primary.address(), backup.address());
    let proxy =
        Proxy::config(&group(&servers, "").replace("websocket_timeout 1h;", "")).main("worker_processes 1;").start();
    let _tunnels = [tunnel(&proxy).expect("the first"), tunnel(&proxy).expect("the backup")];
    assert_eq!((primary.connections(), backup.connections()), (1, 1));
    assert_full(&proxy);
    proxy.logged(&["[error]", "no live upstreams while connecting to upstream"]);
}

/// As in nginx: a connection that waits for another request is nobody's.
#[test]
fn connections_that_are_kept_do_not_count() {
    let backend = Backend::echo();
    let servers = format!("server {} max_conns=1; keepalive 4;", backend.address());
    // nginx's way to keep a connection: an empty Connection with requests that are no upgrade.
    let text = group(&servers, "").replace("websocket_timeout 1h;", "").replace("$http_connection", "$kept");
    let map = "map $http_upgrade $kept { default upgrade; '' ''; }";
    let proxy = Proxy::config(&format!("{map} {text}")).main("worker_processes 1;").start();
    for _ in 0..3 {
        assert_eq!(proxy.get("/").status(), 200);
    }
    assert_eq!(backend.connections(), 1, "it was kept");
    let _tunnel = tunnel(&proxy).expect("a place");
    assert_eq!(proxy.get("/").status(), 502, "the tunnel has the only place");
}
