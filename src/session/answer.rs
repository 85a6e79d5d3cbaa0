//! The answer to a request: its route, `proxy_pass` or an answer of our own, error pages.

use std::sync::Arc;

use super::Session;
use crate::{
    config::{Content, Level},
    forward,
    http::{
        body::{Framing, is_bodiless},
        head::{RequestHead, request_line},
        refusal::{self, Refusal},
    },
    inspect,
    observe::{
        counters::Counters,
        error_log::{self, About},
    },
    proxy::{self, Client, Next},
    request::{
        Request,
        routing::{self, Routed},
    },
    route::location::LocationId,
};

impl Session {
    /// Routes a request and answers it, error pages and all.
    pub(super) async fn answer(&mut self, head: RequestHead) -> (Box<Request>, Next) {
        let mut request = Box::new(self.request(head));
        match self.brake(&request) {
            Ok(pending) => self.pending = pending,
            Err(braked) => {
                let next = self.refuse_braked(&mut request, braked).await;
                return (request, next);
            }
        }
        let mut routed = if self.plain_on_tls { Routed::Refuse(497) } else { routing::route(&mut request) };
        loop {
            let refusal = match routed {
                Routed::Limited(id) => match self.preaccess(&mut request).await {
                    Ok(()) => {
                        routed = routing::access(&mut request, id);
                        continue;
                    }
                    Err(refusal) => {
                        self.count_upgrade_refused(&request);
                        refusal
                    }
                },
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
            // While the request is where it was refused: that place's log and level it is.
            self.log_refusal(&request, &refusal);
            match page.then(|| routing::redirect_error(&mut request, refusal.status)).flatten() {
                Some(elsewhere) => routed = elsewhere,
                None => {
                    let next = self.refuse(&mut request, &refusal).await;
                    return (request, next);
                }
            }
        }
    }

    /// `deny`
    fn forbidden(&self, request: &Request) -> Refusal {
        self.count_upgrade_refused(request);
        Refusal::private(403, "access_denied", "access forbidden by rule")
    }

    fn count_upgrade_refused(&self, request: &Request) {
        if request.head.fields.lists("Connection", "upgrade") {
            Counters::bump(&self.worker.counters.upgrades_refused);
        }
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
    pub(super) async fn refuse_head(&mut self, refusal: &Refusal) -> (Box<Request>, Next) {
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
        self.log_refusal(&request, refusal);
        let next = self.refuse(&mut request, refusal).await;
        (request, next)
    }

    /// Answers with an error page of our own.
    async fn refuse(&mut self, request: &mut Request, refusal: &Refusal) -> Next {
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
        let usual = if refusal.status >= 500 && refusal.reason != RETURNED { Level::Error } else { Level::Info };
        let level = Self::limit_level(request, refusal).unwrap_or(usual);
        let message = format_args!("{} ({} {})", refusal.detail, refusal.status, refusal.reason);
        error_log::event(&self.generation.logs, level, &About::Request(request), message);
    }

    /// Sends a whole answer of our own.
    pub(super) async fn own(
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
