//! Even cores: how many connections each worker has, and the way of a new one to the worker with the fewest.
//!
//! SO_REUSEPORT deals connections out by hash, which is uneven by its nature, and knows nothing of those that have gone. Where
//! connections live for hours that stays: so a worker with clearly more than its share hands on what it accepts.

use std::{
    io, mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{
    generation::Generation,
    limits::{HANDED_WAITING, LOADS_COMPARED},
    request::Address,
};

/// A worker has clearly more than its share from one in this many above the mean,
const SHARE: usize = 64;
/// and this many more: a handful of connections is not worth waking another core for.
const SLACK: usize = 16;

/// A connection nobody serves yet.
#[derive(Debug)]
pub struct Accepted {
    /// Its socket.
    pub fd: OwnedFd,
    /// The client's address.
    pub peer: Address,
    /// What it is served by: of the worker that accepted it.
    pub generation: Arc<Generation>,
    /// Index of the listener it came by, in that generation.
    pub listener: usize,
}

/// What the workers know of each other.
#[derive(Debug)]
pub struct Balance {
    /// Shared by all that know the worker, whoever else they know.
    seats: Box<[Arc<Seat>]>,
}

/// One worker. On cache lines of its own (processors fetch them in pairs): the others read `load` at each accept.
#[derive(Debug)]
#[repr(align(128))]
struct Seat {
    /// Sessions and tunnels, and connections on their way.
    load: AtomicUsize,
    /// Connections on their way; None when it takes no more.
    handed: Mutex<Option<Vec<Accepted>>>,
    /// Wakes it.
    bell: EventFd,
}

/// What wakes one worker. Whoever has it holds nothing of the others, which may have gone meanwhile.
#[derive(Debug)]
pub struct Bell(Arc<Seat>);

/// A worker beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// Has it clearly more connections than the mean?
    pub has_too_many: bool,
    /// The worker with the fewest,
    pub least: usize,
    /// and how many these are.
    pub fewest: usize,
}

impl Balance {
    /// For so many workers, all without connections.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub fn new(workers: usize) -> io::Result<Self> {
        Self { seats: Box::default() }.of(workers)
    }

    /// The same workers, so many of them: the last are left out, or new ones are there too, without connections. Who knows them by
    /// the one and who by the other still hand connections to each other.
    ///
    /// # Errors
    /// eventfd(2)'s.
    pub fn of(&self, workers: usize) -> io::Result<Self> {
        let known = self.seats.iter().take(workers).map(|seat| Ok(Arc::clone(seat)));
        let new = (self.seats.len()..workers).map(|_| Seat::new().map(Arc::new));
        Ok(Self { seats: known.chain(new).collect::<io::Result<_>>()? })
    }

    /// How many there are.
    pub fn workers(&self) -> usize {
        self.seats.len()
    }

    /// Connections of a worker, those on their way to it included.
    pub fn load(&self, worker: usize) -> usize {
        self.seats[worker].load.load(Relaxed)
    }

    /// Tells that a worker had `before` connections and has `now`; what is on its way to it stands beside both.
    pub fn publish(&self, worker: usize, before: usize, now: usize) {
        if now != before {
            self.seats[worker].load.fetch_add(now.wrapping_sub(before), Relaxed);
        }
    }

    /// Compares a worker with the others, of many with its neighbours; None when there are no others.
    pub fn compare(&self, worker: usize) -> Option<Comparison> {
        let count = self.seats.len().min(LOADS_COMPARED);
        if count < 2 {
            return None;
        }
        let own = self.load(worker);
        let (mut sum, mut fewest, mut least) = (own, own, worker);
        for other in (1..count).map(|distance| (worker + distance) % self.seats.len()) {
            let load = self.load(other);
            sum += load;
            if load < fewest {
                (fewest, least) = (load, other);
            }
        }
        let mean = sum / count;
        Some(Comparison { has_too_many: own > mean + mean / SHARE + SLACK, least, fewest })
    }

    /// Hands a connection to a worker, which counts as its own from now on.
    ///
    /// # Errors
    /// The connection, when the worker takes no more: it ends, or has [`HANDED_WAITING`] to look at.
    pub fn hand(&self, to: usize, connection: Accepted) -> Result<(), Accepted> {
        let seat = &self.seats[to];
        let mut handed = seat.handed();
        let Some(waiting) = handed.as_mut().filter(|waiting| waiting.len() < HANDED_WAITING) else {
            return Err(connection);
        };
        let is_first = waiting.is_empty();
        waiting.push(connection);
        seat.load.fetch_add(1, Relaxed);
        drop(handed);
        // Those behind the first find the bell rung.
        if is_first {
            self.ring(to);
        }
        Ok(())
    }

    /// What was handed to a worker since the last call.
    pub fn take(&self, worker: usize) -> Vec<Accepted> {
        self.seats[worker].handed().as_mut().map(mem::take).unwrap_or_default()
    }

    /// As [`Balance::take`], for the last time: whoever hands it more keeps it.
    pub fn leave(&self, worker: usize) -> Vec<Accepted> {
        self.seats[worker].handed().take().unwrap_or_default()
    }

    /// Wakes a worker.
    pub fn ring(&self, worker: usize) {
        self.seats[worker].ring();
    }

    /// A worker's bell, for as long as somebody may want to ring it, whoever the others are.
    pub fn own_bell(&self, worker: usize) -> Bell {
        Bell(Arc::clone(&self.seats[worker]))
    }

    /// What becomes readable when a worker is to wake.
    pub fn bell(&self, worker: usize) -> BorrowedFd<'_> {
        self.seats[worker].bell.as_fd()
    }
}

impl Bell {
    /// Wakes the worker.
    pub fn ring(&self) {
        self.0.ring();
    }
}

impl Seat {
    fn ring(&self) {
        // EAGAIN: the counter is full, so the bell rings already.
        let _ = self.bell.write(1);
    }

    fn new() -> io::Result<Self> {
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { load: AtomicUsize::new(0), handed: Mutex::new(Some(Vec::new())), bell })
    }

    fn handed(&self) -> MutexGuard<'_, Option<Vec<Accepted>>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;
    use crate::{generation::tests::generation, request::tests::config};

    fn with_loads(loads: &[usize]) -> Balance {
        let balance = Balance::new(loads.len()).unwrap();
        loads.iter().enumerate().for_each(|(worker, load)| balance.publish(worker, 0, *load));
        balance
    }

    /// A connection, and the client's end of it.
    fn connection() -> (Accepted, UnixStream) {
        let (ours, client) = UnixStream::pair().unwrap();
        let generation = generation(Arc::new(config(Vec::new(), Vec::new())));
        (Accepted { fd: ours.into(), peer: Address::Unix("".into()), generation, listener: 3 }, client)
    }

    fn rings(balance: &Balance, worker: usize) -> u64 {
        balance.seats[worker].bell.read().unwrap_or(0)
    }

    #[test]
    fn a_single_worker_compares_itself_with_nobody() {
        assert_eq!(with_loads(&[1_000_000]).compare(0), None);
    }

    #[test]
    fn only_clearly_more_than_the_mean_is_too_many() {
        let too_many = |loads: &[usize]| with_loads(loads).compare(0).unwrap().has_too_many;
        assert!(!too_many(&[0, 0, 0, 0]));
        assert!(!too_many(&[SLACK, 0, 0, 0]));
        assert!(too_many(&[30, 0, 0, 0]));
        // Ten thousand tunnels stay within 5 % of the mean, from 2 workers to 8.
        for workers in 2..=8 {
            let mean = 10_000 / workers;
            let mut loads = vec![mean; workers];
            (loads[0], loads[1]) = (mean + mean / 20, mean - mean / 20);
            assert!(too_many(&loads), "{loads:?}");
            (loads[0], loads[1]) = (mean + SLACK, mean - SLACK);
            assert!(!too_many(&loads), "{loads:?}");
        }
    }

    #[test]
    fn the_one_with_the_fewest_is_found() {
        let balance = with_loads(&[500, 400, 7, 400]);
        assert_eq!(balance.compare(0), Some(Comparison { has_too_many: true, least: 2, fewest: 7 }));
        assert_eq!(balance.compare(2), Some(Comparison { has_too_many: false, least: 2, fewest: 7 }));
    }

    #[test]
    fn of_many_workers_the_neighbours_are_compared() {
        let mut loads = vec![100; 4 * LOADS_COMPARED];
        loads[0] = 1;
        loads[LOADS_COMPARED] = 0;
        assert_eq!(with_loads(&loads).compare(loads.len() - 1).unwrap().least, 0, "neighbours go round");
        assert_eq!(with_loads(&loads).compare(1).unwrap().least, LOADS_COMPARED);
        assert_eq!(with_loads(&loads).compare(LOADS_COMPARED + 1).unwrap().fewest, 100);
    }

    #[test]
    fn workers_come_and_go_and_the_others_stay_who_they_are() {
        let four = with_loads(&[1, 2, 3, 4]);
        let two = four.of(2).unwrap();
        assert_eq!(two.compare(1), Some(Comparison { has_too_many: false, least: 0, fewest: 1 }));
        two.publish(0, 1, 9);
        assert_eq!(four.load(0), 9);
        let three = two.of(3).unwrap();
        assert_eq!((three.load(1), three.load(2), four.load(2)), (2, 0, 3), "the third is another");
        // Who has not heard of it yet hands on what the one that leaves takes no more.
        four.leave(3);
        let (connection, _client) = connection();
        assert!(four.hand(3, connection).is_err());
    }

    #[test]
    fn what_is_handed_counts_at_once_and_rings_once() {
        let balance = with_loads(&[100, 0]);
        let (first, _client) = connection();
        let (second, _client) = connection();
        balance.hand(1, first).unwrap();
        balance.hand(1, second).unwrap();
        assert_eq!((balance.load(1), rings(&balance, 1)), (2, 1));
        let taken = balance.take(1);
        assert_eq!(taken.iter().map(|connection| connection.listener).collect::<Vec<_>>(), [3, 3]);
        // The receiver now has what was on its way, and loses it again.
        balance.publish(1, 2, 0);
        assert_eq!((balance.load(0), balance.load(1)), (100, 0));
        assert!(balance.take(1).is_empty());
        let (third, _client) = connection();
        balance.hand(1, third).unwrap();
        assert_eq!(rings(&balance, 1), 1);
    }

    #[test]
    fn a_worker_that_does_not_look_is_handed_so_many_and_no_more() {
        let balance = with_loads(&[0, 0]);
        let (_clients, refused): (Vec<_>, Vec<_>) =
            (0..HANDED_WAITING + 5).map(|_| connection()).map(|(ours, client)| (client, balance.hand(1, ours))).unzip();
        assert_eq!(refused.iter().filter(|result| result.is_err()).count(), 5);
        assert_eq!(balance.load(1), HANDED_WAITING);
    }

    #[test]
    fn nothing_is_lost_at_the_end_of_a_worker() {
        let balance = with_loads(&[0, 0]);
        let (early, mut client) = connection();
        balance.hand(1, early).unwrap();
        assert_eq!(balance.leave(1).len(), 1);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "dropped, it is closed");
        let (late, _client) = connection();
        let kept = balance.hand(1, late).unwrap_err();
        assert_eq!((kept.listener, balance.load(1)), (3, 1));
        assert!(balance.leave(1).is_empty() && balance.take(1).is_empty());
    }
}
