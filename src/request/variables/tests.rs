use std::time::Instant;

use super::*;
use crate::{
    request::{
        Traffic,
        tests::{client, config, head, request, server},
    },
    route::map::Map,
    tls::TlsFacts,
    variables::{Part, Template},
};

fn plain(target: &str, fields: &[(&str, &str)]) -> Request {
    request(config(vec![server("first.example")], Vec::new()), head(target, fields))
}

/// A variable's value, by the name it has in a file; none where a log would print `-`.
fn value(request: &mut Request, name: &str) -> Option<String> {
    let dashed = |name: &str| name.replace('_', "-").into_boxed_str();
    let variable = Known::named(name).map(Variable::Known).unwrap_or_else(|| {
        let (family, rest) = name.split_once('_').unwrap_or(("", name));
        match family {
            "http" => Variable::RequestField(dashed(rest)),
            "sent" => Variable::SentField(dashed(rest.trim_start_matches("http_"))),
            "upstream" => Variable::UpstreamField(dashed(rest.trim_start_matches("http_"))),
            "arg" => Variable::Argument(rest.into()),
            "cookie" => Variable::Cookie(rest.into()),
            _ => Variable::Capture(rest.parse().unwrap()),
        }
    });
    let mut out = Vec::new();
    let found = request.append(&variable, &mut out);
    found.then(|| String::from_utf8(out).unwrap())
}

fn assert_values(request: &mut Request, expected: &[(&str, &str)]) {
    for (name, text) in expected {
        assert_eq!(value(request, name).as_deref(), Some(*text), "${name}");
    }
}

fn assert_missing(request: &mut Request, names: &[&str]) {
    for name in names {
        assert_eq!(value(request, name), None, "${name}");
    }
}

#[test]
fn the_request_as_it_came_and_as_it_stands() {
    let mut request = plain("/chat/a?room=1&x", &[("Host", "Example.com:8080")]);
    request.uri = b"/new".to_vec();
    request.received = 120;
    assert_values(
        &mut request,
        &[
            ("request", "GET /chat/a?room=1&x HTTP/1.1"),
            ("request_method", "GET"),
            ("request_uri", "/chat/a?room=1&x"),
            ("uri", "/new"),
            ("document_uri", "/new"),
            ("args", "room=1&x"),
            ("query_string", "room=1&x"),
            ("is_args", "?"),
            ("server_protocol", "HTTP/1.1"),
            ("host", "example.com"),
            ("http_host", "Example.com:8080"),
            ("server_name", "first.example"),
            ("scheme", "http"),
            ("https", ""),
            ("request_length", "120"),
            ("pipe", "."),
            ("request_completion", ""),
        ],
    );
}

#[test]
fn an_absolute_target_is_shown_without_its_authority() {
    for (target, expected) in [
        ("http://example.com/a?b", "/a?b"),
        ("http://example.com", "/"),
        ("http://example.com?b", "/?b"),
        ("/a?u=http://x/", "/a?u=http://x/"),
        ("*", "*"),
    ] {
        assert_values(&mut plain(target, &[]), &[("request_uri", expected)]);
    }
}

#[test]
fn without_arguments_without_host_and_without_field() {
    let mut request = plain("/", &[]);
    assert_values(&mut request, &[("host", "first.example"), ("is_args", "")]);
    assert_missing(
        &mut request,
        &["args", "http_upgrade", "arg_a", "cookie_a", "remote_user", "content_length", "content_type"],
    );
    assert_missing(&mut request, &["proxy_host", "proxy_port", "close_reason", "sent_http_x", "upstream_http_x", "_1"]);
    assert_missing(&mut request, &["upstream_addr", "upstream_status", "upstream_response_time", "ssl_protocol"]);
}

#[test]
fn a_refused_request_has_its_line_and_no_more() {
    let shared = Arc::new(config(vec![server("x")], Vec::new()));
    let mut request = Request::refused(shared, Arc::new(client()), 1, 0, *b"GET / HTTP/9", Instant::now());
    assert_values(
        &mut request,
        &[("request", "GET / HTTP/9"), ("host", "x"), ("status", "000"), ("remote_addr", "192.0.2.1")],
    );
    assert_missing(&mut request, &["request_method", "request_uri", "uri", "server_protocol"]);
}

#[test]
fn fields_of_several_lines_are_joined_and_underscores_are_dashes() {
    let fields = [
        ("X-A", "1"),
        ("x-a", "2"),
        ("Cookie", "a=1"),
        ("Cookie", "b=2"),
        ("X_B", "3"),
        ("X-Forwarded-For", "10.0.0.1"),
    ];
    let mut request = plain("/", &fields);
    assert_values(
        &mut request,
        &[
            ("http_x_a", "1, 2"),
            ("http_cookie", "a=1; b=2"),
            ("http_x_b", "3"),
            ("proxy_add_x_forwarded_for", "10.0.0.1, 192.0.2.1"),
        ],
    );
    assert_values(&mut plain("/", &[]), &[("proxy_add_x_forwarded_for", "192.0.2.1")]);
}

#[test]
fn arguments_are_found_in_any_case_and_as_sent() {
    let mut request = plain("/?xroom=0&Room=a%20b&room=c&empty=&flag", &[]);
    assert_values(&mut request, &[("arg_room", "a%20b"), ("arg_empty", "")]);
    assert_missing(&mut request, &["arg_flag", "arg_oom"]);
}

#[test]
fn cookies_are_found_in_any_case_over_all_lines() {
    let mut request = plain("/", &[("Cookie", "a=1; Session = x=y;c"), ("Cookie", "d=4")]);
    assert_values(&mut request, &[("cookie_session", "x=y"), ("cookie_d", "4"), ("cookie_a", "1")]);
    assert_missing(&mut request, &["cookie_c", "cookie_x"]);
}

#[test]
fn the_user_is_that_of_basic_credentials() {
    for (credentials, expected) in [
        ("Basic YWxpY2U6c2VjcmV0", Some("alice")),
        ("basic YWxpY2U6", Some("alice")),
        ("Basic YWxpY2U6eA", Some("alice")),
        ("Basic YWxpY2U=", None),
        ("Bearer YWxpY2U6c2VjcmV0", None),
        ("Basic %%%", None),
        // "a\r\nb:" would end the field it is written to.
        ("Basic YQ0KYjo=", None),
    ] {
        assert_eq!(
            value(&mut plain("/", &[("Authorization", credentials)]), "remote_user").as_deref(),
            expected,
            "{credentials}"
        );
    }
}

#[test]
fn addresses_of_every_family() {
    let with = |remote: Address, local: Address| {
        let mut request = plain("/", &[]);
        let tls = Some(TlsFacts {
            protocol: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            curve: "X25519",
            server_name: Some("x.example".into()),
            resumed: false,
        });
        request.client = Arc::new(super::super::ClientConnection { remote, local, tls, ..client() });
        request
    };
    let mut six = with(Address::Tcp("[2001:db8::1]:5".parse().unwrap()), Address::Tcp("[::1]:443".parse().unwrap()));
    assert_values(
        &mut six,
        &[
            ("remote_addr", "2001:db8::1"),
            ("remote_port", "5"),
            ("realip_remote_addr", "2001:db8::1"),
            ("server_addr", "::1"),
            ("server_port", "443"),
            ("scheme", "https"),
            ("https", "on"),
            ("ssl_protocol", "TLSv1.3"),
            ("ssl_cipher", "TLS_AES_128_GCM_SHA256"),
            ("ssl_curve", "X25519"),
            ("ssl_server_name", "x.example"),
            ("ssl_session_reused", "."),
        ],
    );
    let mut binary = Vec::new();
    six.append(&Variable::Known(Known::BinaryRemoteAddr), &mut binary);
    assert_eq!(binary.len(), 16);
    let mut unix = with(Address::Unix("".into()), Address::Unix("/run/x.sock".into()));
    assert_values(
        &mut unix,
        &[
            ("remote_addr", "unix:"),
            ("remote_port", ""),
            ("binary_remote_addr", "unix:"),
            ("server_addr", "unix:/run/x.sock"),
        ],
    );
}

#[test]
fn backends_are_listed_in_the_order_they_were_tried() {
    let mut request = plain("/", &[]);
    let failed = Attempt { address: "127.0.0.1:1".into(), status: 502, ..Attempt::default() };
    request.attempts = vec![
        failed,
        Attempt {
            address: "127.0.0.1:2".into(),
            status: 101,
            began: Duration::from_millis(2),
            connect_time: Some(Duration::from_millis(1)),
            header_time: Some(Duration::from_millis(12)),
            response_time: Some(Duration::from_micros(61_002_900)),
            bytes_sent: 3,
            bytes_received: 4,
            body_bytes: 5,
            tunnelled: Traffic { from_client: 30, from_upstream: 40, ..Traffic::default() },
        },
    ];
    assert_values(
        &mut request,
        &[
            ("upstream_addr", "127.0.0.1:1, 127.0.0.1:2"),
            ("upstream_status", "502, 101"),
            ("upstream_connect_time", "-, 0.001"),
            ("upstream_header_time", "-, 0.012"),
            ("upstream_response_time", "-, 61.002"),
            ("upstream_bytes_sent", "0, 33"),
            ("upstream_bytes_received", "0, 44"),
            ("upstream_response_length", "0, 5"),
        ],
    );
    let second_group = [Attempt::default(), request.attempts[0].clone()];
    request.attempts.extend(second_group);
    assert_values(
        &mut request,
        &[("upstream_addr", "127.0.0.1:1, 127.0.0.1:2 : 127.0.0.1:1"), ("upstream_status", "502, 101 : 502")],
    );
    request.attempts.truncate(2);
    request.attempts[0].status = 0;
    assert_values(&mut request, &[("upstream_status", "-, 101")]);
}

#[test]
fn the_answer_and_its_sizes() {
    let mut request = plain("/", &[]);
    assert_values(&mut request, &[("status", "000")]);
    request.error_status = Some(502);
    assert_values(&mut request, &[("status", "502")]);
    request.status = 101;
    request.bytes_sent = 300;
    request.body_bytes_sent = 100;
    request.close_reason = Some("idle_timeout");
    request.completed = true;
    request.pipelined = true;
    assert_values(
        &mut request,
        &[
            ("status", "101"),
            ("bytes_sent", "300"),
            ("body_bytes_sent", "100"),
            ("close_reason", "idle_timeout"),
            ("request_completion", "OK"),
            ("pipe", "p"),
            ("connection", "7"),
            ("connection_requests", "1"),
        ],
    );
}

#[test]
fn times_have_nginxs_shapes() {
    let mut request = plain("/", &[]);
    let shapes = [
        ("request_time", r"^\d+\.\d{3}$"),
        ("connection_time", r"^\d+\.\d{3}$"),
        ("msec", r"^\d{10}\.\d{3}$"),
        ("time_local", r"^\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}$"),
        ("time_iso8601", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$"),
        ("hostname", r"^[^A-Z]+$"),
        ("pid", r"^\d+$"),
        ("nginx_version", r"^\d+\.\d+\.\d+$"),
        ("request_id", r"^[0-9a-f]{32}$"),
    ];
    for (name, shape) in shapes {
        let text = value(&mut request, name).unwrap();
        assert!(regex::Regex::new(shape).unwrap().is_match(&text), "${name}: {text}");
    }
}

#[test]
fn the_request_id_is_one_for_each_request() {
    let (mut one, mut other) = (plain("/", &[]), plain("/", &[]));
    assert_eq!(value(&mut one, "request_id"), value(&mut one, "request_id"));
    assert_ne!(value(&mut one, "request_id"), value(&mut other, "request_id"));
}

fn variable(variable: Variable) -> Template {
    Template { parts: vec![Part::Variable(variable)] }
}

fn map(source: Template, volatile: bool, lines: Vec<(&str, Template)>) -> Map {
    let mut map = Map::new("m", source, false, volatile);
    for (key, value) in lines {
        map.insert(key, value, &mut |_| 3).unwrap();
    }
    map
}

fn mapped(request: &mut Request, number: usize) -> String {
    let mut out = Vec::new();
    assert!(request.append(&Variable::Map(number), &mut out));
    String::from_utf8(out).unwrap()
}

fn with_maps(maps: Vec<Map>) -> Request {
    request(config(vec![server("x")], maps), head("/a/b", &[]))
}

#[test]
fn a_map_is_computed_once_unless_volatile() {
    let uri = || variable(Variable::Known(Known::Uri));
    let lines = || vec![("/a/b", Template::text("old")), ("default", Template::text("new"))];
    let mut request = with_maps(vec![map(uri(), false, lines()), map(uri(), true, lines())]);
    assert_eq!((mapped(&mut request, 0), mapped(&mut request, 1)), ("old".to_owned(), "old".to_owned()));
    request.uri = b"/c".to_vec();
    assert_eq!((mapped(&mut request, 0), mapped(&mut request, 1)), ("old".to_owned(), "new".to_owned()));
}

#[test]
fn a_maps_captures_are_its_own_and_its_names_stay() {
    let lines = vec![("~^/(?<first>.)/(.)", variable(Variable::Capture(2)))];
    let mut request = with_maps(vec![map(variable(Variable::Known(Known::Uri)), false, lines)]);
    request.captures = vec![b"outer".to_vec()];
    assert_eq!(mapped(&mut request, 0), "b");
    assert_eq!(request.captures, [b"outer".to_vec()]);
    assert_eq!(request.slots[3].as_deref(), Some(b"a".as_slice()));
}

#[test]
fn a_map_without_match_is_empty() {
    let mut request = with_maps(vec![map(Template::text("k"), false, vec![("other", Template::text("x"))])]);
    assert_eq!(mapped(&mut request, 0), "");
}

#[test]
fn maps_that_name_each_other_end() {
    let twice =
        |number| Template { parts: vec![Part::Variable(Variable::Map(number)), Part::Variable(Variable::Map(number))] };
    for volatile in [false, true] {
        let ring =
            (0..3).map(|number| map(twice((number + 1) % 3), volatile, vec![("default", twice((number + 2) % 3))]));
        let mut request = with_maps(ring.collect());
        assert_eq!(mapped(&mut request, 0), "");
        assert_eq!(request.depth, 0);
    }
}

#[test]
fn a_chain_of_maps_deeper_than_the_limit_is_cut() {
    let depth = usize::from(VARIABLE_DEPTH) + 5;
    let chain = (0..depth)
        .map(|number| map(Template::text("k"), false, vec![("default", variable(Variable::Map(number + 1)))]));
    let mut request = with_maps(chain.collect());
    assert_eq!(mapped(&mut request, 0), "");
    assert_eq!(request.depth, 0);
}
