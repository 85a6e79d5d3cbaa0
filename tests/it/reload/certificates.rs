//! Certificates, keys and what sessions are resumed with.

use std::{net::SocketAddr, path::Path};

use super::{reload, reload_in_vain};
use crate::util::{
    Backend, Driver, Proxy, beyond_nginx, on_both_drivers,
    proxy::Setup,
    tls::{self, Client, names},
};

on_both_drivers![certificates_are_swapped_and_sessions_resumed];

const TLS: &str =
    "server { listen %https% ssl; server_name x; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
    location / { proxy_pass http://%backend%; } }";

fn wss(backend: &Backend, more: &str) -> Setup {
    let text = TLS.replace("location", &format!("{more} location"));
    Proxy::config(&text).certificate("x", &["x", "first.example"]).set("backend", backend.address())
}

fn presented(address: SocketAddr) -> String {
    names(&tls::handshake(address, "x", &Client::default()).expect("a handshake").certificate)
}

fn certificates_are_swapped_and_sessions_resumed(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = wss(&backend, "").on(driver).start();
    let address = proxy.address("https");
    let client = Client::default();
    let resumed = |expected: bool, when: &str| {
        let done = tls::handshake(address, "x", &client).expect("a handshake");
        assert_eq!(done.resumed, expected, "{when}");
        // The ticket comes with the first record.
        let mut wire = done.wire();
        wire.websocket("/");
        wire
    };
    let mut live = resumed(false, "at first");
    resumed(true, "before the reload");
    proxy.renew_certificate("x", &["x", "second.example"]);
    reload(&mut proxy, 2);
    resumed(true, "across the reload");
    assert!(presented(address).contains("second.example"), "{}", presented(address));
    live.echoes("with the keys of a certificate that has gone");
    // An unreadable key leaves all as it was.
    std::fs::write(proxy.dir().join("x.key"), "no key").expect("write");
    reload_in_vain(&mut proxy, &["x.key", "no usable private key"]);
    assert!(presented(address).contains("second.example"));
    resumed(true, "after a reload that failed");
    live.echoes("still");
}

#[test]
fn a_session_of_one_host_opens_no_other_after_a_reload() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = wss(&backend, "").start();
    let (address, client) = (proxy.address("https"), Client::default());
    tls::handshake(address, "x", &client).expect("a handshake").wire().websocket("/");
    // The same address, another name: not the same host.
    proxy.rewrite("", &TLS.replace("server_name x", "server_name y"));
    reload(&mut proxy, 2);
    assert!(!tls::handshake(address, "x", &client).expect("a handshake").resumed);
}

#[test]
fn ticket_keys_of_the_file_are_shared_and_read_again() {
    beyond_nginx!();
    let backend = Backend::echo();
    let setup = wss(&backend, "ssl_session_ticket_key %dir%/a.keys; ssl_session_ticket_key %dir%/b.keys;");
    let keys = |dir: &Path, name: &str, byte: u8| std::fs::write(dir.join(name), [byte; 80]).expect("write");
    keys(setup.dir(), "a.keys", 1);
    keys(setup.dir(), "b.keys", 2);
    let mut proxy = setup.start();
    let (address, client) = (proxy.address("https"), Client::default());
    let resumed = || {
        let done = tls::handshake(address, "x", &client).expect("a handshake");
        let resumed = done.resumed;
        done.wire().websocket("/");
        resumed
    };
    assert!(!resumed() && resumed());
    // The next key comes in front.
    keys(proxy.dir(), "a.keys", 3);
    keys(proxy.dir(), "b.keys", 1);
    reload(&mut proxy, 2);
    assert!(resumed());
    keys(proxy.dir(), "a.keys", 7);
    keys(proxy.dir(), "b.keys", 8);
    reload(&mut proxy, 3);
    assert!(!resumed());
}

#[test]
fn a_certificate_that_changes_on_disk_is_read_without_a_signal() {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = wss(&backend, "ssl_certificate_watch on;").start();
    let address = proxy.address("https");
    let mut live = proxy.connect_tls("x");
    live.websocket("/");
    std::fs::write(proxy.dir().join("x.key"), "half a key").expect("write");
    proxy.logged(&["[error]", "x.key", "the certificate of before"]);
    assert!(presented(address).contains("first.example"));
    proxy.renew_certificate("x", &["x", "second.example"]);
    proxy.logged(&["certificates read again", "x.crt"]);
    assert!(presented(address).contains("second.example"));
    live.echoes("through it all");
}
