//! `proxy_protocol` toward backends.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::{REQUEST, V1, binary};
use crate::util::{
    Backend, Program, Proxy, Wire, backend, beyond_nginx, eventually, external, frames, ports, process::Running,
};

/// A backend that hears a header of either version before it serves as [`Backend::echo`] does.
fn headed() -> Backend {
    Backend::serve(|mut wire, _| {
        header(&mut wire);
        backend::echo(wire);
    })
}

/// A header as it arrived.
fn header(wire: &mut Wire) -> Vec<u8> {
    let mut header = wire.exactly(5);
    if header == b"PROXY" {
        return [header, wire.text_line().into_bytes()].concat();
    }
    header.extend(wire.exactly(11));
    let length = u16::from_be_bytes([header[14], header[15]]);
    header.extend(wire.exactly(length.into()));
    header
}

/// The header that connection `number` of a backend began with.
fn heard(backend: &Backend, number: usize) -> Vec<u8> {
    let received = backend.wait_received(number, 16);
    let end = match received.starts_with(b"PROXY") {
        true => received.iter().position(|byte| *byte == b'\n').expect("a line") + 1,
        false => 16 + usize::from(u16::from_be_bytes([received[14], received[15]])),
    };
    received[..end].to_vec()
}

fn text_of(header: Vec<u8>) -> String {
    String::from_utf8(header).expect("text")
}

const UPGRADE: &str =
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;";

#[test]
fn a_backend_hears_first_who_the_client_is() {
    beyond_nginx!();
    let backend = headed();
    let proxy = Proxy::config(&format!(
        "{UPGRADE} proxy_protocol v1;
         server {{ listen %http%; listen unix:%dir%/s.sock; set_real_ip_from 127.0.0.1;
             location /one {{ proxy_pass http://%backend%; }}
             location /on {{ proxy_protocol on; proxy_pass http://%backend%; }}
             location /two {{ proxy_protocol v2; proxy_pass http://%backend%; }} }}"
    ))
    .set("backend", backend.address())
    .start();
    let port = proxy.http().port();
    let mut client = proxy.connect();
    let from = client.tcp().local_addr().expect("its address").port();
    client.websocket("/one").echoes("hello");
    assert_eq!(text_of(heard(&backend, 0)), format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {port}\r\n"));
    let real = frames::request("/on", "x").replacen("\r\n", "\r\nX-Real-IP: 2001:db8::1\r\n", 1);
    let mut client = proxy.connect();
    client.send(real);
    assert_eq!(client.head().status(), 101);
    assert_eq!(text_of(heard(&backend, 1)), format!("PROXY TCP6 2001:db8::1 ::ffff:127.0.0.1 0 {port}\r\n"));
    let mut client = proxy.connect();
    let from = client.tcp().local_addr().expect("its address").port().to_be_bytes();
    assert_eq!(client.get("/two").status(), 200);
    let ends = [&[127, 0, 0, 1, 127, 0, 0, 1], &from[..], &port.to_be_bytes()].concat();
    assert_eq!(heard(&backend, 2), binary(0x21, 0x11, &ends));
    let unix = |target: &str| Wire::connect_unix(&proxy.dir().join("s.sock")).get(target).status();
    assert_eq!((unix("/one"), unix("/two")), (200, 200));
    assert_eq!(heard(&backend, 3), b"PROXY UNKNOWN\r\n");
    assert_eq!(heard(&backend, 4), binary(0x20, 0x00, b""));
}

#[test]
fn what_came_by_proxy_protocol_goes_on_by_it() {
    beyond_nginx!();
    let backend = headed();
    let proxy = Proxy::config(
        "set_real_ip_from 127.0.0.1; set_real_ip_from unix:; real_ip_header proxy_protocol; proxy_protocol on;
         server { listen %http% proxy_protocol; listen unix:%dir%/s.sock proxy_protocol; location / { proxy_pass http://%backend%; } }",
    )
    .set("backend", backend.address())
    .start();
    proxy.connect().ask([V1, REQUEST].concat());
    let port = proxy.http().port();
    assert_eq!(text_of(heard(&backend, 0)), format!("PROXY TCP4 192.0.2.1 127.0.0.1 4097 {port}\r\n"));
    // A unix socket has no address; the one in front of it has.
    Wire::connect_unix(&proxy.dir().join("s.sock")).ask([V1, REQUEST].concat());
    assert_eq!(heard(&backend, 1), V1);
}

#[test]
fn a_connection_that_names_a_client_carries_no_other() {
    beyond_nginx!();
    let backend = headed();
    let proxy = Proxy::config(
        "upstream app { server %backend%; keepalive 8; }
         server { listen %http%; set_real_ip_from 127.0.0.1; proxy_protocol v1; location / { proxy_pass http://app; } }",
    )
    .set("backend", backend.address())
    .main("worker_processes 1;")
    .start();
    let mut client = proxy.connect();
    for (number, name) in ["192.0.2.1", "192.0.2.2", "192.0.2.2"].iter().enumerate() {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Real-IP: {name}\r\n\r\n");
        let seen = client.ask(request).mirrored();
        assert_eq!(seen.get("connection"), Some("close"), "{}", seen.raw);
        assert!(text_of(heard(&backend, number)).starts_with(&format!("PROXY TCP4 {name} ")));
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn the_header_comes_once_on_each_connection_and_before_tls() {
    beyond_nginx!();
    let tls = crate::util::tls::Server::new(&["a.example"]);
    let certificate = tls.certificate.clone();
    let backend = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = backend.local_addr().expect("its address");
    std::thread::spawn(move || {
        for socket in backend.incoming().flatten() {
            // No byte of the ClientHello may be taken with it.
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                let mut byte = [0];
                std::io::Read::read_exact(&mut &socket, &mut byte).expect("a header");
                line.push(byte[0]);
            }
            assert!(line.starts_with(b"PROXY TCP4 127.0.0.1 127.0.0.1 "));
            let (wire, _) = tls.accept(socket).expect("TLS behind it");
            backend::echo(wire);
        }
    });
    let proxy = Proxy::config(&format!(
        "server {{ listen %http%; location / {{ proxy_pass https://%backend%; {UPGRADE} proxy_protocol on;
             proxy_ssl_verify on; proxy_ssl_trusted_certificate %dir%/ca.pem; proxy_ssl_name a.example; proxy_ssl_server_name on; }} }}"
    ))
    .set("backend", address)
    .file("ca.pem", &certificate)
    .start();
    proxy.connect().websocket("/").echoes("over TLS");
    assert_eq!(proxy.get("/").status(), 200);
}

#[test]
fn a_backend_that_does_not_take_the_header_is_one_that_failed() {
    beyond_nginx!();
    let backend = Backend::serve(|wire, _| wire.reset());
    let proxy =
        Proxy::config("server { listen %http%; location / { proxy_protocol v2; proxy_pass http://%backend%; } }")
            .set("backend", backend.address())
            .start();
    assert_eq!(proxy.get("/").status(), 502);
}

#[test]
fn nginx_reads_what_is_written() {
    beyond_nginx!();
    if external("nginx").is_none() {
        return;
    }
    let who = "return 200 \"$proxy_protocol_addr $proxy_protocol_server_addr $proxy_protocol_server_port\";";
    let nginx = Proxy::config(&format!(
        "server {{ listen %plain% proxy_protocol; listen %https% ssl proxy_protocol; ssl_certificate %dir%/a.crt;
             ssl_certificate_key %dir%/a.key; location / {{ {who} }} }}"
    ))
    .certificate("a", &["a.example"])
    .by(Program::Nginx)
    .start();
    let proxy = Proxy::config(
        "server { listen %http%; set_real_ip_from 127.0.0.1;
             location /v1 { proxy_protocol v1; proxy_pass http://%plain%; }
             location /v2 { proxy_protocol v2; proxy_pass http://%plain%; }
             location /tls { proxy_protocol v2; proxy_pass https://%https%; } }",
    )
    .set("plain", nginx.address("plain"))
    .set("https", nginx.address("https"))
    .start();
    let port = proxy.http().port();
    for target in ["/v1", "/v2", "/tls"] {
        assert_eq!(proxy.get(target).text(), format!("127.0.0.1 127.0.0.1 {port}"), "{target}");
        let six = format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Real-IP: 2001:db8::1\r\n\r\n");
        assert_eq!(proxy.connect().ask(six).text(), format!("2001:db8::1 ::ffff:127.0.0.1 {port}"), "{target}");
    }
}

/// HAProxy with these sections, listening on the ports that it names.
struct Haproxy {
    running: Option<Running>,
    _dir: TempDir,
}

impl Haproxy {
    fn start(program: PathBuf, sections: &str, ports: &[u16]) -> Self {
        let dir = TempDir::with_prefix("longsplice-").expect("a directory");
        let file = dir.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n{sections}\n"
        );
        std::fs::write(&file, text).expect("a file");
        let mut running = Running::spawn(Command::new(program).arg("-db").arg("-f").arg(&file));
        for port in ports {
            let listens = eventually(|| ports::listened_on(*port) || running.ended().is_some());
            assert!(listens && running.ended().is_none(), "HAProxy says:\n{}", running.said());
        }
        Self { running: Some(running), _dir: dir }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }
}

fn free() -> SocketAddr {
    ([127, 0, 0, 1], ports::free()).into()
}

#[test]
fn haproxy_reads_what_is_written() {
    beyond_nginx!();
    let Some(program) = external("haproxy") else { return };
    let address = free();
    let said = "http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port] %[dst_port]\"";
    let sections = format!("frontend f\n  bind {address} accept-proxy\n  {said}");
    let _haproxy = Haproxy::start(program, &sections, &[address.port()]);
    let proxy = Proxy::config(
        "server { listen %http%;
             location /v1 { proxy_protocol v1; proxy_pass http://%backend%; }
             location /v2 { proxy_protocol v2; proxy_pass http://%backend%; } }",
    )
    .set("backend", address)
    .start();
    for target in ["/v1", "/v2"] {
        let mut client = proxy.connect();
        let from = client.tcp().local_addr().expect("its address").port();
        assert_eq!(client.get(target).text(), format!("127.0.0.1 {from} {}", proxy.http().port()), "{target}");
    }
}

#[test]
fn haproxy_in_front_is_understood() {
    beyond_nginx!();
    let Some(program) = external("haproxy") else { return };
    let backend = Backend::echo();
    let proxy = Proxy::config(&format!(
        "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;
         server {{ listen %http% proxy_protocol; location = /who {{ return 200 \"$remote_addr $remote_port $proxy_protocol_server_port\"; }}
             location / {{ proxy_pass http://%backend%; {UPGRADE} }} }}"
    ))
    .set("backend", backend.address())
    .start();
    let fronts = ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options ssl,unique-id,crc32c"];
    let addresses = fronts.map(|_| free());
    let section = |(address, option): (&SocketAddr, &&str)| {
        format!("listen l{}\n  bind {address}\n  server s {} {option}\n", address.port(), proxy.http())
    };
    let sections: String = addresses.iter().zip(&fronts).map(section).collect();
    let ports = addresses.map(|address| address.port());
    let _haproxy = Haproxy::start(program, &sections, &ports);
    for address in addresses {
        let mut client = Wire::connect(address);
        let from = client.tcp().local_addr().expect("its address").port();
        assert_eq!(client.get("/who").text(), format!("127.0.0.1 {from} {}", address.port()));
        Wire::connect(address).websocket("/").echoes("through both");
    }
}
