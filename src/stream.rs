//! A connection while a task serves it: a descriptor, with or without TLS, as a stream of plain bytes.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use socket2::SockRef;

use crate::{
    limits::{LAST_WORD_SECS, LINGER_BYTES, LINGER_SECS, STREAM_READ_BYTES},
    observe::os_error,
    reactor::{Descriptor, Reactor},
    scratch::Scratch,
    sys,
    tls::{Outgoing, Session, TlsError, TlsFacts},
};

/// See the module. Reading and writing may be under way at the same time, in two futures.
#[derive(Debug)]
pub struct Stream {
    io: Descriptor,
    tls: RefCell<Option<Box<Session>>>,
    scratch: Rc<RefCell<Scratch>>,
    /// The TLS handshake may have left whole records undecrypted.
    undecrypted: Cell<bool>,
    end: Cell<Option<End>>,
}

/// How the peer's direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// FIN, after close_notify where TLS is spoken.
    Clean,
    /// FIN without close_notify (RFC 8446 section 6.1): something may be missing.
    Truncated,
}

/// Why a stream failed.
#[derive(Debug)]
pub enum Failure {
    /// The connection.
    Io(io::Error),
    /// TLS.
    Tls(TlsError),
}

/// Nothing came back from the peer: keep-alive probes or data went unanswered for too long (ETIMEDOUT), or a router said meanwhile that
/// it cannot be reached (tcp_write_err).
pub fn is_loss(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable)
}

impl Stream {
    /// A stream without TLS.
    pub fn new(io: Descriptor, scratch: Rc<RefCell<Scratch>>) -> Self {
        Self { io, tls: RefCell::default(), scratch, undecrypted: Cell::new(false), end: Cell::new(None) }
    }

    /// The reactor it belongs to.
    pub fn reactor(&self) -> &Rc<Reactor> {
        self.io.reactor()
    }

    /// The descriptor, to wait for the peer to leave.
    pub fn descriptor(&self) -> &Descriptor {
        &self.io
    }

    /// True with TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.borrow().is_some()
    }

    /// How the peer's direction ended, once a read has found its end.
    pub fn end(&self) -> Option<End> {
        self.end.get()
    }

    /// True while the peer has said nothing beyond what was read, its end included: asks the socket.
    pub fn is_quiet(&self) -> bool {
        let keeps = self.tls.borrow().as_ref().is_some_and(|tls| tls.keeps_ciphertext());
        let nothing_read = !keeps && self.end.get().is_none();
        let peeked = SockRef::from(&self.io).peek(&mut [MaybeUninit::uninit()]);
        nothing_read && peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Makes a TLS handshake; `received` is what was received of it before. `session` is of either side.
    ///
    /// # Errors
    /// The connection's, or the handshake's: its alert has then been sent.
    pub async fn handshake(&self, mut session: Box<Session>, mut received: Vec<u8>) -> Result<TlsFacts, Failure> {
        let mut out = Outgoing::default();
        let facts = loop {
            let result = session.handshake(&received, &mut out);
            self.io.send_all(&out).await?;
            out.clear();
            if let Some(facts) = result? {
                break facts;
            }
            received.clear();
            if self.read_raw(&mut received, STREAM_READ_BYTES).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        self.undecrypted.set(true);
        *self.tls.borrow_mut() = Some(session);
        Ok(facts)
    }

    /// Appends what is there, waiting for it: at most about [`STREAM_READ_BYTES`]. 0: the peer's direction ended, [`Stream::end`]
    /// says how.
    ///
    /// # Errors
    /// The connection's, or TLS's: its alert has then been sent.
    pub async fn read(&self, into: &mut Vec<u8>) -> Result<usize, Failure> {
        if self.end.get().is_some() {
            return Ok(0);
        }
        if !self.is_tls() {
            let count = self.read_raw(into, STREAM_READ_BYTES).await?;
            if count == 0 {
                self.end.set(Some(End::Clean));
            }
            return Ok(count);
        }
        // Boxed, so that who waits without TLS does not hold the room that a reply to a record takes.
        Box::pin(self.read_records(into)).await
    }

    /// [`Stream::read`] with TLS.
    async fn read_records(&self, into: &mut Vec<u8>) -> Result<usize, Failure> {
        loop {
            let mut reply = Outgoing::default();
            let result = self.io.read_with(|fd| self.read_record(fd, into, &mut reply)).await?;
            self.io.send_all(&reply).await?;
            match result? {
                0 if self.end.get().is_none() => {}
                count => return Ok(count),
            }
        }
    }

    /// Appends raw bytes of the socket, TLS or not: for looking at a ClientHello.
    ///
    /// # Errors
    /// recv(2)'s.
    pub async fn read_raw(&self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        self.io
            .read_with(|fd| {
                let buffer = &mut self.scratch.borrow_mut().plain;
                let most = most.min(buffer.len());
                let count = sys::recv(fd, &mut buffer[..most])?;
                into.extend_from_slice(&buffer[..count]);
                Ok(count)
            })
            .await
    }

    /// One recv and what it decrypts to. The outer error is the socket's (`WouldBlock` included), the inner TLS's.
    fn read_record(
        &self,
        fd: BorrowedFd<'_>,
        into: &mut Vec<u8>,
        reply: &mut Outgoing,
    ) -> io::Result<Result<usize, TlsError>> {
        let buffer = &mut self.scratch.borrow_mut().plain;
        let mut tls = self.tls.borrow_mut();
        let Some(tls) = tls.as_mut() else { return Ok(Ok(0)) };
        let kept = tls.resume(buffer);
        let received = if self.undecrypted.take() && kept > 0 {
            0
        } else {
            let most = (kept + STREAM_READ_BYTES).min(buffer.len());
            match sys::recv(fd, &mut buffer[kept..most]) {
                Ok(0) => {
                    self.end.set(Some(End::Truncated));
                    return Ok(Ok(0));
                }
                Ok(received) => received,
                Err(error) => {
                    if kept > 0
                        && let Err(error) = tls.decrypt(buffer, kept, reply)
                    {
                        return Ok(Err(error));
                    }
                    return Err(error);
                }
            }
        };
        Ok(tls.decrypt(buffer, kept + received, reply).map(|decrypted| {
            into.extend_from_slice(&buffer[..decrypted.plain]);
            if decrypted.closed {
                self.end.set(Some(End::Clean));
            }
            decrypted.plain
        }))
    }

    /// Sends all of it, waiting as the peer's window fills.
    ///
    /// # Errors
    /// The connection's, or TLS's.
    pub async fn write_all(&self, bytes: &[u8]) -> Result<(), Failure> {
        if !self.is_tls() {
            return Ok(self.io.send_all(bytes).await?);
        }
        let mut records = Outgoing::default();
        for piece in bytes.chunks(STREAM_READ_BYTES) {
            records.clear();
            if let Some(tls) = self.tls.borrow_mut().as_mut() {
                tls.encrypt(piece, &mut records)?;
            }
            self.io.send_all(&records).await?;
        }
        Ok(())
    }

    /// Ends our direction: close_notify where TLS is spoken, and FIN.
    pub async fn finish(&self) {
        self.finish_within(Duration::from_secs(LAST_WORD_SECS)).await;
    }

    async fn finish_within(&self, patience: Duration) {
        let mut alert = Outgoing::default();
        if let Some(tls) = self.tls.borrow_mut().as_mut() {
            tls.close(&mut alert);
        }
        // A peer that is gone need not be told. One that reads slowly still has an answer before it; one that does not read at all would
        // be waited for without end.
        let _ = self.reactor().within(patience, self.io.send_all(&alert)).await;
        let _ = sys::shutdown_write(self.io.as_fd());
    }

    /// Ends our direction and drops what the peer still sends, for a while: a socket closed with bytes unread sends RST, and
    /// the peer would lose our last words to it.
    pub async fn linger(&self) {
        self.finish().await;
        let drop_rest = async {
            let mut dropped = 0;
            let mut buffer = Vec::new();
            while dropped < LINGER_BYTES {
                buffer.clear();
                match self.read_raw(&mut buffer, STREAM_READ_BYTES).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => dropped += count,
                }
            }
        };
        let _ = self.reactor().within(Duration::from_secs(LINGER_SECS), drop_rest).await;
    }

    /// Makes the coming drop a RST.
    pub fn reset(&self) {
        sys::reset_on_close(&self.io);
    }

    /// Takes it apart for a tunnel: the socket, still watched, and the TLS session.
    pub fn into_parts(self) -> (OwnedFd, Option<Box<Session>>) {
        (self.io.release(), self.tls.into_inner())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TlsError> for Failure {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => formatter.write_str(&os_error(error)),
            Self::Tls(error) => write!(formatter, "{}: {}", error.reason, error.detail),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::unix::net::UnixStream,
        thread,
        time::{Duration, Instant},
    };

    use monoio::{LegacyDriver, RuntimeBuilder};
    use rustls::{ClientConnection, version::TLS13};

    use super::*;
    use crate::{reactor::race, reactor::yield_now, tls::tests::Identity};

    /// Turns of the reactor while `future` runs.
    async fn turning<F: Future>(reactor: &Rc<Reactor>, future: F) -> F::Output {
        let turns = async {
            loop {
                reactor.turn(&mut Vec::new()).unwrap();
                reactor.advance(&mut Vec::new()).unwrap();
                yield_now().await;
            }
        };
        match race(future, turns).await {
            crate::reactor::Either::Left(output) => output,
            crate::reactor::Either::Right(()) => unreachable!("turns have no end"),
        }
    }

    #[test]
    fn the_last_word_does_not_wait_for_a_client_that_takes_nothing() {
        let identity = Identity::new("x");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut client = ClientConnection::new(identity.client(&[&TLS13]).into(), "x".try_into().unwrap()).unwrap();
        let client = thread::spawn(move || {
            while client.is_handshaking() {
                client.complete_io(&mut theirs).unwrap();
            }
            theirs
        });
        RuntimeBuilder::<LegacyDriver>::new().build().unwrap().block_on(async {
            let reactor = Reactor::new().unwrap();
            let stream = Stream::new(reactor.watch(ours.into()).unwrap(), Rc::default());
            let session = Session::server(&identity.server()).unwrap();
            turning(&reactor, stream.handshake(Box::new(session), Vec::new())).await.unwrap();
            let mut theirs = client.join().unwrap();
            while sys::send(stream.io.as_fd(), &[0; 1000]).is_ok() {}
            let begun = Instant::now();
            turning(&reactor, stream.finish_within(Duration::from_millis(200))).await;
            assert!(begun.elapsed() >= Duration::from_millis(200), "there was room: {:?}", begun.elapsed());
            // FIN all the same.
            theirs.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            theirs.read_to_end(&mut Vec::new()).unwrap();
        });
    }
}
