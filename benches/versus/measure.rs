//! One run: a proxy started afresh, one row's load through it, its figures.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::time::ClockId;

use crate::{
    certificate::Certificate,
    host::{self, Cores},
    load::{Load, Pace, Pattern, Target, Work},
    metric::Metric,
    peers::{Installed, Site},
    process::{Process, Usage},
    rows::{Job, Row},
};

/// Tunnels opened before memory is read first, so that what a proxy allocates once is not counted as tunnels'.
pub const WARM_TUNNELS: usize = 500;
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long stragglers of a fixed rate are waited for.
const STRAGGLER_LIMIT: Duration = Duration::from_secs(2);
/// How far the sending of a fixed rate may fall behind: past it the load could not keep it.
const LAG_LIMIT: Duration = Duration::from_secs(1);
/// How long a proxy has to give back what it only needed for handshakes.
const SETTLE: Duration = Duration::from_secs(1);
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
    pub descriptors: u64,
    pub certificate: Certificate,
    pub pattern: Arc<Pattern>,
    /// Of one window, after a warm-up of a fifth of it.
    pub window: Duration,
}

/// What a window cost.
struct Window {
    wall: f64,
    usage: Option<Usage>,
    load_cpu: f64,
}

/// A proxy under load; no process: the clients are connected to the backend itself.
struct Run<'a> {
    bench: &'a Bench,
    load: Load,
    process: Option<Process>,
    sample: Sample,
}

impl Bench {
    /// Runs a row through a proxy, or without one.
    pub fn run(&self, row: &Row, proxy: Option<&Installed>) -> Result<Sample, String> {
        let dir = tempfile::Builder::new().prefix("versus-").tempdir().map_err(text)?;
        let mut load = Load::new(row.payload(), &self.pattern).map_err(text)?;
        let backend = load.backend().map_err(text)?;
        let (plain, tls) = (host::free_port().map_err(text)?, host::free_port().map_err(text)?);
        let site = Site {
            dir: dir.path(),
            plain,
            tls,
            backend: backend.port(),
            certificate: &self.certificate,
            core: self.cores.proxy,
            descriptors: self.descriptors,
        };
        let process = proxy.map(|proxy| proxy.start(&site)).transpose()?;
        let port = if row.tls { tls } else { plain };
        load.aim(Target {
            address: if process.is_some() { SocketAddr::from((Ipv4Addr::LOCALHOST, port)) } else { backend },
            tls: row.tls.then(|| self.certificate.client.clone()),
        });
        let mut run = Run { bench: self, load, process, sample: Sample::default() };
        run.job(row.job)?;
        if let Some(process) = &mut run.process {
            process.check()?;
        }
        run.sample.errors = std::mem::take(&mut run.load.tally().errors);
        Ok(run.sample)
    }
}

impl Run<'_> {
    fn job(&mut self, job: Job) -> Result<(), String> {
        match job {
            Job::Echo { tunnels, .. } => {
                self.open(tunnels)?;
                self.load.start(Work::PingPong);
                let window = self.closed_loop()?;
                self.messages(&window);
            }
            Job::Paced { tunnels, per_second, .. } => {
                self.open(tunnels)?;
                self.paced(tunnels, per_second)?;
            }
            Job::Bulk { direction, tunnels, .. } => {
                self.open(tunnels)?;
                self.load.start(direction);
                let window = self.closed_loop()?;
                let gib = self.load.tally().bytes as f64 / (1_u64 << 30) as f64;
                self.put(Metric::GibPerSecond, gib / window.wall);
                self.costs(&window, Metric::CpuPerGib, 1.0, gib);
            }
            Job::Idle { tunnels } => self.idle(tunnels)?,
            Job::Handshakes { slots } => {
                self.load.churn(slots).map_err(text)?;
                let window = self.closed_loop()?;
                let opened = self.load.tally().opened as f64;
                self.put(Metric::HandshakesPerSecond, opened / window.wall);
                self.costs(&window, Metric::CpuPerHandshake, 1e6, opened);
                self.times();
            }
        }
        Ok(())
    }

    fn open(&mut self, tunnels: usize) -> Result<(), String> {
        self.load.open(tunnels, Instant::now() + OPEN_LIMIT)
    }

    fn closed_loop(&mut self) -> Result<Window, String> {
        self.window(|load| load.turn(TURN))
    }

    /// Warms up and measures, turn by turn.
    fn window(&mut self, mut turn: impl FnMut(&mut Load) -> io::Result<()>) -> Result<Window, String> {
        let warm = Instant::now() + self.bench.window / 5;
        while Instant::now() < warm && !self.is_spoilt() {
            turn(&mut self.load).map_err(text)?;
        }
        self.load.tally().restart();
        let (load_before, before, start) = (thread_cpu()?, self.usage(), Instant::now());
        while start.elapsed() < self.bench.window && !self.is_spoilt() {
            turn(&mut self.load).map_err(text)?;
        }
        let (wall, after, load_after) = (start.elapsed().as_secs_f64(), self.usage(), thread_cpu()?);
        let usage = before.zip(after).map(|(before, after)| Usage {
            cpu: after.cpu.saturating_sub(before.cpu),
            waited: after.waited.saturating_sub(before.waited),
        });
        Ok(Window { wall, usage, load_cpu: load_after.saturating_sub(load_before).as_secs_f64() })
    }

    fn usage(&self) -> Option<Usage> {
        self.process.as_ref().map(Process::usage)
    }

    fn is_spoilt(&mut self) -> bool {
        let errors = &self.load.tally().errors;
        !errors.is_empty() && errors.values().sum::<u64>() > ERROR_LIMIT
    }

    /// A message when it is due, whatever became of those before.
    fn paced(&mut self, tunnels: usize, per_second: u32) -> Result<(), String> {
        let gap = Duration::from_secs(1) / per_second;
        let pace = Pace { start: Instant::now(), gap, tunnels: tunnels as u32 };
        self.load.start(Work::Paced(pace));
        let (mut sent, mut lag) = (0_u64, Duration::ZERO);
        let window = self.window(|load| {
            while pace.due(sent) <= Instant::now() {
                load.send((sent % tunnels as u64) as usize);
                sent += 1;
            }
            lag = lag.max(pace.due(sent).elapsed());
            // Sleeping is too coarse for the next message unless it is far away.
            let left = pace.due(sent).saturating_duration_since(Instant::now());
            load.turn(if left > Duration::from_millis(2) { Duration::from_millis(1) } else { Duration::ZERO })
        })?;
        if lag > LAG_LIMIT {
            return Err(format!("the load fell {} ms behind its rate", lag.as_millis()));
        }
        self.messages(&window);
        self.stragglers(sent)
    }

    /// Every message of a fixed rate must come back, also after the window.
    fn stragglers(&mut self, sent: u64) -> Result<(), String> {
        let until = Instant::now() + STRAGGLER_LIMIT;
        while self.load.tally().answered < sent && Instant::now() < until {
            self.load.turn(TURN).map_err(text)?;
        }
        let lost = sent.saturating_sub(self.load.tally().answered);
        if lost > 0 {
            self.load.tally().error(format!("{lost} of {sent} messages did not come back"));
        }
        Ok(())
    }

    fn idle(&mut self, tunnels: usize) -> Result<(), String> {
        self.open_used(WARM_TUNNELS)?;
        let before = self.memory()?;
        self.open_used(tunnels)?;
        let after = self.memory()?;
        if self.process.is_some() {
            self.put(Metric::MemoryPerTunnel, (after as f64 - before as f64) / tunnels as f64);
        }
        Ok(())
    }

    /// Opens tunnels that carry one message each way.
    fn open_used(&mut self, count: usize) -> Result<(), String> {
        let first = self.load.tunnels();
        self.open(count)?;
        self.load.start(Work::Paced(Pace { start: Instant::now(), gap: Duration::ZERO, tunnels: 1 }));
        let answered = self.load.tally().answered;
        let until = Instant::now() + OPEN_LIMIT;
        for tunnel in first..first + count {
            self.load.send(tunnel);
            self.load.turn(Duration::ZERO).map_err(text)?;
        }
        while self.load.tally().answered < answered + count as u64 {
            self.load.turn(TURN).map_err(text)?;
            if Instant::now() > until {
                return Err("a first message did not come back".into());
            }
        }
        self.load.start(Work::Idle);
        Ok(())
    }

    /// Memory of the proxy once it has settled.
    fn memory(&mut self) -> Result<u64, String> {
        let until = Instant::now() + SETTLE.min(self.bench.window);
        while Instant::now() < until {
            self.load.turn(TURN).map_err(text)?;
        }
        Ok(self.process.as_ref().map_or(0, Process::user_memory))
    }

    fn messages(&mut self, window: &Window) {
        let messages = self.load.tally().messages as f64;
        self.put(Metric::MessagesPerSecond, messages / window.wall);
        self.costs(window, Metric::CpuPerMessage, 1e6, messages);
        self.times();
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

/// CPU time of the load, which is this thread.
fn thread_cpu() -> Result<Duration, String> {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().map(Duration::from).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
