//! Workers over time: many of them, storms, too few descriptors, and what is left afterwards.

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::util::{Backend, Driver, Proxy, Wire, beyond_nginx, eventually, frames, on_both_drivers};

on_both_drivers![
    descriptors_return_after_many_connections,
    a_storm_of_broken_connections_leaves_it_serving,
    too_few_descriptors_pause_and_do_not_end_it,
    busy_tunnels_leave_time_for_requests_and_signals,
];

#[test]
fn every_worker_serves() {
    let proxy = Proxy::config("server { listen %http%; return 200 $pid; }").main("worker_processes 4;").start();
    let answers: Vec<String> = (0..64).map(|_| proxy.get("/").text()).collect();
    assert_eq!(answers.len(), 64);
    if !crate::util::proxy::nginx_stands_in() {
        let threads = fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("the process lives").flatten();
        let names: BTreeSet<String> = threads
            .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect();
        assert!(names.iter().filter(|name| name.contains("worker")).count() >= 4, "threads: {names:?}");
        assert_eq!(answers.iter().collect::<BTreeSet<_>>().len(), 1, "one process");
    }
}

fn descriptors_return_after_many_connections(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::before(backend.address(), driver);
    let round = || {
        let mut clients: Vec<Wire> = (0..150).map(|_| proxy.connect()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            match number % 3 {
                0 => drop(client.get("/plain")),
                1 => {
                    client.websocket("/");
                    client.echoes("one message");
                }
                _ => {
                    let _ = client.try_send("GET / HT");
                }
            }
        }
    };
    // The first round fills what is kept for good: pools of pipes, buffers.
    round();
    thread::sleep(Duration::from_millis(500));
    let before = proxy.descriptors();
    for _ in 0..4 {
        round();
    }
    assert!(eventually(|| proxy.descriptors() <= before + 4), "{} descriptors, {before} before", proxy.descriptors());
}

fn a_storm_of_broken_connections_leaves_it_serving(driver: Driver) {
    let backend = Backend::echo();
    let proxy = Proxy::before(backend.address(), driver);
    let address = proxy.http();
    let storm: Vec<_> = (0..4)
        .map(|seed| {
            thread::spawn(move || {
                for number in 0..150 {
                    let mut client = Wire::connect(address);
                    match (number + seed) % 6 {
                        0 => client.reset(),
                        1 => drop(client.try_send("GET / HTTP/1.1\r\nHo")),
                        2 => {
                            let _ = client.try_send(frames::request("/", "x"));
                            client.reset();
                        }
                        3 => {
                            client.websocket("/");
                            let _ = client.try_send(&frames::client(frames::BINARY, [7; 5000])[..3000]);
                            client.reset();
                        }
                        4 => {
                            client.websocket("/");
                            drop(client);
                        }
                        _ => {
                            let _ = client.try_send([0xff; 300]);
                            let _ = client.ending();
                        }
                    }
                }
            })
        })
        .collect();
    for thread in storm {
        thread.join().expect("a thread of the storm");
    }
    let mut client = proxy.tunnel("/");
    client.echoes("after the storm");
}

fn too_few_descriptors_pause_and_do_not_end_it(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::config("server { listen %http%; location / { proxy_pass http://%backend%; } }")
        .main("worker_processes 1; worker_rlimit_nofile 64; events { worker_connections 30; }")
        .set("backend", backend.address())
        .on(driver)
        .start();
    // Each tunnel takes two descriptors: this many cannot all be there.
    let mut clients: Vec<Wire> = (0..60).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        let _ = client.try_send(frames::request("/", "x"));
    }
    let mut open = Vec::new();
    for mut client in clients {
        client.patience(Duration::from_millis(400));
        let (bytes, _) = client.ending();
        if bytes.starts_with(b"HTTP/1.1 101") {
            open.push(client);
        }
    }
    assert!(open.len() >= 5, "some were served: {}", open.len());
    for client in &mut open {
        client.patience(crate::util::PATIENCE).echoes("still served");
    }
    let used = cpu_time(&proxy);
    thread::sleep(Duration::from_secs(1));
    assert!(cpu_time(&proxy) - used < Duration::from_millis(700), "it spins while it has no descriptors");
    drop(open);
    let deadline = Instant::now() + crate::util::PATIENCE;
    loop {
        let mut client = proxy.connect();
        client.patience(Duration::from_secs(2));
        let _ = client.try_send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        if client.ending().0.starts_with(b"HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < deadline, "it does not serve again:\n{}", proxy.log());
    }
}

/// User and system time of the process (proc(5), `stat`; 100 ticks a second).
fn cpu_time(proxy: &Proxy) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).expect("the process lives");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 10)
}

#[test]
fn tunnels_of_a_quitting_process_end_with_their_time() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy =
        Proxy::config("server { listen %http%; location / { websocket_timeout 2s; proxy_pass http://%backend%; } }")
            .main("drain_timeout 1h; worker_shutdown_timeout 2h;")
            .set("backend", backend.address())
            .start();
    let mut client = proxy.tunnel("/");
    proxy.running().signal(nix::sys::signal::Signal::SIGQUIT);
    client.echoes("while it drains");
    client.expect_gone();
    assert!(proxy.running().wait().success());
}

#[test]
fn privileges_are_dropped_to_the_files_user() {
    beyond_nginx!();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let proxy = Proxy::config("server { listen %http%; return 200 ok; }").main("user nobody;").start();
    assert_eq!(proxy.get("/").text(), "ok");
    let nobody = nix::unistd::User::from_name("nobody").ok().flatten().expect("every system has nobody");
    let wanted = format!("Uid:\t{0}\t{0}\t{0}\t{0}", nobody.uid);
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("the process lives").flatten();
    for task in tasks {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        assert!(status.contains(&wanted), "a thread keeps its privileges:\n{status}");
    }
}

#[test]
fn unknown_accounts_are_named() {
    if nix::unistd::geteuid().is_root() {
        let setup = Proxy::config("server { listen %http%; return 200 ok; }");
        let main = "user no-such-account-here;";
        if !crate::util::proxy::nginx_stands_in() {
            let finished = setup.main(main).run(&["-t"]);
            finished.expect_code(1).expect(&["no-such-account-here"]);
        }
    }
}

/// A backend that throws away what tunnels bring it: one that kept it would fill the memory.
fn drain() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("its address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut wire = Wire::over(stream);
                wire.accept_websocket();
                let mut buffer = vec![0; 1 << 20];
                while wire.read_some(&mut buffer).is_ok_and(|length| length > 0) {}
            });
        }
    });
    address
}

/// Clients that send without a pause for as long as their tunnels take it.
fn flood(proxy: &Proxy, clients: usize) {
    let frame = Arc::new(frames::client(frames::BINARY, vec![7; 1 << 20]));
    for _ in 0..clients {
        let (mut client, frame) = (proxy.connect(), Arc::clone(&frame));
        client.websocket("/");
        thread::spawn(move || while client.try_send(&*frame).is_ok() {});
    }
}

fn busy_tunnels_leave_time_for_requests_and_signals(driver: Driver) {
    beyond_nginx!();
    let mut proxy = Proxy::config(
        "server { listen %http%; location / { proxy_pass http://%backend%; } location = /own { return 200 ok; } }",
    )
    .main("worker_processes 1;")
    .set("backend", drain())
    .on(driver)
    .start();
    flood(&proxy, 16);
    thread::sleep(Duration::from_millis(300));
    for _ in 0..5 {
        let asked = Instant::now();
        assert_eq!(proxy.get("/own").text(), "ok");
        assert!(asked.elapsed() < Duration::from_secs(3), "a request waited {:?}", asked.elapsed());
    }
    let told = Instant::now();
    proxy.running().signal(nix::sys::signal::Signal::SIGTERM);
    assert!(proxy.running().wait().success());
    assert!(told.elapsed() < Duration::from_secs(3), "a signal waited {:?}", told.elapsed());
}
