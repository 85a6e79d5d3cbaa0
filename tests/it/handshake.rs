//! The rules of a request head, of an upgrade and of its answer, with real bytes: what is refused never reaches a backend.

use std::{sync::mpsc, thread, time::Duration};

use crate::util::{
    Backend, Driver, Ending, PATIENCE, Proxy, Response, Wire, beyond_nginx, eventually,
    frames::{self, KEY},
    on_both_drivers,
};

on_both_drivers![
    bad_request_heads_are_refused,
    unusual_request_heads_are_served,
    bad_upgrades_are_refused,
    valid_upgrades_are_forwarded_whatever_their_spelling,
    an_upgrade_is_forwarded_where_the_file_says_nothing_of_it,
    wrong_answers_to_an_upgrade_are_502,
    a_first_frame_that_no_client_may_send_ends_the_tunnel,
];

/// One server before `backend`, with room for heads as nginx has by default.
fn before(backend: &Backend, driver: Driver) -> Proxy {
    Proxy::config("server { listen %http%; location / { proxy_pass http://%backend%; } }")
        .set("backend", backend.address())
        .on(driver)
        .start()
}

/// Sends `request` and, behind it, one that must not be taken for a second request.
fn refused(proxy: &Proxy, request: &str) -> (Option<Response>, Ending) {
    let mut client = proxy.connect();
    client.patience(Duration::from_secs(5));
    let _ = client.try_send(request);
    let Some(head) = client.try_head() else { return (None, client.ending().1) };
    let body = match head.get("content-length") {
        Some(length) => client.exactly(length.parse().expect("a length")),
        None => Vec::new(),
    };
    let (rest, ending) = client.ending();
    assert!(rest.is_empty(), "a second answer: {:?}", String::from_utf8_lossy(&rest));
    (Some(Response { head, body }), ending)
}

/// Every request gets its status, the connection closes, and the backend never hears of it.
fn expect_refusals(cases: &[(&str, u16, String)], driver: Driver) {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = before(&backend, driver);
    let mut wrong = Vec::new();
    for (name, status, request) in cases {
        let (response, ending) = refused(&proxy, request);
        let got = response.as_ref().map(Response::status);
        if got != Some(*status) || ending == Ending::Open {
            wrong.push(format!("{name}: {got:?} and {ending:?} instead of {status}"));
        }
        if !backend.received_at_all().is_empty() {
            wrong.push(format!("{name}: the backend saw {:?}", String::from_utf8_lossy(&backend.received_at_all())));
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    proxy.logged(&["client: 127.0.0.1"]);
    assert_eq!(proxy.get("/after").status(), 200, "the proxy still serves");
}

/// A GET with these field lines, and a request behind it.
fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// A POST with these field lines and body.
fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}")
}

/// A whole request with this first line.
fn line(line: &str) -> String {
    format!("{line}\r\nHost: x\r\n\r\n")
}

/// A request that has these lines for its Host.
fn hosts(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\n{lines}\r\n")
}

fn bad_request_heads_are_refused(driver: Driver) {
    let many: String = (0..120).map(|n| format!("X-{n}: 1\r\n")).collect();
    let cases = [
        // request line
        ("no method", 400, line(" / HTTP/1.1")),
        ("method with a space before", 400, line(" GET / HTTP/1.1")),
        ("method that is no token", 400, line("G@T / HTTP/1.1")),
        ("two spaces", 400, line("GET  / HTTP/1.1")),
        ("space in the target", 400, line("GET /a b HTTP/1.1")),
        ("tab in the request line", 400, line("GET\t/ HTTP/1.1")),
        ("tab in the target", 400, line("GET /\ta HTTP/1.1")),
        ("fragment", 400, line("GET /a#b HTTP/1.1")),
        ("control in the target", 400, line("GET /\u{1} HTTP/1.1")),
        ("high byte in the target", 400, line("GET /\u{e9} HTTP/1.1")),
        ("asterisk for a GET", 400, line("GET * HTTP/1.1")),
        ("target without a slash", 400, line("GET a HTTP/1.1")),
        ("NUL, escaped", 400, line("GET /%00 HTTP/1.1")),
        ("escape that is none", 400, line("GET /%zz HTTP/1.1")),
        ("climbing out", 400, line("GET /../etc HTTP/1.1")),
        ("climbing out, escaped", 400, line("GET /a/%2e%2e%2f%2e%2e%2fetc HTTP/1.1")),
        ("absolute form of another host", 400, line("GET http://y/ HTTP/1.1")),
        ("version 2.0", 505, line("GET / HTTP/2.0")),
        ("version 1.2", 505, line("GET / HTTP/1.2")),
        ("line too long", 414, line(&format!("GET /{} HTTP/1.1", "a".repeat(9000)))),
        // Host
        ("no Host", 400, hosts("")),
        ("two Hosts", 400, hosts("Host: x\r\nHost: y\r\n")),
        ("twice the same Host", 400, hosts("Host: x\r\nHost: x\r\n")),
        ("empty Host", 400, hosts("Host:\r\n")),
        ("userinfo in Host", 400, hosts("Host: a@x\r\n")),
        ("path in Host", 400, hosts("Host: x/a\r\n")),
        ("space in Host", 400, hosts("Host: x y\r\n")),
        ("port out of range", 400, hosts("Host: x:65536\r\n")),
        ("port that is none", 400, hosts("Host: x:8o\r\n")),
        ("two names", 400, hosts("Host: x, y\r\n")),
        // fields
        ("empty name", 400, get(": 1\r\n")),
        ("space before the colon", 400, get("X : 1\r\n")),
        ("tab before the colon", 400, get("X\t: 1\r\n")),
        ("name that is no token", 400, get("X(: 1\r\n")),
        ("no colon", 400, get("nothing\r\n")),
        ("folded line", 400, get("X: 1\r\n 2\r\n")),
        ("folded first line", 400, format!("GET / HTTP/1.1\r\n X: 1\r\n{}", hosts("Host: x\r\n"))),
        ("NUL in a value", 400, get("X: a\0b\r\n")),
        ("bare CR in a value", 400, get("X: a\rb\r\n")),
        ("control in a value", 400, get("X: a\u{7}b\r\n")),
        ("DEL in a value", 400, get("X: a\u{7f}b\r\n")),
        ("field too long", 431, get(&format!("X: {}\r\n", "a".repeat(9000)))),
        ("head too large", 431, get(&format!("X: {}\r\n", "a".repeat(7000)).repeat(8))),
        ("too many fields", 431, get(&many)),
        // framing
        ("two lengths that differ", 400, post("Content-Length: 1\r\nContent-Length: 2\r\n", "ab")),
        ("list of lengths", 400, post("Content-Length: 1, 2\r\n", "ab")),
        ("length with a plus", 400, post("Content-Length: +1\r\n", "a")),
        ("negative length", 400, post("Content-Length: -1\r\n", "a")),
        ("hexadecimal length", 400, post("Content-Length: 0x1\r\n", "a")),
        ("empty length", 400, post("Content-Length:\r\n", "a")),
        ("length beyond 64 bits", 400, post("Content-Length: 18446744073709551617\r\n", "a")),
        ("length and chunked", 400, post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("chunked and length", 400, post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")),
        ("chunked with a space before the colon", 400, post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        ("chunked twice", 400, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("chunked, chunked", 400, post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")),
        ("another coding", 501, post("Transfer-Encoding: gzip\r\n", "a")),
        ("another coding before chunked", 501, post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n")),
        ("xchunked", 501, post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        ("chunked in 1.0", 400, "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
    ];
    expect_refusals(&cases, driver);
}

fn unusual_request_heads_are_served(driver: Driver) {
    let backend = Backend::mirror();
    let proxy = before(&backend, driver);
    let saw = |request: &str| {
        let response = proxy.connect().ask(request);
        assert_eq!(response.status(), 200, "{request:?}: {response:?}");
        response.mirrored()
    };
    let plain = saw("GET /a%20b?c=%41 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(plain.target(), "/a%20b?c=%41", "what is forwarded is what was sent");
    let bare = saw("GET / HTTP/1.1\nHost: x\nX: 1\n\n");
    assert!(!bare.raw.replace("\r\n", "").contains(['\r', '\n']), "bare LF goes on as CRLF: {:?}", bare.raw);
    assert_eq!(bare.get("x"), Some("1"));
    assert_eq!(saw("\r\nGET /line HTTP/1.1\r\nHost: x\r\n\r\n").target(), "/line");
    assert_eq!(saw("GET http://x/abs HTTP/1.1\r\nHost: x\r\n\r\n").target(), "/abs");
    assert_eq!(
        saw("GET / HTTP/1.1\r\nHost: x\r\nX_Real_IP: 6.6.6.6\r\n\r\n").get("x_real_ip"),
        None,
        "alias of X-Real-IP"
    );
    assert_eq!(saw("GET / HTTP/1.1\r\nhOST: x\r\nX-A:1\r\nX-B: \t2 \t\r\nX-C:\r\n\r\n").get("x-b"), Some("2"));
    let nominated = saw(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close, X-Hop, Host, X-Real-IP\r\nX-Hop: 1\r\nX-Real-IP: 9\r\n\r\n",
    );
    assert_eq!(nominated.all("host").len(), 1, "Host cannot be nominated away");
    assert_eq!(saw("OPTIONS /o HTTP/1.1\r\nHost: x\r\n\r\n").method(), "OPTIONS");
    assert_eq!(saw("PURGE /p HTTP/1.1\r\nHost: x\r\n\r\n").method(), "PURGE", "methods go on as they came");
    let hop = ["connection", "keep-alive", "te", "proxy-connection", "upgrade", "http2-settings"];
    let stripped =
        saw("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings, keep-alive\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\r\n");
    if !crate::util::proxy::nginx_stands_in() {
        for name in &hop[1..] {
            assert_eq!(stripped.get(name), None, "hop-by-hop, or h2c: {}", stripped.raw);
        }
        assert!(!stripped.raw.to_ascii_lowercase().contains("h2c"), "{}", stripped.raw);
        assert_eq!(nominated.get("x-hop"), None, "nominated by Connection: {}", nominated.raw);
    }
}

/// An upgrade request with these lines in place of the usual ones.
fn upgrade(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

fn bad_upgrades_are_refused(driver: Driver) {
    let usual = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let version = "Sec-WebSocket-Version: 13\r\n";
    let cases = [
        ("no key", 400, upgrade(&format!("{usual}{version}"))),
        ("two keys", 400, upgrade(&format!("{usual}{key}{key}{version}"))),
        ("short key", 400, upgrade(&format!("{usual}Sec-WebSocket-Key: c2hvcnQ=\r\n{version}"))),
        (
            "key that is no base64",
            400,
            upgrade(&format!("{usual}Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\n{version}")),
        ),
        ("two Upgrade lines", 400, upgrade(&format!("{usual}Upgrade: websocket\r\n{key}{version}"))),
        ("no version", 426, upgrade(&format!("{usual}{key}"))),
        ("version 8", 426, upgrade(&format!("{usual}{key}Sec-WebSocket-Version: 8\r\n"))),
        ("two versions", 426, upgrade(&format!("{usual}{key}{version}Sec-WebSocket-Version: 8\r\n"))),
        ("body by length", 400, upgrade(&format!("{usual}{key}{version}Content-Length: 5\r\n")) + "hello"),
        ("body of no bytes", 400, upgrade(&format!("{usual}{key}{version}Content-Length: 0\r\n"))),
        ("chunked body", 400, upgrade(&format!("{usual}{key}{version}Transfer-Encoding: chunked\r\n")) + "0\r\n\r\n"),
        ("POST", 400, upgrade(&format!("{usual}{key}{version}")).replace("GET", "POST")),
    ];
    expect_refusals(&cases, driver);
}

fn valid_upgrades_are_forwarded_whatever_their_spelling(driver: Driver) {
    let backend = Backend::echo();
    let proxy = Proxy::before(backend.address(), driver);
    let rest = format!("Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n");
    let spellings = [
        "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n", // Firefox
        "upgrade: WebSocket\r\nconnection: UPGRADE\r\n",
        "Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        "Connection: ,upgrade ,\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: chat, superchat\r\nOrigin: http://x\r\n",
    ];
    for spelling in spellings {
        if crate::util::proxy::nginx_stands_in() && spelling.contains("Connection: keep-alive\r\nConnection") {
            continue;
        }
        let mut client = proxy.connect();
        client.send(upgrade(&format!("{spelling}{rest}")));
        assert_eq!(client.head().status(), 101, "{spelling:?}");
        client.echoes("hello");
    }
}

fn an_upgrade_is_forwarded_where_the_file_says_nothing_of_it(driver: Driver) {
    beyond_nginx!();
    let (sender, heads) = mpsc::channel();
    let backend = Backend::serve(move |mut wire, _| {
        let _ = sender.send(wire.accept_websocket());
        drop(wire.ending());
    });
    let proxy = before(&backend, driver);
    let mut client = proxy.connect();
    client.send(frames::request("/chat?room=1", "site.example").replace(
        "Upgrade: websocket\r\n",
        "Upgrade: h2c, websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: a, b\r\n",
    ));
    assert_eq!(client.head().status(), 101);
    let head = heads.recv_timeout(PATIENCE).expect("the backend's view");
    assert_eq!(head.line, "GET /chat?room=1 HTTP/1.1");
    assert_eq!(head.get("upgrade"), Some("websocket"), "only the token that may become a tunnel: {}", head.raw);
    assert!(head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{}", head.raw);
    assert_eq!(head.get("sec-websocket-key"), Some(KEY));
    assert_eq!(head.get("sec-websocket-version"), Some("13"));
    assert_eq!(head.get("sec-websocket-extensions"), Some("permessage-deflate"));
    assert_eq!(head.get("sec-websocket-protocol"), Some("a, b"));
}

#[test]
fn an_upgrade_without_its_connection_token_is_plain_http() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = before(&backend, Driver::Epoll);
    let head = proxy.connect().ask(upgrade(&format!("Upgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n"))).mirrored();
    assert_eq!(head.get("upgrade"), None, "{}", head.raw);
    assert_ne!(head.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"), "{}", head.raw);
}

#[test]
fn a_plain_request_never_carries_a_constant_connection_upgrade() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        r#"server { listen %http%; location / {
            proxy_pass http://%backend%; proxy_set_header Connection "upgrade"; proxy_set_header Upgrade $http_upgrade; } }"#,
    )
    .set("backend", backend.address())
    .start();
    let head = proxy.get("/").mirrored();
    assert!(!head.raw.to_ascii_lowercase().contains("upgrade"), "{}", head.raw);
}

#[test]
fn an_upgrade_to_another_protocol_goes_on_as_plain_http() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = before(&backend, Driver::Epoll);
    let head = proxy.connect().ask(upgrade("Upgrade: tls/1.0\r\nConnection: Upgrade\r\n")).mirrored();
    assert_eq!(head.get("upgrade"), None, "{}", head.raw);
}

#[test]
fn upgrade_protocols_any_makes_an_opaque_tunnel() {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat/2\r\nConnection: upgrade\r\n\r\n");
        let bytes = wire.exactly(3);
        wire.send(bytes).finish();
        drop(wire.ending());
    });
    let proxy = Proxy::in_location("upgrade_protocols any;", backend.address(), Driver::Epoll);
    let mut client = proxy.connect();
    client.send(upgrade("Upgrade: chat/2\r\nConnection: Upgrade\r\n"));
    assert_eq!(client.head().status(), 101);
    client.send([0, 1, 2]);
    assert_eq!(client.rest(), [0, 1, 2], "bytes that are no frames");
}

#[test]
fn a_version_refused_is_told_which_one_is_spoken() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = before(&backend, Driver::Epoll);
    let request = frames::request("/", "x").replace("Version: 13", "Version: 8");
    assert_eq!(proxy.connect().ask(request).get("sec-websocket-version"), Some("13"));
}

fn wrong_answers_to_an_upgrade_are_502(driver: Driver) {
    beyond_nginx!();
    const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\n";
    let accept = format!("Sec-WebSocket-Accept: {}\r\n", frames::ACCEPT);
    let answers = [
        (
            "wrong accept",
            format!(
                "{SWITCH}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"
            ),
        ),
        ("no accept", format!("{SWITCH}Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n")),
        ("two accepts", format!("{SWITCH}Upgrade: websocket\r\nConnection: Upgrade\r\n{accept}{accept}\r\n")),
        ("no Upgrade", format!("{SWITCH}Connection: Upgrade\r\n{accept}\r\n")),
        ("another protocol", format!("{SWITCH}Upgrade: h2c\r\nConnection: Upgrade\r\n{accept}\r\n")),
        ("no Connection", format!("{SWITCH}Upgrade: websocket\r\n{accept}\r\n")),
    ];
    for (name, answer) in answers {
        let backend = Backend::answering(answer);
        let proxy = Proxy::before(backend.address(), driver);
        let mut client = proxy.connect();
        assert_eq!(client.upgrade("/").status(), 502, "{name}");
        client.patience(Duration::from_secs(5));
        assert_ne!(client.ending().1, Ending::Open, "{name}: the connection closes");
        proxy.logged(&["[error]", "client: 127.0.0.1", "upstream:"]);
    }
}

#[test]
fn a_101_that_nobody_asked_for_is_a_502() {
    beyond_nginx!();
    let backend = Backend::answering(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nHTTP/1.1 200 OK\r\n\r\nsmuggled",
    );
    let proxy = before(&backend, Driver::Epoll);
    let mut client = proxy.connect();
    let response = client.get("/");
    assert_eq!(response.status(), 502);
    assert!(!response.text().contains("smuggled"));
    client.expect_gone();
}

#[test]
fn an_upgrade_that_the_backend_declines_is_plain_http() {
    let backend =
        Backend::http(|_, _| b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\nX-Why: origin\r\n\r\nnope".to_vec());
    let proxy = Proxy::before(backend.address(), Driver::Epoll);
    let mut client = proxy.connect();
    client.send(frames::request("/", "x"));
    let response = client.response();
    assert_eq!((response.status(), response.get("x-why"), response.text().as_str()), (403, Some("origin"), "nope"));
}

fn a_first_frame_that_no_client_may_send_ends_the_tunnel(driver: Driver) {
    beyond_nginx!();
    let cases = [
        ("unmasked", frames::raw(0x81, false, "GET /smuggled")),
        ("RSV1 without an extension", frames::raw(0xc1, true, "x")),
        ("RSV2", frames::raw(0xa1, true, "x")),
        ("RSV3", frames::raw(0x91, true, "x")),
        ("unknown opcode 3", frames::raw(0x83, true, "x")),
        ("unknown opcode 11", frames::raw(0x8b, true, "x")),
        ("plain HTTP", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    let (sender, backends) = mpsc::channel();
    let backend = Backend::serve(move |mut wire, _| {
        wire.accept_websocket();
        let _ = sender.send(wire);
    });
    let proxy = Proxy::before(backend.address(), driver);
    for (name, frame) in cases {
        let mut client = proxy.connect();
        client.websocket("/");
        let mut server: Wire = backends.recv_timeout(PATIENCE).expect("the backend's end");
        client.send(frame);
        client.patience(Duration::from_secs(5));
        server.patience(Duration::from_secs(5));
        assert_ne!(client.ending().1, Ending::Open, "{name}: the client's side");
        let (bytes, ending) = server.ending();
        assert_ne!(ending, Ending::Open, "{name}: the backend's side");
        assert!(bytes.is_empty(), "{name}: the backend received {bytes:?}");
    }
    proxy.written("access.log", &["101"]);
}

#[test]
fn rsv1_is_allowed_once_an_extension_was_negotiated() {
    let backend = Backend::serve(|mut wire, _| {
        let head = wire.head();
        wire.send(
            frames::switching(&head).replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        );
        let bytes = wire.exactly(7);
        wire.send(frames::server(frames::BINARY, bytes));
        drop(wire.ending());
    });
    let proxy = Proxy::before(backend.address(), Driver::Epoll);
    let mut client = proxy.connect();
    client.send(
        frames::request("/", "x").replace("Upgrade: ", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: "),
    );
    assert_eq!(client.head().get("sec-websocket-extensions"), Some("permessage-deflate"));
    let compressed = frames::raw(0xc1, true, "x");
    client.send(&compressed);
    assert_eq!(client.frame().1, compressed);
}

#[test]
fn an_origin_that_is_not_listed_is_refused_before_the_backend_is_asked() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy =
        Proxy::in_location("websocket_origin https://good.example *.fine.example;", backend.address(), Driver::Epoll);
    let ask = |origin: &str| {
        let request = frames::request("/", "x").replace("Upgrade: ", &format!("{origin}Upgrade: "));
        proxy.connect().send(request).head().status()
    };
    assert_eq!(ask("Origin: https://evil.example\r\n"), 403);
    assert_eq!(ask("Origin: https://good.example.evil.example\r\n"), 403);
    assert_eq!(ask(""), 403);
    assert_eq!(backend.connections(), 0, "the backend was asked");
    assert_eq!(ask("Origin: https://good.example\r\n"), 101);
    assert_eq!(ask("Origin: https://a.fine.example\r\n"), 101);
}

#[test]
fn a_head_that_drips_in_ends_at_its_deadline() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        "client_header_timeout 1s; server { listen %http%; location / { proxy_pass http://%backend%; } }",
    )
    .set("backend", backend.address())
    .start();
    let mut client = proxy.connect();
    let mut writer = client.writer();
    let dripping = thread::spawn(move || {
        for byte in "GET / HTTP/1.1\r\nHost: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".bytes() {
            if writer.try_send([byte]).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    let response = client.response();
    assert_eq!(response.status(), 408);
    assert_ne!(client.ending().1, Ending::Open);
    dripping.join().expect("the dripping client");
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_backend_that_answers_slowly_to_an_upgrade_is_a_504() {
    let backend = Backend::silent();
    let proxy = Proxy::in_location("proxy_read_timeout 1s;", backend.address(), Driver::Epoll);
    assert_eq!(proxy.connect().upgrade("/").status(), 504);
}

#[test]
fn bad_response_heads_are_502() {
    beyond_nginx!();
    let cases = [
        ("no HTTP", "hello\r\n\r\n".to_owned()),
        ("nothing", String::new()),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-".to_owned()),
        ("folded line", "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("control in a value", "HTTP/1.1 200 OK\r\nX: a\u{1}b\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned()),
        (
            "length and chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("head too large", format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "a".repeat(200_000))),
        ("status that is none", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n".to_owned()),
    ];
    let mut wrong = Vec::new();
    for (name, answer) in cases {
        let backend = Backend::answering(answer);
        let proxy = before(&backend, Driver::Epoll);
        let status = proxy.get("/").status();
        if status != 502 {
            wrong.push(format!("{name}: {status}"));
        }
        assert!(eventually(|| proxy.log().contains("upstream:")), "{name}: no line in the error log:\n{}", proxy.log());
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn upgrade_protocols_lists_what_may_become_a_tunnel() {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        let head = wire.head();
        let Some(token) = head.get("upgrade") else {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
            return;
        };
        wire.send(format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: {token}\r\nConnection: upgrade\r\n\r\n"));
        drop(wire.ending());
    });
    let proxy = Proxy::in_location("upgrade_protocols chat xmpp;", backend.address(), Driver::Epoll);
    let ask = |tokens: &str| {
        let head = proxy.connect().send(upgrade(&format!("Upgrade: {tokens}\r\nConnection: Upgrade\r\n"))).head();
        (head.status(), head.get("upgrade").map(str::to_owned))
    };
    assert_eq!(ask("chat"), (101, Some("chat".to_owned())));
    assert_eq!(ask("other, XMPP"), (101, Some("XMPP".to_owned())), "the first that is allowed");
    for refused in ["other", "websocket", "h2c"] {
        assert_eq!(ask(refused), (200, None), "{refused}");
    }
}

#[test]
fn early_bytes_of_an_upgrade_that_was_declined_are_no_request() {
    let backend = Backend::http(|_, _| b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope".to_vec());
    let proxy = Proxy::before(backend.address(), Driver::Epoll);
    let mut client = proxy.connect();
    client.send(frames::request("/", "x") + "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
    if crate::util::proxy::nginx_stands_in() {
        return;
    }
    assert_eq!(client.response().get("connection"), Some("close"));
    client.expect_gone();
    assert!(!String::from_utf8_lossy(&backend.received_at_all()).contains("smuggled"));
}
