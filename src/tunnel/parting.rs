//! Parting: the closing handshake of RFC 6455 (section 7.1.2), begun by us.
//!
//! The client is told at the next boundary of the frames it is sent. What it sends goes on to the backend as before, its answer
//! included: so nothing that it sent is lost, the backend hears of a client that closes, and closes the connection, as servers do. What
//! the backend sends behind our word is dropped, since nothing may follow a close frame.

use super::{
    Farewell, Reason, Side,
    half::{Half, Marks},
    relay::{Break, Tools, sender},
    state::Tunnel,
};
use crate::{
    scratch::Scratch,
    sys,
    websocket::{
        close::{GOING_AWAY, PING, close_frame},
        frames::Sender,
    },
};

impl Half {
    /// As far as the boundary at which we part bytes still pass; how many of these do.
    pub(super) fn account_to_boundary(&mut self, bytes: &[u8], sender: Sender) -> usize {
        if self.frames.has_ended() {
            return 0;
        }
        let (passing, begun) = self.frames.advance_to_boundary(bytes, sender, self.rsv()).unwrap_or((bytes.len(), 0));
        self.moved.add(passing as u64, begun);
        passing
    }

    /// A frame of ours may be put behind what this side has sent so far.
    fn may_be_joined(&self) -> bool {
        let frames = &self.frames;
        frames.at_boundary() && !frames.has_closed() && !self.marks.intersects(Marks::NOTIFIED | Marks::PASSED_ON)
    }
}

impl Tunnel {
    /// From now on a boundary of what the client is sent is waited for.
    pub(super) fn part(&mut self, farewell: &Farewell) {
        let words = close_frame(Sender::Server, farewell.code, farewell.reason.label());
        self.extra.get_or_insert_default().last_words = Some(words.into());
        let half = self.half_mut(Side::Upstream);
        half.set(Marks::PARTING);
        // A pipe would carry what is read past the boundary.
        half.clear(Marks::SPLICING);
    }

    /// Tells the client, if this is the place; true when it was told.
    pub(super) fn say_last_words(&mut self, tools: &mut Tools<'_>) -> Result<bool, Break> {
        if !self.half(Side::Upstream).may_be_joined() {
            return Ok(false);
        }
        let Some(words) = self.extra.as_mut().and_then(|extra| extra.last_words.take()) else { return Ok(false) };
        self.half_mut(Side::Upstream).frames.end();
        self.deliver(Side::Upstream, &words, false, &mut tools.scratch.cipher)?;
        Ok(true)
    }

    /// Sends the client a ping, if this is the place for one: one that takes nothing needs none.
    pub(super) fn ping(&mut self, tools: &mut Tools<'_>) -> Result<(), Break> {
        let half = self.half(Side::Upstream);
        if !half.may_be_joined() || half.is(Marks::PARTING) || self.is_waiting(Side::Upstream) {
            return Ok(());
        }
        self.deliver(Side::Upstream, &PING, false, &mut tools.scratch.cipher)
    }

    /// Ends both directions as well as it can be done without waiting: what waits is sent as far as it is taken, a side that has not heard
    /// of a close and is between two frames gets one, and FIN goes before the close(2), which would make a RST of what lies unread.
    pub(super) fn wind_up(&mut self, reason: Reason, tools: &mut Tools<'_>) {
        for from in [Side::Client, Side::Upstream] {
            // Whoever is gone need not be told.
            let sent_on = self.flush(from, tools).unwrap_or(false);
            if sent_on && self.half(from).may_be_joined() {
                let words = close_frame(sender(from), GOING_AWAY, reason.label());
                let _ = self.deliver(from, &words, false, &mut tools.scratch.cipher);
            }
        }
        for side in [Side::Client, Side::Upstream] {
            self.say_goodbye(side, tools.scratch);
            self.half_mut(side.other()).set(Marks::NOTIFIED);
            let _ = sys::shutdown_write(self.fd(side));
            let Scratch { plain, .. } = tools.scratch;
            let _ = sys::recv(self.fd(side), plain);
        }
    }
}
