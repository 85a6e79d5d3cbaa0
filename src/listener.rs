//! Listening sockets: bound once by the control plane, accepted from by every worker.

mod doors;

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use self::doors::Door;
pub use self::doors::{Doors, Listening};
use crate::{
    balance::Accepted,
    config::{Config, KeepAlive, Level, ListenAddress, ListenOptions, Listener},
    limits::{ACCEPT_PAUSE_MS, ACCEPTS_PER_TURN, BIND_RETRY_MS},
    observe::{counters::Counters, os_error},
    reactor::Descriptor,
    request::Address,
    session, sys,
    worker::Worker,
};

/// Binds every listener of the configuration for each of `workers`: `result[worker][listener]`. TCP: one SO_REUSEPORT socket a
/// worker, so that the kernel spreads connections; unix: one socket, shared. A stale unix socket (nobody listens) is replaced.
/// EADDRINUSE is tried again for a second: a process that owned an io_uring holds its ports a moment after its exit.
///
/// # Errors
/// One text for each address that cannot be bound: cause and cure.
pub fn bind(config: &Config, workers: usize) -> Result<Vec<Vec<OwnedFd>>, Vec<String>> {
    let deadline = Instant::now() + Duration::from_millis(BIND_RETRY_MS);
    let mut sockets: Vec<Vec<OwnedFd>> = (0..workers).map(|_| Vec::new()).collect();
    let mut errors = Vec::new();
    for listener in &config.listeners {
        match bind_for_all(listener, workers, deadline) {
            Ok(bound) => sockets.iter_mut().zip(bound).for_each(|(worker, socket)| worker.push(socket)),
            Err(error) => errors.push(explain(&listener.address, &error)),
        }
    }
    if errors.is_empty() { Ok(sockets) } else { Err(errors) }
}

fn bind_for_all(listener: &Listener, workers: usize, deadline: Instant) -> io::Result<Vec<OwnedFd>> {
    match &listener.address {
        ListenAddress::Unix(path) => {
            let socket = OwnedFd::from(bind_unix(path, &listener.options)?);
            (0..workers).map(|_| socket.try_clone()).collect()
        }
        ListenAddress::Tcp(address) => {
            // Without SO_REUSEPORT first, so that an address another process serves is an error and not a share of its clients.
            let address = SockAddr::from(*address);
            retry_in_use(deadline, || probe(&address, &listener.options))?;
            (0..workers)
                .map(|_| retry_in_use(deadline, || bind_tcp(&address, &listener.options)).map(OwnedFd::from))
                .collect()
        }
    }
}

fn retry_in_use<T>(deadline: Instant, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn probe(address: &SockAddr, options: &ListenOptions) -> io::Result<()> {
    let socket = Socket::new(address.domain(), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.domain() == Domain::IPV6 {
        socket.set_only_v6(options.ipv6only)?;
    }
    socket.bind(address)?;
    socket.listen(1)
}

fn bind_tcp(address: &SockAddr, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.domain() == Domain::IPV6 {
        socket.set_only_v6(options.ipv6only)?;
    }
    if let Some(bytes) = options.rcvbuf {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.sndbuf {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(keepalive) = options.keepalive {
        socket.set_tcp_keepalive(&keepalive_of(keepalive))?;
    }
    // Accepted sockets inherit it (tcp(7)): a message must not wait for the acknowledgement of the one before.
    socket.set_tcp_nodelay(true)?;
    socket.bind(address)?;
    if options.deferred {
        sys::defer_accept(&socket)?;
    }
    if let Some(queue) = options.fastopen {
        sys::fast_open(&socket, queue)?;
    }
    socket.listen(options.backlog)?;
    Ok(socket)
}

fn keepalive_of(keepalive: KeepAlive) -> TcpKeepalive {
    let mut parameters = TcpKeepalive::new();
    if let Some(idle) = keepalive.idle {
        parameters = parameters.with_time(idle);
    }
    if let Some(interval) = keepalive.interval {
        parameters = parameters.with_interval(interval);
    }
    if let Some(count) = keepalive.count {
        parameters = parameters.with_retries(count);
    }
    parameters
}

fn bind_unix(path: &Path, options: &ListenOptions) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    if let Err(error) = socket.bind(&address) {
        let stale = error.kind() == io::ErrorKind::AddrInUse
            && matches!(UnixStream::connect(path), Err(error) if error.kind() == io::ErrorKind::ConnectionRefused);
        if !stale {
            return Err(error);
        }
        fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    // As nginx: who may reach the directory may connect.
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    socket.listen(options.backlog)?;
    Ok(socket)
}

fn explain(address: &ListenAddress, error: &io::Error) -> String {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there: `ss -ltnp` (or `ss -lxp`) names it",
        io::ErrorKind::AddrNotAvailable => "no interface of this host has the address: `ip addr` lists those it has",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE; under SELinux the port needs the label http_port_t"
        }
        io::ErrorKind::NotFound => "the directory of the socket does not exist",
        _ => "see bind(2) and listen(2)",
    };
    format!("bind() to {address} failed ({}): {cure}", os_error(error))
}

/// Accepts up to [`ACCEPTS_PER_TURN`] connections, waiting for the first.
async fn accept_turn(worker: &Rc<Worker>, door: &Door) {
    let socket = &door.socket;
    let mut failed = None;
    for _ in 0..ACCEPTS_PER_TURN {
        if worker.is_full() && worker.relief().is_none() {
            worker.warn_full();
            return worker.reactor.sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
        }
        let generation = worker.generation();
        // It was told of both together, so that each listening socket has its listener.
        let Some(listener) = generation.listener(&door.address) else {
            return worker.reactor.sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
        };
        match sys::accept(socket.as_fd()) {
            Ok((fd, peer)) => {
                failed = None;
                Counters::bump(&worker.counters.accepted);
                serve_or_hand_over(worker, Accepted { fd, peer: Address::from(&peer), generation, listener });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await,
            Err(error) if is_shortage(&error) => {
                let ssl = generation.config.listeners[listener].ssl;
                return shortage(worker, ssl, socket, &error).await;
            }
            // The connection itself went wrong before it was accepted (accept(2), "Error handling"): the next one may be fine.
            Err(error) => {
                Counters::bump(&worker.counters.accept_errors);
                failed = Some(error);
            }
        }
    }
    if let Some(error) = failed {
        // Or the listener did, and would go wrong without end.
        let message = format_args!("accept4() failed ({}): resting the listener", os_error(&error));
        worker.log(Level::Crit, message);
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

fn is_shortage(error: &io::Error) -> bool {
    use nix::errno::Errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM};
    error
        .raw_os_error()
        .is_some_and(|code| [EMFILE, ENFILE, ENOBUFS, ENOMEM].contains(&nix::errno::Errno::from_raw(code)))
}

/// No descriptor or memory for a connection. The reserve descriptor lets one waiting client in to be told so; then the listener
/// rests: asking again at once would only spin.
async fn shortage(worker: &Rc<Worker>, ssl: bool, socket: &Descriptor, error: &io::Error) {
    Counters::bump(&worker.counters.accept_errors);
    worker.log(
        Level::Crit,
        format_args!(
            "accept4() failed ({}): resting the listener for {ACCEPT_PAUSE_MS} ms; raise worker_rlimit_nofile",
            os_error(error)
        ),
    );
    if worker.reserve.take().is_some()
        && let Ok((fd, _)) = sys::accept(socket.as_fd())
        && !ssl
    {
        // One short answer fits any socket buffer; a client that cannot take it is closed all the same.
        let refusal = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let _ = sys::send(fd.as_fd(), refusal);
    }
    worker.open_reserve();
    worker.reactor.sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;
    use crate::{
        balance::Balance, generation::tests::generation, reactor::yield_now, request::tests::config, worker::State,
    };

    /// One whose file listens on port 80.
    fn worker() -> Rc<Worker> {
        let listener = crate::config::Listener {
            address: address(),
            options: ListenOptions::default(),
            ssl: false,
            default: 0,
            names: Default::default(),
            servers: Vec::new(),
        };
        let config = Config { listeners: vec![listener], ..config(Vec::new(), Vec::new()) };
        Worker::new(0, generation(Arc::new(config)), Arc::default(), Arc::default(), Arc::new(Balance::new(1).unwrap()))
            .unwrap()
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
