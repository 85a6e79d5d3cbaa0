//! One attempt: a backend is asked, and its answer relayed or made a tunnel.

use std::time::Instant;

use super::{
    Next, Switched,
    connection::Wire,
    relay::Relay,
    round::{Failed, Kind, Round, note},
};
use crate::{
    exchange::{self, Beside, NoHead, Upload, UploadError},
    forward,
    http::{
        body::{Framing, response_framing},
        head::{ResponseHead, Version},
        refusal::Refusal,
    },
    limits::INTERIM_RESPONSES,
    pool::Kept,
    reactor::{Either, race},
    request::{Request, routing},
    stream::Stream,
    upstream::Choice,
    websocket::handshake::{self, Answer},
};

/// How a backend has answered.
pub(super) enum Answered {
    /// With a response, which has been passed on.
    Passed(Next),
    /// With a 101.
    Switched(Switched),
}

const TRY_ELSEWHERE: &str = "the backend answered with a status to be tried elsewhere";

impl Round<'_> {
    /// One backend. `last`: no other will be tried, so its answer is the answer, whatever its status. `fresh`: by a new connection.
    pub(super) async fn attempt(
        &self,
        request: &mut Request,
        choice: &Choice,
        last: bool,
        fresh: bool,
    ) -> Result<Answered, Failed> {
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
    ) -> Result<Answered, Failed> {
        let Kept { stream: backend, requests, opened, port } = kept;
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
                self.switch(request, &head, Switched { backend, greeting: buffer, frames, port })
                    .await
                    .map(Answered::Switched)
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
                let framing = response_framing(&head, self.method);
                let persists = head.keep_alive && framing != Framing::UntilClose;
                let relay = Relay { round: self, backend: &backend, wire };
                let next = relay.run(request, head, framing, &mut buffer, &mut upload).await;
                let is_whole = request.completed && matches!(upload.output(), Some(Ok(())));
                drop(upload);
                if persists && is_whole && buffer.is_empty() {
                    self.give_back(&choice.backend, Kept { stream: backend, requests: requests + 1, opened, port });
                }
                Ok(Answered::Passed(next))
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
    async fn switch(&self, request: &mut Request, head: &ResponseHead, switched: Switched) -> Result<Switched, Failed> {
        let Some(upgrade) = self.upgrade else {
            let refusal = Refusal::new(502, "unasked_101", "upstream sent 101 to a request that asked for no upgrade");
            return Err(Wire::default().failed(refusal, Kind::InvalidHeader));
        };
        let reply = forward::switching_head(request, head, upgrade);
        let sending = self.client.stream.write_all(&reply);
        match self.client.worker.reactor.within(self.settings.client_send_timeout, sending).await {
            Ok(Ok(())) => {
                request.bytes_sent += reply.len() as u64;
                Ok(switched)
            }
            _ => Err(Wire::default().failed(client_left(), Kind::Client)),
        }
    }
}

pub(super) fn client_left() -> Refusal {
    Refusal::new(499, "client_closed", "client closed connection while waiting for the backend")
}
