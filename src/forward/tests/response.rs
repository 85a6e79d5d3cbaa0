//! The head that a client gets: a backend's, and our own.

use super::*;
use crate::websocket::handshake::Upgrade;

fn upgrade_of(request: &Request) -> Upgrade {
    let websocket = Protocols::Only(vec!["websocket".into()]);
    judge_request(&request.head, &websocket).expect("valid").expect("an upgrade")
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
