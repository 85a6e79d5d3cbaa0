//! What outlives every configuration and every worker: one board a process, shared by all of them.

mod files;
mod told;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed},
        },
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use self::files::Files;
pub use super::status::State;
use super::{counters::Counters, errand::Errands, tally::Kept};

/// See the module. Nothing of it is touched by a tunnel that moves bytes.
#[derive(Debug)]
pub struct Board {
    started: Instant,
    started_ms: u64,
    state: AtomicU8,
    workers: Mutex<Workers>,
    loads: Mutex<Loads>,
    /// Counts by name.
    pub kept: Kept,
    /// What workers ask of each other.
    pub errands: Errands,
    files: Files,
    sandbox: OnceLock<String>,
}

/// Every worker.
#[derive(Debug, Default)]
struct Workers {
    present: Vec<Present>,
    /// The counts of those that have ended.
    past: Counters,
}

/// A worker that runs.
#[derive(Debug)]
struct Present {
    id: usize,
    cpu: Option<usize>,
    counters: Arc<Counters>,
    /// When its CPU time was last read to see how busy it is, and what it was, nanoseconds.
    sampled: (Instant, u64),
    busy: f64,
}

/// Every configuration loaded.
#[derive(Debug, Default)]
struct Loads {
    /// The present one last; of the others those that something is still served by.
    alive: VecDeque<Weak<Loaded>>,
    reloads: u64,
    failed: u64,
    last_error: Option<String>,
}

/// A configuration in use: kept by whatever is served by it.
#[derive(Debug)]
pub struct Loaded {
    number: u64,
    /// Tunnels that were opened under it and have not ended.
    pub tunnels: AtomicU64,
    /// Size of its text, bytes.
    bytes: u64,
    at_ms: u64,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            started_ms: unix_ms(),
            state: AtomicU8::new(State::Serving as u8),
            workers: Mutex::default(),
            loads: Mutex::default(),
            kept: Kept::default(),
            errands: Errands::default(),
            files: Files::default(),
            sandbox: OnceLock::new(),
        }
    }
}

impl Board {
    /// When the process started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What the process has given up, in words; once.
    pub fn set_sandbox(&self, in_force: String) {
        let _ = self.sandbox.set(in_force);
    }

    /// What the process has given up, in words; empty before [`Self::set_sandbox`].
    pub fn sandbox(&self) -> &str {
        self.sandbox.get().map_or("", String::as_str)
    }

    /// What the process is about now.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }

    /// As it was set last.
    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            state if state == State::Stopping as u8 => State::Stopping,
            state if state == State::Draining as u8 => State::Draining,
            _ => State::Serving,
        }
    }

    /// The counters of a worker about to start, pinned to `cpu`.
    pub fn join(&self, id: usize, cpu: Option<usize>) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        let sampled = (Instant::now(), 0);
        let present = Present { id, cpu, counters: Arc::clone(&counters), sampled, busy: 0.0 };
        self.workers().present.push(present);
        counters
    }

    /// A worker has ended: its counts stay in the sums.
    pub fn leave(&self, counters: &Arc<Counters>) {
        let mut workers = self.workers();
        workers.present.retain(|present| !Arc::ptr_eq(&present.counters, counters));
        workers.past = Counters::sum([&workers.past, counters]);
    }

    /// The workers that run.
    pub fn present(&self) -> Vec<usize> {
        self.workers().present.iter().map(|present| present.id).collect()
    }

    /// The sum of all workers, those that have ended included.
    pub fn sum(&self) -> Counters {
        let workers = self.workers();
        Counters::sum(workers.present.iter().map(|present| &*present.counters).chain([&workers.past]))
    }

    /// Tunnels, and upgrades under way, which may become some: none is missed, wherever it is on its way from one to the other, or from
    /// one worker to the next.
    pub fn tunnels_left(&self) -> u64 {
        let workers = self.workers();
        let pending = |present: &Present| present.counters.gauges.handshakes_pending.load(Acquire);
        // First: what is an upgrade no more has been counted as a tunnel by then.
        let pending: u64 = workers.present.iter().map(pending).sum();
        drop(workers);
        let sum = self.sum();
        pending + sum.tunnels.load(Relaxed).saturating_sub(sum.tunnels_ended.load(Relaxed))
    }

    /// The configuration of this number, a text of so many bytes, is in use from now on.
    pub fn load(&self, number: u64, bytes: u64) -> Arc<Loaded> {
        let mut loads = self.loads();
        loads.alive.retain(|loaded| loaded.strong_count() > 0);
        let loaded = Arc::new(Loaded { number, tunnels: AtomicU64::new(0), bytes, at_ms: unix_ms() });
        loads.alive.push_back(Arc::downgrade(&loaded));
        loaded
    }

    /// A reload took.
    pub fn reloaded(&self) {
        let mut loads = self.loads();
        loads.reloads += 1;
        loads.last_error = None;
    }

    /// A reload failed, for this reason; what was in use still is.
    pub fn reload_failed(&self, why: impl Into<String>) {
        let mut loads = self.loads();
        loads.failed += 1;
        loads.last_error = Some(why.into());
    }

    // Nothing panics with these held, and a count that is one behind does no harm.
    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loads(&self) -> MutexGuard<'_, Loads> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unix time, milliseconds; a clock before 1970 says 0.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::status::Status, *};

    fn told(board: &Board) -> Status {
        let mut status = Status::default();
        board.tell(&mut status);
        status
    }

    #[test]
    fn what_a_worker_counted_stays_when_it_has_ended() {
        let board = Board::default();
        let (one, other) = (board.join(0, Some(2)), board.join(1, None));
        for counters in [&one, &one, &other] {
            Counters::bump(&counters.requests);
            counters.closes.bump("drain");
        }
        board.leave(&one);
        let status = told(&board);
        assert_eq!((status.requests, status.closes.get("drain")), (3, Some(&3)));
        assert_eq!(status.workers.iter().map(|worker| worker.id).collect::<Vec<_>>(), [1]);
        assert_eq!(board.sum().requests.load(Relaxed), 3);
    }

    #[test]
    fn a_tunnel_is_left_from_its_upgrade_to_its_end_wherever_it_is() {
        let board = Board::default();
        let (one, other) = (board.join(0, None), board.join(1, None));
        assert_eq!(board.tunnels_left(), 0);
        one.gauges.handshakes_pending.store(1, Relaxed);
        assert_eq!((board.tunnels_left(), told(&board).handshakes.pending), (1, 1));
        Counters::bump(&one.tunnels);
        one.gauges.handshakes_pending.store(0, Relaxed);
        // On its way to the other worker it is in no table.
        Counters::bump(&one.tunnels_moved_out);
        assert_eq!((board.sum().tunnels_open(), board.tunnels_left()), (0, 1));
        board.leave(&one);
        Counters::bump(&other.tunnels_moved_in);
        assert_eq!(board.tunnels_left(), 1);
        Counters::bump(&other.tunnels_ended);
        assert_eq!(board.tunnels_left(), 0);
    }

    #[test]
    fn a_configuration_is_named_until_nothing_is_served_by_it() {
        let board = Board::default();
        let first = board.load(1, 100);
        first.tunnels.store(3, Relaxed);
        board.reload_failed("no such file");
        assert_eq!(told(&board).config.last_error.as_deref(), Some("no such file"));
        let second = board.load(2, 200);
        board.reloaded();
        let config = told(&board).config;
        assert_eq!((config.generation, config.reloads, config.reloads_failed, config.last_error), (2, 1, 1, None));
        let alive: Vec<_> = config.alive.iter().map(|one| (one.generation, one.tunnels, one.bytes)).collect();
        assert_eq!(alive, [(1, 3, 100), (2, 0, 200)]);
        drop(first);
        assert_eq!(told(&board).config.alive.len(), 1);
        drop(second);
    }

    #[test]
    fn the_state_and_the_time_are_told() {
        let board = Board::default();
        board.set_state(State::Draining);
        let status = told(&board);
        assert_eq!((status.state, status.pid), (State::Draining, std::process::id()));
        assert!(status.started_ms > 0 && status.now_ms >= status.started_ms);
        assert!(status.process.resident_bytes > 0 && status.process.virtual_bytes > status.process.resident_bytes);
    }
}
