use std::{sync::Arc, time::Instant};

use proptest::prelude::*;

use super::*;
use crate::{
    config::{AddHeader, ProxyPass, ProxyTarget, Redirect, Settings},
    http::{
        body::Framing,
        head::{HeadLimits, Parsed, RequestHead, ResponseHead, parse_request, parse_response},
    },
    request::{
        Request,
        tests::{client, config, location, server, settings},
    },
    route::rewrite::Rewritable,
    variables::{Known, Part, Template, Variable},
    websocket::handshake::{Protocols, Upgrade, judge_request},
};

const LIMITS: HeadLimits =
    HeadLimits { line_bytes: 8192, head_bytes: 32768, fields: 100, underscores: false, merge_slashes: true };

const BROWSER: &str = "GET /ws/chat?a=%20b HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: http://example.com\r\n\r\n";

fn head(text: &str) -> RequestHead {
    match parse_request(text.as_bytes(), &LIMITS) {
        Ok(Parsed::Complete(head, _)) => head,
        other => panic!("{text}: {other:?}"),
    }
}

fn answer(text: &str) -> ResponseHead {
    match parse_response(format!("{text}\r\n\r\n").as_bytes(), 16384) {
        Ok(Parsed::Complete(head, _)) => head,
        other => panic!("{text}: {other:?}"),
    }
}

/// A request routed to the only location of the only server, with these settings.
fn request(text: &str, change: impl FnOnce(&mut Settings)) -> Request {
    let mut settings = settings();
    change(&mut settings);
    let (mut server, mut location) = (server("example.com"), location("/ws/"));
    location.settings = Arc::new(settings);
    server.locations.push(location);
    let config = Arc::new(config(vec![server], Vec::new()));
    let mut request = Request::new(config, Arc::new(client()), 1, 0, head(text), b"".as_slice(), Instant::now());
    request.location = Some(0);
    request.proxy_host = "127.0.0.1:3000".into();
    request
}

fn pass(uri: Option<&str>) -> ProxyPass {
    let target = ProxyTarget::Upstream(0, "127.0.0.1:3000".into());
    ProxyPass { target, tls: false, uri: uri.map(Template::text), prefix: "/ws/".len() }
}

fn variable(known: Known) -> Template {
    Template { parts: vec![Part::Variable(Variable::Known(known))] }
}

fn set(fields: &[(&str, Template)]) -> impl FnOnce(&mut Settings) + use<> {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    move |settings| settings.set_headers = fields
}

fn upgrade_of(request: &Request) -> Upgrade {
    let websocket = Protocols::Only(vec!["websocket".into()]);
    judge_request(&request.head, &websocket).expect("valid").expect("an upgrade")
}

/// The head sent to the backend, as text; an upgrade where the request asks for one.
fn forwarded(request: &mut Request, pass: &ProxyPass) -> String {
    let asked = judge_request(&request.head, &Protocols::Only(vec!["websocket".into()])).expect("valid");
    let head = request_head(request, pass, asked.as_ref(), false).expect("can be forwarded");
    String::from_utf8(head).expect("ASCII")
}

fn lines<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let prefix = format!("{}: ", name.to_lowercase());
    let of_name = |line: &&str| line.to_lowercase().starts_with(&prefix);
    head.split("\r\n").skip(1).filter(of_name).map(|line| &line[prefix.len()..]).collect()
}

fn target_of(request: &mut Request, pass: &ProxyPass) -> String {
    forwarded(request, pass).split(' ').nth(1).expect("a target").to_owned()
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n")
}

#[test]
fn a_websocket_request_needs_no_ceremony() {
    let head = forwarded(&mut request(BROWSER, |_| {}), &pass(None));
    assert!(head.starts_with("GET /ws/chat?a=%20b HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n"), "{head}");
    assert!(head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(lines(&head, "Upgrade"), ["websocket"]);
    assert_eq!(lines(&head, "Connection"), ["upgrade"]);
    assert_eq!(lines(&head, "Sec-WebSocket-Key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(lines(&head, "Sec-WebSocket-Version"), ["13"]);
    assert_eq!(lines(&head, "Origin"), ["http://example.com"]);
}

#[test]
fn the_lines_nginx_needs_for_a_websocket_change_nothing() {
    let ceremony = [
        ("Upgrade", Template { parts: vec![Part::Variable(Variable::RequestField("upgrade".into()))] }),
        ("Connection", Template::text("Upgrade")),
        ("Host", variable(Known::Host)),
        ("X-Real-IP", variable(Known::RemoteAddr)),
    ];
    let head = forwarded(&mut request(BROWSER, set(&ceremony)), &pass(None));
    assert_eq!(lines(&head, "Upgrade"), ["websocket"]);
    assert_eq!(lines(&head, "Connection"), ["upgrade"]);
    assert_eq!(lines(&head, "Host"), ["example.com"]);
    assert_eq!(lines(&head, "X-Real-IP"), ["192.0.2.1"]);
}

#[test]
fn a_constant_connection_upgrade_is_not_sent_with_a_plain_request() {
    let constant = [("Connection", Template::text("upgrade")), ("Upgrade", Template::text("websocket"))];
    let head = forwarded(&mut request(&get("/"), set(&constant)), &pass(None));
    assert_eq!(lines(&head, "Connection"), ["close"]);
    assert!(lines(&head, "Upgrade").is_empty());
}

#[test]
fn an_upgrade_is_spoken_in_http_11_by_get_whatever_the_file_says() {
    let change = |settings: &mut Settings| {
        settings.proxy_http_10 = true;
        settings.method = Some(Template::text("POST"));
    };
    assert!(forwarded(&mut request(BROWSER, change), &pass(None)).starts_with("GET /ws/chat?a=%20b HTTP/1.1\r\n"));
}

#[test]
fn hop_by_hop_and_nominated_fields_stay_on_their_connection() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine, x-other\r\nX-Mine: 1\r\nX-Other: 2\r\nKeep-Alive: 3\r\n\
        TE: trailers\r\nTrailer: x\r\nProxy-Connection: close\r\nHTTP2-Settings: x\r\nUpgrade: h2c\r\nAccept: */*\r\n\r\n";
    let head = forwarded(&mut request(text, |_| {}), &pass(None));
    assert_eq!(head, "GET / HTTP/1.1\r\nHost: 127.0.0.1:3000\r\nConnection: close\r\nAccept: */*\r\n\r\n");
}

#[test]
fn what_a_backend_trusts_cannot_be_nominated_away() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nConnection: Host, X-Real-IP, X-Forwarded-For, Content-Length, Sec-WebSocket-Key, X-Set\r\n\
        X-Forwarded-For: 1.1.1.1\r\nSec-WebSocket-Key: k\r\nX-Real-IP: 9.9.9.9\r\nContent-Length: 3\r\nX-Set: theirs\r\n\r\n";
    let ours = [("X-Real-IP", variable(Known::RemoteAddr)), ("X-Set", Template::text("ours"))];
    let head = forwarded(&mut request(text, set(&ours)), &pass(None));
    for (name, value) in [
        ("Host", "127.0.0.1:3000"),
        ("X-Real-IP", "192.0.2.1"),
        ("X-Forwarded-For", "1.1.1.1"),
        ("Sec-WebSocket-Key", "k"),
        ("Content-Length", "3"),
        ("X-Set", "ours"),
    ] {
        assert_eq!(lines(&head, name), [value], "{name} in {head}");
    }
}

#[test]
fn set_fields_replace_the_clients_and_an_empty_one_removes_it() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nx-a: 1\r\nX-A: 2\r\nX-B: 3\r\n\r\n";
    let set = set(&[("X-A", Template::text("ours")), ("X-A", Template::text("twice")), ("X-B", Template::default())]);
    let head = forwarded(&mut request(text, set), &pass(None));
    assert_eq!(lines(&head, "X-A"), ["ours", "twice"]);
    assert!(lines(&head, "X-B").is_empty());
}

#[test]
fn exactly_one_host_is_sent() {
    let empty = [("Host", Template::default())];
    assert_eq!(lines(&forwarded(&mut request(&get("/"), set(&empty)), &pass(None)), "Host"), ["127.0.0.1:3000"]);
    let two = [("Host", Template::text("one")), ("host", Template::text("two"))];
    assert_eq!(lines(&forwarded(&mut request(&get("/"), set(&two)), &pass(None)), "Host"), ["one"]);
}

#[test]
fn the_handshake_is_the_clients_but_its_offers_may_be_taken_away() {
    let offering = BROWSER.replace("Origin:", "Sec-WebSocket-Extensions: permessage-deflate\r\nOrigin:");
    let set = set(&[
        ("Sec-WebSocket-Key", Template::text("ours")),
        ("Sec-WebSocket-Version", Template::default()),
        ("Sec-WebSocket-Extensions", Template::default()),
    ]);
    let head = forwarded(&mut request(&offering, set), &pass(None));
    assert_eq!(lines(&head, "Sec-WebSocket-Key"), ["dGhlIHNhbXBsZSBub25jZQ=="]);
    assert_eq!(lines(&head, "Sec-WebSocket-Version"), ["13"]);
    assert!(lines(&head, "Sec-WebSocket-Extensions").is_empty());
}

#[test]
fn a_decoded_value_cannot_begin_another_field() {
    let text = get("/x%0d%0aX-Injected:%201%00".trim_end_matches("%00"));
    let head = forwarded(&mut request(&text, set(&[("X-Path", variable(Known::Uri))])), &pass(None));
    assert_eq!(lines(&head, "X-Path"), ["/x%0D%0AX-Injected: 1"]);
    assert!(lines(&head, "X-Injected").is_empty());
}

#[test]
fn framing_is_that_of_the_body_and_not_the_files_business() {
    let length = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n";
    let set_framing = set(&[("Content-Length", Template::text("1")), ("Transfer-Encoding", Template::text("chunked"))]);
    let head = forwarded(&mut request(length, set_framing), &pass(None));
    assert_eq!((lines(&head, "Content-Length"), lines(&head, "Transfer-Encoding")), (vec!["7"], vec![]));
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert_eq!(lines(&forwarded(&mut request(chunked, |_| {}), &pass(None)), "Transfer-Encoding"), ["chunked"]);
}

#[test]
fn a_chunked_body_for_a_10_backend_is_411() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut request = request(chunked, |settings| settings.proxy_http_10 = true);
    assert_eq!(request_head(&mut request, &pass(None), None, false).unwrap_err().status, 411);
}

#[test]
fn an_expectation_answered_by_the_proxy_does_not_reach_the_backend() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    assert!(lines(&forwarded(&mut request(text, |_| {}), &pass(None)), "Expect").is_empty());
}

#[test]
fn proxy_method_replaces_the_method_and_must_be_a_token() {
    let with = |method: &str| {
        let method = Template::text(method);
        request_head(&mut request(&get("/"), |settings| settings.method = Some(method)), &pass(None), None, false)
    };
    assert!(with("PUT").expect("a token").starts_with(b"PUT / "));
    assert!(with("").expect("the client's").starts_with(b"GET / "));
    assert_eq!(with("A B\r\n").unwrap_err().status, 500);
}

#[test]
fn without_uri_part_the_target_is_as_sent() {
    for target in ["/ws/../x%2fy//?q=%zz", "/a\"b", "/?"] {
        assert_eq!(target_of(&mut request(&get(target), |_| {}), &pass(None)), target);
    }
    let absolute = "GET http://example.com?x HTTP/1.1\r\nHost: example.com\r\n\r\n";
    assert_eq!(target_of(&mut request(absolute, |_| {}), &pass(None)), "/?x");
    let asterisk = "OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n";
    assert_eq!(target_of(&mut request(asterisk, |_| {}), &pass(None)), "*");
}

#[test]
fn the_uri_part_replaces_the_locations_prefix_and_the_rest_is_escaped_again() {
    for (uri, target, expected) in [
        ("/", "/ws/chat", "/chat"),
        ("/b/", "/ws/", "/b/"),
        ("/b/", "/ws/a%20b%3fc%25?d=%20e&f", "/b/a%20b%3Fc%25?d=%20e&f"),
        ("/b", "/ws/./x/../y", "/by"),
        ("/b/", "/ws/a%0d%0aX:%20y", "/b/a%0D%0AX:%20y"),
        ("/b/", "/ws/%ff%C3%a9", "/b/%FF%C3%A9"),
        ("?x=", "/ws/y", "/?x=y"),
    ] {
        assert_eq!(target_of(&mut request(&get(target), |_| {}), &pass(Some(uri))), expected, "{uri} {target}");
    }
}

#[test]
fn a_changed_uri_is_forwarded_in_place_of_the_one_sent() {
    let mut request = request(&get("/ws/old?x"), |_| {});
    request.set_uri(b"/ws/new one".to_vec(), b"a=b c#d".to_vec());
    assert_eq!(target_of(&mut request, &pass(None)), "/ws/new%20one?a=b%20c%23d");
    assert_eq!(target_of(&mut request, &pass(Some("/b/"))), "/b/new%20one?a=b%20c%23d");
    request.leave_prefix();
    assert_eq!(target_of(&mut request, &pass(Some("/b/"))), "/ws/new%20one?a=b%20c%23d", "rewrite ... break");
}

#[test]
fn a_uri_part_with_variables_is_the_whole_target() {
    let mut with_uri = pass(None);
    with_uri.uri = Some(variable(Known::RequestUri));
    assert_eq!(target_of(&mut request(&get("/ws/%41?q"), |_| {}), &with_uri), "/ws/%41?q");
    with_uri.uri = Some(variable(Known::Uri));
    let injecting = get("/ws/%20HTTP/1.1%0d%0aX:%20y?q");
    assert_eq!(target_of(&mut request(&injecting, |_| {}), &with_uri), "/ws/%20HTTP/1.1%0D%0AX:%20y");
    assert_eq!(target_of(&mut request(&get("/ws/%2541"), |_| {}), &with_uri), "/ws/%2541", "not decoded twice");
}

#[test]
fn a_variable_target_may_bring_its_uri() {
    let with = |text: &str| {
        let target = ProxyTarget::Variable(Template::text(text));
        ProxyPass { target, tls: false, uri: None, prefix: 0 }
    };
    assert_eq!(target_of(&mut request(&get("/a?b"), |_| {}), &with("http://backend:1/x?y")), "/x?y");
    assert_eq!(target_of(&mut request(&get("/a?b"), |_| {}), &with("backend")), "/a?b");
    let refusal = request_head(&mut request(&get("/"), |_| {}), &with("http://a b/"), None, false).unwrap_err();
    assert_eq!((refusal.status, refusal.reason), (500, "bad_proxy_pass"));
}

#[test]
fn variable_targets_are_taken_apart() {
    let parts = |text: &str| {
        let found = variable_target(text.as_bytes(), false).ok()?;
        Some((found.tls, found.address.into_string(), found.uri.map(|uri| String::from_utf8(uri).expect("ASCII"))))
    };
    let some = |tls, address: &str, uri: Option<&str>| Some((tls, address.to_owned(), uri.map(ToOwned::to_owned)));
    assert_eq!(parts("backend"), some(false, "backend", None));
    assert_eq!(parts("HTTPS://a.b:8443/x/?y"), some(true, "a.b:8443", Some("/x/?y")));
    assert_eq!(parts("http://[::1]:80?x"), some(false, "[::1]:80", Some("?x")));
    assert_eq!(parts("unix:/run/a.sock"), some(false, "unix:/run/a.sock", None));
    assert_eq!(parts("http://unix:/run/a.sock:/x"), some(false, "unix:/run/a.sock", Some("/x")));
    for bad in ["", "http://", "/x", "a b", "user@a", "unix:", "a:99999", "http://a\r\nb"] {
        assert_eq!(parts(bad), None, "{bad:?}");
    }
}

#[test]
fn a_response_loses_what_belongs_to_its_connection_and_what_is_hidden() {
    let backend = answer(
        "HTTP/1.1 200 Fine\r\nConnection: X-Mine, close\r\nX-Mine: 1\r\nKeep-Alive: 2\r\nUpgrade: h2c\r\nTrailer: x\r\n\
         Transfer-Encoding: chunked\r\nX-Accel-Redirect: /x\r\nX-Pad: x\r\nX-Secret: x\r\nServer: theirs\r\nDate: then\r\nA: b",
    );
    let mut request = request(&get("/"), |settings| settings.hide_headers = vec!["x-secret".into()]);
    let head = response_head(&mut request, &backend, Framing::Chunked, true);
    assert_eq!(
        String::from_utf8(head).expect("ASCII"),
        "HTTP/1.1 200 Fine\r\nServer: theirs\r\nDate: then\r\nA: b\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
    );
    assert_eq!((request.status, request.sent_fields.get("a")), (200, Some(&b"b"[..])));
}

fn replied(request: &mut Request, backend: &str, framing: Framing, keep_alive: bool) -> String {
    String::from_utf8(response_head(request, &answer(backend), framing, keep_alive)).expect("ASCII")
}

#[test]
fn proxy_pass_header_lets_hidden_fields_pass_but_no_hop_by_hop_one() {
    let mut request = request(&get("/"), |settings| {
        settings.hide_headers = vec!["x-secret".into()];
        settings.pass_headers = vec!["x-accel-buffering".into(), "x-secret".into(), "upgrade".into()];
    });
    let backend = "HTTP/1.1 200 OK\r\nX-Accel-Buffering: no\r\nX-Secret: s\r\nUpgrade: h2c";
    let head = replied(&mut request, backend, Framing::Length(0), true);
    assert_eq!((lines(&head, "X-Accel-Buffering"), lines(&head, "X-Secret")), (vec!["no"], vec!["s"]));
    assert!(lines(&head, "Upgrade").is_empty());
}

#[test]
fn a_missing_date_is_added_and_a_missing_server_is_not() {
    let head = replied(&mut request(&get("/"), |_| {}), "HTTP/1.1 200 OK", Framing::Length(2), true);
    assert_eq!((lines(&head, "Date").len(), lines(&head, "Server").len()), (1, 0));
    assert_eq!(lines(&head, "Content-Length"), ["2"]);
}

#[test]
fn a_body_that_ends_with_the_connection_closes_it() {
    let head = replied(&mut request(&get("/"), |_| {}), "HTTP/1.0 200 OK", Framing::UntilClose, true);
    assert_eq!((lines(&head, "Connection"), lines(&head, "Transfer-Encoding")), (vec!["close"], vec![]));
    assert!(head.starts_with("HTTP/1.1 "));
}

#[test]
fn keep_alive_names_its_timeout_where_the_file_does() {
    let mut request = request(&get("/"), |settings| settings.keepalive_header = Some(60));
    let head = replied(&mut request, "HTTP/1.1 200 OK", Framing::Length(0), true);
    assert_eq!((lines(&head, "Connection"), lines(&head, "Keep-Alive")), (vec!["keep-alive"], vec!["timeout=60"]));
    let head = replied(&mut request, "HTTP/1.1 200 OK", Framing::Length(0), false);
    assert_eq!((lines(&head, "Connection"), lines(&head, "Keep-Alive")), (vec!["close"], vec![]));
}

#[test]
fn head_and_304_keep_the_content_length_and_204_does_not() {
    let length = |method: &str, status: &str| {
        let mut request = request(&get("/").replace("GET", method), |_| {});
        let head = replied(&mut request, &format!("HTTP/1.1 {status} X\r\nContent-Length: 12"), Framing::None, true);
        lines(&head, "Content-Length").len()
    };
    assert_eq!((length("HEAD", "200"), length("GET", "304"), length("GET", "204")), (1, 1, 0));
}

#[test]
fn an_error_pages_status_replaces_the_backends() {
    let mut request = request(&get("/"), |_| {});
    request.error_status = Some(404);
    assert!(
        replied(&mut request, "HTTP/1.1 200 Fine", Framing::Length(0), true).starts_with("HTTP/1.1 404 Not Found\r\n")
    );
    assert_eq!(request.status, 404);
}

fn add(name: &str, value: Template, always: bool) -> AddHeader {
    AddHeader { name: name.into(), value, always }
}

#[test]
fn added_fields_are_for_good_statuses_unless_always() {
    let add = || vec![add("X-A", Template::text("1"), false), add("X-B", variable(Known::Status), true)];
    let mut request = request(&get("/"), |settings| settings.add_headers = add());
    let head = replied(&mut request, "HTTP/1.1 200 OK\r\nX-A: theirs", Framing::Length(0), true);
    assert_eq!((lines(&head, "X-A"), lines(&head, "X-B")), (vec!["theirs", "1"], vec!["200"]));
    let head = replied(&mut request, "HTTP/1.1 500 No", Framing::Length(0), true);
    assert_eq!((lines(&head, "X-A"), lines(&head, "X-B")), (vec![], vec!["500"]));
}

#[test]
fn added_fields_can_neither_frame_nor_split_a_response() {
    let add = vec![
        add("Content-Length", Template::text("1"), true),
        add("Transfer-Encoding", Template::text("chunked"), true),
        add("X-A", Template::text("a\r\nX-B: c"), true),
        add("X-Empty", Template::default(), true),
        add("ETag", Template::text("ours"), true),
    ];
    let mut request = request(&get("/"), |settings| settings.add_headers = add);
    let head = replied(&mut request, "HTTP/1.1 200 OK\r\nETag: theirs", Framing::Length(5), true);
    assert_eq!(lines(&head, "Content-Length"), ["5"]);
    assert_eq!(lines(&head, "X-A"), ["a%0D%0AX-B: c"]);
    assert_eq!(lines(&head, "ETag"), ["ours"]);
    assert!(lines(&head, "Transfer-Encoding").is_empty() && lines(&head, "X-Empty").is_empty());
}

#[test]
fn proxy_redirect_makes_the_backends_addresses_ours() {
    let regex = crate::route::rewrite::Regex::new("^http://([a-z]+)/(.*)$", false, &mut |_| 0).expect("compiles");
    let captured = Template {
        parts: vec![
            Part::Text(b"/".as_slice().into()),
            Part::Variable(Variable::Capture(1)),
            Part::Variable(Variable::Capture(2)),
        ],
    };
    let redirects = vec![
        Redirect::Prefix(Template::text("http://127.0.0.1:3000/"), Template::text("/ws/")),
        Redirect::Prefix(Template::text("/"), Template::text("/never/")),
        Redirect::Regex(regex, captured),
    ];
    let mut request = request(&get("/"), |settings| settings.redirects = redirects);
    let mut rewritten = |field: &str| {
        let head = replied(&mut request, &format!("HTTP/1.1 302 Found\r\n{field}"), Framing::Length(0), true);
        head.split("\r\n").nth(1).expect("a field").to_owned()
    };
    assert_eq!(rewritten("Location: http://127.0.0.1:3000/login?a"), "Location: http://example.com:8080/ws/login?a");
    assert_eq!(rewritten("Location: http://backend/x"), "Location: http://example.com:8080/backendx");
    assert_eq!(rewritten("Location: https://elsewhere/"), "Location: https://elsewhere/");
    assert_eq!(rewritten("Refresh: 5; URL=http://127.0.0.1:3000/x"), "Refresh: 5; URL=/ws/x");
    assert_eq!(rewritten("Refresh: 5"), "Refresh: 5");
    assert_eq!(rewritten("Link: http://127.0.0.1:3000/"), "Link: http://127.0.0.1:3000/");
}

#[test]
fn the_101_has_upgrade_connection_and_the_backends_handshake() {
    let mut request = request(BROWSER, |settings| {
        settings.add_headers = vec![add("X-A", Template::text("1"), false), add("X-B", Template::text("2"), true)];
    });
    let upgrade = upgrade_of(&request);
    let backend = answer(
        "HTTP/1.1 101 Web Socket Protocol Handshake\r\nupgrade: WebSocket\r\nconnection: Upgrade, Sec-WebSocket-Accept\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nContent-Length: 0\r\nSet-Cookie: a=b",
    );
    let head = String::from_utf8(switching_head(&mut request, &backend, &upgrade)).expect("ASCII");
    assert_eq!(
        head,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: a=b\r\nX-B: 2\r\n\r\n"
    );
    assert_eq!(request.status, 101);
}

#[test]
fn interim_answers_pass_without_framing() {
    let early = answer("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nContent-Length: 3\r\nConnection: close");
    assert_eq!(interim_head(&early), b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    assert_eq!(interim_head(&answer("HTTP/1.1 100 Continue")), b"HTTP/1.1 100 Continue\r\n\r\n");
}

fn own(request: &mut Request, status: u16, extra: &[(&str, &[u8])], head_only: bool) -> String {
    String::from_utf8(own_response(request, status, "text/plain", b"hello", extra, false, head_only)).expect("ASCII")
}

#[test]
fn an_answer_of_our_own_is_complete() {
    let mut request = request(&get("/"), |settings| settings.server_tokens = false);
    let answer = own(&mut request, 301, &[("Location", b"/a\r\nX: y")], false);
    assert!(answer.starts_with("HTTP/1.1 301 Moved Permanently\r\nServer: longsplice\r\nDate: "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    for (name, value) in
        [("Content-Type", "text/plain"), ("Content-Length", "5"), ("Location", "/a%0D%0AX: y"), ("Connection", "close")]
    {
        assert_eq!(lines(&answer, name), [value]);
    }
    assert_eq!(request.status, 301);
    assert!(request.sent_fields.get("location").is_some());
}

#[test]
fn an_answer_to_head_and_a_204_have_no_body() {
    let mut request = request(&get("/"), |_| {});
    let answer = own(&mut request, 404, &[], true);
    assert!(answer.ends_with("\r\n\r\n"));
    assert_eq!(lines(&answer, "Content-Length"), ["5"]);
    let answer = own(&mut request, 204, &[], false);
    assert!(answer.ends_with("\r\n\r\n") && lines(&answer, "Content-Length").is_empty());
}

#[test]
fn nginxs_own_statuses_are_400_or_silence() {
    let mut request = request(&get("/"), |_| {});
    assert!(own(&mut request, 497, &[], false).starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert_eq!(own(&mut request, 444, &[], false), "");
    assert_eq!(request.status, 444);
}

#[test]
fn a_426_names_protocol_and_version() {
    let refusal = crate::http::refusal::Refusal::new(426, "websocket_version", "");
    let answer = own(&mut request(&get("/"), |_| {}), 426, refusal.fields(), false);
    assert_eq!((lines(&answer, "Upgrade"), lines(&answer, "Sec-WebSocket-Version")), (vec!["websocket"], vec!["13"]));
    assert_eq!(lines(&answer, "Connection"), ["close, upgrade"]);
}

/// Everything a client can put into variables, forwarded in the places where a file puts variables.
fn variables_everywhere(settings: &mut Settings) {
    let argument = || Template { parts: vec![Part::Variable(Variable::Argument("a".into()))] };
    settings.set_headers = vec![("X-A".into(), argument()), ("X-Uri".into(), variable(Known::Uri))];
    settings.add_headers = vec![add("X-Uri", variable(Known::Uri), true), add("X-A", argument(), true)];
    settings.redirects = vec![Redirect::Prefix(Template::text("http://b"), variable(Known::Uri))];
}

fn escaped_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
        prop::sample::select(vec!["/", "a", "?a=", "=", "&", ":", "%0d%0a", "%20", "+"]).prop_map(str::to_owned),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| format!("/{}", parts.concat()))
}

fn a_request(target: &str, fields: &[String]) -> Option<RequestHead> {
    let text = format!("POST {target} HTTP/1.1\r\nHost: a\r\n{}\r\n", fields.concat());
    match parse_request(text.as_bytes(), &LIMITS) {
        Ok(Parsed::Complete(head, _)) => Some(head),
        _ => None,
    }
}

proptest! {
    #[test]
    fn whatever_a_client_sends_the_backend_gets_one_request_framed_as_the_body_is(
        target in escaped_path(),
        fields in proptest::collection::vec("(Connection|Upgrade|TE|Content-Length|Transfer-Encoding|X-A): (X-A|close|upgrade|chunked|3)\r\n", 0..5),
        uri in prop::sample::select(vec![None, Some("/"), Some("/b/"), Some("$uri")]),
    ) {
        let Some(head) = a_request(&target, &fields) else { return Ok(()) };
        let (body, fields) = (head.body, head.fields.len());
        let mut request = request(&get("/"), variables_everywhere);
        (request.uri, request.args) = (head.path.clone(), head.query.as_deref().unwrap_or_default().to_vec());
        request.head = head;
        let mut pass = pass(uri);
        if uri == Some("$uri") {
            pass.uri = Some(variable(Known::Uri));
        }
        let sent = request_head(&mut request, &pass, None, false).expect("nothing here is refused");
        match parse_request(&sent, &LIMITS) {
            Ok(Parsed::Complete(received, used)) => {
                prop_assert_eq!(used, sent.len());
                prop_assert_eq!(received.body, body);
                prop_assert!(received.fields.len() <= fields + 4);
                prop_assert!(!received.fields.lists("connection", "upgrade"));
                prop_assert!(received.fields.get("upgrade").is_none());
            }
            Err(refusal) if uri.is_some() => prop_assert_eq!(refusal.reason, "path_above_root"),
            other => prop_assert!(false, "{other:?}\n{}", sent.escape_ascii()),
        }
    }

    #[test]
    fn whatever_a_client_sends_it_gets_one_response(
        target in escaped_path(),
        location in "http://b[ -~]{0,10}",
        framing in prop::sample::select(vec![Framing::None, Framing::Length(7), Framing::Chunked, Framing::UntilClose]),
    ) {
        let Some(head) = a_request(&target, &[]) else { return Ok(()) };
        let mut request = request(&get("/"), variables_everywhere);
        (request.uri, request.args) = (head.path.clone(), head.query.as_deref().unwrap_or_default().to_vec());
        request.head = head;
        let backend = answer(&format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 99"));
        let sent = response_head(&mut request, &backend, framing, true);
        let Ok(Parsed::Complete(received, used)) = parse_response(&sent, 1 << 20) else { panic!("{}", sent.escape_ascii()) };
        prop_assert_eq!(used, sent.len());
        prop_assert_eq!(received.keep_alive, framing != Framing::UntilClose);
        let seen = crate::http::body::response_framing(&received, "GET");
        prop_assert_eq!(seen, if framing == Framing::None { Framing::UntilClose } else { framing });
    }
}
