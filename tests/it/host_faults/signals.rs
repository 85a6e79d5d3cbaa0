//! Every signal at every moment.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{site, tunnels};
use crate::util::{Backend, PATIENCE, Proxy, Wire, beyond_nginx, eventually, host::lines, process::finish};

/// It goes on: what it obeys without ending, what it ignores, and what stops a process (and is made good by CONT).
const GOES_ON: [Signal; 11] = [
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGWINCH,
    Signal::SIGPIPE,
    Signal::SIGXFSZ,
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGCONT,
    Signal::SIGSTOP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
];

/// It ends, with status 0.
const ENDS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT];

/// Nobody has a use for them here: they end it as they end any program, the first and last of the real-time ones among them. SEGV and BUS
/// are not: Rust's runtime has a handler for overflown stacks, which lets the first of either go.
const KILLS: [i32; 16] = [4, 5, 6, 8, 9, 14, 16, 24, 26, 27, 29, 30, 31, 34, 50, 64];

#[derive(Debug, Clone, Copy)]
enum Moment {
    Start,
    Load,
    Reload,
    Drain,
    Upgrade,
}

const MOMENTS: [Moment; 5] = [Moment::Start, Moment::Load, Moment::Reload, Moment::Drain, Moment::Upgrade];

/// Any signal, also those that have no name; a process that has gone does not mind.
fn send(pid: u32, signal: i32) {
    match Signal::try_from(signal) {
        Ok(signal) => drop(kill(Pid::from_raw(pid.cast_signed()), signal)),
        Err(_) => drop(finish(Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()))),
    }
}

/// Whether a process has a signal in a mask: SigBlk, SigIgn (proc_pid_status(5)).
fn has(process: &str, mask: &str, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let bits = status.lines().find_map(|line| line.strip_prefix(mask)?.strip_prefix(':'));
    let bits = u64::from_str_radix(bits.expect("a mask").trim(), 16).expect("hexadecimal digits");
    bits & 1 << (signal as u32 - 1) != 0
}

/// Every process that runs this file: the server, its launcher, its successor.
fn processes(proxy: &Proxy) -> Vec<u32> {
    let directory = proxy.dir().display().to_string();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let runs = |pid: &u32| {
        // A zombie has no command line.
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&directory)
    };
    pids.filter(runs).collect()
}

/// A process at some moment of its life, with tunnels that are open, if it has come so far.
struct Scene {
    proxy: Proxy,
    _backend: Backend,
    open: Vec<Wire>,
}

impl Scene {
    fn at(moment: Moment, delay: Duration) -> Self {
        let backend = Backend::echo();
        let setup = site("").main("drain_timeout 1s; worker_shutdown_timeout 3s;").set("backend", backend.address());
        let mut proxy = setup.begin();
        if matches!(moment, Moment::Start) {
            thread::sleep(delay);
            return Self { proxy, _backend: backend, open: Vec::new() };
        }
        proxy.wait_until_it_listens();
        let open = tunnels(&proxy, 2);
        match moment {
            Moment::Reload => proxy.running().signal(Signal::SIGHUP),
            Moment::Drain => proxy.running().signal(Signal::SIGQUIT),
            Moment::Upgrade => proxy.running().signal(Signal::SIGUSR2),
            Moment::Start | Moment::Load => {}
        }
        thread::sleep(delay);
        Self { proxy, _backend: backend, open }
    }

    /// Waits for its end, and for that of all others that came of it, which are asked to go.
    fn end(mut self, by: Option<Signal>, words: &str) -> ExitStatus {
        if let Some(signal) = by {
            send(self.proxy.pid(), signal as i32);
        }
        let status = self.proxy.running().wait();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = processes(&self.proxy);
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "{words}: processes {left:?} go on:\n{}", self.proxy.log());
            // A successor serves on, as it should: it is a process like any other. A launcher goes with its server.
            left.into_iter().for_each(|pid| send(pid, Signal::SIGTERM as i32));
            thread::sleep(Duration::from_millis(20));
        }
        let log = self.proxy.log();
        assert!(!log.contains("panic"), "{words}:\n{log}");
        self.proxy.forget();
        status
    }
}

/// From 0 to 40 ms, another for each number: somewhere in the start, the reading of the file, the way to a new process.
fn delay(number: usize) -> Duration {
    Duration::from_millis((number * 7 % 41) as u64)
}

#[test]
fn signals_that_end_nothing_end_nothing_at_any_moment() {
    beyond_nginx!();
    for moment in [Moment::Load, Moment::Reload, Moment::Drain, Moment::Upgrade] {
        let mut scene = Scene::at(moment, Duration::ZERO);
        for signal in GOES_ON {
            send(scene.proxy.pid(), signal as i32);
            thread::sleep(Duration::from_millis(2));
            send(scene.proxy.pid(), Signal::SIGCONT as i32);
        }
        assert!(scene.proxy.running().ended().is_none() || matches!(moment, Moment::Drain), "{moment:?}");
        if !matches!(moment, Moment::Drain) {
            scene.open.iter_mut().for_each(|wire| wire.echoes("still here"));
            assert_eq!(scene.proxy.get("/").status(), 200);
        }
        assert!(lines(&scene.proxy, &["SIGUSR1: reopening logs"]) >= 1);
        assert!(scene.end(Some(Signal::SIGTERM), &format!("{moment:?}")).success(), "{moment:?}");
    }
}

#[test]
fn signals_that_end_it_do_so_in_good_order_at_any_moment() {
    beyond_nginx!();
    for (number, (moment, signal)) in
        MOMENTS.into_iter().flat_map(|moment| ENDS.map(|signal| (moment, signal))).enumerate()
    {
        let scene = Scene::at(moment, delay(number));
        let words = format!("{signal} at {moment:?}");
        // Where it was started by nohup(1), or with `&` by a script, it does not hear some of them before it asks for them.
        let pid = scene.proxy.pid().to_string();
        assert!(!has("self", "SigIgn", signal) || eventually(|| has(&pid, "SigBlk", signal)), "{words}");
        let begun = Instant::now();
        let status = scene.end(Some(signal), &words);
        // Before it has read its file it is a program like any other.
        let at_start = matches!(moment, Moment::Start) && status.signal() == Some(signal as i32);
        assert!(status.success() || at_start, "{words}: {status}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{words} took {:?}", begun.elapsed());
    }
}

#[test]
fn signals_it_has_no_use_for_end_it_as_any_program_and_nothing_of_it_stays() {
    beyond_nginx!();
    for (number, signal) in KILLS.into_iter().enumerate() {
        let moment = MOMENTS[number % MOMENTS.len()];
        let scene = Scene::at(moment, delay(number));
        send(scene.proxy.pid(), signal);
        let words = format!("signal {signal} at {moment:?}");
        let status = scene.end(None, &words);
        assert_eq!(status.signal(), Some(signal), "{words}: {status}");
    }
}

/// A pseudo-random order, the same for a seed: `LONGSPLICE_TEST_SEED`.
#[test]
fn any_sequence_of_signals_is_survived() {
    beyond_nginx!();
    let seed = std::env::var("LONGSPLICE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_122);
    let mut numbers = crate::util::pattern(4096, seed).into_iter().map(usize::from);
    let mut next = |below: usize| numbers.next().expect("a number") % below;
    for round in 0..2 {
        let mut scene = Scene::at(Moment::Load, Duration::ZERO);
        let mut sent = Vec::new();
        for _ in 0..60 {
            let signal = GOES_ON[next(GOES_ON.len())];
            sent.push(signal);
            send(scene.proxy.pid(), signal as i32);
            if matches!(signal, Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN) {
                thread::sleep(Duration::from_millis(next(10) as u64));
                send(scene.proxy.pid(), Signal::SIGCONT as i32);
            }
            thread::sleep(Duration::from_millis(next(8) as u64));
            if next(4) == 0 {
                scene.open.iter_mut().for_each(|wire| wire.echoes("on and on"));
            }
        }
        let words = format!("seed {seed}, round {round}: {sent:?}");
        let reloads = sent.iter().filter(|signal| **signal == Signal::SIGHUP).count();
        let done = || lines(&scene.proxy, &["is in use: "]);
        // Those that come while one is under way are one.
        assert!(eventually(|| (1..=reloads).contains(&done())), "{words}: {} of {reloads}", done());
        scene.open.iter_mut().for_each(|wire| wire.echoes("at the end"));
        assert!(scene.end(Some(ENDS[next(3)]), &words).success(), "{words}");
    }
}
