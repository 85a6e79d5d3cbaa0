//! A backend's response on its way to the client, while the request's body may still be going up.

use std::cell::Cell;

use super::{
    Next,
    connection::Wire,
    round::{Round, note},
};
use crate::{
    config::Level,
    exchange::{Beside, CLIENT_CLOSED, CLIENT_STUCK, Download, DownloadError, UploadError},
    forward,
    http::{
        body::Framing,
        head::{ResponseHead, Version},
        refusal::Refusal,
    },
    reactor::Either,
    request::Request,
    stream::Stream,
};

/// A response on its way: from here on the answer is the backend's, and a failure can only cut it short.
pub(super) struct Relay<'a> {
    pub(super) round: &'a Round<'a>,
    pub(super) backend: &'a Stream,
    pub(super) wire: &'a Wire,
}

impl Relay<'_> {
    /// Sends it.
    pub(super) async fn run<F: Future<Output = Result<(), UploadError>>>(
        &self,
        request: &mut Request,
        head: ResponseHead,
        framing: Framing,
        buffer: &mut Vec<u8>,
        upload: &mut Beside<F>,
    ) -> Next {
        let client = self.round.client;
        let settings = self.round.settings;
        let modern = request.head.version == Version::Http11;
        let out = match framing {
            Framing::Chunked | Framing::UntilClose if modern => Framing::Chunked,
            Framing::Chunked | Framing::UntilClose => Framing::UntilClose,
            framing => framing,
        };
        // What a client sent behind an upgrade that was not granted is not a request, nor is what is left of a body.
        let in_step = self.wire.upload.whole.get() && self.round.upgrade.is_none();
        let keep = client.keep_alive && !client.worker.is_draining() && in_step && out != Framing::UntilClose;
        let head_ended = self.wire.received.get() - buffer.len() as u64;
        let chunked = out == Framing::Chunked;
        let reply = forward::response_head(request, &head, out, keep);
        match client.worker.reactor.within(settings.client_send_timeout, client.stream.write_all(&reply)).await {
            Ok(Ok(())) => request.bytes_sent += reply.len() as u64,
            Ok(Err(_)) => return self.cut(request, Level::Info, &CLIENT_CLOSED),
            Err(_) => return self.cut(request, Level::Info, &CLIENT_STUCK),
        }
        let sent = Cell::new(0);
        let download = Download {
            backend: self.backend,
            client: client.stream,
            settings,
            chunked,
            sent: &sent,
            received: &self.wire.received,
        };
        let mut download = Box::pin(download.run(framing, buffer));
        let result = loop {
            if let Either::Left(result) = upload.with(&mut download).await {
                break result;
            }
            if let Some(Err(UploadError::Client(refusal))) = upload.output() {
                break Err(DownloadError::Client(refusal.clone()));
            }
        };
        drop(download);
        request.bytes_sent += sent.get();
        request.body_bytes_sent += sent.get();
        note(request, |attempt| attempt.body_bytes = self.wire.received.get() - head_ended);
        self.ended(request, result, keep)
    }

    fn ended(&self, request: &mut Request, result: Result<(), DownloadError>, keep: bool) -> Next {
        request.completed = result.is_ok();
        match result {
            Ok(()) if keep => Next::KeepAlive,
            Ok(()) => Next::Linger,
            Err(DownloadError::Client(refusal)) => self.cut(request, Level::Info, &refusal),
            Err(DownloadError::Backend(refusal)) => self.cut(request, Level::Error, &refusal),
        }
    }

    /// The answer has begun: all that can still be said of what went wrong is that it did not come to its end.
    fn cut(&self, request: &mut Request, level: Level, refusal: &Refusal) -> Next {
        let client = self.round.client;
        client.worker.counters.refusals.bump(refusal.reason);
        request.close_reason = Some(refusal.reason);
        client.log(level, request, format_args!("{} ({})", refusal.detail, refusal.reason));
        Next::Cut
    }
}
