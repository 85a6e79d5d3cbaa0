//! Rules that a file has a say in, or the clock.

use std::{sync::mpsc, thread, time::Duration};

use super::{
    site::{Channel, Site},
    upgrade::upgrade,
};
use crate::util::{
    Backend, Driver, PATIENCE, Proxy, beyond_nginx, eventually,
    frames::{self, KEY},
};

/// One server before `backend`, whose file says nothing of upgrades.
fn before(backend: &Backend) -> Proxy {
    Proxy::config("server { listen %http%; location / { proxy_pass http://%backend%; } }")
        .set("backend", backend.address())
        .start()
}

#[test]
fn an_upgrade_is_forwarded_where_the_file_says_nothing_of_it() {
    beyond_nginx!();
    let (sender, heads) = mpsc::channel();
    let backend = Backend::serve(move |mut wire, _| {
        let _ = sender.send(wire.accept_websocket());
        drop(wire.ending());
    });
    let proxy = before(&backend);
    let mut client = proxy.connect();
    client.send(frames::request("/chat?room=1", "site.example").replace(
        "Upgrade: websocket\r\n",
        "Upgrade: h2c, websocket\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: a, b\r\n",
    ));
    assert_eq!(client.head().status(), 101);
    let head = heads.recv_timeout(PATIENCE).expect("the backend's view");
    assert_eq!(head.line, "GET /chat?room=1 HTTP/1.1");
    assert_eq!(head.get("upgrade"), Some("websocket"), "only the token that may become a tunnel: {}", head.raw);
    assert!(head.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{}", head.raw);
    assert_eq!(head.get("sec-websocket-key"), Some(KEY));
    assert_eq!(head.get("sec-websocket-version"), Some("13"));
    assert_eq!(head.get("sec-websocket-extensions"), Some("permessage-deflate"));
    assert_eq!(head.get("sec-websocket-protocol"), Some("a, b"));
}

#[test]
fn a_plain_request_never_carries_a_constant_connection_upgrade() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        r#"server { listen %http%; location / {
            proxy_pass http://%backend%; proxy_set_header Connection "upgrade"; proxy_set_header Upgrade $http_upgrade; } }"#,
    )
    .set("backend", backend.address())
    .start();
    let head = proxy.get("/").mirrored();
    assert!(!head.raw.to_ascii_lowercase().contains("upgrade"), "{}", head.raw);
}

#[test]
fn upgrade_protocols_lists_what_may_become_a_tunnel() {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        let head = wire.head();
        let Some(token) = head.get("upgrade") else {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
            return;
        };
        wire.send(format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: {token}\r\nConnection: upgrade\r\n\r\n"));
        drop(wire.ending());
    });
    let proxy = Proxy::in_location("upgrade_protocols chat xmpp;", backend.address(), Driver::Epoll);
    let ask = |tokens: &str| {
        let head = proxy.connect().send(upgrade(&format!("Upgrade: {tokens}\r\nConnection: Upgrade\r\n"))).head();
        (head.status(), head.get("upgrade").map(str::to_owned))
    };
    assert_eq!(ask("chat"), (101, Some("chat".to_owned())));
    assert_eq!(ask("other, XMPP"), (101, Some("XMPP".to_owned())), "the first that is allowed");
    for refused in ["other", "websocket", "h2c"] {
        assert_eq!(ask(refused), (200, None), "{refused}");
    }
}

#[test]
fn upgrade_protocols_any_makes_an_opaque_tunnel() {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat/2\r\nConnection: upgrade\r\n\r\n");
        let bytes = wire.exactly(3);
        wire.send(bytes).finish();
        drop(wire.ending());
    });
    let proxy = Proxy::in_location("upgrade_protocols any;", backend.address(), Driver::Epoll);
    let mut client = proxy.connect();
    client.send(upgrade("Upgrade: chat/2\r\nConnection: Upgrade\r\n"));
    assert_eq!(client.head().status(), 101);
    client.send([0, 1, 2]);
    assert_eq!(client.rest(), [0, 1, 2], "bytes that are no frames");
}

#[test]
fn a_version_refused_is_told_which_one_is_spoken() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = before(&backend);
    let request = frames::request("/", "x").replace("Version: 13", "Version: 8");
    assert_eq!(proxy.connect().ask(request).get("sec-websocket-version"), Some("13"));
}

#[test]
fn rsv1_is_allowed_once_an_extension_was_negotiated() {
    let backend = Backend::serve(|mut wire, _| {
        let head = wire.head();
        wire.send(
            frames::switching(&head).replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        );
        let bytes = wire.exactly(7);
        wire.send(frames::server(frames::BINARY, bytes));
        drop(wire.ending());
    });
    let proxy = Proxy::before(backend.address(), Driver::Epoll);
    let mut client = proxy.connect();
    client.send(
        frames::request("/", "x").replace("Upgrade: ", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade: "),
    );
    assert_eq!(client.head().get("sec-websocket-extensions"), Some("permessage-deflate"));
    let compressed = frames::raw(0xc1, true, "x");
    client.send(&compressed);
    assert_eq!(client.frame().1, compressed);
}

#[test]
fn an_origin_that_is_not_listed_is_refused_before_the_backend_is_asked() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy =
        Proxy::in_location("websocket_origin https://good.example *.fine.example;", backend.address(), Driver::Epoll);
    let ask = |origin: &str| {
        let request = frames::request("/", "x").replace("Upgrade: ", &format!("{origin}Upgrade: "));
        proxy.connect().send(request).head().status()
    };
    assert_eq!(ask("Origin: https://evil.example\r\n"), 403);
    assert_eq!(ask("Origin: https://good.example.evil.example\r\n"), 403);
    assert_eq!(ask(""), 403);
    assert_eq!(backend.connections(), 0, "the backend was asked");
    assert_eq!(ask("Origin: https://good.example\r\n"), 101);
    assert_eq!(ask("Origin: https://a.fine.example\r\n"), 101);
}

#[test]
fn a_backend_that_answers_slowly_to_an_upgrade_is_a_504() {
    let backend = Backend::silent();
    let proxy = Proxy::in_location("proxy_read_timeout 1s;", backend.address(), Driver::Epoll);
    assert_eq!(proxy.connect().upgrade("/").status(), 504);
}

#[test]
fn the_time_of_a_head_ends_however_it_drips_in() {
    beyond_nginx!();
    let site = Site::with("client_header_timeout 1s;", Driver::Epoll);
    for channel in [Channel::Plain, Channel::Tls] {
        let mut client = site.connect(channel);
        for byte in "GET / HTTP/1.1\r\nHost: x".bytes() {
            client.send([byte]);
            thread::sleep(Duration::from_millis(40));
        }
        let response = client.response();
        assert_eq!((response.status(), response.get("connection")), (408, Some("close")));
        client.expect_gone();
    }
    assert!(site.is_quiet());
    assert_eq!(site.counted("header_timeout"), 2);
    assert_eq!(site.new_lines().iter().filter(|line| line.contains("(408 header_timeout)")).count(), 2);
}

#[test]
fn a_head_that_is_broken_off_is_one_line_of_the_log() {
    beyond_nginx!();
    let site = Site::start(Driver::Epoll);
    site.new_lines();
    for channel in [Channel::Plain, Channel::Tls] {
        let mut client = site.connect(channel);
        client.send("GET / HTTP/1.1\r\nHost: x").finish();
        client.expect_gone();
    }
    assert!(eventually(|| site.counted("client_closed") == 2));
    assert!(site.is_quiet());
    let mut lines = Vec::new();
    assert!(eventually(|| {
        lines.extend(site.new_lines());
        lines.len() >= 2
    }));
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("(499 client_closed)")), "{lines:#?}");
}

#[test]
fn what_is_captured_is_decoded_once_and_encoded_once() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        "server { listen %http%;
             location ~ ^/number/(.*)$ { proxy_pass http://%backend%/$1; }
             location ~ ^/name/(?<rest>.*)$ { proxy_pass http://%backend%/$rest; }
             location /if/ { if ($uri ~ ^/if/(?<path>.*)$) { proxy_pass http://%backend%/$path; } }
             location /sent/ { if ($request_uri ~ ^/sent/(.*)$) { proxy_pass http://%backend%/$1; } }
             location /named/ { if ($request_uri ~ ^/named/(?<raw>.*)$) { proxy_pass http://%backend%/$raw; } }
         }",
    )
    .set("backend", backend.address())
    .start();
    let arrives = |path: &str| proxy.get(path).mirrored().target().to_owned();
    for way in ["number", "name", "if", "sent", "named"] {
        assert_eq!(arrives(&format!("/{way}/a%20b/%252e%252e%252fc")), "/a%20b/%252e%252e%252fc", "{way}");
    }
}

#[test]
fn nothing_decoded_gets_into_a_head_by_way_of_variables() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        "server { listen %http%;
             location /redirect/ { return 302 /x$uri; }
             location /added/ { add_header X-Path $uri always; return 200 ok; }
             location /field/ { proxy_set_header X-Path $uri; proxy_pass http://%backend%; }
             location /uri/ { proxy_pass http://%backend%$uri; }
             location ~ ^/capture/([^?]*)$ { proxy_pass http://%backend%/$1; }
             location ~ ^/named/(?<rest>[^?]*)$ { proxy_pass http://%backend%/$rest; }
             location /written/ { set $target $uri; proxy_pass http://%backend%$target; }
             location /rewritten/ { rewrite ^/rewritten/([^?]*)$ /$1 break; proxy_pass http://%backend%; }
             location /argument/ { rewrite ^/argument/([^?]*)$ /a?path=$1 break; proxy_pass http://%backend%; }
         }",
    )
    .set("backend", backend.address())
    .start();
    let ask = |name: &str| proxy.get(&format!("/{name}/a%20HTTP/1.1%0d%0aX-Evil:%201%0d%0a%0d%0aGET%20/evil"));
    for name in ["redirect", "added"] {
        let answer = ask(name);
        assert_eq!(answer.get("x-evil"), None, "{name}: {}", answer.head.raw);
    }
    for name in ["field", "uri", "capture", "named", "written", "rewritten", "argument"] {
        let head = ask(name).mirrored();
        assert_eq!(head.get("x-evil"), None, "{name}: {}", head.raw);
        assert!(head.line.to_ascii_lowercase().contains("a%20http/1.1%0d%0ax-evil"), "{name}: {}", head.line);
    }
    assert!(!String::from_utf8_lossy(&backend.received_at_all()).contains("\nGET /evil"));
}
