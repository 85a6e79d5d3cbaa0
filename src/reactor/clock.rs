//! The timer behind the wheel.

use std::{cell::Cell, io, time::Duration};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};

use crate::limits::TICK_MS;

/// What moves the wheel: a timer that ticks while there are deadlines.
pub(super) struct Clock {
    pub timer: TimerFd,
    pub runs: Cell<bool>,
    /// It has ticked since [`super::Reactor::advance`] last looked.
    pub struck: Cell<bool>,
}

impl Clock {
    pub fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        Ok(Self { timer, runs: Cell::new(false), struck: Cell::new(false) })
    }

    pub fn start(&self) {
        let every = Expiration::Interval(TimeSpec::from_duration(Duration::from_millis(TICK_MS)));
        // A valid timer and interval: timerfd_settime(2) has no other reason to fail.
        self.runs.set(self.timer.set(every, TimerSetTimeFlags::empty()).is_ok());
    }

    pub fn stop(&self) -> io::Result<()> {
        self.runs.set(false);
        Ok(self.timer.unset()?)
    }

    /// Reads the number of ticks, so that the next one is an edge again.
    pub fn hear(&self) {
        let mut count = [0; 8];
        // EAGAIN: it was read before.
        let _ = nix::unistd::read(&self.timer, &mut count);
    }
}
