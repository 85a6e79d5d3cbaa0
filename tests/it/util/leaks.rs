//! What a fault must not leave behind.
//!
//! ```text
//! let before = Leaks::of(&proxy);   // a proxy that was started `.watched()`
//! ... the fault ...
//! before.assert_same(&proxy);
//! ```
//!
//! Counted are the process's descriptors by kind, as the kernel lists them, and what the program itself has: sessions by what they are
//! at, tunnels by its counts, by its table, by server block and by backend, deadlines on its wheels, sockets its tasks wait for, pipes
//! in use, connections to backends it keeps, configurations alive, and what its workers think of each other's load. And its memory,
//! within [`MEMORY`].

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::{PATIENCE, Proxy, Wire};

/// What memory may grow by: the scratch buffers, tables and tickets that the first fault of a kind brings to size, and pages the
/// allocator holds on to. What a fault leaves behind each time shows when it is repeated.
pub const MEMORY: usize = 4 << 20;

/// The server that is asked: on a socket of its own, so that no listener of the test has a connection that is not the test's.
pub const SERVER: &str = "server { listen unix:%dir%/leaks.sock; server_name leaks.test; keepalive_timeout 60s;
    location = / { metrics; access_log off; } }";

/// Families of which every sample counts by its labels; a worker's are summed up over the workers.
const FAMILIES: &[&str] = &[
    "longsplice_connections",
    "longsplice_tunnels",
    "longsplice_server_tunnels",
    "longsplice_upstream_tunnels",
    "longsplice_upstream_connections",
    "longsplice_config_generations_alive",
    "longsplice_worker_connections",
    "longsplice_worker_tunnels",
    "longsplice_worker_tunnel_slots",
    "longsplice_worker_timers",
    "longsplice_worker_handshakes_pending",
    "longsplice_worker_sockets",
    "longsplice_worker_pipes_in_use",
    "longsplice_worker_held_bytes",
    "longsplice_worker_upstream_idle",
    "longsplice_worker_load",
    "longsplice_limit_connections",
];

const WORK: [&str; 3] =
    ["longsplice_connections_accepted_total", "longsplice_requests_total", "longsplice_tunnels_closed_total"];
/// `limits::BURST` and `limits::REST_AFTER_MS`.
const BURST: i64 = 64;
const REST: Duration = Duration::from_millis(500);

/// What a process has at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaks {
    counts: BTreeMap<String, i64>,
    bytes: usize,
}

impl Leaks {
    /// What the program has now that it has come to rest.
    pub fn of(proxy: &Proxy) -> Self {
        let mut probe = Probe::of(proxy);
        let deadline = Instant::now() + PATIENCE;
        let mut last = probe.look(proxy);
        loop {
            probe.pause();
            let now = probe.look(proxy);
            if now.counts == last.counts {
                return now;
            }
            assert!(Instant::now() < deadline, "it does not come to rest:\n{}", last.difference(&now));
            last = now;
        }
    }

    /// Waits until it has what it had then, and no more.
    #[track_caller]
    pub fn assert_same(&self, proxy: &Proxy) {
        self.assert_same_within(proxy, MEMORY);
    }

    /// As [`Self::assert_same`], with another bound for memory: so many bytes more than then.
    #[track_caller]
    pub fn assert_same_within(&self, proxy: &Proxy, bytes: usize) {
        let mut probe = Probe::of(proxy);
        let deadline = Instant::now() + PATIENCE;
        // Asked without end, a worker that wants to rest after a burst would wait for the end of the asking.
        let mut pause = Duration::from_millis(20);
        loop {
            let now = probe.look(proxy);
            let grown = now.bytes.saturating_sub(self.bytes);
            if now.counts == self.counts && grown <= bytes {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "left behind:\n{}memory: {grown} bytes more, {bytes} allowed",
                self.difference(&now)
            );
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(1200));
        }
    }

    /// A count: `socket`, `longsplice_worker_timers`, `longsplice_connections{state="reading"}`.
    pub fn count(&self, name: &str) -> i64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// How much more memory there is now than then.
    pub fn grown(&self, proxy: &Proxy) -> usize {
        proxy.private_bytes().saturating_sub(self.bytes)
    }

    fn difference(&self, now: &Self) -> String {
        let names = self.counts.keys().chain(now.counts.keys().filter(|name| !self.counts.contains_key(*name)));
        let mut text = String::new();
        for name in names.filter(|name| self.count(name) != now.count(name)) {
            let _ = writeln!(text, "{name}: {} before, {} now", self.count(name), now.count(name));
        }
        text
    }
}

/// The figure of a series, 0 where it is not told of: `longsplice_tunnels_closed_total{reason="client_reset"}`.
pub fn figure(proxy: &Proxy, series: &str) -> i64 {
    let told = Probe::of(proxy).ask();
    let value = told.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse::<f64>().unwrap_or_else(|_| panic!("{series} {value}")) as i64)
}

/// A connection to the server that is asked: the same through all of a comparison, so that it stands in each figure alike.
struct Probe {
    socket: PathBuf,
    wire: Wire,
    /// Connections, requests and ended tunnels there were: from a number of them on, what is left by a burst is given back in a rest.
    work: i64,
}

impl Probe {
    fn of(proxy: &Proxy) -> Self {
        let socket = proxy.dir().join("leaks.sock");
        assert!(super::eventually(|| socket.exists()), "the proxy of this test was not started `.watched()`");
        let mut probe = Self { wire: Wire::connect_unix(&socket), socket, work: 0 };
        // What a worker tells is as of its last turn: with the second question that is one in which this connection waited.
        probe.ask();
        probe
    }

    /// Long enough for a rest where there was a burst, else for whatever ends at once.
    fn pause(&self) {
        thread::sleep(if self.work >= BURST { REST * 3 / 2 } else { Duration::from_millis(20) });
    }

    fn ask(&mut self) -> String {
        loop {
            let sent = self.wire.try_send("GET / HTTP/1.1\r\nHost: leaks.test\r\n\r\n");
            if let Some(head) = sent.ok().and_then(|()| self.wire.try_head()) {
                assert_eq!(head.status(), 200, "{head:?}");
                return String::from_utf8_lossy(&self.wire.body(&head)).into_owned();
            }
            // A worker that leaves closes connections that wait for another request.
            self.wire = Wire::connect_unix(&self.socket);
        }
    }

    fn look(&mut self, proxy: &Proxy) -> Leaks {
        let told = self.ask();
        let mut counts = descriptors(proxy.serving());
        let mut kept_pipes = 0;
        self.work = 0;
        for line in told.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let value = value.parse::<f64>().unwrap_or_else(|_| panic!("{line}")) as i64;
            let family = series.split('{').next().unwrap_or_default();
            if WORK.contains(&family) {
                self.work += value;
            }
            kept_pipes += match family {
                "longsplice_worker_pipes" => value,
                "longsplice_worker_pipes_in_use" => -value,
                _ => 0,
            };
            if FAMILIES.contains(&family) {
                let name = if family.starts_with("longsplice_worker_") { family } else { series };
                *counts.entry(name.to_owned()).or_default() += value;
            }
        }
        // Both ends of those that wait, empty, for the next bulk transfer.
        *counts.entry("pipe".to_owned()).or_default() -= 2 * kept_pipes;
        // What there is none of and what is not told of are the same.
        counts.retain(|_, count| *count != 0);
        Leaks { counts, bytes: proxy.private_bytes() }
    }
}

/// Open descriptors by what they are: `socket`, `pipe`, `anon_inode:[eventfd]`, a file's path (proc(5), `/proc/pid/fd`).
fn descriptors(pid: u32) -> BTreeMap<String, i64> {
    let mut kinds = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").flatten() {
        // One that was closed meanwhile.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.display().to_string();
        let kind = match target.split_once(':') {
            Some((kind @ ("socket" | "pipe"), _)) => kind.to_owned(),
            // Its own, the same for each process that serves in place of another.
            _ => target.replace(&format!("/proc/{pid}/"), "/proc/self/"),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}
