//! How evenly the workers share the connections, as the kernel sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Mutex,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::util::{Backend, Driver, Proxy, Wire, beyond_nginx, eventually, frames, on_both_drivers};

on_both_drivers![
    tunnels_are_spread_evenly_and_again_after_a_worker_lost_its_own,
    a_full_worker_leaves_the_next_connection_to_one_with_room,
    clients_of_a_unix_socket_are_spread_too,
];

const WORKERS: usize = 4;

/// A backend that keeps the sockets and no threads.
fn backend() -> Backend {
    let kept = Mutex::new(Vec::new());
    Backend::serve(move |mut wire, _| {
        wire.accept_websocket();
        kept.lock().unwrap().push(wire);
    })
}

fn proxy(listen: &str, connections: usize, backend: &Backend, driver: Driver) -> Proxy {
    let location = "location / { proxy_pass http://%backend%; } location = /own { return 200 ok; }";
    Proxy::config(&format!("server {{ listen %http%; {listen} {location} }}"))
        .main("drain_timeout 1h; worker_shutdown_timeout 2h;")
        .main(&format!("worker_processes {WORKERS}; events {{ worker_connections {connections}; }}"))
        .set("backend", backend.address())
        .on(driver)
        .start()
}

/// By RST: the backend would never answer a FIN.
fn leave(clients: impl IntoIterator<Item = Wire>) {
    clients.into_iter().for_each(Wire::reset);
}

/// The sockets that each epoll instance of the process waits for, by inode (proc_pid_fdinfo(5), `tfd`).
fn sockets_by_epoll(proxy: &Proxy) -> BTreeSet<BTreeSet<u64>> {
    let process = format!("/proc/{}", proxy.pid());
    let descriptors = fs::read_dir(format!("{process}/fd")).expect("the process lives").flatten();
    descriptors
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|link| link == Path::new("anon_inode:[eventpoll]")))
        .filter_map(|entry| fs::read_to_string(format!("{process}/fdinfo/{}", entry.file_name().display())).ok())
        .map(|watched| {
            let inode = |line: &str| u64::from_str_radix(line.split_once("ino:")?.1.split(' ').next()?, 16).ok();
            watched.lines().filter_map(inode).collect()
        })
        .collect()
}

/// The proxy's connections from clients: inode of its socket, and the client's port (proc_pid_net(5), `tcp`).
fn clients(proxy: &Proxy) -> BTreeMap<u64, u16> {
    let ours = format!(":{:04X}", proxy.http().port());
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    let client = |line: &str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, remote, state, inode) = (columns[1], columns[2], columns[3], columns[9]);
        // 01 is TCP_ESTABLISHED.
        let port = remote.rsplit(':').next().filter(|_| state == "01" && local.ends_with(&ours))?;
        Some((inode.parse().ok()?, u16::from_str_radix(port, 16).ok()?))
    };
    table.lines().skip(1).filter_map(client).collect()
}

/// The ports of each worker's clients.
fn shares(proxy: &Proxy) -> Vec<BTreeSet<u16>> {
    let clients = clients(proxy);
    let mut shares: Vec<BTreeSet<u16>> = sockets_by_epoll(proxy)
        .iter()
        .map(|sockets| sockets.iter().filter_map(|inode| clients.get(inode).copied()).collect::<BTreeSet<u16>>())
        .filter(|share| !share.is_empty())
        .collect();
    shares.resize(WORKERS, BTreeSet::new());
    shares
}

#[track_caller]
fn expect_even(shares: impl IntoIterator<Item = usize>, expected: usize) {
    let shares: Vec<usize> = shares.into_iter().collect();
    let mean = shares.iter().sum::<usize>() as f64 / WORKERS as f64;
    assert_eq!((shares.len(), mean * WORKERS as f64), (WORKERS, expected as f64), "{shares:?}");
    let fullest = shares.iter().copied().max().unwrap_or_default() as f64;
    // With 300 to a worker; the slack counts for less where there are more (`balance`).
    assert!(fullest <= 1.08 * mean, "{shares:?}: {:.3} of the mean", fullest / mean);
}

fn tunnels_are_spread_evenly_and_again_after_a_worker_lost_its_own(driver: Driver) {
    beyond_nginx!();
    const TUNNELS: usize = 1200;
    let backend = backend();
    let mut proxy = proxy("", 9000, &backend, driver);
    let mut open = proxy.tunnels("/", TUNNELS);
    let before = shares(&proxy);
    expect_even(before.iter().map(BTreeSet::len), TUNNELS);
    let gone = &before[0];
    let port = |client: &Wire| client.tcp().local_addr().expect("its address").port();
    leave(open.extract_if(.., |client| gone.contains(&port(client))));
    assert!(eventually(|| clients(&proxy).len() == open.len()), "the others stay");
    open.extend(proxy.tunnels("/", gone.len()));
    // By hash alone the one would have a fourth of its own again, and the others the rest on top.
    expect_even(shares(&proxy).iter().map(BTreeSet::len), TUNNELS);
    // What was handed over lives as long as all the rest.
    proxy.running().signal(Signal::SIGQUIT);
    proxy.logged(&["SIGQUIT"]);
    assert_eq!(clients(&proxy).len(), TUNNELS);
    leave(open);
    assert!(proxy.running().wait().success());
    let summary = proxy.logged(&["exit:", "handed over", "taken over"]);
    let count = |name: &str| {
        let (before, _) = summary.split_once(&format!(" {name} over")).expect("its count");
        before.rsplit(' ').next().and_then(|count| count.parse::<usize>().ok()).expect("a number")
    };
    assert_eq!(count("handed"), count("taken"), "{summary}");
    assert!(count("handed") >= gone.len() / 2, "{summary}");
}

fn a_full_worker_leaves_the_next_connection_to_one_with_room(driver: Driver) {
    beyond_nginx!();
    // A tunnel counts two.
    const EACH: usize = 10;
    let backend = backend();
    let proxy = proxy("", 2 * EACH, &backend, driver);
    let open = proxy.tunnels("/", WORKERS * EACH);
    assert_eq!(shares(&proxy).iter().map(BTreeSet::len).collect::<Vec<_>>(), [EACH; WORKERS]);
    let mut late = proxy.connect();
    late.send(frames::request("/", "x")).patience(Duration::from_millis(300));
    assert_eq!(late.ending().0, b"", "there is no room for another");
    leave(open);
    late.patience(crate::util::PATIENCE);
    assert_eq!(late.head().status(), 101);
    assert_eq!(proxy.get("/own").text(), "ok");
}

fn clients_of_a_unix_socket_are_spread_too(driver: Driver) {
    beyond_nginx!();
    const TUNNELS: usize = 400;
    let backend = backend();
    let proxy = proxy("listen unix:%dir%/proxy.sock;", 9000, &backend, driver);
    let path = proxy.dir().join("proxy.sock");
    let tunnel = |_| {
        let mut client = Wire::connect_unix(&path);
        client.websocket("/");
        client
    };
    let _open: Vec<Wire> = (0..TUNNELS).map(tunnel).collect();
    // Beside tunnels' pairs an epoll instance holds the listeners, a clock, a bell: a handful.
    let pairs: Vec<usize> =
        sockets_by_epoll(&proxy).iter().map(|sockets| sockets.len() / 2).filter(|pairs| *pairs > 10).collect();
    let (fullest, all) = (pairs.iter().max().copied().unwrap_or_default(), pairs.iter().sum::<usize>());
    assert!(all >= TUNNELS && fullest <= TUNNELS / WORKERS + 30, "{pairs:?}");
}
