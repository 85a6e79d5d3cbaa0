//! The files people follow to put nginx before a WebSocket server run as they are written: only ports, names, backend
//! addresses and certificate paths are changed.

use std::path::Path;

use crate::util::{
    Backend, Driver, Program, Proxy, Wire, beyond_nginx, frames, on_both_drivers,
    proxy::{Setup, under_test},
    tls,
};

const RHEL_WS: &str = include_str!("seeds/rhel-websocket.conf");
const RHEL_TIMEOUTS: &str = include_str!("seeds/rhel-timeouts.conf");
const RHEL_WSS: &str = include_str!("seeds/rhel-websocket-ssl.conf");
const RHEL_NGINX: &str = include_str!("seeds/rhel-nginx.conf");
const HUB_LOCATION: &str = include_str!("seeds/hub-location.conf");
const HUB_UPSTREAM: &str = include_str!("seeds/hub-upstream.conf");
const HUB_WSS: &str = include_str!("seeds/hub-wss.conf");
const DEBIAN_NGINX: &str = include_str!("seeds/debian-nginx.conf");

on_both_drivers![
    the_map_and_the_ws_location,
    the_tls_server_with_a_constant_upgrade,
    the_three_servers_of_the_upstream,
    the_tls_server_with_old_protocol_names,
];

/// What may be changed of a seed: where it listens, where its backend and its certificate are.
fn at_home(text: &str) -> String {
    text.replace("listen 80;", "listen %http%;")
        .replace("listen 443 ssl;", "listen %https% ssl;")
        .replace("127.0.0.1:3000", "%backend%")
        .replace("127.0.0.1:8282", "%backend%")
        .replace("192.168.100.10:8010", "%one%")
        .replace("192.168.100.11:8010", "%two%")
        .replace("192.168.100.12:8010", "%three%")
        .replace("/etc/ssl/myserver/server.crt", "%dir%/server.crt")
        .replace("/etc/ssl/myserver/server.key", "%dir%/server.key")
        .replace("/etc/nginx/conf.d/ssl/server.pem", "%dir%/server.crt")
        .replace("/etc/nginx/conf.d/ssl/server.key", "%dir%/server.key")
}

/// A conf.d file of a seed, given to the program as it is (to nginx within the `http` block that includes it).
fn fragment(text: &str) -> Setup {
    let setup = Proxy::config(&at_home(text)).certificate("server", &["ws.example.com", "api.example.com"]);
    if under_test() == Program::Nginx { setup } else { setup.verbatim() }
}

fn websocket(mut client: Wire, target: &str, host: &str) -> Wire {
    let head = client.send(frames::request(target, host)).head();
    assert_eq!(head.status(), 101, "{}", head.raw);
    client.echoes("Hello");
    client
}

/// The head of the last request that an echo backend answered 101.
fn last_upgrade(backend: &Backend) -> String {
    let received = backend.received(backend.connections() - 1);
    let head = String::from_utf8_lossy(&received).into_owned();
    head.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase()
}

fn the_map_and_the_ws_location(driver: Driver) {
    let backend = Backend::echo();
    // The second file of the tutorial's first command is appended, comments only.
    let proxy = fragment(&format!("{RHEL_WS}{RHEL_TIMEOUTS}")).set("backend", backend.address()).on(driver).start();
    let _open = websocket(proxy.connect(), "/ws/", "ws.example.com");
    let head = last_upgrade(&backend);
    for line in [
        "get /ws/ http/1.1",
        "upgrade: websocket",
        "connection: upgrade",
        "host: ws.example.com",
        "x-real-ip: 127.0.0.1",
    ] {
        assert!(head.contains(line), "no {line:?} in {head}");
    }
    let plain = proxy.connect().ask("GET /ws/info HTTP/1.1\r\nHost: ws.example.com\r\n\r\n").mirrored();
    assert_eq!(plain.get("upgrade"), None);
    assert!(!plain.get("connection").unwrap_or_default().eq_ignore_ascii_case("upgrade"), "{}", plain.raw);
    assert_eq!(plain.get("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(proxy.get("/").status(), 404, "there is no other location");
    assert_eq!(proxy.get("/ws").status(), 301, "as nginx sends on to the location with the slash");
}

#[test]
fn the_timeouts_inserted_where_the_tutorial_wants_them() {
    let text = RHEL_WS.replace(
        "proxy_cache_bypass $http_upgrade;",
        "proxy_cache_bypass $http_upgrade;\nproxy_read_timeout 3600s;\nproxy_send_timeout 3600s;\nkeepalive_timeout 3600s;",
    );
    let backend = Backend::echo();
    let proxy = fragment(&text).set("backend", backend.address()).start();
    websocket(proxy.connect(), "/ws/chat", "ws.example.com");
}

/// `sed '/proxy_cache_bypass/a proxy_read_timeout 3600s;n proxy_send_timeout 3600s;'` leaves an `n` in the file.
#[test]
fn the_line_the_tutorials_sed_glues_is_named_with_its_place() {
    let text = RHEL_WS.replace(
        "proxy_cache_bypass $http_upgrade;",
        "proxy_cache_bypass $http_upgrade;\nproxy_read_timeout 3600s;n proxy_send_timeout 3600s;",
    );
    let line = 1 + text.lines().position(|line| line.contains(";n ")).expect("it is there");
    let finished = fragment(&text).run(&["-t"]);
    finished.expect_code(1).expect(&["\"n\""]);
    if under_test() == Program::Longsplice {
        finished.expect(&[&format!("nginx.conf:{line}:26"), "proxy_send_timeout"]);
    }
}

fn the_tls_server_with_a_constant_upgrade(driver: Driver) {
    let backend = Backend::echo();
    let proxy = fragment(RHEL_WSS).set("backend", backend.address()).on(driver).start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = tls::Client::offering(&[version], None);
        let wire = tls::connect(proxy.address("https"), "ws.example.com", &client);
        websocket(wire, "/ws/", "ws.example.com");
    }
    let request = "GET /ws/ HTTP/1.1\r\nHost: ws.example.com\r\n\r\n";
    let plain = proxy.connect_tls("ws.example.com").ask(request);
    if under_test() == Program::Longsplice {
        assert_eq!(plain.mirrored().get("upgrade"), None);
        assert_ne!(plain.mirrored().get("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    }
}

#[test]
fn both_files_of_a_tutorial_together() {
    let backend = Backend::echo();
    let proxy = fragment(&format!("{RHEL_WS}{RHEL_WSS}")).set("backend", backend.address()).start();
    websocket(proxy.connect(), "/ws/", "ws.example.com");
    websocket(proxy.connect_tls("ws.example.com"), "/ws/", "ws.example.com");
}

#[test]
fn the_location_with_a_capital_upgrade() {
    let backend = Backend::echo();
    let text = format!("server {{ listen 80;\n{HUB_LOCATION}}}");
    let proxy = fragment(&text).set("backend", backend.address()).start();
    websocket(proxy.connect(), "/ws/", "anything");
    assert!(last_upgrade(&backend).contains("host: anything"));
}

fn the_three_servers_of_the_upstream(driver: Driver) {
    let backends = [Backend::echo(), Backend::echo(), Backend::echo()];
    let mut text = at_home(HUB_UPSTREAM);
    if under_test() == Program::Nginx {
        text.insert_str(0, "worker_processes 1; events {} ");
    }
    let [one, two, three] = &backends;
    let proxy = Proxy::config(&text)
        .verbatim()
        .set("one", one.address())
        .set("two", two.address())
        .set("three", three.address())
        .on(driver)
        .start();
    let open: Vec<Wire> = (0..12).map(|_| websocket(proxy.connect(), "/ws", "api.example.com")).collect();
    assert_eq!(backends.each_ref().map(Backend::connections), [4, 4, 4], "a third each");
    assert!(last_upgrade(one).contains("host: api.example.com"));
    drop(open);
}

fn the_tls_server_with_old_protocol_names(driver: Driver) {
    let backend = Backend::echo();
    let proxy = fragment(HUB_WSS).set("backend", backend.address()).on(driver).start();
    let client = tls::Client::offering(&[&rustls::version::TLS12], None);
    let connect = || tls::handshake(proxy.address("https"), "api.example.com", &client).expect("TLS 1.2");
    websocket(connect().wire(), "/wss", "api.example.com");
    assert!(connect().resumed, "ssl_session_cache shared:SSL:50m");
    websocket(connect().wire(), "/wssfoo", "api.example.com");
    let only_13 = tls::Client::offering(&[&rustls::version::TLS13], None);
    assert!(tls::handshake(proxy.address("https"), "api.example.com", &only_13).is_err(), "TLS 1.3 is not in the list");
    let head = last_upgrade(&backend);
    assert!(head.contains("x-real-ip: 127.0.0.1") && head.contains(&format!("host: {}", backend.address())), "{head}");
}

#[test]
fn the_lints_tell_what_nginx_does_not() {
    beyond_nginx!();
    let backend = Backend::echo();
    let test = |text: &str| fragment(text).set("backend", backend.address()).run(&["-t"]);
    let wss = test(HUB_WSS);
    wss.expect_code(0).expect(&["TLSv1.1", "nginx.conf:9:25", "proxy_read_timeout", "/wss", "Host"]);
    test(RHEL_WSS).expect_code(0).expect(&["Connection"]);
    test(RHEL_WS).expect_code(0).expect(&["proxy_read_timeout"]);
    let keepalive = RHEL_WS.replace("proxy_cache_bypass", "keepalive_timeout 3600s;\nproxy_cache_bypass");
    test(&keepalive).expect_code(0).expect(&["keepalive_timeout"]);
}

/// A distribution's nginx.conf, with the directories it names moved to `%dir%`.
fn stock(text: &str) -> Setup {
    let text = text
        .replace("/etc/nginx", "%dir%/etc")
        .replace("/usr/share/nginx", "%dir%/share")
        .replace("/var/log/nginx", "%dir%")
        .replace("/run/nginx.pid", "%dir%/nginx.pid")
        .replace("[::]:80", "[::1]:%six%")
        .replace("listen       80 default_server", "listen %default% default_server")
        // Neither account is on every machine.
        .replace("user nginx;", "user root;")
        .replace("user www-data;", "user root;");
    Proxy::config(&text)
        .verbatim()
        .set("six", crate::util::ports::free())
        .file(
            "etc/mime.types",
            "types {\n    text/html html htm shtml;\n    text/css css;\n    application/json json;\n}\n",
        )
        .certificate("server", &["ws.example.com"])
}

#[test]
fn the_stock_nginx_conf_of_both_distributions_loads_with_the_snippets_in_conf_d() {
    for (name, text) in [("Debian", DEBIAN_NGINX), ("RHEL", RHEL_NGINX)] {
        let backend = Backend::echo();
        let ready = || {
            stock(text)
                .set("backend", backend.address())
                .file("etc/conf.d/websocket.conf", &at_home(RHEL_WS))
                .file("etc/conf.d/websocket-ssl.conf", &at_home(RHEL_WSS))
        };
        ready().run(&["-t"]).expect_code(0);
        let proxy = ready().start();
        websocket(proxy.connect(), "/ws/", "ws.example.com");
        websocket(proxy.connect_tls("ws.example.com"), "/ws/", "ws.example.com");
        proxy.written("access.log", &["GET /ws/ HTTP/1.1", "101", "127.0.0.1"]);
        eprintln!("{name}: runs");
    }
}

#[test]
fn the_nginx_conf_of_this_machine_loads() {
    const FILE: &str = "/etc/nginx/nginx.conf";
    if !Path::new(FILE).exists() {
        eprintln!("skipped: there is no {FILE}");
        return;
    }
    let finished = crate::util::proxy::finish(
        std::process::Command::new(crate::util::proxy::executable()).args(["-t", "-c", FILE]),
    );
    if under_test() == Program::Longsplice {
        finished.expect_code(0);
    }
}
