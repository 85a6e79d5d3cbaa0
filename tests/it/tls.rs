//! TLS toward clients and toward backends.

use std::{sync::mpsc, thread, time::Duration};

use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};

use crate::util::{
    Backend, Driver, Ending, PATIENCE, Proxy, Wire, beyond_nginx, checksum, eventually, frames, on_both_drivers,
    pattern,
    tls::{self, Client, Key},
};

on_both_drivers![
    wss_echoes_on_both_versions,
    requests_and_bodies_pass_over_tls,
    close_notify_ends_both_directions_of_a_tunnel,
    backends_are_spoken_to_over_tls,
    a_tunnel_may_run_through_two_proxies_with_tls_between,
    a_handshake_in_small_pieces_succeeds,
];

/// One TLS server on `%https%` before `backend`.
fn before(backend: &Backend, directives: &str, driver: Driver) -> Proxy {
    let text = format!(
        "server {{ listen %https% ssl; server_name x; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key; {directives}
         location / {{ proxy_pass http://%backend%; proxy_http_version 1.1;
           proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
           proxy_set_header X-Scheme $scheme; proxy_set_header X-Protocol $ssl_protocol; proxy_set_header X-Cipher $ssl_cipher;
           proxy_set_header X-Name $ssl_server_name; proxy_set_header X-Https $https; }} }}"
    );
    Proxy::config(&text).certificate("x", &["x"]).set("backend", backend.address()).on(driver).start()
}

fn wss_echoes_on_both_versions(driver: Driver) {
    let backend = Backend::echo();
    let proxy = before(&backend, "ssl_protocols TLSv1.2 TLSv1.3;", driver);
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let done =
            tls::handshake(proxy.address("https"), "x", &Client::offering(&[version], None)).expect("a handshake");
        assert_eq!(done.version, expected);
        let mut client = done.wire();
        client.websocket("/");
        for size in [0, 1, 125, 65_535, 65_536, 4 << 20] {
            let payload = pattern(size, 3);
            client.send_in_pieces(frames::client(frames::BINARY, &payload), 40_001);
            let (opcode, echo) = client.frame();
            assert_eq!(
                (opcode, echo.len(), checksum(&echo)),
                (frames::BINARY, size, checksum(&payload)),
                "{expected:?}"
            );
        }
    }
}

fn requests_and_bodies_pass_over_tls(driver: Driver) {
    let backend = Backend::mirror();
    let proxy = before(&backend, "client_max_body_size 8m;", driver);
    let mut client = proxy.connect_tls("x");
    let head = client.get("/a?b").mirrored();
    assert_eq!((head.get("x-scheme"), head.get("x-https"), head.get("x-name")), (Some("https"), Some("on"), Some("x")));
    assert_eq!(head.get("x-protocol"), Some("TLSv1.3"));
    assert!(head.get("x-cipher").is_some_and(|cipher| cipher.starts_with("TLS_")), "{}", head.raw);
    let body = pattern(5 << 20, 6);
    client
        .send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len()))
        .send_in_pieces(&body, 99_991);
    assert_eq!(client.response().get("x-body-sum"), Some(format!("{:x}", checksum(&body)).as_str()));
    let last = client.ask("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(last.status(), 200);
    assert_eq!(client.ending().1, Ending::Closed, "with close_notify");
}

#[test]
fn a_large_body_comes_down_over_tls() {
    let body = pattern(20 << 20, 7);
    let sum = checksum(&body);
    let backend = Backend::answering(
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes(), body].concat(),
    );
    let proxy = before(&backend, "", Driver::Epoll);
    let response = proxy.connect_tls("x").get("/");
    assert_eq!((response.body.len(), checksum(&response.body)), (20 << 20, sum));
}

#[test]
fn the_name_of_the_hello_chooses_certificate_and_server() {
    let text = r#"
        server { listen %https% ssl; server_name one.example; ssl_certificate %dir%/one.crt; ssl_certificate_key %dir%/one.key; return 200 "one"; }
        server { listen %https% ssl; server_name *.two.example; ssl_certificate %dir%/two.crt; ssl_certificate_key %dir%/two.key; return 200 "two"; }
        server { listen %https% ssl; server_name refused.example; ssl_reject_handshake on; }"#;
    let proxy = Proxy::config(text).certificate("one", &["one.example"]).certificate("two", &["*.two.example"]).start();
    let ask = |name: &str| {
        let done = tls::handshake(proxy.address("https"), name, &Client::default())?;
        let names = tls::names(&done.certificate);
        let text = done.wire().ask(format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")).text();
        std::io::Result::Ok((names, text))
    };
    for (name, certificate, answer) in [
        ("one.example", "one.example", "one"),
        ("ONE.EXAMPLE", "one.example", "one"),
        ("a.two.example", "*.two.example", "two"),
        ("unknown.example", "one.example", "one"), // the first is the default
        ("127.0.0.1", "one.example", "one"),       // no name at all
    ] {
        let (names, text) = ask(name).expect(name);
        assert!(names.contains(certificate), "{name}: {names}");
        assert_eq!(text, answer, "{name}");
    }
    assert!(ask("refused.example").is_err(), "ssl_reject_handshake on");
}

#[test]
fn both_kinds_of_keys_serve_their_clients() {
    let text = r"server { listen %https% ssl; ssl_certificate %dir%/ec.crt; ssl_certificate_key %dir%/ec.key;
        ssl_certificate %dir%/rsa.crt; ssl_certificate_key %dir%/rsa.key; return 200 ok; }";
    let proxy = Proxy::config(text).certificate("ec", &["ec.example"]).rsa_certificate("rsa", &["rsa.example"]).start();
    for version in [&TLS12, &TLS13] {
        for (key, name) in [(Key::Ecdsa, "ec.example"), (Key::Rsa, "rsa.example")] {
            let client = Client::offering(&[version], Some(key));
            let done = tls::handshake(proxy.address("https"), "x", &client).unwrap_or_else(|e| panic!("{key:?}: {e}"));
            assert!(tls::names(&done.certificate).contains(name), "{key:?}");
        }
    }
}

#[test]
fn sessions_resume_on_both_versions_and_on_any_worker() {
    for (version, directives) in [
        (&TLS13, "ssl_session_tickets on;"),
        (&TLS12, "ssl_session_tickets on;"),
        (&TLS12, "ssl_session_tickets off; ssl_session_cache shared:S:1m;"),
        (&TLS13, "ssl_session_tickets off; ssl_session_cache shared:S:1m;"),
    ] {
        let backend = Backend::mirror();
        let proxy = before(&backend, directives, Driver::Epoll);
        let client = Client::offering(&[version], None);
        let handshake = || tls::handshake(proxy.address("https"), "x", &client).expect("a handshake");
        // An answer read: TLS 1.3's tickets come with the first bytes.
        assert_eq!(handshake().wire().get("/").status(), 200);
        for _ in 0..6 {
            let again = handshake();
            assert!(again.resumed, "{directives} {:?}", again.version);
            assert_eq!(again.wire().get("/").status(), 200);
        }
    }
}

#[test]
fn a_session_of_one_server_does_not_open_another() {
    let text = r"
        server { listen %https% ssl; server_name one.example; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key; return 200 one; }
        server { listen %https% ssl; server_name two.example; ssl_certificate %dir%/y.crt; ssl_certificate_key %dir%/y.key; return 200 two; }";
    let proxy = Proxy::config(text).certificate("x", &["one.example"]).certificate("y", &["two.example"]).start();
    let mut client = proxy.connect_tls("one.example");
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: one.example\r\n\r\n").text(), "one");
    let other = tls::handshake(proxy.address("https"), "two.example", &Client::default()).expect("a handshake");
    assert!(!other.resumed && tls::names(&other.certificate).contains("two.example"));
}

#[test]
fn alpn_offers_http_1_1_only() {
    let backend = Backend::mirror();
    let proxy = before(&backend, "", Driver::Epoll);
    let alpn = |protocols: &[&str]| {
        tls::handshake(proxy.address("https"), "x", &Client::default().alpn(protocols)).map(|done| done.alpn)
    };
    assert_eq!(alpn(&["h2", "http/1.1"]).expect("a handshake").as_deref(), Some("http/1.1"));
    assert_eq!(alpn(&[]).expect("a handshake"), None);
}

#[test]
fn plain_http_on_the_tls_port_is_a_400() {
    let backend = Backend::mirror();
    let proxy = before(&backend, "", Driver::Epoll);
    let mut client = Wire::connect(proxy.address("https"));
    let response = client.get("/");
    assert_eq!(response.status(), 400);
    assert!(response.text().contains("HTTPS"), "it says so: {}", response.text());
    client.expect_gone();
}

#[test]
fn garbage_on_the_tls_port_closes_the_connection_and_nothing_else() {
    let backend = Backend::mirror();
    let proxy = before(&backend, "", Driver::Epoll);
    for garbage in
        [&b"\x16\x03\x01\xff\xff\x01"[..], &b"\x16\x03\x01\x00\x05hello"[..], &[0; 64], &b"\x80\x2e\x01\x03"[..]]
    {
        let mut client = Wire::connect(proxy.address("https"));
        client.send(garbage).finish();
        assert_ne!(client.patience(Duration::from_secs(5)).ending().1, Ending::Open, "{garbage:?}");
    }
    assert_eq!(proxy.connect_tls("x").get("/").status(), 200);
}

#[test]
fn a_handshake_that_never_ends_is_closed_in_time() {
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        "client_header_timeout 1s; server { listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
         location / { proxy_pass http://%backend%; } }",
    )
    .certificate("x", &["x"])
    .set("backend", backend.address())
    .start();
    let mut client = Wire::connect(proxy.address("https"));
    client.send(b"\x16\x03\x01\x01\x00\x01");
    assert_ne!(client.patience(Duration::from_secs(8)).ending().1, Ending::Open);
}

/// One connection to the proxy whose ClientHello and what follows comes in pieces of seven bytes.
fn a_handshake_in_small_pieces_succeeds(driver: Driver) {
    let backend = Backend::mirror();
    let proxy = before(&backend, "", driver);
    let address = proxy.address("https");
    // A relay that cuts what the client sends.
    let relay = Backend::serve(move |mut client, _| {
        let mut server = Wire::connect(address);
        let (mut to_client, mut from_server) = (client.writer(), server.writer());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = from_server.read_some(&mut bytes) {
                if to_client.try_send(&bytes[..length]).is_err() {
                    return;
                }
            }
        });
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = client.read_some(&mut bytes) {
            server.dribble(&bytes[..length], 7, Duration::from_millis(1));
        }
    });
    let mut client = tls::connect(relay.address(), "x", &Client::default());
    assert_eq!(client.get("/").status(), 200);
}

fn close_notify_ends_both_directions_of_a_tunnel(driver: Driver) {
    let (backend, backends) = Backend::accepting();
    let proxy = before(&backend, "", driver);
    let open = || {
        let mut client = proxy.connect_tls("x");
        client.websocket("/");
        let server: Wire = backends.recv_timeout(PATIENCE).expect("the backend's end");
        (client, server)
    };
    // The backend's FIN is a close_notify for the client.
    let (mut client, mut server) = open();
    let last = frames::server(frames::TEXT, "last");
    server.send(&last).finish();
    assert_eq!(client.exactly(last.len()), last);
    assert_eq!(client.ending().1, Ending::Closed, "close_notify before FIN");
    // The client's close_notify is a FIN for the backend.
    let (mut client, mut server) = open();
    let last = frames::client(frames::TEXT, "last");
    client.send(&last).finish();
    assert_eq!(server.rest(), last);
}

#[test]
fn a_clients_fin_without_close_notify_is_no_clean_end() {
    beyond_nginx!();
    let (backend, backends) = Backend::accepting();
    let proxy = Proxy::config(
        "log_format reason '$status $close_reason'; server { listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
         access_log %dir%/reason.log reason; location / { proxy_pass http://%backend%; } }",
    )
    .certificate("x", &["x"])
    .set("backend", backend.address())
    .start();
    let mut client = proxy.connect_tls("x");
    client.websocket("/");
    let mut server: Wire = backends.recv_timeout(PATIENCE).expect("the backend's end");
    let socket = client.tcp().try_clone().expect("a second handle");
    socket.shutdown(std::net::Shutdown::Write).expect("FIN alone");
    assert_ne!(server.patience(Duration::from_secs(5)).ending().1, Ending::Open);
    drop((client, server));
    let line = proxy.written("reason.log", &["101"]);
    assert!(!line.contains("client_closed"), "truncation must not read as a clean end: {line}");
}

/// A TLS backend that mirrors requests, and the names it was asked for.
fn tls_backend() -> (Backend, mpsc::Receiver<Option<String>>) {
    let server = tls::Server::new(&["backend.example"]);
    let (sender, names) = mpsc::channel();
    let backend = Backend::serve(move |wire, _| {
        let socket = wire.tcp().try_clone().expect("a second handle");
        if let Ok((wire, name)) = server.accept(socket) {
            let _ = sender.send(name);
            crate::util::backend::echo(wire);
        }
    });
    (backend, names)
}

fn backends_are_spoken_to_over_tls(driver: Driver) {
    let (backend, names) = tls_backend();
    let proxy = Proxy::config(
        "server { listen %http%; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
           location / { proxy_pass https://%backend%; }
           location /named/ { proxy_pass https://%backend%; proxy_ssl_server_name on; proxy_ssl_name backend.example; } }",
    )
    .set("backend", backend.address())
    .on(driver)
    .start();
    assert_eq!(proxy.get("/a").mirrored().target(), "/a");
    assert_eq!(names.recv_timeout(PATIENCE).expect("a handshake"), None, "proxy_ssl_server_name is off by default");
    assert_eq!(proxy.get("/named/a").mirrored().target(), "/named/a");
    assert_eq!(names.recv_timeout(PATIENCE).expect("a handshake").as_deref(), Some("backend.example"));
    let mut client = proxy.tunnel("/");
    for size in [1, 65_536, 2 << 20] {
        let payload = pattern(size, 9);
        client.send(frames::client(frames::BINARY, &payload));
        assert!(client.frame() == (frames::BINARY, payload), "{size} bytes");
    }
}

#[test]
fn a_backend_that_speaks_no_tls_is_a_502() {
    let backend = Backend::serve(|mut wire, _| {
        let _ = wire.try_send("HTTP/1.1 400 Bad Request\r\n\r\n");
        drop(wire.ending());
    });
    let proxy = Proxy::config("server { listen %http%; location / { proxy_pass https://%backend%; } }")
        .set("backend", backend.address())
        .start();
    assert_eq!(proxy.get("/").status(), 502);
    proxy.logged(&["client: 127.0.0.1", "upstream: \"https://"]);
}

#[test]
fn a_backend_whose_certificate_is_not_trusted_is_a_502_where_the_file_asks_for_it() {
    let (backend, _names) = tls_backend();
    let proxy = Proxy::config(
        "server { listen %http%; location / { proxy_pass https://%backend%; proxy_ssl_verify on; proxy_ssl_trusted_certificate %dir%/other.crt; } }",
    )
    .certificate("other", &["backend.example"])
    .set("backend", backend.address())
    .start();
    assert_eq!(proxy.get("/").status(), 502);
    proxy.logged(&["certificate", "upstream"]);
}

fn a_tunnel_may_run_through_two_proxies_with_tls_between(driver: Driver) {
    const TOTAL: usize = 8 << 20;
    let (backend, backends) = Backend::accepting();
    let inner = before(&backend, "", driver);
    let outer = Proxy::config(
        "server { listen %http%; location / { proxy_pass https://%inner%; proxy_http_version 1.1;
           proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; } }",
    )
    .set("inner", inner.address("https"))
    .on(driver)
    .start();
    let mut client = outer.tunnel("/");
    let mut server: Wire = backends.recv_timeout(PATIENCE).expect("the backend's end");
    let (up, down) = (frames::stream(TOTAL, 1, true), frames::stream(TOTAL, 2, false));
    let (mut up_writer, mut down_writer) = (client.writer(), server.writer());
    let (up_copy, down_copy) = (up.clone(), down.clone());
    let writers = [
        thread::spawn(move || drop(up_writer.send_in_pieces(up_copy, 33_333).try_send(""))),
        thread::spawn(move || drop(down_writer.send_in_pieces(down_copy, 44_444).try_send(""))),
    ];
    let reader = thread::spawn(move || assert!(server.exactly(up.len()) == up, "the backend received something else"));
    assert!(client.exactly(down.len()) == down, "the client received something else");
    reader.join().expect("the backend's end");
    for writer in writers {
        writer.join().expect("a writer");
    }
}

#[test]
fn a_slow_reader_over_tls_stops_its_backend_and_gets_everything() {
    let body = frames::stream(24 << 20, 5, false);
    let sent = body.clone();
    let backend = Backend::serve(move |mut wire, _| {
        wire.accept_websocket();
        let _ = wire.try_send(&sent);
        drop(wire.ending());
    });
    let proxy = before(&backend, "", Driver::Epoll);
    let before = proxy.resident_bytes();
    let mut client = proxy.connect_tls("x");
    client.websocket("/");
    thread::sleep(Duration::from_secs(1));
    let growth = proxy.resident_bytes().saturating_sub(before);
    assert!(growth < 16 << 20, "the proxy grew by {growth} bytes while nobody read");
    assert!(client.exactly(body.len()) == body);
    assert!(eventually(|| proxy.descriptors() > 0));
}

#[test]
fn a_host_that_no_server_has_stays_with_the_server_of_its_hello() {
    let text = r#"
        server { listen %https% ssl; server_name one.example; ssl_certificate %dir%/one.crt; ssl_certificate_key %dir%/one.key; return 200 one; }
        server { listen %https% ssl; server_name two.example; ssl_certificate %dir%/two.crt; ssl_certificate_key %dir%/two.key; return 200 two; }"#;
    let proxy = Proxy::config(text).certificate("one", &["one.example"]).certificate("two", &["two.example"]).start();
    let ask =
        |name: &str, host: &str| proxy.connect_tls(name).ask(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).text();
    assert_eq!(ask("two.example", "unknown.example"), "two");
    assert_eq!(ask("two.example", "one.example"), "one");
    assert_eq!(ask("unknown.example", "other.example"), "one");
    assert_eq!(proxy.connect_tls("two.example").ask("GET / HTTP/1.0\r\n\r\n").text(), "two");
}

#[test]
fn plain_http_on_the_tls_port_may_be_sent_where_it_belongs() {
    let text = "server { listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
        error_page 497 =301 https://$host$request_uri; return 200 ok; }";
    let proxy = Proxy::config(text).certificate("x", &["x"]).start();
    let mut client = Wire::connect(proxy.address("https"));
    let response = client.ask("GET /a?b HTTP/1.1\r\nHost: site.example\r\n\r\n");
    assert_eq!((response.status(), response.get("location")), (301, Some("https://site.example/a?b")));
    client.expect_gone();
    proxy.written("access.log", &["\"GET /a?b HTTP/1.1\" 301 "]);
}

#[test]
fn a_backends_certificate_is_checked_against_its_name() {
    let server = tls::Server::new(&["backend.example"]);
    let authority = server.certificate.clone();
    let backend = Backend::serve(move |wire, _| {
        let socket = wire.tcp().try_clone().expect("a second handle");
        if let Ok((wire, _)) = server.accept(socket) {
            crate::util::backend::echo(wire);
        }
    });
    let setup = Proxy::config(
        "server { listen %http%; proxy_ssl_verify on; proxy_ssl_trusted_certificate %dir%/authority.crt;
           location / { proxy_pass https://%backend%; proxy_ssl_name backend.example; }
           location /other { proxy_pass https://%backend%; proxy_ssl_name other.example; }
           location /address { proxy_pass https://%backend%; } }",
    )
    .set("backend", backend.address());
    std::fs::write(setup.dir().join("authority.crt"), authority).expect("the authority");
    let proxy = setup.start();
    assert_eq!(proxy.get("/").status(), 200);
    assert_eq!(proxy.get("/other").status(), 502);
    assert_eq!(proxy.get("/address").status(), 502, "$proxy_host is 127.0.0.1, which the certificate does not name");
}
