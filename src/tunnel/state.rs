//! What is known of a tunnel between two events.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::{
    End, Reason, Side,
    half::{Extra, Half, Marks, Moved, Waiting},
    token,
};
use crate::{reactor::Reactor, scratch::Scratch, stream::is_loss, sys, sys::Pipe, tls};

/// What a message touches of a tunnel: one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Tunnel {
    /// Watched by the worker's reactor.
    pub fds: [OwnedFd; 2],
    pub halves: [Half; 2],
    /// TLS, and bytes that wait: a plain tunnel whose ends keep up has neither.
    pub extra: Option<Box<Extra>>,
    /// Tick of the last byte in either direction.
    pub last_active: u32,
}

const _: () = assert!(size_of::<Tunnel>() == 64);

impl Tunnel {
    pub fn new(client: End, upstream: End, frames: Option<u8>) -> Self {
        let has_closed = |end: &End| end.tls.as_ref().is_some_and(|tls| tls.peer_has_closed());
        let ended = [has_closed(&client), has_closed(&upstream)];
        let mut tunnel = Self {
            fds: [client.fd, upstream.fd],
            halves: [0, 1].map(|_| Half::new(frames.unwrap_or(0))),
            extra: Extra::of([client.tls, upstream.tls]),
            last_active: 0,
        };
        for (half, ended) in tunnel.halves.iter_mut().zip(ended) {
            half.marks.set(Marks::ENDED, ended);
            if frames.is_none() {
                half.frames.lost();
            }
        }
        tunnel
    }

    pub fn half(&self, side: Side) -> &Half {
        &self.halves[side as usize]
    }

    pub fn half_mut(&mut self, side: Side) -> &mut Half {
        &mut self.halves[side as usize]
    }

    pub fn fd(&self, side: Side) -> BorrowedFd<'_> {
        self.fds[side as usize].as_fd()
    }

    /// What went each way so far.
    pub fn moved(&self) -> [Moved; 2] {
        [self.halves[0].moved, self.halves[1].moved]
    }

    pub fn tls(&mut self, side: Side) -> Option<&mut tls::Session> {
        self.extra.as_mut()?.tls[side as usize].as_deref_mut()
    }

    pub fn forget_tls(&mut self) {
        if let Some(extra) = &mut self.extra {
            extra.tls = [None, None];
        }
    }

    pub fn is_plain(&self) -> bool {
        self.extra.as_ref().is_none_or(|extra| extra.is_plain())
    }

    /// What `from` has sent and the other side would not take yet.
    pub fn waiting(&mut self, from: Side) -> Option<&mut Waiting> {
        self.extra.as_mut().map(|extra| &mut extra.waiting[from as usize])
    }

    pub fn is_waiting(&self, from: Side) -> bool {
        self.extra.as_ref().is_some_and(|extra| !extra.waiting[from as usize].is_nothing())
    }

    /// Bytes of our memory that hold what its ends do not take.
    pub fn held(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.waiting.iter().map(Waiting::held).sum())
    }

    pub fn wait(&mut self, from: Side, waiting: Waiting) {
        self.extra.get_or_insert_default().waiting[from as usize] = waiting;
    }

    pub fn take_waiting(&mut self, from: Side) -> Waiting {
        let waiting = self.waiting(from).map(std::mem::take).unwrap_or_default();
        self.extra.take_if(|extra| extra.is_idle());
        waiting
    }

    /// A socket has brought something, or takes something again, that no turn has been taken for yet. Asks the sockets: the events of
    /// that may be among those that have not been fetched.
    pub fn has_something_to_do(&self) -> bool {
        let wanted = [Side::Client, Side::Upstream].map(|side| {
            let reads = !self.half(side).is(Marks::ENDED) && !self.is_waiting(side);
            let writes = self.is_waiting(side.other());
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, reads);
            wanted.set(PollFlags::POLLOUT, writes);
            wanted
        });
        let [client, upstream] =
            [Side::Client, Side::Upstream].map(|side| PollFd::new(self.fd(side), wanted[side as usize]));
        let mut asked = [client, upstream];
        let found = poll(&mut asked, PollTimeout::ZERO);
        // POLLHUP and POLLERR come unasked, and are no reason to stay.
        let is_wanted =
            |(asked, wanted): (&PollFd<'_>, PollFlags)| asked.revents().is_some_and(|found| found.intersects(wanted));
        found.is_ok() && asked.iter().zip(wanted).any(is_wanted)
    }

    /// Takes note that a side has ended; which was the first.
    pub fn ended(&mut self, side: Side) -> Side {
        match self.half(side.other()).is(Marks::FIRST) {
            true => side.other(),
            false => {
                self.half_mut(side).set(Marks::FIRST);
                side
            }
        }
    }

    pub fn end_reason(&self, side: Side) -> Reason {
        let half = self.half(side);
        match (side, half.is(Marks::RESET), half.is(Marks::TRUNCATED)) {
            (_, true, _) => self.failure(side),
            (Side::Client, false, false) => Reason::ClientClosed,
            (Side::Client, false, true) => Reason::ClientTruncated,
            (Side::Upstream, false, false) => Reason::UpstreamClosed,
            (Side::Upstream, false, true) => Reason::UpstreamTruncated,
        }
    }

    /// Why a side that failed did.
    pub fn failure(&self, side: Side) -> Reason {
        match (side, self.half(side).is(Marks::LOST)) {
            (Side::Client, false) => Reason::ClientReset,
            (Side::Client, true) => Reason::ClientLost,
            (Side::Upstream, false) => Reason::UpstreamReset,
            (Side::Upstream, true) => Reason::UpstreamLost,
        }
    }

    /// RST has come while nothing of the side can be read, because the other takes nothing: no `recv` would tell.
    pub fn was_reset(&mut self, side: Side) -> bool {
        let half = self.half(side);
        if !half.is(Marks::GONE) || half.is(Marks::ENDED) {
            return false;
        }
        // EPIPE: RST behind a FIN (tcp_reset, in CLOSE_WAIT). What it said is complete, and waits with us.
        let reset = half.is(Marks::RESET);
        let Ok(Some(error)) = SockRef::from(&self.fds[side as usize]).take_error() else { return reset };
        self.note_failure(side, &error);
        reset || error.kind() != io::ErrorKind::BrokenPipe
    }

    /// Takes note of whether a side failed because nothing came back from it.
    pub fn note_failure(&mut self, side: Side, error: &io::Error) {
        if is_loss(error) {
            self.half_mut(side).set(Marks::LOST);
        }
    }

    /// A side takes nothing more: ends the direction towards it. Returns the pipe that was filled for it.
    pub fn give_up(&mut self, side: Side, reset: bool) -> Option<Pipe> {
        self.ended(side);
        let half = self.half_mut(side);
        half.set(Marks::READABLE | Marks::LEFT);
        if reset {
            half.set(Marks::RESET);
        }
        self.half_mut(side.other()).set(Marks::ENDED | Marks::NOTIFIED | Marks::PASSED_ON);
        match self.take_waiting(side.other()) {
            Waiting::Piped(filled) => Some(filled.pipe),
            _ => None,
        }
    }

    pub fn ask_for_output(&mut self, reactor: &Reactor, number: u32) -> io::Result<()> {
        for side in [Side::Client, Side::Upstream] {
            let half = self.half_mut(side);
            if half.is(Marks::WANTS_OUTPUT) && !half.is(Marks::HAS_OUTPUT) {
                half.set(Marks::HAS_OUTPUT);
                reactor.adopt(self.fd(side), token(number, side), true)?;
            }
        }
        Ok(())
    }

    /// close_notify to a side that speaks TLS and was not told yet; not where a record was sent in part.
    pub fn say_goodbye(&mut self, to: Side, scratch: &mut Scratch) {
        if self.half(to.other()).is(Marks::NOTIFIED) || self.is_waiting(to.other()) {
            return;
        }
        if let Some(tls) = self.tls(to) {
            scratch.cipher.clear();
            tls.close(&mut scratch.cipher);
            // The connection is closed next, whether the alert arrives or not.
            let _ = sys::send(self.fd(to), &scratch.cipher);
        }
    }
}
