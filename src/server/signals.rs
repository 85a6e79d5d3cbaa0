//! The signals of the control plane, read from a descriptor: no handler ever runs.

use std::{io, time::Duration};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

/// nginx's: TERM and INT stop, QUIT drains; HUP, USR1 and USR2 are reload, reopen and upgrade.
const SIGNALS: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// The signals sent to this process.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
    epoll: Epoll,
}

impl Signals {
    /// Blocks them in this thread and in those it starts from now on: call it before the first thread.
    pub(super) fn block() -> io::Result<Self> {
        let set: SigSet = SIGNALS.into_iter().collect();
        set.thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&descriptor, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { descriptor, epoll })
    }

    /// The next signal; none when `limit` has passed.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<Option<Signal>> {
        let timeout = EpollTimeout::try_from(limit).unwrap_or(EpollTimeout::MAX);
        match self.epoll.wait(&mut [EpollEvent::empty()], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let info = self.descriptor.read_signal()?;
        Ok(info.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn a_blocked_signal_is_read_and_does_not_end_the_process() {
        // Raised in this thread only: the harness' other threads do not block it.
        let signals = Signals::block().unwrap();
        assert_eq!(signals.wait(Duration::ZERO).unwrap(), None);
        raise(Signal::SIGUSR2).unwrap();
        assert_eq!(signals.wait(Duration::from_secs(5)).unwrap(), Some(Signal::SIGUSR2));
        assert_eq!(signals.wait(Duration::from_millis(1)).unwrap(), None);
    }
}
