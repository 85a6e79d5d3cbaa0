//! The fields of a request: Host, what a field may look like, and which of them a client cannot make go away.

use super::{Case, arrives, forwarded, get, refused, request, rules};

rules![
    exactly_one_host_of_a_name_and_a_port,
    a_name_is_a_token_directly_before_its_colon,
    a_field_does_not_go_on_over_a_second_line,
    a_value_has_no_control_byte,
    names_with_an_underscore_are_dropped,
    hop_by_hop_fields_end_here,
    connection_cannot_nominate_what_a_backend_trusts,
];

fn host(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\n{lines}\r\n")
}

fn exactly_one_host_of_a_name_and_a_port() -> Vec<Case> {
    let bad = |value: &str| refused(format!("`Host: {value}`"), host(&format!("Host: {value}\r\n")), 400, "bad_host");
    let good = |sent: &str, arrives: &str| {
        let head = super::arrives("GET / HTTP/1.1", "", "").replace("Host: x", &format!("Host: {arrives}"));
        forwarded(format!("`Host: {sent}`"), host(&format!("Host: {sent}\r\n")), head)
    };
    vec![
        refused("no Host", host(""), 400, "no_host"),
        refused("two Hosts", host("Host: x\r\nHost: y\r\n"), 400, "two_hosts"),
        refused("the same Host twice", host("Host: x\r\nHost: x\r\n"), 400, "two_hosts"),
        refused("two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400, "two_hosts"),
        refused("`Host : x`", host("Host : x\r\n"), 400, "bad_field_name"),
        refused("Host folded over two lines", host("Host:\r\n x\r\n"), 400, "obs_fold"),
        bad(""),
        bad("a@x"),
        bad("x/a"),
        bad("x?a"),
        bad("x#a"),
        bad("x\\a"),
        bad("x y"),
        bad("x, y"),
        bad("x:65536"),
        bad("x:8o"),
        bad("x:-1"),
        bad("x:80:80"),
        bad("x:80@y"),
        bad("x%00y"),
        bad("x..y"),
        bad("[::1"),
        bad("[::1]y"),
        bad("::1"),
        bad("<script>"),
        bad("${jndi:ldap://y}"),
        good("X:8080", "x"),
        good("x.", "x"),
        good("[::1]:80", "[::1]"),
    ]
}

fn a_name_is_a_token_directly_before_its_colon() -> Vec<Case> {
    let bad = |name: &str, lines: &str| refused(name, get(lines), 400, "bad_field_name");
    vec![
        bad("an empty name (CVE-2023-25725)", ": 1\r\n"),
        bad("a space before the colon", "X : 1\r\n"),
        bad("TAB before the colon", "X\t: 1\r\n"),
        bad("VT before the colon", "X\x0b: 1\r\n"),
        bad("a space in the name", "X Y: 1\r\n"),
        bad("a parenthesis in the name", "X(: 1\r\n"),
        bad("a quote in the name", "\"X\": 1\r\n"),
        bad("a slash in the name", "X/Y: 1\r\n"),
        bad("a high byte in the name", "X\u{e9}: 1\r\n"),
        bad("no colon", "nothing\r\n"),
        refused("NUL in the name", get("X\0: 1\r\n"), 400, "nul_in_field"),
        refused("a bare CR in the name", get("X\r: 1\r\n"), 400, "bare_cr"),
        bad("`Transfer-Encoding : chunked`", "Transfer-Encoding : chunked\r\n"),
        bad("`Content-Length : 5`", "Content-Length : 5\r\n"),
        forwarded(
            "``!#$%&'*+-.^`|~``",
            get("!#$%&'*+-.^`|~: 1\r\n"),
            arrives("GET / HTTP/1.1", "", "!#$%&'*+-.^`|~: 1\r\n"),
        ),
    ]
}

fn a_field_does_not_go_on_over_a_second_line() -> Vec<Case> {
    let bad = |name: &str, lines: &str| refused(name, get(lines), 400, "obs_fold");
    vec![
        bad("a line that begins with a space", "X: 1\r\n 2\r\n"),
        bad("a line that begins with TAB", "X: 1\r\n\t2\r\n"),
        bad("a line of one space", "X: 1\r\n \r\n"),
        bad("`Transfer-Encoding:` and on the next line ` chunked`", "Transfer-Encoding:\r\n chunked\r\n"),
        bad("`X: 1` and on the next line ` Content-Length: 5`", "X: 1\r\n Content-Length: 5\r\n"),
        refused("the first field", "GET / HTTP/1.1\r\n X: 1\r\nHost: x\r\n\r\n", 400, "obs_fold"),
    ]
}

fn a_value_has_no_control_byte() -> Vec<Case> {
    let bad = |name: &str, value: &str, reason| refused(name, get(&format!("X: {value}\r\n")), 400, reason);
    vec![
        bad("NUL", "a\0b", "nul_in_field"),
        bad("a bare CR", "a\rb", "bare_cr"),
        bad("a bare CR and a field behind it", "a\rTransfer-Encoding: chunked", "bare_cr"),
        bad("CR CR LF", "a\r", "bare_cr"),
        bad("BEL", "a\x07b", "bad_field_value"),
        bad("ESC", "a\x1b[2Jb", "bad_field_value"),
        bad("VT", "a\x0bb", "bad_field_value"),
        bad("DEL", "a\x7fb", "bad_field_value"),
        forwarded("blanks around and within it", get("X:  a\tb \t\r\n"), arrives("GET / HTTP/1.1", "", "X: a\tb\r\n")),
        forwarded("no value", get("X:\r\n"), arrives("GET / HTTP/1.1", "", "X: \r\n")),
    ]
}

fn names_with_an_underscore_are_dropped() -> Vec<Case> {
    let plain = || arrives("GET / HTTP/1.1", "", "");
    vec![
        forwarded("`X_Real_IP: 6.6.6.6`", get("X_Real_IP: 6.6.6.6\r\n"), plain()),
        forwarded("`Content_Length: 5`", get("Content_Length: 5\r\n"), plain()),
        forwarded("`Transfer_Encoding: chunked`", get("Transfer_Encoding: chunked\r\n"), plain()),
    ]
}

fn hop_by_hop_fields_end_here() -> Vec<Case> {
    let end =
        |field: &str| forwarded(format!("`{field}`"), get(&format!("{field}\r\n")), arrives("GET / HTTP/1.1", "", ""));
    vec![
        end("Keep-Alive: 5"),
        end("Proxy-Connection: keep-alive"),
        end("TE: trailers"),
        end("Trailer: X"),
        end("HTTP2-Settings: AAMAAABkAAQAAP__"),
        end("Expect: 200-ok"),
        forwarded(
            "`Connection: X-Hop`",
            get("Connection: X-Hop\r\nX-Hop: 1\r\nX: 1\r\n"),
            arrives("GET / HTTP/1.1", "", "X: 1\r\n"),
        ),
        forwarded(
            "`Connection: close, X-A` and `Connection: x-b`",
            get("Connection: close, X-A\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 2\r\n"),
            arrives("GET / HTTP/1.1", "", ""),
        ),
    ]
}

fn connection_cannot_nominate_what_a_backend_trusts() -> Vec<Case> {
    let stays = |field: &str, value: &str| {
        let fields = format!("Connection: {field}\r\n{field}: {value}\r\n");
        forwarded(
            format!("`Connection: {field}`"),
            get(&fields),
            arrives("GET / HTTP/1.1", "", &format!("{field}: {value}\r\n")),
        )
    };
    vec![
        forwarded("`Connection: Host`", get("Connection: Host\r\n"), arrives("GET / HTTP/1.1", "", "")),
        forwarded("`Connection: X-Real-IP`", get("Connection: X-Real-IP\r\n"), arrives("GET / HTTP/1.1", "", "")),
        forwarded(
            "`Connection: close, X-Real-IP`, and one of the client's",
            get("Connection: close, X-Real-IP\r\nX-Real-IP: 6.6.6.6\r\n"),
            arrives("GET / HTTP/1.1", "", ""),
        ),
        stays("X-Forwarded-For", "6.6.6.6"),
        stays("X-Forwarded-Proto", "https"),
        stays("Forwarded", "for=6.6.6.6"),
        stays("Sec-WebSocket-Protocol", "chat"),
        forwarded(
            "`Connection: Content-Length`",
            request("POST / HTTP/1.1", "Connection: Content-Length\r\nContent-Length: 5\r\n") + "hello",
            arrives("POST / HTTP/1.1", "Content-Length: 5\r\n", "") + "hello",
        ),
        forwarded(
            "`Connection: Transfer-Encoding` (CVE-2026-26365)",
            request("POST / HTTP/1.1", "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n")
                + "5\r\nhello\r\n0\r\n\r\n",
            arrives("POST / HTTP/1.1", "Transfer-Encoding: chunked\r\n", "") + "hello",
        ),
    ]
}
