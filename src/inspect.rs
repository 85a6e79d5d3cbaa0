//! What `status`, `metrics` and `stub_status` answer: the figures of the whole process, gathered by the worker that is asked.
//!
//! The others are not disturbed: what they count lies in atomics that are theirs alone to write.

mod limits;

use std::borrow::Cow;

use crate::{
    config::Content,
    http::refusal::Refusal,
    observe::{
        status::{self, Status},
        status_page,
    },
    request::Request,
    worker::Worker,
};

/// An answer about the program.
#[derive(Debug)]
pub struct Told {
    /// Its status.
    pub status: u16,
    /// Its fields but for those of every answer.
    pub fields: Vec<(&'static str, &'static [u8])>,
    /// It.
    pub body: Cow<'static, [u8]>,
}

impl Told {
    /// Figures, which no cache shall keep.
    fn now(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        let fields = vec![("Content-Type", content_type.as_bytes()), ("Cache-Control", b"no-store".as_slice())];
        Self { status: 200, fields, body: body.into().into() }
    }

    /// The page that asks for them.
    fn page() -> Self {
        let fields = status_page::fields().into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
        Self { status: 200, fields, body: status_page::html().into() }
    }
}

/// Answers a request for a location that is about the program itself.
///
/// # Errors
/// 405 for a method that has no meaning there.
pub fn answer(worker: &Worker, request: &Request, content: &Content) -> Result<Told, Refusal> {
    if !matches!(&*request.head.method, "GET" | "HEAD") {
        return Err(Refusal::new(405, "method_not_allowed", "GET and HEAD are answered here"));
    }
    Ok(match content {
        Content::Metrics => {
            let openmetrics = accepts(request, "application/openmetrics-text");
            let status::Exposition { content_type, text } = status::metrics(gather(worker), openmetrics);
            Told::now(content_type, text)
        }
        Content::StubStatus => Told::now("text/plain", status::stub(&gather(worker))),
        _ if asks_for_json(request) => Told::now("application/json", status::json(&gather(worker))),
        _ => Told::page(),
    })
}

fn asks_for_json(request: &Request) -> bool {
    let mut arguments = request.args.split(|byte| *byte == b'&');
    arguments.any(|argument| argument == b"json") || accepts(request, "application/json")
}

/// The figures of the whole process.
fn gather(worker: &Worker) -> Status {
    let mut status = Status::default();
    worker.generation().board.tell(&mut status);
    status.limits = limits::of(worker, &status);
    status
}

fn accepts(request: &Request, media_type: &str) -> bool {
    request.head.fields.all("Accept").any(|value| String::from_utf8_lossy(value).contains(media_type))
}
