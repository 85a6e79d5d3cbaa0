//! How bytes move through a tunnel: one symmetric set of functions for both directions.
//!
//! Two system calls a hop in the common case: one `recv` into the worker's scratch, one `send` out of it.
//! - A `recv` that did not fill the buffer has emptied the socket: the one that would say EAGAIN is left out, and the
//!   next edge tells when there is more (epoll(7), edge-triggered stream sockets).
//! - EPOLLOUT is asked for when a `send` first came up short, and then kept: a slow reader will be slow again.
//! - What comes faster than it is copied, in long frames, goes through a pipe, without being copied.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    FEW_SMALL_SPLICES, SPLICE_FROM, Side,
    ahead::{Ahead, FRAME_HEAD_BYTES},
    half::{Filled, Marks, Rest, Waiting},
    pipes::Pipes,
    state::Tunnel,
};
use crate::{
    limits::BYTES_PER_TURN,
    observe::os_error,
    scratch::Scratch,
    sys,
    tls::{Outgoing, TlsError},
    websocket::frames::Sender,
};

/// What moving bytes needs of the worker.
pub(super) struct Tools<'a> {
    pub scratch: &'a mut Scratch,
    pub pipes: &'a mut Pipes,
    pub ahead: &'a mut Ahead,
    /// Whether anything went through a pipe.
    pub spliced: &'a mut bool,
    /// What a read may take, bytes.
    pub most: usize,
    /// The present, for the idle time.
    pub tick: u32,
}

/// Where one direction stands after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// The sender has nothing more now.
    Idle,
    /// The receiver takes nothing more now.
    Blocked,
    /// There is more, but others wait for their turn.
    Again,
    /// The sender's end was passed on: this direction is done.
    Ended,
}

/// What ends a tunnel at once.
#[derive(Debug)]
pub(super) enum Break {
    /// This side's connection failed.
    Gone(Side),
    /// This side takes no more; true: because of a RST. What it has sent may still be there to be read.
    Deaf(Side, bool),
    /// The client's first frame is none.
    Violation(&'static str),
    /// This side's TLS failed.
    Tls(Side, TlsError),
    /// The kernel had no memory for a call: which, and its error.
    Shortage(String),
}

impl Break {
    pub fn shortage(call: &str, error: &io::Error) -> Self {
        Self::Shortage(format!("{call}() failed ({})", os_error(error)))
    }
}

impl Tunnel {
    /// Moves what `from` has sent, as far as it goes; also says how many bytes were received (TLS included: records may be empty).
    pub(super) fn pump(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<(Flow, usize), Break> {
        let mut received = 0;
        loop {
            if !self.flush(from, tools)? {
                return Ok((Flow::Blocked, received));
            }
            if self.half(from).is(Marks::PARTING) && self.say_last_words(tools)? {
                continue;
            }
            if self.half(from).is(Marks::ENDED) {
                if self.pass_end_on(from, tools)? {
                    return Ok((Flow::Ended, received));
                }
                continue;
            }
            if !self.half(from).is(Marks::READABLE) {
                return Ok((Flow::Idle, received));
            }
            if received >= BYTES_PER_TURN {
                return Ok((Flow::Again, received));
            }
            received +=
                if self.half(from).is(Marks::SPLICING) { self.splice(from, tools)? } else { self.copy(from, tools)? };
        }
    }

    /// Takes bytes of `from` that were received before the tunnel existed: they wait for the first [`Tunnel::pump`].
    pub(super) fn take(&mut self, from: Side, bytes: &[u8], tools: &mut Tools<'_>) -> Result<(), Break> {
        if bytes.is_empty() {
            return Ok(());
        }
        let passing = self.account(from, bytes)?;
        if passing > 0 {
            let bytes = self.seal(from.other(), &bytes[..passing], &mut tools.scratch.cipher)?.into();
            self.wait(from, Waiting::Bytes(Rest { bytes, sent: 0 }));
        }
        Ok(())
    }

    /// True when nothing waits any more.
    pub(super) fn flush(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<bool, Break> {
        let to = from.other();
        if !self.is_waiting(from) {
            return Ok(true);
        }
        if self.half(to).is(Marks::FULL) {
            return Ok(false);
        }
        let Some(extra) = &mut self.extra else { return Ok(true) };
        let fd = self.fds[to as usize].as_fd();
        let waiting = &mut extra.waiting[from as usize];
        let mut full = match waiting {
            Waiting::Nothing => return Ok(true),
            Waiting::Bytes(rest) => send_rest(rest, fd),
            Waiting::Piped(filled) => drain(filled, fd, false),
        };
        if let (Err(error), Waiting::Piped(filled)) = (&full, &*waiting)
            && sys::cannot_splice(error)
        {
            let mut rest = filled.unpipe().map_err(|error| Break::shortage("read", &error))?;
            full = send_rest(&mut rest, fd);
            if let Waiting::Piped(filled) = std::mem::replace(waiting, Waiting::Bytes(rest)) {
                tools.pipes.give_back(filled.pipe);
            }
        }
        // The receiver making room is a sign of life.
        self.last_active = tools.tick;
        if full.map_err(|error| self.deaf(to, &error))? {
            self.half_mut(to).set(Marks::FULL | Marks::WANTS_OUTPUT);
            return Ok(false);
        }
        if let Waiting::Piped(filled) = self.take_waiting(from) {
            tools.pipes.give_back(filled.pipe);
        }
        Ok(true)
    }

    /// A side failed while it was read.
    fn gone(&mut self, side: Side, error: &io::Error) -> Break {
        if sys::is_shortage(error) {
            return Break::shortage("recv", error);
        }
        self.note_failure(side, error);
        Break::Gone(side)
    }

    /// A side failed while it was written to. EPIPE: it had sent FIN before its RST (tcp_reset, in CLOSE_WAIT): what it sent is
    /// complete.
    fn deaf(&mut self, side: Side, error: &io::Error) -> Break {
        if sys::is_shortage(error) {
            return Break::shortage("send", error);
        }
        self.note_failure(side, error);
        Break::Deaf(side, error.kind() != io::ErrorKind::BrokenPipe)
    }

    /// Receives into the scratch and sends from there; bytes received.
    fn copy(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<usize, Break> {
        let Scratch { plain: buffer, cipher, reply } = tools.scratch;
        // Behind the last frame of a bulk transfer only the next frame's head is wanted: its payload may be spliced.
        let splicing = self.half(from).is(Marks::SPLICING);
        let kept = self.tls(from).map_or(0, |tls| tls.resume(buffer));
        let limit = if splicing { FRAME_HEAD_BYTES } else { buffer.len().min(kept + tools.most) };
        let received = match sys::recv(self.fd(from), &mut buffer[kept..limit]) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.half_mut(from).clear(Marks::READABLE);
                if let Some(tls) = self.tls(from) {
                    keep(tls, buffer, kept).map_err(|error| Break::Tls(from, error))?;
                }
                return Ok(0);
            }
            Err(error) => return Err(self.gone(from, &error)),
        };
        if received < limit - kept && !self.half(from).is(Marks::LEFT) {
            self.half_mut(from).clear(Marks::READABLE);
        }
        self.last_active = tools.tick;
        if received == 0 {
            if self.half(from).is(Marks::RESET) {
                return Err(Break::Gone(from));
            }
            let truncated = self.tls(from).is_some();
            let half = self.half_mut(from);
            half.set(Marks::ENDED);
            half.marks.set(Marks::TRUNCATED, truncated);
            return Ok(0);
        }
        let (filled, told) = match self.tls(from) {
            None => (received, Ok(())),
            Some(tls) => {
                reply.clear();
                let result = tls.decrypt(buffer, kept + received, reply);
                // Behind the record that the sender may be in the middle of receiving.
                let told = self.send(from.other(), reply, false);
                let decrypted = match result {
                    Ok(decrypted) => decrypted,
                    Err(error) => {
                        // What came whole before the bad record still arrives.
                        let held = self.held_back(from);
                        let passing = self.account(from, &buffer[..error.plain])?;
                        self.let_go(held, from, passing, cipher)?;
                        self.deliver(from, &buffer[..passing], false, cipher)?;
                        return Err(Break::Tls(from, error));
                    }
                };
                self.half_mut(from).marks.set(Marks::ENDED, decrypted.closed);
                (decrypted.plain, told)
            }
        };
        let held = self.held_back(from);
        let passing = self.account(from, &buffer[..filled])?;
        self.let_go(held, from, passing, cipher)?;
        let half = self.half(from);
        let bulk = half.frames.payload_left() >= SPLICE_FROM as u64 && !half.is(Marks::PARTING);
        self.deliver(from, &buffer[..passing], splicing && bulk, cipher)?;
        if splicing {
            self.half_mut(from).marks.set(Marks::SPLICING, bulk);
        } else if (bulk && received >= SPLICE_FROM || received == buffer.len() && !self.half(from).is(Marks::PARTING))
            && self.is_plain()
        {
            // So much was there that copying fell behind, and so much is to come that a pipe may pay.
            let half = self.half_mut(from);
            half.set(Marks::SPLICING);
            half.set_small_splices(0);
        }
        told.map(|()| received)
    }

    /// Moves bytes through a pipe, as far as frames can be followed; bytes moved.
    fn splice(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<usize, Break> {
        let (sender, rsv) = (sender(from), self.half(from).rsv());
        let limit = tools.ahead.look(self.fd(from), &self.half(from).frames, sender, rsv);
        if limit == 0 {
            return self.copy(from, tools);
        }
        let pipe = if tools.ahead.pays(limit) || self.half(from).frames.payload_left() >= limit {
            tools.pipes.take()
        } else {
            None
        };
        let Some(pipe) = pipe else {
            self.half_mut(from).clear(Marks::SPLICING);
            return Ok(0);
        };
        let moved = match sys::splice_in(self.fd(from), &pipe, limit as usize) {
            Ok(moved) => moved,
            Err(error) => {
                tools.pipes.give_back(pipe);
                // The pipe was empty, so it is the socket that has nothing.
                return match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.half_mut(from).clear(Marks::READABLE);
                        Ok(0)
                    }
                    _ if sys::cannot_splice(&error) => {
                        tools.pipes.note("splice", error);
                        self.half_mut(from).clear(Marks::SPLICING);
                        Ok(0)
                    }
                    _ => Err(self.gone(from, &error)),
                };
            }
        };
        self.last_active = tools.tick;
        *tools.spliced = true;
        let half = self.half_mut(from);
        if moved == 0 {
            half.set(Marks::ENDED);
            tools.pipes.give_back(pipe);
            return if self.half(from).is(Marks::RESET) { Err(Break::Gone(from)) } else { Ok(0) };
        }
        let begun = tools.ahead.follow(&mut half.frames, moved as u64, sender, rsv);
        half.moved.add(moved as u64, begun);
        half.set_small_splices(if moved < SPLICE_FROM { half.small_splices() + 1 } else { 0 });
        if half.small_splices() >= FEW_SMALL_SPLICES {
            half.clear(Marks::SPLICING);
        }
        let to = from.other();
        let mut filled = Filled { pipe, bytes: moved };
        // Where no frame's end is known, these may be the last bytes for a long time: they must not wait for more.
        let more = (moved as u64) < limit && !self.half(from).frames.is_lost();
        match drain(&mut filled, self.fd(to), more) {
            Ok(false) => tools.pipes.give_back(filled.pipe),
            Ok(true) => {
                self.wait(from, Waiting::Piped(filled));
                self.half_mut(to).set(Marks::FULL | Marks::WANTS_OUTPUT);
            }
            Err(error) if sys::cannot_splice(&error) => {
                tools.pipes.note("splice", error);
                self.half_mut(from).clear(Marks::SPLICING);
                let rest = filled.unpipe();
                tools.pipes.give_back(filled.pipe);
                self.wait(from, Waiting::Bytes(rest.map_err(|error| Break::shortage("read", &error))?));
            }
            Err(error) => {
                tools.pipes.discard(filled.pipe);
                return Err(self.deaf(to, &error));
            }
        }
        Ok(moved)
    }

    /// Counts bytes and follows the frames in them; how many of them pass: all, unless we part.
    fn account(&mut self, from: Side, bytes: &[u8]) -> Result<usize, Break> {
        let half = self.half_mut(from);
        if half.is(Marks::PARTING) {
            return Ok(half.account_to_boundary(bytes, sender(from)));
        }
        // The first frame's two bytes have been judged once its head is complete.
        let began = half.moved.bytes() > 1;
        let begun = half.frames.advance(bytes, sender(from), half.rsv());
        half.moved.add(bytes.len() as u64, begun.unwrap_or(0));
        match begun {
            // Only the client's first frame decides whether this is a websocket at all. What either side sends later is
            // theirs to judge; the proxy only stops following frames.
            Err(violation) if from == Side::Client && !began => Err(Break::Violation(violation.0)),
            _ if self.held_back(from).is_some() => Ok(0),
            _ => Ok(bytes.len()),
        }
    }

    /// The first byte of the client's first frame, alone so far: it goes on with the second, by which the frame is judged.
    fn held_back(&self, from: Side) -> Option<u8> {
        let half = self.half(from);
        if from == Side::Client && half.moved.bytes() == 1 { half.frames.only_byte() } else { None }
    }

    /// Sends a byte that was held back, before others that pass.
    fn let_go(&mut self, held: Option<u8>, from: Side, passing: usize, cipher: &mut Outgoing) -> Result<(), Break> {
        match held {
            Some(byte) if passing > 0 => self.deliver(from, &[byte], true, cipher),
            _ => Ok(()),
        }
    }

    /// Sends bytes to the other side, as TLS records where it speaks TLS; what the socket does not take now waits.
    pub(super) fn deliver(&mut self, from: Side, plain: &[u8], more: bool, cipher: &mut Outgoing) -> Result<(), Break> {
        let bytes = self.seal(from.other(), plain, cipher)?;
        self.send(from, bytes, more)
    }

    /// Bytes as `to` wants them.
    fn seal<'a>(&mut self, to: Side, plain: &'a [u8], cipher: &'a mut Outgoing) -> Result<&'a [u8], Break> {
        let Some(tls) = self.tls(to) else { return Ok(plain) };
        cipher.clear();
        tls.encrypt(plain, cipher).map_err(|error| Break::Tls(to, error))?;
        Ok(cipher)
    }

    pub(super) fn send(&mut self, from: Side, bytes: &[u8], more: bool) -> Result<(), Break> {
        if bytes.is_empty() {
            return Ok(());
        }
        let to = from.other();
        if let Some(Waiting::Bytes(rest)) = self.waiting(from) {
            // Bytes from before the tunnel, or a word of TLS to a receiver that is behind: never much.
            let joined = [&rest.bytes[rest.sent..], bytes].concat();
            *rest = Rest { bytes: joined.into(), sent: 0 };
            return Ok(());
        }
        let fd = self.fd(to);
        let sent = match if more { sys::send_more(fd, bytes) } else { sys::send(fd, bytes) } {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(self.deaf(to, &error)),
        };
        self.wait(from, Waiting::Bytes(Rest { bytes: bytes[sent..].into(), sent: 0 }));
        self.half_mut(to).set(Marks::FULL | Marks::WANTS_OUTPUT);
        Ok(())
    }

    /// The sender has ended and all of it was sent on: tells the receiver. True when that is done.
    fn pass_end_on(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<bool, Break> {
        let to = from.other();
        let half = self.half_mut(from);
        if half.is(Marks::PASSED_ON) {
            return Ok(true);
        }
        // A truncation is passed on as one: without close_notify.
        let notify = !half.marks.intersects(Marks::NOTIFIED | Marks::TRUNCATED);
        half.set(Marks::NOTIFIED);
        if notify && let Some(tls) = self.tls(to) {
            let cipher = &mut tools.scratch.cipher;
            cipher.clear();
            tls.close(cipher);
            self.send(from, cipher, false)?;
            return Ok(false);
        }
        self.half_mut(from).set(Marks::PASSED_ON);
        // With both directions ended the tunnel is closed next, and close(2) sends FIN as well.
        if !self.half(to).is(Marks::PASSED_ON) {
            // ENOTCONN: the receiver is gone already, and its own direction will say so.
            let _ = sys::shutdown_write(self.fd(to));
        }
        Ok(true)
    }
}

pub(super) fn sender(from: Side) -> Sender {
    match from {
        Side::Client => Sender::Client,
        Side::Upstream => Sender::Server,
    }
}

/// Sends what waits; true when the socket is full first.
fn send_rest(rest: &mut Rest, to: BorrowedFd<'_>) -> io::Result<bool> {
    while rest.sent < rest.bytes.len() {
        match sys::send(to, &rest.bytes[rest.sent..]) {
            Ok(sent) => rest.sent += sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Empties a pipe into a socket; true when the socket is full first.
fn drain(filled: &mut Filled, to: BorrowedFd<'_>, more: bool) -> io::Result<bool> {
    while filled.bytes > 0 {
        match sys::splice_out(&filled.pipe, to, filled.bytes, more) {
            Ok(moved) => filled.bytes -= moved,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Gives the ciphertext of an incomplete record back to the session it was borrowed from.
fn keep(tls: &mut crate::tls::Session, buffer: &mut [u8], kept: usize) -> Result<(), TlsError> {
    if kept > 0 {
        tls.decrypt(buffer, kept, &mut Outgoing::default())?;
    }
    Ok(())
}
