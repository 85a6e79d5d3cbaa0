//! A request's way from its bytes to those that a backend and the client get: whatever comes in, what goes out is well formed.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use crate::{
    config::{Config, Content, LoadOptions, ProxyPass, Source, load},
    forward::{backend_method, interim_head, own_response, request_head, response_head, switching_head},
    http::{
        body::{Framing, response_framing},
        fields::is_token,
        head::{Parsed, parse_request, parse_response, request_line},
        refusal::{Refusal, page},
    },
    request::{
        Address, ClientConnection, Request,
        routing::{Routed, redirect_error, route},
    },
    route::origin::origin_allowed,
    variables::{Known, Scope, Variable},
    websocket::handshake::{Answer, Upgrade, judge_answer, judge_request},
};

/// A file with every kind of location, rewrite and map.
const FILE: &str = include_str!("serving.conf");
/// A browser's request.
const BROWSER: &[u8] = b"GET /ws/chat?room=a-1 HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// Its answer.
const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Redirects of one request, error pages among them.
const TURNS: usize = 4;

/// A request's head, and the head of a backend's response behind it.
pub fn serving(data: &[u8]) {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let file = Source::Text { name: "serving.conf".to_owned(), text: FILE.to_owned() };
        let loaded = load(&LoadOptions { file, prefix: "/nonexistent".into(), globals: None, conf_error_log: None });
        Arc::new(loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.render(false, false))))
    });
    serve(config, data);
}

/// A request of a browser's to the first listener of any configuration.
pub(super) fn serve_one(config: Config) {
    if !config.listeners.is_empty() {
        serve(&Arc::new(config), &[BROWSER, SWITCHING].concat());
    }
}

fn serve(config: &Arc<Config>, data: &[u8]) {
    let listener = &config.listeners[0];
    let limits = &config.servers[listener.default].head;
    let Ok(Parsed::Complete(head, used)) = parse_request(data, limits) else { return };
    let line = request_line(data).to_vec();
    let mut request =
        Request::new(Arc::clone(config), Arc::new(client()), 1, listener.default, head, line, Instant::now());
    request.choose_server(listener);
    lookups(&mut request);
    let mut routed = route(&mut request);
    for _ in 0..TURNS {
        let status = match routed {
            Routed::Content(id) => {
                let config = Arc::clone(&request.config);
                match &config.servers[request.server].locations[id].content {
                    Content::Proxy(pass) => match proxied(&mut request, pass, &data[used..]) {
                        Ok(()) => return,
                        Err(refusal) => refusal.status,
                    },
                    _ => 404,
                }
            }
            Routed::Answer { status, body } => {
                return answered(&own_response(&mut request, status, "text/plain", &body, &[], true, false));
            }
            Routed::Redirect { status, location } => {
                assert!(location.iter().all(u8::is_ascii_graphic));
                let body = page(status, None);
                let extra: [(&str, &[u8]); 1] = [("Location", &location)];
                return answered(&own_response(&mut request, status, "text/html", &body, &extra, true, false));
            }
            Routed::Refuse(status) => status,
            Routed::Forbidden | Routed::Limited(_) => 403,
        };
        match redirect_error(&mut request, status) {
            Some(elsewhere) => routed = elsewhere,
            None => {
                let body = page(status, None);
                return answered(&own_response(&mut request, status, "text/html", &body, &[], false, false));
            }
        }
    }
    panic!("no end of redirects");
}

fn client() -> ClientConnection {
    ClientConnection {
        serial: 7,
        remote: Address::Tcp(([192, 0, 2, 1], 40_000).into()),
        local: Address::Tcp(([198, 51, 100, 2], 80).into()),
        proxied: None,
        tls: None,
        accepted: Instant::now(),
    }
}

/// Every variable has a value or none, and arguments are found where `ngx_http_arg` finds them.
fn lookups(request: &mut Request) {
    let mut value = |variable: Variable| {
        let mut out = b"before".to_vec();
        let known = request.append(&variable, &mut out);
        assert!(known || out.len() == 6, "{variable:?}");
        known.then(|| out.split_off(6))
    };
    for name in Known::NAMES {
        value(Variable::Known(Known::named(name).expect("a name")));
    }
    value(Variable::Cookie("sid".into()));
    value(Variable::RequestField("cookie".into()));
    let found = value(Variable::Argument("a".into()));
    let user = value(Variable::Known(Known::RemoteUser));
    assert!(user.is_none_or(|user| !user.iter().any(u8::is_ascii_control)));
    let args = &request.args;
    let at = (0..args.len()).find(|at| {
        let begins = *at == 0 || args[at - 1] == b'&';
        begins && args[*at].eq_ignore_ascii_case(&b'a') && args.get(at + 1) == Some(&b'=')
    });
    let expected = at.map(|at| args[at + 2..].split(|byte| *byte == b'&').next().unwrap_or_default());
    assert_eq!(found.as_deref(), expected);
}

/// What a backend gets, and what becomes of its answer.
fn proxied(request: &mut Request, pass: &ProxyPass, answer: &[u8]) -> Result<(), Refusal> {
    let settings = Arc::clone(request.settings());
    let upgrade = judge_request(&request.head, &settings.protocols)?;
    if let Some(origins) = &settings.origins {
        origin_allowed(origins, &request.head, request.scheme());
    }
    request.proxy_host = "127.0.0.1:3000".into();
    for keep in [false, true] {
        let head = request_head(request, pass, upgrade.as_ref(), keep)?;
        asked(&head, request, upgrade.as_ref());
    }
    let method = backend_method(request, upgrade.as_ref())?;
    let Ok(Parsed::Complete(head, _)) = parse_response(answer, settings.response_head_bytes) else { return Ok(()) };
    let passed = match (judge_answer(&head, upgrade.as_ref())?, &upgrade) {
        (Answer::Switched { .. }, Some(upgrade)) => switching_head(request, &head, upgrade),
        _ if head.status < 200 => interim_head(&head),
        _ => response_head(request, &head, response_framing(&head, &method), true),
    };
    answered(&passed);
    Ok(())
}

/// A head for a backend: nobody could read it in two ways, and it asks for no more than the client did.
fn asked(text: &[u8], request: &Request, upgrade: Option<&Upgrade>) {
    let mut fields = [httparse::EMPTY_HEADER; 512];
    let mut parsed = httparse::Request::new(&mut fields);
    assert_eq!(parsed.parse(text), Ok(httparse::Status::Complete(text.len())), "{}", text.escape_ascii());
    let line = text.split(|byte| *byte == b'\r').next().unwrap_or_default();
    assert_eq!(line.iter().filter(|byte| **byte == b' ').count(), 2);
    let values = |name: &str| {
        let of_name = parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        of_name.map(|field| field.value).collect::<Vec<_>>()
    };
    assert_eq!(values("host").len(), 1);
    let framing = (values("content-length"), values("transfer-encoding"));
    match request.head.body {
        Framing::Length(length) => assert_eq!(framing, (vec![length.to_string().as_bytes()], vec![])),
        Framing::Chunked => assert_eq!(framing, (vec![], vec![&b"chunked"[..]])),
        Framing::None | Framing::UntilClose => assert_eq!(framing, (vec![], vec![])),
    }
    let expected: Vec<&[u8]> = upgrade.map(|upgrade| upgrade.token.as_bytes()).into_iter().collect();
    assert_eq!(values("upgrade"), expected);
    assert_eq!(values("connection").contains(&&b"upgrade"[..]), upgrade.is_some());
    no_control_bytes(parsed.headers);
}

/// A head for the client, and perhaps a body.
fn answered(text: &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 512];
    let mut parsed = httparse::Response::new(&mut fields);
    match parsed.parse(text) {
        // 444: nothing is said.
        _ if text.is_empty() => return,
        Ok(httparse::Status::Complete(_)) => {}
        other => panic!("{other:?}: {}", text.escape_ascii()),
    }
    let framing = ["content-length", "transfer-encoding"];
    let framed = parsed.headers.iter().filter(|field| framing.iter().any(|name| field.name.eq_ignore_ascii_case(name)));
    assert!(framed.count() <= 1);
    no_control_bytes(parsed.headers);
}

fn no_control_bytes(fields: &[httparse::Header<'_>]) {
    for field in fields {
        assert!(is_token(field.name.as_bytes()));
        assert!(field.value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control()));
    }
}
