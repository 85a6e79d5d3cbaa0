//! The attempts of one request: which backend is next, and whether another may have it.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{Client, Next, Opening, attempt::Answered, target::Target};
use crate::{
    config::{KeepIdle, Level, Settings},
    http::refusal::Refusal,
    observe::tally::PeerTally,
    pool,
    request::{Attempt, Request},
    upstream::{Choice, Group, Tried},
    websocket::handshake::Upgrade,
};

/// The attempts of one request.
pub(super) struct Round<'a> {
    pub(super) client: Client<'a>,
    pub(super) settings: &'a Settings,
    pub(super) target: &'a Target<'a>,
    pub(super) method: &'a str,
    pub(super) head: &'a [u8],
    /// What a new connection begins with.
    pub(super) preface: &'a [u8],
    pub(super) upgrade: Option<&'a Upgrade>,
    /// Where connections of other requests may wait for this one.
    pub(super) pool: Option<pool::Group>,
    /// The connection of this one may wait for others.
    pub(super) keep: Option<KeepIdle>,
    /// For `proxy_next_upstream_timeout`.
    pub(super) started: Instant,
}

/// Why an attempt came to nothing.
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    pub(super) kind: Kind,
    /// The request, or part of it, has reached the backend.
    pub(super) sent: bool,
    /// Part of the request's body was used up: it cannot be sent again.
    pub(super) body_used: bool,
    /// A connection that another request had used ended before a byte of the answer: its backend closed it as the request was on its
    /// way.
    pub(super) stale: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Error,
    Timeout,
    InvalidHeader,
    Status(u16),
    /// An answer that `error_page` replaces.
    Intercepted,
    /// This host has no port or no address for a connection: no backend is to blame, and another may be reached.
    Ports,
    /// The client's doing: no backend is to blame, and none is tried again.
    Client,
    /// The host's: the same holds.
    Host,
}

impl Round<'_> {
    pub(super) async fn run(&self, request: &mut Request) -> Result<Next, Refusal> {
        let group = self.target.group();
        let mut tried = Tried::default();
        for number in 1.. {
            let Some(choice) = group.choose(&mut tried, Instant::now()) else { break };
            let tries = self.settings.next_upstream.tries as usize;
            let last = number == group.len() || (tries > 0 && number >= tries);
            request.attempts.push(Attempt {
                address: Arc::clone(&choice.address),
                began: request.started.elapsed(),
                ..Attempt::default()
            });
            if let Some(tally) = self.tally(&choice) {
                tally.requests.fetch_add(1, Relaxed);
            }
            let failed = match self.attempt_twice(request, &choice, last).await {
                Ok(answered) => {
                    group.succeeded(choice.peer);
                    return Ok(self.answered(answered, choice));
                }
                Err(failed) => failed,
            };
            match failed.kind {
                Kind::Client | Kind::Host => return Err(failed.refusal),
                Kind::Intercepted => {
                    group.succeeded(choice.peer);
                    return Err(failed.refusal);
                }
                _ => self.blame(request, &choice, &failed),
            }
            if !self.may_go_on(request, &failed, last) {
                // A backend that breaks the protocol may have been made to by this client: they part here.
                request.head.keep_alive &= failed.kind != Kind::InvalidHeader;
                return Err(failed.refusal);
            }
            let message = format_args!("{} ({}), trying the next server", failed.refusal.detail, failed.refusal.reason);
            self.client.log(Level::Error, request, message);
        }
        // As nginx: the group stands where an address would.
        let address = Arc::from(&*request.proxy_host);
        request.attempts.push(Attempt {
            address,
            status: 502,
            response_time: Some(Duration::ZERO),
            ..Attempt::default()
        });
        Err(no_live_upstreams(group))
    }

    /// The request is over; where it was an upgrade, its place at the peer is the tunnel's from now on.
    fn answered(&self, answered: Answered, choice: Choice) -> Next {
        match answered {
            Answered::Passed(next) => next,
            Answered::Switched(mut switched) => {
                let tally = self.tally(&choice).cloned();
                let leg = self.target.group().leg(choice, tally.as_ref(), switched.port.take());
                Next::Tunnel(Box::new(Opening { switched, leg }))
            }
        }
    }

    /// `proxy_next_upstream`: may another server have this request?
    pub(super) fn may_go_on(&self, request: &Request, failed: &Failed, last: bool) -> bool {
        let next = &self.settings.next_upstream;
        let wanted = match failed.kind {
            Kind::Error | Kind::Ports => next.error,
            Kind::Timeout => next.timeout,
            Kind::InvalidHeader => next.invalid_header,
            Kind::Status(status) => next.statuses.contains(&status),
            Kind::Intercepted | Kind::Client | Kind::Host => false,
        };
        let late = !next.timeout_total.is_zero() && self.started.elapsed() >= next.timeout_total;
        wanted && !last && !late && self.may_repeat(request, failed)
    }

    /// RFC 9110 section 9.2.2: what may have been acted upon is not repeated, unless the file says so.
    fn may_repeat(&self, request: &Request, failed: &Failed) -> bool {
        let idempotent = !matches!(request.head.method.as_ref(), "POST" | "LOCK" | "PATCH");
        !failed.body_used && (!failed.sent || idempotent || self.settings.next_upstream.non_idempotent)
    }

    /// Passive health: the attempt counts against its peer. As in nginx a 403 or 404 does not: another server may have the file. What
    /// this host lacks does not either: the group would have no live server, where it is the ports that are to be seen to.
    fn blame(&self, request: &mut Request, choice: &Choice, failed: &Failed) {
        note(request, |attempt| {
            attempt.status = if let Kind::Status(status) = failed.kind { status } else { failed.refusal.status };
        });
        let group = self.target.group();
        if matches!(failed.kind, Kind::Status(403 | 404) | Kind::Ports) {
            return;
        }
        if let Some(tally) = self.tally(choice) {
            tally.fails.fetch_add(1, Relaxed);
        }
        if group.failed(choice.peer, Instant::now()) {
            let message = format_args!("upstream server {} temporarily disabled", group.name(choice.peer));
            self.client.log(Level::Warn, request, message);
        }
    }

    pub(super) fn tally(&self, choice: &Choice) -> Option<&Arc<PeerTally>> {
        let tallies = &self.client.generation.tallies;
        tallies.peer(tallies.number(self.target.upstream?, choice.peer)?)
    }

    /// One backend; once more, by a new connection, where the one that had waited turns out to be closed. That is no fault of the
    /// backend's, and no other one need be tried.
    async fn attempt_twice(&self, request: &mut Request, choice: &Choice, last: bool) -> Result<Answered, Failed> {
        let first = self.attempt(request, choice, last, false).await;
        match first {
            Err(failed) if failed.stale && self.may_repeat(request, &failed) => {
                note(request, |attempt| attempt.status = failed.refusal.status);
                let message = format_args!("{} on a kept connection, asking again by a new one", failed.refusal.detail);
                self.client.log(Level::Info, request, message);
                let began = request.started.elapsed();
                let address = Arc::clone(&choice.address);
                request.attempts.push(Attempt { address, began, ..Attempt::default() });
                self.attempt(request, choice, last, true).await
            }
            first => first,
        }
    }
}

/// nginx's words; where `max_conns` is the reason, or one of the reasons, that is said too.
fn no_live_upstreams(group: &Group) -> Refusal {
    const WORDS: &str = "no live upstreams while connecting to upstream";
    match group.full() {
        0 => Refusal::new(502, "no_live_upstreams", WORDS),
        full => {
            Refusal::private(502, "max_conns", format!("{WORDS}: {full} of {} servers have max_conns", group.len()))
        }
    }
}

pub(super) fn note(request: &mut Request, change: impl FnOnce(&mut Attempt)) {
    if let Some(attempt) = request.attempts.last_mut() {
        change(attempt);
    }
}
