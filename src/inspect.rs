//! What `status`, `metrics` and `stub_status` answer: the figures of the whole process, gathered by the worker that is asked.
//!
//! The others are not disturbed: what they count lies in atomics that are theirs alone to write.

mod limits;

use std::borrow::Cow;

use crate::{
    config::Content,
    http::refusal::Refusal,
    observe::status::{self, Status},
    request::Request,
    worker::Worker,
};

/// An answer about the program.
#[derive(Debug)]
pub struct Told {
    /// Its status.
    pub status: u16,
    /// Its Content-Type.
    pub content_type: &'static str,
    /// It.
    pub body: Cow<'static, [u8]>,
}

/// No cache shall keep it.
pub const FIELDS: &[(&str, &[u8])] = &[("Cache-Control", b"no-store")];

/// Answers a request for a location that is about the program itself.
///
/// # Errors
/// 405 for a method that has no meaning there.
pub fn answer(worker: &Worker, request: &Request, content: &Content) -> Result<Told, Refusal> {
    if !matches!(&*request.head.method, "GET" | "HEAD") {
        return Err(Refusal::new(405, "method_not_allowed", "GET and HEAD are answered here"));
    }
    let status = gather(worker);
    Ok(match content {
        Content::Metrics => {
            let openmetrics = accepts(request, "application/openmetrics-text");
            let status::Exposition { content_type, text } = status::metrics(status, openmetrics);
            Told { status: 200, content_type, body: text.into_bytes().into() }
        }
        Content::StubStatus => {
            Told { status: 200, content_type: "text/plain", body: status::stub(&status).into_bytes().into() }
        }
        _ => Told { status: 200, content_type: "application/json", body: status::json(&status).into() },
    })
}

/// The figures of the whole process.
fn gather(worker: &Worker) -> Status {
    let mut status = Status::default();
    worker.board.tell(&mut status);
    status.limits = limits::of(worker, &status);
    status
}

fn accepts(request: &Request, media_type: &str) -> bool {
    request.head.fields.all("Accept").any(|value| String::from_utf8_lossy(value).contains(media_type))
}
