//! Who the client is: PROXY protocol, in and out, and `set_real_ip_from`.

use std::{io::Write, net::TcpStream};

use crate::util::{
    Backend, Driver, Proxy, Wire, beyond_nginx, frames,
    leaks::{self, Leaks},
    on_both_drivers, tls,
};

on_both_drivers![
    a_proxy_header_may_come_in_any_pieces,
    tunnels_begin_behind_a_proxy_header,
    what_is_no_proxy_header_is_closed_on_and_told_of,
];

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 4097 443\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// Addresses and ports as [`V1`] has them, and the connection's own.
const WHO: &str =
    "$proxy_protocol_addr:$proxy_protocol_port $proxy_protocol_server_addr:$proxy_protocol_server_port $remote_addr";
const SAID: &str = "192.0.2.1:4097 198.51.100.2:443 127.0.0.1";

/// A header of version 2 with the addresses of [`V1`].
fn v2(tlvs: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[&[192, 0, 2, 1, 198, 51, 100, 2, 0x10, 0x01, 0x01, 0xbb], tlvs].concat())
}

fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a short value").to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// A server that says `text` to whoever comes with a PROXY header.
fn telling(text: &str) -> Proxy {
    Proxy::config(&format!(
        "server {{ listen %http% proxy_protocol; server_name telling; location / {{ return 200 \"{text}\"; }} }}"
    ))
    .start()
}

/// The body of the answer to a request behind a header.
fn told(proxy: &Proxy, header: &[u8]) -> String {
    proxy.connect().ask([header, REQUEST].concat()).text()
}

fn a_proxy_header_may_come_in_any_pieces(driver: Driver) {
    beyond_nginx!();
    let text = format!("server {{ listen %http% proxy_protocol; location / {{ return 200 \"{WHO}\"; }} }}");
    // One worker: when it answers a connection that came later, it has read what those before it had sent.
    let proxy = Proxy::config(&text).main("worker_processes 1;").on(driver).start();
    for header in [V1.to_vec(), v2(&tlv(0xea, b"x"))] {
        let whole = [&header, REQUEST].concat();
        let begun = |cut: usize| {
            let mut client = proxy.connect();
            client.send(&whole[..cut]);
            (client, cut)
        };
        let waiting: Vec<(Wire, usize)> = (1..header.len() + 4).map(begun).collect();
        assert_eq!(told(&proxy, &header), SAID);
        for (mut client, cut) in waiting {
            assert_eq!(client.ask(&whole[cut..]).text(), SAID, "in two pieces, the first of {cut} bytes");
        }
    }
}

fn tunnels_begin_behind_a_proxy_header(driver: Driver) {
    let backend = Backend::echo();
    let proxy = Proxy::config(
        "log_format who '$proxy_protocol_addr $remote_addr $status'; access_log %dir%/who.log who;
         server { listen %http% proxy_protocol; listen %https% ssl proxy_protocol;
             ssl_certificate %dir%/a.crt; ssl_certificate_key %dir%/a.key;
             location / { proxy_pass http://%backend%; proxy_http_version 1.1;
                 proxy_set_header X-Client $proxy_protocol_addr:$proxy_protocol_port;
                 proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; } }",
    )
    .certificate("a", &["a.example"])
    .set("backend", backend.address())
    .on(driver)
    .start();
    let over_tls = |header: &[u8]| {
        tls::handshake_behind(header, proxy.address("https"), "a.example", &tls::Client::default()).expect("TLS").wire()
    };
    for header in [V1.to_vec(), v2(b"")] {
        let mut plain = proxy.connect();
        plain.send(&header).websocket("/ws").echoes("plain");
        over_tls(&header).websocket("/wss").echoes("over TLS");
        assert_eq!(over_tls(&header).get("/").mirrored().get("x-client"), Some("192.0.2.1:4097"));
    }
    // What is sent ahead waits for the 101, whatever it came behind.
    let ahead = [V1, frames::request("/ahead", "x").as_bytes(), &frames::client(frames::TEXT, "early")].concat();
    let mut client = proxy.connect();
    client.send(ahead);
    assert_eq!(client.head().status(), 101);
    assert_eq!(client.frame(), (frames::TEXT, b"early".to_vec()));
    drop(client);
    proxy.written("who.log", &["192.0.2.1 127.0.0.1 101"]);
}

/// What a listener with `proxy_protocol` gets of those who do not speak it, or badly, and the reason that is counted.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let text = |line: &str| [line.as_bytes(), REQUEST].concat();
    vec![
        ("missing", REQUEST.to_vec()),
        ("missing", b"\x16\x03\x01\x02\x00\x01\x00".to_vec()),
        ("missing", text("proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n")),
        ("missing", b"\xff\xfe\xfd".to_vec()),
        ("broken", text("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n")),
        ("broken", text("PROXY TCP4 192.0.2.1\u{e9} 198.51.100.2 1 2\r\n")),
        ("broken", text("PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n")),
        ("broken", text("PROXY TCP4 192.0.2.1 198.51.100.2 1 65536\r\n")),
        ("broken", text("PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n")),
        ("too_long", text(&format!("PROXY TCP4 {}\r\n", "1".repeat(200)))),
        ("too_long", [binary(0x21, 0x11, &[0; 4081]), REQUEST.to_vec()].concat()),
        ("broken", [binary(0x21, 0x11, &[0; 11]), REQUEST.to_vec()].concat()),
        ("broken", [binary(0x21, 0x21, &[0; 12]), REQUEST.to_vec()].concat()),
        ("broken", [binary(0x31, 0x11, &[0; 12]), REQUEST.to_vec()].concat()),
        ("broken", [binary(0x22, 0x11, &[0; 12]), REQUEST.to_vec()].concat()),
        ("broken", [v2(b"\x01\x00\x09short"), REQUEST.to_vec()].concat()),
        ("broken", [v2(b"\x01"), REQUEST.to_vec()].concat()),
    ]
}

fn what_is_no_proxy_header_is_closed_on_and_told_of(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::config(
        "server { listen %http% proxy_protocol; listen %https% ssl proxy_protocol; proxy_pass_header Server;
             ssl_certificate %dir%/a.crt; ssl_certificate_key %dir%/a.key;
             location / { proxy_pass http://%backend%; } }",
    )
    .certificate("a", &["a.example"])
    .set("backend", backend.address())
    .on(driver)
    .watched()
    .start();
    let counted = || leaks::figure(&proxy, "longsplice_refusals_total{reason=\"proxy_protocol_broken\"}");
    let before = Leaks::of(&proxy);
    for (reason, bytes) in hostile() {
        for address in [proxy.http(), proxy.address("https")] {
            let mut client = Wire::connect(address);
            // The rest of a refused header may meet a closed door.
            let _ = client.try_send(&bytes);
            client.expect_gone();
        }
        proxy.logged(&["[error]", &format!("(444 proxy_protocol_{reason})"), "client: 127.0.0.1"]);
    }
    let broken = hostile().iter().filter(|(reason, _)| *reason == "broken").count();
    assert_eq!(counted(), 2 * i64::try_from(broken).expect("few"));
    proxy.logged(&["(444 proxy_protocol_missing): \"GET / HTTP/1.1\\r\\nHost"]);
    let mut cut = proxy.connect();
    cut.send(&V1[..20]).finish();
    cut.expect_gone();
    proxy.logged(&["(444 proxy_protocol_cut): \"PROXY TCP4 192.0.2.1\""]);
    assert_eq!(backend.connections(), 0, "nothing of it reaches a backend");
    before.assert_same(&proxy);
}

#[test]
fn who_speaks_for_itself_keeps_its_own_address() {
    let proxy = telling("<$proxy_protocol_addr> $remote_addr");
    let unix = binary(0x21, 0x31, &[0; 216]);
    for header in [b"PROXY UNKNOWN\r\n".to_vec(), binary(0x20, 0x00, b""), binary(0x20, 0x11, &[1; 12]), unix] {
        assert_eq!(told(&proxy, &header), "<> 127.0.0.1", "{}", header.escape_ascii());
    }
}

#[test]
fn what_else_a_header_says_is_in_variables() {
    beyond_nginx!();
    let names =
        ["alpn", "authority", "unique_id", "netns", "0xea", "ssl_verify", "ssl_version", "ssl_cn", "ssl_cipher"];
    let text = names.map(|name| format!("{name}=$proxy_protocol_tlv_{name}")).join(" ");
    let proxy = telling(&text);
    let ssl = [&[1, 0, 0, 0, 0][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"me")].concat();
    let tlvs = [tlv(1, b"h2"), tlv(2, b"a.example"), tlv(4, b"---"), tlv(0xea, b"vpce-1"), tlv(0x20, &ssl)].concat();
    let expected = "alpn=h2 authority=a.example unique_id= netns= 0xea=vpce-1 ssl_verify=0 ssl_version=TLSv1.3 ssl_cn=me ssl_cipher=";
    assert_eq!(told(&proxy, &v2(&tlvs)), expected);
}

#[test]
fn a_value_of_a_header_cannot_end_a_field() {
    beyond_nginx!();
    let backend = Backend::mirror();
    let proxy = Proxy::config(
        "server { listen %http% proxy_protocol; location / { proxy_pass http://%backend%; proxy_set_header X-Name $proxy_protocol_tlv_authority; } }",
    )
    .set("backend", backend.address())
    .start();
    let seen = proxy.connect().ask([&v2(&tlv(2, b"a\r\nX-Evil: 1"))[..], REQUEST].concat()).mirrored();
    assert_eq!(seen.get("x-evil"), None, "{}", seen.raw);
    assert_eq!(seen.get("x-name"), Some("a%0D%0AX-Evil: 1"));
}

#[test]
fn the_header_has_the_deadline_that_began_at_accept() {
    beyond_nginx!();
    let proxy = Proxy::config(
        "server { listen %http% proxy_protocol; listen %https% ssl proxy_protocol; client_header_timeout 1s;
             ssl_certificate %dir%/a.crt; ssl_certificate_key %dir%/a.key; location / { return 204; } }",
    )
    .certificate("a", &["a.example"])
    .start();
    let began = std::time::Instant::now();
    let mut silent = proxy.connect();
    let mut slow = proxy.connect();
    slow.send(&V1[..10]);
    let mut no_hello = Wire::connect(proxy.address("https"));
    no_hello.send(V1);
    let mut no_request = proxy.connect();
    no_request.send(V1).send(b"GET");
    silent.expect_gone();
    slow.expect_gone();
    no_hello.expect_gone();
    assert_eq!(no_request.response().status(), 408);
    assert!(began.elapsed() < std::time::Duration::from_secs(4), "{:?}", began.elapsed());
    proxy.logged(&["(444 proxy_protocol_timeout): \"PROXY TCP4\""]);
    proxy.logged(&["client timed out in its TLS handshake"]);
    proxy.logged(&["client timed out before its request"]);
}

/// A connection that is closed before its header is read whole must not be taken for one that sent a request.
#[test]
fn who_only_looks_whether_the_port_is_open_leaves_no_trace() {
    beyond_nginx!();
    let proxy = telling("hello");
    drop(TcpStream::connect(proxy.http()).expect("connect"));
    let mut half = TcpStream::connect(proxy.http()).expect("connect");
    half.write_all(V1).expect("sent");
    drop(half);
    assert_eq!(told(&proxy, V1), "hello");
    assert!(!proxy.log().contains("[error]"), "{}", proxy.log());
}

/// What a client is taken to be, as a location sees it and as a backend is told.
const SEEN: &str =
    "location = /who { return 200 \"$remote_addr $port $realip_remote_addr $proxy_add_x_forwarded_for\"; }
    location /pass { proxy_pass http://%backend%; proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }";

/// A port that is not the connection's own, which differs each time.
const PORT: &str = "map $remote_addr $port { 127.0.0.1 own; default $remote_port; }";

/// A request for `/who` with these lines of fields.
fn asking(path: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

/// Lists that proxies and liars write. (Brackets without a port are none of an address in nginx 1.22; they are in 1.28.)
fn lists() -> Vec<String> {
    let lines: [&[&str]; 21] = [
        &[],
        &["X-Forwarded-For: 192.0.2.1"],
        &["X-Forwarded-For: 203.0.113.9, 192.0.2.1"],
        &["X-Forwarded-For: 203.0.113.9, 127.0.0.2, 127.0.0.3"],
        &["X-Forwarded-For: 203.0.113.9,192.0.2.1,127.0.0.3"],
        &["X-Forwarded-For: 127.0.0.4, 127.0.0.3"],
        &["X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 192.0.2.1, 127.0.0.2", "X-Forwarded-For: 127.0.0.3"],
        &["X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: junk", "X-Forwarded-For: 127.0.0.3"],
        &["X-Forwarded-For: 203.0.113.9, junk, 127.0.0.3"],
        &["X-Forwarded-For: junk"],
        &["X-Forwarded-For: 192.0.2.1:4711"],
        &["X-Forwarded-For: 2001:db8::1"],
        &["X-Forwarded-For: [2001:db8::1]:4711, 127.0.0.3"],
        &["X-Forwarded-For: 192.0.2.1:0"],
        &["X-Forwarded-For: 192.0.2.1:99999"],
        &["X-Forwarded-For: 192.0.2.1, "],
        &["X-Forwarded-For: 192.0.2.300"],
        &["X-Forwarded-For: ::ffff:192.0.2.1"],
        &["X-Forwarded-For:"],
        &["X-Real-IP: 192.0.2.1", "X-Real-IP: 192.0.2.2", "X-Forwarded-For: 203.0.113.9"],
        &["X-Client: 203.0.113.9, 127.0.0.2", "X-Client: 192.0.2.2"],
    ];
    lines.iter().flat_map(|lines| [asking("/who", lines), asking("/pass", lines)]).collect()
}

#[test]
fn whoever_is_believed_names_the_client_as_in_nginx() {
    let lists = lists();
    let lists: Vec<&str> = lists.iter().map(String::as_str).collect();
    for believed in [
        "set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For;",
        "set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For; real_ip_recursive on;",
        "set_real_ip_from 127.0.0.0/8;",
        "set_real_ip_from localhost; real_ip_header X-Client; real_ip_recursive on;",
        // Nobody who connects: what is written changes nothing.
        "set_real_ip_from 10.0.0.0/8; set_real_ip_from unix:; real_ip_header X-Forwarded-For; real_ip_recursive on;",
        "real_ip_header X-Forwarded-For;",
    ] {
        crate::nginx::compare(&format!("{PORT} server {{ listen %http%; {believed} {SEEN} }}"), &lists);
    }
}

#[test]
fn each_level_believes_whom_it_says_at_nginx_s_time() {
    let by_server = asking("/server", &["X-Forwarded-For: 192.0.2.1"]);
    let location = |path: &str| asking(path, &["X-Forwarded-For: 192.0.2.1", "X-Client: 192.0.2.2"]);
    let named = "GET /who HTTP/1.1\r\nHost: named\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
    crate::nginx::compare(
        "real_ip_header X-Forwarded-For;
         server { listen %http%; server_name x;
             location /server { return 200 \"$remote_addr\"; }
             location /early { set_real_ip_from 127.0.0.1; return 200 \"$remote_addr\"; }
             location /late { set_real_ip_from 127.0.0.1; try_files /none /late_told; }
             location /late_told { return 200 \"$remote_addr\"; }
             location /other { set_real_ip_from 127.0.0.1; real_ip_header X-Client; proxy_pass http://%backend%;
                 proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Own $realip_remote_addr; }
             location /denied { set_real_ip_from 127.0.0.1; allow 127.0.0.1; deny all; proxy_pass http://%backend%; }
             location /allowed { set_real_ip_from 127.0.0.1; allow 192.0.2.1; deny all; proxy_pass http://%backend%; }
             location /page { set_real_ip_from 127.0.0.1; deny 192.0.2.1; error_page 403 =200 /page_told; }
             location /page_told { return 200 \"$remote_addr\"; }
         }
         server { listen %http%; server_name named; set_real_ip_from 127.0.0.1;
             if ($remote_addr = 192.0.2.1) { set $seen yes; }
             location /who { real_ip_header X-Client; return 200 \"$remote_addr $seen\"; } }",
        &[
            &by_server,
            &location("/early"),
            &location("/late"),
            &location("/other"),
            &location("/denied"),
            &location("/allowed"),
            &location("/page"),
            named,
        ],
    );
}

#[test]
fn proxy_protocol_names_the_client_as_in_nginx() {
    let believing = |from: &str| {
        format!(
            "{PORT} set_real_ip_from {from}; real_ip_header proxy_protocol; real_ip_recursive on;
             server {{ listen %http% proxy_protocol; {SEEN}
                 location = /all {{ return 200 \"$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port\"; }} }}"
        )
    };
    let headed = |header: &str, path: &str| header.to_owned() + &asking(path, &["X-Forwarded-For: 203.0.113.9"]);
    let headers = [
        "PROXY TCP4 192.0.2.1 198.51.100.2 4097 443\r\n",
        "PROXY TCP6 2001:db8::1 2001:db8::2 4097 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 0 0\r\n",
        "PROXY UNKNOWN\r\n",
        "PROXY UNKNOWN 2001:db8::1 2001:db8::2 4097 443\r\n",
    ];
    let requests: Vec<String> =
        headers.iter().flat_map(|header| ["/who", "/pass", "/all"].map(|path| headed(header, path))).collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    crate::nginx::compare(&believing("127.0.0.1"), &requests);
    crate::nginx::compare(&believing("10.0.0.1"), &requests);
}

#[test]
fn a_tunnel_is_its_real_client_s_in_logs_and_on_the_status_page() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::config(
        "log_format who '$remote_addr $realip_remote_addr $tunnel_event'; access_log %dir%/who.log who events=open,close;
         server { listen %http%; location = /status { status; }
             location / { set_real_ip_from 127.0.0.1; proxy_pass http://%backend%; proxy_http_version 1.1;
                 proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; } }",
    )
    .set("backend", backend.address())
    .start();
    let mut client = proxy.connect();
    let request = frames::request("/ws", "x").replacen("\r\n", "\r\nX-Real-IP: 192.0.2.1\r\n", 1);
    client.send(request);
    assert_eq!(client.head().status(), 101);
    client.echoes("hello");
    proxy.written("who.log", &["192.0.2.1 127.0.0.1 open"]);
    let told = proxy.connect().ask("GET /status?json HTTP/1.1\r\nHost: x\r\n\r\n").text();
    assert!(told.contains("192.0.2.1"), "{told}");
    client.finish();
    proxy.written("who.log", &["192.0.2.1 127.0.0.1 close"]);
    proxy.logged(&["tunnel closed", "client: 192.0.2.1"]);
}

#[test]
fn an_administrator_is_of_this_host_by_every_account() {
    beyond_nginx!();
    let proxy = Proxy::config(
        "server { listen %http%; set_real_ip_from 127.0.0.1; location = /status { status; status_admin on; } }",
    )
    .start();
    let drain = |fields: &str| {
        let request = format!(
            "POST /status?drain=127.0.0.1:1 HTTP/1.1\r\nHost: localhost\r\nX-Longsplice-Admin: 1\r\n{fields}\r\n"
        );
        proxy.connect().ask(request).status()
    };
    assert_eq!(drain("X-Real-IP: 192.0.2.1\r\n"), 403);
    assert_ne!(drain(""), 403);
}
