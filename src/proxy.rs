//! `proxy_pass`: which backend, the request to it, and its answer: a response to relay or a tunnel to open.

mod connection;
mod relay;
mod target;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use self::{
    connection::Wire,
    relay::Relay,
    target::{Target, target},
};
use crate::{
    config::{KeepIdle, Level, ProxyPass, Settings},
    exchange::{self, Beside, NoHead, Upload, UploadError},
    forward,
    generation::Generation,
    http::{
        body::{Framing, response_framing},
        head::{ResponseHead, Version},
        refusal::Refusal,
    },
    limits::{EARLY_BYTES, INTERIM_RESPONSES},
    observe::{
        counters::Counters,
        error_log::{self, About},
        tally::PeerTally,
    },
    pool::{self, Kept},
    reactor::{Either, race},
    request::{Attempt, Request, routing},
    route::origin,
    stream::Stream,
    upstream::{Choice, Tried},
    websocket::handshake::{self, Answer, Upgrade},
    worker::Worker,
};

/// The client's side of a request to be forwarded.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// What its session is served by.
    pub generation: &'a Arc<Generation>,
    /// The connection.
    pub stream: &'a Stream,
    /// What was read of it beyond the request's head.
    pub buffer: &'a RefCell<Vec<u8>>,
    /// The connection may carry another request, once this one's body is read.
    pub keep_alive: bool,
}

impl Client<'_> {
    fn log(self, level: Level, request: &Request, message: std::fmt::Arguments<'_>) {
        error_log::event(&self.generation.logs, level, &About::Request(request), message);
    }
}

/// What becomes of the client's connection after a request.
pub enum Next {
    /// The next request.
    KeepAlive,
    /// The end: everything was said.
    Close,
    /// The end, but the client may still be sending and must not lose our answer to a RST.
    Linger,
    /// The end at once: the answer could not be finished, and the client must see that.
    Cut,
    /// A tunnel.
    Tunnel(Box<Opening>),
}

/// A tunnel about to open.
pub struct Opening {
    /// The backend, its 101 read.
    pub backend: Stream,
    /// What it sent behind the 101.
    pub greeting: Vec<u8>,
    /// RSV bits that frames may use; none: not a websocket.
    pub frames: Option<u8>,
    /// The backend's number among the peers of the file; none of an address that variables came to.
    pub peer: Option<u32>,
}

/// Serves a request by its location's `proxy_pass`.
///
/// # Errors
/// What to answer instead, while nothing was sent to the client.
pub async fn serve(client: Client<'_>, request: &mut Request, pass: &ProxyPass) -> Result<Next, Refusal> {
    let settings = Arc::clone(request.settings());
    let counters = &client.worker.counters;
    let upgrade = match handshake::judge_request(&request.head, &settings.protocols) {
        Ok(upgrade) => upgrade,
        Err(refusal) => {
            Counters::bump(&counters.upgrades_refused);
            request.head.keep_alive = false;
            return Err(refusal);
        }
    };
    let result = pass_on(client, request, pass, &settings, upgrade.as_ref()).await;
    if upgrade.is_some() {
        match &result {
            // Counted as the tunnel it becomes.
            Ok(Next::Tunnel(_)) => {}
            Ok(_) => Counters::bump(&counters.upgrades_declined),
            Err(refusal) if refusal.status < 499 || refusal.reason == DRAINING => {
                Counters::bump(&counters.upgrades_refused)
            }
            Err(_) => Counters::bump(&counters.upgrades_failed),
        }
    }
    result
}

/// The same for a request of which it is known whether it asks for an upgrade.
async fn pass_on(
    client: Client<'_>,
    request: &mut Request,
    pass: &ProxyPass,
    settings: &Settings,
    upgrade: Option<&Upgrade>,
) -> Result<Next, Refusal> {
    if upgrade.is_some() {
        request.head.keep_alive = false;
        if client.worker.refuses_tunnels() {
            // It would be closed again soon, and its client be back for a third time.
            return Err(Refusal::new(503, DRAINING, "no more tunnels are taken: this process ends"));
        }
        check_origin(client, request, settings)?;
        if client.buffer.borrow().len() > EARLY_BYTES {
            return Err(Refusal::new(
                400,
                "early_bytes",
                "too much was sent behind an upgrade that is not granted yet",
            ));
        }
    }
    let method = forward::backend_method(request, upgrade)?;
    if let Framing::Length(length) = request.head.body
        && settings.max_body_bytes > 0
        && length > settings.max_body_bytes
    {
        return Err(Refusal::new(413, "body_too_large", "Content-Length is beyond client_max_body_size"));
    }
    let target = target(client, request, pass)?;
    let limits = target.upstream.and_then(|index| request.config.upstreams.get(index)?.keepalive);
    let keep = limits.filter(|_| forward::keeps_backend(request, upgrade));
    let head = forward::request_head(request, pass, upgrade, keep.is_some())?;
    let round = Round {
        client,
        settings,
        target: &target,
        method: &method,
        head: &head,
        upgrade,
        pool: target
            .upstream
            .filter(|_| limits.is_some())
            .map(|upstream| pool::Group { generation: client.generation.number, upstream }),
        keep,
        started: Instant::now(),
    };
    if !request.attempts.is_empty() {
        request.attempts.push(Attempt::default());
    }
    round.run(request).await
}

fn check_origin(client: Client<'_>, request: &Request, settings: &Settings) -> Result<(), Refusal> {
    let Some(origins) = &settings.origins else { return Ok(()) };
    let scheme = if client.stream.is_tls() { "https" } else { "http" };
    if origin::origin_allowed(origins, &request.head, scheme) {
        return Ok(());
    }
    Err(Refusal::new(403, "origin", "Origin is not one of websocket_origin"))
}

const DRAINING: &str = "draining";
const TRY_ELSEWHERE: &str = "the backend answered with a status to be tried elsewhere";

/// The attempts of one request.
struct Round<'a> {
    client: Client<'a>,
    settings: &'a Settings,
    target: &'a Target<'a>,
    method: &'a str,
    head: &'a [u8],
    upgrade: Option<&'a Upgrade>,
    /// Where connections of other requests may wait for this one.
    pool: Option<pool::Group>,
    /// The connection of this one may wait for others.
    keep: Option<KeepIdle>,
    /// For `proxy_next_upstream_timeout`.
    started: Instant,
}

/// Why an attempt came to nothing.
struct Failed {
    refusal: Refusal,
    kind: Kind,
    /// The request, or part of it, has reached the backend.
    sent: bool,
    /// Part of the request's body was used up: it cannot be sent again.
    body_used: bool,
    /// A connection that another request had used ended before a byte of the answer: its backend closed it as the request was on its
    /// way.
    stale: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Timeout,
    InvalidHeader,
    Status(u16),
    /// An answer that `error_page` replaces.
    Intercepted,
    /// The client's doing: no backend is to blame, and none is tried again.
    Client,
}

impl Round<'_> {
    async fn run(&self, request: &mut Request) -> Result<Next, Refusal> {
        let group = self.target.group();
        let mut tried = Tried::default();
        for number in 1.. {
            let Some(choice) = group.choose(&mut tried, Instant::now()) else { break };
            let tries = self.settings.next_upstream.tries as usize;
            let last = number == group.len() || (tries > 0 && number >= tries);
            request.attempts.push(Attempt {
                address: Arc::clone(&choice.address),
                began: request.started.elapsed(),
                ..Attempt::default()
            });
            if let Some(tally) = self.tally(&choice) {
                tally.requests.fetch_add(1, Relaxed);
            }
            let failed = match self.attempt_twice(request, &choice, last).await {
                Ok(outcome) => {
                    group.succeeded(choice.peer);
                    return Ok(outcome);
                }
                Err(failed) => failed,
            };
            match failed.kind {
                Kind::Client => return Err(failed.refusal),
                Kind::Intercepted => {
                    group.succeeded(choice.peer);
                    return Err(failed.refusal);
                }
                _ => self.blame(request, &choice, &failed),
            }
            if !self.may_go_on(request, &failed, last) {
                // A backend that breaks the protocol may have been made to by this client: they part here.
                request.head.keep_alive &= failed.kind != Kind::InvalidHeader;
                return Err(failed.refusal);
            }
            let message = format_args!("{} ({}), trying the next server", failed.refusal.detail, failed.refusal.reason);
            self.client.log(Level::Error, request, message);
        }
        // As nginx: the group stands where an address would.
        let address = Arc::from(&*request.proxy_host);
        request.attempts.push(Attempt {
            address,
            status: 502,
            response_time: Some(Duration::ZERO),
            ..Attempt::default()
        });
        Err(Refusal::new(502, "no_live_upstreams", "no live upstreams while connecting to upstream"))
    }

    /// `proxy_next_upstream`: may another server have this request?
    fn may_go_on(&self, request: &Request, failed: &Failed, last: bool) -> bool {
        let next = &self.settings.next_upstream;
        let wanted = match failed.kind {
            Kind::Error => next.error,
            Kind::Timeout => next.timeout,
            Kind::InvalidHeader => next.invalid_header,
            Kind::Status(status) => next.statuses.contains(&status),
            Kind::Intercepted | Kind::Client => false,
        };
        let late = !next.timeout_total.is_zero() && self.started.elapsed() >= next.timeout_total;
        wanted && !last && !late && self.may_repeat(request, failed)
    }

    /// RFC 9110 section 9.2.2: what may have been acted upon is not repeated, unless the file says so.
    fn may_repeat(&self, request: &Request, failed: &Failed) -> bool {
        let idempotent = !matches!(request.head.method.as_ref(), "POST" | "LOCK" | "PATCH");
        !failed.body_used && (!failed.sent || idempotent || self.settings.next_upstream.non_idempotent)
    }

    /// Passive health: the attempt counts against its peer. As in nginx a 403 or 404 does not: another server may have the file.
    fn blame(&self, request: &mut Request, choice: &Choice, failed: &Failed) {
        note(request, |attempt| {
            attempt.status = if let Kind::Status(status) = failed.kind { status } else { failed.refusal.status };
        });
        let group = self.target.group();
        if matches!(failed.kind, Kind::Status(403 | 404)) {
            return;
        }
        if let Some(tally) = self.tally(choice) {
            tally.fails.fetch_add(1, Relaxed);
        }
        if group.failed(choice.peer, Instant::now()) {
            let message = format_args!("upstream server {} temporarily disabled", group.name(choice.peer));
            self.client.log(Level::Warn, request, message);
        }
    }

    fn number(&self, choice: &Choice) -> Option<u32> {
        self.client.generation.tallies.number(self.target.upstream?, choice.peer)
    }

    fn tally(&self, choice: &Choice) -> Option<&PeerTally> {
        self.number(choice).and_then(|number| self.client.generation.tallies.peer(number)).map(Arc::as_ref)
    }

    /// One backend; once more, by a new connection, where the one that had waited turns out to be closed. That is no fault of the
    /// backend's, and no other one need be tried.
    async fn attempt_twice(&self, request: &mut Request, choice: &Choice, last: bool) -> Result<Next, Failed> {
        let first = self.attempt(request, choice, last, false).await;
        match first {
            Err(failed) if failed.stale && self.may_repeat(request, &failed) => {
                note(request, |attempt| attempt.status = failed.refusal.status);
                let message = format_args!("{} on a kept connection, asking again by a new one", failed.refusal.detail);
                self.client.log(Level::Info, request, message);
                let began = request.started.elapsed();
                let address = Arc::clone(&choice.address);
                request.attempts.push(Attempt { address, began, ..Attempt::default() });
                self.attempt(request, choice, last, true).await
            }
            first => first,
        }
    }

    /// One backend. `last`: no other will be tried, so its answer is the answer, whatever its status. `fresh`: by a new connection.
    async fn attempt(&self, request: &mut Request, choice: &Choice, last: bool, fresh: bool) -> Result<Next, Failed> {
        let started = Instant::now();
        let wire = Wire::default();
        let result = match self.connect(choice, &wire, fresh).await {
            Ok(kept) => self.ask(request, choice, last, kept, &wire, started).await,
            Err(failed) => Err(failed),
        };
        request.received += wire.upload.taken.get();
        note(request, |attempt| {
            attempt.response_time = Some(started.elapsed());
            attempt.bytes_sent = wire.upload.sent.get();
            attempt.bytes_received = wire.received.get();
        });
        if result.is_err() && wire.upload.taken.get() > 0 {
            // Whoever answers now has no body to pass on, and the rest of it, if any, is not the next request.
            request.head.body = Framing::None;
            request.head.keep_alive &= wire.upload.whole.get();
        }
        result
    }

    async fn ask(
        &self,
        request: &mut Request,
        choice: &Choice,
        last: bool,
        kept: Kept,
        wire: &Wire,
        started: Instant,
    ) -> Result<Next, Failed> {
        let Kept { stream: backend, requests, opened } = kept;
        note(request, |attempt| attempt.connect_time = Some(started.elapsed()));
        self.send_head(&backend, wire).await?;
        self.go_on(request, wire).await?;
        let upload = Upload {
            client: self.client.stream,
            buffer: self.client.buffer,
            backend: &backend,
            settings: self.settings,
            progress: &wire.upload,
        };
        let mut upload = Beside::new(upload.run(request.head.body));
        let mut buffer = Vec::new();
        let head = self.answer(request, &backend, &mut upload, &mut buffer, wire).await?;
        note(request, |attempt| {
            attempt.status = head.status;
            attempt.header_time = Some(started.elapsed());
        });
        let failed = |refusal, kind| wire.failed(refusal, kind);
        request.upstream_fields = head.fields.clone();
        match handshake::judge_answer(&head, self.upgrade).map_err(|refusal| failed(refusal, Kind::InvalidHeader))? {
            Answer::Switched { rsv } => {
                drop(upload);
                // What came behind the 101 is the tunnel's to count.
                wire.received.set(wire.received.get() - buffer.len() as u64);
                let frames = self.upgrade.and_then(|upgrade| upgrade.websocket.as_ref()).map(|_| rsv);
                let peer = self.number(choice);
                self.switch(request, &head, Opening { backend, greeting: buffer, frames, peer }).await
            }
            Answer::Plain => {
                let elsewhere =
                    failed(Refusal::new(head.status, "upstream_status", TRY_ELSEWHERE), Kind::Status(head.status));
                if self.may_go_on(request, &elsewhere, last) {
                    return Err(elsewhere);
                }
                let intercept = self.settings.intercept_errors && head.status >= 300;
                if intercept && routing::error_page(request, head.status).is_some() {
                    let refusal = Refusal::new(head.status, "intercepted", "proxy_intercept_errors");
                    return Err(failed(refusal, Kind::Intercepted));
                }
                let framing =
                    response_framing(&head, self.method).map_err(|refusal| failed(refusal, Kind::InvalidHeader))?;
                let persists = head.keep_alive && framing != Framing::UntilClose;
                let relay = Relay { round: self, backend: &backend, wire };
                let next = relay.run(request, head, framing, &mut buffer, &mut upload).await;
                let is_whole = request.completed && matches!(upload.output(), Some(Ok(())));
                drop(upload);
                if persists && is_whole && buffer.is_empty() {
                    self.give_back(&choice.backend, Kept { stream: backend, requests: requests + 1, opened });
                }
                Ok(next)
            }
        }
    }

    async fn send_head(&self, backend: &Stream, wire: &Wire) -> Result<(), Failed> {
        wire.head_sent.set(true);
        let sending = backend.write_all(self.head);
        match self.client.worker.reactor.within(self.settings.send_timeout, sending).await {
            Ok(Ok(())) => {
                wire.upload.sent.set(self.head.len() as u64);
                Ok(())
            }
            Ok(Err(error)) => {
                let detail = format!("sending the request to upstream failed ({error})").into();
                Err(wire.failed(Refusal { status: 502, reason: "upstream_send", detail }, Kind::Error))
            }
            Err(_) => {
                let refusal = Refusal::new(
                    504,
                    "upstream_send_timeout",
                    "upstream timed out (110: Connection timed out) while sending request to upstream",
                );
                Err(wire.failed(refusal, Kind::Timeout))
            }
        }
    }

    /// `Expect: 100-continue` is answered here, as nginx does: the backend is there, the body is within its limit, and a backend
    /// that knows no 100 would leave the client waiting.
    async fn go_on(&self, request: &mut Request, wire: &Wire) -> Result<(), Failed> {
        if !std::mem::take(&mut request.head.expects_continue) {
            return Ok(());
        }
        self.say(request, b"HTTP/1.1 100 Continue\r\n\r\n", wire).await
    }

    /// Sends the client what is not its answer yet.
    async fn say(&self, request: &mut Request, bytes: &[u8], wire: &Wire) -> Result<(), Failed> {
        let sending = self.client.stream.write_all(bytes);
        match self.client.worker.reactor.within(self.settings.client_send_timeout, sending).await {
            Ok(Ok(())) => {
                request.bytes_sent += bytes.len() as u64;
                Ok(())
            }
            _ => Err(wire.failed(client_left(), Kind::Client)),
        }
    }

    /// Waits for the final response head, while the body goes up; interim heads are passed on.
    async fn answer<F: Future<Output = Result<(), UploadError>>>(
        &self,
        request: &mut Request,
        backend: &Stream,
        upload: &mut Beside<F>,
        buffer: &mut Vec<u8>,
        wire: &Wire,
    ) -> Result<ResponseHead, Failed> {
        for _ in 0..INTERIM_RESPONSES {
            let head = self.next_response_head(backend, upload, buffer, wire).await?;
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
            // RFC 9110 section 15.2: a 1.0 client knows no interim responses.
            if request.head.version == Version::Http11 {
                self.say(request, &forward::interim_head(&head), wire).await?;
            }
        }
        let refusal = Refusal::new(502, "upstream_interim", "upstream sent too many interim (1xx) responses");
        Err(wire.failed(refusal, Kind::InvalidHeader))
    }

    async fn next_response_head<F: Future<Output = Result<(), UploadError>>>(
        &self,
        backend: &Stream,
        upload: &mut Beside<F>,
        buffer: &mut Vec<u8>,
        wire: &Wire,
    ) -> Result<ResponseHead, Failed> {
        let head_bytes = self.settings.response_head_bytes;
        let no_head = |no_head| match no_head {
            NoHead::Lost(refusal) => wire.failed(refusal, Kind::Error),
            NoHead::Invalid(refusal) => wire.failed(refusal, Kind::InvalidHeader),
        };
        // While the body goes up, its own timeouts hold: the backend may answer only when it has all of it.
        while upload.is_running() {
            let reading = exchange::read_head(backend, buffer, head_bytes, &wire.received);
            if let Either::Left(result) = upload.with(reading).await {
                return result.map_err(no_head);
            }
            match upload.output() {
                Some(Err(UploadError::Client(refusal))) => return Err(wire.failed(refusal.clone(), Kind::Client)),
                Some(Err(UploadError::Backend(refusal))) if refusal.status == 504 => {
                    return Err(wire.failed(refusal.clone(), Kind::Timeout));
                }
                // The backend takes no more of the body: it may have answered before it closed.
                Some(Err(UploadError::Backend(_)) | Ok(())) | None => {}
            }
        }
        let reading = exchange::read_head(backend, buffer, head_bytes, &wire.received);
        let reading = race(reading, self.client.stream.descriptor().hangup());
        match self.client.worker.reactor.within(self.settings.read_timeout, reading).await {
            Ok(Either::Left(result)) => result.map_err(no_head),
            Ok(Either::Right(())) => Err(wire.failed(client_left(), Kind::Client)),
            Err(_) => {
                let detail =
                    "upstream timed out (110: Connection timed out) while reading response header from upstream";
                Err(wire.failed(Refusal::new(504, "upstream_read_timeout", detail), Kind::Timeout))
            }
        }
    }

    /// Passes the 101 on: from here the connection is a tunnel.
    async fn switch(&self, request: &mut Request, head: &ResponseHead, opening: Opening) -> Result<Next, Failed> {
        let Some(upgrade) = self.upgrade else {
            let refusal = Refusal::new(502, "unasked_101", "upstream sent 101 to a request that asked for no upgrade");
            return Err(Wire::default().failed(refusal, Kind::InvalidHeader));
        };
        let reply = forward::switching_head(request, head, upgrade);
        let sending = self.client.stream.write_all(&reply);
        match self.client.worker.reactor.within(self.settings.client_send_timeout, sending).await {
            Ok(Ok(())) => {
                request.bytes_sent += reply.len() as u64;
                Ok(Next::Tunnel(Box::new(opening)))
            }
            _ => Err(Wire::default().failed(client_left(), Kind::Client)),
        }
    }
}

fn client_left() -> Refusal {
    Refusal::new(499, "client_closed", "client closed connection while waiting for the backend")
}

fn note(request: &mut Request, change: impl FnOnce(&mut Attempt)) {
    if let Some(attempt) = request.attempts.last_mut() {
        change(attempt);
    }
}
