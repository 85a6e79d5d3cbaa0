//! The host has no descriptor or memory for us: what is told of it, and when that is over.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::Worker;
use crate::{
    config::Level,
    limits::{SHORTAGE_QUIET_MS, SHORTAGE_REPORT_SECS},
    observe::{counters::Counters, os_error},
};

/// What has failed since a shortage began. One line tells of its beginning, one now and then that it goes on, one of its end: it comes
/// with every connection, and the log must not.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    /// Failed calls; 0: there is none.
    failures: Cell<u64>,
    /// When the last of them did.
    failed: Cell<Option<Instant>>,
    /// In which words.
    last: RefCell<String>,
}

impl Worker {
    /// Tells that `call` failed, for a reason of the host's, and what comes of that.
    pub fn lacks(self: &Rc<Self>, call: &str, error: &io::Error, effect: &str) {
        Counters::bump(&self.counters.shortages);
        let failures = &self.shortage.failures;
        failures.set(failures.get() + 1);
        self.shortage.failed.set(Some(Instant::now()));
        self.shortage.last.replace(format!("{call}() failed ({})", os_error(error)));
        if failures.get() == 1 {
            let last = self.shortage.last.borrow();
            self.log(Level::Crit, format_args!("{last}: {effect}{}", cure(error)));
            self.spawn(Rc::clone(self).wait_for_the_end_of_a_shortage());
        }
        if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE)) {
            // What is only kept for later gives way.
            self.pool.clear();
            self.tunnels.borrow_mut().close_idle_pipes();
        }
    }

    async fn wait_for_the_end_of_a_shortage(self: Rc<Self>) {
        let (began, mut told) = (Instant::now(), Instant::now());
        let Shortage { failures, failed, last } = &self.shortage;
        let quiet = Duration::from_millis(SHORTAGE_QUIET_MS);
        let lasted = loop {
            let failed = failed.get().unwrap_or(began);
            let left = quiet.saturating_sub(failed.elapsed());
            if left.is_zero() || self.is_quitting() {
                break failed.duration_since(began);
            }
            if told.elapsed() >= Duration::from_secs(SHORTAGE_REPORT_SECS) {
                told = Instant::now();
                self.log(Level::Crit, format_args!("{}: {} calls have failed so far", last.borrow(), failures.get()));
            }
            self.reactor.sleep(left).await;
        };
        if self.reserve.borrow().is_none() {
            self.open_reserve();
        }
        let (count, seconds) = (failures.take(), lasted.as_secs_f32());
        let message =
            format_args!("calls succeed again: {count} failed within {seconds:.1} s, the last: {}", last.take());
        self.log(Level::Notice, message);
    }
}

/// What to do about it.
fn cure(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE) => "; raise worker_rlimit_nofile, or LimitNOFILE in the systemd unit",
        Some(Errno::ENFILE) => "; all processes of this host together have too many files open: raise fs.file-max",
        Some(Errno::ENOBUFS | Errno::ENOMEM) => {
            "; the kernel has no memory for it: see net.ipv4.tcp_mem, and the memory limit of the service"
        }
        Some(Errno::ENOSPC) => "; raise fs.epoll.max_user_watches",
        _ => "",
    }
}
