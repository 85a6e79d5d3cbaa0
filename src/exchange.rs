//! Plain HTTP between a client and a backend: bodies as streams, in both directions at once.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use crate::{
    config::Settings,
    http::{
        body::{self, Chunk, Dechunker, Framing, Malformed},
        head::{Parsed, ResponseHead, parse_response},
        refusal::Refusal,
    },
    limits::STREAM_READ_BYTES,
    reactor::{Either, race},
    stream::{self, Stream},
};

/// A body being read: how much of it is to come.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    left: u64,
    dechunker: Dechunker,
    done: bool,
}

impl Body {
    /// A body of this framing, of which nothing was read.
    pub fn new(framing: Framing) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        let done = matches!(framing, Framing::None | Framing::Length(0));
        Self { framing, left, dechunker: Dechunker::default(), done }
    }

    /// True once all of it was read.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Moves what `buffer` has of the body to `payload`, its framing taken off; what follows the body stays in `buffer`.
    ///
    /// # Errors
    /// Chunked coding that is none.
    pub fn take(&mut self, buffer: &mut Vec<u8>, payload: &mut Vec<u8>) -> Result<(), Malformed> {
        match self.framing {
            Framing::None => {}
            Framing::UntilClose => payload.append(buffer),
            Framing::Length(_) => {
                let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
                payload.extend(buffer.drain(..count));
                self.left -= count as u64;
                self.done = self.left == 0;
            }
            Framing::Chunked => {
                let mut used = 0;
                while !self.done && used < buffer.len() {
                    match self.dechunker.step(&buffer[used..])? {
                        Chunk::Partial { consumed } => {
                            used += consumed;
                            break;
                        }
                        Chunk::Data { start, end } => {
                            payload.extend_from_slice(&buffer[used + start..used + end]);
                            used += end;
                        }
                        Chunk::End { consumed } => {
                            used += consumed;
                            self.done = true;
                        }
                    }
                }
                buffer.drain(..used);
            }
        }
        Ok(())
    }
}

/// A client's request body on its way to the backend.
pub struct Upload<'a> {
    /// From.
    pub client: &'a Stream,
    /// What was read of the client beyond the head; afterwards what follows the body.
    pub buffer: &'a RefCell<Vec<u8>>,
    /// To.
    pub backend: &'a Stream,
    /// Timeouts and the largest body.
    pub settings: &'a Settings,
    /// How far it has come.
    pub progress: &'a Progress,
}

/// How far an upload has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of the body taken off the client's connection, chunked coding included: they cannot be sent to another backend.
    pub taken: Cell<u64>,
    /// Bytes sent to the backend, the head's included.
    pub sent: Cell<u64>,
    /// The body was taken to its end: what the client sends behind it is its next request.
    pub whole: Cell<bool>,
}

/// Why an upload ended early.
#[derive(Debug)]
pub enum UploadError {
    /// The client's doing: 400, 408, 413, 499.
    Client(Refusal),
    /// The backend takes no more: its answer may be there all the same.
    Backend(Refusal),
}

impl Upload<'_> {
    /// Streams the whole body.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub async fn run(&self, framing: Framing) -> Result<(), UploadError> {
        let mut body = Body::new(framing);
        let (mut payload, mut received) = (Vec::new(), 0);
        while !body.is_done() {
            payload.clear();
            self.take(&mut body, &mut payload)?;
            received += payload.len() as u64;
            let limit = self.settings.max_body_bytes;
            if limit > 0 && received > limit {
                let detail = "the body is larger than client_max_body_size allows";
                return Err(UploadError::Client(Refusal::new(413, "body_too_large", detail)));
            }
            if !payload.is_empty() {
                self.send(&frame(&payload, framing == Framing::Chunked)).await?;
            } else if !body.is_done() {
                self.receive().await?;
            }
        }
        self.progress.whole.set(true);
        if framing == Framing::Chunked {
            self.send(body::CHUNKED_END).await?;
        }
        Ok(())
    }

    fn take(&self, body: &mut Body, payload: &mut Vec<u8>) -> Result<(), UploadError> {
        let buffer = &mut self.buffer.borrow_mut();
        let before = buffer.len();
        let result = body.take(buffer, payload);
        add(&self.progress.taken, before - buffer.len());
        result.map_err(|error| UploadError::Client(Refusal::new(400, "malformed_chunk", error.0)))
    }

    async fn receive(&self) -> Result<(), UploadError> {
        let mut more = Vec::new();
        let reading = self.client.read(&mut more);
        let refusal = match self.client.reactor().within(self.settings.body_timeout, reading).await {
            Ok(Ok(count)) if count > 0 => {
                self.buffer.borrow_mut().append(&mut more);
                return Ok(());
            }
            Ok(_) => Refusal::new(499, "client_closed", "the client closed before its body was complete"),
            Err(_) => Refusal::new(408, "body_timeout", "no byte of the body for client_body_timeout"),
        };
        Err(UploadError::Client(refusal))
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), UploadError> {
        let refusal =
            match self.client.reactor().within(self.settings.send_timeout, self.backend.write_all(bytes)).await {
                Ok(Ok(())) => {
                    add(&self.progress.sent, bytes.len());
                    return Ok(());
                }
                Ok(Err(error)) => Refusal {
                    status: 502,
                    reason: "upstream_send",
                    detail: format!("sending the body failed ({error})").into(),
                },
                Err(_) => Refusal::new(
                    504,
                    "upstream_send_timeout",
                    "upstream timed out (110: Connection timed out) while sending request to upstream",
                ),
            };
        Err(UploadError::Backend(refusal))
    }
}

/// Why an answer that has begun does not come to its end.
pub const CLIENT_CLOSED: Refusal =
    Refusal::new(499, "client_closed", "the client closed before the response was complete");
/// The same.
pub const CLIENT_STUCK: Refusal = Refusal::new(408, "client_send_timeout", "the client took no byte for send_timeout");

/// Body bytes as they go out: as they are, or as one chunk.
fn frame(payload: &[u8], chunked: bool) -> Vec<u8> {
    if !chunked {
        return payload.to_vec();
    }
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend_from_slice(body::chunk_head(payload.len()).as_ref());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
    out
}

fn add(counter: &Cell<u64>, bytes: usize) {
    counter.set(counter.get() + bytes as u64);
}

/// Why there is no response head: a 502 either way.
#[derive(Debug)]
pub enum NoHead {
    /// The backend's connection ended.
    Lost(Refusal),
    /// What came is no head, or breaks a rule.
    Invalid(Refusal),
}

/// Reads a backend's next response head; what follows it stays in `buffer`. `received` counts what was read.
///
/// # Errors
/// See [`NoHead`].
pub async fn read_head(
    backend: &Stream,
    buffer: &mut Vec<u8>,
    head_bytes: usize,
    received: &Cell<u64>,
) -> Result<ResponseHead, NoHead> {
    loop {
        if let Parsed::Complete(head, length) = parse_response(buffer, head_bytes).map_err(NoHead::Invalid)? {
            buffer.drain(..length);
            return Ok(head);
        }
        match backend.read(buffer).await {
            Ok(0) => {
                let detail = "upstream prematurely closed connection while reading response header from upstream";
                return Err(NoHead::Lost(Refusal::new(502, "upstream_closed_early", detail)));
            }
            Ok(count) => add(received, count),
            Err(error) => {
                return Err(NoHead::Lost(broke_off("reading response header from upstream", &error)));
            }
        }
    }
}

/// A backend's connection failed while something was awaited of it.
fn broke_off(doing: &str, failure: &stream::Failure) -> Refusal {
    let reason = match failure {
        stream::Failure::Tls(_) => "upstream_tls",
        stream::Failure::Io(error) if stream::is_loss(error) => "upstream_lost",
        stream::Failure::Io(_) => "upstream_reset",
    };
    Refusal { status: 502, reason, detail: format!("{doing} failed ({failure})").into() }
}

/// A backend's response body on its way to the client.
pub struct Download<'a> {
    /// From.
    pub backend: &'a Stream,
    /// To.
    pub client: &'a Stream,
    /// Timeouts.
    pub settings: &'a Settings,
    /// As chunks.
    pub chunked: bool,
    /// Bytes sent to the client.
    pub sent: &'a Cell<u64>,
    /// Bytes received of the backend.
    pub received: &'a Cell<u64>,
}

/// Why a response ended before its end; the client's connection can only be cut then.
#[derive(Debug)]
pub enum DownloadError {
    /// The client is gone, takes nothing, or broke its request's body off.
    Client(Refusal),
    /// The backend broke off.
    Backend(Refusal),
}

impl Download<'_> {
    /// Streams the whole body; `buffer` has what was read beyond the head, and then what was read beyond the body.
    ///
    /// # Errors
    /// See [`DownloadError`].
    pub async fn run(&self, framing: Framing, buffer: &mut Vec<u8>) -> Result<(), DownloadError> {
        let mut body = Body::new(framing);
        let mut payload = Vec::new();
        loop {
            payload.clear();
            body.take(buffer, &mut payload)
                .map_err(|error| DownloadError::Backend(Refusal::new(502, "upstream_malformed_chunk", error.0)))?;
            if !payload.is_empty() {
                self.send(&frame(&payload, self.chunked)).await?;
            }
            if body.is_done() {
                break;
            }
            if payload.is_empty() && self.receive(buffer).await? {
                if framing == Framing::UntilClose && self.backend.end() == Some(stream::End::Clean) {
                    break;
                }
                let detail = "upstream prematurely closed connection while reading upstream";
                return Err(DownloadError::Backend(Refusal::new(502, "upstream_closed_early", detail)));
            }
        }
        if self.chunked {
            self.send(body::CHUNKED_END).await?;
        }
        Ok(())
    }

    /// True at the end of the backend's direction.
    async fn receive(&self, buffer: &mut Vec<u8>) -> Result<bool, DownloadError> {
        buffer.reserve(STREAM_READ_BYTES);
        let reading = race(self.backend.read(buffer), self.client.descriptor().hangup());
        let refusal = match self.client.reactor().within(self.settings.read_timeout, reading).await {
            Ok(Either::Left(Ok(count))) => {
                add(self.received, count);
                return Ok(count == 0);
            }
            Ok(Either::Left(Err(error))) => broke_off("reading upstream", &error),
            Ok(Either::Right(())) => {
                return Err(DownloadError::Client(CLIENT_CLOSED));
            }
            Err(_) => Refusal::new(
                504,
                "upstream_read_timeout",
                "upstream timed out (110: Connection timed out) while reading upstream",
            ),
        };
        Err(DownloadError::Backend(refusal))
    }

    async fn send(&self, bytes: &[u8]) -> Result<(), DownloadError> {
        let sending = self.client.write_all(bytes);
        match self.client.reactor().within(self.settings.client_send_timeout, sending).await {
            Ok(Ok(())) => {
                add(self.sent, bytes.len());
                Ok(())
            }
            Ok(Err(_)) => Err(DownloadError::Client(CLIENT_CLOSED)),
            Err(_) => Err(DownloadError::Client(CLIENT_STUCK)),
        }
    }
}

/// A future that runs beside others until it is done: the upload, while the answer is already awaited.
pub struct Beside<F: Future> {
    future: Option<Pin<Box<F>>>,
    output: Option<F::Output>,
}

impl<F: Future> Beside<F> {
    /// Nothing has run yet.
    pub fn new(future: F) -> Self {
        Self { future: Some(Box::pin(future)), output: None }
    }

    /// What came out, once done.
    pub fn output(&self) -> Option<&F::Output> {
        self.output.as_ref()
    }

    /// Takes what came out.
    pub fn take_output(&mut self) -> Option<F::Output> {
        self.output.take()
    }

    /// True while it is not done.
    pub fn is_running(&self) -> bool {
        self.future.is_some()
    }

    /// Runs until `main` is done (left) or this is (right); this has precedence, so that a body that is there already is up before
    /// its answer is looked at.
    pub async fn with<M: Future>(&mut self, main: M) -> Either<M::Output, ()> {
        let mut main = pin!(main);
        poll_fn(|context| {
            if let Some(future) = &mut self.future
                && let Poll::Ready(output) = future.as_mut().poll(context)
            {
                (self.future, self.output) = (None, Some(output));
                return Poll::Ready(Either::Right(()));
            }
            main.as_mut().poll(context).map(Either::Left)
        })
        .await
    }
}
