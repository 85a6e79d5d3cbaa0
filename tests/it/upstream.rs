//! Groups of backends: whose turn it is, and what happens when one is not there.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use crate::util::{
    Backend, Driver, Proxy, eventually, frames, on_both_drivers,
    ports::{Blackhole, Refusing},
};

on_both_drivers![
    three_servers_get_equal_shares,
    a_dead_server_is_stepped_over,
    a_server_that_cannot_be_reached_is_left_after_its_connect_timeout,
    unix_backends_are_served,
];

const GROUP: &str = "upstream group { %servers% }
    server { listen %http%; location / { proxy_pass http://group; proxy_http_version 1.1; proxy_connect_timeout 1s; proxy_read_timeout 2s;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; } }";

/// A proxy before a group of these `server` lines. One worker: nginx, standing in, keeps whose turn it is in each.
fn group(servers: &str, driver: Driver) -> Proxy {
    Proxy::config(&GROUP.replace("%servers%", servers)).main("worker_processes 1;").on(driver).start()
}

/// How often each backend answered, in `requests` requests on connections of their own.
fn answers(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let response = proxy.get("/");
        let who = if response.status() == 200 { response.text() } else { response.status().to_string() };
        *counts.entry(who).or_default() += 1;
    }
    counts
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

fn three_servers_get_equal_shares(driver: Driver) {
    let backends = ["one", "two", "three"].map(Backend::named);
    let servers: String = backends.iter().map(|backend| format!("server {};", backend.address())).collect();
    let proxy = group(&servers, driver);
    assert_eq!(answers(&proxy, 30), counts([("one", 10), ("two", 10), ("three", 10)]));
}

#[test]
fn equal_shares_hold_over_several_workers() {
    if crate::util::proxy::nginx_stands_in() {
        return;
    }
    let backends = ["one", "two", "three"].map(Backend::named);
    let servers: String = backends.iter().map(|backend| format!("server {};", backend.address())).collect();
    let proxy = Proxy::config(&GROUP.replace("%servers%", &servers)).main("worker_processes 4;").start();
    assert_eq!(answers(&proxy, 30), counts([("one", 10), ("two", 10), ("three", 10)]));
}

#[test]
fn weights_are_smooth_proportions() {
    let backends = ["five", "one", "uno"].map(Backend::named);
    let [five, one, uno] = &backends;
    let proxy = group(
        &format!("server {} weight=5; server {}; server {};", five.address(), one.address(), uno.address()),
        Driver::IoUring,
    );
    let order: Vec<String> = (0..7).map(|_| proxy.get("/").text()).collect();
    assert_eq!(order, ["five", "five", "one", "five", "uno", "five", "five"], "nginx's smooth weighted round robin");
}

#[test]
fn servers_that_are_down_get_nothing_and_backups_only_what_is_left() {
    let backends = ["up", "down", "backup"].map(Backend::named);
    let [up, down, backup] = &backends;
    let servers =
        format!("server {}; server {} down; server {} backup;", up.address(), down.address(), backup.address());
    assert_eq!(answers(&group(&servers, Driver::IoUring), 6), counts([("up", 6)]));
    let dead = Refusing::new();
    let servers = format!("server {}; server {} backup;", dead.address(), backup.address());
    assert_eq!(answers(&group(&servers, Driver::IoUring), 6), counts([("backup", 6)]));
}

fn a_dead_server_is_stepped_over(driver: Driver) {
    let dead = Refusing::new();
    let backend = Backend::named("alive");
    let proxy = group(&format!("server {}; server {};", dead.address(), backend.address()), driver);
    assert_eq!(answers(&proxy, 10), counts([("alive", 10)]), "no client sees the dead one");
    proxy.logged(&["[error]", "refused", "upstream"]);
}

#[test]
fn tunnels_step_over_a_dead_server_too() {
    let dead = Refusing::new();
    let backend = Backend::echo();
    let proxy = group(&format!("server {}; server {};", dead.address(), backend.address()), Driver::IoUring);
    for _ in 0..4 {
        let mut client = proxy.connect();
        client.websocket("/");
        client.echoes("hello");
    }
}

#[test]
fn a_server_that_closes_without_an_answer_is_stepped_over_for_what_may_be_repeated() {
    let closing = Backend::serve(|mut wire, _| drop(wire.try_head()));
    let backend = Backend::named("alive");
    let servers = format!("server {} max_fails=0; server {};", closing.address(), backend.address());
    let proxy = group(&servers, Driver::IoUring);
    assert_eq!(answers(&proxy, 4), counts([("alive", 4)]));
    let post =
        |proxy: &Proxy| proxy.connect().ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").status();
    let mut statuses = [post(&proxy), post(&proxy)];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502], "a POST that was sent is never sent twice");
}

#[test]
fn answers_named_in_proxy_next_upstream_go_to_the_next() {
    let failing = Backend::answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let backend = Backend::named("alive");
    let text = GROUP
        .replace("%servers%", &format!("server {} max_fails=0; server {};", failing.address(), backend.address()))
        .replace("proxy_connect_timeout", "proxy_next_upstream error timeout http_503; proxy_connect_timeout");
    let proxy = Proxy::config(&text).main("worker_processes 1;").start();
    assert_eq!(answers(&proxy, 4), counts([("alive", 4)]));
}

#[test]
fn proxy_next_upstream_off_keeps_to_the_first() {
    let dead = Refusing::new();
    let backend = Backend::named("alive");
    let text = GROUP
        .replace("%servers%", &format!("server {} max_fails=0; server {};", dead.address(), backend.address()))
        .replace("proxy_connect_timeout", "proxy_next_upstream off; proxy_connect_timeout");
    let proxy = Proxy::config(&text).main("worker_processes 1;").start();
    assert_eq!(answers(&proxy, 4), counts([("alive", 2), ("502", 2)]));
}

#[test]
fn a_group_without_a_living_server_is_a_502() {
    let dead = [Refusing::new(), Refusing::new()];
    let proxy = group(&format!("server {}; server {};", dead[0].address(), dead[1].address()), Driver::IoUring);
    assert_eq!(answers(&proxy, 3), counts([("502", 3)]));
    proxy.logged(&["[error]", "no live upstreams"]);
}

#[test]
fn a_server_that_failed_is_left_alone_for_its_fail_timeout_and_comes_back() {
    let dead = Refusing::new();
    let address = dead.address();
    let backend = Backend::named("alive");
    let proxy =
        group(&format!("server {address} max_fails=2 fail_timeout=2s; server {};", backend.address()), Driver::IoUring);
    assert_eq!(answers(&proxy, 8), counts([("alive", 8)]));
    let refusals = || proxy.log().lines().filter(|line| line.contains("[error]") && line.contains("refused")).count();
    assert!(eventually(|| refusals() >= 2) && refusals() == 2, "two fails, then nothing:\n{}", proxy.log());
    drop(dead);
    let back = Backend::serve_at(address, |mut wire, _| {
        while wire.try_head().is_some() {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback");
        }
    });
    assert_eq!(answers(&proxy, 2).get("back"), None, "still within its fail_timeout");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !answers(&proxy, 2).contains_key("back") {
        assert!(Instant::now() < deadline, "it never came back");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(back.connections() > 0);
}

fn a_server_that_cannot_be_reached_is_left_after_its_connect_timeout(driver: Driver) {
    let hole = Blackhole::new();
    let backend = Backend::named("alive");
    let proxy = group(&format!("server {}; server {};", hole.address(), backend.address()), driver);
    let started = Instant::now();
    assert_eq!(answers(&proxy, 2), counts([("alive", 2)]));
    assert!(started.elapsed() < Duration::from_secs(8), "proxy_connect_timeout 1s took {:?}", started.elapsed());
    proxy.logged(&["[error]", "connect", "upstream:"]);
}

fn unix_backends_are_served(driver: Driver) {
    let setup = Proxy::config(
        "upstream local { server unix:%dir%/back.sock; }
         server { listen %http%; location / { proxy_pass http://local; } location /direct/ { proxy_pass http://unix:%dir%/back.sock:/uri/; } }",
    )
    .on(driver);
    let path = setup.dir().join("back.sock");
    let _backend = Backend::serve_unix(&path, |wire, _| crate::util::backend::echo(wire));
    let proxy = setup.start();
    assert_eq!(proxy.get("/a").mirrored().target(), "/a");
    assert_eq!(proxy.get("/direct/a").mirrored().target(), "/uri/a");
    if !crate::util::proxy::nginx_stands_in() {
        let mut client = proxy.connect();
        client.websocket("/");
        client.echoes("through a unix socket");
    }
}

#[test]
fn names_resolve_when_the_program_starts() {
    let backend = Backend::named("here");
    let proxy = Proxy::config("server { listen %http%; location / { proxy_pass http://localhost:%port%; } }")
        .set("port", backend.address().port())
        .start();
    // localhost may be ::1 first, where nobody listens: the next address serves.
    assert_eq!(answers(&proxy, 4), counts([("here", 4)]));
}

#[test]
fn a_name_without_an_address_is_named_with_its_place() {
    let finished =
        Proxy::config("server { listen %http%; location / {\n proxy_pass http://no-such-host.invalid:81; } }")
            .run(&["-t"]);
    finished.expect_code(1).expect(&["host not found in upstream", "no-such-host.invalid", "nginx.conf:"]);
}

#[test]
fn proxy_pass_may_choose_a_group_by_variable() {
    let backends = ["one", "two"].map(Backend::named);
    let proxy = Proxy::config(
        "upstream a { server %one%; } upstream b { server %two%; } map $arg_to $group { default a; b b; }
         server { listen %http%; location / { proxy_pass http://$group; } }",
    )
    .set("one", backends[0].address())
    .set("two", backends[1].address())
    .start();
    assert_eq!((proxy.get("/").text().as_str(), proxy.get("/?to=b").text().as_str()), ("one", "two"));
}

#[test]
fn an_upgrade_is_answered_by_the_next_server_when_one_is_too_slow() {
    let silent = Backend::silent();
    let backend = Backend::echo();
    let proxy = group(&format!("server {}; server {};", silent.address(), backend.address()), Driver::IoUring);
    let mut client = proxy.connect();
    let head = client.send(frames::request("/", "x")).head();
    assert_eq!(head.status(), 101, "{}", head.raw);
    client.echoes("from the second");
}
