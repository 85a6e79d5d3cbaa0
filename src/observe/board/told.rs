//! What the board knows, as it is told.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_gettime},
    unistd::{SysconfVar, sysconf},
};

use super::{
    super::{
        counters::{Reasons, Stage},
        status::{
            self, BothWays, Connections, Errors, Generation, Generations, Handshakes, Process, Status, Tls, Tunnels,
        },
    },
    Board, Counters, Files, Present, unix_ms,
};

/// Shortest time over which it is judged how busy a worker is.
const SAMPLE: Duration = Duration::from_secs(1);

impl Board {
    /// Fills in what the board knows.
    pub fn tell(&self, status: &mut Status) {
        status.version = env!("CARGO_PKG_VERSION").to_owned();
        status.pid = std::process::id();
        status.hostname = crate::variables::hostname().to_owned();
        status.now_ms = unix_ms();
        status.started_ms = self.started_ms;
        status.uptime_s = self.started.elapsed().as_secs();
        status.state = self.state();
        status.config = self.generations();
        status.process = process(&self.files);
        status.sandbox = self.sandbox().to_owned();
        let now = Instant::now();
        let mut workers = self.workers();
        status.workers = workers.present.iter_mut().map(|present| present.told(now)).collect();
        status.workers.sort_by_key(|worker| worker.id);
        status.connections = connections(workers.present.iter().map(|present| &*present.counters));
        drop(workers);
        counts(&self.sum(), status);
        status.connections.open = status.connections.sessions + status.tunnels.open;
    }

    fn generations(&self) -> Generations {
        let loads = self.loads();
        let alive = loads.alive.iter().filter_map(|loaded| loaded.upgrade());
        let alive: Vec<_> = alive
            .map(|loaded| Generation {
                generation: loaded.number,
                tunnels: value(&loaded.tunnels),
                bytes: loaded.bytes,
                loaded_ms: loaded.at_ms,
            })
            .collect();
        Generations {
            generation: alive.last().map_or(0, |generation| generation.generation),
            loaded_ms: alive.last().map_or(0, |generation| generation.loaded_ms),
            reloads: loads.reloads,
            reloads_failed: loads.failed,
            last_error: loads.last_error.clone(),
            alive,
        }
    }
}

impl Present {
    fn told(&mut self, now: Instant) -> status::Worker {
        let counters = &*self.counters;
        let cpu_ns = cpu_ns(value(&counters.gauges.thread));
        let passed = now.saturating_duration_since(self.sampled.0);
        if passed >= SAMPLE {
            let ran = Duration::from_nanos(cpu_ns.saturating_sub(self.sampled.1));
            self.busy = (ran.as_secs_f64() / passed.as_secs_f64()).min(1.0);
            self.sampled = (now, cpu_ns);
        }
        let tunnels = counters.tunnels_open();
        status::Worker {
            id: self.id,
            cpu: self.cpu,
            connections: value(&counters.gauges.sessions) + tunnels,
            tunnels,
            opened: value(&counters.tunnels),
            accepted: value(&counters.accepted),
            requests: value(&counters.requests),
            bytes_from_client: value(&counters.bytes_from_client),
            bytes_from_upstream: value(&counters.bytes_from_upstream),
            frames_from_client: value(&counters.frames_from_client),
            frames_from_upstream: value(&counters.frames_from_upstream),
            pipes: value(&counters.gauges.pipes),
            pipes_in_use: value(&counters.gauges.pipes_in_use),
            held_bytes: value(&counters.gauges.held_bytes),
            timers: value(&counters.gauges.timers),
            tunnel_slots: value(&counters.gauges.tunnel_slots),
            handshakes_pending: value(&counters.gauges.handshakes_pending),
            sockets: value(&counters.gauges.sockets),
            upstream_idle: value(&counters.gauges.upstream_idle),
            // The workers' own knowledge: the board has none of it.
            load: 0,
            busy: self.busy,
            cpu_s: Duration::from_nanos(cpu_ns).as_secs_f64(),
            handed_over: value(&counters.handed_over),
            taken_over: value(&counters.taken_over),
        }
    }
}

fn connections<'a>(workers: impl Iterator<Item = &'a Counters>) -> Connections {
    let mut sum = Connections::default();
    for Counters { gauges, .. } in workers {
        let stage = |stage: Stage| value(&gauges.stages[stage as usize]);
        sum.sessions += value(&gauges.sessions);
        sum.reading += stage(Stage::Reading);
        sum.writing += stage(Stage::Writing);
        sum.waiting += stage(Stage::Waiting);
    }
    sum
}

fn counts(sum: &Counters, status: &mut Status) {
    let (opened, closed) = (value(&sum.tunnels), value(&sum.tunnels_ended));
    status.connections.accepted = value(&sum.accepted);
    status.requests = value(&sum.requests);
    status.tunnels = Tunnels { open: sum.tunnels_open(), opened, closed };
    status.handshakes = Handshakes {
        upgraded: opened,
        declined: value(&sum.upgrades_declined),
        refused: value(&sum.upgrades_refused),
        failed: value(&sum.upgrades_failed),
        pending: status.workers.iter().map(|worker| worker.handshakes_pending).sum(),
    };
    status.handshake_ms = sum.upgrade_times.told();
    status.bytes =
        BothWays { from_client: value(&sum.bytes_from_client), from_upstream: value(&sum.bytes_from_upstream) };
    status.frames =
        BothWays { from_client: value(&sum.frames_from_client), from_upstream: value(&sum.frames_from_upstream) };
    status.closes = by_reason(&sum.closes);
    status.refusals = by_reason(&sum.refusals);
    status.tls = Tls {
        v1_2: value(&sum.tls_1_2),
        v1_3: value(&sum.tls_1_3),
        resumed: value(&sum.tls_resumed),
        failed: value(&sum.tls_failures),
    };
    status.errors =
        Errors { accept: value(&sum.accept_errors), shortages: value(&sum.shortages), panics: value(&sum.panics) };
}

fn by_reason(reasons: &Reasons) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    reasons.each(|reason, count| {
        counts.insert(reason.to_owned(), count);
    });
    counts
}

/// CPU time of a thread of this process, nanoseconds; 0 where there is no such thread. Each thread has a clock, whose number is made of
/// its own (include/linux/posix-timers.h, as pthread_getcpuclockid(3) does).
fn cpu_ns(thread: u64) -> u64 {
    const OF_A_THREAD: i32 = 0b110;
    let Ok(thread) = i32::try_from(thread) else { return 0 };
    let clock = ClockId::from_raw((!thread << 3) | OF_A_THREAD);
    clock_gettime(clock).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

fn process(files: &Files) -> Process {
    let cpu_s = getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .sum()
    });
    // proc(5), `statm`: all of it, and what is resident, in pages.
    let statm = files.statm();
    let page =
        sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096);
    let mut bytes = statm.split(' ').map(|pages| pages.parse::<u64>().unwrap_or(0) * page);
    Process { cpu_s, virtual_bytes: bytes.next().unwrap_or(0), resident_bytes: bytes.next().unwrap_or(0) }
}

fn value(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
