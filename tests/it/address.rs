//! Who the client is: PROXY protocol here, and what it is told on to backends; `set_real_ip_from`.

mod outgoing;
mod real_ip;

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
