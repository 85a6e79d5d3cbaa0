//! Connections to backends: how many a server may have, where they come from, and what happens when ports run out.

use std::{
    fs,
    net::Ipv6Addr,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::Value;

use crate::util::{
    Backend, Driver, Proxy, Wire, beyond_nginx, eventually, external, frames, on_both_drivers, ports, process::finish,
};

on_both_drivers![
    a_server_has_max_conns_tunnels_and_no_more_over_all_workers,
    however_a_tunnel_ends_its_place_is_free_again,
    tunnels_of_before_a_reload_count_and_those_of_a_worker_that_left,
    the_last_port_is_told_of_before_and_when_it_is_gone,
    each_source_address_has_ports_of_its_own,
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

fn status(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("JSON")
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
    let server = &status(&proxy.get("/status?json").body)["upstreams"][0]["servers"][0];
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

/// A backend at a port that no outgoing connection takes.
fn echo() -> Backend {
    Backend::serve_at(([127, 0, 0, 1], ports::free()).into(), |wire, _| crate::util::backend::echo(wire))
}

/// The same, and where its clients came from.
fn looking() -> (Backend, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let record = Arc::clone(&seen);
    let backend = Backend::serve_at(([127, 0, 0, 1], ports::free()).into(), move |wire, _| {
        record.lock().unwrap().push(wire.tcp().peer_addr().expect("a client").ip().to_string());
        crate::util::backend::echo(wire);
    });
    (backend, seen)
}

/// Local ports of a network of a test's own.
const PORTS: usize = 32;

/// Puts this test into a network with nothing but loopback and these local ports. False where that cannot be made.
fn own_network(range: &str) -> bool {
    if external("ip").is_none() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
        eprintln!("skipped: needs root and ip(8)");
        return false;
    }
    assert!(finish(Command::new("ip").args(["link", "set", "lo", "up"])).status.success());
    set_ports(range);
    true
}

fn set_ports(range: &str) {
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", range).expect("the range");
}

/// A proxy whose clients need no ports: they come by a unix socket.
fn by_unix(servers: &str, location: &str, driver: Driver) -> Proxy {
    let text = format!(
        "upstream group {{ {servers} }} server {{ listen %http%; listen unix:%dir%/http.sock;
         location / {{ proxy_pass http://group; {location} }} location = /status {{ status; }} location = /metrics {{ metrics; }} }}"
    );
    Proxy::config(&text).main("worker_processes 2;").on(driver).start()
}

fn unix_tunnel(proxy: &Proxy, path: &str) -> Result<Wire, u16> {
    let mut client = Wire::connect_unix(&proxy.dir().join("http.sock"));
    match client.upgrade(path).status() {
        101 => Ok(client),
        status => Err(status),
    }
}

/// Ports of connections that were closed here are free after a second (net.ipv4.tcp_tw_reuse).
fn unix_tunnel_in_time(proxy: &Proxy) -> Wire {
    let mut found = None;
    assert!(eventually(|| {
        found = unix_tunnel(proxy, "/").ok();
        found.is_some()
    }));
    found.expect("found")
}

fn asked(proxy: &Proxy, path: &str) -> Vec<u8> {
    Wire::connect_unix(&proxy.dir().join("http.sock")).get(path).body
}

/// Source, used and max of every pair of addresses.
fn pairs(proxy: &Proxy) -> Vec<(String, u64, u64)> {
    let status = status(&asked(proxy, "/status?json"));
    let pairs = status["limits"]["ports"]["pairs"].as_array().expect("pairs").iter();
    let pair = |pair: &Value| {
        let number = |name| pair[name].as_u64().expect("a number");
        (pair["source"].as_str().unwrap_or("any").to_owned(), number("used"), number("max"))
    };
    pairs.map(pair).collect()
}

fn the_last_port_is_told_of_before_and_when_it_is_gone(driver: Driver) {
    beyond_nginx!();
    if !own_network("40000 40031") {
        return;
    }
    let backend = echo();
    let proxy = by_unix(&format!("server {};", backend.address()), "", driver);
    let mut tunnels: Vec<_> = (0..PORTS).map(|_| unix_tunnel(&proxy, "/").expect("a port")).collect();
    let warning = format!("26 of 32 local ports to {} are in use", backend.address());
    proxy.logged(&["[warn]", &warning, "`proxy_bind` more addresses", "net.ipv4.ip_local_port_range"]);
    for _ in 0..3 {
        assert_eq!(unix_tunnel(&proxy, "/").err(), Some(502));
    }
    let words = format!("no local port is left from this host to {} (502 upstream_ports)", backend.address());
    proxy.logged(&["[error]", "connect() failed (99: Cannot assign requested address)", &words]);
    assert!(!proxy.log().contains("temporarily disabled"), "the backend has done nothing wrong");
    assert_eq!(pairs(&proxy), [("any".to_owned(), 32, 32)]);
    let metrics = String::from_utf8(asked(&proxy, "/metrics")).expect("text");
    for line in [
        format!("longsplice_upstream_ports_used{{source=\"\",address=\"{}\"}} 32", backend.address()),
        "longsplice_local_ports_used 32".to_owned(),
        "longsplice_refusals_total{reason=\"upstream_ports\"} 3".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    // Swaying near the end is said once; what was calm meanwhile is said again.
    drop(tunnels.drain(..4));
    assert!(eventually(|| pairs(&proxy)[0].1 == 28));
    tunnels.extend((0..4).map(|_| unix_tunnel_in_time(&proxy)));
    assert_eq!(proxy.log().matches("local ports to").count(), 1);
    drop(tunnels.drain(..16));
    assert!(eventually(|| pairs(&proxy)[0].1 == 16));
    tunnels.extend((0..16).map(|_| unix_tunnel_in_time(&proxy)));
    assert!(eventually(|| proxy.log().matches("local ports to").count() == 2));
    // The cure takes at once.
    assert_eq!(unix_tunnel(&proxy, "/").err(), Some(502));
    set_ports("40000 40063");
    let _more = unix_tunnel(&proxy, "/").expect("a port of the wider range");
    assert_eq!(pairs(&proxy), [("any".to_owned(), 33, 64)]);
}

fn each_source_address_has_ports_of_its_own(driver: Driver) {
    beyond_nginx!();
    if !own_network("40000 40031") {
        return;
    }
    let (backend, seen) = looking();
    let bind = "proxy_bind 127.0.0.2 198.51.100.1 127.0.0.3;";
    let mut proxy = by_unix(&format!("server {};", backend.address()), bind, driver);
    let mut tunnels: Vec<_> = (0..2 * PORTS).map(|_| unix_tunnel(&proxy, "/").expect("a port")).collect();
    let from = |source: &str| seen.lock().unwrap().iter().filter(|peer| *peer == source).count();
    assert_eq!((from("127.0.0.2"), from("127.0.0.3")), (PORTS, PORTS), "also when one has no more");
    assert_eq!(unix_tunnel(&proxy, "/").err(), Some(502));
    proxy.logged(&["[warn]", "bind() to 198.51.100.1 failed", "this host has no such address"]);
    assert_eq!(proxy.log().matches("bind() to 198.51.100.1").count(), 1, "once");
    for source in ["127.0.0.2", "127.0.0.3"] {
        proxy.logged(&["[warn]", "26 of 32 local ports", &format!("from {source} to {}", backend.address())]);
    }
    let full = |source: &str| (source.to_owned(), 32, 32);
    assert_eq!(pairs(&proxy), [full("127.0.0.2"), full("127.0.0.3")]);
    // The ports of before a reload are in use still; an address more is 32 ports more.
    let more = format!(
        "server {{ listen %http%; listen unix:%dir%/http.sock; location / {{ proxy_pass http://{}; proxy_bind 127.0.0.2/31 127.0.0.4; }}
           location = /status {{ status; }} }}",
        backend.address()
    );
    proxy.rewrite("worker_processes 2;", &more);
    reload(&mut proxy, 2);
    tunnels.extend((0..PORTS).map(|_| unix_tunnel(&proxy, "/").expect("a port")));
    assert_eq!(from("127.0.0.4"), PORTS);
    assert_eq!(unix_tunnel(&proxy, "/").err(), Some(502));
    tunnels.iter_mut().for_each(|tunnel| tunnel.echoes("all of them"));
    drop(tunnels);
    assert!(eventually(|| pairs(&proxy).is_empty()), "{:?}", pairs(&proxy));
}

#[test]
fn another_server_is_asked_when_the_ports_to_one_are_used_up() {
    beyond_nginx!();
    if !own_network("40000 40003") {
        return;
    }
    let backends = [echo(), echo()];
    let servers = format!("server {} weight=100; server {};", backends[0].address(), backends[1].address());
    let proxy = by_unix(&servers, "", Driver::Epoll);
    let _tunnels: Vec<_> = (0..8).map(|_| unix_tunnel(&proxy, "/").expect("a port")).collect();
    assert_eq!(backends.each_ref().map(Backend::connections), [4, 4]);
    proxy.logged(&["no local port is left", "trying the next server"]);
    assert_eq!(unix_tunnel(&proxy, "/").err(), Some(502));
    proxy.logged(&["no local port is left", "(502 upstream_ports)"]);
}

/// bind(2) alone would take a port for good, whatever it leads to: IP_BIND_ADDRESS_NO_PORT (ip(7)) leaves it to connect(2).
#[test]
fn a_port_of_a_source_address_leads_to_each_backend() {
    beyond_nginx!();
    if !own_network("40000 40003") {
        return;
    }
    let backends = [echo(), echo()];
    let servers = format!("server {}; server {};", backends[0].address(), backends[1].address());
    let proxy = by_unix(&servers, "proxy_bind 127.0.0.2;", Driver::Epoll);
    let mut tunnels: Vec<_> = (0..8).map(|_| unix_tunnel(&proxy, "/").expect("a port")).collect();
    assert_eq!(backends.each_ref().map(Backend::connections), [4, 4]);
    tunnels.iter_mut().for_each(|tunnel| tunnel.echoes("each of them"));
    assert_eq!(unix_tunnel(&proxy, "/").err(), Some(502));
}

#[test]
fn a_source_address_may_come_from_a_variable() {
    beyond_nginx!();
    let (backend, seen) = looking();
    let proxy = Proxy::in_location("proxy_bind $arg_from;", backend.address(), Driver::Epoll);
    assert_eq!([proxy.get("/?from=127.0.0.7").status(), proxy.get("/").status()], [200, 200]);
    assert_eq!(*seen.lock().unwrap(), ["127.0.0.7", "127.0.0.1"]);
    assert_eq!(proxy.get("/?from=127.0.0.7:80").status(), 500);
    proxy.logged(&["[error]", "`proxy_bind` came to \"127.0.0.7:80\", which is no address (500 bind_address)"]);
    assert_eq!(proxy.get("/?from=198.51.100.1").status(), 502);
    proxy.logged(&[
        "[error]",
        "bind(198.51.100.1) failed (99: Cannot assign requested address)",
        "(502 upstream_bind)",
    ]);
}

#[test]
fn a_backend_of_another_family_is_not_reached_from_some_other_address() {
    beyond_nginx!();
    let backend = Backend::serve_at((Ipv6Addr::LOCALHOST, 0).into(), |wire, _| crate::util::backend::echo(wire));
    let proxy = Proxy::in_location("proxy_bind 127.0.0.2;", backend.address(), Driver::Epoll);
    assert_eq!(proxy.get("/").status(), 502);
    proxy.logged(&["[error]", "`proxy_bind` has no IPv6 address to reach [::1]:", "(502 upstream_bind)"]);
    let proxy = Proxy::in_location("proxy_bind 127.0.0.2 ::1;", backend.address(), Driver::Epoll);
    assert_eq!(proxy.get("/").status(), 200);
}

#[test]
fn kept_connections_come_from_where_the_request_s_location_says() {
    beyond_nginx!();
    let (backend, seen) = looking();
    let text = "upstream group { server %backend%; keepalive 8; } server { listen %http%;
        location /a { proxy_pass http://group; proxy_bind 127.0.0.2; } location /b { proxy_pass http://group; proxy_bind 127.0.0.3; } }";
    let proxy = Proxy::config(text).main("worker_processes 1;").set("backend", backend.address()).start();
    for path in ["/a", "/b", "/a", "/b"] {
        assert_eq!(proxy.get(path).status(), 200);
    }
    assert_eq!(*seen.lock().unwrap(), ["127.0.0.2", "127.0.0.3"]);
}

#[test]
fn an_address_that_this_host_has_not_is_a_warning_of_the_test() {
    beyond_nginx!();
    let text =
        "server { listen %http%; location / { proxy_pass http://127.0.0.1:1; proxy_bind 127.0.0.2 198.51.100.1; } }";
    let tested = Proxy::config(text).run(&["-t"]);
    tested.expect_code(0).expect(&["warning", "this host has no address 198.51.100.1", "ip address add"]);
}
