//! The clients people use: wscat, Python's websockets, a browser, curl.

use std::{
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use regex::Regex;
use serde_json::json;

use crate::util::{
    Backend, Driver, Proxy, beyond_nginx,
    browser::Browser,
    checksum, eventually, external, pattern, ports,
    process::{Finished, Running, finish},
    proxy::executable,
    python_module,
};

/// The program without an argument.
pub struct Demo {
    pub running: Running,
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Where the demo's echo lives, as it prints it.
    pub echo_path: String,
}

impl Demo {
    pub fn start() -> Self {
        let mut running = Running::spawn(&mut Command::new(executable()));
        let find = |said: &str, pattern: &str| -> Option<String> {
            let found = Regex::new(pattern).expect("a pattern").captures(said)?;
            Some(found.get(1)?.as_str().to_owned())
        };
        let mut found = None;
        eventually(|| {
            let said = running.said();
            found = (|| {
                let http = find(&said, r"\bhttp://(127\.0\.0\.1:\d+)")?;
                let https = find(&said, r"\bhttps://(127\.0\.0\.1:\d+)")?;
                let echo_path = find(&said, r"\bws://127\.0\.0\.1:\d+(/[\w/-]*echo[\w/-]*)")?;
                Some((http, https, echo_path))
            })();
            found.is_some() || running.ended().is_some()
        });
        let (http, https, echo_path) =
            found.unwrap_or_else(|| panic!("no addresses in what it prints:\n{}", running.said()));
        let address = |text: String| text.parse::<SocketAddr>().expect("an address");
        let demo = Self { running, http: address(http), https: address(https), echo_path };
        for port in [demo.http.port(), demo.https.port()] {
            assert!(eventually(|| ports::listened_on(port)), "nobody listens on {port}");
        }
        demo
    }
}

/// ws on `%http%` and wss on `%https%` before an echo server.
fn both(backend: &Backend, driver: Driver) -> Proxy {
    let text = "server { listen %http%; listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
        location / { proxy_pass http://%backend%; proxy_http_version 1.1;
          proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection; proxy_set_header Host $host; } }";
    Proxy::config(text).certificate("x", &["localhost"]).set("backend", backend.address()).on(driver).start()
}

#[test]
fn wscat_sends_and_receives() {
    let Some(wscat) = external("wscat") else { return };
    let backend = Backend::echo();
    let proxy = both(&backend, Driver::Epoll);
    for url in [format!("ws://{}/", proxy.http()), format!("wss://{}/", proxy.address("https"))] {
        let word = format!("hello from {url}");
        // -x sends a message, prints what comes for as long as -w says, and ends; so does the end of its input, hence the keyboard.
        let command = &mut Command::new(&wscat);
        let (mut running, _keyboard) =
            Running::spawn_interactive(command.args(["--no-check", "-c", &url, "-w", "1", "-x", &word]));
        assert!(running.wait().success(), "{}", running.said());
        assert!(eventually(|| running.said().contains(&word)), "no echo in {:?}", running.said());
    }
}

/// Runs a Python program to its end.
fn python(interpreter: &Path, program: &str, arguments: &[&str]) -> Finished {
    let finished = finish(Command::new(interpreter).arg("-c").arg(program).args(arguments));
    finished.expect_code(0);
    finished
}

const PYTHON_CLIENT: &str = r#"
import os, ssl, sys
from websockets.sync.client import connect
url, compression = sys.argv[1], None if sys.argv[2] == "none" else sys.argv[2]
options = {}
if url.startswith("wss"):
    options["ssl"] = ssl.create_default_context()
    options["ssl"].check_hostname = False
    options["ssl"].verify_mode = ssl.CERT_NONE
with connect(url, compression=compression, max_size=None, **options) as socket:
    print("extensions", [type(e).__name__ for e in socket.protocol.extensions])
    for size in (0, 1, 125, 126, 65535, 65536, 3000000):
        for message in ("t" * size, os.urandom(size)):
            socket.send(message)
            assert socket.recv() == message, size
    socket.send(iter(["frag", "men", "ted"]))
    assert socket.recv() == "fragmented"
    assert socket.ping(b"are you there").wait(10)
print("closed", socket.close_code)
"#;

#[test]
fn python_websockets_talks_over_ws_and_wss() {
    let Some(interpreter) = python_module("websockets.asyncio.server") else { return };
    let backend = Backend::echo();
    let proxy = both(&backend, Driver::Epoll);
    for url in [format!("ws://{}/", proxy.http()), format!("wss://{}/", proxy.address("https"))] {
        python(&interpreter, PYTHON_CLIENT, &[&url, "none"]).expect(&["closed 1000"]);
    }
}

/// Compressed by the client and by a backend of the same library: RSV1 in both directions, nothing of it ours.
#[test]
fn permessage_deflate_passes_through() {
    const SERVER: &str = "
import asyncio
from websockets.asyncio.server import serve
async def echo(socket):
    async for message in socket:
        await socket.send(message)
async def main():
    async with serve(echo, '127.0.0.1', 0, max_size=None) as server:
        print('port', server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()
asyncio.run(main())
";
    let Some(interpreter) = python_module("websockets.asyncio.server") else { return };
    let server = Running::spawn(Command::new(&interpreter).arg("-c").arg(SERVER));
    let mut port = None;
    let ready = eventually(|| {
        port = server.said().lines().find_map(|line| line.strip_prefix("port ")?.parse::<u16>().ok());
        port.is_some()
    });
    assert!(ready, "the Python server did not start:\n{}", server.said());
    let address = SocketAddr::from(([127, 0, 0, 1], port.expect("found")));
    for driver in [Driver::IoUring, Driver::Epoll] {
        let proxy = Proxy::before(address, driver);
        let url = format!("ws://{}/", proxy.http());
        python(&interpreter, PYTHON_CLIENT, &[&url, "deflate"]).expect(&["PerMessageDeflate", "closed 1000"]);
    }
    server.kill();
}

#[test]
fn curl_fetches_posts_and_checks_the_certificate_it_is_given() {
    let Some(curl) = external("curl") else { return };
    let backend = Backend::mirror();
    let proxy = both(&backend, Driver::Epoll);
    let plain = format!("http://{}/a?b=c", proxy.http());
    let secure = format!("https://localhost:{}/secure", proxy.address("https").port());
    let run = |arguments: &[&str]| {
        finish(Command::new(&curl).args(["-sS", "--max-time", "30", "--noproxy", "*"]).args(arguments))
    };
    run(&["-i", &plain]).expect_code(0).expect(&["200 OK", "GET /a?b=c HTTP/1.1"]);
    run(&["-I", &plain]).expect_code(0).expect(&["200 OK"]);
    run(&["-0", &plain]).expect_code(0).expect(&["GET /a?b=c"]);
    let certificate = proxy.dir().join("x.crt").display().to_string();
    run(&["--cacert", &certificate, &secure]).expect_code(0).expect(&["GET /secure"]);
    run(&["--cacert", &certificate, "--tls-max", "1.2", &secure]).expect_code(0).expect(&["GET /secure"]);
    assert_ne!(run(&[&secure]).code(), 0, "a certificate of our own is not one the system trusts");

    // 900 kB: more than a kilobyte makes curl ask first (Expect: 100-continue); below client_max_body_size.
    let body = pattern(900_000, 33);
    let sum = format!("X-Body-Sum: {:x}", checksum(&body));
    for extra in [&[][..], &["-H", "Transfer-Encoding: chunked"]] {
        let mut child = Command::new(&curl)
            .args(["-sS", "-i", "--max-time", "30", "--noproxy", "*", "--data-binary", "@-"])
            .args(extra)
            .arg(&plain)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl");
        child.stdin.take().expect("piped").write_all(&body).expect("curl reads");
        let output = child.wait_with_output().expect("curl ends");
        assert!(String::from_utf8_lossy(&output.stdout).contains(&sum), "{extra:?}");
    }
}

/// The client side of the tutorials, on a page that a backend of ours serves through the proxy.
#[test]
fn a_browser_talks_over_ws_and_wss() {
    let Some(chromium) = external("chromium") else { return };
    let backend = Backend::serve(|wire, _| crate::util::backend::echo(wire));
    let proxy = both(&backend, Driver::Epoll);
    let mut browser = Browser::start(&chromium);
    for (page, socket) in [
        (format!("http://{}/", proxy.http()), format!("ws://{}/ws", proxy.http())),
        (format!("https://{}/", proxy.address("https")), format!("wss://{}/wss", proxy.address("https"))),
    ] {
        browser.open(&page);
        let script = format!(
            "new Promise((resolve, reject) => {{
                const ws = new WebSocket({});
                ws.onopen = () => ws.send('Hello');
                ws.onmessage = (e) => {{ ws.close(1000); ws.onclose = (c) => resolve(`Message from server: ${{e.data}}, ${{c.code}} ${{c.wasClean}}`); }};
                ws.onerror = () => reject(new Error('the socket failed'));
            }})",
            json!(socket)
        );
        assert_eq!(browser.evaluate(&script), "Message from server: Hello, 1000 true", "{socket}");
    }
}

#[test]
fn a_browser_chats_on_the_demo_page_over_ws_and_wss() {
    beyond_nginx!();
    let Some(chromium) = external("chromium") else { return };
    let demo = Demo::start();
    let mut browser = Browser::start(&chromium);
    for page in [format!("http://{}/", demo.http), format!("https://{}/", demo.https)] {
        browser.open(&page);
        let word = format!("hello from {page}");
        assert!(
            browser.becomes("/open|connected|online/i.test(document.querySelector('#state').textContent)"),
            "{page}: #state says {:?}",
            browser.text("#state")
        );
        browser.type_into("#echo-text", &word);
        browser.click("#echo-send");
        assert!(
            browser.becomes(&format!("document.querySelector('#echo-log').textContent.includes({})", json!(word))),
            "{page}: #echo-log says {:?}",
            browser.text("#echo-log")
        );
        browser.type_into("#name", "Ada");
        browser.type_into("#text", &word);
        browser.click("#send");
        assert!(
            browser.becomes(&format!("document.querySelector('#log').textContent.includes({})", json!(word))),
            "{page}: #log says {:?}",
            browser.text("#log")
        );
    }
}
