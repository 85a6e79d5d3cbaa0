//! Slow clients: what many cost that never get their request out, when they are let go, and what the others notice of them.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::util::{Backend, Driver, Ending, Proxy, Wire, beyond_nginx, eventually, frames, leaks, on_both_drivers};

on_both_drivers![
    two_thousand_slow_clients_are_cheap_and_end_in_408,
    who_says_nothing_is_left_and_who_drips_in_tls_gets_no_second_longer,
];

const SLOW: usize = 2_000;
/// A head, as far as the slow ones get.
const PIECES: [&str; 5] = ["GET / HT", "TP/1.1\r\n", "Host: a.exa", "mple\r\n", "X-Slow: 1"];

fn two_thousand_slow_clients_are_cheap_and_end_in_408(driver: Driver) {
    beyond_nginx!();
    let text = "server { listen %http%; client_header_timeout 12s; access_log off; location / { return 204; }
        location = /metrics { metrics; } }";
    let proxy = Proxy::config(text).main("worker_processes 1; error_log stderr warn;").on(driver).watched().start();
    let open = |count: usize| -> Vec<Wire> { (0..count).map(|_| proxy.connect()).collect() };
    // They bring the tables to size.
    let _first = open(300);
    assert_eq!(proxy.get("/").status(), 204);
    // Longer than a worker waits for more before it gives back what accepting them took.
    thread::sleep(Duration::from_millis(1_500));
    let (before, began) = (proxy.private_bytes(), Instant::now());
    let mut slow = open(SLOW);
    for piece in PIECES {
        slow.iter_mut().for_each(|client| _ = client.send(piece));
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(proxy.get("/").status(), 204);
    let each = proxy.private_bytes().saturating_sub(before) / SLOW;
    assert!(began.elapsed() < Duration::from_secs(11), "this machine is too slow to tell");
    // Measured: 1,750 to 1,800, once 1,960. Pages that the allocator shares among them, and what else the process does meanwhile, are a few percent.
    assert!(each < 2_048, "{each} bytes a slow client");
    for client in &mut slow {
        assert_eq!(client.response().status(), 408);
    }
    assert!(began.elapsed() > Duration::from_secs(10), "it was too soon");
    assert_eq!(leaks::figure(&proxy, "longsplice_refusals_total{reason=\"header_timeout\"}"), SLOW as i64);
}

fn who_says_nothing_is_left_and_who_drips_in_tls_gets_no_second_longer(driver: Driver) {
    beyond_nginx!();
    let text = "client_header_timeout 2s; server { listen %http%; listen %https% ssl; ssl_certificate %dir%/a.crt;
        ssl_certificate_key %dir%/a.key; location / { return 204; } }";
    let proxy = Proxy::config(text).certificate("a", &["a.example"]).on(driver).start();
    let within = |ending: (Vec<u8>, Ending), began: Instant, words: &str| {
        assert!(began.elapsed() > Duration::from_millis(1_500), "too soon: {words}");
        assert!(began.elapsed() < Duration::from_secs(6), "too late: {words}");
        assert!(ending.0.is_empty(), "{:?} was said: {words}", String::from_utf8_lossy(&ending.0));
        proxy.logged(&[words]);
    };
    let began = Instant::now();
    let (mut silent, mut hello) = (proxy.connect(), Wire::connect(proxy.address("https")));
    let mut head = proxy.connect_tls("a.example");
    // A ClientHello of 512 bytes that never comes whole, and a head likewise.
    hello.send([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    head.send("GET / HTTP/1.1\r\n");
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(150));
        hello.send([0u8]);
        head.send("X");
    }
    within(silent.ending(), began, "client timed out before its request");
    within(hello.ending(), began, "client timed out in its TLS handshake");
    assert_eq!(head.response().status(), 408);
    assert!(began.elapsed() < Duration::from_secs(6));
    proxy.logged(&["no complete request head within client_header_timeout (408 header_timeout)"]);
}

/// Prints how long fresh handshakes take beside so many slow clients, and without: for people, `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn new_clients_beside_slow_ones() {
    let backend = Backend::echo();
    let proxy = Proxy::config("server { listen %http%; client_header_timeout 1h; access_log off; location / { proxy_pass http://%backend%; } }")
        .main("worker_processes 1; error_log stderr warn;")
        .set("backend", backend.address())
        .start();
    let quantiles = || {
        let mut times: Vec<_> = (0..400)
            .map(|_| {
                let began = Instant::now();
                let mut client = proxy.connect();
                client.send(frames::request("/", "x"));
                assert_eq!(client.head().status(), 101);
                began.elapsed().as_micros()
            })
            .collect();
        times.sort_unstable();
        [times[times.len() / 2], times[times.len() * 99 / 100]]
    };
    quantiles();
    for round in 0..5 {
        let alone = quantiles();
        let mut slow: Vec<_> = (0..SLOW).map(|_| proxy.connect()).collect();
        slow.iter_mut().for_each(|client| _ = client.send("GET / HTTP/1.1\r\nX: "));
        let done = AtomicBool::new(false);
        let beside = thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    // A byte a second from each, evenly.
                    for some in slow.chunks_mut(SLOW / 100) {
                        some.iter_mut().for_each(|client| _ = client.send("x"));
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            });
            let beside = quantiles();
            done.store(true, Relaxed);
            beside
        });
        let ratio = |index: usize| beside[index] as f64 / alone[index] as f64;
        println!(
            "round {round}: p50 {} and {} us ({:.2}), p99 {} and {} us ({:.2})",
            alone[0],
            beside[0],
            ratio(0),
            alone[1],
            beside[1],
            ratio(1)
        );
        slow.into_iter().for_each(Wire::reset);
        assert!(eventually(|| proxy.descriptors() < SLOW));
    }
}
