//! What clients do, in good order and otherwise.

use std::{net::SocketAddr, time::Duration};

use rustls::version::{TLS12, TLS13};

use super::{
    ends::{self, End, Plan},
    script::{Random, payload},
};
use crate::util::{
    Ending, Wire, frames,
    tls::{self, Client},
};

/// Where a client may go.
pub struct Site {
    pub http: SocketAddr,
    pub https: SocketAddr,
    tls: [Client; 2],
}

/// Backends that a tunnel may end at, as the location says: one that lives, one that is killed now and then, either of both.
const PLACES: [&str; 3] = ["/stable", "/killed", "/either"];

impl Site {
    pub fn new(http: SocketAddr, https: SocketAddr) -> Self {
        Self { http, https, tls: [&TLS12, &TLS13].map(|version| Client::offering(&[version], None)) }
    }

    fn connect(&self, random: &mut Random) -> Result<Wire, String> {
        if random.percent(50) {
            return Ok(Wire::connect(self.http));
        }
        let client = &self.tls[random.below(2) as usize];
        tls::handshake(self.https, "x", client).map(|done| done.wire()).map_err(|error| format!("TLS: {error}"))
    }

    /// One thing after another; bytes that went through tunnels.
    ///
    /// # Errors
    /// What must not be.
    pub fn act(&self, random: &mut Random) -> Result<u64, String> {
        match random.below(100) {
            0..65 => self.tunnel(random),
            65..85 => self.requests(random).map(|()| 0),
            _ => self.misbehave(random).map(|()| 0),
        }
    }

    fn tunnel(&self, random: &mut Random) -> Result<u64, String> {
        let plan = Plan::random(random);
        let place = PLACES[random.below(3) as usize];
        let mut wire = self.connect(random)?;
        let target = format!("{place}?{}", plan.query());
        wire.send(frames::request(&target, "x"));
        let head = wire.try_head().ok_or_else(|| format!("no answer to {target}"))?;
        match head.status() {
            101 => {}
            502 if place == "/killed" => return Ok(0),
            status => return Err(format!("{status} for {target}")),
        }
        let (end, bytes) = ends::run(wire, plan.client()).map_err(|error| format!("{error}: {target}"))?;
        if end != End::Whole && plan.is_whole() && place == "/stable" {
            return Err(format!("{end:?}: {target}"));
        }
        Ok(bytes)
    }

    /// Some requests on one connection, some with bodies.
    fn requests(&self, random: &mut Random) -> Result<(), String> {
        let mut wire = self.connect(random)?;
        for number in 0..1 + random.below(5) {
            let plan = Plan { up: random.size(200_000), down: random.size(1 << 20), ..Plan::random(random) };
            let body = payload(plan.seed, plan.up as usize);
            let target = format!("/plain?{}", plan.query());
            let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            let sent = wire.try_send([head.as_bytes(), body].concat());
            if random.percent(10) {
                return Ok(());
            }
            let head = match wire.try_head() {
                Some(head) => head,
                // A worker that leaves closes connections that wait for another request: this one crossed that.
                None if number > 0 => return Ok(()),
                None => return Err(format!("no answer to {target} ({sent:?})")),
            };
            let body = wire.body(&head);
            if head.status() != 200 || body != payload(plan.seed ^ 1, plan.down as usize) {
                return Err(format!("{} and {} bytes for {target}", head.status(), body.len()));
            }
        }
        Ok(())
    }

    fn misbehave(&self, random: &mut Random) -> Result<(), String> {
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

    fn is_refused(&self, random: &mut Random, target: &str, status: u16) -> Result<(), String> {
        let mut wire = self.connect(random)?;
        wire.send(frames::request(target, "x"));
        let answer = wire.response();
        let ending = wire.ending().1;
        let expected = answer.status() == status && ending != Ending::Open;
        if expected { Ok(()) } else { Err(format!("{} and {ending:?} for {target}", answer.status())) }
    }
}
