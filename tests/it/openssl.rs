//! OpenSSL at the other end: what its programs can be told to do under way, and rustls (everywhere else) cannot.

use std::{io::Write, net::SocketAddr, path::Path, process::ChildStdin, process::Command};

use crate::util::{Backend, Driver, Proxy, eventually, external, frames, on_both_drivers, process::Running, tls};

on_both_drivers![a_client_may_update_its_keys_in_a_tunnel, a_backend_may_update_its_keys_in_a_tunnel];

/// Every suite of the records that there is.
const SUITES: [[&str; 3]; 6] = [
    ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
    ["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
];

/// One of OpenSSL's programs, and the keyboard it listens to: a `K` at the front of what it reads at once updates its keys and
/// asks for new ones, a `k` only updates its own.
struct Program {
    running: Running,
    keyboard: ChildStdin,
}

impl Program {
    fn client(openssl: &Path, address: SocketAddr, suite: &[&str]) -> Self {
        let mut command = Command::new(openssl);
        command.args(["s_client", "-connect", &address.to_string()]).args(suite);
        Self::start(&mut command)
    }

    /// A server that takes what is typed for its answers; and its address.
    fn server(openssl: &Path, dir: &Path, suite: &[&str]) -> (Self, SocketAddr) {
        tls::write_certificate(dir, "backend", &["backend.example"], tls::Key::Ecdsa);
        let mut command = Command::new(openssl);
        let files = ["-cert", "backend.crt", "-key", "backend.key"];
        command.current_dir(dir).args(["s_server", "-accept", "127.0.0.1:0"]).args(files).args(suite);
        let server = Self::start(&mut command);
        let mut address = None;
        let ready = eventually(|| {
            let said = server.running.said();
            address = said.lines().find_map(|line| line.strip_prefix("ACCEPT ")?.trim().parse().ok());
            address.is_some()
        });
        assert!(ready, "no address:\n{}", server.running.said());
        (server, address.expect("found"))
    }

    fn start(command: &mut Command) -> Self {
        let (running, keyboard) = Running::spawn_interactive(command);
        Self { running, keyboard }
    }

    fn types(&mut self, bytes: impl AsRef<[u8]>) {
        self.keyboard.write_all(bytes.as_ref()).and_then(|()| self.keyboard.flush()).expect("it listens");
    }

    /// Types a command and waits until it is done: what is typed together with it would be lost. `meanwhile` makes the program
    /// show what it has to say.
    #[track_caller]
    fn updates_keys(&mut self, command: char, mut meanwhile: impl FnMut()) {
        // s_client says the one, s_server the other.
        let done = |said: String| said.matches("KEYUPDATE").count() + said.matches("SSL_do_handshake -> 1").count();
        let before = done(self.running.said());
        self.types(format!("{command}\n"));
        let updated = eventually(|| {
            meanwhile();
            done(self.running.said()) > before
        });
        assert!(updated, "no new keys:\n{}", self.running.said());
    }

    #[track_caller]
    fn shows(&self, word: &str) {
        assert!(eventually(|| self.running.said().contains(word)), "no {word:?} in:\n{}", self.running.said());
    }

    fn end(self) {
        self.running.kill();
    }
}

fn before(address: SocketAddr, driver: Driver) -> Proxy {
    let text =
        "server { listen %http%; listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
        location / { proxy_pass http://%backend%; proxy_http_version 1.1;
          proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; } }";
    let setup = Proxy::config(text).certificate("x", &["x"]).set("backend", address);
    setup.on(driver).start()
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A client's message that can be read on the way: masked with zeros, and a line, since that is what is shown at once.
fn message(word: &str) -> Vec<u8> {
    [&[0x80 | frames::TEXT, 0x80 | (word.len() + 1) as u8, 0, 0, 0, 0], word.as_bytes(), b"\n"].concat()
}

#[test]
fn every_suite_carries_requests_and_messages() {
    let Some(openssl) = external("openssl") else { return };
    let backend = Backend::echo();
    let proxy = before(backend.address(), Driver::IoUring);
    for suite in SUITES {
        let mut client = Program::client(&openssl, proxy.address("https"), &suite);
        client.shows(suite[2]);
        client.types("GET /first HTTP/1.1\r\nHost: x\r\n\r\n");
        client.shows("GET /first ");
        client.types(UPGRADE);
        client.shows("101 Switching");
        for word in ["one", "two", "three"] {
            client.types(message(word));
            client.shows(word);
        }
        client.end();
    }
}

fn a_client_may_update_its_keys_in_a_tunnel(driver: Driver) {
    let Some(openssl) = external("openssl") else { return };
    let backend = Backend::echo();
    let proxy = before(backend.address(), driver);
    let mut client = Program::client(&openssl, proxy.address("https"), &SUITES[1]);
    client.types(UPGRADE);
    client.shows("101 Switching");
    for (round, command) in ['k', 'K', 'k', 'K', 'K'].into_iter().enumerate() {
        client.updates_keys(command, || ());
        // Its records and ours are under new keys now.
        for part in ["a", "b"] {
            let word = format!("after-{round}{part}");
            client.types(message(&word));
            client.shows(&word);
        }
    }
    client.end();
}

fn a_backend_may_update_its_keys_in_a_tunnel(driver: Driver) {
    let Some(openssl) = external("openssl") else { return };
    for suite in [SUITES[0], SUITES[2]] {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut server, address) = Program::server(&openssl, dir.path(), &suite);
        let proxy = Proxy::config(
            "server { listen %http%; location / { proxy_pass https://%backend%; proxy_http_version 1.1;
               proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; } }",
        )
        .set("backend", address)
        .on(driver)
        .start();
        let mut client = proxy.connect();
        client.send(UPGRADE);
        server.shows("Sec-WebSocket-Key");
        server.types(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        assert_eq!(client.head().status(), 101);
        for (round, command) in ['k', 'K', 'K'].into_iter().enumerate() {
            server.updates_keys(command, || {
                client.send(message("are you done?"));
            });
            for part in ["a", "b"] {
                let word = format!("after-{round}{part}");
                client.send(message(&word));
                server.shows(&word);
                server.types(frames::server(frames::TEXT, word.as_bytes()));
                assert_eq!(client.frame(), (frames::TEXT, word.into_bytes()));
            }
        }
        server.end();
    }
}
