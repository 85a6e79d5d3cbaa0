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
        Driver::Epoll,
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
    assert_eq!(answers(&group(&servers, Driver::Epoll), 6), counts([("up", 6)]));
    let dead = Refusing::new();
    let servers = format!("server {}; server {} backup;", dead.address(), backup.address());
    assert_eq!(answers(&group(&servers, Driver::Epoll), 6), counts([("backup", 6)]));
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
    let proxy = group(&format!("server {}; server {};", dead.address(), backend.address()), Driver::Epoll);
    for _ in 0..4 {
        let mut client = proxy.tunnel("/");
        client.echoes("hello");
    }
}

#[test]
fn a_server_that_closes_without_an_answer_is_stepped_over_for_what_may_be_repeated() {
    let closing = Backend::serve(|mut wire, _| drop(wire.try_head()));
    let backend = Backend::named("alive");
    let servers = format!("server {} max_fails=0; server {};", closing.address(), backend.address());
    let proxy = group(&servers, Driver::Epoll);
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
    let proxy = group(&format!("server {}; server {};", dead[0].address(), dead[1].address()), Driver::Epoll);
    assert_eq!(answers(&proxy, 3), counts([("502", 3)]));
    proxy.logged(&["[error]", "no live upstreams"]);
}

#[test]
fn a_server_that_failed_is_left_alone_for_its_fail_timeout_and_comes_back() {
    let dead = Refusing::new();
    let address = dead.address();
    let backend = Backend::named("alive");
    let proxy =
        group(&format!("server {address} max_fails=2 fail_timeout=2s; server {};", backend.address()), Driver::Epoll);
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
        let mut client = proxy.tunnel("/");
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
    let proxy = group(&format!("server {}; server {};", silent.address(), backend.address()), Driver::Epoll);
    let mut client = proxy.connect();
    let head = client.send(frames::request("/", "x")).head();
    assert_eq!(head.status(), 101, "{}", head.raw);
    client.echoes("from the second");
}

#[test]
fn an_upgrade_whose_backend_closes_before_its_answer_goes_to_the_next() {
    let closing = Backend::serve(|mut wire, _| drop(wire.try_head()));
    let backend = Backend::echo();
    let proxy =
        group(&format!("server {} max_fails=0; server {};", closing.address(), backend.address()), Driver::Epoll);
    for _ in 0..4 {
        let mut client = proxy.tunnel("/");
        client.echoes("hello");
    }
    assert_eq!(closing.connections(), 2);
}

/// A group of a server that answers with `status` and a body of its own, and one that lives.
fn beside(status: &str, next_upstream: &str) -> (Proxy, Backend, Backend) {
    let failing = Backend::http({
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\n\r\ntheirs");
        move |_, _| answer.clone().into_bytes()
    });
    let backend = Backend::named("alive");
    let text = GROUP
        .replace("%servers%", &format!("server {}; server {};", failing.address(), backend.address()))
        .replace("proxy_connect_timeout", &format!("{next_upstream} proxy_connect_timeout"));
    (Proxy::config(&text).main("worker_processes 1;").start(), failing, backend)
}

const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";

#[test]
fn an_answer_to_a_post_is_kept_where_it_may_not_be_asked_for_twice() {
    let (proxy, _failing, _backend) = beside("503 Oops", "proxy_next_upstream http_503;");
    let mut texts = [proxy.connect().ask(POST).text(), proxy.connect().ask(POST).text()];
    texts.sort_unstable();
    assert_eq!(texts, ["alive", "theirs"], "the backend's own answer, not a page of ours");
    let (proxy, _failing, _backend) = beside("503 Oops", "proxy_next_upstream http_503 non_idempotent;");
    let texts = [proxy.connect().ask(POST).text(), proxy.connect().ask(POST).text()];
    assert_eq!(texts, ["alive", "alive"]);
}

#[test]
fn a_404_is_no_failure_of_its_server() {
    let (proxy, failing, _backend) = beside("404 Elsewhere", "proxy_next_upstream http_404;");
    assert_eq!(answers(&proxy, 6), counts([("alive", 6)]));
    assert_eq!(failing.connections(), 3, "it is asked again and again");
    let (proxy, failing, _backend) = beside("500 Oops", "proxy_next_upstream http_500;");
    assert_eq!(answers(&proxy, 6), counts([("alive", 6)]));
    assert_eq!(failing.connections(), 1, "it is out for its fail_timeout");
}

#[test]
fn proxy_next_upstream_tries_and_timeout_bound_the_round() {
    let closing: Vec<Backend> = (0..3).map(|_| Backend::serve(|mut wire, _| drop(wire.try_head()))).collect();
    let slow = Backend::serve(|mut wire, _| {
        wire.try_head();
        thread::sleep(Duration::from_millis(1500));
    });
    let asked = || closing.iter().map(Backend::connections).sum::<usize>();
    let servers: String = closing.iter().map(|backend| format!("server {} max_fails=0;", backend.address())).collect();
    let text = GROUP.replace("%servers%", &servers);
    let tries = text.replace("proxy_connect_timeout", "proxy_next_upstream_tries 2; proxy_connect_timeout");
    let proxy = Proxy::config(&tries).start();
    assert_eq!((proxy.get("/").status(), asked()), (502, 2));
    let text = GROUP.replace("%servers%", &format!("server {}; {servers}", slow.address()));
    let timeout = text.replace("proxy_connect_timeout", "proxy_next_upstream_timeout 1s; proxy_connect_timeout");
    let proxy = Proxy::config(&timeout).main("worker_processes 1;").start();
    assert_eq!((proxy.get("/").status(), asked()), (502, 2), "the round was over");
}

#[test]
fn a_body_that_was_begun_is_never_sent_to_another() {
    let (sender, heads) = std::sync::mpsc::channel();
    let closing = Backend::serve(move |mut wire, _| {
        wire.head();
        let _ = sender.send(());
        thread::sleep(Duration::from_millis(500));
    });
    let backend = Backend::mirror();
    let proxy = group(
        &format!("server {} max_fails=0; server {} backup;", closing.address(), backend.address()),
        Driver::Epoll,
    );
    for begun in ["5\r\nhe", "5\r\n", "5"] {
        if crate::util::proxy::nginx_stands_in() {
            return;
        }
        let mut client = proxy.connect();
        client.send(format!("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{begun}"));
        heads.recv_timeout(crate::util::PATIENCE).expect("the request");
        assert_eq!(client.response().status(), 502, "{begun:?}");
    }
    assert_eq!(backend.connections(), 0);
}

const TRIED: &str = "log_format tried '$uri $status [$upstream_addr] [$upstream_status] [$upstream_connect_time] [$upstream_header_time] [$upstream_response_time]';";

#[test]
fn every_backend_tried_is_in_the_log() {
    let dead = [Refusing::new(), Refusing::new()];
    let backend = Backend::named("alive");
    let text = format!(
        "{TRIED} upstream some {{ server {0} max_fails=0; server {2} backup; }} upstream none {{ server {0}; server {1}; }}
         server {{ listen %http%; access_log %dir%/tried.log tried; location / {{ proxy_pass http://some; }} location /none {{ proxy_pass http://none; }}
           location /page {{ proxy_pass http://{0}; error_page 502 = @page; }} location @page {{ proxy_pass http://some; }} }}",
        dead[0].address(),
        dead[1].address(),
        backend.address()
    );
    let proxy = Proxy::config(&text).main("worker_processes 1;").start();
    let (one, two, alive) = (dead[0].address(), dead[1].address(), backend.address());
    let times = |line: &str| {
        let time = regex::Regex::new(r"\d+\.\d{3}").expect("a pattern");
        time.replace_all(line, "T").into_owned()
    };
    let line = |target: &str| {
        proxy.get(target);
        times(&proxy.written("tried.log", &[&format!("{target} ")]))
    };
    assert_eq!(line("/some"), format!("/some 200 [{one}, {alive}] [502, 200] [-, T] [-, T] [T, T]"));
    assert_eq!(line("/none"), format!("/none 502 [{one}, {two}] [502, 502] [-, -] [-, -] [T, T]"));
    assert_eq!(proxy.get("/none?again").status(), 502);
    let again = times(&proxy.written("tried.log", &["/none ", "[none]"]));
    assert_eq!(again, "/none 502 [none] [502] [-] [-] [T]", "the group where no address was chosen");
    assert_eq!(
        line("/page"),
        format!("/page 200 [{one} : {one}, {alive}] [502 : 502, 200] [- : -, T] [- : -, T] [T : T, T]")
    );
}

#[test]
fn proxy_pass_by_variable_may_name_an_address_or_a_socket_and_no_host() {
    let setup = Proxy::config(
        "server { listen %http%; location / { set $to %backend%; proxy_pass http://$to; }
           location /unix/ { set $to unix:%dir%/back.sock; proxy_pass http://$to:$request_uri; }
           location /host { set $to no-such.example; proxy_pass http://$to; } }",
    );
    let backend = Backend::named("by address");
    let path = setup.dir().join("back.sock");
    let _local = Backend::serve_unix(&path, |wire, _| crate::util::backend::echo(wire));
    let proxy = setup.set("backend", backend.address()).start();
    assert_eq!(proxy.get("/").text(), "by address");
    assert_eq!(proxy.get("/unix/a").mirrored().target(), "/unix/a");
    assert_eq!(proxy.get("/host").status(), 502);
    proxy.logged(&["[error]", "no resolver defined to resolve no-such.example"]);
}
