//! `proxy_pass`: which backend, the request to it, and its answer: a response to relay or a tunnel to open.

mod attempt;
mod connection;
mod relay;
mod round;
mod target;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};

use self::{round::Round, target::target};
use crate::{
    config::{Level, ProxyPass, Settings},
    forward,
    generation::Generation,
    http::{body::Framing, refusal::Refusal},
    limits::EARLY_BYTES,
    observe::{
        counters::Counters,
        error_log::{self, About},
    },
    pool,
    request::{Attempt, Request},
    route::origin,
    stream::Stream,
    upstream::{Leg, ports::Port},
    websocket::handshake::{self, Upgrade},
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
    /// The backend's side.
    pub switched: Switched,
    /// What it counts in.
    pub leg: Leg,
}

/// A backend whose 101 was passed on.
pub struct Switched {
    /// The connection to it.
    pub backend: Stream,
    /// What it sent behind the 101.
    pub greeting: Vec<u8>,
    /// RSV bits that frames may use; none: not a websocket.
    pub frames: Option<u8>,
    /// The connection's local port; none of a unix socket.
    pub port: Option<Port>,
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
    let preface = forward::preface(request);
    // A connection that names a client carries no other's requests.
    let shared = target.upstream.filter(|_| preface.is_empty());
    let limits = shared.and_then(|index| request.config.upstreams.get(index)?.keepalive);
    let keep = limits.filter(|_| forward::keeps_backend(request, upgrade));
    let head = forward::request_head(request, pass, upgrade, keep.is_some())?;
    let round = Round {
        client,
        settings,
        target: &target,
        method: &method,
        head: &head,
        preface: &preface,
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
