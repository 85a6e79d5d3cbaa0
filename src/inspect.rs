//! What `status`, `metrics` and `stub_status` answer: the figures of the whole process, gathered by the worker that is asked.
//!
//! The others are not disturbed: what they count lies in atomics that are theirs alone to write.

mod limits;

use std::borrow::Cow;

use crate::{
    config::Content,
    http::refusal::Refusal,
    observe::{
        status::{self, State, Status},
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
        _ if has_argument(request, b"ready") => readiness(worker.board.state()),
        _ if asks_for_json(request) => Told::now("application/json", status::json(&gather(worker))),
        _ => Told::page(),
    })
}

/// What a balancer in front asks for: 200 while new connections are welcome, 503 once they had better go elsewhere.
fn readiness(state: State) -> Told {
    match state {
        State::Serving => Told::now("text/plain", "ready\n"),
        State::Draining => Told { status: 503, ..Told::now("text/plain", "draining\n") },
        State::Stopping => Told { status: 503, ..Told::now("text/plain", "stopping\n") },
    }
}

fn asks_for_json(request: &Request) -> bool {
    has_argument(request, b"json") || accepts(request, "application/json")
}

fn has_argument(request: &Request, name: &[u8]) -> bool {
    request.args.split(|byte| *byte == b'&').any(|argument| argument == name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_is_told_before_connections_close() {
        let told = |state| (readiness(state).status, readiness(state).body);
        assert_eq!(told(State::Serving), (200, b"ready\n".as_slice().into()));
        assert_eq!(told(State::Draining), (503, b"draining\n".as_slice().into()));
        assert_eq!(told(State::Stopping), (503, b"stopping\n".as_slice().into()));
    }
}
