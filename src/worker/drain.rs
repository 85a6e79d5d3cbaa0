//! Drains: tunnels that are asked to end, not all at once.
//!
//! Their clients come back, to somebody else or to us. So they are asked one after the other, evenly over a time, and in an order that
//! has nothing to do with the one in which they came.

use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    rc::Rc,
    time::Duration,
};

use super::{State, Worker};
use crate::{
    limits::{DRAIN_MARGIN_MS, DRAIN_PLACES_PER_TURN, DRAIN_SWEEP_MS, TICK_MS},
    reactor::{race, yield_now},
    record::Record,
    tunnel::{Farewell, Reason},
};

/// Which tunnels shall end, and how.
pub struct Drain {
    /// Which of all that a worker has.
    pub select: Box<dyn Fn(&Record) -> bool + Send + Sync>,
    /// How many of a hundred of these.
    pub percent: u8,
    /// Time over which they are asked.
    pub window: Duration,
    /// What they are told. Its patience begins when the window ends.
    pub farewell: Farewell,
}

impl Drain {
    /// Of all tunnels.
    pub fn all(window: Duration, farewell: Farewell) -> Self {
        Self { select: Box::new(|_| true), percent: 100, window, farewell }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { percent, window, farewell, .. } = self;
        formatter
            .debug_struct("Drain")
            .field("percent", percent)
            .field("window", window)
            .field("farewell", farewell)
            .finish()
    }
}

/// How a worker ends.
#[derive(Debug, Clone, Copy)]
pub struct Quit {
    /// It goes on to accept connections, and to answer plain requests, until it is told to listen nowhere: no other process does.
    pub keep_listeners: bool,
    /// Time over which tunnels are asked to end.
    pub window: Duration,
    /// When it ends at last, whoever is left.
    pub timeout: Duration,
    /// Why tunnels are closed.
    pub reason: Reason,
    /// What their clients are told (RFC 6455 section 7.4).
    pub code: u16,
}

/// Asks the tunnels of a worker to end, and returns when all have been asked.
pub async fn drain(worker: &Rc<Worker>, drain: &Drain) {
    let began = worker.reactor.now();
    let over = began + drain.window + drain.farewell.patience;
    let order = Order::of(worker.tunnels.borrow().places());
    // Rounded up: of a few tunnels, too, some go.
    let (mut next, mut share) = (0, 99);
    while next < order.places {
        let elapsed = worker.reactor.now().duration_since(began);
        let due = order.due(elapsed, drain.window);
        let end = due.min(next.saturating_add(DRAIN_PLACES_PER_TURN));
        let patience = over.saturating_duration_since(worker.reactor.now());
        let farewell = Farewell { patience, ..drain.farewell };
        for number in (next..end).map(|step| order.number(step)) {
            part(worker, number, &farewell, |record| {
                share += if (drain.select)(record) { u32::from(drain.percent) } else { 0 };
                let is_due = share >= 100;
                share -= if is_due { 100 } else { 0 };
                is_due
            });
        }
        next = end;
        if end < due {
            yield_now().await;
        } else if next < order.places {
            worker.reactor.sleep(Duration::from_millis(TICK_MS)).await;
        }
    }
}

fn part(worker: &Worker, number: u32, farewell: &Farewell, wanted: impl FnOnce(&Record) -> bool) {
    let mut tunnels = worker.tunnels.borrow_mut();
    if tunnels.look(number).is_some_and(|tunnel| wanted(tunnel.record)) {
        tunnels.part(number, farewell, &mut worker.scratch.borrow_mut());
    }
}

/// Takes a worker to its end, from this moment on.
pub fn quit(worker: &Rc<Worker>, quit: Quit) {
    worker.ends_by(quit.reason);
    worker.change(if quit.keep_listeners { State::Draining } else { State::Quitting });
    worker.spawn(end(Rc::clone(worker), quit));
}

async fn end(worker: Rc<Worker>, quit: Quit) {
    let Quit { timeout, reason, code, .. } = quit;
    // Half of the time is for who is slow: to end a frame, to answer.
    let window = quit.window.min(timeout / 2);
    let began = worker.reactor.now();
    let margin = Duration::from_millis(DRAIN_MARGIN_MS);
    let farewell = |passed| Farewell { reason, code, patience: timeout.saturating_sub(passed).saturating_sub(margin) };
    let asking = async {
        drain(&worker, &Drain::all(window, farewell(window))).await;
        // Those whose handshake was under way: in a worker that had no tunnel nobody has waited yet, and they are not asked before others.
        worker.reactor.sleep(window.saturating_sub(worker.reactor.now().duration_since(began))).await;
        loop {
            worker.reactor.sleep(Duration::from_millis(DRAIN_SWEEP_MS)).await;
            let passed = worker.reactor.now().duration_since(began);
            drain(&worker, &Drain::all(Duration::ZERO, farewell(passed))).await;
        }
    };
    race(worker.reactor.sleep(timeout), asking).await;
    worker.change(State::Stopping);
}

/// An order of a table's places that looks like none: steps of an odd width, around a power of two of them.
struct Order {
    places: u32,
    start: u32,
}

impl Order {
    /// The golden ratio of 2^32: neighbours come far from each other (Knuth, volume 3, section 6.4).
    const STEP: u32 = 0x9e37_79b1;

    fn of(places: u32) -> Self {
        let places = if places == 0 { 0 } else { places.next_power_of_two() };
        Self { places, start: RandomState::new().build_hasher().finish() as u32 }
    }

    fn number(&self, step: u32) -> u32 {
        step.wrapping_mul(Self::STEP).wrapping_add(self.start) % self.places
    }

    /// How many are due after that much of the window.
    fn due(&self, elapsed: Duration, window: Duration) -> u32 {
        if elapsed >= window {
            return self.places;
        }
        let share = elapsed.as_secs_f64() / window.as_secs_f64();
        (f64::from(self.places) * share) as u32
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream, sync::Arc};

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;
    use crate::{
        balance::Balance,
        generation::tests::generation,
        request::{
            Attempt,
            tests::{config, head, location, request, server},
        },
        tunnel::{End, Pair, Terms},
        upstream::open::tests::leg,
    };

    #[test]
    fn every_place_comes_once_and_neighbours_do_not_come_together() {
        for places in [1, 2, 512, 1000, 70_000] {
            let order = Order::of(places);
            assert!(order.places >= places);
            let mut steps = vec![None; order.places as usize];
            for step in 0..order.places {
                assert_eq!(steps[order.number(step) as usize].replace(step), None, "{places} places");
            }
            // The first hundred tunnels of a table: in each quarter of the time about a quarter of them.
            if places >= 512 {
                let quarter = |step: u32| step / (order.places / 4);
                for of in 0..4 {
                    let count = steps[..100].iter().flatten().filter(|step| quarter(**step) == of).count();
                    assert!((15..=35).contains(&count), "{count} in quarter {of} of {places}");
                }
            }
        }
    }

    #[test]
    fn places_are_due_evenly_and_all_at_the_end() {
        let order = Order::of(1024);
        let window = Duration::from_secs(10);
        assert_eq!(order.due(Duration::ZERO, window), 0);
        assert_eq!(order.due(Duration::from_secs(5), window), 512);
        assert_eq!(order.due(window, window), 1024);
        assert_eq!(order.due(Duration::ZERO, Duration::ZERO), 1024);
        assert_eq!(Order::of(0).due(Duration::ZERO, window), 0);
    }

    /// A worker with one tunnel to each of these backends; the clients' ends.
    fn tunnels(backends: &[&str]) -> (Rc<Worker>, Vec<UnixStream>) {
        let config = || {
            let server = crate::config::Server { locations: vec![location("/")], ..server("a.example") };
            config(vec![server], Vec::new())
        };
        let generation = generation(Arc::new(config()));
        let balance = Arc::new(Balance::new(1).unwrap());
        let worker = Worker::new(0, Arc::clone(&generation), Arc::default(), balance).unwrap();
        let end = |near: UnixStream| {
            near.set_nonblocking(true).unwrap();
            End { fd: worker.reactor.watch(near.into()).unwrap().release(), tls: None }
        };
        let clients = backends.iter().map(|address| {
            let ((client, near_client), (_backend, near_backend)) =
                (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
            let mut request = Box::new(request(config(), head("/", &[])));
            request.location = Some(0);
            request.attempts = vec![Attempt { address: (*address).into(), ..Attempt::default() }];
            let pair = Pair {
                client: end(near_client),
                upstream: end(near_backend),
                from_client: Vec::new(),
                from_upstream: Vec::new(),
                frames: Some(0),
                terms: Terms::default(),
                record: Record::of(request, Arc::clone(&generation), leg()),
            };
            worker.tunnels.borrow_mut().carry(pair, &mut worker.scratch.borrow_mut()).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        });
        let clients = clients.collect();
        (worker, clients)
    }

    /// Which of these clients have been told to go.
    fn told(worker: &Worker, clients: &mut [UnixStream]) -> Vec<bool> {
        worker.tunnels.borrow_mut().resume(&mut worker.scratch.borrow_mut());
        let told = |client: &mut UnixStream| client.read(&mut [0; 64]).is_ok_and(|count| count > 0);
        clients.iter_mut().map(told).collect()
    }

    #[test]
    fn a_part_of_those_that_are_meant_is_told() {
        let backends: Vec<&str> = ["10.0.0.1:80", "10.0.0.2:80"].into_iter().cycle().take(400).collect();
        let (worker, mut clients) = tunnels(&backends);
        let farewell = Farewell { reason: Reason::Drain, code: 1001, patience: Duration::from_secs(5) };
        let some = Drain {
            select: Box::new(|record| *record.upstream() == *"10.0.0.2:80"),
            percent: 30,
            window: Duration::ZERO,
            farewell,
        };
        RuntimeBuilder::<LegacyDriver>::new().build().unwrap().block_on(drain(&worker, &some));
        let told = told(&worker, &mut clients);
        let count = |backend: &str| backends.iter().zip(&told).filter(|(of, told)| **of == backend && **told).count();
        assert_eq!((count("10.0.0.1:80"), count("10.0.0.2:80")), (0, 60));
    }
}
