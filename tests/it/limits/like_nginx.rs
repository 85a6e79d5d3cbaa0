//! What nginx makes of the same file and the same requests.

use std::time::{Duration, Instant};

use super::PASS;
use crate::util::{Backend, Head, Program, Proxy, beyond_nginx, external, frames, proxy::under_test};

/// What both modules say of a request, beside its status.
const TELL: &str = "add_header X-Req $limit_req_status always; add_header X-Conn $limit_conn_status always;";

/// Runs a file with both programs and compares what `ask` makes of each.
#[track_caller]
fn compare<T: PartialEq + std::fmt::Debug>(text: &str, ask: impl Fn(&Proxy) -> T) {
    if external("nginx").is_none() {
        return;
    }
    let backend = Backend::echo();
    let start = |program| Proxy::config(text).by(program).set("backend", backend.address()).start();
    let (ours, theirs) = (start(under_test()), start(Program::Nginx));
    assert_eq!(ask(&ours), ask(&theirs), "ours, nginx's");
}

/// A status, and what the modules say.
fn seen(head: &Head) -> String {
    let field = |name| head.get(name).unwrap_or("-").to_owned();
    format!("{} req {} conn {}", head.status(), field("x-req"), field("x-conn"))
}

fn get(proxy: &Proxy, target: &str) -> String {
    seen(&proxy.get(target).head)
}

#[test]
fn requests_are_limited_as_by_nginx() {
    // Slow enough that nothing leaks away while the test runs.
    let text = format!(
        "limit_req_zone $uri zone=slow:1m rate=1r/m; limit_req_zone $host zone=all:1m rate=1r/m;
         limit_req_zone $arg_key zone=key:1m rate=1r/m; limit_req_zone $http_none zone=none:1m rate=1r/m;
         {TELL}
         server {{ listen %http%;
           location /plain {{ limit_req zone=slow; {PASS} }}
           location /burst {{ limit_req zone=slow burst=2 nodelay; {PASS} }}
           location /free {{ limit_req zone=slow burst=9 delay=2; limit_req_dry_run on; {PASS} }}
           location /status {{ limit_req zone=slow; limit_req_status 429; {PASS} }}
           location /key {{ limit_req zone=key; {PASS} }}
           location /two {{ limit_req zone=slow burst=3 nodelay; limit_req zone=all burst=1 nodelay; {PASS} }}
           location /other {{ limit_req zone=none; limit_req zone=slow burst=1 nodelay; limit_req zone=key; {PASS} }}
           location /dry {{ limit_req zone=slow; limit_req_dry_run on; {PASS} }}
           location /page {{ limit_req zone=slow; error_page 503 =418 /plain; {PASS} }}
           location /text {{ limit_req zone=slow; return 200 text; }}
           location /inherit {{ {PASS} }}
           location /none {{ limit_req zone=none; {PASS} }}
           location /missing {{ limit_req zone=slow; root %dir%; try_files /none @named; }}
           location @named {{ limit_req zone=slow; {PASS} }}
           location /denied {{ limit_req zone=slow; deny all; {PASS} }}
         }}"
    );
    compare(&text, |proxy| {
        let targets = [
            ("/plain", 3),
            ("/burst", 4),
            ("/free", 5),
            ("/status", 2),
            ("/key?key=a", 2),
            ("/key?key=b", 1),
            ("/key?key=", 3),
            ("/two", 4),
            ("/other", 3),
            ("/other?key=c", 2),
            ("/dry", 3),
            ("/page", 3),
            ("/text", 3),
            ("/inherit", 2),
            ("/none", 2),
            ("/missing", 3),
            ("/denied", 2),
        ];
        let asked = targets.iter().flat_map(|(target, count)| (0..*count).map(move |_| *target));
        asked.map(|target| format!("{target}: {}", get(proxy, target))).collect::<Vec<_>>()
    });
}

#[test]
fn requests_at_once_wait_for_their_turn_as_in_nginx() {
    let text = format!(
        "limit_req_zone $uri zone=a:1m rate=2r/s; {TELL}
         server {{ listen %http%; location / {{ limit_req zone=a burst=2; {PASS} }} }}"
    );
    let at_once = |proxy: &Proxy| {
        let mut wires: Vec<_> = (0..5).map(|_| proxy.connect()).collect();
        let began = Instant::now();
        wires.iter_mut().for_each(|wire| {
            wire.send("GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        });
        let mut answers: Vec<_> = wires.iter_mut().map(|wire| seen(&wire.response().head)).collect();
        answers.sort();
        assert!(began.elapsed() >= Duration::from_millis(950), "the last of them waits for a second");
        answers
    };
    compare(&text, at_once);
    let proxy = Proxy::config(&text).set("backend", Backend::echo().address()).start();
    let delayed = "req DELAYED conn -";
    let expected = [
        "502 req DELAYED conn -",
        &format!("502 {delayed}"),
        "502 req PASSED conn -",
        "503 req REJECTED conn -",
        "503 req REJECTED conn -",
    ];
    assert_eq!(at_once(&proxy), expected, "whether the backend lives or not");
    beyond_nginx!();
    proxy.logged(&["[warn]", "delaying request, excess: ", ", by zone \"a\""]);
    proxy.logged(&["[error]", "limiting requests, excess: ", " by zone \"a\" (503 limit_req)"]);
}

#[test]
fn tunnels_are_limited_as_by_nginx() {
    let text = format!(
        "limit_conn_zone $arg_key zone=key:1m; limit_conn_zone $uri zone=place:1m; limit_conn_zone $host zone=all:1m;
         limit_req_zone $uri zone=slow:1m rate=1r/m; {TELL}
         server {{ listen %http%;
           location /two {{ limit_conn key 2; {PASS} }}
           location /both {{ limit_conn place 2; limit_conn key 1; limit_conn_status 429; {PASS} }}
           location /dry {{ limit_conn place 1; limit_conn_dry_run on; {PASS} }}
           location /page {{ limit_conn place 1; error_page 503 =418 /text; {PASS} }}
           location /text {{ limit_conn place 1; return 200 text; }}
           location /order {{ limit_conn place 1; limit_req zone=slow burst=2 nodelay; {PASS} }}
         }}"
    );
    compare(&text, |proxy| {
        let mut open = Vec::new();
        let mut all = Vec::new();
        let targets = [
            "/two?key=a",
            "/two?key=a",
            "/two?key=a",
            "/two?key=b",
            "/two",
            "/two",
            "/two",
            "/both?key=c",
            "/both?key=c",
            "/both?key=d",
            "/both?key=e",
            "/both",
            "/dry",
            "/dry",
            "/dry",
            "/page",
            "/page",
            "/text",
            "/order",
            "/order",
            "/order",
            "/order",
        ];
        for target in targets {
            let mut wire = proxy.connect();
            all.push(format!("{target}: {}", seen(&wire.upgrade(target))));
            open.push(wire);
        }
        all
    });
}

#[test]
fn a_client_behind_a_balancer_is_limited_by_its_own_address() {
    let text = format!(
        "limit_conn_zone $binary_remote_addr zone=addr:1m; {TELL}
         set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;
         server {{ listen %http%; location / {{ limit_conn addr 1; {PASS} }} }}"
    );
    compare(&text, |proxy| {
        let upgrade = frames::request("/", "x");
        let (mut open, mut all) = (Vec::new(), Vec::new());
        for client in ["192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8::1"] {
            let mut wire = proxy.connect();
            wire.send(upgrade.replacen("\r\n", &format!("\r\nX-Real-IP: {client}\r\n"), 1));
            all.push(format!("{client}: {}", seen(&wire.head())));
            open.push(wire);
        }
        all
    });
}
