//! Log lines on their way from the threads that make them to the one that writes them.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::sink::{Sink, Tally};
use crate::{
    config::LogBuffer,
    limits::{LOG_GATHER_MS, LOG_QUEUE_BYTES, LOG_QUEUE_RECORDS},
};

/// The number of an open log; not used twice.
pub(super) type SinkId = u32;

/// One line for one sink.
#[derive(Debug)]
pub(super) struct Record {
    /// Which.
    pub sink: SinkId,
    /// The line, with its newline.
    pub line: Vec<u8>,
}

/// What the writer is to learn of its logs.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Opened, by number: before the first line for them.
    pub opened: Vec<(SinkId, Sink)>,
    /// How their lines are buffered.
    pub buffers: Vec<(SinkId, Option<LogBuffer>)>,
    /// Behind the last line for them.
    pub closed: Vec<SinkId>,
    /// Those of the main error log.
    pub main: Option<Vec<SinkId>>,
    /// Every file is to be opened anew, by its name.
    pub reopen: bool,
}

impl Changes {
    fn is_empty(&self) -> bool {
        let Self { opened, buffers, closed, main, reopen } = self;
        opened.is_empty() && buffers.is_empty() && closed.is_empty() && main.is_none() && !reopen
    }
}

/// A bounded queue that is emptied by swapping: its lock is held for a push or a swap, never during a write.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    /// Lines written and lost, ever.
    pub tally: Arc<Tally>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    bytes: usize,
    changes: Changes,
    /// Lines that found the queue full since the writer last asked.
    lost: u64,
    /// How often somebody asked for everything to be written, and how much of that is done.
    flushes: u64,
    flushed: u64,
    /// The writer sleeps for want of lines. A notification costs a futex(2) call, so only the first line after a pause pays it.
    asleep: bool,
    closed: bool,
    /// The writer is gone.
    ended: bool,
}

impl State {
    /// Somebody waits in `flush`: no gathering.
    fn is_hurried(&self) -> bool {
        self.flushed < self.flushes
    }

    fn is_quiet(&self) -> bool {
        self.records.is_empty() && self.changes.is_empty() && self.lost == 0 && !self.closed && !self.is_hurried()
    }
}

/// What the writer got.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The lines, in the order they came.
    pub records: Vec<Record>,
    /// What has changed since the last batch.
    pub changes: Changes,
    /// Lines that found the queue full since the last batch.
    pub lost: u64,
    /// To be given back once everything that came is written.
    pub flushes: u64,
    /// Nothing will come after this.
    pub last: bool,
}

impl Queue {
    /// Hands over a line. It is lost, and counted, when the queue is full.
    pub(super) fn push(&self, record: Record) {
        let mut state = self.lock();
        if state.closed || state.records.len() >= LOG_QUEUE_RECORDS || state.bytes + record.line.len() > LOG_QUEUE_BYTES
        {
            state.lost += 1;
            self.tally.add_lost(1);
            return;
        }
        state.bytes += record.line.len();
        state.records.push(record);
        self.wake(state);
    }

    /// Tells the writer of its logs.
    pub(super) fn change(&self, tell: impl FnOnce(&mut Changes)) {
        let mut state = self.lock();
        tell(&mut state.changes);
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if mem::take(&mut state.asleep) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Waits for something to do, at most `patience`, and takes it all. `flushed`: [`Batch::flushes`] of the last batch, all of which
    /// is written.
    pub(super) fn take(&self, flushed: u64, patience: Option<Duration>) -> Batch {
        let mut state = self.lock();
        state.flushed = flushed;
        self.emptied.notify_all();
        let deadline = patience.map(|patience| Instant::now() + patience);
        while state.is_quiet() {
            state.asleep = true;
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        state.asleep = false;
        state.bytes = 0;
        Batch {
            records: mem::take(&mut state.records),
            changes: mem::take(&mut state.changes),
            lost: mem::take(&mut state.lost),
            flushes: state.flushes,
            last: state.closed,
        }
    }

    /// Lets lines gather, so that a busy log costs few writes.
    pub(super) fn gather(&self) {
        let state = self.lock();
        let pause = Duration::from_millis(LOG_GATHER_MS);
        let _ = self.filled.wait_timeout_while(state, pause, |state| !state.is_hurried() && !state.closed);
    }

    /// Waits until all that was handed over is written, at most `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        state.flushes += 1;
        let goal = state.flushes;
        self.filled.notify_one();
        while state.flushed < goal && !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the writer once it has dealt with what is there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// The writer has ended: nobody needs to wait for it.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.emptied.notify_all();
    }

    // A thread that panicked while it held the lock left complete records behind: every change is one push or one swap.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(line: &str) -> Record {
        Record { sink: 0, line: line.as_bytes().to_vec() }
    }

    #[test]
    fn a_batch_keeps_the_order_of_lines() {
        let queue = Queue::default();
        for number in 0..10 {
            queue.push(record(&number.to_string()));
        }
        let batch = queue.take(0, None);
        let lines: Vec<_> = batch.records.iter().map(|record| record.line[0] - b'0').collect();
        assert_eq!(lines, (0..10).collect::<Vec<u8>>());
        assert!(!batch.last && batch.lost == 0);
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them() {
        let queue = Queue::default();
        for _ in 0..LOG_QUEUE_RECORDS + 7 {
            queue.push(record("x"));
        }
        let batch = queue.take(0, None);
        assert_eq!((batch.records.len(), batch.lost), (LOG_QUEUE_RECORDS, 7));
        assert_eq!(queue.tally.lost(), 7);
    }

    #[test]
    fn the_bytes_that_wait_are_bounded_too() {
        let queue = Queue::default();
        for _ in 0..3 {
            queue.push(Record { sink: 0, line: vec![b'x'; LOG_QUEUE_BYTES / 2] });
        }
        let batch = queue.take(0, None);
        assert_eq!((batch.records.len(), batch.lost), (2, 1));
    }

    #[test]
    fn a_full_queue_takes_changes() {
        let queue = Queue::default();
        for _ in 0..LOG_QUEUE_RECORDS {
            queue.push(record("x"));
        }
        queue.change(|changes| changes.reopen = true);
        assert!(queue.take(0, None).changes.reopen);
    }

    #[test]
    fn patience_ends_without_lines() {
        let batch = Queue::default().take(0, Some(Duration::from_millis(20)));
        assert!(batch.records.is_empty() && !batch.last);
    }

    #[test]
    fn flush_gives_up_when_nobody_writes() {
        let queue = Queue::default();
        queue.push(record("x"));
        let start = Instant::now();
        queue.flush(Duration::from_millis(50));
        assert!(start.elapsed() >= Duration::from_millis(50));
        queue.end();
        queue.flush(Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(30), "nor does it wait for who has ended");
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_says_it_is_the_last() {
        let queue = Queue::default();
        queue.push(record("x"));
        queue.close();
        let batch = queue.take(0, None);
        assert!(batch.last && batch.records.len() == 1);
    }
}
