//! What a worker counts. One [`Counters`] a worker, so that counting is a plain store in its own cache line.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::latency::Latency;
use crate::{limits::COUNTED_REASONS, tls::TlsFacts};

/// The counts of one worker, from its start. On cache lines of its own: it is written with every message.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// accept4(2) failed: no descriptor, no memory.
    pub accept_errors: AtomicU64,
    /// Calls that failed because the host had no descriptor or memory, accept4(2)'s included.
    pub shortages: AtomicU64,
    /// Connections accepted and handed to another worker.
    pub handed_over: AtomicU64,
    /// Connections that another worker accepted and handed to this one.
    pub taken_over: AtomicU64,
    /// Requests answered, those that became a tunnel not included.
    pub requests: AtomicU64,
    /// Upgrades that became a tunnel.
    pub tunnels: AtomicU64,
    /// Tunnels that have ended.
    pub tunnels_ended: AtomicU64,
    /// Tunnels that another worker handed to this one,
    pub tunnels_moved_in: AtomicU64,
    /// and this one to others.
    pub tunnels_moved_out: AtomicU64,
    /// Bytes that tunnels moved from clients to backends, TLS left out; as they move, not when a tunnel ends.
    pub bytes_from_client: AtomicU64,
    /// Bytes from backends to clients.
    pub bytes_from_upstream: AtomicU64,
    /// WebSocket frames from clients.
    pub frames_from_client: AtomicU64,
    /// WebSocket frames from backends.
    pub frames_from_upstream: AtomicU64,
    /// TLS handshakes that failed.
    pub tls_failures: AtomicU64,
    /// Sessions that ended in a panic (the worker lives on).
    pub panics: AtomicU64,
    /// Requests and backend answers refused, by [`crate::http::refusal::Refusal::reason`].
    pub refusals: Reasons,
    /// Connections closed, by reason (`client_closed`, `idle_timeout` ...).
    pub closes: Reasons,
    /// Upgrade requests that the backend answered otherwise than with 101.
    pub upgrades_declined: AtomicU64,
    /// Upgrade requests that were refused here.
    pub upgrades_refused: AtomicU64,
    /// Upgrade requests that no backend answered, or whose client left.
    pub upgrades_failed: AtomicU64,
    /// TLS 1.2 handshakes with clients.
    pub tls_1_2: AtomicU64,
    /// TLS 1.3 handshakes with clients.
    pub tls_1_3: AtomicU64,
    /// Of both, resumed sessions.
    pub tls_resumed: AtomicU64,
    /// How long the upgrades took that became a tunnel.
    pub upgrade_times: Latency,
    /// What goes up and down.
    pub gauges: Gauges,
}

/// What a worker has now. Each is written by its worker alone.
#[derive(Debug, Default)]
pub struct Gauges {
    /// The worker's thread (gettid(2)); 0 before it runs.
    pub thread: AtomicU64,
    /// Connections that are no tunnel.
    pub sessions: AtomicU64,
    /// Sessions by what they are at, see [`Stage`].
    pub stages: [AtomicU64; 3],
    /// Upgrade requests under way. One that becomes a tunnel is counted in [`Counters::tunnels`] before it leaves here.
    pub handshakes_pending: AtomicU64,
    /// Deadlines on the wheel.
    pub timers: AtomicU64,
    /// Pipes of bulk transfers, in use or kept.
    pub pipes: AtomicU64,
    /// Of these, the pipes in use.
    pub pipes_in_use: AtomicU64,
    /// Bytes that tunnels hold for readers that do not take them.
    pub held_bytes: AtomicU64,
    /// Entries of the table of tunnels.
    pub tunnel_slots: AtomicU64,
    /// Sockets that tasks wait for.
    pub sockets: AtomicU64,
    /// Connections to backends that wait for another request.
    pub upstream_idle: AtomicU64,
}

/// What a session is at, in the words of nginx's `stub_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// For the first byte of a request.
    Waiting = 0,
    /// A request's head, or the TLS handshake.
    Reading = 1,
    /// The answer.
    Writing = 2,
}

/// A session as it is counted: by its stage, for as long as it lives.
#[derive(Debug)]
pub struct Counted {
    counters: Arc<Counters>,
    stage: Stage,
}

impl Counted {
    /// Counts a new session.
    pub fn new(counters: &Arc<Counters>) -> Self {
        let counted = Self { counters: Arc::clone(counters), stage: Stage::Waiting };
        Counters::grow(counted.gauge(), 1);
        counted
    }

    /// Goes on to another stage.
    pub fn enter(&mut self, stage: Stage) {
        if self.stage != stage {
            self.leave();
            self.stage = stage;
            Counters::grow(self.gauge(), 1);
        }
    }

    fn leave(&self) {
        self.gauge().store(self.gauge().load(Relaxed).wrapping_sub(1), Relaxed);
    }

    fn gauge(&self) -> &AtomicU64 {
        &self.counters.gauges.stages[self.stage as usize]
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Counters {
    /// Adds one.
    pub fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Adds some, from the worker's own thread: one load and one store, and no locked instruction.
    pub fn grow(counter: &AtomicU64, by: u64) {
        counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// Counts a TLS handshake with a client.
    pub fn count_tls(&self, facts: &TlsFacts) {
        Self::bump(if facts.protocol == "TLSv1.2" { &self.tls_1_2 } else { &self.tls_1_3 });
        if facts.resumed {
            Self::bump(&self.tls_resumed);
        }
    }

    /// Tunnels open now.
    pub fn tunnels_open(&self) -> u64 {
        let come = self.tunnels.load(Relaxed) + self.tunnels_moved_in.load(Relaxed);
        come.saturating_sub(self.tunnels_ended.load(Relaxed) + self.tunnels_moved_out.load(Relaxed))
    }

    /// The sum over all workers.
    pub fn sum<'a>(workers: impl IntoIterator<Item = &'a Counters>) -> Counters {
        let total = Counters::default();
        for worker in workers {
            for (sum, count) in total.all().into_iter().zip(worker.all()) {
                sum.fetch_add(count.load(Relaxed), Relaxed);
            }
            worker.refusals.each(|reason, count| total.refusals.add(reason, count));
            worker.closes.each(|reason, count| total.closes.add(reason, count));
            total.upgrade_times.add(&worker.upgrade_times);
        }
        total
    }

    fn all(&self) -> [&AtomicU64; 22] {
        [
            &self.accepted,
            &self.accept_errors,
            &self.shortages,
            &self.handed_over,
            &self.taken_over,
            &self.requests,
            &self.tunnels,
            &self.tunnels_ended,
            &self.tunnels_moved_in,
            &self.tunnels_moved_out,
            &self.bytes_from_client,
            &self.bytes_from_upstream,
            &self.frames_from_client,
            &self.frames_from_upstream,
            &self.tls_failures,
            &self.panics,
            &self.upgrades_declined,
            &self.upgrades_refused,
            &self.upgrades_failed,
            &self.tls_1_2,
            &self.tls_1_3,
            &self.tls_resumed,
        ]
    }
}

/// One line for the log: `7 connections, 3 requests, 4 tunnels (1 open); closed: client_closed 3`.
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections, {} requests, {} tunnels ({} open)",
            self.accepted.load(Relaxed),
            self.requests.load(Relaxed),
            self.tunnels.load(Relaxed),
            self.tunnels_open()
        )?;
        let unusual = [
            (&self.handed_over, "handed over"),
            (&self.taken_over, "taken over"),
            (&self.accept_errors, "accept errors"),
            (&self.shortages, "calls for want of descriptors or memory failed"),
            (&self.tls_failures, "TLS handshakes failed"),
            (&self.panics, "panics"),
        ];
        for (counter, name) in unusual {
            let count = counter.load(Relaxed);
            if count > 0 {
                write!(f, ", {count} {name}")?;
            }
        }
        if !self.closes.is_empty() {
            write!(f, "; closed: {}", self.closes)?;
        }
        if !self.refusals.is_empty() {
            write!(f, "; refused: {}", self.refusals)?;
        }
        Ok(())
    }
}

/// Counts by a label of the program's own. Bounded: labels past [`COUNTED_REASONS`] are counted as `other`.
#[derive(Debug)]
pub struct Reasons {
    slots: [Slot; COUNTED_REASONS],
    other: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    reason: OnceLock<&'static str>,
    count: AtomicU64,
}

impl Default for Reasons {
    fn default() -> Self {
        let slots = [const { Slot { reason: OnceLock::new(), count: AtomicU64::new(0) } }; COUNTED_REASONS];
        Self { slots, other: AtomicU64::new(0) }
    }
}

impl Reasons {
    /// Adds one.
    pub fn bump(&self, reason: &'static str) {
        self.add(reason, 1);
    }

    /// The count of one label.
    pub fn count(&self, reason: &str) -> u64 {
        self.slots
            .iter()
            .map_while(|slot| slot.reason.get().map(|found| (found, slot)))
            .find(|(found, _)| **found == reason)
            .map_or(0, |(_, slot)| slot.count.load(Relaxed))
    }

    /// True while nothing was counted.
    pub fn is_empty(&self) -> bool {
        let mut empty = true;
        self.each(|_, _| empty = false);
        empty
    }

    /// Every label counted, in the order they first came, `other` last.
    pub fn each(&self, mut visit: impl FnMut(&'static str, u64)) {
        for slot in &self.slots {
            let Some(reason) = slot.reason.get() else { break };
            visit(reason, slot.count.load(Relaxed));
        }
        let other = self.other.load(Relaxed);
        if other > 0 {
            visit("other", other);
        }
    }

    /// Adds some.
    pub fn add(&self, reason: &'static str, count: u64) {
        // Slots are taken from the front and never given back, so the first that is empty is the end.
        let slot = self.slots.iter().find(|slot| *slot.reason.get_or_init(|| reason) == reason);
        slot.map_or(&self.other, |slot| &slot.count).fetch_add(count, Relaxed);
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = Vec::new();
        self.each(|reason, count| counts.push((reason, count)));
        counts.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
        for (position, (reason, count)) in counts.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{reason} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_happened_and_no_more() {
        let counters = Counters::default();
        assert_eq!(counters.to_string(), "0 connections, 0 requests, 0 tunnels (0 open)");
        for _ in 0..3 {
            Counters::bump(&counters.tunnels);
            Counters::bump(&counters.accepted);
        }
        for _ in 0..2 {
            Counters::bump(&counters.tunnels_ended);
            counters.closes.bump("client_closed");
        }
        counters.closes.bump("drain");
        counters.refusals.bump("two_hosts");
        Counters::bump(&counters.panics);
        assert_eq!(
            counters.to_string(),
            "3 connections, 0 requests, 3 tunnels (1 open), 1 panics; closed: client_closed 2, drain 1; refused: two_hosts 1"
        );
    }

    #[test]
    fn workers_add_up() {
        let (one, other) = (Counters::default(), Counters::default());
        Counters::bump(&one.accepted);
        Counters::bump(&other.accepted);
        one.closes.bump("a");
        other.closes.bump("b");
        other.closes.bump("a");
        let sum = Counters::sum([&one, &other]);
        assert_eq!(sum.accepted.load(Relaxed), 2);
        assert_eq!((sum.closes.count("a"), sum.closes.count("b"), sum.closes.count("c")), (2, 1, 0));
    }

    #[test]
    fn more_reasons_than_slots_are_counted_as_other() {
        let reasons = Reasons::default();
        for number in 0..COUNTED_REASONS + 5 {
            reasons.bump(String::leak(number.to_string()));
        }
        let mut counted = Vec::new();
        reasons.each(|reason, count| counted.push((reason, count)));
        assert_eq!(counted.len(), COUNTED_REASONS + 1);
        assert_eq!(counted.last(), Some(&("other", 5)));
    }

    #[test]
    fn threads_that_count_the_same_reason_lose_nothing() {
        let reasons = Reasons::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| reasons.bump("x")));
            }
        });
        assert_eq!(reasons.count("x"), 4000);
    }
}
