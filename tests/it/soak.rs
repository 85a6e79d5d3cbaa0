//! Everything at once, for as long as one likes: random tunnels and requests, over TLS and not on either side, clients and backends that
//! break off, backends that are killed or drained, reloads, other numbers of workers, new processes, and a host that fails; every byte
//! is held against what it has to be, every end against its reason, and in the end nothing is left.
//!
//! ```text
//! LONGSPLICE_SOAK_SECS=600 cargo test --release -- --ignored --nocapture soak
//! ```
//! `LONGSPLICE_SOAK_SEED` takes the seed that a run has printed (even ones are for epoll, odd ones for io_uring),
//! `LONGSPLICE_SOAK_CLIENTS` how many act at the same time.

mod backend;
mod clients;
mod ends;
mod judge;
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

use self::{
    backend::Process,
    clients::{Shortage, Site},
    judge::Logs,
    script::Random,
};
use crate::util::{
    Driver, Leaks, Proxy, beyond_nginx, eventually,
    host::{Limit, set_limit},
    leaks,
    line::{Line, processes_with, send},
    ports::{self, Refusing},
};

/// What memory may grow by, behind a fifth of the time in which everything happened before: workers come and go.
const MEMORY: usize = 16 << 20;

const TEXT: &str = "proxy_connect_timeout 5s; tcp_user_timeout 10s; client_header_timeout 5s;
    ssl_certificate %dir%/x.crt; ssl_certificate_key %dir%/x.key; ssl_protocols TLSv1.2 TLSv1.3;
    limit_conn_zone $binary_remote_addr zone=clients:1m; limit_conn clients 10000;
    log_format acts '%format%';
    upstream killed { server %killed% max_fails=0; }
    upstream killed_sealed { server %killed_tls% max_fails=0; }
    upstream either { server %killed%; server %stable% max_conns=10000; }
    upstream leaving { server %stable% max_fails=0; server %spare% max_fails=0; }
    upstream sealed { server %stable_tls% max_fails=0; server %spare_tls% max_fails=0; keepalive 8; keepalive_timeout 2s; }
    upstream plain { server %stable%; keepalive 8; keepalive_timeout 2s; }
    server { listen %http%; listen %https% ssl; keepalive_timeout 2s; access_log %dir%/acts.log acts;
        location /stable { proxy_pass http://%stable%; }
        location /sealed { proxy_pass https://sealed; }
        location /sealed12 { proxy_pass https://sealed; proxy_ssl_protocols TLSv1.2; }
        location /leaving { proxy_pass http://leaving; }
        location /killed { proxy_pass http://killed; }
        location /killed_sealed { proxy_pass https://killed_sealed; }
        location /either { proxy_pass http://either; }
        location /plain { proxy_pass http://plain; }
        location /dead { proxy_pass http://%dead%; }
        location /denied { deny all; }
        location = /status { status; status_admin on; access_log off; }
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
    let driver = if seed.is_multiple_of(2) { Driver::Epoll } else { Driver::IoUring };
    eprintln!("soak: LONGSPLICE_SOAK_SEED={seed} LONGSPLICE_SOAK_SECS={} {driver:?}", time.as_secs());
    let dead = Refusing::new();
    let address = || format!("127.0.0.1:{}", ports::free()).parse().expect("an address");
    let [stable, spare, killed] = [(); 3].map(|()| Process::start(address(), address()));
    let mut setup =
        Proxy::config(TEXT).certificate("x", &["x"]).set("dead", dead.address()).set("format", judge::FORMAT);
    for (name, backend) in [("stable", &stable), ("spare", &spare), ("killed", &killed)] {
        setup = setup.set(name, backend.address).set(&format!("{name}_tls"), backend.tls_address);
    }
    let line = Line::start(setup.main(&main(2)).watched().on(driver));
    let mut soak = Soak {
        random: Random::new(seed),
        line,
        stable,
        spare,
        killed: Some(killed),
        cut_short: Vec::new(),
        did: Vec::new(),
    };
    // What a process has leaked goes with it: most of the time is one's that is not replaced.
    soak.run(time / 5, Upgrades::Yes);
    let before = soak.rest();
    soak.run(time * 3 / 5, Upgrades::No);
    soak.rest();
    before.assert_same_within(&soak.line.proxy, MEMORY);
    let grown = before.grown(&soak.line.proxy);
    soak.run(time / 5, Upgrades::Yes);
    soak.rest();
    before.assert_same_within(&soak.line.proxy, MEMORY);
    soak.judge();
    eprintln!("soak: {grown} bytes more");
}

/// Directives of the main context.
fn main(workers: u64) -> String {
    // Whose limits are changed while it runs must be of the same user (prlimit(2)).
    format!(
        "user root; worker_processes {workers}; error_log %dir%/error.log info;
         drain_timeout 500ms; worker_shutdown_timeout 20s;"
    )
}

/// Tells the clients that it is over, also when something has panicked.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What happens: of 120 times how often, what it is called, and how it is done.
type Happening = (u64, &'static str, fn(&mut Soak, &Shortage));

const HAPPENINGS: [Happening; 9] = [
    (20, "backends killed", Soak::kill),
    (15, "reloads", Soak::reload_as_it_is),
    (15, "numbers of workers", Soak::change_workers),
    (5, "logs reopened", Soak::reopen),
    (22, "drains by hand", Soak::drain),
    (8, "stops of a second", Soak::stop),
    (8, "shortages of descriptors", Soak::take_descriptors),
    (7, "full disks", Soak::fill_disk),
    (20, "upgrades", Soak::upgrade),
];

/// Whether the program is replaced now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upgrades {
    Yes,
    No,
}

struct Soak {
    random: Random,
    line: Line,
    stable: Process,
    spare: Process,
    killed: Option<Process>,
    /// Targets of tunnels that ended early.
    cut_short: Vec<String>,
    /// What was done, for the summary.
    did: Vec<&'static str>,
}

impl Soak {
    /// Clients act, and things happen, for so long.
    fn run(&mut self, time: Duration, upgrades: Upgrades) {
        if upgrades == Upgrades::Yes {
            // One that follows another has a pipe from it.
            self.upgrade(&Shortage::default());
        }
        let (http, https, shortage) = (self.line.proxy.http(), self.line.proxy.address("https"), Shortage::default());
        let site = Site::new(http, https, &shortage);
        let (over, acts, bytes) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let (wrong, cut_short) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let seeds: Vec<u64> = (0..number("LONGSPLICE_SOAK_CLIENTS", 40)).map(|_| self.random.next()).collect();
        thread::scope(|scope| {
            for seed in seeds {
                let (site, over, acts, bytes, wrong, cut_short) = (&site, &over, &acts, &bytes, &wrong, &cut_short);
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    while !over.load(Relaxed) {
                        match site.act(&mut random) {
                            Ok(done) => {
                                bytes.fetch_add(done.bytes, Relaxed);
                                cut_short.lock().unwrap().extend(done.cut_short);
                            }
                            Err(error) => return wrong.lock().unwrap().push(error),
                        }
                        acts.fetch_add(1, Relaxed);
                    }
                });
            }
            let _over = Over(&over);
            let end = Instant::now() + time;
            while Instant::now() < end && wrong.lock().unwrap().is_empty() {
                thread::sleep(Duration::from_millis(50 + self.random.below(1000)));
                self.happen(upgrades, &shortage);
            }
        });
        let (acts, mebibytes) = (acts.into_inner(), bytes.into_inner() >> 20);
        eprintln!("soak: {} s, {acts} acts, {mebibytes} MiB through tunnels", time.as_secs());
        let wrong = wrong.into_inner().unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
        self.cut_short.extend(cut_short.into_inner().unwrap());
    }

    fn happen(&mut self, upgrades: Upgrades, shortage: &Shortage) {
        // Upgrades stand last.
        let mut rest = self.random.below(if upgrades == Upgrades::Yes { 120 } else { 100 });
        let is_it = |(weight, ..): &&Happening| {
            let found = rest < *weight;
            rest = rest.saturating_sub(*weight);
            found
        };
        let &(_, what, act) = HAPPENINGS.iter().find(is_it).expect("that many in sum");
        act(self, shortage);
        self.did.push(what);
    }

    fn pause(&mut self, most_ms: u64) {
        thread::sleep(Duration::from_millis(self.random.below(most_ms)));
    }

    fn signal(&self, signal: Signal) {
        send(self.line.current(), signal);
    }

    fn kill(&mut self, _: &Shortage) {
        let Some(killed) = self.killed.take() else { return };
        assert_eq!(killed.complaints(), Vec::<String>::new());
        self.cut_short.extend(killed.cut_short());
        let (address, tls_address) = (killed.address, killed.tls_address);
        drop(killed);
        self.pause(500);
        self.killed = Some(Process::start(address, tls_address));
    }

    fn reload_as_it_is(&mut self, _: &Shortage) {
        self.reload(None);
    }

    fn change_workers(&mut self, _: &Shortage) {
        let workers = 1 + self.random.below(4);
        self.reload(Some(workers));
    }

    fn reload(&mut self, workers: Option<u64>) {
        let reloads = |proxy: &Proxy| leaks::figure(proxy, "longsplice_config_reloads_total{result=\"ok\"}");
        let before = reloads(&self.line.proxy);
        if let Some(workers) = workers {
            self.line.proxy.rewrite(&main(workers), TEXT);
        }
        self.signal(Signal::SIGHUP);
        assert!(eventually(|| reloads(&self.line.proxy) > before), "a reload failed");
    }

    fn reopen(&mut self, _: &Shortage) {
        self.signal(Signal::SIGUSR1);
    }

    /// Takes a server out of its group for a while, and asks some of its tunnels to end.
    fn drain(&mut self, _: &Shortage) {
        let (stable, spare) = (&self.stable, &self.spare);
        let servers = [
            ("leaving", stable.address),
            ("leaving", spare.address),
            ("sealed", stable.tls_address),
            ("sealed", spare.tls_address),
        ];
        let (group, server) = servers[self.random.below(4) as usize];
        let percent = self.random.below(101);
        self.order(&format!("drain={group}/{server}&percent={percent}"), 202);
        self.pause(1500);
        self.order(&format!("undrain={group}/{server}"), 200);
    }

    fn order(&self, order: &str, status: u16) {
        let head = format!("POST /status?{order} HTTP/1.1\r\nHost: localhost\r\nX-Longsplice-Admin: 1\r\n");
        let answer = self.line.proxy.connect().ask(format!("{head}Content-Length: 0\r\n\r\n"));
        assert_eq!(answer.status(), status, "{order}: {}", answer.text());
    }

    fn upgrade(&mut self, _: &Shortage) {
        let old = self.line.current();
        self.line.tell("upgrade").expect_code(0);
        assert_ne!(self.line.current(), old);
    }

    fn stop(&mut self, _: &Shortage) {
        self.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_secs(1));
        self.signal(Signal::SIGCONT);
    }

    fn take_descriptors(&mut self, shortage: &Shortage) {
        let proxy = &self.line.proxy;
        shortage.step();
        set_limit(proxy, Limit::Descriptors, Some(proxy.descriptors() + self.random.below(20) as usize));
        thread::sleep(Duration::from_millis(100 + self.random.below(500)));
        set_limit(proxy, Limit::Descriptors, None);
        // Each worker lets one more in to be told before it looks again.
        thread::sleep(Duration::from_millis(500));
        shortage.step();
    }

    /// Logs that are as long as they may be: whoever writes gets EFBIG.
    fn fill_disk(&mut self, _: &Shortage) {
        set_limit(&self.line.proxy, Limit::FileSize, Some(100));
        thread::sleep(Duration::from_millis(100 + self.random.below(300)));
        set_limit(&self.line.proxy, Limit::FileSize, None);
    }

    /// As it began: one process, two workers, all backends, nothing under way.
    fn rest(&mut self) -> Leaks {
        let alone = || processes_with(self.line.proxy.dir()).len() == 1;
        // The timeouts of a drain, and one patience.
        assert!(eventually(alone) || eventually(alone), "a process that was replaced does not end");
        self.reload(Some(2));
        Leaks::of(&self.line.proxy)
    }

    /// What the program, its logs and the backends say of it.
    fn judge(&mut self) {
        let processes: Vec<&Process> = [&self.stable, &self.spare].into_iter().chain(&self.killed).collect();
        let mut complaints: Vec<_> = processes.iter().flat_map(|process| process.complaints()).collect();
        let cut_short =
            [self.cut_short.clone(), processes.iter().flat_map(|process| process.cut_short()).collect()].concat();
        let proxy = &self.line.proxy;
        let logs = Logs::read(&proxy.dir().join("error.log"), &proxy.dir().join("acts.log"));
        complaints.extend(logs.complaints());
        complaints.extend(logs.unexplained(&cut_short));
        assert!(complaints.is_empty(), "{complaints:#?}");
        assert_eq!(leaks::figure(proxy, "longsplice_panics_total"), 0);
        let count = |what: &str| self.did.iter().filter(|did| **did == what).count();
        let did: Vec<String> = HAPPENINGS.iter().map(|(_, what, _)| format!("{} {what}", count(what))).collect();
        eprintln!("soak: {}; {} cut short; {}", logs.summary(), cut_short.len(), did.join(", "));
    }
}
