//! What `status`, `metrics` and `stub_status` answer: the figures of the whole process, gathered by the worker that is asked.
//!
//! The others are not disturbed for counts: theirs lie in atomics that they alone write. Only for the tunnels that stand out is every
//! worker asked, at most once a second, and walks its table some tunnels at a time.

mod admin;
mod limits;
mod rows;
mod survey;

use std::{
    borrow::Cow,
    rc::Rc,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    config::{self, Content},
    http::refusal::Refusal,
    limits::{ADMIN_CLOSE_SECS, ERRAND_WAIT_MS, FRAME_END_SECS},
    observe::{
        errand::{Errand, Task},
        status::{self, State, Status},
        status_page,
        tally::PeerTally,
    },
    record::Record,
    request::Request,
    tunnel::{Farewell, Reason},
    websocket::close::GOING_AWAY,
    worker::{
        Worker,
        drain::{self, Drain},
    },
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
/// 405 for a method that has no meaning there; what an action is refused for.
pub async fn answer(worker: &Rc<Worker>, request: &Request, content: &Content) -> Result<Told, Refusal> {
    let may_act = matches!(content, Content::Status { admin } if admin::may_act(request, *admin));
    match &*request.head.method {
        "GET" | "HEAD" => {}
        "POST" if may_act => return admin::act(worker, request, &worker.generation()).await,
        "POST" if matches!(content, Content::Status { admin: true }) => {
            return Err(Refusal::new(
                403,
                "admin_client",
                "actions are for clients of this host, or those that `allow` names",
            ));
        }
        _ => return Err(Refusal::new(405, "method_not_allowed", "GET and HEAD are answered here")),
    }
    Ok(match content {
        Content::Metrics => {
            let openmetrics = accepts(request, "application/openmetrics-text");
            let status::Exposition { content_type, text } = status::metrics(gather(worker), openmetrics);
            Told::now(content_type, text)
        }
        Content::StubStatus => Told::now("text/plain", status::stub(&gather(worker))),
        _ if has_argument(request, b"ready") => readiness(worker.generation().board.state()),
        _ if asks_for_json(request) => {
            let found = outstanding(worker).await;
            let status = Status { admin: may_act, longest: found.longest, busiest: found.busiest, ..gather(worker) };
            Told::now("application/json", status::json(&status))
        }
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

fn accepts(request: &Request, media_type: &str) -> bool {
    request.head.fields.all("Accept").any(|value| String::from_utf8_lossy(value).contains(media_type))
}

/// The figures of the whole process.
fn gather(worker: &Worker) -> Status {
    let generation = worker.generation();
    let mut status = Status::default();
    generation.board.tell(&mut status);
    let balance = worker.balance();
    // One that leaves is none of the others' any more.
    let known = status.workers.iter_mut().filter(|row| row.id < balance.workers());
    known.for_each(|row| row.load = balance.load(row.id) as u64);
    status.servers = rows::servers(&generation);
    status.upstreams = rows::upstreams(&generation, Instant::now());
    status.zones = rows::zones(&generation);
    status.limits = limits::of(worker, &status);
    status.log = status::Log { written: generation.logs.written(), lost: generation.logs.lost() };
    status
}

/// The tunnels that stand out among those of all workers; without those of a worker that takes too long.
async fn outstanding(worker: &Rc<Worker>) -> crate::observe::errand::Outstanding {
    let board = &worker.generation().board;
    let workers = asked(worker);
    let (survey, is_new) = board.errands.survey(&workers, worker.id);
    if is_new {
        workers.iter().for_each(|other| worker.balance().ring(*other));
    }
    wait_for(worker, &survey).await;
    survey.outstanding()
}

/// Asks every worker for something, and waits until all have done it, or took too long.
async fn ask(worker: &Rc<Worker>, task: Task) -> Arc<Errand> {
    let errand = tell(worker, task);
    wait_for(worker, &errand).await;
    errand
}

/// Asks every worker for something.
fn tell(worker: &Rc<Worker>, task: Task) -> Arc<Errand> {
    let board = &worker.generation().board;
    let workers = asked(worker);
    let errand = board.errands.ask(task, &workers, worker.id);
    workers.iter().for_each(|other| worker.balance().ring(*other));
    errand
}

/// The workers that stay: what one has that leaves is on its way to these.
fn asked(worker: &Worker) -> Vec<usize> {
    let (present, balance) = (worker.generation().board.present(), worker.balance());
    (0..balance.workers()).filter(|id| present.contains(id)).collect()
}

async fn wait_for(worker: &Worker, errand: &Errand) {
    let done = worker.answered.until(|| errand.is_done());
    // What has come by then must do.
    let _ = worker.reactor.within(Duration::from_millis(ERRAND_WAIT_MS), done).await;
}

/// To be called when a worker's bell rang: does what it is asked, and looks again at what it asked itself.
pub fn look_at_errands(worker: &Rc<Worker>) {
    for errand in worker.generation().board.errands.take(worker.id) {
        let own = Rc::clone(worker);
        worker.spawn(async move {
            run(&own, &errand).await;
            errand.answered().iter().for_each(|asker| own.balance().ring(*asker));
        });
    }
    worker.answered.wake();
}

async fn run(worker: &Rc<Worker>, errand: &Errand) {
    match &errand.task {
        Task::Survey(found) => {
            let own = survey::outstanding(worker).await;
            found.lock().unwrap_or_else(PoisonError::into_inner).merge(own);
        }
        Task::Close { serial, found } => {
            let is_it = |record: &Record| record.serial() == *serial;
            for number in survey::numbers(worker, is_it).await {
                found.store(true, Relaxed);
                close(worker, number, is_it);
            }
        }
        Task::Drain { peer, percent } => drain(worker, peer, *percent).await,
    }
}

/// The drain of so many of a hundred of a backend's tunnels.
async fn drain(worker: &Rc<Worker>, peer: &Arc<PeerTally>, percent: u8) {
    let peer = Arc::clone(peer);
    let select = Box::new(move |record: &Record| record.tally().is_some_and(|tally| Arc::ptr_eq(tally, &peer)));
    let config::Drain { window, code, .. } = worker.generation().config.main.drain;
    let farewell = Farewell { reason: Reason::Drain, code, patience: Duration::from_secs(FRAME_END_SECS) };
    drain::drain(worker, &Drain { select, percent, window, farewell }).await;
}

fn close(worker: &Worker, number: u32, is_it: impl Fn(&Record) -> bool) {
    let patience = Duration::from_secs(ADMIN_CLOSE_SECS);
    let mut tunnels = worker.tunnels.borrow_mut();
    if tunnels.look(number).is_some_and(|tunnel| is_it(tunnel.record)) {
        let farewell = Farewell { reason: Reason::ClosedByAdmin, code: GOING_AWAY, patience };
        tunnels.part(number, &farewell, &mut worker.scratch.borrow_mut());
    }
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
