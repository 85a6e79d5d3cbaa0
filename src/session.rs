//! The life of a connection: PROXY protocol, TLS, head, route, answer; then the next request, a tunnel, or the end.

mod answer;
mod arrival;
mod brake;
mod preaccess;
mod tunnels;

use std::{
    cell::RefCell,
    io,
    os::fd::AsFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arrival::Gone;
use socket2::{SockAddr, SockRef};
pub use tunnels::{tunnel_ended, tunnel_goes_on};

use crate::{
    balance::Accepted,
    config::{Level, ListenAddress, Listener, Server, TunnelEvent},
    generation::Generation,
    http::head::{RequestHead, Version},
    observe::{
        access_log,
        counters::{Counted, Counters, Stage},
        error_log::{self, About},
    },
    proxy::{Next, Opening},
    record::Record,
    request::{Address, ClientConnection, Request, Traffic},
    route::server_name::ServerId,
    stream::Stream,
    tunnel::{self, Pair},
    worker::{Pending, Worker},
};

/// Serial numbers of connections, over all workers.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// A connection being served.
struct Session {
    worker: Rc<Worker>,
    stream: Stream,
    client: Arc<ClientConnection>,
    /// Bytes read and not used yet.
    buffer: RefCell<Vec<u8>>,
    /// What it is served by.
    generation: Arc<Generation>,
    /// Index of its listener in there.
    listener: usize,
    /// What holds until a request names its host: the listener's default, or the server that the client's SNI named.
    server: ServerId,
    /// The connection begins with a PROXY protocol header, which has not been there yet.
    proxy_header_due: bool,
    /// Plain HTTP where TLS is spoken.
    plain_on_tls: bool,
    ordinal: u64,
    /// How long to wait for the next request: the last one's location says it.
    keepalive_timeout: Duration,
    /// When the current request's first byte was there, and the length of its head.
    head_began: Instant,
    head_bytes: u64,
    /// It was there before the one before it was answered.
    pipelined: bool,
    counted: Counted,
    /// The current request is an upgrade.
    pending: Option<Pending>,
}

/// Serves a connection from accept to close (or to its tunnel).
pub async fn serve(worker: Rc<Worker>, connection: Accepted) {
    let Some(mut session) = Session::open(worker, connection) else { return };
    loop {
        let head = session.next_head().await;
        // Boxed, so that a connection that waits for its request does not hold the room that answering it takes.
        let Some((request, next)) = Box::pin(session.respond(head)).await else {
            return session.stream.finish().await;
        };
        session.ordinal += 1;
        match next {
            Next::Tunnel(opening) => return session.into_tunnel(request, *opening),
            next => {
                session.request_ended(request);
                match next {
                    Next::KeepAlive => {}
                    Next::Close => return session.stream.finish().await,
                    Next::Linger => return Box::pin(session.stream.linger()).await,
                    Next::Cut | Next::Tunnel(_) => return session.stream.reset(),
                }
            }
        }
    }
}

impl Session {
    fn open(worker: Rc<Worker>, connection: Accepted) -> Option<Self> {
        let Accepted { fd, peer, generation, listener: index } = connection;
        let listener = &generation.config.listeners[index];
        let client = ClientConnection {
            serial: SERIAL.fetch_add(1, Relaxed),
            local: local_address(&listener.address, &fd),
            remote: peer,
            proxied: None,
            tls: None,
            accepted: worker.reactor.now(),
        };
        let io = match worker.reactor.watch(fd) {
            Ok(io) => io,
            Err(error) => {
                worker.lacks("epoll_ctl", &error, "new connections are closed");
                return None;
            }
        };
        Some(Self {
            head_began: client.accepted,
            stream: Stream::new(io, Rc::clone(&worker.scratch)),
            client: Arc::new(client),
            buffer: RefCell::default(),
            server: listener.default,
            proxy_header_due: listener.proxy_protocol,
            plain_on_tls: false,
            listener: index,
            ordinal: 0,
            keepalive_timeout: Duration::ZERO,
            head_bytes: 0,
            pipelined: false,
            counted: Counted::new(&worker.counters),
            pending: None,
            generation,
            worker,
        })
    }

    /// What follows the wait for a request, which `head` ended. None: nothing is to be said.
    async fn respond(&mut self, head: Result<RequestHead, Gone>) -> Option<(Box<Request>, Next)> {
        match head {
            Ok(head) => {
                self.counted.enter(Stage::Writing);
                Some(self.answer(head).await)
            }
            Err(Gone::Refused(refusal)) => Some(self.refuse_head(&refusal).await),
            Err(Gone::Quietly) => None,
        }
    }

    fn request(&self, head: RequestHead) -> Request {
        let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let line = [head.method.as_bytes(), b" ", &head.target, b" ", version.as_bytes()].concat();
        let (config, client) = (Arc::clone(&self.generation.config), Arc::clone(&self.client));
        let mut request = Request::new(config, client, self.ordinal + 1, self.server, head, line, self.head_began);
        request.choose_server(self.listener());
        request.received = self.head_bytes;
        request.pipelined = self.pipelined;
        request
    }

    fn request_ended(&mut self, mut request: Box<Request>) {
        self.pending = None;
        self.keepalive_timeout = request.settings().keepalive_timeout;
        Counters::bump(&self.worker.counters.requests);
        if let Some(tally) = self.generation.tallies.server(request.server) {
            tally.requests.fetch_add(1, Relaxed);
        }
        self.worker.worked();
        access_log::record(&self.generation.logs, &mut request);
    }

    /// Hands both sockets to the tunnel table: this task ends.
    fn into_tunnel(self, mut request: Box<Request>, opening: Opening) {
        request.tunnel(TunnelEvent::Open, Traffic::default(), self.worker.reactor.now());
        access_log::record(&self.generation.logs, &mut request);
        let terms = tunnels::terms(request.settings());
        self.worker.counters.upgrade_times.note(self.worker.reactor.now().saturating_duration_since(request.started));
        let (fd, tls) = self.stream.into_parts();
        let client = tunnel::End { fd, tls };
        let Opening { switched, leg } = opening;
        let (fd, tls) = switched.backend.into_parts();
        let (generation, server) = (Arc::clone(&self.generation), request.server);
        let pair = Pair {
            client,
            upstream: tunnel::End { fd, tls },
            from_client: self.buffer.into_inner(),
            from_upstream: switched.greeting,
            frames: switched.frames,
            terms,
            record: Record::of(request, self.generation, leg),
        };
        Counters::bump(&self.worker.counters.tunnels);
        // Behind that: at no moment it is neither, or whoever ends the process might take it for the last one.
        drop(self.pending);
        let scratch = &mut self.worker.scratch.borrow_mut();
        match self.worker.tunnels.borrow_mut().carry(pair, scratch) {
            Ok(()) => generation.tunnel_opened(server),
            Err(error) => {
                Counters::bump(&self.worker.counters.tunnels_ended);
                self.worker.lacks("epoll_ctl", &error, "tunnels are closed");
            }
        }
    }

    fn listener(&self) -> &Listener {
        &self.generation.config.listeners[self.listener]
    }

    fn server(&self) -> &Server {
        &self.generation.config.servers[self.server]
    }

    fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        error_log::event(&self.generation.logs, level, &About::Connection(&self.client), message);
    }
}

/// Only a listener on every address has to ask on which of them the client came.
fn local_address(listener: &ListenAddress, fd: &impl AsFd) -> Address {
    if let ListenAddress::Tcp(address) = listener
        && !address.ip().is_unspecified()
    {
        return Address::from(&SockAddr::from(*address));
    }
    let local: io::Result<SockAddr> = SockRef::from(&fd.as_fd()).local_addr();
    local.map_or_else(|_| Address::Unix("".into()), |local| Address::from(&local))
}
