//! Plain HTTP/1.1 and 1.0 through the proxy: keep-alive, bodies, interim answers, limits and what went wrong.

mod bodies;

use std::time::Duration;

use crate::util::{
    Backend, Driver, Ending, Proxy, Wire, beyond_nginx, eventually, on_both_drivers,
    ports::{Blackhole, Refusing},
};

on_both_drivers![
    a_connection_serves_one_request_after_another,
    pipelined_requests_are_answered_in_order,
    answers_without_a_body_end_where_they_should,
];

fn before(backend: &Backend, driver: Driver) -> Proxy {
    with("", backend, driver)
}

/// One server on `%http%` before `backend`, with more directives in its location.
fn with(directives: &str, backend: &Backend, driver: Driver) -> Proxy {
    let text = format!(
        "server {{ listen %http%; location / {{ proxy_pass http://%backend%; proxy_http_version 1.1; {directives} }} }}"
    );
    Proxy::config(&text).set("backend", backend.address()).on(driver).start()
}

/// A backend that answers every request with `answer`.
fn fixed(answer: impl Into<Vec<u8>>) -> Backend {
    let answer = answer.into();
    Backend::http(move |_, _| answer.clone())
}

fn a_connection_serves_one_request_after_another(driver: Driver) {
    let backend = Backend::mirror();
    let proxy = before(&backend, driver);
    let mut client = proxy.connect();
    for target in ["/1", "/2?q", "/3", "/4"] {
        assert_eq!(client.get(target).mirrored().target(), target);
    }
    let last = client.ask("GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(last.mirrored().target(), "/last");
    client.expect_gone();
}

fn pipelined_requests_are_answered_in_order(driver: Driver) {
    let backend = Backend::mirror();
    let proxy = before(&backend, driver);
    let mut client = proxy.connect();
    let requests: String = (0..6)
        .map(|n| match n {
            3 => "POST /3 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
            4 => "POST /4 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
            n => format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n"),
        })
        .collect();
    client.send(requests);
    for number in 0..6 {
        let response = client.response();
        assert_eq!(response.mirrored().target(), format!("/{number}"));
        assert_eq!(response.get("x-body-length"), Some(if matches!(number, 3 | 4) { "5" } else { "0" }));
    }
    client.finish().expect_gone();
}

fn answers_without_a_body_end_where_they_should(driver: Driver) {
    let backend = Backend::http(|head, _| {
        match head.target() {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"a\"\r\n\r\n",
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
            "/head-chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        }
        .into()
    });
    let proxy = before(&backend, driver);
    let mut client = proxy.connect();
    assert_eq!(client.get("/204").status(), 204);
    assert_eq!(client.get("/304").get("etag"), Some("\"a\""));
    let head = client.send("HEAD /head HTTP/1.1\r\nHost: x\r\n\r\n").response_to_head();
    assert_eq!((head.status(), head.get("content-length")), (200, Some("1000")), "the length a GET would have");
    assert_eq!(client.send("HEAD /head-chunked HTTP/1.1\r\nHost: x\r\n\r\n").response_to_head().status(), 200);
    assert_eq!(client.get("/empty").body, b"");
    assert_eq!(client.get("/204").status(), 204, "and the connection is still in step");
}

#[test]
fn a_http_1_0_client_gets_no_chunks_and_a_closed_connection() {
    let backend = fixed("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status(), head.get("transfer-encoding")), (200, None), "{}", head.raw);
    assert_eq!(client.rest(), b"hello");
}

#[test]
fn a_http_1_0_client_may_ask_for_keep_alive() {
    let backend = fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    for _ in 0..2 {
        let response = client.ask("GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(response.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("keep-alive"));
    }
}

#[test]
fn a_response_of_unknown_length_keeps_the_clients_connection_by_chunks() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nX: 1\r\n\r\nuntil the end");
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    assert_eq!(client.get("/").text(), "until the end");
}

#[test]
fn keepalive_requests_and_its_timeout_end_a_connection() {
    let backend = Backend::mirror();
    let proxy = with("keepalive_requests 2; keepalive_timeout 1s;", &backend, Driver::Epoll);
    let mut client = proxy.connect();
    assert_ne!(client.get("/1").get("connection"), Some("close"));
    assert_eq!(client.get("/2").get("connection"), Some("close"));
    client.expect_gone();
    let mut idle = proxy.connect();
    idle.get("/1");
    idle.patience(Duration::from_secs(8)).expect_gone();
}

#[test]
fn keepalive_timeout_0_closes_after_every_answer() {
    let backend = Backend::mirror();
    let proxy = with("keepalive_timeout 0;", &backend, Driver::Epoll);
    let mut client = proxy.connect();
    assert_eq!(client.get("/").get("connection"), Some("close"));
    client.expect_gone();
}

#[test]
fn an_idle_connection_without_a_request_is_closed_in_silence() {
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        "client_header_timeout 1s; server { listen %http%; location / { proxy_pass http://%backend%; } }",
    )
    .set("backend", backend.address())
    .start();
    let mut client = proxy.connect();
    let (bytes, ending) = client.patience(Duration::from_secs(8)).ending();
    assert_ne!(ending, Ending::Open);
    assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&bytes));
}

#[test]
fn a_backend_that_refuses_is_a_502() {
    let dead = Refusing::new();
    let proxy = Proxy::config("server { listen %http%; location / { proxy_pass http://%dead%; } }")
        .set("dead", dead.address())
        .start();
    let response = proxy.get("/");
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("502"), "a small page");
    assert_eq!(response.get("content-type"), Some("text/html"));
    proxy.logged(&["[error]", "refused", "client: 127.0.0.1", "upstream: \"http://", "GET / HTTP/1.1"]);
}

#[test]
fn a_backend_that_cannot_be_reached_in_time_is_a_504() {
    let hole = Blackhole::new();
    let proxy =
        Proxy::config("server { listen %http%; location / { proxy_pass http://%hole%; proxy_connect_timeout 1s; } }")
            .set("hole", hole.address())
            .start();
    assert_eq!(proxy.get("/").status(), 504);
    proxy.logged(&["[error]", "connect", "upstream:"]);
}

#[test]
fn a_backend_that_does_not_answer_in_time_is_a_504() {
    let backend = Backend::silent();
    let proxy = with("proxy_read_timeout 1s;", &backend, Driver::Epoll);
    assert_eq!(proxy.get("/").status(), 504);
    proxy.logged(&["[error]", "upstream:", "GET / HTTP/1.1"]);
}

#[test]
fn a_backend_that_closes_without_an_answer_is_a_502() {
    let backend = Backend::serve(|mut wire, _| drop(wire.try_head()));
    let proxy = before(&backend, Driver::Epoll);
    assert_eq!(proxy.get("/").status(), 502);
}

#[test]
fn a_client_that_leaves_before_its_answer_is_a_499_in_the_log() {
    let backend = Backend::silent();
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("GET /left HTTP/1.1\r\nHost: x\r\n\r\n");
    backend.wait_received(0, 10);
    drop(client);
    proxy.written("access.log", &["GET /left", " 499 "]);
}

#[test]
fn the_backend_is_left_when_its_client_has_gone() {
    let backend = Backend::silent();
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    backend.wait_received(0, 10);
    let open = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let port = format!(":{:04X} ", backend.address().port());
        // 01: ESTABLISHED
        table.lines().filter(|line| line.contains(&port) && line.contains(" 01 ")).count()
    };
    assert!(open() > 0);
    drop(client);
    assert!(eventually(|| open() == 0), "the connection to the backend is still there");
}

#[test]
fn the_backends_own_fields_pass_and_hop_by_hop_ones_do_not() {
    let backend = fixed(
        "HTTP/1.1 200 Fine By Me\r\nServer: theirs/1\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
         X-Custom: kept\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    );
    let proxy = before(&backend, Driver::Epoll);
    let response = proxy.get("/");
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(response.get("x-custom"), Some("kept"));
    if !crate::util::proxy::nginx_stands_in() {
        assert_eq!(response.get("server"), Some("theirs/1"), "left alone");
        assert_eq!(response.get("date"), Some("Mon, 01 Jan 2024 00:00:00 GMT"), "left alone");
        assert_eq!(response.get("keep-alive"), None);
    }
}

#[test]
fn unix_listeners_serve_too() {
    let backend = Backend::mirror();
    let proxy = Proxy::config("server { listen unix:%dir%/front.sock; listen %http%; location / { proxy_pass http://%backend%; proxy_set_header X-From $remote_addr; } }")
        .set("backend", backend.address())
        .start();
    let mut client = Wire::connect_unix(&proxy.dir().join("front.sock"));
    assert_eq!(client.get("/").mirrored().get("x-from"), Some("unix:"));
}

#[test]
fn ipv6_listeners_serve_too() {
    let port = crate::util::ports::free();
    let backend = Backend::mirror();
    let proxy = Proxy::config("server { listen %http%; listen [::1]:%port%; location / { proxy_pass http://%backend%; proxy_set_header X-From $remote_addr; } }")
        .set("backend", backend.address())
        .set("port", port)
        .start();
    let mut client = Wire::connect(format!("[::1]:{port}").parse().expect("an address"));
    assert_eq!(client.get("/").mirrored().get("x-from"), Some("::1"));
    drop(proxy);
}

#[test]
fn connections_survive_error_pages() {
    let dead = Refusing::new();
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        "server { listen %http%; location / { proxy_pass http://%backend%; } location /404 { return 404; } location /dead { proxy_pass http://%dead%; } }",
    )
    .set("dead", dead.address())
    .set("backend", backend.address())
    .start();
    let mut client = proxy.connect();
    assert_eq!(client.get("/404").status(), 404);
    assert_eq!(client.ask("POST /404 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").status(), 404);
    assert_eq!(client.send("HEAD /404 HTTP/1.1\r\nHost: x\r\n\r\n").response_to_head().status(), 404);
    assert_eq!(client.get("/dead").status(), 502);
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn a_page_says_what_a_client_did_wrong_and_nothing_of_what_went_wrong_behind() {
    beyond_nginx!();
    let dead = Refusing::new();
    let proxy = Proxy::config(
        "server { listen %http%; location / { proxy_pass http://%dead%; } location /403 { return 403; } }",
    )
    .set("dead", dead.address())
    .start();
    let hosts = proxy.connect().ask("GET /secret HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n").text();
    assert!(hosts.contains("more than one Host field") && !hosts.contains("secret"), "{hosts}");
    for (target, status) in [("/", "502 Bad Gateway"), ("/403", "403 Forbidden")] {
        let page = proxy.get(target).text();
        assert_eq!(page.matches("<center>").count(), 2, "its title and our name alone: {page}");
        assert!(page.contains(status), "{page}");
    }
}

#[test]
fn a_connection_that_is_to_be_closed_without_an_answer_is() {
    let proxy = Proxy::config("server { listen %http%; location / { return 444; } location /e { error_page 404 =444 @x; return 404; } location @x { return 200 x; } }").start();
    let mut client = proxy.connect();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect_gone();
}

#[test]
fn an_asterisk_goes_on_as_it_is() {
    beyond_nginx!(); // which refuses it
    let backend = Backend::mirror();
    let proxy = with("proxy_set_header X-Uri $request_uri;", &backend, Driver::Epoll);
    let head = proxy.connect().ask("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").mirrored();
    assert_eq!((head.line.as_str(), head.get("x-uri")), ("OPTIONS * HTTP/1.1", Some("*")));
}

#[test]
fn an_absolute_target_without_a_path_has_one() {
    beyond_nginx!(); // which asks its backend for `?y`
    let backend = Backend::mirror();
    let proxy = with("proxy_set_header X-Uri $request_uri;", &backend, Driver::Epoll);
    let head = proxy.connect().ask("GET http://x?y HTTP/1.1\r\nHost: x\r\n\r\n").mirrored();
    assert_eq!((head.target(), head.get("x-uri")), ("/?y", Some("/?y")));
}
