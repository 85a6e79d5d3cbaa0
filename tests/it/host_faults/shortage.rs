//! No descriptors, no memory.

use std::{net::TcpStream, thread, time::Duration};

use nix::sys::signal::Signal;

use super::{much_passes, site, tunnels};
use crate::util::{
    Backend, Driver, Leaks, Proxy, Wire, beyond_nginx, eventually,
    host::{Limit, failing, leave_descriptors, lines, set_limit},
    leaks::figure,
    on_both_drivers,
};

on_both_drivers![
    without_descriptors_new_clients_wait_and_tunnels_live,
    without_a_descriptor_for_the_backend_the_answer_is_503_and_nobody_is_blamed,
    kept_connections_give_way_to_new_ones,
    without_pipes_bulk_is_copied,
];

/// Every tunnel still echoes.
fn echo(tunnels: &mut [Wire]) {
    tunnels.iter_mut().for_each(|tunnel| tunnel.echoes("still here"));
}

/// Waits until the log says that the shortage is over.
fn over(proxy: &Proxy) -> String {
    proxy.logged(&["[notice]", "calls succeed again: "])
}

fn without_descriptors_new_clients_wait_and_tunnels_live(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site("").set("backend", backend.address()).on(driver).start();
    let before = Leaks::of(&proxy);
    let mut open = tunnels(&proxy, 6);
    leave_descriptors(&proxy, 0);
    let mut clients: Vec<Wire> = (0..40).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    let line = proxy.logged(&["[crit]", "accept4() failed (24: Too many open files)", "worker_rlimit_nofile"]);
    assert!(line.contains("new connections wait, some get 503"), "{line}");
    echo(&mut open);
    thread::sleep(Duration::from_millis(1500));
    echo(&mut open);
    // Two workers, each of which tries again ten times a second.
    assert!(lines(&proxy, &["accept4()"]) <= 2, "{}", proxy.log());
    set_limit(&proxy, Limit::Descriptors, None);
    let statuses: Vec<u16> = clients.iter_mut().map(|client| client.response().status()).collect();
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert!(refused > 0, "the reserve let nobody in");
    assert!(statuses.len() - refused >= 5, "those who waited are served: {statuses:?}");
    assert_eq!(proxy.get("/").status(), 200);
    echo(&mut open);
    let line = over(&proxy);
    assert!(line.contains("the last: accept4() failed (24: Too many open files)"), "{line}");
    assert!(figure(&proxy, "longsplice_accept_errors_total") > 0);
    assert!(figure(&proxy, "longsplice_shortages_total") > 0);
    drop((open, clients));
    before.assert_same(&proxy);
}

fn without_a_descriptor_for_the_backend_the_answer_is_503_and_nobody_is_blamed(driver: Driver) {
    beyond_nginx!();
    let (one, other) = (Backend::echo(), Backend::echo());
    let text = "upstream app { server %one% max_fails=1; server %other% max_fails=1; }
        server { listen %http%; location / { proxy_pass http://app; } }";
    let proxy = Proxy::config(text)
        .main("user root;")
        .set("one", one.address())
        .set("other", other.address())
        .watched()
        .on(driver)
        .start();
    let before = Leaks::of(&proxy);
    leave_descriptors(&proxy, 1);
    let idle = proxy.descriptors();
    for _ in 0..4 {
        assert_eq!(proxy.connect().upgrade("/").status(), 503);
        // Its descriptor must be free again before the next one comes.
        assert!(eventually(|| proxy.descriptors() == idle), "{} of {idle}", proxy.descriptors());
    }
    proxy.logged(&["[error]", "connect() failed (24: Too many open files)", "503 host_shortage"]);
    assert!(lines(&proxy, &["[crit]"]) <= 2, "{}", proxy.log());
    set_limit(&proxy, Limit::Descriptors, None);
    for _ in 0..2 {
        proxy.connect().websocket("/").echoes("both are in");
    }
    assert_eq!((one.connections(), other.connections()), (1, 1), "no server was taken out");
    assert_eq!(figure(&proxy, "longsplice_refusals_total{reason=\"host_shortage\"}"), 4);
    over(&proxy);
    before.assert_same(&proxy);
}

fn kept_connections_give_way_to_new_ones(driver: Driver) {
    beyond_nginx!();
    let (kept, wanted) = (Backend::named("kept"), Backend::named("wanted"));
    let text = "upstream app { server %kept%; keepalive 4; }
        server { listen %http%; location / { proxy_pass http://app; } location /other { proxy_pass http://%wanted%; } }";
    let proxy = Proxy::config(text)
        .main("worker_processes 1; user root;")
        .set("kept", kept.address())
        .set("wanted", wanted.address())
        .watched()
        .on(driver)
        .start();
    assert_eq!(proxy.get("/").text(), "kept");
    let idle = Leaks::of(&proxy);
    assert_eq!(idle.count("longsplice_worker_upstream_idle"), 1);
    leave_descriptors(&proxy, 1);
    assert_eq!(proxy.get("/other").text(), "wanted");
    set_limit(&proxy, Limit::Descriptors, None);
    assert_eq!(Leaks::of(&proxy).count("longsplice_worker_upstream_idle"), 0);
}

fn without_pipes_bulk_is_copied(driver: Driver) {
    beyond_nginx!();
    let backend = Backend::echo();
    let proxy = site("").set("backend", backend.address()).on(driver).start();
    let before = Leaks::of(&proxy);
    let mut open = tunnels(&proxy, 1);
    leave_descriptors(&proxy, 0);
    much_passes(&mut open[0], 16 << 20);
    proxy.logged(&["[crit]", "pipe2() failed (24: Too many open files): bulk transfers are copied"]);
    assert_eq!(lines(&proxy, &["pipe2() failed"]), 1, "{}", proxy.log());
    set_limit(&proxy, Limit::Descriptors, None);
    much_passes(&mut open[0], 16 << 20);
    over(&proxy);
    drop(open);
    before.assert_same(&proxy);
}

/// From the first to the last moment: the program starts, serves as well as it can, and ends by TERM with status 0.
#[test]
fn system_calls_that_always_fail_are_lived_with() {
    beyond_nginx!();
    for (errno, words, call, what) in [
        ("ENFILE", "(23: File table overflow)", "pipe2", "pipe2"),
        ("ENOMEM", "(12: Out of memory)", "splice", "splice"),
        ("EINVAL", "(22: Invalid argument)", "splice", "splice"),
        // SPLICE_F_MORE: out of the pipe only, so that bytes are in it already.
        ("ENOBUFS", "(105: No buffer space available)", "splice:5&4", "splice"),
    ] {
        let backend = Backend::echo();
        let setup = site("").set("backend", backend.address());
        let Some(setup) = failing(setup, errno, &[call]) else { return };
        let proxy = setup.start();
        let before = Leaks::of(&proxy);
        let mut open = tunnels(&proxy, 3);
        much_passes(&mut open[0], 16 << 20);
        proxy.logged(&["[crit]", &format!("{what}() failed {words}: bulk transfers are copied")]);
        assert!(lines(&proxy, &["bulk transfers are copied"]) <= 2, "{}", proxy.log());
        assert!(figure(&proxy, "longsplice_shortages_total") > 0);
        drop(open);
        before.assert_same_within(&proxy, 8 << 20);
    }
}

/// Sockets to backends alone: those that listen say TCP by name, these by nothing (socket(2), `protocol`).
#[test]
fn without_memory_for_sockets_the_answer_is_503() {
    beyond_nginx!();
    for (errno, words) in [("ENOBUFS", "(105: No buffer space available)"), ("ENFILE", "(23: File table overflow)")] {
        let backend = Backend::echo();
        let setup = site("").set("backend", backend.address());
        let Some(setup) = failing(setup, errno, &["socket:0=2,2=0"]) else { return };
        let proxy = setup.start();
        let before = Leaks::of(&proxy);
        for _ in 0..20 {
            assert_eq!(proxy.connect().upgrade("/").status(), 503);
        }
        proxy.logged(&["[crit]", &format!("connect() failed {words}: new tunnels and requests get 503")]);
        assert!(lines(&proxy, &["[crit]"]) <= 2, "{}", proxy.log());
        assert_eq!(figure(&proxy, "longsplice_refusals_total{reason=\"host_shortage\"}"), 20);
        before.assert_same(&proxy);
    }
}

#[test]
fn connections_that_are_never_accepted_are_no_storm() {
    beyond_nginx!();
    let Some(setup) = failing(Proxy::config("server { listen %http%; return 204; }"), "ENOMEM", &["accept4"]) else {
        return;
    };
    let proxy = setup.start();
    let _waiting: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(proxy.http()).expect("the queue")).collect();
    proxy.logged(&["[crit]", "accept4() failed (12: Out of memory)", "net.ipv4.tcp_mem"]);
    thread::sleep(Duration::from_secs(1));
    assert!(lines(&proxy, &["accept4()"]) <= 2, "{}", proxy.log());
    assert!(proxy.end_by(Signal::SIGTERM).success());
}

/// A tunnel that needs a call which the kernel has no memory for ends, and says why.
#[test]
fn a_tunnel_that_cannot_be_served_says_so() {
    beyond_nginx!();
    let backend = Backend::serve(|mut wire, _| {
        wire.accept_websocket();
        drop(wire.ending());
    });
    // What the tunnel's scratch is filled from, and nothing that is shorter.
    let setup = site("").set("backend", backend.address());
    let scratch = 256 << 10;
    let Some(setup) = failing(setup, "ENOMEM", &[&format!("recvfrom:2={scratch}")]) else { return };
    let proxy = setup.start();
    let before = Leaks::of(&proxy);
    let mut client = proxy.tunnel("/");
    client.send(crate::util::frames::client(1, "x"));
    client.expect_gone();
    proxy.logged(&["[crit]", "recv() failed (12: Out of memory) (host_shortage)"]);
    proxy.written("reasons.log", &["101 host_shortage"]);
    assert_eq!(figure(&proxy, "longsplice_tunnels_closed_total{reason=\"host_shortage\"}"), 1);
    before.assert_same(&proxy);
}

#[test]
fn without_descriptors_a_reload_and_a_reopening_fail_and_nothing_else() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = site("").set("backend", backend.address()).start();
    let before = Leaks::of(&proxy);
    let mut open = tunnels(&proxy, 2);
    leave_descriptors(&proxy, 0);
    proxy.running().signal(Signal::SIGUSR1);
    let line =
        proxy.logged(&["[error]", "reasons.log", "failed (24: Too many open files), the file that was open goes on"]);
    assert!(line.contains("reasons.log"), "{line}");
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["Too many open files", "nginx.conf"]);
    echo(&mut open);
    drop(open.pop());
    proxy.written("reasons.log", &["101 client_"]);
    set_limit(&proxy, Limit::Descriptors, None);
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["configuration 2 is in use"]);
    echo(&mut open);
    tunnels(&proxy, 2);
    drop(open);
    before.assert_same(&proxy);
}

/// RLIMIT_AS: no more address space, and so no new thread. Whatever is allocated from what there is goes on.
#[test]
fn without_memory_a_reload_fails_and_tunnels_live() {
    beyond_nginx!();
    let backend = Backend::echo();
    let mut proxy = site("").set("backend", backend.address()).start();
    let before = Leaks::of(&proxy);
    let mut open = tunnels(&proxy, 6);
    set_limit(&proxy, Limit::AddressSpace, Some(1 << 20));
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["[emerg]", "no thread to read the file (11: "]);
    echo(&mut open);
    set_limit(&proxy, Limit::AddressSpace, None);
    proxy.running().signal(Signal::SIGHUP);
    proxy.logged(&["configuration 2 is in use"]);
    echo(&mut open);
    drop((open, tunnels(&proxy, 2)));
    before.assert_same(&proxy);
}
