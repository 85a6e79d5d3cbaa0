//! `limit_conn`, `limit_req` and `upgrade_rate`.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::util::{
    Backend, Driver, Program, Proxy, Wire, beyond_nginx, eventually, external, frames,
    leaks::{Leaks, figure},
    on_both_drivers,
    proxy::under_test,
};

on_both_drivers![
    a_place_is_free_again_however_its_tunnel_ends,
    a_place_is_free_again_however_a_request_ends,
    who_leaves_while_delayed_is_not_waited_for,
    a_crowd_of_upgrades_is_told_to_come_back,
];

const PASS: &str = "proxy_pass http://%backend%; proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;";

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
fn seen(head: &crate::util::Head) -> String {
    let field = |name| head.get(name).unwrap_or("-").to_owned();
    format!("{} req {} conn {}", head.status(), field("x-req"), field("x-conn"))
}

/// A tunnel.
#[track_caller]
fn opened(proxy: &Proxy, target: &str) -> Wire {
    let mut wire = proxy.connect();
    wire.websocket(target);
    wire
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

#[test]
fn a_full_zone_of_connections_refuses_new_keys_only() {
    beyond_nginx!();
    let text = format!(
        "limit_conn_zone $arg_key zone=few:32k;
         server {{ listen %http%; access_log off; location / {{ limit_conn few 2; {PASS} }} }}"
    );
    let backend = Backend::echo();
    let proxy =
        Proxy::config(&text).main("error_log stderr error;").set("backend", backend.address()).watched().start();
    let mut open: Vec<_> = (0..512).map(|key| opened(&proxy, &format!("/?key={key}"))).collect();
    assert_eq!(proxy.connect().upgrade("/?key=new").status(), 503);
    proxy.logged(&["limiting connections, no memory in zone \"few\" (503 limit_conn)"]);
    open.push(opened(&proxy, "/?key=7"));
    assert_eq!(figure(&proxy, "longsplice_limit_zone_keys{zone=\"few\"}"), 512);
    assert_eq!(figure(&proxy, "longsplice_limit_connections{zone=\"few\"}"), 513);
    open.swap_remove(3);
    is_free(&proxy, "/?key=new");
}

/// A server whose every path may have one connection of a key, `?key=`.
fn one_each(directives: &str, backend: SocketAddr, driver: Driver) -> Proxy {
    Proxy::config(&format!(
        "limit_conn_zone $arg_key zone=key:1m;
         server {{ listen %http%;
           location / {{ limit_conn key 1; {directives} {PASS} }} }}"
    ))
    .set("backend", backend)
    .watched()
    .on(driver)
    .start()
}

/// Waits until a key has a place.
#[track_caller]
fn is_free(proxy: &Proxy, target: &str) {
    let opens = || proxy.connect().upgrade(target).status() == 101;
    assert!(eventually(opens), "no place for {target}: {}", proxy.log());
}

fn a_place_is_free_again_however_its_tunnel_ends(driver: Driver) {
    // What the backend does when it is told to.
    let backend = Backend::serve(|mut wire, _| {
        if wire.try_head().map(|head| wire.try_send(frames::switching(&head))).is_none() {
            return;
        }
        wire.patience(Duration::from_secs(60));
        let mut word = [0; 64];
        while let Ok(length @ 1..) = wire.read_some(&mut word) {
            let _ = length;
            match word.iter().position(|byte| *byte == b'#').map(|at| word[at + 1]) {
                Some(b'c') => return,
                Some(b'r') => return wire.reset(),
                _ => {}
            }
        }
    });
    let proxy = one_each("websocket_timeout 1s;", backend.address(), driver);
    let before = Leaks::of(&proxy);
    let tells = |wire: &mut Wire, what: u8| {
        // Not masked for its backend to read; an opaque payload for the proxy.
        wire.send([&[0x82, 0x80 | 2, 0, 0, 0, 0, b'#'][..], &[what]].concat());
    };
    type End<'a> = Box<dyn Fn(Wire) + 'a>;
    let ends: Vec<(&str, End<'_>)> = vec![
        ("client_closes", Box::new(drop)),
        ("client_resets", Box::new(Wire::reset)),
        ("client_finishes", Box::new(|mut wire| drop(wire.finish().ending()))),
        (
            "backend_closes",
            Box::new(|mut wire| {
                tells(&mut wire, b'c');
                wire.ending();
            }),
        ),
        (
            "backend_resets",
            Box::new(|mut wire| {
                tells(&mut wire, b'r');
                wire.ending();
            }),
        ),
        (
            "protocol_error",
            Box::new(|mut wire| {
                wire.send([0xff; 16]);
                wire.ending();
            }),
        ),
        ("idle", Box::new(|mut wire| drop(wire.ending()))),
    ];
    for (name, end) in ends {
        let target = format!("/?key={name}");
        let mut wire = proxy.connect();
        assert_eq!(wire.upgrade(&target).status(), 101, "{name}");
        assert_eq!(proxy.connect().upgrade(&target).status(), 503, "{name}: taken");
        end(wire);
        is_free(&proxy, &target);
    }
    beyond_nginx!();
    proxy.logged(&["[error]", "limiting connections by zone \"key\" (503 limit_conn)", "client: 127.0.0.1"]);
    assert!(figure(&proxy, "longsplice_limit_zone_requests_total{zone=\"key\",result=\"rejected\"}") >= 7);
    assert!(figure(&proxy, "longsplice_refusals_total{reason=\"limit_conn\"}") >= 7);
    before.assert_same(&proxy);
    assert_eq!(figure(&proxy, "longsplice_limit_zone_keys{zone=\"key\"}"), 0);
}

fn a_place_is_free_again_however_a_request_ends(driver: Driver) {
    let backend = Backend::serve(|mut wire, _| {
        while let Some(head) = wire.try_head() {
            match head.target() {
                "/?key=declined" => drop(wire.try_send("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")),
                "/?key=broken" => return,
                "/?key=silent" => drop(wire.ending()),
                _ => drop(wire.try_send(frames::switching(&head))),
            }
        }
    });
    let proxy = one_each("proxy_read_timeout 1s;", backend.address(), driver);
    let upgrade = |target: &str| proxy.connect().upgrade(target).status();
    // Twice each, and the second time as soon as the first is answered.
    for (name, status) in [("declined", 404), ("broken", 502), ("silent", 504)] {
        let target = format!("/?key={name}");
        assert_eq!((upgrade(&target), upgrade(&target)), (status, status), "{name}");
    }
    let bad = "GET /?key=bad HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n";
    assert_ne!(proxy.connect().ask(bad).status(), 503);
    is_free(&proxy, "/?key=bad");
    // A client that leaves within its handshake.
    let mut client = proxy.connect();
    client.send(frames::request("/?key=silent", "x"));
    proxy.logged(&["/?key=silent"]);
    drop(client);
    let answers = || upgrade("/?key=silent") == 504;
    assert!(eventually(answers), "{}", proxy.log());
    // The next request of a connection is not beside the one before it.
    let plain = one_each("", Backend::echo().address(), driver);
    let mut client = plain.connect();
    let statuses: Vec<u16> = (0..3).map(|_| client.get("/?key=same").status()).collect();
    assert!(statuses.iter().all(|status| *status == 502 || *status == 200), "{statuses:?}");
}

#[test]
fn workers_share_their_zones() {
    let backend = Backend::echo();
    let text = format!(
        "limit_conn_zone $host zone=all:1m; limit_req_zone $host zone=fast:1m rate=1r/m;
         server {{ listen %http%; location / {{ limit_conn all 8; {PASS} }}
           location /req {{ limit_req zone=fast burst=19 nodelay; {PASS} }} }}"
    );
    let proxy = Proxy::config(&text).main("worker_processes 2;").set("backend", backend.address()).start();
    let open: Vec<_> = (0..8).map(|_| opened(&proxy, "/")).collect();
    for _ in 0..12 {
        assert_eq!(proxy.connect().upgrade("/").status(), 503, "whichever worker it is");
    }
    drop(open);
    is_free(&proxy, "/");
    let passed = (0..40).filter(|_| proxy.get("/req").status() == 200).count();
    assert_eq!(passed, 20);
}

#[test]
fn places_outlive_reloads_and_workers() {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = |key: &str, limit: u32, size: &str| {
        format!(
            "limit_conn_zone {key} zone=all:{size};
             server {{ listen %http%; location / {{ limit_conn all {limit}; {PASS} }} }}"
        )
    };
    let start = Proxy::config(&text("$host", 3, "1m")).main("worker_processes 3;").set("backend", backend.address());
    let mut proxy = start.start();
    let open = |proxy: &Proxy| {
        let mut wire = proxy.connect();
        (wire.upgrade("/").status() == 101).then_some(wire)
    };
    let mut tunnels: Vec<_> = (0..3).map(|_| open(&proxy).expect("a place")).collect();
    assert!(open(&proxy).is_none());
    let reload = |proxy: &mut Proxy, main: &str, text: &str, number: u32| {
        proxy.rewrite(main, text);
        proxy.running().signal(Signal::SIGHUP);
        proxy.logged(&[&format!("configuration {number} is in use")]);
    };
    // Fewer workers: their tunnels move to the one that stays.
    reload(&mut proxy, "worker_processes 1;", &text("$host", 3, "1m"), 2);
    assert!(open(&proxy).is_none(), "the zone goes on");
    tunnels.iter_mut().for_each(|tunnel| tunnel.echoes("still"));
    drop(tunnels.pop());
    is_free(&proxy, "/");
    assert!(eventually(|| open(&proxy).is_some()));
    reload(&mut proxy, "worker_processes 2;", &text("$host", 4, "1m"), 3);
    let more: Vec<_> = (0..2).map(|_| open(&proxy).expect("a place more")).collect();
    assert!(open(&proxy).is_none(), "two of each configuration");
    // Another key is another zone: what was counted by the old one is counted there.
    reload(&mut proxy, "worker_processes 2;", &text("$host$uri", 1, "1m"), 4);
    let other = open(&proxy).expect("a place");
    assert!(open(&proxy).is_none());
    drop((tunnels, more));
    assert!(open(&proxy).is_none());
    drop(other);
    assert!(eventually(|| open(&proxy).is_some()));
}

fn who_leaves_while_delayed_is_not_waited_for(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = format!(
        "limit_req_zone $uri zone=slow:1m rate=6r/m;
         server {{ listen %http%;
           location / {{ limit_req zone=slow burst=5; {PASS} }} }}"
    );
    let proxy = Proxy::config(&text).set("backend", backend.address()).watched().on(driver).start();
    assert_eq!(proxy.connect().upgrade("/").status(), 101);
    let asked = backend.connections();
    let mut client = proxy.connect();
    client.send(frames::request("/", "x"));
    proxy.logged(&["delaying request, excess: "]);
    drop(client);
    proxy.logged(&["client closed connection while its request was delayed (499 client_closed)"]);
    let waits = || figure(&proxy, "longsplice_connections{state=\"writing\"}") <= 1;
    assert!(eventually(waits), "nobody but who asks for the figures");
    assert_eq!(backend.connections(), asked, "the backend was not asked");
}

fn a_crowd_of_upgrades_is_told_to_come_back(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let text = format!(
        "upgrade_rate 1r/s burst=4; error_page 503 /page;
         server {{ listen %http%; location / {{ {PASS} }} }}"
    );
    let proxy =
        Proxy::config(&text).main("worker_processes 1;").set("backend", backend.address()).watched().on(driver).start();
    let mut open = Vec::new();
    let mut waits = Vec::new();
    for _ in 0..60 {
        let mut client = proxy.connect();
        let head = client.upgrade("/");
        match head.status() {
            101 => open.push(client),
            503 => waits.push(head.get("retry-after").expect("Retry-After").parse::<u64>().expect("seconds")),
            other => panic!("{other}"),
        }
    }
    assert!((5..=10).contains(&open.len()), "{} were let in", open.len());
    assert_eq!(backend.connections(), open.len(), "no backend was asked for the others");
    waits.sort_unstable();
    assert!(waits[0] <= 5 && waits[waits.len() - 1] >= 20 && waits[waits.len() - 1] <= 120, "{waits:?}");
    waits.dedup();
    assert!(waits.len() > 10, "all at different times: {waits:?}");
    assert_eq!(proxy.get("/").status(), 200, "plain requests are not upgrades");
    open[0].echoes("tunnels go on");
    let lines = proxy.log().lines().filter(|line| line.contains("handshake_brake")).count();
    assert!((1..=4).contains(&lines), "{lines} lines of the log for so many");
    proxy.logged(&["[warn]", "limiting upgrades, 1 refused (503 handshake_brake)", "client: 127.0.0.1"]);
    let refused = figure(&proxy, "longsplice_refusals_total{reason=\"handshake_brake\"}");
    assert_eq!(refused as usize, 60 - open.len());
    assert!(eventually(|| proxy.connect().upgrade("/").status() == 101), "later there is room again");
}

#[test]
fn keys_by_the_hundred_thousand_take_no_more_than_their_zone() {
    beyond_nginx!();
    const KEYS: usize = 100_000;
    let text = "limit_req_zone $arg_key zone=few:32k rate=1r/m; limit_conn_zone $arg_key zone=now:32k;
         server { listen %http%; keepalive_requests 1000000; access_log off;
          
           location / { limit_req zone=few; limit_conn now 1; } }";
    let proxy = Proxy::config(text).main("worker_processes 2; error_log stderr crit;").watched().start();
    let come = |from: usize, count: usize| {
        let mut client = proxy.connect();
        let mut writer = client.writer();
        let sender = thread::spawn(move || {
            for key in from..from + count {
                writer.send(format!("GET /?key={key} HTTP/1.1\r\nHost: x\r\n\r\n"));
            }
        });
        (0..count).for_each(|_| assert_eq!(client.response().status(), 404));
        sender.join().expect("sent");
    };
    come(0, 2_000);
    let before = proxy.resident_bytes();
    come(2_000, KEYS - 2_000);
    let grown = proxy.resident_bytes().saturating_sub(before);
    // Without a bound it was 8 MiB.
    assert!(grown < 3 << 20, "{grown} bytes more");
    assert_eq!(figure(&proxy, "longsplice_limit_zone_keys{zone=\"few\"}"), 256);
    assert_eq!(figure(&proxy, "longsplice_limit_zone_keys_max{zone=\"few\"}"), 256);
    assert_eq!(figure(&proxy, "longsplice_limit_zone_keys{zone=\"now\"}"), 0);
    assert_eq!(proxy.get(&format!("/?key={}", KEYS - 1)).status(), 503, "the last is remembered");
    assert_eq!(proxy.get("/?key=0").status(), 404, "the first is not");
}
