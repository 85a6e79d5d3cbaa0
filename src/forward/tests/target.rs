//! Where a request goes: its target, and its backend where that is a variable.

use super::*;
use crate::route::rewrite::Rewritable;

fn target_of(request: &mut Request, pass: &ProxyPass) -> String {
    forwarded(request, pass).split(' ').nth(1).expect("a target").to_owned()
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
