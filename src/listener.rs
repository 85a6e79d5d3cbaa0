//! Accepting connections. The listening [`Sockets`] are the control plane's; every worker has copies of some.

mod doors;
mod sockets;

use std::{io, os::fd::AsFd, rc::Rc, time::Duration};

use self::doors::Door;
pub use self::{
    doors::{Doors, Listening},
    sockets::Sockets,
};
use crate::{
    balance::Accepted,
    limits::{ACCEPT_PAUSE_MS, ACCEPTS_PER_TURN},
    observe::counters::Counters,
    session, sys,
    worker::Worker,
};

/// Accepts up to [`ACCEPTS_PER_TURN`] connections, waiting for the first.
async fn accept_turn(worker: &Rc<Worker>, door: &Door) {
    let socket = &door.socket;
    let mut failed = None;
    for _ in 0..ACCEPTS_PER_TURN {
        if worker.is_full() && worker.relief().is_none() {
            worker.warn_full();
            return worker.reactor.sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
        }
        match sys::accept(socket.as_fd()) {
            Ok((fd, peer)) => {
                failed = None;
                door.admit(worker, fd, &peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await,
            Err(error) if sys::is_shortage(&error) => return shortage(worker, door, &error).await,
            // The connection itself went wrong before it was accepted (accept(2), "Error handling"): the next one may be fine.
            Err(error) => {
                Counters::bump(&worker.counters.accept_errors);
                failed = Some(error);
            }
        }
    }
    if let Some(error) = failed {
        // Or the listener did, and would go wrong without end.
        worker.lacks("accept4", &error, "new connections wait");
        worker.reactor.sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
    }
}

/// Serves a connection, or leaves that to the worker that has fewer.
fn serve_or_hand_over(worker: &Rc<Worker>, connection: Accepted) {
    let handed = match worker.relief() {
        Some(other) => worker.balance().hand(other, connection),
        None => Err(connection),
    };
    match handed {
        Ok(()) => Counters::bump(&worker.counters.handed_over),
        Err(connection) => worker.start_session(session::serve(Rc::clone(worker), connection)),
    }
}

/// Serves a connection that another worker accepted.
pub fn take_over(worker: &Rc<Worker>, connection: Accepted) {
    Counters::bump(&worker.counters.taken_over);
    worker.start_handed(session::serve(Rc::clone(worker), connection));
}

/// No descriptor or memory for a connection. The reserve descriptor lets one waiting client in to be told so; then the listener
/// rests: asking again at once would only spin.
async fn shortage(worker: &Rc<Worker>, door: &Door, error: &io::Error) {
    Counters::bump(&worker.counters.accept_errors);
    worker.lacks("accept4", error, "new connections wait, some get 503");
    if worker.reserve.take().is_some()
        && let Ok((fd, _)) = sys::accept(door.socket.as_fd())
        && !door.speaks_tls(worker)
    {
        // One short answer fits any socket buffer; a client that cannot take it is closed all the same.
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let _ = sys::send(fd.as_fd(), refusal);
        // Closed with its request unread, the socket would send RST, and the client lose the answer to it.
        let _ = sys::shutdown_write(fd.as_fd());
        let _ = sys::recv(fd.as_fd(), &mut worker.scratch.borrow_mut().plain);
    }
    worker.open_reserve();
    worker.reactor.sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use monoio::{LegacyDriver, RuntimeBuilder};
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::{
        balance::Balance,
        config::{Config, ListenAddress, ListenOptions},
        generation::tests::generation,
        reactor::yield_now,
        request::tests::config,
        worker::State,
    };

    /// One whose file listens on port 80.
    fn worker() -> Rc<Worker> {
        let listener = crate::config::Listener {
            address: address(),
            options: ListenOptions::default(),
            ssl: false,
            proxy_protocol: false,
            default: 0,
            names: Default::default(),
            servers: Vec::new(),
        };
        let config = Config { listeners: vec![listener], ..config(Vec::new(), Vec::new()) };
        Worker::new(0, generation(Arc::new(config)), Arc::default(), Arc::new(Balance::new(1).unwrap())).unwrap()
    }

    fn address() -> ListenAddress {
        ListenAddress::Tcp(([127, 0, 0, 1], 80).into())
    }

    #[test]
    fn a_listener_that_only_fails_rests() {
        // A socket that does not listen: EINVAL, each time.
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
        let worker = worker();
        let errors = RuntimeBuilder::<LegacyDriver>::new().build().unwrap().block_on(async {
            let doors = Doors::default();
            doors.open(&worker, vec![Listening { address: address(), socket: socket.into() }]).unwrap();
            for _ in 0..100 {
                worker.reactor.turn(&mut Vec::new()).unwrap();
                worker.reactor.advance(&mut Vec::new()).unwrap();
                yield_now().await;
            }
            worker.change(State::Quitting);
            worker.counters.accept_errors.load(std::sync::atomic::Ordering::Relaxed)
        });
        assert!(errors <= 2 * ACCEPTS_PER_TURN as u64, "{errors} errors in a few milliseconds");
    }
}
