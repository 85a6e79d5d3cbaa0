//! The first line of a request, and how large a head may be.

use super::{Case, arrives, forwarded, get, refused, request, rules};

rules![
    a_method_is_an_upper_case_token,
    connect_and_trace_are_never_served,
    a_target_is_a_path,
    an_absolute_target_agrees_with_host,
    one_space_stands_between_the_parts_of_a_request_line,
    the_version_is_1_1_or_1_0,
    one_empty_line_before_a_request_is_ignored,
    bare_lf_ends_a_line_and_goes_on_as_crlf,
    a_request_line_is_at_most_so_long,
    a_head_is_at_most_so_large,
    a_head_has_at_most_so_many_fields,
];

fn line(line: &str) -> String {
    request(line, "")
}

fn a_method_is_an_upper_case_token() -> Vec<Case> {
    let bad = |name: &str, method: &str| refused(name, line(&format!("{method} / HTTP/1.1")), 400, "bad_method");
    vec![
        bad("no method", ""),
        bad("a space before the method", " GET"),
        bad("`get`", "get"),
        bad("`G@T`", "G@T"),
        bad("`GET` with a NUL in it", "G\0ET"),
        bad("a method with a colon", "GET:"),
        refused(
            "a TLS ClientHello",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
            400,
            "tls_on_plain_port",
        ),
        forwarded("`PURGE`", line("PURGE / HTTP/1.1"), arrives("PURGE / HTTP/1.1", "", "")),
        forwarded("`M-SEARCH`", line("M-SEARCH / HTTP/1.1"), arrives("M-SEARCH / HTTP/1.1", "", "")),
    ]
}

fn connect_and_trace_are_never_served() -> Vec<Case> {
    vec![
        refused("`TRACE /`", line("TRACE / HTTP/1.1"), 405, "method_not_allowed"),
        refused("`CONNECT x:80`", line("CONNECT x:80 HTTP/1.1"), 405, "method_not_allowed"),
        refused("`CONNECT /`", line("CONNECT / HTTP/1.1"), 405, "method_not_allowed"),
    ]
}

fn a_target_is_a_path() -> Vec<Case> {
    let bad = |name: &str, target: &str, reason| refused(name, line(&format!("GET {target} HTTP/1.1")), 400, reason);
    let good = |name: &str, target: &str| {
        let line = format!("GET {target} HTTP/1.1");
        forwarded(name, self::line(&line), arrives(&line, "", ""))
    };
    vec![
        bad("`/a#b` (CVE-2023-45539)", "/a#b", "bad_target"),
        bad("`/a?b#c`", "/a?b#c", "bad_target"),
        bad("a control byte", "/\x01", "bad_target"),
        bad("ESC, to the terminal that shows a log", "/\x1b[2J", "bad_target"),
        bad("DEL", "/\x7f", "bad_target"),
        bad("NUL", "/\0", "bad_target"),
        bad("UTF-8 that is not escaped", "/\u{e9}", "bad_target"),
        bad("no slash", "a", "bad_target_form"),
        bad("`*` of a GET", "*", "bad_target_form"),
        bad("`?a`", "?a", "bad_target_form"),
        bad("`ftp://x/`", "ftp://x/", "bad_target_form"),
        bad("`x:80`", "x:80", "bad_target_form"),
        bad("`@evil/`", "@evil/", "bad_target_form"),
        good("`/a%20b?c=%41`", "/a%20b?c=%41"),
        good("`//a` stays `//a`", "//a"),
        forwarded("`OPTIONS *`", line("OPTIONS * HTTP/1.1"), arrives("OPTIONS * HTTP/1.1", "", "")),
    ]
}

fn an_absolute_target_agrees_with_host() -> Vec<Case> {
    let other = |name: &str, target: &str| refused(name, line(&format!("GET {target} HTTP/1.1")), 400, "host_mismatch");
    vec![
        other("`http://y/`, Host `x`", "http://y/"),
        other("`http://x@y/`, Host `x`", "http://x@y/"),
        other("`http://x:81/`, Host `x`", "http://x:81/"),
        other("`http:///`, Host `x`", "http:///"),
        other("`http://x\\@y/`, Host `x`", "http://x\\@y/"),
        refused("`http://x/` without Host", "GET http://x/ HTTP/1.1\r\n\r\n", 400, "no_host"),
        forwarded("`http://x/a`, Host `x`", line("GET http://x/a HTTP/1.1"), arrives("GET /a HTTP/1.1", "", "")),
        forwarded("`http://X?a`, Host `x`", line("GET http://X?a HTTP/1.1"), arrives("GET /?a HTTP/1.1", "", "")),
        forwarded("`OPTIONS http://x`", line("OPTIONS http://x HTTP/1.1"), arrives("OPTIONS * HTTP/1.1", "", "")),
        forwarded("`OPTIONS http://x/`", line("OPTIONS http://x/ HTTP/1.1"), arrives("OPTIONS / HTTP/1.1", "", "")),
    ]
}

fn one_space_stands_between_the_parts_of_a_request_line() -> Vec<Case> {
    let bad = |name: &str, text: &str, reason| refused(name, line(text), 400, reason);
    vec![
        bad("two spaces behind the method", "GET  / HTTP/1.1", "bad_target"),
        bad("two spaces before the version", "GET /  HTTP/1.1", "bad_request_line"),
        bad("a space in the target", "GET /a b HTTP/1.1", "bad_request_line"),
        bad("a second version", "GET / HTTP/1.1 HTTP/1.1", "bad_request_line"),
        bad("a space behind the version", "GET / HTTP/1.1 ", "bad_request_line"),
        bad("TAB behind the method", "GET\t/ HTTP/1.1", "bad_method"),
        bad("TAB before the version", "GET /\tHTTP/1.1", "bad_target"),
        bad("VT behind the method", "GET\x0b/ HTTP/1.1", "bad_method"),
        bad("a bare CR in the line", "GET /\r HTTP/1.1", "bad_target"),
        bad("a bare CR behind the version", "GET / HTTP/1.1\rX: y", "bad_request_line"),
    ]
}

fn the_version_is_1_1_or_1_0() -> Vec<Case> {
    let other = |version: &str| refused(format!("`{version}`"), line(&format!("GET / {version}")), 505, "http_version");
    let none = |name: &str, version: &str| refused(name, line(&format!("GET /{version}")), 400, "bad_request_line");
    vec![
        other("HTTP/2.0"),
        other("HTTP/1.2"),
        other("HTTP/0.9"),
        other("HTTP/9.9"),
        refused("HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version"),
        none("`http/1.1`", " http/1.1"),
        none("`HTTP/1.10`", " HTTP/1.10"),
        none("`HTTP/01.1`", " HTTP/01.1"),
        none("`HTTP/1,1`", " HTTP/1,1"),
        none("`HTTP/1`", " HTTP/1"),
        none("`ICY/1.1`", " ICY/1.1"),
        refused("none, as in HTTP/0.9", "GET /\r\n", 400, "bad_target"),
        forwarded("`HTTP/1.0`", line("GET / HTTP/1.0"), arrives("GET / HTTP/1.1", "", "")),
        forwarded(
            "`HTTP/1.0` without Host",
            "GET / HTTP/1.0\r\n\r\n",
            arrives("GET / HTTP/1.1", "", "").replace("Host: x", "Host: app"),
        ),
    ]
}

fn one_empty_line_before_a_request_is_ignored() -> Vec<Case> {
    let arrives = || arrives("GET / HTTP/1.1", "", "");
    vec![
        forwarded("CRLF", format!("\r\n{}", get("")), arrives()),
        forwarded("LF", format!("\n{}", get("")), arrives()),
        refused("two of them", format!("\r\n\r\n{}", get("")), 400, "bad_request_line"),
        refused("a bare CR", format!("\r{}", get("")), 400, "bad_method"),
    ]
}

fn bare_lf_ends_a_line_and_goes_on_as_crlf() -> Vec<Case> {
    let arrives = arrives("GET / HTTP/1.1", "", "X: 1\r\nY: 2\r\n");
    vec![
        forwarded("every line", "GET / HTTP/1.1\nHost: x\nX: 1\nY: 2\n\n", arrives.clone()),
        forwarded("some lines", "GET / HTTP/1.1\r\nHost: x\nX: 1\r\nY: 2\n\r\n", arrives),
    ]
}

fn a_request_line_is_at_most_so_long() -> Vec<Case> {
    let long = "a".repeat(9000);
    vec![
        refused("9,000 bytes of path", line(&format!("GET /{long} HTTP/1.1")), 414, "request_line_too_long"),
        refused("9,000 bytes of query", line(&format!("GET /?{long} HTTP/1.1")), 414, "request_line_too_long"),
        refused("9,000 bytes without an end", format!("GET /{long}"), 414, "request_line_too_long"),
        refused("9,000 bytes of method", long, 414, "request_line_too_long"),
    ]
}

fn a_head_is_at_most_so_large() -> Vec<Case> {
    let field = |length: usize| format!("X: {}\r\n", "a".repeat(length));
    vec![
        refused("a field of 9,000 bytes", get(&field(9000)), 431, "field_too_long"),
        refused("a name of 9,000 bytes", get(&"a".repeat(9000)), 431, "field_too_long"),
        refused("56,000 bytes of fields", get(&field(7000).repeat(8)), 431, "head_too_large"),
    ]
}

fn a_head_has_at_most_so_many_fields() -> Vec<Case> {
    let fields = |count: usize| (0..count).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    vec![
        refused("101 fields", get(&fields(100)), 431, "too_many_fields"),
        refused("1,000 fields", get(&fields(1000)), 431, "too_many_fields"),
        forwarded("100 fields", get(&fields(99)), arrives("GET / HTTP/1.1", "", &fields(99))),
    ]
}
