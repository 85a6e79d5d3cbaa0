//! The signals of the control plane, read from a descriptor: no handler ever runs.

use std::{io, os::fd::AsFd, time::Duration};

use nix::{
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};

/// nginx's: TERM and INT stop, QUIT drains; HUP, USR1 and USR2 are reload, reopen and upgrade, WINCH goes on without listening.
const SIGNALS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// A signal, and who sent it: none from outside of this process' pid namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub signal: Signal,
    pub sender: Option<Pid>,
}

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
        // A log at RLIMIT_FSIZE: write(2) is to fail, with EFBIG, and not to end the process.
        SigSet::from(Signal::SIGXFSZ).thread_block()?;
        let descriptor = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&descriptor, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { descriptor, epoll })
    }

    /// Lets another descriptor end [`Signals::wait`] when it is readable, as long as it is open.
    pub(super) fn watch(&self, descriptor: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, 0))?)
    }

    /// The next signal; none when `limit` has passed.
    pub(super) fn wait(&self, limit: Duration) -> io::Result<Option<Received>> {
        let timeout = EpollTimeout::try_from(limit).unwrap_or(EpollTimeout::MAX);
        match self.epoll.wait(&mut [EpollEvent::empty()], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let info = self.descriptor.read_signal()?;
        Ok(info.and_then(|info| {
            let signal = Signal::try_from(info.ssi_signo as i32).ok()?;
            let sender = i32::try_from(info.ssi_pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw);
            Some(Received { signal, sender })
        }))
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
        let received = signals.wait(Duration::from_secs(5)).unwrap();
        assert_eq!(received, Some(Received { signal: Signal::SIGUSR2, sender: Some(Pid::this()) }));
        assert_eq!(signals.wait(Duration::from_millis(1)).unwrap(), None);
    }
}
