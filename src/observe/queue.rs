//! Log lines on their way from the threads that make them to the one that writes them.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::sink::Sink;
use crate::limits::{LOG_GATHER_MS, LOG_QUEUE_BYTES, LOG_QUEUE_RECORDS};

/// One line for one sink.
#[derive(Debug)]
pub(super) struct Record {
    /// Number of the sink.
    pub sink: usize,
    /// The line, with its newline.
    pub line: Vec<u8>,
}

/// A bounded queue that is emptied by swapping: its lock is held for a push or a swap, never during a write.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<Record>,
    bytes: usize,
    /// Lines lost since the writer last asked.
    lost: u64,
    /// Lines accepted and lines dealt with, ever: what `flush` compares.
    accepted: u64,
    done: u64,
    /// The writer sleeps for want of lines. A notification costs a futex(2) call, so only the first line after a pause pays it.
    asleep: bool,
    /// Somebody waits in `flush`: no gathering.
    hurried: bool,
    closed: bool,
    changes: Changes,
}

/// What the writer is to learn of its logs.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Opened, by number: before the first line for them.
    pub opened: Vec<(usize, Sink)>,
    /// Behind the last line for them.
    pub closed: Vec<usize>,
    /// Those of the main error log.
    pub main: Option<Vec<usize>>,
}

impl Changes {
    fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty() && self.main.is_none()
    }
}

/// What the writer got.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The lines, in the order they came.
    pub records: Vec<Record>,
    /// Lines that found the queue full since the last batch.
    pub lost: u64,
    /// What has changed since.
    pub changes: Changes,
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
            return;
        }
        state.bytes += record.line.len();
        state.accepted += 1;
        state.records.push(record);
        if mem::take(&mut state.asleep) {
            drop(state);
            self.filled.notify_one();
        }
    }

    /// Waits for lines and takes them all. `previous`: how many of the last batch are dealt with.
    pub(super) fn take(&self, previous: usize) -> Batch {
        let mut state = self.lock();
        state.done += previous as u64;
        if state.done == state.accepted {
            state.hurried = false;
        }
        self.emptied.notify_all();
        while state.records.is_empty() && state.lost == 0 && state.changes.is_empty() && !state.closed {
            state.asleep = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.asleep = false;
        state.bytes = 0;
        let records = mem::take(&mut state.records);
        let (lost, changes) = (mem::take(&mut state.lost), mem::take(&mut state.changes));
        Batch { records, lost, changes, last: state.closed }
    }

    /// Lets lines gather, so that a busy log costs few writes.
    pub(super) fn gather(&self) {
        let state = self.lock();
        if state.hurried || state.closed {
            return;
        }
        let _ = self
            .filled
            .wait_timeout_while(state, Duration::from_millis(LOG_GATHER_MS), |state| !state.hurried && !state.closed);
    }

    /// Waits until all that was handed over is dealt with, at most `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        let goal = state.accepted;
        while state.done < goal {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state.hurried = true;
            self.filled.notify_one();
            state = self.emptied.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Tells the writer of its logs.
    pub(super) fn change(&self, tell: impl FnOnce(&mut Changes)) {
        tell(&mut self.lock().changes);
        self.filled.notify_one();
    }

    /// Ends the writer once it has dealt with what is there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
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
        let batch = queue.take(0);
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
        let batch = queue.take(0);
        assert_eq!((batch.records.len(), batch.lost), (LOG_QUEUE_RECORDS, 7));
    }

    #[test]
    fn the_bytes_that_wait_are_bounded_too() {
        let queue = Queue::default();
        for _ in 0..3 {
            queue.push(Record { sink: 0, line: vec![b'x'; LOG_QUEUE_BYTES / 2] });
        }
        let batch = queue.take(0);
        assert_eq!((batch.records.len(), batch.lost), (2, 1));
    }

    #[test]
    fn flush_gives_up_when_nobody_writes() {
        let queue = Queue::default();
        queue.push(record("x"));
        let start = Instant::now();
        queue.flush(Duration::from_millis(50));
        assert!(start.elapsed() >= Duration::from_millis(50));
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_says_it_is_the_last() {
        let queue = Queue::default();
        queue.push(record("x"));
        queue.close();
        let batch = queue.take(0);
        assert!(batch.last && batch.records.len() == 1);
    }
}
