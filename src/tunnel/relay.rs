//! How bytes move through a tunnel: one symmetric set of functions for both directions.
//!
//! Two system calls a hop in the common case: one `recv` into the worker's scratch, one `send` out of it.
//! - A `recv` that did not fill the buffer has emptied the socket: the one that would say EAGAIN is left out, and the
//!   next edge tells when there is more (epoll(7), edge-triggered stream sockets).
//! - EPOLLOUT is asked for when a `send` first came up short, and then kept: a slow reader will be slow again.
//! - A frame of which [`SPLICE_FROM`] bytes are still to come goes through a pipe, without being copied.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use super::{
    FEW_SMALL_SPLICES, SPLICE_FROM, Side, Tunnel,
    half::{Filled, Rest, Waiting},
    pipes::Pipes,
};
use crate::{
    limits::{BYTES_PER_TURN, PIPE_BYTES},
    scratch::Scratch,
    sys,
    tls::{Outgoing, TlsError},
    websocket::frames::Sender,
};

/// A frame's head is at most this long (RFC 6455 section 5.2).
const FRAME_HEAD_BYTES: usize = 14;

/// What moving bytes needs of the worker.
pub(super) struct Tools<'a> {
    pub scratch: &'a mut Scratch,
    pub pipes: &'a mut Pipes,
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
}

impl Break {
    /// EPIPE: the side had sent FIN before its RST (tcp_reset, in CLOSE_WAIT): what it sent is complete.
    fn deaf(side: Side, error: &io::Error) -> Self {
        Self::Deaf(side, error.kind() != io::ErrorKind::BrokenPipe)
    }
}

impl<R> Tunnel<R> {
    /// Moves what `from` has sent, as far as it goes; also says how many bytes were received (TLS included: records may be empty).
    pub(super) fn pump(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<(Flow, usize), Break> {
        let mut received = 0;
        loop {
            if !self.flush(from, tools)? {
                return Ok((Flow::Blocked, received));
            }
            if self.half(from).ended {
                if self.pass_end_on(from, tools)? {
                    return Ok((Flow::Ended, received));
                }
                continue;
            }
            if !self.end(from).readable {
                return Ok((Flow::Idle, received));
            }
            if received >= BYTES_PER_TURN {
                return Ok((Flow::Again, received));
            }
            received += if self.half(from).splicing { self.splice(from, tools)? } else { self.copy(from, tools)? };
        }
    }

    /// Takes bytes of `from` that were received before the tunnel existed: they wait for the first [`Tunnel::pump`].
    pub(super) fn take(&mut self, from: Side, bytes: &[u8], tools: &mut Tools<'_>) -> Result<(), Break> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.account(from, bytes)?;
        let bytes = self.seal(from.other(), bytes, &mut tools.scratch.cipher)?.into();
        self.half_mut(from).waiting = Waiting::Bytes(Box::new(Rest { bytes, sent: 0 }));
        Ok(())
    }

    /// True when nothing waits any more.
    fn flush(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<bool, Break> {
        let to = from.other();
        let fd = self.ends[to as usize].fd.as_fd();
        let full = match &mut self.halves[from as usize].waiting {
            Waiting::Nothing => return Ok(true),
            Waiting::Bytes(rest) => send_rest(rest, fd),
            Waiting::Piped(filled) => drain(filled, fd, false),
        };
        // The receiver making room is a sign of life.
        self.last_active = tools.tick;
        if full.map_err(|error| Break::deaf(to, &error))? {
            self.end_mut(to).wants_output = true;
            return Ok(false);
        }
        if let Waiting::Piped(filled) = std::mem::take(&mut self.half_mut(from).waiting) {
            tools.pipes.give_back(filled.pipe);
        }
        Ok(true)
    }

    /// Receives into the scratch and sends from there; bytes received.
    fn copy(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<usize, Break> {
        let Scratch { plain: buffer, cipher, reply } = tools.scratch;
        // Behind the last frame of a bulk transfer only the next frame's head is wanted: its payload may be spliced.
        let splicing = self.half(from).splicing;
        let limit = if splicing { FRAME_HEAD_BYTES } else { buffer.len() };
        let end = self.end_mut(from);
        let kept = end.tls.as_mut().map_or(0, |tls| tls.resume(buffer));
        let received = match sys::recv(end.fd.as_fd(), &mut buffer[kept..limit]) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                end.readable = false;
                if let Some(tls) = &mut end.tls {
                    keep(tls, buffer, kept).map_err(|error| Break::Tls(from, error))?;
                }
                return Ok(0);
            }
            Err(_) => return Err(Break::Gone(from)),
        };
        if received < limit - kept && !end.left {
            end.readable = false;
        }
        self.last_active = tools.tick;
        if received == 0 {
            let end = self.end(from);
            if end.reset {
                return Err(Break::Gone(from));
            }
            let truncated = end.tls.is_some();
            let half = self.half_mut(from);
            (half.ended, half.truncated) = (true, truncated);
            return Ok(0);
        }
        let (filled, told) = match &mut self.end_mut(from).tls {
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
                        self.account(from, &buffer[..error.plain])?;
                        self.deliver(from, &buffer[..error.plain], false, cipher)?;
                        return Err(Break::Tls(from, error));
                    }
                };
                self.half_mut(from).ended = decrypted.closed;
                (decrypted.plain, told)
            }
        };
        self.account(from, &buffer[..filled])?;
        let bulk = self.half(from).frames.payload_left() >= SPLICE_FROM as u64;
        self.deliver(from, &buffer[..filled], splicing && bulk, cipher)?;
        let half = self.half_mut(from);
        if splicing {
            half.splicing = bulk;
        } else if bulk && received >= SPLICE_FROM && self.is_plain() {
            // So much was there that copying fell behind, and so much is to come that a pipe pays.
            let half = self.half_mut(from);
            (half.splicing, half.small_splices) = (true, 0);
        }
        told.map(|()| received)
    }

    /// Moves payload through a pipe, never beyond the current frame; bytes moved.
    fn splice(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<usize, Break> {
        let payload = self.half(from).frames.payload_left();
        if payload == 0 {
            return self.copy(from, tools);
        }
        let Some(pipe) = tools.pipes.take() else {
            self.half_mut(from).splicing = false;
            return Ok(0);
        };
        let want = usize::try_from(payload).unwrap_or(usize::MAX).min(PIPE_BYTES);
        let moved = match sys::splice_in(self.end(from).fd.as_fd(), &pipe, want) {
            Ok(moved) => moved,
            Err(error) => {
                tools.pipes.give_back(pipe);
                // The pipe was empty, so it is the socket that has nothing.
                return match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.end_mut(from).readable = false;
                        Ok(0)
                    }
                    _ => Err(Break::Gone(from)),
                };
            }
        };
        self.last_active = tools.tick;
        let half = self.half_mut(from);
        if moved == 0 {
            half.ended = true;
            tools.pipes.give_back(pipe);
            return if self.end(from).reset { Err(Break::Gone(from)) } else { Ok(0) };
        }
        half.bytes += moved as u64;
        half.frames.skip(moved as u64);
        half.small_splices = if moved < SPLICE_FROM { half.small_splices.saturating_add(1) } else { 0 };
        if half.small_splices >= FEW_SMALL_SPLICES {
            half.splicing = false;
        }
        let to = from.other();
        let mut filled = Filled { pipe, bytes: moved };
        // Where no frame's end is known, these may be the last bytes for a long time: they must not wait for more.
        let more = (moved as u64) < payload && !self.half(from).frames.is_lost();
        match drain(&mut filled, self.end(to).fd.as_fd(), more) {
            Ok(false) => tools.pipes.give_back(filled.pipe),
            Ok(true) => {
                self.half_mut(from).waiting = Waiting::Piped(Box::new(filled));
                self.end_mut(to).wants_output = true;
            }
            Err(error) => {
                tools.pipes.discard(filled.pipe);
                return Err(Break::deaf(to, &error));
            }
        }
        Ok(moved)
    }

    /// Counts bytes and follows the frames in them.
    fn account(&mut self, from: Side, bytes: &[u8]) -> Result<(), Break> {
        let sender = match from {
            Side::Client => Sender::Client,
            Side::Upstream => Sender::Server,
        };
        let rsv = self.rsv;
        let half = self.half_mut(from);
        half.bytes += bytes.len() as u64;
        match half.frames.advance(bytes, sender, rsv) {
            Ok(_) => {}
            // Only the client's first frame decides whether this is a websocket at all. What either side sends later is
            // theirs to judge; the proxy only stops following frames.
            Err(violation) if from == Side::Client && !half.began => return Err(Break::Violation(violation.0)),
            Err(_) => half.frames.lost(),
        }
        // The first frame's two bytes have been judged once its head is complete.
        half.began |= half.bytes > 1;
        Ok(())
    }

    /// Sends bytes to the other side, as TLS records where it speaks TLS; what the socket does not take now waits.
    fn deliver(&mut self, from: Side, plain: &[u8], more: bool, cipher: &mut Outgoing) -> Result<(), Break> {
        let bytes = self.seal(from.other(), plain, cipher)?;
        self.send(from, bytes, more)
    }

    /// Bytes as `to` wants them.
    fn seal<'a>(&mut self, to: Side, plain: &'a [u8], cipher: &'a mut Outgoing) -> Result<&'a [u8], Break> {
        let Some(tls) = &mut self.end_mut(to).tls else { return Ok(plain) };
        cipher.clear();
        tls.encrypt(plain, cipher).map_err(|error| Break::Tls(to, error))?;
        Ok(cipher)
    }

    fn send(&mut self, from: Side, bytes: &[u8], more: bool) -> Result<(), Break> {
        if bytes.is_empty() {
            return Ok(());
        }
        let to = from.other();
        if let Waiting::Bytes(rest) = &mut self.half_mut(from).waiting {
            // Bytes from before the tunnel, or a word of TLS to a receiver that is behind: never much.
            let joined = [&rest.bytes[rest.sent..], bytes].concat();
            **rest = Rest { bytes: joined.into(), sent: 0 };
            return Ok(());
        }
        let fd = self.end(to).fd.as_fd();
        let sent = match if more { sys::send_more(fd, bytes) } else { sys::send(fd, bytes) } {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(Break::deaf(to, &error)),
        };
        self.half_mut(from).waiting = Waiting::Bytes(Box::new(Rest { bytes: bytes[sent..].into(), sent: 0 }));
        self.end_mut(to).wants_output = true;
        Ok(())
    }

    /// The sender has ended and all of it was sent on: tells the receiver. True when that is done.
    fn pass_end_on(&mut self, from: Side, tools: &mut Tools<'_>) -> Result<bool, Break> {
        let to = from.other();
        let half = self.half_mut(from);
        if half.passed_on {
            return Ok(true);
        }
        // A truncation is passed on as one: without close_notify.
        let notify = !std::mem::replace(&mut half.notified, true) && !half.truncated;
        if notify && let Some(tls) = &mut self.end_mut(to).tls {
            let cipher = &mut tools.scratch.cipher;
            cipher.clear();
            tls.close(cipher);
            self.send(from, cipher, false)?;
            return Ok(false);
        }
        self.half_mut(from).passed_on = true;
        // ENOTCONN: the receiver is gone already, and its own direction will say so.
        let _ = sys::shutdown_write(self.end(to).fd.as_fd());
        Ok(true)
    }

    fn is_plain(&self) -> bool {
        self.ends.iter().all(|end| end.tls.is_none())
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
