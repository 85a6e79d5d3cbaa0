//! The sockets a worker accepts from. It can be told of others at any time: nobody who waits in the queue of one is lost.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    rc::{Rc, Weak},
};

use nix::sys::stat::fstat;
use socket2::SockAddr;

use super::{accept_turn, serve_or_hand_over};
use crate::{
    balance::Accepted,
    config::{Level, ListenAddress},
    observe::{counters::Counters, os_error},
    reactor::{Descriptor, race, yield_now},
    request::Address,
    sys,
    worker::Worker,
};

/// A listening socket for a worker; others may have copies of it.
#[derive(Debug)]
pub struct Listening {
    /// Where it listens.
    pub address: ListenAddress,
    /// Itself.
    pub socket: OwnedFd,
}

/// All that a worker accepts from, by the socket's inode, which copies have in common. The task of each has it, and may end first.
#[derive(Debug, Default)]
pub struct Doors {
    doors: RefCell<HashMap<u64, Weak<Door>>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Door {
    pub address: ListenAddress,
    pub socket: Descriptor,
    is_open: Cell<bool>,
}

impl Doors {
    /// Accepts from these from now on, and from no others. Who waits at one that is given up is let in before, and served by the
    /// worker's present generation.
    ///
    /// # Errors
    /// The last of epoll_ctl(2)'s; the others are accepted from all the same.
    pub fn open(&self, worker: &Rc<Worker>, all: Vec<Listening>) -> io::Result<()> {
        let mut before = self.doors.take();
        let mut result = Ok(());
        for Listening { address, socket } in all {
            let opened = fstat(&socket).map_err(io::Error::from).and_then(|file| {
                let door = match before.remove(&file.st_ino) {
                    Some(door) => door,
                    None => Rc::downgrade(&Door::open(worker, address, socket)?),
                };
                self.doors.borrow_mut().insert(file.st_ino, door);
                Ok(())
            });
            result = result.and(opened);
        }
        before.into_values().filter_map(|door| door.upgrade()).for_each(|door| door.close(worker));
        worker.look_again();
        result
    }
}

impl Door {
    fn open(worker: &Rc<Worker>, address: ListenAddress, socket: OwnedFd) -> io::Result<Rc<Self>> {
        let socket = worker.reactor.watch(socket)?;
        let door = Rc::new(Self { address, socket, is_open: Cell::new(true) });
        worker.spawn(door.clone().accept_all(Rc::clone(worker)));
        Ok(door)
    }

    /// Accepts connections and starts a session for each, until the door is closed or the worker accepts no more.
    async fn accept_all(self: Rc<Self>, worker: Rc<Worker>) {
        let is_over = || !self.is_open.get() || worker.is_quitting();
        while !is_over() {
            race(worker.until(is_over), accept_turn(&worker, &self)).await;
            yield_now().await;
        }
        if let Some(door) = Rc::into_inner(self) {
            door.socket.forget();
        }
    }

    /// Serves a connection that came by it.
    pub fn admit(&self, worker: &Rc<Worker>, fd: OwnedFd, peer: &SockAddr) {
        Counters::bump(&worker.counters.accepted);
        let generation = worker.generation();
        // The worker was told of both together, so that each listening socket has its listener.
        if let Some(listener) = generation.listener(&self.address) {
            serve_or_hand_over(worker, Accepted { fd, peer: Address::from(peer), generation, listener });
        }
    }

    /// `ssl`
    pub fn speaks_tls(&self, worker: &Rc<Worker>) -> bool {
        let generation = worker.generation();
        generation.listener(&self.address).is_none_or(|listener| generation.config.listeners[listener].ssl)
    }

    /// Lets in who has been waiting.
    fn close(&self, worker: &Rc<Worker>) {
        self.is_open.set(false);
        loop {
            match sys::accept(self.socket.as_fd()) {
                Ok((fd, peer)) => self.admit(worker, fd, &peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // That connection went wrong before it was accepted: the next one may be fine.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let message =
                        format_args!("accept4() failed at the close of {} ({})", self.address, os_error(&error));
                    return worker.log(Level::Crit, message);
                }
            }
        }
    }
}
