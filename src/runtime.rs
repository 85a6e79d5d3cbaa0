//! A worker's thread: pinned to its core, with its own monoio runtime, listening sockets, wheel and inbox.

use std::{
    io,
    net::TcpStream,
    os::fd::{AsFd, OwnedFd},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    task::Poll,
    thread::{self, JoinHandle},
};

use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::eventfd::{EfdFlags, EventFd},
    unistd::Pid,
};

use crate::{
    config::{Config, Driver, Level},
    limits::{BATCHES_PER_TURN, EVENTS_PER_BATCH},
    listener,
    observe::{
        Logs,
        counters::Counters,
        error_log::{self, About},
        os_error,
    },
    reactor::{Descriptor, Event, at_once, yield_now},
    session,
    tunnel::Reason,
    upstream::Upstreams,
    worker::{State, Worker},
};

/// What a worker starts with.
pub struct Plan {
    /// 0, 1, ...
    pub id: usize,
    /// CPUs it may run on; none: not pinned.
    pub cpus: Option<Vec<usize>>,
    /// The configuration.
    pub config: Arc<Config>,
    /// Backends' state, shared.
    pub upstreams: Arc<Upstreams>,
    /// Logs, shared.
    pub logs: Arc<Logs>,
    /// What this worker counts; the server reads it.
    pub counters: Arc<Counters>,
    /// A bound and listening socket for each of `config.listeners`, in its order.
    pub sockets: Vec<OwnedFd>,
}

/// A message to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Close everything now.
    Stop,
    /// Accept nothing more; finish requests; end when the last tunnel has gone.
    Quit,
}

/// A running worker.
pub struct Handle {
    /// Its thread; ends after `Stop` or a finished `Quit`.
    pub thread: JoinHandle<()>,
    inbox: Sender<Message>,
    bell: EventFd,
}

impl Handle {
    /// Sends a message; a worker that has ended does not get it.
    pub fn send(&self, message: Message) {
        if self.inbox.send(message).is_ok() {
            // EAGAIN: the counter is full, so the bell rings already.
            let _ = self.bell.write(1);
        }
    }
}

/// Starts a worker.
///
/// # Errors
/// No thread, no epoll instance, no eventfd.
pub fn start(plan: Plan) -> io::Result<Handle> {
    let (inbox, messages) = channel();
    let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let rung = bell.as_fd().try_clone_to_owned()?;
    let thread = thread::Builder::new().name(format!("worker {}", plan.id)).spawn(move || run(plan, messages, rung))?;
    Ok(Handle { thread, inbox, bell })
}

fn run(plan: Plan, messages: Receiver<Message>, bell: OwnedFd) {
    if let Err(error) = pin_to(plan.cpus.as_deref()) {
        let message = format_args!("worker {} runs on any core: sched_setaffinity() failed ({error})", plan.id);
        error_log::event(&plan.logs, Level::Warn, &About::Process, message);
    }
    let logs = Arc::clone(&plan.logs);
    let result = runtime(&plan).and_then(|mut runtime| runtime.block_on(serve(plan, messages, bell)));
    if let Err(error) = result {
        error_log::event(&logs, Level::Emerg, &About::Process, format_args!("a worker ended: {error}"));
    }
}

fn pin_to(cpus: Option<&[usize]>) -> nix::Result<()> {
    let Some(cpus) = cpus else { return Ok(()) };
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// io_uring where the file and the kernel allow it, else epoll, with one line in the log.
fn runtime(plan: &Plan) -> io::Result<FusionRuntime<IoUringDriver, LegacyDriver>> {
    let wanted = plan.config.main.driver;
    let mut reason = "the file says `use epoll`".to_owned();
    if wanted != Driver::Epoll {
        if monoio::utils::detect_uring() {
            match RuntimeBuilder::<IoUringDriver>::new().build() {
                Ok(runtime) => return Ok(runtime.into()),
                // The probe passes and creation fails under a small RLIMIT_MEMLOCK (before 5.12) or a seccomp filter.
                Err(error) => reason = format!("io_uring_setup() failed ({error})"),
            }
        } else {
            reason = "io_uring is not to be had (kernel before 5.6, io_uring_disabled, seccomp, or MONOIO_FORCE_LEGACY_DRIVER)".to_owned();
        }
    }
    if plan.id == 0 {
        let level = if wanted == Driver::IoUring { Level::Warn } else { Level::Notice };
        error_log::event(&plan.logs, level, &About::Process, format_args!("workers run on epoll: {reason}"));
    }
    RuntimeBuilder::<LegacyDriver>::new().build().map(Into::into)
}

async fn serve(plan: Plan, messages: Receiver<Message>, bell: OwnedFd) -> io::Result<()> {
    let worker = Worker::new(plan.id, plan.config, plan.upstreams, plan.logs, plan.counters)?;
    let reactor = Rc::clone(&worker.reactor);
    for (index, socket) in plan.sockets.into_iter().enumerate() {
        monoio::spawn(listener::accept_all(Rc::clone(&worker), index, reactor.watch(socket)?));
    }
    monoio::spawn(read_inbox(Rc::clone(&worker), messages, reactor.watch(bell)?));
    // monoio takes the descriptor for a stream's; all it does with it is to wait until it is readable.
    let poller = monoio::net::TcpStream::from_std(TcpStream::from(reactor.epoll().try_clone_to_owned()?))?;
    monoio::spawn(turn(Rc::clone(&worker), poller));
    worker.ended().await;
    worker.tunnels.borrow_mut().close_all(Reason::Shutdown, &mut worker.scratch.borrow_mut());
    bury(&worker);
    Ok(())
}

/// The heart: waits for readiness and hands it out.
async fn turn(worker: Rc<Worker>, poller: monoio::net::TcpStream) {
    let mut events = Vec::with_capacity(EVENTS_PER_BATCH);
    let mut expired = Vec::new();
    loop {
        let ready = if worker.tunnels.borrow().has_ready() {
            yield_now().await;
            Ok(())
        } else {
            wait(&poller).await
        };
        if let Err(error) = ready.and_then(|()| serve_events(&worker, &mut events, &mut expired)) {
            worker.log(Level::Emerg, &About::Process, format_args!("waiting for events failed ({})", os_error(&error)));
            return worker.change(State::Stopping);
        }
        bury(&worker);
    }
}

/// Waits until there are events. On epoll monoio answers at once while there are some: under load the heart would run for ever,
/// and none of the tasks it wakes.
async fn wait(poller: &monoio::net::TcpStream) -> io::Result<()> {
    let mut readable = pin!(poller.readable(false));
    match at_once(readable.as_mut()).await {
        Poll::Ready(result) => {
            yield_now().await;
            result
        }
        Poll::Pending => readable.await,
    }
}

/// Takes what the kernel has, in some batches, then lets the tunnels move what they have; tasks it woke run after that.
fn serve_events(worker: &Worker, events: &mut Vec<Event>, expired: &mut Vec<u32>) -> io::Result<()> {
    let mut tunnels = worker.tunnels.borrow_mut();
    for _ in 0..BATCHES_PER_TURN {
        let count = worker.reactor.turn(events)?;
        tunnels.note(events);
        events.clear();
        if count < EVENTS_PER_BATCH {
            break;
        }
    }
    let scratch = &mut worker.scratch.borrow_mut();
    tunnels.resume(scratch);
    worker.reactor.advance(expired)?;
    expired.drain(..).for_each(|number| tunnels.expire(number, scratch));
    Ok(())
}

async fn read_inbox(worker: Rc<Worker>, messages: Receiver<Message>, bell: Descriptor) {
    let mut count = [0; 8];
    loop {
        for message in messages.try_iter() {
            worker.change(match message {
                Message::Stop => State::Stopping,
                Message::Quit => State::Quitting,
            });
        }
        bell.readable().await;
        // How often it rang does not matter; read, the next ring is an edge again (eventfd(2)).
        let _ = nix::unistd::read(&bell, &mut count);
    }
}

/// Writes the last lines of tunnels that have ended.
fn bury(worker: &Worker) {
    let mut tunnels = worker.tunnels.borrow_mut();
    let ended: Vec<_> = tunnels.finished().collect();
    drop(tunnels);
    for finished in ended {
        session::tunnel_ended(worker, finished);
        worker.wake_if_drained();
    }
}
