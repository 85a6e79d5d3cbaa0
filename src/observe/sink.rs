//! One log file, and what becomes of lines that it does not take.

mod output;
mod pending;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::{errno::Errno, unistd::write};

pub(super) use self::output::is_fifo;
use self::{
    output::{Output, open_for_append},
    pending::{Pending, first_lines},
};
use crate::{
    config::{LogBuffer, LogTarget},
    limits::{
        LOG_BACKLOG_BYTES, LOG_LOSS_REPORT_SECS, LOG_PIPE_BYTES, LOG_RECOVERY_REPORT_SECS, LOG_RETRY_MS,
        LOG_WRITE_BYTES,
    },
};

/// Lines written and lost, ever, of all logs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    written: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    pub(super) fn add_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Relaxed);
    }
}

/// An open log.
#[derive(Debug)]
pub(super) struct Sink {
    name: String,
    output: Output,
    /// A write could wait for a reader: a pipe, a terminal, a socket.
    may_wait: bool,
    buffer: Option<LogBuffer>,
    pending: Pending,
    unreported: Unreported,
    tally: Arc<Tally>,
}

/// Lines lost since the last report that somebody could read.
#[derive(Debug, Default)]
struct Unreported {
    lines: u64,
    cause: Option<Errno>,
    /// When it was last tried to tell.
    reported: Option<Instant>,
    /// A line was written since: there is room again.
    is_over: bool,
}

impl Unreported {
    /// The file took nothing at all. One that is only slow is never over.
    fn has_failed(&self) -> bool {
        self.cause.is_some_and(|errno| errno != Errno::EAGAIN)
    }

    /// When it may be told next: how long from now. Never without lines.
    fn due_in(&self, now: Instant) -> Option<Duration> {
        let pause = if self.is_over { LOG_RECOVERY_REPORT_SECS } else { LOG_LOSS_REPORT_SECS };
        let next = self.reported.map(|reported| reported + Duration::from_secs(pause));
        (self.lines > 0).then(|| next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now)))
    }
}

impl Sink {
    /// Opens (creates) a log; `prefix` is what a relative path is relative to.
    pub(super) fn open(target: &LogTarget, prefix: &Path, tally: &Arc<Tally>) -> io::Result<Self> {
        let output = Output::open(target, prefix)?;
        Ok(Self::new(output.name(), output, Arc::clone(tally)))
    }

    fn new(name: String, output: Output, tally: Arc<Tally>) -> Self {
        let may_wait = output.may_wait();
        let (pending, unreported) = (Pending::default(), Unreported::default());
        Self { name, output, may_wait, buffer: None, pending, unreported, tally }
    }

    /// `buffer=` and `flush=`.
    pub(super) fn set_buffer(&mut self, buffer: Option<LogBuffer>) {
        self.buffer = buffer;
    }

    /// Takes a line. It is lost, and counted, when too much waits already.
    pub(super) fn add(&mut self, line: &[u8], now: Instant) {
        let room = self.room();
        if self.pending.bytes.len() + line.len() > room {
            self.write_out();
        }
        if self.pending.bytes.len() + line.len() > room.max(LOG_BACKLOG_BYTES) {
            self.lost(1, Errno::EAGAIN);
        } else {
            self.pending.add(line, now);
        }
    }

    fn room(&self) -> usize {
        self.buffer.map_or(LOG_WRITE_BYTES, |buffer| buffer.bytes)
    }

    /// When something is to be written, or told, without another line: how long from now.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        let lines = match self.is_due(now) {
            true => Some(Duration::from_millis(LOG_RETRY_MS)),
            false => self.flush_in(now),
        };
        [lines, self.unreported.due_in(now)].into_iter().flatten().min()
    }

    fn flush_in(&self, now: Instant) -> Option<Duration> {
        let flush = self.buffer.and_then(|buffer| buffer.flush)?;
        Some((self.pending.since? + flush).saturating_duration_since(now))
    }

    /// True when lines wait that ought to be written: all, with `buffer=` a full one or one that waits since `flush=`.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let Some(since) = self.pending.since else { return false };
        let Some(buffer) = self.buffer else { return true };
        self.pending.bytes.len() >= buffer.bytes || buffer.flush.is_some_and(|flush| now >= since + flush)
    }

    /// Writes what waits. What does not fit into a pipe goes on waiting; what a file does not take (a full disk) is lost.
    pub(super) fn write_out(&mut self) {
        if let Some(errno) = self.try_write() {
            self.give_up(errno);
        }
    }

    /// Writes a line about the logs themselves. False: it is not to be had here either, and no lost line.
    pub(super) fn say(&mut self, line: &[u8], now: Instant) -> bool {
        self.write_out();
        if self.pending.bytes.len() + line.len() > LOG_BACKLOG_BYTES {
            return false;
        }
        self.pending.add(line, now);
        let failed = self.try_write().is_some();
        if failed {
            self.pending.drop_all();
        }
        !failed
    }

    /// Writes what waits, as far as it goes; what the file said to the rest.
    fn try_write(&mut self) -> Option<Errno> {
        let mut sent = 0;
        let failure = loop {
            let Some(piece) = self.pending.bytes.get(sent..).filter(|rest| !rest.is_empty()) else { break None };
            let piece = if self.may_wait { first_lines(piece, LOG_PIPE_BYTES) } else { piece };
            if self.may_wait && !self.output.has_room() {
                break None;
            }
            match write(self.output.fd(), piece) {
                Ok(0) | Err(Errno::EAGAIN) => break None,
                Ok(written) => sent += written,
                Err(Errno::EINTR) => {}
                Err(errno) => break Some(errno),
            }
        };
        self.tally.written.fetch_add(self.pending.drop_front(sent), Relaxed);
        self.unreported.is_over |= sent > 0 && failure.is_none() && self.unreported.has_failed();
        failure
    }

    /// Opens the file anew, by its name; what waits goes to the old one first.
    ///
    /// # Errors
    /// open(2)'s, with the file's path; the old one goes on.
    pub(super) fn reopen(&mut self) -> Result<(), (PathBuf, io::Error)> {
        self.write_out();
        if let Output::File(file, path) = &mut self.output {
            *file = open_for_append(path).map_err(|error| (path.clone(), error))?;
            self.pending.begin_file();
            self.may_wait = self.output.may_wait();
        }
        Ok(())
    }

    /// No line comes any more: what cannot be written now is lost.
    pub(super) fn close(&mut self) {
        self.write_out();
        self.give_up(Errno::EAGAIN);
    }

    fn give_up(&mut self, errno: Errno) {
        let lines = self.pending.drop_all();
        self.lost(lines, errno);
    }

    fn lost(&mut self, lines: u64, errno: Errno) {
        if lines > 0 {
            self.tally.add_lost(lines);
            self.unreported.lines += lines;
            self.unreported.cause = Some(errno);
            self.unreported.is_over = false;
        }
    }

    /// Counts lines for the next report that were lost, and counted, before they came here.
    pub(super) fn report_lost(&mut self, lines: u64) {
        self.unreported.lines += lines;
    }

    /// How many lines were lost, when that is to be told: at most once a minute, and once there is room again, unless it is the `last`
    /// chance. [`Sink::told`] when somebody could be.
    pub(super) fn report(&mut self, now: Instant, last: bool) -> Option<String> {
        let due_in = self.unreported.due_in(now)?;
        if !last && !due_in.is_zero() {
            return None;
        }
        self.unreported.reported = Some(now);
        let cause = match self.unreported.cause {
            Some(Errno::EAGAIN) => "nobody reads it, or too slowly".to_owned(),
            Some(errno) => format!("write() failed ({}: {})", errno as i32, errno.desc()),
            None => "they came faster than the log takes them".to_owned(),
        };
        Some(format!("{} lines for the log \"{}\" were lost: {cause}", self.unreported.lines, self.name))
    }

    /// The lines that were reported last have been told of.
    pub(super) fn told(&mut self) {
        self.unreported = Unreported { reported: self.unreported.reported, ..Unreported::default() };
    }
}

#[cfg(test)]
mod tests;
