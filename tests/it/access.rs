//! `allow` and `deny`.

use std::fs;

use crate::util::{Backend, Driver, Proxy, Wire, beyond_nginx, frames, on_both_drivers};

on_both_drivers![who_is_denied_gets_403_before_any_backend_is_asked];

const PASS: &str = "proxy_pass http://%backend%; proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;";

fn who_is_denied_gets_403_before_any_backend_is_asked(driver: Driver) {
    let backend = Backend::echo();
    let proxy = Proxy::config(&format!(
        "server {{ listen %http%; deny all;
             location /open {{ allow 127.0.0.1; deny all; {PASS} }}
             location /net {{ deny 127.0.0.2; allow 127.0.0.0/8; deny all; {PASS} }}
             location /closed {{ {PASS} }}
             location /page {{ error_page 403 =451 /open; {PASS} }}
         }}"
    ))
    .set("backend", backend.address())
    .on(driver)
    .start();
    for (target, status) in [("/open", 200), ("/net", 200), ("/closed", 403), ("/page", 451)] {
        assert_eq!(proxy.get(target).status(), status, "{target}");
    }
    let asked = backend.connections();
    let handshake = |target: &str| proxy.connect().upgrade(target).status();
    assert_eq!((handshake("/closed"), handshake("/open")), (403, 101));
    assert_eq!(backend.connections(), asked + 1, "only what is allowed reaches a backend");
    beyond_nginx!();
    proxy.logged(&["access forbidden by rule", "403 access_denied", "/closed"]);
}

#[test]
fn a_client_of_a_unix_socket_is_named_by_unix_and_all() {
    let proxy = Proxy::config(
        "server { listen %http%; listen unix:%dir%/s.sock;
             location /unix { allow unix:; deny all; proxy_pass http://%backend%; }
             location /tcp { deny unix:; proxy_pass http://%backend%; }
             location /none { allow 0.0.0.0/0; allow ::/0; deny all; proxy_pass http://%backend%; }
         }",
    );
    let backend = Backend::echo();
    let proxy = proxy.set("backend", backend.address()).start();
    let socket = proxy.dir().join("s.sock");
    assert!(crate::util::eventually(|| fs::exists(&socket).is_ok_and(|there| there)));
    let over_unix = |target: &str| Wire::connect_unix(&socket).get(target).status();
    assert_eq!((over_unix("/unix"), over_unix("/tcp"), over_unix("/none")), (200, 403, 403));
    let over_tcp = |target: &str| proxy.get(target).status();
    assert_eq!((over_tcp("/unix"), over_tcp("/tcp"), over_tcp("/none")), (403, 200, 200));
}

#[test]
fn a_refusal_is_logged_where_it_happened_and_not_where_its_page_is() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::config(&format!(
        "server {{ listen %http%;
             location /closed {{ error_log %dir%/closed.log info; error_page 403 /page; deny all; }}
             location /page {{ error_log %dir%/page.log info; {PASS} }}
         }}"
    ))
    .set("backend", backend.address())
    .start();
    assert_eq!(proxy.get("/closed").status(), 403);
    proxy.written("closed.log", &["access forbidden by rule", "403 access_denied"]);
    assert!(!fs::read_to_string(proxy.dir().join("page.log")).expect("opened").contains("forbidden"));
}

#[test]
fn a_denied_handshake_is_counted_and_its_connection_goes_on() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::config(&format!(
        "server {{ listen %http%;
             location = /metrics {{ metrics; }}
             location /closed {{ deny all; {PASS} }}
         }}"
    ))
    .set("backend", backend.address())
    .start();
    let mut client = proxy.connect();
    client.send(frames::request("/closed", "site.example"));
    assert_eq!(client.response().status(), 403);
    let text = client.get("/metrics").text();
    assert!(text.contains("longsplice_refusals_total{reason=\"access_denied\"} 1"), "{text}");
    assert!(text.contains("longsplice_handshakes_total{outcome=\"refused\"} 1"), "{text}");
}
