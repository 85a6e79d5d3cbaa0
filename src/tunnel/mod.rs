//! Tunnels: what a connection becomes once its handshake is done.
//!
//! A [`Table`] a worker. An idle tunnel is one entry of it and a timer on the wheel: no task, no buffer, no pipe, nothing else. Of the
//! entry, a message touches one cache line.
//! Sockets come in as a [`Pair`] and leave as an [`Outcome`]; whatever else could carry a pair (an own ring, eBPF) would take
//! and return the same two.

mod ahead;
mod half;
mod life;
mod moving;
mod outcome;
mod parting;
mod pipes;
mod places;
mod relay;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use ahead::Ahead;
use half::{Marks, Moved, Waiting};
use life::Cold;
pub use life::{Farewell, Look, Terms};
pub use moving::Loose;
use nix::sys::epoll::EpollFlags;
pub use outcome::{Outcome, Reason};
use pipes::Pipes;
pub use pipes::Trouble;
use places::Places;
use relay::{Break, Flow, Tools};
use state::Tunnel;

use crate::{
    limits::{BYTES_PER_ROUND, CROWDED_READ_BYTES, HELD_BYTES, SCRATCH_BYTES},
    observe::counters::Counters,
    reactor::{Event, Reactor},
    scratch::Scratch,
    sys, tls,
};

/// A frame of which this much is still to come is worth a pipe: two more system calls, no copy.
/// 16 KiB frames must stay below (DESIGN: spliced they cost a fourth more than copied).
const SPLICE_FROM: usize = 64 << 10;
/// Frames shorter than this on average are copied: looking for the heads of so many costs as much.
const SHORT_FRAME: u64 = 8 << 10;
/// This many splices in a row below [`SPLICE_FROM`], and the direction goes back to copying.
const FEW_SMALL_SPLICES: u8 = 4;

/// Whatever makes a read worth while.
const INPUT: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLHUP).union(EpollFlags::EPOLLERR);

/// The two ends of a tunnel; also the direction of what that end sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Whoever connected to us.
    Client = 0,
    /// Whom we connected to.
    Upstream = 1,
}

impl Side {
    /// The one across.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// One end: its socket, watched by the worker's reactor, and its TLS session if it speaks TLS.
#[derive(Debug)]
pub struct End {
    /// The socket.
    pub fd: OwnedFd,
    /// Its session.
    pub tls: Option<Box<tls::Session>>,
}

/// Two sockets that shall be one path.
#[derive(Debug)]
pub struct Pair<R> {
    /// The client's end.
    pub client: End,
    /// The backend's end.
    pub upstream: End,
    /// What the client sent behind its handshake: goes first.
    pub from_client: Vec<u8>,
    /// What the backend sent behind its 101: goes first.
    pub from_upstream: Vec<u8>,
    /// The RSV bits frames may use; none: not a websocket, bytes pass unseen.
    pub frames: Option<u8>,
    /// How long it may live.
    pub terms: Terms,
    /// Whatever the owner wants back at the end.
    pub record: R,
}

/// A tunnel that ended.
#[derive(Debug)]
pub struct Finished<R> {
    /// The pair's record.
    pub record: R,
    /// How.
    pub outcome: Outcome,
    /// rustls' words, or the rule of RFC 6455, where the reason has a detail.
    pub detail: Option<String>,
}

/// Every tunnel of a worker.
#[derive(Debug)]
pub struct Table<R> {
    tunnels: Places<Tunnel, Cold<R>>,
    reactor: Rc<Reactor>,
    /// The worker's: what moves is counted as it does.
    counters: Arc<Counters>,
    pipes: Pipes,
    ahead: Ahead,
    /// Bytes that all tunnels hold for readers that do not take them.
    held: usize,
    /// Something went through a pipe since [`Table::has_spliced`].
    spliced: bool,
    /// Directions that may have something to do, each at most once.
    ready: VecDeque<(u32, Side)>,
    finished: Vec<Finished<R>>,
    /// Tunnels that are to be told of, since [`Table::reports`].
    reports: Vec<u32>,
}

impl<R> Table<R> {
    /// An empty table on a worker's reactor, which counts what it moves.
    pub fn new(reactor: Rc<Reactor>, counters: Arc<Counters>) -> Self {
        Self {
            tunnels: Places::default(),
            reactor,
            counters,
            pipes: Pipes::default(),
            ahead: Ahead::default(),
            held: 0,
            spliced: false,
            ready: VecDeque::new(),
            finished: Vec::new(),
            reports: Vec::new(),
        }
    }

    /// Tunnels open.
    pub fn len(&self) -> usize {
        self.tunnels.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pipes, in use or kept.
    pub fn pipes(&self) -> usize {
        self.pipes.in_use() + self.pipes.idle()
    }

    /// Pipes in use.
    pub fn pipes_in_use(&self) -> usize {
        self.pipes.in_use()
    }

    /// Bytes of our memory that hold what readers have not taken.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Closes pipes that are only kept for the next bulk transfer.
    pub fn close_idle_pipes(&mut self) {
        self.pipes.close_idle();
    }

    /// The last call of a bulk transfer that the host did not let succeed, since this was asked for.
    pub fn trouble(&mut self) -> Option<Trouble> {
        self.pipes.trouble()
    }

    /// True when [`Table::resume`] has something to do.
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// True when something went through a pipe since the last call: more of it is on its way.
    pub fn has_spliced(&mut self) -> bool {
        std::mem::take(&mut self.spliced)
    }

    /// Tunnels that ended since the last call.
    pub fn finished(&mut self) -> std::vec::Drain<'_, Finished<R>> {
        self.finished.drain(..)
    }

    /// Opens a tunnel. Both descriptors must be watched by the reactor (released [`crate::reactor::Descriptor`]s).
    ///
    /// # Errors
    /// epoll_ctl(2)'s; the pair is closed.
    pub fn carry(&mut self, pair: Pair<R>, scratch: &mut Scratch) -> io::Result<()> {
        let number = self.tunnels.vacant();
        let mut tunnel = Tunnel::new(pair.client, pair.upstream, pair.frames);
        for side in [Side::Client, Side::Upstream] {
            self.reactor.adopt(tunnel.fd(side), token(number, side), false)?;
        }
        tunnel.last_active = self.reactor.tick() as u32;
        self.tunnels.insert(tunnel, Cold::new(&pair.terms, self.reactor.now(), pair.record));
        self.arm(number);
        self.with(number, scratch, |tunnel, tools| {
            tunnel.take(Side::Client, &pair.from_client, tools)?;
            tunnel.take(Side::Upstream, &pair.from_upstream, tools)?;
            Ok(None)
        });
        // No event will tell of what was read before: those bytes, a close_notify.
        self.pump(number, Side::Client, scratch);
        self.pump(number, Side::Upstream, scratch);
        Ok(())
    }

    /// Gives up room that a crowd of tunnels has left behind.
    pub fn shrink(&mut self) {
        self.tunnels.shrink();
        self.ready.shrink_to_fit();
        self.finished.shrink_to_fit();
    }

    /// Takes note of a batch of events; [`Table::resume`] serves them.
    pub fn note(&mut self, events: &[Event]) {
        for event in events {
            let (number, side) = untoken(event.token);
            let Some(tunnel) = self.tunnels.get_mut(number) else { continue };
            let half = tunnel.half_mut(side);
            let takes_again = event.flags.contains(EpollFlags::EPOLLOUT) && half.is(Marks::FULL);
            if takes_again {
                half.clear(Marks::FULL);
            }
            if event.flags.intersects(INPUT) {
                half.set(Marks::READABLE);
                if event.flags.intersects(INPUT.difference(EpollFlags::EPOLLIN)) {
                    half.set(Marks::LEFT);
                }
                if event.flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
                    half.set(Marks::GONE);
                    half.clear(Marks::FULL);
                }
                self.queue(number, side);
            }
            if takes_again {
                self.queue(number, side.other());
            }
        }
    }

    /// Gives every direction that is ready its turn, until [`BYTES_PER_ROUND`] have been moved: then the worker's tasks get theirs.
    pub fn resume(&mut self, scratch: &mut Scratch) {
        let mut moved = 0;
        for _ in 0..self.ready.len() {
            let Some((number, side)) = self.ready.pop_front() else { return };
            moved += self.pump(number, side, scratch);
            if moved >= BYTES_PER_ROUND {
                return;
            }
        }
    }

    fn queue(&mut self, number: u32, side: Side) {
        if let Some(tunnel) = self.tunnels.get_mut(number)
            && !tunnel.half(side).is(Marks::QUEUED)
        {
            tunnel.half_mut(side).set(Marks::QUEUED);
            self.ready.push_back((number, side));
        }
    }

    /// Closes every tunnel at once.
    pub fn close_all(&mut self, reason: Reason, scratch: &mut Scratch) {
        for number in self.tunnels.numbers() {
            self.close(number, reason, None, scratch);
        }
    }

    /// Moves what there is in one direction; bytes moved.
    fn pump(&mut self, number: u32, from: Side, scratch: &mut Scratch) -> usize {
        let mut moved = 0;
        self.with(number, scratch, |tunnel, tools| {
            tunnel.half_mut(from).clear(Marks::QUEUED);
            let (flow, received) = tunnel.pump(from, tools)?;
            moved = received;
            Ok(Some((from, flow)))
        });
        moved
    }

    /// Does something with a tunnel and draws the consequences; a panic costs only this tunnel.
    fn with(
        &mut self,
        number: u32,
        scratch: &mut Scratch,
        action: impl FnOnce(&mut Tunnel, &mut Tools<'_>) -> Result<Option<(Side, Flow)>, Break>,
    ) {
        let Some(tunnel) = self.tunnels.get_mut(number) else { return };
        let mut tools = Tools {
            scratch,
            pipes: &mut self.pipes,
            ahead: &mut self.ahead,
            spliced: &mut self.spliced,
            most: if self.held > HELD_BYTES { CROWDED_READ_BYTES } else { SCRATCH_BYTES },
            tick: self.reactor.tick() as u32,
        };
        let (before, held) = (tunnel.moved(), tunnel.held());
        let result = catch_unwind(AssertUnwindSafe(|| action(tunnel, &mut tools)));
        count(&self.counters, before, tunnel.moved());
        self.held = self.held + tunnel.held() - held;
        match result {
            Ok(result) => self.settle(number, result, scratch),
            Err(_) => {
                // Whatever panicked is not asked for last words, and nobody shall take this for a clean end.
                tunnel.forget_tls();
                self.close(number, Reason::InternalError, None, scratch);
            }
        }
    }

    fn settle(&mut self, number: u32, result: Result<Option<(Side, Flow)>, Break>, scratch: &mut Scratch) {
        let Some(tunnel) = self.tunnels.get_mut(number) else { return };
        match result {
            Ok(flow) => {
                if tunnel.half(Side::Upstream).is(Marks::PARTING) {
                    self.hasten(number);
                }
                let Some(tunnel) = self.tunnels.get_mut(number) else { return };
                match flow {
                    Some((side, Flow::Again)) => self.queue(number, side),
                    Some((side, Flow::Blocked)) if tunnel.was_reset(side) => {
                        return self.settle(number, Err(Break::Gone(side)), scratch);
                    }
                    Some((side, Flow::Ended)) => {
                        let first = tunnel.ended(side);
                        // FIN without close_notify is no half-close (RFC 8446 section 6.1): that end is gone altogether.
                        let gone = tunnel.half(side).marks.intersects(Marks::TRUNCATED | Marks::GONE);
                        if gone || tunnel.half(side.other()).is(Marks::PASSED_ON) {
                            let reason = tunnel.end_reason(first);
                            return self.close(number, reason, None, scratch);
                        }
                    }
                    _ => {}
                }
                self.ask_for_output(number, scratch);
            }
            Err(Break::Deaf(side, reset)) => {
                let held = tunnel.held();
                let pipe = tunnel.give_up(side, reset);
                self.held = self.held + tunnel.held() - held;
                if let Some(pipe) = pipe {
                    self.pipes.discard(pipe);
                }
                // What it said before it left still arrives.
                self.pump(number, side, scratch);
            }
            Err(Break::Gone(side)) => {
                sys::reset_on_close(&tunnel.fd(side.other()));
                // close_notify would make a clean end of it.
                tunnel.half_mut(side).set(Marks::NOTIFIED);
                let reason = tunnel.failure(side);
                self.close(number, reason, None, scratch);
            }
            Err(Break::Shortage(detail)) => {
                // Nobody shall take it for a clean end.
                for side in [Side::Client, Side::Upstream] {
                    sys::reset_on_close(&tunnel.fd(side));
                    tunnel.half_mut(side).set(Marks::NOTIFIED);
                }
                self.close(number, Reason::HostShortage, Some(detail), scratch);
            }
            Err(Break::Violation(rule)) => {
                self.close(number, Reason::ProtocolError, Some(rule.to_owned()), scratch);
            }
            Err(Break::Tls(side, error)) => {
                tunnel.half_mut(side).set(Marks::NOTIFIED);
                let detail = format!("{} {}", if side == Side::Client { "client" } else { "upstream" }, error.detail);
                self.close(number, Reason::TlsError, Some(detail), scratch);
            }
        }
    }

    fn ask_for_output(&mut self, number: u32, scratch: &mut Scratch) {
        let Some(tunnel) = self.tunnels.get_mut(number) else { return };
        if let Err(error) = tunnel.ask_for_output(&self.reactor, number) {
            self.settle(number, Err(Break::shortage("epoll_ctl", &error)), scratch);
        }
    }

    fn close(&mut self, number: u32, reason: Reason, detail: Option<String>, scratch: &mut Scratch) {
        let Some((mut tunnel, cold)) = self.tunnels.remove(number) else { return };
        self.held -= tunnel.held();
        if let Some(timer) = cold.timer {
            self.reactor.disarm(timer);
        }
        let reason = cold.why(&tunnel, reason);
        for side in [Side::Client, Side::Upstream] {
            tunnel.say_goodbye(side, scratch);
            if let Waiting::Piped(filled) = tunnel.take_waiting(side) {
                self.pipes.discard(filled.pipe);
            }
        }
        let [from_client, from_upstream] = tunnel.moved();
        let outcome = Outcome {
            reason,
            from_client: from_client.bytes(),
            from_upstream: from_upstream.bytes(),
            frames_from_client: from_client.frames(),
            frames_from_upstream: from_upstream.frames(),
        };
        self.finished.push(Finished { record: cold.record, outcome, detail });
    }
}

/// Counts what a tunnel moved between `before` and now.
fn count(counters: &Counters, before: [Moved; 2], now: [Moved; 2]) {
    let sums = [
        (&counters.bytes_from_client, &counters.frames_from_client),
        (&counters.bytes_from_upstream, &counters.frames_from_upstream),
    ];
    for ((bytes, frames), (before, now)) in sums.into_iter().zip(before.into_iter().zip(now)) {
        if before != now {
            Counters::grow(bytes, now.bytes() - before.bytes());
            Counters::grow(frames, u64::from(now.frames() - before.frames()));
        }
    }
}

fn token(number: u32, side: Side) -> u64 {
    u64::from(number) << 1 | side as u64
}

fn untoken(token: u64) -> (u32, Side) {
    ((token >> 1) as u32, if token & 1 == 0 { Side::Client } else { Side::Upstream })
}
