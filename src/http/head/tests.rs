use proptest::prelude::*;

use super::*;
use crate::http::refusal::Refusal;

const LIMITS: HeadLimits =
    HeadLimits { line_bytes: 8192, head_bytes: 32768, fields: 100, underscores: false, merge_slashes: true };

fn whole<T>(parsed: Result<Parsed<T>, Refusal>) -> Result<T, (u16, &'static str)> {
    match parsed {
        Ok(Parsed::Complete(head, _)) => Ok(head),
        Ok(Parsed::Partial) => Err((0, "partial")),
        Err(refusal) => Err((refusal.status, refusal.reason)),
    }
}

fn request(text: impl AsRef<[u8]>) -> Result<RequestHead, (u16, &'static str)> {
    whole(parse_request(text.as_ref(), &LIMITS))
}

/// The head of a request with this request line.
fn line(line: &str) -> Result<RequestHead, (u16, &'static str)> {
    request(format!("{line}\r\nHost: example.com\r\n\r\n"))
}

/// The head of a GET with these field lines behind a Host.
fn field(lines: &str) -> Result<RequestHead, (u16, &'static str)> {
    request(format!("GET / HTTP/1.1\r\nHost: example.com\r\n{lines}\r\n\r\n"))
}

fn response(text: impl AsRef<[u8]>) -> Result<ResponseHead, (u16, &'static str)> {
    whole(parse_response(text.as_ref(), 16384))
}

#[test]
fn a_websocket_request_of_a_browser() {
    let text =
        b"GET /ws/chat?room=1&x=%20 HTTP/1.1\r\nHost: Chat.Example.com:8080\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\x81\x80";
    let Ok(Parsed::Complete(head, used)) = parse_request(text, &LIMITS) else { panic!("refused") };
    assert_eq!(used, text.len() - 2);
    assert_eq!(&*head.method, "GET");
    assert_eq!(&*head.target, b"/ws/chat?room=1&x=%20");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(&*head.host, b"chat.example.com");
    assert_eq!(&*head.authority, b"Chat.Example.com:8080");
    assert_eq!(head.path, b"/ws/chat");
    assert_eq!(head.query.as_deref(), Some(&b"room=1&x=%20"[..]));
    assert_eq!(head.body, Framing::None);
    assert_eq!(head.fields.len(), 5);
    assert!(head.keep_alive && !head.expects_continue);
}

#[test]
fn request_line_too_long_is_414_before_its_end_arrives() {
    let long = format!("GET /{}", "a".repeat(LIMITS.line_bytes));
    assert_eq!(request(&long).unwrap_err(), (414, "request_line_too_long"));
    assert_eq!(line(&format!("{long} HTTP/1.1")).unwrap_err(), (414, "request_line_too_long"));
}

#[test]
fn field_or_head_too_large_is_431_before_its_end_arrives() {
    let start = "GET / HTTP/1.1\r\nHost: a\r\n";
    let field = format!("{start}Cookie: {}", "a".repeat(LIMITS.line_bytes));
    assert_eq!(request(field).unwrap_err(), (431, "field_too_long"));
    let head = format!("{start}{}", format!("Cookie: {}\r\n", "a".repeat(8000)).repeat(5));
    assert_eq!(request(head).unwrap_err(), (431, "head_too_large"));
}

#[test]
fn more_than_max_headers_is_431_before_the_head_ends() {
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", "A: b\r\n".repeat(99));
    assert!(request(format!("{head}\r\n")).is_ok());
    assert_eq!(request(format!("{head}A: b\r\n")).unwrap_err(), (431, "too_many_fields"));
}

#[test]
fn method_is_an_upper_case_token() {
    for method in ["GET", "POST", "M-SEARCH", "PROPFIND", "X_Y"] {
        assert!(line(&format!("{method} / HTTP/1.1")).is_ok(), "{method}");
    }
    for method in ["get", "Get", "G(T", "G\0T", "", "\u{e9}", "GET\t"] {
        assert_eq!(line(&format!("{method} / HTTP/1.1")).unwrap_err(), (400, "bad_method"), "{method:?}");
    }
}

#[test]
fn connect_and_trace_are_not_served() {
    assert_eq!(line("CONNECT example.com:443 HTTP/1.1").unwrap_err().0, 405);
    assert_eq!(line("TRACE / HTTP/1.1").unwrap_err().0, 405);
}

#[test]
fn target_has_no_fragment_control_or_high_byte() {
    for target in ["/a#b", "/\u{1}", "/\u{7f}", "/\0", "/é", "/a\tb", "/a\rb"] {
        assert_eq!(line(&format!("GET {target} HTTP/1.1")).unwrap_err(), (400, "bad_target"), "{target:?}");
    }
    assert_eq!(request(b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err(), (400, "bad_target"));
}

#[test]
fn request_line_has_single_spaces_and_no_tab() {
    for bad in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / a HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.1\t",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1\rX",
    ] {
        assert_eq!(line(bad).unwrap_err().0, 400, "{bad:?}");
    }
}

#[test]
fn target_is_a_path_or_asterisk_with_options() {
    for bad in ["a", "example.com/a", "*", "ftp://example.com/", "ws://example.com/", "http:/example.com", "?a"] {
        assert_eq!(line(&format!("GET {bad} HTTP/1.1")).unwrap_err(), (400, "bad_target_form"), "{bad}");
    }
    let options = line("OPTIONS * HTTP/1.1").expect("allowed");
    assert_eq!((options.path.as_slice(), &*options.origin_form()), (&b"/"[..], &b"*"[..]));
}

#[test]
fn absolute_target_must_name_the_host_of_host() {
    let head = line("GET HTTP://Example.com/a/../b?c HTTP/1.1").expect("same host");
    assert_eq!((&*head.host, head.path.as_slice()), (&b"example.com"[..], &b"/b"[..]));
    assert_eq!(&*head.origin_form(), b"/a/../b?c");
    for bad in
        ["http://other.com/", "http://example.com:81/", "http://a@example.com/", "http://example.com.:80/", "http:///"]
    {
        assert_eq!(line(&format!("GET {bad} HTTP/1.1")).unwrap_err(), (400, "host_mismatch"), "{bad}");
    }
    let alone = request("GET http://b.com:81/x HTTP/1.0\r\n\r\n").expect("nothing to disagree with");
    assert_eq!((&*alone.host, &*alone.authority), (&b"b.com"[..], &b"b.com:81"[..]));
    assert_eq!(request("GET http:///x HTTP/1.0\r\n\r\n").unwrap_err(), (400, "bad_host"));
}

#[test]
fn absolute_target_without_path_has_the_root() {
    assert_eq!(&*line("GET http://example.com HTTP/1.1").expect("allowed").origin_form(), b"/");
    let head = line("GET http://example.com?a=b HTTP/1.1").expect("allowed");
    assert_eq!((&*head.origin_form(), head.path.as_slice()), (&b"/?a=b"[..], &b"/"[..]));
    assert_eq!(head.query.as_deref(), Some(&b"a=b"[..]));
}

#[test]
fn absolute_target_of_options_without_path_is_the_server_as_a_whole() {
    for (target, expected) in [
        ("http://example.com", "*"),
        ("http://example.com:80", "*"),
        ("http://example.com/", "/"),
        ("http://example.com?", "/?"),
        ("http://example.com/a", "/a"),
    ] {
        let host = if target.contains(":80") { "example.com:80" } else { "example.com" };
        let head = request(format!("OPTIONS {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")).expect("allowed");
        assert_eq!(String::from_utf8_lossy(&head.origin_form()), expected, "{target}");
    }
}

#[test]
fn any_version_but_10_and_11_is_505() {
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
        assert_eq!(line(&format!("GET / {version}")).unwrap_err(), (505, "http_version"), "{version}");
    }
    assert_eq!(request("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_err(), (505, "http_version"));
    for bad in ["http/1.1", "HTTP/1", "HTTP/1.", "HTTP/11", "HTTP/1.10", "HTTPS/1.1", "X"] {
        assert_eq!(line(&format!("GET / {bad}")).unwrap_err().0, 400, "{bad}");
    }
}

#[test]
fn http_09_and_garbage_are_400() {
    for bad in ["GET /\r\n", "GET /\n", "GET\r\n", "\0\0\0", "SSH-2.0-x\r\n", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"] {
        assert_eq!(request(bad).unwrap_err().0, 400, "{bad:?}");
    }
}

#[test]
fn tls_client_hello_on_a_plain_port_is_400_at_its_first_byte() {
    assert_eq!(request(b"\x16").unwrap_err(), (400, "tls_on_plain_port"));
    assert_eq!(request(b"\x16\x03\x01\x02\x00\x01").unwrap_err(), (400, "tls_on_plain_port"));
}

#[test]
fn http_11_needs_exactly_one_host() {
    assert_eq!(request("GET / HTTP/1.1\r\n\r\n").unwrap_err(), (400, "no_host"));
    assert_eq!(field("HOST: example.com").unwrap_err(), (400, "two_hosts"));
    assert_eq!(request("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").unwrap_err(), (400, "two_hosts"));
    let old = request("GET / HTTP/1.0\r\n\r\n").expect("1.0 may leave it out");
    assert_eq!((&*old.host, &*old.authority), (&b""[..], &b""[..]));
}

#[test]
fn host_is_a_valid_host_and_port() {
    for bad in ["", "a b", "a/b", "user@a", "a:65536", "a:b", "a,b", "[::1", "a\\b", "http://a"] {
        let text = format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n");
        assert_eq!(request(text).unwrap_err(), (400, "bad_host"), "{bad}");
    }
    let head = request("GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n").expect("IPv6");
    assert_eq!(&*head.host, b"[::1]");
}

#[test]
fn field_names_are_tokens_with_nothing_before_the_colon() {
    for bad in ["Transfer-Encoding : chunked", "A\t: b", ": b", "A b: c", "A", "A\u{1}: b", "\u{e9}: b", "A;: b"] {
        assert_eq!(field(bad).unwrap_err().0, 400, "{bad:?}");
    }
}

#[test]
fn folded_fields_are_refused() {
    assert_eq!(field("A: b\r\n c").unwrap_err(), (400, "obs_fold"));
    assert_eq!(field("A: b\r\n\tc").unwrap_err(), (400, "obs_fold"));
    assert_eq!(request("GET / HTTP/1.1\r\n Host: a\r\n\r\n").unwrap_err(), (400, "obs_fold"));
}

#[test]
fn nul_bare_cr_and_controls_in_a_value_are_refused() {
    assert_eq!(field("A: b\0").unwrap_err(), (400, "nul_in_field"));
    assert_eq!(field("A: b\rC: d").unwrap_err(), (400, "bare_cr"));
    assert_eq!(field("A: b\r\r").unwrap_err(), (400, "bare_cr"));
    assert_eq!(field("A: b\u{8}").unwrap_err(), (400, "bad_field_value"));
    assert!(request(b"GET / HTTP/1.1\r\nHost: a\r\nA: caf\xe9\r\n\r\n").is_ok(), "obs-text is allowed");
}

#[test]
fn bare_lf_ends_lines_and_one_empty_line_may_come_first() {
    let head = request("GET / HTTP/1.1\nHost: a\nA: b\r\n\n").expect("nginx accepts it");
    assert_eq!(head.fields.get("a"), Some(&b"b"[..]));
    for empty in ["\r\n", "\n"] {
        let text = format!("{empty}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(matches!(parse_request(text.as_bytes(), &LIMITS), Ok(Parsed::Complete(_, used)) if used == text.len()));
    }
    for empty in ["\r\n\r\n", "\n\n", "\r\r\n"] {
        assert_eq!(request(format!("{empty}GET / HTTP/1.1\r\nHost: a\r\n\r\n")).unwrap_err().0, 400);
    }
    assert_eq!(request("\r").unwrap_err(), (0, "partial"));
    assert_eq!(request("").unwrap_err(), (0, "partial"));
}

#[test]
fn fields_with_an_underscore_are_dropped_unless_asked_for() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX_Real_IP: 1.2.3.4\r\n\r\n";
    assert_eq!(request(text).expect("dropped").fields.get("x_real_ip"), None);
    let kept = parse_request(text.as_bytes(), &HeadLimits { underscores: true, ..LIMITS });
    assert!(whole(kept).expect("kept").fields.get("x_real_ip").is_some());
}

#[test]
fn body_framing_is_judged_with_the_head() {
    assert_eq!(field("Content-Length: 12").expect("valid").body, Framing::Length(12));
    assert_eq!(field("Transfer-Encoding: chunked").expect("valid").body, Framing::Chunked);
    assert_eq!(field("Content-Length: 1\r\nTransfer-Encoding: chunked").unwrap_err().0, 400);
    assert_eq!(field("Transfer-Encoding: gzip").unwrap_err().0, 501);
    assert_eq!(request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err().0, 400);
}

#[test]
fn paths_cannot_leave_the_root_nor_hide_a_nul() {
    assert_eq!(line("GET /a/../../b HTTP/1.1").unwrap_err(), (400, "path_above_root"));
    assert_eq!(line("GET /%2e%2e%2fb HTTP/1.1").unwrap_err(), (400, "path_above_root"));
    assert_eq!(line("GET /a%00 HTTP/1.1").unwrap_err(), (400, "nul_in_path"));
    assert_eq!(line("GET /a%zz HTTP/1.1").unwrap_err(), (400, "bad_escape"));
    assert!(line("GET /?a=%00&b=%zz&c=../.. HTTP/1.1").is_ok(), "the query is nobody's path");
}

#[test]
fn http_11_keeps_the_connection_and_10_does_not_unless_asked() {
    let alive = |version: &str, connection: &str| {
        request(format!("GET / {version}\r\nHost: a\r\n{connection}\r\n")).expect("valid").keep_alive
    };
    assert!(alive("HTTP/1.1", ""));
    assert!(!alive("HTTP/1.1", "Connection: Close\r\n"));
    assert!(!alive("HTTP/1.1", "Connection: keep-alive\r\nConnection: x, close\r\n"));
    assert!(!alive("HTTP/1.0", ""));
    assert!(alive("HTTP/1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn expect_100_continue_is_noticed_in_11_only() {
    assert!(field("Expect: 100-Continue").expect("valid").expects_continue);
    assert!(!request("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect("valid").expects_continue);
}

#[test]
fn the_request_line_for_the_log_is_there_even_when_refused() {
    assert_eq!(request_line(b"\r\nget /x\r\nrest"), b"get /x");
    assert_eq!(request_line(b"GET /half"), b"GET /half");
    assert_eq!(request_line(b""), b"");
}

#[test]
fn a_backend_head() {
    let head = response(b"HTTP/1.1 200 Tr\xe8s bien \r\nA: b\r\n\r\nbody").expect("valid");
    assert_eq!((head.status, &*head.reason, head.keep_alive), (200, &b"Tr\xe8s bien"[..], true));
    let head = response("HTTP/1.0 204\r\n\r\n").expect("the reason may be missing");
    assert_eq!((head.status, &*head.reason, head.version, head.keep_alive), (204, &b""[..], Version::Http10, false));
    assert_eq!(response("HTTP/1.1 200 OK\r\nA: b\r\n").unwrap_err(), (0, "partial"));
}

#[test]
fn a_backend_head_gets_the_same_care_as_a_request() {
    for bad in [
        "HTTP/1.1 999 X\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1 20 X\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 200 O\u{1}K\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "<html>",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n",
    ] {
        assert_eq!(response(bad).unwrap_err().0, 502, "{bad:?}");
    }
}

#[test]
fn a_backend_head_is_bounded() {
    let large = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(16384));
    assert_eq!(response(large).unwrap_err(), (502, "upstream_head_too_large"));
    let many = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(201));
    assert_eq!(response(many).unwrap_err(), (502, "upstream_too_many_fields"));
}

/// Parses an input as it arrives byte by byte: the first verdict, and after how many bytes.
fn dripped<T>(text: &[u8], parse: impl Fn(&[u8]) -> Result<Parsed<T>, Refusal>) -> Result<Parsed<T>, Refusal> {
    (0..text.len())
        .map(|len| parse(&text[..len]))
        .find(|parsed| !matches!(parsed, Ok(Parsed::Partial)))
        .unwrap_or_else(|| parse(text))
}

fn same<T: std::fmt::Debug>(one: &Result<Parsed<T>, Refusal>, other: &Result<Parsed<T>, Refusal>) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

const SMALL: HeadLimits =
    HeadLimits { line_bytes: 40, head_bytes: 120, fields: 4, underscores: false, merge_slashes: true };

prop_compose! {
    fn nearly_a_head()(parts in proptest::collection::vec(prop_oneof![
        prop::sample::select(vec![
            &b"GET / HTTP/1.1\r\n"[..], b"HTTP/1.1 200 OK\r\n", b"POST http://a/%2e?x HTTP/1.0\n", b"Host: a\r\n", b"Host: b:1\n",
            b"Content-Length: 1\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\r\n", b"\n", b"\r", b" ",
            b"A: b", b"_: x\r\n", b"HTTP/2.", b"GET /", b"aaaaaaaaaaaaaaaaaaaaaaaa", b":", b"/..", b"\x16", b"\0", b"\xff",
        ]).prop_map(<[u8]>::to_vec),
        proptest::collection::vec(any::<u8>(), 0..3),
    ], 0..10)) -> Vec<u8> { parts.concat() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_request_head_means_the_same_however_it_arrives(text in nearly_a_head()) {
        let parse = |text: &[u8]| parse_request(text, &SMALL);
        let (whole, dripped) = (parse(&text), dripped(&text, parse));
        prop_assert!(same(&whole, &dripped), "{}\n{whole:?}\n{dripped:?}", text.escape_ascii());
    }

    #[test]
    fn a_response_head_means_the_same_however_it_arrives(text in nearly_a_head()) {
        let parse = |text: &[u8]| parse_response(text, 60);
        let (whole, dripped) = (parse(&text), dripped(&text, parse));
        prop_assert!(same(&whole, &dripped), "{}\n{whole:?}\n{dripped:?}", text.escape_ascii());
    }

    #[test]
    fn a_request_that_is_let_through_is_free_of_what_could_split_it(text in nearly_a_head()) {
        if let Ok(Parsed::Complete(head, used)) = parse_request(&text, &SMALL) {
            prop_assert!(used <= text.len());
            prop_assert!(head.path.starts_with(b"/"));
            prop_assert!(head.target.iter().all(u8::is_ascii_graphic));
            for (name, value) in head.fields.iter() {
                prop_assert!(crate::http::fields::is_token(name));
                prop_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
            }
        }
    }

    #[test]
    fn no_bytes_make_a_head_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_request(&text, &SMALL);
        let _ = parse_response(&text, 100);
        let _ = request_line(&text);
    }
}
