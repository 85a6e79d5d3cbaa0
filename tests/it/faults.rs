//! Faults of backends, of clients, of the network between: what the other side gets, what the log says, what is counted, and that
//! nothing is left behind.

mod backend;
mod client;
mod network;

use std::sync::mpsc;

use nix::sys::signal::Signal;

use crate::util::{Backend, Driver, Leaks, PATIENCE, Proxy, Wire, eventually, leaks, on_both_drivers, proxy::Setup};

on_both_drivers![workers_that_leave];

/// ws and wss before `%backend%`, `/tls/` before the same over TLS; a line `STATUS REASON` for each request and tunnel.
fn site(directives: &str) -> Setup {
    let text = format!(
        "log_format reasons '$status $close_reason';
         server {{ listen %http%; listen %https% ssl; ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key;
             access_log %dir%/reasons.log reasons; {directives}
             location / {{ proxy_pass http://%backend%; }}
             location /tls/ {{ proxy_pass https://%backend%; }} }}"
    );
    Proxy::config(&text).certificate("x", &["x"]).watched()
}

/// A fault that is about to happen to a proxy.
struct Fault {
    proxy: Proxy,
    before: Leaks,
}

impl Fault {
    fn at(proxy: Proxy) -> Self {
        let before = Leaks::of(&proxy);
        Self { proxy, before }
    }

    /// A proxy before this backend.
    fn before(backend: &Backend, directives: &str, driver: Driver) -> Self {
        Self::at(site(directives).set("backend", backend.address()).on(driver).start())
    }

    /// A client of ours, over TLS or not.
    fn client(&self, tls: bool) -> Wire {
        if tls { self.proxy.connect_tls("x") } else { self.proxy.connect() }
    }

    /// Both ends of a tunnel, of which the backend hands over its own.
    fn ends(&self, tls: bool, backends: &mpsc::Receiver<Wire>) -> (Wire, Wire) {
        let mut client = self.client(tls);
        client.websocket("/");
        (client, backends.recv_timeout(PATIENCE).expect("the backend's end"))
    }

    /// A proxy of its own with one tunnel, whose ends are the client's and the backend's; the listening backend is to be held.
    fn in_a_tunnel(tls: bool, directives: &str, driver: Driver) -> (Backend, Self, Wire, Wire) {
        let (backend, backends) = Backend::accepting();
        let fault = Self::before(&backend, directives, driver);
        let (client, server) = fault.ends(tls, &backends);
        (backend, fault, client, server)
    }

    fn figure(&self, series: &str) -> i64 {
        leaks::figure(&self.proxy, series)
    }

    /// Waits until so many sessions are in the middle of a head or of a TLS handshake.
    #[track_caller]
    fn is_reading(&self, sessions: i64) {
        let reading = || self.figure("longsplice_connections{state=\"reading\"}");
        assert!(eventually(|| reading() == sessions), "{} sessions read, not {sessions}", reading());
    }

    /// How many lines of the error log say so.
    fn log_has(&self, words: &str) -> usize {
        self.proxy.log().lines().filter(|line| line.contains(words)).count()
    }

    /// A tunnel ended for this reason: a line of each log, a count, and nothing left.
    #[track_caller]
    fn ended(&self, reason: &str) {
        self.happened(1, &format!("({reason})"), &format!("101 {reason}"), "longsplice_tunnels_closed_total", reason);
    }

    /// As often as `times` the error log says `said`, the access log is `written`, and `family` counts the reason; nothing is left.
    #[track_caller]
    fn happened(&self, times: usize, said: &str, written: &str, family: &str, reason: &str) {
        self.before.assert_same(&self.proxy);
        let path = self.proxy.dir().join("reasons.log");
        let lines = || std::fs::read_to_string(&path).unwrap_or_default();
        let found = || (self.log_has(said), lines().lines().filter(|line| line.contains(written)).count());
        assert!(
            eventually(|| found() == (times, times)),
            "{said:?} in the error log and {written:?} in the access log, {times} expected: {:?}\n{}\n{}",
            found(),
            self.proxy.log(),
            lines()
        );
        let series = format!("{family}{{reason=\"{reason}\"}}");
        assert_eq!(leaks::figure(&self.proxy, &series), times as i64, "{series}");
    }
}

/// The count itself: what is there is seen, each in its place, and is gone when it has gone.
#[test]
fn a_tunnel_and_a_kept_connection_are_counted() {
    crate::util::beyond_nginx!();
    let backend = Backend::echo();
    let proxy = Proxy::config(
        "upstream app { server %backend%; keepalive 4; }
         server { listen %http%; location / { proxy_pass http://app; } }",
    )
    .set("backend", backend.address())
    .watched()
    .start();
    let before = Leaks::of(&proxy);
    let mut tunnel = proxy.connect();
    tunnel.websocket("/").echoes("hello");
    let mut waiting = proxy.connect();
    assert_eq!(waiting.get("/").status(), 200);
    let now = Leaks::of(&proxy);
    for (name, more) in [
        ("socket", 4),
        ("longsplice_tunnels", 1),
        ("longsplice_connections{state=\"waiting\"}", 1),
        ("longsplice_worker_tunnel_slots", 1),
        ("longsplice_worker_load", 2),
        // The tunnel's idle time, the client's and the backend's keep-alive time.
        ("longsplice_worker_timers", 3),
        ("longsplice_worker_sockets", 2),
        ("longsplice_worker_upstream_idle", 1),
    ] {
        assert_eq!(now.count(name) - before.count(name), more, "{name}");
    }
    drop((tunnel, waiting));
    assert!(
        eventually(|| Leaks::of(&proxy).count("socket") == before.count("socket") + 1),
        "all but the kept connection"
    );
}

/// Workers that leave, with tunnels, pipes and idle connections of their own: each took an epoll instance, a clock, buffers.
fn workers_that_leave(driver: Driver) {
    crate::util::beyond_nginx!();
    let backend = Backend::echo();
    let text = "upstream app { server %backend%; keepalive 4; keepalive_timeout 1s; }
         server { listen %http%; location / { proxy_pass http://app; } }";
    let setup = Proxy::config(text).set("backend", backend.address()).main("worker_processes 2;");
    let mut fault = Fault::at(setup.watched().on(driver).start());
    let reloads = |fault: &Fault| fault.figure("longsplice_config_reloads_total{result=\"ok\"}");
    for _ in 0..2 {
        // In the end the second knows no more of the third that it began with.
        for workers in [1, 3, 2] {
            let before = reloads(&fault);
            fault.proxy.rewrite(&format!("worker_processes {workers};"), text);
            fault.proxy.running().signal(Signal::SIGHUP);
            assert!(eventually(|| reloads(&fault) > before));
            let mut tunnels: Vec<Wire> = (0..6).map(|_| fault.client(false)).collect();
            for tunnel in &mut tunnels {
                tunnel.websocket("/").echoes("hello");
                assert_eq!(fault.proxy.get("/").status(), 200);
            }
        }
    }
    fault.before.assert_same(&fault.proxy);
}
