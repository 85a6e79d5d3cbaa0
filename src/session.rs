//! The life of a connection: TLS, head, route, answer; then the next request, a tunnel, or the end.

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

use socket2::{SockAddr, SockRef};
pub use tunnels::{tunnel_ended, tunnel_goes_on};

use crate::{
    balance::Accepted,
    config::{Content, Level, ListenAddress, Listener, Server, TunnelEvent},
    forward,
    generation::Generation,
    http::{
        body::{Framing, is_bodiless},
        head::{Parsed, RequestHead, Version, parse_request, request_line},
        refusal::{self, Refusal},
    },
    inspect,
    limits::STREAM_READ_BYTES,
    observe::{
        access_log,
        counters::{Counted, Counters, Stage},
        error_log::{self, About},
    },
    proxy::{self, Client, Next, Opening},
    reactor::{Either, race},
    record::Record,
    request::{
        Address, ClientConnection, Request, Traffic,
        routing::{self, Routed},
    },
    route::{location::LocationId, server_name::ServerId},
    stream::{End, Failure, Stream},
    tls,
    tunnel::{self, Pair},
    worker::Worker,
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
}

/// What came instead of a request.
enum Gone {
    /// The client left, or idled for its keep-alive time: nothing to say.
    Quietly,
    /// A refusal to be answered.
    Refused(Refusal),
}

/// Serves a connection from accept to close (or to its tunnel).
pub async fn serve(worker: Rc<Worker>, connection: Accepted) {
    let Accepted { fd, peer, generation, listener } = connection;
    let config = &generation.config;
    let client = ClientConnection {
        serial: SERIAL.fetch_add(1, Relaxed),
        local: local_address(&config.listeners[listener].address, &fd),
        remote: peer,
        tls: None,
        accepted: worker.reactor.now(),
    };
    let io = match worker.reactor.watch(fd) {
        Ok(io) => io,
        Err(error) => {
            let about = About::Connection(&client);
            return error_log::event(
                &generation.logs,
                Level::Crit,
                &about,
                format_args!("epoll_ctl() failed ({error})"),
            );
        }
    };
    let stream = Stream::new(io, Rc::clone(&worker.scratch));
    let counted = Counted::new(&worker.counters);
    let mut session = Session {
        head_began: client.accepted,
        worker,
        stream,
        client: Arc::new(client),
        buffer: RefCell::default(),
        server: config.listeners[listener].default,
        plain_on_tls: false,
        generation,
        listener,
        ordinal: 0,
        keepalive_timeout: Duration::ZERO,
        head_bytes: 0,
        pipelined: false,
        counted,
    };
    loop {
        let (request, next) = match session.next_head().await {
            // Boxed, so that a connection that waits for its request does not hold the room that answering it takes.
            Ok(head) => {
                session.counted.enter(Stage::Writing);
                Box::pin(session.answer(head)).await
            }
            Err(Gone::Quietly) => return session.stream.finish().await,
            Err(Gone::Refused(refusal)) => Box::pin(session.refuse_head(&refusal)).await,
        };
        session.ordinal += 1;
        match next {
            Next::Tunnel(opening) => return session.into_tunnel(request, *opening),
            next => {
                session.request_ended(request);
                match next {
                    Next::KeepAlive => {}
                    Next::Close => return session.stream.finish().await,
                    Next::Linger => return session.stream.linger().await,
                    Next::Cut | Next::Tunnel(_) => return session.stream.reset(),
                }
            }
        }
    }
}

impl Session {
    /// Waits for the next request's head. The time for the first runs from accept, TLS included.
    async fn next_head(&mut self) -> Result<RequestHead, Gone> {
        self.pipelined = !self.buffer.get_mut().is_empty();
        self.counted.enter(Stage::Waiting);
        if self.ordinal > 0 && !self.pipelined {
            self.idle().await?;
        }
        self.head_began = self.worker.reactor.now();
        let limit = self.server().header_timeout;
        let reactor = Rc::clone(&self.worker.reactor);
        reactor.within(limit, self.head()).await.unwrap_or_else(|_| Err(self.head_timed_out()))
    }

    /// Between two requests: ends with the first byte of the next.
    async fn idle(&mut self) -> Result<(), Gone> {
        let deadline = Instant::now() + self.keepalive_timeout;
        loop {
            self.renew()?;
            let mut first = Vec::new();
            let limit = deadline.saturating_duration_since(Instant::now());
            let reading = self.worker.reactor.within(limit, self.stream.read(&mut first));
            let told = self.worker.until(|| self.worker.is_draining() || !self.worker.serves_by(&self.generation));
            match race(reading, told).await {
                Either::Left(Ok(Ok(count))) if count > 0 => {
                    *self.buffer.get_mut() = first;
                    return Ok(());
                }
                Either::Right(()) if !self.worker.is_draining() => {}
                _ => return Err(Gone::Quietly),
            }
        }
    }

    /// Goes over to what new sessions are served by, as long as there is a listener where this one came in, and it speaks the same.
    fn renew(&mut self) -> Result<(), Gone> {
        if self.worker.serves_by(&self.generation) {
            return Ok(());
        }
        let generation = self.worker.generation();
        let index = generation.listener(&self.listener().address).ok_or(Gone::Quietly)?;
        let listener = &generation.config.listeners[index];
        if listener.ssl != self.listener().ssl {
            return Err(Gone::Quietly);
        }
        let name = self.client.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        let named = name.and_then(|name| listener.names.find(name.as_bytes()));
        self.server = named.map_or(listener.default, |named| named.server);
        (self.listener, self.generation) = (index, generation);
        Ok(())
    }

    async fn head(&mut self) -> Result<RequestHead, Gone> {
        if self.awaits_tls() {
            Box::pin(self.accept_tls()).await?;
            self.head_began = self.worker.reactor.now();
        }
        loop {
            if !self.buffer.get_mut().is_empty() {
                self.counted.enter(Stage::Reading);
            }
            let parsed = parse_request(&self.buffer.borrow(), &self.server().head);
            match parsed.map_err(Gone::Refused)? {
                Parsed::Complete(head, length) => {
                    self.buffer.get_mut().drain(..length);
                    self.head_bytes = length as u64;
                    return Ok(head);
                }
                Parsed::Partial => {
                    let first = self.buffer.get_mut().is_empty();
                    let reading = self.stream.read(self.buffer.get_mut());
                    let read = unless_silent(&self.worker, first, reading).await?;
                    self.head_read(read)?;
                    if first {
                        self.head_began = self.worker.reactor.now();
                    }
                }
            }
        }
    }

    fn head_read(&mut self, read: Result<usize, Failure>) -> Result<(), Gone> {
        match read {
            Ok(count) if count > 0 => Ok(()),
            Ok(_) if self.buffer.get_mut().is_empty() => Err(Gone::Quietly),
            Ok(_) => {
                let truncated = self.stream.end() == Some(End::Truncated);
                let how = if truncated { " without close_notify" } else { "" };
                self.log(Level::Info, format_args!("client closed connection{how} in the middle of a request head"));
                Err(Gone::Refused(Refusal::new(499, "client_closed", "the client closed within its request head")))
            }
            Err(failure) => {
                self.log(Level::Info, format_args!("reading a request head failed ({failure})"));
                Err(Gone::Quietly)
            }
        }
    }

    fn head_timed_out(&mut self) -> Gone {
        if self.awaits_tls() {
            Counters::bump(&self.worker.counters.tls_failures);
            self.log(Level::Info, format_args!("client timed out in its TLS handshake (client_header_timeout)"));
            return Gone::Quietly;
        }
        if self.buffer.get_mut().is_empty() {
            self.log(Level::Info, format_args!("client timed out before its request (client_header_timeout)"));
            return Gone::Quietly;
        }
        Gone::Refused(Refusal::new(408, "header_timeout", "no complete request head within client_header_timeout"))
    }

    fn awaits_tls(&self) -> bool {
        self.listener().ssl && self.client.tls.is_none() && !self.plain_on_tls
    }

    /// The TLS handshake, by the server block that the client's SNI names. A client that speaks plain HTTP is heard out, so that
    /// it can be told.
    async fn accept_tls(&mut self) -> Result<(), Gone> {
        self.counted.enter(Stage::Reading);
        let mut received = Vec::new();
        let name = loop {
            match tls::peek_hello(&received) {
                tls::Hello::Name(name) => break name,
                tls::Hello::Invalid { plain_http: true } => {
                    self.plain_on_tls = true;
                    *self.buffer.get_mut() = received;
                    return Ok(());
                }
                tls::Hello::Invalid { plain_http: false } => return Err(self.tls_failed(&"no TLS ClientHello")),
                tls::Hello::Partial => match unless_silent(
                    &self.worker,
                    received.is_empty(),
                    self.stream.read_raw(&mut received, STREAM_READ_BYTES),
                )
                .await?
                {
                    Ok(0) if received.is_empty() => return Err(Gone::Quietly),
                    Ok(0) => return Err(self.tls_failed(&"the client closed within its ClientHello")),
                    Ok(_) => {}
                    Err(error) => return Err(self.tls_failed(&error)),
                },
            }
        };
        let config = Arc::clone(&self.generation.config);
        let listener = &config.listeners[self.listener];
        if let Some(named) = name.as_deref().and_then(|name| listener.names.find(name.as_bytes())) {
            self.server = named.server;
        }
        let fallback = || config.servers[listener.default].tls.as_ref();
        let Some(tls) = self.server().tls.as_ref().or_else(fallback) else {
            return Err(self.tls_failed(&format_args!("server {} has no ssl_certificate", self.server().place)));
        };
        let session = tls::Session::server(tls).map_err(|error| self.tls_failed(&Failure::Tls(error)))?;
        let facts = match self.stream.handshake(Box::new(session), received).await {
            Ok(facts) => facts,
            Err(error) => return Err(self.tls_failed(&error)),
        };
        self.worker.counters.count_tls(&facts);
        let ClientConnection { serial, remote, local, accepted, .. } = &*self.client;
        self.client = Arc::new(ClientConnection {
            serial: *serial,
            remote: remote.clone(),
            local: local.clone(),
            accepted: *accepted,
            tls: Some(facts),
        });
        Ok(())
    }

    fn tls_failed(&self, cause: &dyn std::fmt::Display) -> Gone {
        Counters::bump(&self.worker.counters.tls_failures);
        self.log(Level::Info, format_args!("TLS handshake failed ({cause})"));
        Gone::Quietly
    }

    /// Routes a request and answers it, error pages and all.
    async fn answer(&mut self, head: RequestHead) -> (Box<Request>, Next) {
        let mut request = Box::new(self.request(head));
        let mut routed = if self.plain_on_tls { Routed::Refuse(497) } else { routing::route(&mut request) };
        loop {
            let refusal = match routed {
                Routed::Content(id) => match self.forward(&mut request, id).await {
                    Ok(next) => return (request, next),
                    Err(refusal) => refusal,
                },
                Routed::Answer { status, body } => {
                    let next = self.return_text(&mut request, status, &body).await;
                    return (request, next);
                }
                Routed::Redirect { status, ref location } => match routing::redirect_error(&mut request, status) {
                    Some(elsewhere) => {
                        routed = elsewhere;
                        continue;
                    }
                    None => {
                        let next = self.redirect(&mut request, status, location).await;
                        return (request, next);
                    }
                },
                Routed::Refuse(status) => of_the_file(status),
                Routed::Forbidden => self.forbidden(&request),
            };
            // What the client did leaves its connection out of step, or it is not worth keeping.
            request.head.keep_alive &= !matches!(refusal.status, 400 | 408 | 413..=414 | 431 | 494..=497);
            // Who closed, or is to be closed on, is not asked to look at a page.
            let page = !matches!(refusal.status, 408 | 444 | 499);
            match page.then(|| routing::redirect_error(&mut request, refusal.status)).flatten() {
                Some(elsewhere) => {
                    self.log_refusal(&request, &refusal);
                    routed = elsewhere;
                }
                None => {
                    let next = self.refuse(&mut request, &refusal).await;
                    return (request, next);
                }
            }
        }
    }

    /// `deny`
    fn forbidden(&self, request: &Request) -> Refusal {
        if request.head.fields.lists("Connection", "upgrade") {
            Counters::bump(&self.worker.counters.upgrades_refused);
        }
        Refusal::private(403, "access_denied", "access forbidden by rule")
    }

    /// The content of a location.
    async fn forward(&mut self, request: &mut Request, location: LocationId) -> Result<Next, Refusal> {
        let config = Arc::clone(&request.config);
        match &config.servers[request.server].locations[location].content {
            Content::Proxy(pass) => proxy::serve(self.to_forward(request), request, pass).await,
            content @ (Content::Status { .. } | Content::Metrics | Content::StubStatus) => {
                let told = inspect::answer(&self.worker, request, content).await?;
                let keep = self.may_keep(request);
                Ok(self.own(request, told.status, "", &told.body, &told.fields, keep).await)
            }
            Content::NotFound | Content::Fallback(_) => Err(of_the_file(404)),
        }
    }

    /// `return` with a text.
    async fn return_text(&mut self, request: &mut Request, status: u16, body: &[u8]) -> Next {
        let keep = self.may_keep(request);
        let kind = request.settings().default_type.clone();
        self.own(request, status, &kind, body, &[], keep).await
    }

    async fn redirect(&mut self, request: &mut Request, status: u16, location: &[u8]) -> Next {
        let keep = self.may_keep(request);
        let body = refusal::page(status, None);
        self.own(request, status, "text/html", &body, &[("Location", location)], keep).await
    }

    /// A request head that is none.
    async fn refuse_head(&mut self, refusal: &Refusal) -> (Box<Request>, Next) {
        let line = request_line(self.buffer.get_mut()).to_vec();
        let mut request = Box::new(Request::refused(
            Arc::clone(&self.generation.config),
            Arc::clone(&self.client),
            self.ordinal + 1,
            self.server,
            line,
            self.head_began,
        ));
        request.received = self.buffer.get_mut().len() as u64;
        let next = self.refuse(&mut request, refusal).await;
        (request, next)
    }

    /// Answers with an error page of our own, and says why in the log.
    async fn refuse(&mut self, request: &mut Request, refusal: &Refusal) -> Next {
        self.log_refusal(request, refusal);
        request.close_reason = Some(refusal.reason);
        if matches!(refusal.status, 444 | 499) {
            request.status = refusal.status;
            return Next::Close;
        }
        let keep = self.may_keep(request);
        self.own(request, refusal.status, "text/html", &refusal.page(), refusal.fields(), keep).await
    }

    fn log_refusal(&self, request: &Request, refusal: &Refusal) {
        self.worker.counters.refusals.bump(refusal.reason);
        let level = if refusal.status >= 500 && refusal.reason != RETURNED { Level::Error } else { Level::Info };
        let message = format_args!("{} ({} {})", refusal.detail, refusal.status, refusal.reason);
        error_log::event(&self.generation.logs, level, &About::Request(request), message);
    }

    /// Sends a whole answer of our own.
    async fn own(
        &mut self,
        request: &mut Request,
        status: u16,
        content_type: &str,
        body: &[u8],
        extra: &[(&str, &[u8])],
        keep: bool,
    ) -> Next {
        let head_only = request.head.method.as_ref() == "HEAD";
        let body_bytes = if is_bodiless(&request.head.method, status) { 0 } else { body.len() as u64 };
        let reply = forward::own_response(request, status, content_type, body, extra, keep, head_only);
        if reply.is_empty() {
            return Next::Close;
        }
        let limit = request.settings().client_send_timeout;
        match self.worker.reactor.within(limit, self.stream.write_all(&reply)).await {
            Ok(Ok(())) => {
                request.bytes_sent += reply.len() as u64;
                request.body_bytes_sent += body_bytes;
                request.completed = true;
                if keep { Next::KeepAlive } else { Next::Linger }
            }
            _ => Next::Cut,
        }
    }

    /// Another request may follow this one: the client wants it, the file allows it, and no body of this one is left unread.
    fn may_keep(&self, request: &Request) -> bool {
        matches!(request.head.body, Framing::None | Framing::Length(0)) && self.keep_alive(request)
    }

    fn keep_alive(&self, request: &Request) -> bool {
        let settings = request.settings();
        request.head.keep_alive
            && self.ordinal + 1 < settings.keepalive_requests
            && !settings.keepalive_timeout.is_zero()
            && !self.worker.is_draining()
    }

    fn to_forward(&self, request: &Request) -> Client<'_> {
        Client {
            worker: &self.worker,
            generation: &self.generation,
            stream: &self.stream,
            buffer: &self.buffer,
            keep_alive: self.keep_alive(request),
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
        let (fd, tls) = opening.backend.into_parts();
        let (generation, server, peer) = (Arc::clone(&self.generation), request.server, opening.peer);
        let pair = Pair {
            client,
            upstream: tunnel::End { fd, tls },
            from_client: self.buffer.into_inner(),
            from_upstream: opening.greeting,
            frames: opening.frames,
            terms,
            record: Record::of(request, self.generation, peer),
        };
        Counters::bump(&self.worker.counters.tunnels);
        let scratch = &mut self.worker.scratch.borrow_mut();
        match self.worker.tunnels.borrow_mut().carry(pair, scratch) {
            Ok(()) => generation.tunnel_opened(server, peer),
            Err(error) => {
                Counters::bump(&self.worker.counters.tunnels_ended);
                self.worker.log(Level::Crit, format_args!("epoll_ctl() failed ({error}): a tunnel was closed"));
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

/// Reads, but gives a connection up that is `silent` so far once the worker takes no more requests.
async fn unless_silent<T>(worker: &Worker, silent: bool, reading: impl Future<Output = T>) -> Result<T, Gone> {
    if !silent {
        return Ok(reading.await);
    }
    match race(reading, worker.takes_no_requests()).await {
        Either::Left(read) => Ok(read),
        Either::Right(()) => Err(Gone::Quietly),
    }
}

/// The refusals that routing decides on.
fn of_the_file(status: u16) -> Refusal {
    match status {
        404 => Refusal::private(404, "not_found", "no location with a proxy_pass, and no files are served"),
        444 => Refusal::private(444, "return_444", "the file says so"),
        497 => Refusal::new(497, "plain_http_on_tls", "The plain HTTP request was sent to HTTPS port."),
        500 => Refusal::private(500, "redirect_cycle", "too many internal redirects"),
        status => Refusal::private(status, RETURNED, "the file says so"),
    }
}

const RETURNED: &str = "returned";

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
