//! Everything at once, for as long as one likes: random tunnels and requests, clients and backends that break off, backends that are
//! killed, reloads, other numbers of workers; every byte is held against what it has to be, and in the end nothing is left.
//!
//! ```text
//! LONGSPLICE_SOAK_SECS=600 cargo test --release -- --ignored --nocapture soak
//! ```
//! `LONGSPLICE_SOAK_SEED` takes the seed that a run has printed, `LONGSPLICE_SOAK_CLIENTS` how many act at the same time.

mod backend;
mod clients;
mod ends;
mod script;

use std::{
    env,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::sys::signal::Signal;

use self::{backend::Process, clients::Site, script::Random};
use crate::util::{
    Driver, Leaks, Proxy, beyond_nginx, eventually, leaks,
    ports::{self, Refusing},
};

/// What memory may grow by, behind a fifth of the time in which everything happened before: workers come and go.
const MEMORY: usize = 16 << 20;

const TEXT: &str = "proxy_connect_timeout 5s; tcp_user_timeout 10s; client_header_timeout 5s;
    ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key; ssl_protocols TLSv1.2 TLSv1.3;
    limit_conn_zone $binary_remote_addr zone=clients:1m; limit_conn clients 10000;
    upstream killed { server %killed% max_fails=0; }
    upstream either { server %killed%; server %stable% max_conns=10000; }
    upstream plain { server %stable%; keepalive 8; keepalive_timeout 2s; }
    server { listen %http%; listen %https% ssl; keepalive_timeout 2s;
        location /stable { proxy_pass http://%stable%; }
        location /killed { proxy_pass http://killed; }
        location /either { proxy_pass http://either; }
        location /plain { proxy_pass http://plain; }
        location /dead { proxy_pass http://%dead%; }
        location /denied { deny all; }
    }";

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[test]
#[ignore = "takes minutes: LONGSPLICE_SOAK_SECS, 60 by default"]
fn soak() {
    beyond_nginx!();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |passed| passed.as_secs());
    let seed = number("LONGSPLICE_SOAK_SEED", now);
    let time = Duration::from_secs(number("LONGSPLICE_SOAK_SECS", 60));
    eprintln!("soak: LONGSPLICE_SOAK_SEED={seed} LONGSPLICE_SOAK_SECS={}", time.as_secs());
    let dead = Refusing::new();
    let address = || format!("127.0.0.1:{}", ports::free()).parse().expect("an address");
    let (stable, killed) = (Process::start(address()), Process::start(address()));
    let driver = if seed.is_multiple_of(2) { Driver::Epoll } else { Driver::IoUring };
    let proxy = Proxy::config(TEXT)
        .certificate("x", &["x"])
        .set("stable", stable.address)
        .set("killed", killed.address)
        .set("dead", dead.address())
        .main(&main(2))
        .watched()
        .on(driver)
        .start();
    let mut soak = Soak { random: Random::new(seed), proxy, stable, killed: Some(killed), did: Vec::new() };
    soak.run(time / 5);
    soak.rest();
    let before = Leaks::of(&soak.proxy);
    soak.run(time * 4 / 5);
    soak.rest();
    before.assert_same_within(&soak.proxy, MEMORY);
    soak.judge(&before);
}

/// Directives of the main context.
fn main(workers: u64) -> String {
    format!("worker_processes {workers}; error_log %dir%/error.log info;")
}

/// Tells the clients that it is over, also when something has panicked.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

struct Soak {
    random: Random,
    proxy: Proxy,
    stable: Process,
    killed: Option<Process>,
    /// What was done, for the summary.
    did: Vec<&'static str>,
}

impl Soak {
    /// Clients act, and things happen, for so long.
    fn run(&mut self, time: Duration) {
        let site = Site::new(self.proxy.http(), self.proxy.address("https"));
        let (over, acts, bytes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let wrong = Mutex::new(Vec::new());
        let seeds: Vec<u64> = (0..number("LONGSPLICE_SOAK_CLIENTS", 40)).map(|_| self.random.next()).collect();
        thread::scope(|scope| {
            for seed in seeds {
                let (site, over, acts, bytes, wrong) = (&site, &over, &acts, &bytes, &wrong);
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    while !over.load(Relaxed) {
                        match site.act(&mut random) {
                            Ok(moved) => bytes.fetch_add(moved, Relaxed),
                            Err(error) => return wrong.lock().unwrap().push(error),
                        };
                        acts.fetch_add(1, Relaxed);
                    }
                });
            }
            let _over = Over(&over);
            let end = Instant::now() + time;
            while Instant::now() < end && wrong.lock().unwrap().is_empty() {
                thread::sleep(Duration::from_millis(50 + self.random.below(1000)));
                self.happen();
            }
        });
        let (acts, mebibytes) = (acts.into_inner(), bytes.into_inner() >> 20);
        eprintln!("soak: {} s, {acts} acts, {mebibytes} MiB through tunnels", time.as_secs());
        let wrong = wrong.into_inner().unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    fn happen(&mut self) {
        let address = self.killed.as_ref().map_or(self.stable.address, |killed| killed.address);
        let did = match self.random.below(10) {
            0..3 => {
                let killed = self.killed.take();
                assert_eq!(killed.as_ref().map(Process::complaints), Some(Vec::new()));
                drop(killed);
                thread::sleep(Duration::from_millis(self.random.below(500)));
                self.killed = Some(Process::start(address));
                "backends killed"
            }
            3..6 => {
                self.reload(None);
                "reloads"
            }
            6..9 => {
                let workers = 1 + self.random.below(4);
                self.reload(Some(workers));
                "numbers of workers"
            }
            _ => {
                self.proxy.running().signal(Signal::SIGUSR1);
                "logs reopened"
            }
        };
        self.did.push(did);
    }

    fn reload(&mut self, workers: Option<u64>) {
        let reloads = |proxy: &Proxy| leaks::figure(proxy, "longsplice_config_reloads_total{result=\"ok\"}");
        let before = reloads(&self.proxy);
        if let Some(workers) = workers {
            self.proxy.rewrite(&main(workers), TEXT);
        }
        self.proxy.running().signal(Signal::SIGHUP);
        assert!(eventually(|| reloads(&self.proxy) > before), "a reload failed");
    }

    /// As it began: two workers, both backends, nothing under way.
    fn rest(&mut self) {
        self.reload(Some(2));
    }

    /// What the program, its logs and the backends say of it.
    fn judge(&mut self, before: &Leaks) {
        let processes = [Some(&self.stable), self.killed.as_ref()];
        let complaints: Vec<_> = processes.into_iter().flatten().flat_map(Process::complaints).collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        let log = std::fs::read_to_string(self.proxy.dir().join("error.log")).expect("the log");
        let bad: Vec<_> = log
            .lines()
            .filter(|line| ["[alert]", "[emerg]", "[crit]"].iter().any(|level| line.contains(level)))
            .collect();
        assert!(bad.is_empty(), "{bad:#?}");
        assert_eq!(leaks::figure(&self.proxy, "longsplice_panics_total"), 0);
        assert_eq!(leaks::figure(&self.proxy, "longsplice_log_lines_total{result=\"lost\"}"), 0);
        let count = |what: &str| self.did.iter().filter(|did| **did == what).count();
        let whats = ["backends killed", "reloads", "numbers of workers", "logs reopened"];
        let did: Vec<String> = whats.iter().map(|what| format!("{} {what}", count(what))).collect();
        let opened = leaks::figure(&self.proxy, "longsplice_tunnels_opened_total");
        eprintln!("soak: {opened} tunnels; {}; {} bytes more", did.join(", "), before.grown(&self.proxy));
    }
}
