//! What systemd is told (sd_notify(3)), and the watchdog.

use std::{
    env, fmt, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use super::{Server, ready_line};
use crate::{
    config::Level,
    limits::{START_POLL_US, START_WAIT_SECS},
    runtime::Message,
};

/// The service manager, if there is one that wants to be told.
#[derive(Debug)]
pub(super) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
}

impl Notify {
    /// The one that `NOTIFY_SOCKET` names: a path, or `@` and an abstract name.
    pub(super) fn from_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|name| match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            [b'/', ..] => SocketAddr::from_pathname(&name).ok(),
            _ => None,
        });
        Self { to: address.and_then(|address| Some((socket().ok()?, address))) }
    }

    /// Serving.
    pub(super) fn ready(&self, status: &str) {
        self.send(format_args!("READY=1\nSTATUS={status}"));
    }

    /// Reading the configuration again; [`Notify::ready`] ends it. systemd 253 and later (`Type=notify-reload`) wants the time too.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(format_args!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// Ending.
    pub(super) fn stopping(&self, status: &str) {
        self.send(format_args!("STOPPING=1\nSTATUS={status}"));
    }

    /// Another process is the service from now on, and this one has nothing more to say.
    pub(super) fn hand_over(&mut self, to: Pid) {
        self.send(format_args!("MAINPID={to}"));
        self.to = None;
    }

    fn send(&self, message: fmt::Arguments<'_>) {
        if let Some((socket, address)) = &self.to {
            // A manager that does not read is not waited for.
            let _ = socket.send_to_addr(message.to_string().as_bytes(), address);
        }
    }
}

fn socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Tells systemd that the workers take turns, as long as they do (`WatchdogSec=`): each is sent a [`Message::Pulse`] and drops it.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Without a word for so long systemd kills the process.
    interval: Duration,
    asked: Instant,
    pulse: Option<Arc<()>>,
    complained: bool,
}

/// What a look at the watchdog came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing to do.
    Wait,
    /// The workers are to be asked.
    Ask(Arc<()>),
    /// Some worker has not answered for so long.
    Stuck(Duration),
}

impl Watchdog {
    /// The one that systemd set up for this process; none: it did not.
    pub(super) fn from_environment() -> Option<Self> {
        let is_for_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid == process::id().to_string());
        let interval = env::var("WATCHDOG_USEC").ok().filter(|_| is_for_us)?.parse().ok().map(Duration::from_micros)?;
        Some(Self::every(interval)).filter(|_| !interval.is_zero())
    }

    fn every(interval: Duration) -> Self {
        Self { interval, asked: Instant::now(), pulse: None, complained: false }
    }

    /// How often to look: the answers must be seen well before the interval ends.
    pub(super) fn patience(&self) -> Duration {
        self.interval / 8
    }

    /// Looks whether all have answered, and tells systemd. Asks anew a quarter of the interval after the last question.
    pub(super) fn look(&mut self, notify: &Notify, now: Instant) -> Look {
        let waited = now.saturating_duration_since(self.asked);
        match &self.pulse {
            Some(pulse) if Arc::strong_count(pulse) > 1 => {
                let late = waited >= self.interval / 2 && !self.complained;
                self.complained |= late;
                return if late { Look::Stuck(waited) } else { Look::Wait };
            }
            Some(_) => {
                notify.send(format_args!("WATCHDOG=1"));
                (self.pulse, self.complained) = (None, false);
            }
            None => {}
        }
        if waited < self.interval / 4 {
            return Look::Wait;
        }
        self.asked = now;
        Look::Ask(Arc::clone(self.pulse.insert(Arc::default())))
    }
}

impl Server {
    /// Waits until every worker has taken a turn, or one has ended, which is noticed later.
    pub(super) fn wait_for_workers(&self) {
        let pulse = Arc::new(());
        self.tell(|| Message::Pulse(Arc::clone(&pulse)));
        let deadline = Instant::now() + Duration::from_secs(START_WAIT_SECS);
        let all_live = || self.workers.iter().flatten().all(|worker| !worker.thread.is_finished());
        while Arc::strong_count(&pulse) > 1 && all_live() && Instant::now() < deadline {
            thread::sleep(Duration::from_micros(START_POLL_US));
        }
    }

    /// Tells whoever waits for it that this process serves.
    pub(super) fn say_ready(&mut self) {
        self.notify.ready(&ready_line(&self.generation.config));
        if let Some(predecessor) = &mut self.predecessor {
            predecessor.ready();
        }
    }

    pub(super) fn feed_watchdog(&mut self) {
        let Some(watchdog) = &mut self.watchdog else { return };
        match watchdog.look(&self.notify, Instant::now()) {
            Look::Wait => {}
            Look::Ask(pulse) => self.tell(|| Message::Pulse(Arc::clone(&pulse))),
            Look::Stuck(time) => {
                let message =
                    format_args!("a worker has taken no turn for {} s: the watchdog gets nothing", time.as_secs());
                self.log(Level::Alert, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager() -> (Notify, UnixDatagram, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let notify = Notify { to: Some((socket().unwrap(), SocketAddr::from_pathname(path).unwrap())) };
        (notify, manager, directory)
    }

    fn told(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_manager_is_told_in_its_own_words() {
        let (mut notify, manager, _directory) = manager();
        notify.ready("2 workers");
        assert_eq!(told(&manager), "READY=1\nSTATUS=2 workers");
        notify.reloading();
        let reloading = told(&manager);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0);
        notify.stopping("stopping");
        assert_eq!(told(&manager), "STOPPING=1\nSTATUS=stopping");
        notify.hand_over(Pid::from_raw(77));
        assert_eq!(told(&manager), "MAINPID=77");
        notify.ready("no more");
        assert_eq!(told(&manager), "");
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let (notify, _manager, _directory) = manager();
        // net.unix.max_dgram_qlen is 10 by default, and no host has set it to 100,000.
        (0..100_000).for_each(|_| notify.ready("x"));
    }

    #[test]
    fn the_watchdog_is_fed_when_all_workers_have_answered() {
        let (notify, manager, _directory) = manager();
        let mut watchdog = Watchdog::every(Duration::from_secs(8));
        let start = watchdog.asked;
        let mut look = |seconds| watchdog.look(&notify, start + Duration::from_secs(seconds));
        assert_eq!(look(1), Look::Wait);
        let Look::Ask(pulse) = look(2) else { panic!("not asked") };
        let answers = [Arc::clone(&pulse), pulse];
        assert_eq!(look(3), Look::Wait);
        assert_eq!(told(&manager), "");
        drop(answers);
        assert_eq!(look(3), Look::Wait);
        assert_eq!(told(&manager), "WATCHDOG=1");
    }

    #[test]
    fn a_stuck_worker_starves_the_watchdog_and_is_told_once() {
        let (notify, manager, _directory) = manager();
        let mut watchdog = Watchdog::every(Duration::from_secs(8));
        let start = watchdog.asked;
        let mut look = |seconds| watchdog.look(&notify, start + Duration::from_secs(seconds));
        let Look::Ask(stuck) = look(2) else { panic!("not asked") };
        assert_eq!(look(6), Look::Stuck(Duration::from_secs(4)));
        assert_eq!((look(7), look(20)), (Look::Wait, Look::Wait));
        assert_eq!(told(&manager), "");
        drop(stuck);
        assert!(matches!(look(21), Look::Ask(_)));
        assert_eq!(told(&manager), "WATCHDOG=1");
    }
}
