//! What clients do, in good order and otherwise.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use rustls::version::{TLS12, TLS13};

use super::{
    ends::{self, End, Plan},
    script::{Random, payload},
};
use crate::util::{
    Ending, Wire, frames,
    tls::{self, Client},
};

/// A time in which new clients may be turned away: it begins and ends with a step, and a number that is odd is within one.
#[derive(Debug, Default)]
pub struct Shortage(AtomicU64);

impl Shortage {
    pub fn step(&self) {
        self.0.fetch_add(1, SeqCst);
    }

    fn now(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn was_there_since(&self, then: u64) -> bool {
        then % 2 == 1 || self.now() != then
    }
}

/// Where a client may go.
pub struct Site<'a> {
    pub http: SocketAddr,
    pub https: SocketAddr,
    tls: [Client; 2],
    shortage: &'a Shortage,
}

/// Backends that a tunnel may end at, as the location says: some that live, by TLS too; some of which one is drained now and then; one
/// that is killed now and then; either of two.
const PLACES: [&str; 7] = ["/stable", "/sealed", "/sealed12", "/leaving", "/killed", "/killed_sealed", "/either"];

/// A location whose backend may be killed.
pub fn is_mortal(target: &str) -> bool {
    ["/killed", "/either"].iter().any(|place| target.starts_with(place))
}

/// What an act came to.
#[derive(Debug, Default)]
pub struct Done {
    /// Bytes that went through a tunnel.
    pub bytes: u64,
    /// The target of a tunnel that ended early, though neither end was to break off and its backend lives.
    pub cut_short: Option<String>,
}

/// Why an act failed.
pub enum Failure {
    /// What must not be.
    Wrong(String),
    /// Somebody new was turned away: for that there may be reasons.
    TurnedAway(String),
}

use Failure::{TurnedAway, Wrong};

impl<'a> Site<'a> {
    pub fn new(http: SocketAddr, https: SocketAddr, shortage: &'a Shortage) -> Self {
        Self { http, https, tls: [&TLS12, &TLS13].map(|version| Client::offering(&[version], None)), shortage }
    }

    fn connect(&self, random: &mut Random) -> Result<Wire, Failure> {
        if random.percent(50) {
            return Ok(Wire::connect(self.http));
        }
        let client = &self.tls[random.below(2) as usize];
        let done = tls::handshake(self.https, "x", client).map_err(|error| TurnedAway(format!("TLS: {error}")))?;
        Ok(done.wire())
    }

    /// One thing after another.
    ///
    /// # Errors
    /// What must not be.
    pub fn act(&self, random: &mut Random) -> Result<Done, String> {
        let began = self.shortage.now();
        let done = match random.below(100) {
            0..65 => self.tunnel(random),
            65..85 => self.requests(random).map(|()| Done::default()),
            _ => self.misbehave(random).map(|()| Done::default()),
        };
        match done {
            Err(TurnedAway(_)) if self.shortage.was_there_since(began) => Ok(Done::default()),
            Err(Wrong(error) | TurnedAway(error)) => Err(error),
            Ok(done) => Ok(done),
        }
    }

    fn tunnel(&self, random: &mut Random) -> Result<Done, Failure> {
        let plan = Plan::random(random);
        let place = PLACES[random.below(PLACES.len() as u64) as usize];
        let mut wire = self.connect(random)?;
        let target = format!("{place}?{}", plan.query());
        let _ = wire.try_send(frames::request(&target, "x"));
        let head = wire.try_head().ok_or_else(|| TurnedAway(format!("no answer to {target}")))?;
        match head.status() {
            101 => {}
            502 if place.starts_with("/killed") => return Ok(Done::default()),
            503 => return Err(TurnedAway(format!("503 for {target}"))),
            status => return Err(Wrong(format!("{status} for {target}"))),
        }
        let (end, bytes) = ends::run(wire, plan.client()).map_err(|error| Wrong(format!("{error}: {target}")))?;
        let is_early = end != End::Whole && plan.is_whole() && !is_mortal(place);
        Ok(Done { bytes, cut_short: is_early.then_some(target) })
    }

    /// Some requests on one connection, some with bodies.
    fn requests(&self, random: &mut Random) -> Result<(), Failure> {
        let mut wire = self.connect(random)?;
        for number in 0..1 + random.below(5) {
            let plan = Plan { up: random.size(200_000), down: random.size(1 << 20), ..Plan::random(random) };
            let body = payload(plan.seed, plan.up as usize);
            let place = if random.percent(50) { "/plain" } else { "/sealed" };
            let target = format!("{place}?{}", plan.query());
            let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            let sent = wire.try_send([head.as_bytes(), body].concat());
            if random.percent(10) {
                return Ok(());
            }
            let head = match wire.try_head() {
                Some(head) => head,
                // A worker that leaves closes connections that wait for another request: this one crossed that.
                None if number > 0 => return Ok(()),
                None => return Err(TurnedAway(format!("no answer to {target} ({sent:?})"))),
            };
            if head.status() == 503 {
                return Err(TurnedAway(format!("503 for {target}")));
            }
            let body = wire.body(&head);
            if head.status() != 200 || body != payload(plan.seed ^ 1, plan.down as usize) {
                return Err(Wrong(format!("{} and {} bytes for {target}", head.status(), body.len())));
            }
        }
        Ok(())
    }

    fn misbehave(&self, random: &mut Random) -> Result<(), Failure> {
        let mut wire = match random.below(2) {
            // No TLS, whatever is expected.
            0 => Wire::connect(if random.percent(50) { self.http } else { self.https }),
            _ => self.connect(random)?,
        };
        let plan = Plan { client_cut: Some(0), ..Plan::random(random) };
        let request = frames::request(&format!("/stable?{}", plan.query()), "x").into_bytes();
        // Whatever it says, it may have been answered before all of it was said.
        match random.below(8) {
            0 => {}
            1 => drop(wire.try_send(payload(plan.seed, random.size(100_000) as usize))),
            2 => drop(wire.try_send(&request[..random.below(request.len() as u64) as usize])),
            3 => drop(wire.try_send(&request)),
            4 => drop(wire.try_send([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])),
            5 => return self.is_refused(random, "/dead?0", 502),
            6 => return self.is_refused(random, "/denied", 403),
            _ => {
                let garbage = [request, payload(plan.seed, 100).to_vec()].concat();
                let _ = wire.try_send(garbage);
                wire.patience(Duration::from_millis(1 + random.below(200))).ending();
            }
        }
        if random.percent(50) {
            wire.reset();
        }
        Ok(())
    }

    fn is_refused(&self, random: &mut Random, target: &str, status: u16) -> Result<(), Failure> {
        let mut wire = self.connect(random)?;
        let _ = wire.try_send(frames::request(target, "x"));
        let head = wire.try_head().ok_or_else(|| TurnedAway(format!("no answer to {target}")))?;
        if head.status() == 503 {
            return Err(TurnedAway(format!("503 for {target}")));
        }
        wire.body(&head);
        let ending = wire.ending().1;
        let expected = head.status() == status && ending != Ending::Open;
        if expected { Ok(()) } else { Err(Wrong(format!("{} and {ending:?} for {target}", head.status()))) }
    }
}
