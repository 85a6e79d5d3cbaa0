//! Until a request is there: the PROXY protocol header, the TLS handshake, the head, the wait between two requests, and the deadline over it.

use std::{
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use super::Session;
use crate::{
    config::Level,
    http::{
        head::{Parsed, RequestHead, parse_request},
        refusal::Refusal,
    },
    limits::STREAM_READ_BYTES,
    observe::counters::{Counters, Stage},
    proxy_protocol,
    reactor::{Either, race},
    stream::{End, Failure},
    tls,
    worker::Worker,
};

/// What came instead of a request.
pub(super) enum Gone {
    /// The client left, or idled for its keep-alive time: nothing to say.
    Quietly,
    /// A refusal to be answered.
    Refused(Refusal),
}

const PROXY_HEADER_CUT: Refusal =
    Refusal::new(444, "proxy_protocol_cut", "the client closed within its PROXY protocol header");
const PROXY_HEADER_TIMEOUT: Refusal =
    Refusal::new(444, "proxy_protocol_timeout", "no complete PROXY protocol header within client_header_timeout");
/// What the log shows of something that is no header, bytes: enough to tell HTTP from TLS.
const PROXY_HEADER_SHOWN_BYTES: usize = 64;

impl Session {
    /// Waits for the next request's head. The time for the first runs from accept, TLS included.
    pub(super) async fn next_head(&mut self) -> Result<RequestHead, Gone> {
        self.pipelined = !self.buffer.get_mut().is_empty();
        self.counted.enter(Stage::Waiting);
        if self.ordinal > 0 && !self.pipelined {
            self.idle().await?;
        }
        self.head_began = self.worker.reactor.now();
        let limit = self.server().header_timeout;
        let reactor = Rc::clone(&self.worker.reactor);
        // Pinned here and below: a future that is given away by value has its room twice, in who gives and in who takes (rustc 1.95),
        // and this is what a client that says nothing costs.
        let head = reactor.within(limit, pin!(self.head())).await;
        head.unwrap_or_else(|_| Err(self.head_timed_out()))
    }

    /// Between two requests: ends with the first byte of the next.
    async fn idle(&mut self) -> Result<(), Gone> {
        let deadline = Instant::now() + self.keepalive_timeout;
        loop {
            self.renew()?;
            let mut first = Vec::new();
            let limit = deadline.saturating_duration_since(Instant::now());
            let told = || self.worker.is_draining() || !self.worker.serves_by(&self.generation);
            let outcome = {
                let reading = pin!(self.stream.read(&mut first));
                let reading = pin!(self.worker.reactor.within(limit, reading));
                race(reading, pin!(self.worker.until(told))).await
            };
            match outcome {
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
        if self.proxy_header_due {
            Box::pin(self.accept_proxy_header()).await?;
            self.head_began = self.worker.reactor.now();
        }
        if self.awaits_tls() {
            Box::pin(self.accept_tls()).await?;
            self.head_began = self.worker.reactor.now();
        }
        loop {
            if !self.buffer.get_mut().is_empty() {
                self.counted.enter(Stage::Reading);
            }
            if let Some(head) = self.parse_head()? {
                return Ok(head);
            }
            let first = self.buffer.get_mut().is_empty();
            let read = unless_silent(&self.worker, first, pin!(self.stream.read(self.buffer.get_mut()))).await?;
            self.head_read(read)?;
            if first {
                self.head_began = self.worker.reactor.now();
            }
        }
    }

    /// The head, once all of it is there. A function of its own, so that no head has room in a task that waits for one.
    fn parse_head(&mut self) -> Result<Option<RequestHead>, Gone> {
        let parsed = parse_request(&self.buffer.borrow(), &self.server().head);
        match parsed.map_err(Gone::Refused)? {
            Parsed::Complete(head, length) => {
                self.buffer.get_mut().drain(..length);
                self.head_bytes = length as u64;
                Ok(Some(head))
            }
            Parsed::Partial => Ok(None),
        }
    }

    fn head_read(&mut self, read: Result<usize, Failure>) -> Result<(), Gone> {
        match read {
            Ok(count) if count > 0 => Ok(()),
            Ok(_) if self.buffer.get_mut().is_empty() => Err(Gone::Quietly),
            Ok(_) => {
                let truncated = self.stream.end() == Some(End::Truncated);
                let how = if truncated { " without close_notify" } else { "" };
                let detail = format!("client closed connection{how} in the middle of a request head");
                Err(Gone::Refused(Refusal::private(499, "client_closed", detail)))
            }
            Err(failure) => {
                self.log(Level::Info, format_args!("reading a request head failed ({failure})"));
                Err(Gone::Quietly)
            }
        }
    }

    fn head_timed_out(&mut self) -> Gone {
        if self.proxy_header_due && !self.buffer.get_mut().is_empty() {
            return self.no_proxy_header(&PROXY_HEADER_TIMEOUT);
        }
        if self.awaits_tls() && !self.proxy_header_due {
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

    /// The PROXY protocol header, in as many pieces as it comes.
    async fn accept_proxy_header(&mut self) -> Result<(), Gone> {
        loop {
            let parsed = proxy_protocol::parse(self.buffer.get_mut());
            match parsed.map_err(|refusal| self.no_proxy_header(&refusal))? {
                proxy_protocol::Parsed::Complete(proxied, length) => {
                    self.buffer.get_mut().drain(..length);
                    Arc::make_mut(&mut self.client).proxied = proxied.map(Box::new);
                    self.proxy_header_due = false;
                    return Ok(());
                }
                proxy_protocol::Parsed::Partial => {
                    let silent = self.buffer.get_mut().is_empty();
                    let reading = self.stream.read_raw(self.buffer.get_mut(), STREAM_READ_BYTES);
                    let read = unless_silent(&self.worker, silent, pin!(reading)).await?;
                    match read {
                        Ok(0) if silent => return Err(Gone::Quietly),
                        Ok(0) => return Err(self.no_proxy_header(&PROXY_HEADER_CUT)),
                        Ok(_) => self.counted.enter(Stage::Reading),
                        Err(error) => {
                            self.log(Level::Info, format_args!("reading a PROXY protocol header failed ({error})"));
                            return Err(Gone::Quietly);
                        }
                    }
                }
            }
        }
    }

    /// Whoever is at the other end is no proxy that we were told of, or one that is set up otherwise: the log shows what it said.
    fn no_proxy_header(&self, refusal: &Refusal) -> Gone {
        self.worker.counters.refusals.bump(refusal.reason);
        let buffer = self.buffer.borrow();
        let began = buffer.get(..PROXY_HEADER_SHOWN_BYTES).unwrap_or(&buffer).escape_ascii();
        let message = format_args!("{} ({} {}): \"{began}\"", refusal.detail, refusal.status, refusal.reason);
        self.log(Level::Error, message);
        Gone::Quietly
    }

    /// The TLS handshake, by the server block that the client's SNI names. A client that speaks plain HTTP is heard out, so that
    /// it can be told.
    async fn accept_tls(&mut self) -> Result<(), Gone> {
        self.counted.enter(Stage::Reading);
        // What came with the PROXY protocol header.
        let mut received = std::mem::take(self.buffer.get_mut());
        let name = loop {
            match tls::peek_hello(&received) {
                tls::Hello::Name(name) => break name,
                tls::Hello::Invalid { plain_http: true } => {
                    self.plain_on_tls = true;
                    *self.buffer.get_mut() = received;
                    return Ok(());
                }
                tls::Hello::Invalid { plain_http: false } => return Err(self.tls_failed(&"no TLS ClientHello")),
                tls::Hello::Partial => {
                    let silent = received.is_empty();
                    let reading = self.stream.read_raw(&mut received, STREAM_READ_BYTES);
                    match unless_silent(&self.worker, silent, pin!(reading)).await? {
                        Ok(0) if silent => return Err(Gone::Quietly),
                        Ok(0) => return Err(self.tls_failed(&"the client closed within its ClientHello")),
                        Ok(_) => {}
                        Err(error) => return Err(self.tls_failed(&Failure::Io(error))),
                    }
                }
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
        Arc::make_mut(&mut self.client).tls = Some(facts);
        Ok(())
    }

    fn tls_failed(&self, cause: &dyn std::fmt::Display) -> Gone {
        Counters::bump(&self.worker.counters.tls_failures);
        self.log(Level::Info, format_args!("TLS handshake failed ({cause})"));
        Gone::Quietly
    }
}

/// Reads, but gives a connection up that is `silent` so far once the worker takes no more requests.
async fn unless_silent<T>(
    worker: &Worker,
    silent: bool,
    reading: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Gone> {
    if !silent {
        return Ok(reading.await);
    }
    match race(reading, pin!(worker.takes_no_requests())).await {
        Either::Left(read) => Ok(read),
        Either::Right(()) => Err(Gone::Quietly),
    }
}
