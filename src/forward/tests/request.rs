//! The head that a backend gets.

use super::*;

fn set(fields: &[(&str, Template)]) -> impl FnOnce(&mut Settings) + use<> {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    move |settings| settings.set_headers = fields
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
