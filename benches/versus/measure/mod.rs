//! One run: a proxy started afresh, one row's load through it, its figures.

mod arrivals;
mod idle;
mod messages;
mod workers;

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::time::ClockId;

pub use self::idle::OTHER_TUNNELS;
use crate::{
    certificate::{Certificates, Key},
    host::{self, Cores},
    isolation::Isolation,
    job::Job,
    load::{Load, Pace, Pattern, Target, Tls, Work},
    metric::Metric,
    peers::{Installed, Site},
    process::{Process, Usage},
    rows::Row,
};

const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// A run with more errors than this ends early.
const ERROR_LIMIT: u64 = 100;
const TURN: Duration = Duration::from_millis(10);

/// The figures of one run.
#[derive(Debug, Default)]
pub struct Sample {
    pub values: Vec<(Metric, f64)>,
    pub errors: BTreeMap<String, u64>,
}

/// What all runs share.
pub struct Bench {
    pub cores: Cores,
    pub isolation: Isolation,
    pub descriptors: u64,
    pub certificates: Certificates,
    pub pattern: Arc<Pattern>,
    /// Of one window.
    pub window: Duration,
}

/// How long a load runs before it is measured: congestion windows, buffers and pipes grow in it. A shorter window has a shorter
/// one.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a window cost.
struct Window {
    wall: f64,
    usage: Option<Usage>,
    load_cpu: f64,
}

/// The clocks at one moment.
struct Clocks {
    at: Instant,
    usage: Option<Usage>,
    load_cpu: Duration,
}

/// A proxy under load; no process: the clients are connected to the backend itself.
struct Run<'a> {
    bench: &'a Bench,
    load: Load,
    /// Where clients go that take no proxy.
    backend: SocketAddr,
    process: Option<Process>,
    proxy: SocketAddr,
    sample: Sample,
}

impl Bench {
    fn warm_up(&self) -> Duration {
        WARM_UP.min(self.window)
    }

    /// How long a proxy is left alone before it is looked at; `enough` unless windows are very short.
    fn settle(&self, enough: Duration) -> Duration {
        enough.min(self.window * 5)
    }

    /// Runs a row through a proxy, or without one.
    pub fn run(&self, row: &Row, proxy: Option<&Installed>) -> Result<Sample, String> {
        self.isolation.run(|| self.run_here(row, proxy))
    }

    fn run_here(&self, row: &Row, proxy: Option<&Installed>) -> Result<Sample, String> {
        let dir = tempfile::Builder::new().prefix("versus-").tempdir().map_err(text)?;
        let load = Load::new(row.job.payload(), &self.pattern).map_err(text)?;
        let backend = load.backend().map_err(text)?;
        let (plain, tls) = (host::free_port().map_err(text)?, host::free_port().map_err(text)?);
        let certificate = self.certificates.of(row.tls.unwrap_or(Key::Ecdsa));
        let site = Site {
            dir: dir.path(),
            plain,
            tls,
            backend: backend.port(),
            certificate,
            core: self.cores.proxy,
            workers: row.job.workers(),
            descriptors: self.descriptors,
        };
        let process = proxy.map(|proxy| proxy.start(&site)).transpose()?;
        let port = if row.tls.is_some() { tls } else { plain };
        let proxy = if process.is_some() { SocketAddr::from((Ipv4Addr::LOCALHOST, port)) } else { backend };
        let mut run = Run { bench: self, load, backend, process, proxy, sample: Sample::default() };
        let resumes = matches!(row.job, Job::Handshakes { resumed: true, .. });
        let tls = row.tls.map(|_| certificate.client(resumes));
        run.job(row.job, tls)?;
        if let Some(process) = &mut run.process {
            process.check()?;
        }
        run.sample.errors = std::mem::take(&mut run.load.tally().errors);
        Ok(run.sample)
    }
}

impl Run<'_> {
    fn job(&mut self, job: Job, tls: Tls) -> Result<(), String> {
        if let Job::Idle { tunnels } = job {
            return self.idle(tunnels, tls);
        }
        self.load.aim(Target { address: self.proxy, tls });
        match job {
            Job::Echo { tunnels, .. } => self.echo(tunnels),
            Job::Paced { tunnels, per_second, .. } => self.paced(tunnels, per_second),
            Job::Bulk { direction, tunnels, .. } => self.bulk(direction, tunnels),
            Job::Requests { clients, .. } => self.requests(clients),
            Job::Handshakes { slots, resumed } => self.handshakes(slots, resumed),
            Job::Storm { clients } => self.storm(clients),
            Job::Even { workers, tunnels } => self.workers(workers, tunnels),
            Job::Idle { .. } => Ok(()),
        }
    }

    fn open(&mut self, tunnels: usize) -> Result<(), String> {
        self.load.open(tunnels, Instant::now() + OPEN_LIMIT)
    }

    fn closed_loop(&mut self) -> Result<Window, String> {
        self.window(|load| load.turn(TURN))
    }

    /// Warms up and measures, turn by turn.
    fn window(&mut self, mut turn: impl FnMut(&mut Load) -> io::Result<()>) -> Result<Window, String> {
        let warm = Instant::now() + self.bench.warm_up();
        while Instant::now() < warm && !self.is_spoilt() {
            turn(&mut self.load).map_err(text)?;
        }
        self.load.tally().restart();
        let before = self.clocks()?;
        while before.at.elapsed() < self.bench.window && !self.is_spoilt() {
            turn(&mut self.load).map_err(text)?;
        }
        self.since(&before)
    }

    fn clocks(&self) -> Result<Clocks, String> {
        // The load is this thread.
        let load_cpu = ClockId::CLOCK_THREAD_CPUTIME_ID.now().map(Duration::from).map_err(text)?;
        Ok(Clocks { load_cpu, usage: self.process.as_ref().map(Process::usage), at: Instant::now() })
    }

    fn since(&self, before: &Clocks) -> Result<Window, String> {
        let wall = before.at.elapsed().as_secs_f64();
        let after = self.clocks()?;
        let usage = before.usage.zip(after.usage).map(|(before, after)| Usage {
            cpu: after.cpu.saturating_sub(before.cpu),
            waited: after.waited.saturating_sub(before.waited),
        });
        Ok(Window { wall, usage, load_cpu: after.load_cpu.saturating_sub(before.load_cpu).as_secs_f64() })
    }

    fn is_spoilt(&mut self) -> bool {
        let errors = &self.load.tally().errors;
        !errors.is_empty() && errors.values().sum::<u64>() > ERROR_LIMIT
    }

    /// Each of these tunnels carries one message there and back.
    fn use_once(&mut self, tunnels: impl ExactSizeIterator<Item = usize>) -> Result<(), String> {
        self.load.start(Work::Paced(Pace { start: Instant::now(), gap: Duration::ZERO, tunnels: 1 }));
        let due = self.load.tally().answered + tunnels.len() as u64;
        let until = Instant::now() + OPEN_LIMIT;
        for tunnel in tunnels {
            self.load.send(tunnel);
            self.load.turn(Duration::ZERO).map_err(text)?;
        }
        while self.load.tally().answered < due {
            self.load.turn(TURN).map_err(text)?;
            if Instant::now() > until {
                return Err("a tunnel's message did not come back".into());
            }
        }
        self.load.start(Work::Idle);
        Ok(())
    }

    /// Lets the proxy be for so long.
    fn rest(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.load.turn(TURN).map_err(text)?;
        }
        Ok(())
    }

    /// CPU a unit of work, and whether the machine was quiet. Without work there is no cost a unit.
    fn costs(&mut self, window: &Window, metric: Metric, scale: f64, work: f64) {
        self.put(Metric::LoadBusy, 100.0 * window.load_cpu / window.wall);
        let Some(usage) = window.usage else { return };
        self.put(Metric::Waited, 100.0 * usage.waited.as_secs_f64() / window.wall);
        if work > 0.0 {
            self.put(metric, usage.cpu.as_secs_f64() * scale / work);
        } else {
            self.load.tally().error("nothing came through".into());
        }
    }

    fn times(&mut self) {
        let Some([p50, p99, p999]) = self.load.tally().quantiles([0.5, 0.99, 0.999]) else { return };
        self.put(Metric::TimeP50, p50);
        self.put(Metric::TimeP99, p99);
        self.put(Metric::TimeP999, p999);
    }

    fn put(&mut self, metric: Metric, value: f64) {
        self.sample.values.push((metric, value));
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
