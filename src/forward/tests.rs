mod request;
mod response;
mod target;

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
    variables::{Known, Part, Template, Variable},
    websocket::handshake::{Protocols, judge_request},
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

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n")
}

fn add(name: &str, value: Template, always: bool) -> AddHeader {
    AddHeader { name: name.into(), value, always }
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
