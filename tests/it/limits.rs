//! `limit_conn`, `limit_req` and `upgrade_rate`.

mod like_nginx;
mod places;

use std::thread;

use crate::util::{Backend, Driver, Proxy, beyond_nginx, eventually, frames, leaks::figure, on_both_drivers};

on_both_drivers![who_leaves_while_delayed_is_not_waited_for, a_crowd_of_upgrades_is_told_to_come_back];

const PASS: &str = "proxy_pass http://%backend%; proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;";

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
    let mut open: Vec<_> = (0..512).map(|key| proxy.tunnel(&format!("/?key={key}"))).collect();
    assert_eq!(proxy.connect().upgrade("/?key=new").status(), 503);
    proxy.logged(&["limiting connections, no memory in zone \"few\" (503 limit_conn)"]);
    open.push(proxy.tunnel("/?key=7"));
    assert_eq!(figure(&proxy, "longsplice_limit_zone_keys{zone=\"few\"}"), 512);
    assert_eq!(figure(&proxy, "longsplice_limit_connections{zone=\"few\"}"), 513);
    open.swap_remove(3);
    is_free(&proxy, "/?key=new");
}

/// Waits until a key has a place.
#[track_caller]
fn is_free(proxy: &Proxy, target: &str) {
    let opens = || proxy.connect().upgrade(target).status() == 101;
    assert!(eventually(opens), "no place for {target}: {}", proxy.log());
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
