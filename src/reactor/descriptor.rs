//! A descriptor and the task that serves it.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
    task::{Poll, Waker},
};

use super::{Reactor, register, yield_now};
use crate::{limits::READS_PER_TURN, sys};

/// A descriptor a task waits for. Dropped, it is closed.
pub struct Descriptor {
    /// None only while it is taken apart.
    fd: Option<OwnedFd>,
    key: usize,
    reactor: Rc<Reactor>,
    /// Reads since the task last waited for this descriptor.
    reads: Cell<u32>,
}

impl Descriptor {
    /// One that the reactor watches under `key`.
    pub(super) fn new(fd: OwnedFd, key: usize, reactor: Rc<Reactor>) -> Self {
        Self { fd: Some(fd), key, reactor, reads: Cell::new(0) }
    }

    /// The reactor it belongs to.
    pub fn reactor(&self) -> &Rc<Reactor> {
        &self.reactor
    }

    /// Makes a call that reads, again and again until it says something other than `WouldBlock`. It borrows what it reads
    /// into only while it runs, so that all tasks of a worker can share one buffer. A sender that always has more does not hold
    /// the worker: now and then the other tasks get their turn.
    ///
    /// # Errors
    /// Those of `call`.
    pub async fn read_with<T>(&self, mut call: impl FnMut(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        if self.reads.replace(self.reads.get() + 1) >= READS_PER_TURN {
            self.reads.set(0);
            yield_now().await;
        }
        loop {
            match call(self.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.reads.set(0);
                    self.wait(Direction::Read).await;
                }
                result => return result,
            }
        }
    }

    /// Sends all of it, waiting as the socket fills. Returns only when all is handed to the kernel.
    ///
    /// # Errors
    /// send(2)'s.
    pub async fn send_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match sys::send(self.as_fd(), bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(Direction::Write).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until there is something to read, again: whatever was there the caller has read.
    pub async fn readable(&self) {
        self.wait(Direction::Read).await;
    }

    /// Waits until a connection that was begun stands or has failed.
    ///
    /// # Errors
    /// connect(2)'s: ECONNREFUSED, EHOSTUNREACH ...
    pub async fn connected(&self) -> io::Result<()> {
        let socket = socket2::SockRef::from(self);
        if socket.peer_addr().is_ok() {
            return Ok(());
        }
        // Refused at once, or under way: then the socket becomes writable when that has an end (connect(2), EINPROGRESS).
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        self.wait(Direction::Write).await;
        socket.take_error()?.map_or(Ok(()), Err)
    }

    /// Waits until the peer has closed its side or the connection is gone; nothing is read.
    pub async fn hangup(&self) {
        poll_fn(|context| {
            let mut sources = self.reactor.sources.borrow_mut();
            let source = &mut sources[self.key];
            if source.hangup {
                return Poll::Ready(());
            }
            register(&mut source.watcher, context);
            Poll::Pending
        })
        .await;
    }

    /// As [`Descriptor::hangup`] for who waits for many: wakes `waker` when that comes. True when it has.
    pub fn watch_hangup(&self, waker: &Waker) -> bool {
        let mut sources = self.reactor.sources.borrow_mut();
        let source = &mut sources[self.key];
        source.watcher = (!source.hangup).then(|| waker.clone());
        source.hangup
    }

    /// True when the peer has closed its side or the connection is gone, as far as events told.
    pub fn has_hung_up(&self) -> bool {
        self.reactor.sources.borrow()[self.key].hangup
    }

    /// Takes the descriptor back, still registered: for [`Reactor::adopt`].
    pub fn release(mut self) -> OwnedFd {
        // The only place that takes it, and it consumes the whole.
        self.fd.take().unwrap_or_else(|| unreachable!("a descriptor is released once"))
    }

    /// Closes it where others have the same file open: only the last close(2) of all takes it out of the epoll instance, and until
    /// then its events would go on (epoll(7), Q6).
    pub fn forget(mut self) {
        if let Some(fd) = self.fd.take() {
            // It was added, and this is the only way to remove it.
            let _ = self.reactor.epoll.delete(fd);
        }
    }

    async fn wait(&self, direction: Direction) {
        let mut first = true;
        poll_fn(|context| {
            let mut sources = self.reactor.sources.borrow_mut();
            let source = &mut sources[self.key];
            let (ready, waker) = match direction {
                Direction::Read => (&mut source.readable, &mut source.reader),
                Direction::Write => (&mut source.writable, &mut source.writer),
            };
            // The caller has just been told `WouldBlock`: what was noted before that is out of date.
            if std::mem::take(&mut first) {
                *ready = false;
            }
            if *ready {
                return Poll::Ready(());
            }
            register(waker, context);
            Poll::Pending
        })
        .await;
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Some(fd) => fd.as_fd(),
            None => unreachable!("a released descriptor is consumed"),
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // Closing removes it from the epoll instance: nobody else has the file open (epoll(7), Q6).
        drop(self.fd.take());
        self.reactor.sources.borrow_mut().remove(self.key);
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Descriptor").field("fd", &self.fd).finish_non_exhaustive()
    }
}
