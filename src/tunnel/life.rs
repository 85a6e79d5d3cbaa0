//! How long a tunnel lives: its deadlines, and what happens when one comes.
//!
//! A tunnel has one timer, for whichever of its deadlines is the next. Activity touches none of them: what is due is found out when the
//! timer fires.

use std::time::{Duration, Instant};

use super::{Reason, Side, Table, state::Tunnel};
use crate::{
    limits::{CLOSE_ANSWER_SECS, FRAME_END_SECS, LOG_INTERVALS_PER_TICK},
    scratch::Scratch,
    websocket::close::GOING_AWAY,
    wheel::{Tick, Timer, ticks},
};

/// How long a tunnel may live, and what keeps it alive. Zero: without bound, never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// Idle time after which it is closed.
    pub idle: Duration,
    /// Quiet in both directions after which the client gets a ping. Only what comes back counts against the idle time.
    pub ping: Duration,
    /// Time after which it is closed, whatever goes through it.
    pub lifetime: Duration,
    /// How often it is to be told of ([`Table::reports`]).
    pub report: Duration,
}

/// How a tunnel is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Farewell {
    /// Why.
    pub reason: Reason,
    /// What the client's close frame says (RFC 6455 section 7.4).
    pub code: u16,
    /// How long a frame that is under way may take to end. Past it the tunnel is closed in the middle of that frame.
    pub patience: Duration,
}

/// A tunnel as it stands.
#[derive(Debug)]
pub struct Look<'a, R> {
    /// What its owner gave along.
    pub record: &'a R,
    /// How long nothing has come from either side.
    pub idle: Duration,
    /// Bytes from the client, without TLS.
    pub from_client: u64,
    /// Bytes from the backend.
    pub from_upstream: u64,
    /// Frames from the client.
    pub frames_from_client: u32,
    /// Frames from the backend.
    pub frames_from_upstream: u32,
}

/// What is asked for when a tunnel's deadline comes, and at its end.
#[derive(Debug)]
pub(super) struct Cold<R> {
    /// Idle time, ticks; 0: none.
    idle: u32,
    pub timer: Option<Timer>,
    /// The rule is that there is nothing but the idle time.
    life: Option<Box<Life>>,
    pub record: R,
}

/// Deadlines that only some tunnels have. None is in a worker's own ticks.
#[derive(Debug, Default)]
struct Life {
    /// Quiet before a ping, and when the last one was sent.
    ping: Option<(Duration, Instant)>,
    /// When it has lived long enough.
    ends: Option<Instant>,
    /// How often it is told of, and when it is next.
    report: Option<(Duration, Instant)>,
    parting: Option<Parting>,
}

/// A tunnel that was asked to end.
#[derive(Debug, Clone, Copy)]
struct Parting {
    reason: Reason,
    /// When it is closed, come what may.
    deadline: Instant,
    /// The deadline is already that of the answer.
    hastened: bool,
}

/// Which deadline has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Idle,
    Ping,
    Lifetime,
    Report,
    Parting,
}

impl<R> Cold<R> {
    pub fn new(terms: &Terms, now: Instant, record: R) -> Self {
        let some = |time: Duration| (!time.is_zero()).then_some(time);
        let ping = some(terms.ping).map(|ping| (ping, now));
        let ends = some(terms.lifetime).and_then(|lifetime| now.checked_add(lifetime));
        let report = some(terms.report).and_then(|every| Some((every, now.checked_add(every)?)));
        let life = Life { ping, ends, report, parting: None };
        let life = (ping.is_some() || ends.is_some() || report.is_some()).then(|| Box::new(life));
        let idle = u32::try_from(ticks(terms.idle)).unwrap_or(u32::MAX);
        Self { idle, timer: None, life, record }
    }

    /// The next deadline and in how many ticks it comes, after `quiet` ticks without activity.
    fn next(&self, quiet: u32, now: Instant) -> Option<(Tick, Due)> {
        let until = |deadline: Instant| ticks(deadline.saturating_duration_since(now));
        let life = self.life.as_deref();
        if let Some(parting) = life.and_then(|life| life.parting) {
            return Some((until(parting.deadline), Due::Parting));
        }
        let idle = (self.idle > 0).then(|| (u64::from(self.idle.saturating_sub(quiet)), Due::Idle));
        let ping = life.and_then(|life| life.ping).map(|(ping, pinged)| {
            let quiet = u64::from(quiet).min(ticks(now.saturating_duration_since(pinged)));
            (ticks(ping).saturating_sub(quiet), Due::Ping)
        });
        let ends = life.and_then(|life| life.ends).map(|ends| (until(ends), Due::Lifetime));
        let report = life.and_then(|life| life.report).map(|(_, next)| (until(next), Due::Report));
        [ends, idle, ping, report].into_iter().flatten().min_by_key(|(delay, _)| *delay)
    }

    /// Why a tunnel is really closed: where it was told to end, whatever came of that.
    pub fn why(&self, tunnel: &Tunnel, reason: Reason) -> Reason {
        match self.life.as_deref().and_then(|life| life.parting) {
            Some(parting) if tunnel.half(Side::Upstream).frames.has_ended() && reason != Reason::InternalError => {
                parting.reason
            }
            _ => reason,
        }
    }
}

impl<R> Table<R> {
    /// Numbers below this one may be those of tunnels: for [`Table::look`] and [`Table::part`] on many of them, some at a time.
    pub fn places(&self) -> u32 {
        self.tunnels.places()
    }

    /// A tunnel as it stands; none by this number.
    pub fn look(&self, number: u32) -> Option<Look<'_, R>> {
        let (tunnel, cold) = (self.tunnels.get(number)?, self.tunnels.cold(number)?);
        let [from_client, from_upstream] = tunnel.moved();
        Some(Look {
            record: &cold.record,
            idle: crate::wheel::duration(self.quiet(tunnel).into()),
            from_client: from_client.bytes(),
            from_upstream: from_upstream.bytes(),
            frames_from_client: from_client.frames(),
            frames_from_upstream: from_upstream.frames(),
        })
    }

    /// Tunnels that are to be told of since the last call ([`Terms::report`]).
    pub fn reports(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.reports)
    }

    /// What the owner of a tunnel gave along; none by this number.
    pub fn record_mut(&mut self, number: u32) -> Option<&mut R> {
        self.tunnels.cold_mut(number).map(|cold| &mut cold.record)
    }

    /// Asks a tunnel to end: with a close frame at the next boundary of what the client is sent, and when both ends have answered that or
    /// have not within [`CLOSE_ANSWER_SECS`]. One whose frames are not followed is closed at once. One that was asked before ends as it was
    /// told then, but no later than now.
    pub fn part(&mut self, number: u32, farewell: &Farewell, scratch: &mut Scratch) {
        let now = self.reactor.now();
        let (Some(tunnel), Some(cold)) = self.tunnels.both_mut(number) else { return };
        let frames = tunnel.half(Side::Upstream).frames;
        if frames.is_lost() && !frames.has_ended() {
            return self.cut(number, farewell.reason, None, scratch);
        }
        let deadline = now + farewell.patience;
        let life = cold.life.get_or_insert_default();
        match &mut life.parting {
            Some(parting) if parting.deadline <= deadline => return,
            Some(parting) => parting.deadline = deadline,
            None => {
                life.parting = Some(Parting { reason: farewell.reason, deadline, hastened: false });
                // A backend that has said its own close frame is on its way out already.
                if !frames.has_closed() {
                    tunnel.part(farewell);
                }
            }
        }
        self.hasten(number);
        self.arm(number);
        self.queue(number, Side::Upstream);
    }

    /// From the moment nothing stands before the end but the peers' answers, these have [`CLOSE_ANSWER_SECS`].
    pub(super) fn hasten(&mut self, number: u32) {
        let now = self.reactor.now();
        let (Some(tunnel), Some(cold)) = self.tunnels.both_mut(number) else { return };
        let Some(parting) = cold.life.as_mut().and_then(|life| life.parting.as_mut()) else { return };
        if !parting.hastened && tunnel.half(Side::Upstream).frames.has_closed() {
            parting.hastened = true;
            parting.deadline = parting.deadline.min(now + Duration::from_secs(CLOSE_ANSWER_SECS));
            self.arm(number);
        }
    }

    /// Arms the timer of a tunnel for its next deadline.
    pub(super) fn arm(&mut self, number: u32) {
        let Some(tunnel) = self.tunnels.get(number) else { return };
        let quiet = self.quiet(tunnel);
        let Some(cold) = self.tunnels.cold_mut(number) else { return };
        if let Some(timer) = cold.timer.take() {
            self.reactor.disarm(timer);
        }
        // One tick more: the present one has begun already.
        cold.timer = cold.next(quiet, self.reactor.now()).map(|(delay, _)| self.reactor.arm(delay + 1, number));
    }

    /// The timer of a tunnel has fired: does what is due, if anything is, and arms it again.
    pub fn expire(&mut self, number: u32, scratch: &mut Scratch) {
        let now = self.reactor.now();
        let Some(tunnel) = self.tunnels.get(number) else { return };
        let quiet = self.quiet(tunnel);
        let (Some(tunnel), Some(cold)) = self.tunnels.both_mut(number) else { return };
        cold.timer = None;
        match cold.next(quiet, now) {
            // What has come meanwhile has not had its turn yet: the worker was held up, or the process stopped (SIGSTOP).
            Some((0, Due::Idle)) if tunnel.has_something_to_do() => {}
            Some((0, Due::Idle)) => return self.close(number, Reason::IdleTimeout, None, scratch),
            Some((0, Due::Parting)) => return self.patience_ended(number, scratch),
            Some((0, Due::Lifetime)) => {
                let patience = Duration::from_secs(FRAME_END_SECS);
                let farewell = Farewell { reason: Reason::MaxLifetime, code: GOING_AWAY, patience };
                return self.part(number, &farewell, scratch);
            }
            // Whoever is one too many is told of a tick later.
            Some((0, Due::Report)) if self.reports.len() < LOG_INTERVALS_PER_TICK => {
                if let Some((every, next)) = cold.life.as_mut().and_then(|life| life.report.as_mut()) {
                    *next = now + *every;
                }
                self.reports.push(number);
            }
            Some((0, Due::Ping)) => {
                if let Some((_, pinged)) = cold.life.as_mut().and_then(|life| life.ping.as_mut()) {
                    *pinged = now;
                }
                self.with(number, scratch, |tunnel, tools| tunnel.ping(tools).map(|()| None));
            }
            _ => {}
        }
        self.arm(number);
    }

    /// A tunnel that was asked to end has not.
    fn patience_ended(&mut self, number: u32, scratch: &mut Scratch) {
        let (Some(tunnel), Some(cold)) = self.tunnels.both_mut(number) else { return };
        let Some(parting) = cold.life.as_ref().and_then(|life| life.parting) else { return };
        let told = tunnel.half(Side::Upstream).frames.has_closed();
        let detail = if told { "a close frame was not answered" } else { "a frame did not come to its end" };
        self.cut(number, parting.reason, Some(detail.to_owned()), scratch);
    }

    /// Closes a tunnel from our side, with as good an end as can be had without waiting.
    fn cut(&mut self, number: u32, reason: Reason, detail: Option<String>, scratch: &mut Scratch) {
        self.with(number, scratch, |tunnel, tools| {
            tunnel.wind_up(reason, tools);
            Ok(None)
        });
        self.close(number, reason, detail, scratch);
    }

    /// Ticks without activity.
    pub(super) fn quiet(&self, tunnel: &Tunnel) -> u32 {
        (self.reactor.tick() as u32).wrapping_sub(tunnel.last_active)
    }
}
