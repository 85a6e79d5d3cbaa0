//! A worker's thread: pinned to its core, with its own monoio runtime, listening sockets, wheel and inbox.

mod heirs;
mod inbox;

use std::{
    io,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{self, JoinHandle},
    time::Duration,
};

use monoio::{FusionRuntime, IoUringDriver, LegacyDriver, RuntimeBuilder};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use self::heirs::Heirs;
pub use self::inbox::Inbox;
use crate::{
    balance::Balance,
    config::{Driver, Level},
    generation::Generation,
    inspect,
    limits::{BATCHES_PER_TURN, BULK_NAP_US, EVENTS_PER_BATCH, TURNS_IN_A_HURRY},
    listener::{self, Doors, Listening},
    observe::{
        counters::Counters,
        error_log::{self, About},
        os_error,
    },
    reactor::{Descriptor, Event},
    record::Record,
    sandbox, session,
    tunnel::{Loose, Trouble},
    worker::{
        State, Worker,
        drain::{self, Drain, Quit},
    },
};

/// What a worker starts with.
pub struct Plan {
    /// 0, 1, ...
    pub id: usize,
    /// CPUs it may run on; none: not pinned.
    pub cpus: Option<Vec<usize>>,
    /// What it serves by at first.
    pub generation: Arc<Generation>,
    /// What this worker counts; the server reads it.
    pub counters: Arc<Counters>,
    /// What it knows of the other workers, shared.
    pub balance: Arc<Balance>,
    /// What it accepts from at first.
    pub listen: Vec<Listening>,
}

/// A message to a worker.
#[derive(Debug)]
pub enum Message {
    /// Another configuration for new sessions, other workers beside it.
    Reload(Arc<Generation>, Arc<Balance>, Vec<Listening>),
    /// All that it accepts from, from now on.
    Listen(Vec<Listening>),
    /// Ask some tunnels to end.
    Drain(Arc<Drain>),
    /// End, as soon as the last connection has gone.
    Quit(Quit),
    /// Leave: finish what there is by this configuration, and hand every tunnel to one of the others.
    Leave(Arc<Generation>, Vec<Arc<Inbox>>),
    /// Go on with these tunnels.
    Adopt(Vec<Loose<Record>>),
    /// Drop this: whoever has sent it to all workers and is left alone with it knows that they take turns.
    Pulse(Arc<()>),
}

/// A running worker.
pub struct Handle {
    /// Its thread; ends after a `Quit`.
    pub thread: JoinHandle<()>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Where it gets messages.
    pub inbox: Arc<Inbox>,
}

impl Handle {
    /// Sends a message; a worker that has ended needs none.
    pub fn send(&self, message: Message) {
        let _ = self.inbox.send(message);
    }
}

/// Starts a worker.
///
/// # Errors
/// No thread, no descriptor.
pub fn start(plan: Plan) -> io::Result<Handle> {
    let (id, counters) = (plan.id, Arc::clone(&plan.counters));
    let bell = plan.balance.bell(id).try_clone_to_owned()?;
    let inbox = Arc::new(Inbox::new(plan.balance.own_bell(id)));
    let own = Arc::clone(&inbox);
    let thread = thread::Builder::new().name(format!("worker {id}")).spawn(move || run(plan, own, bell))?;
    Ok(Handle { thread, counters, inbox })
}

fn run(plan: Plan, inbox: Arc<Inbox>, bell: OwnedFd) {
    if let Err(error) = pin_to(plan.cpus.as_deref()) {
        let message = format_args!("worker {} runs on any core: sched_setaffinity() failed ({error})", plan.id);
        error_log::event(&plan.generation.logs, Level::Warn, &About::Process, message);
    }
    // Else every nap takes 50 us longer (PR_SET_TIMERSLACK, prctl(2)). It does not fail for a thread's own.
    let _ = nix::sys::prctl::set_timerslack(1);
    plan.counters.gauges.thread.store(nix::unistd::gettid().as_raw() as u64, Relaxed);
    let logs = Arc::clone(&plan.generation.logs);
    let result = runtime(&plan).and_then(|mut runtime| serve(&mut runtime, plan, inbox, bell));
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

type Runtime = FusionRuntime<IoUringDriver, LegacyDriver>;

/// epoll, or io_uring where the file asks for it and the kernel allows it.
fn runtime(plan: &Plan) -> io::Result<Runtime> {
    if plan.generation.config.main.driver == Driver::IoUring {
        let reason = if monoio::utils::detect_uring() {
            match RuntimeBuilder::<IoUringDriver>::new().build() {
                Ok(runtime) => return Ok(runtime.into()),
                // The probe passes and creation fails under a small RLIMIT_MEMLOCK (before 5.12) or a seccomp filter.
                Err(error) => format!("io_uring_setup() failed ({error})"),
            }
        } else {
            "kernel before 5.6, io_uring_disabled, seccomp, or MONOIO_FORCE_LEGACY_DRIVER".to_owned()
        };
        if plan.id == 0 {
            let message = format_args!("workers run on epoll: io_uring is not to be had ({reason})");
            error_log::event(&plan.generation.logs, Level::Warn, &About::Process, message);
        }
    }
    RuntimeBuilder::<LegacyDriver>::new().build().map(Into::into)
}

/// The life of a worker: run the tasks that can run, wait, hand out what came, let the tunnels move.
fn serve(runtime: &mut Runtime, plan: Plan, inbox: Arc<Inbox>, bell: OwnedFd) -> io::Result<()> {
    let has_ring = matches!(runtime, FusionRuntime::Uring(_));
    let mut turns = runtime.block_on(async { Turns::start(plan, inbox, bell, has_ring) })?;
    loop {
        while !turns.worker.is_done() {
            // monoio runs every task that is ready before it looks at the future it is given.
            runtime.block_on(turns.take())?;
        }
        if !turns.take_last_messages() {
            break;
        }
    }
    runtime.block_on(async { turns.end() });
    Ok(())
}

/// A worker's turns, and what they share.
struct Turns {
    worker: Rc<Worker>,
    inbox: Arc<Inbox>,
    heirs: Rc<Heirs>,
    /// The epoll instance once more, for monoio to wait for on io_uring.
    ring: Option<monoio::net::TcpStream>,
    events: Vec<Event>,
    expired: Vec<u32>,
    /// Turns in a row that have left events behind, and no deadline looked at.
    hurried: u32,
}

impl Turns {
    fn start(plan: Plan, inbox: Arc<Inbox>, bell: OwnedFd, has_ring: bool) -> io::Result<Self> {
        let in_force = sandbox::confine_worker(&plan.generation.config);
        let worker = Worker::new(plan.id, plan.generation, plan.counters, plan.balance)?;
        let missing = in_force.missing_besides(worker.generation().board.sandbox());
        if let Some(missing) = missing.filter(|_| worker.id == 0) {
            worker.log(Level::Warn, format_args!("sandbox: workers: missing on this host: {missing}"));
        }
        let reactor = &worker.reactor;
        let desk = Desk { worker: Rc::clone(&worker), doors: Doors::default(), heirs: Rc::default() };
        desk.doors.open(&worker, plan.listen)?;
        let heirs = Rc::clone(&desk.heirs);
        worker.spawn(desk.read(Arc::clone(&inbox), reactor.watch(bell)?));
        // monoio takes the descriptor for a stream's; all it does with it is to wait until it is readable.
        let poller = |fd: OwnedFd| monoio::net::TcpStream::from_std(fd.into());
        let ring = has_ring.then(|| reactor.epoll().try_clone_to_owned().and_then(poller)).transpose()?;
        Ok(Self {
            worker,
            inbox,
            heirs,
            ring,
            events: Vec::with_capacity(EVENTS_PER_BATCH),
            expired: Vec::new(),
            hurried: 0,
        })
    }

    /// Takes one turn.
    async fn take(&mut self) -> io::Result<()> {
        let count = self.wait().await?;
        self.serve(count)?;
        let told_of = self.worker.tunnels.borrow_mut().reports();
        let trouble = self.worker.tunnels.borrow_mut().trouble();
        told_of.into_iter().for_each(|number| session::tunnel_goes_on(&self.worker, number));
        bury(&self.worker);
        if let Some(Trouble { call, error }) = trouble {
            self.worker.lacks(call, &error, "bulk transfers are copied");
        }
        self.heirs.take_some(&self.worker);
        self.worker.tell();
        Ok(())
    }

    /// Waits for events, unless there is something else to do; how many came.
    async fn wait(&mut self) -> io::Result<usize> {
        let Self { worker, ring, events, .. } = self;
        let leaves_some = self.heirs.are_there() && !worker.tunnels.borrow().is_empty();
        // Nothing runs a task but the turn before this one, and nothing else wakes one but a task or an event.
        let is_busy = worker.take_ran() || worker.tunnels.borrow().has_ready() || leaves_some;
        if !is_busy && worker.tunnels.borrow_mut().has_spliced() {
            // The next bytes of a bulk transfer are on their way: they shall come as few large splices and not as many small ones.
            thread::sleep(Duration::from_micros(BULK_NAP_US));
        }
        let patience = worker.busy_poll();
        if !is_busy && !patience.is_zero() {
            let count = worker.reactor.poll_busily(events, patience)?;
            if count > 0 {
                return Ok(count);
            }
        }
        match ring {
            _ if is_busy => worker.reactor.turn(events),
            None => worker.reactor.wait(events),
            Some(poller) => {
                poller.readable(false).await?;
                worker.reactor.turn(events)
            }
        }
    }

    /// Takes what else the kernel has, in some batches, then lets the tunnels move what they have.
    fn serve(&mut self, mut count: usize) -> io::Result<()> {
        let Self { worker, events, expired, hurried, .. } = self;
        let mut tunnels = worker.tunnels.borrow_mut();
        for _ in 1..BATCHES_PER_TURN {
            tunnels.note(events);
            events.clear();
            if count < EVENTS_PER_BATCH {
                break;
            }
            count = worker.reactor.turn(events)?;
        }
        tunnels.note(events);
        events.clear();
        let scratch = &mut worker.scratch.borrow_mut();
        tunnels.resume(scratch);
        // What has come since may be what a deadline waits for: it is heard first, if that does not take for ever.
        *hurried = if count == EVENTS_PER_BATCH { *hurried + 1 } else { 0 };
        if *hurried > 0 && *hurried < TURNS_IN_A_HURRY {
            return Ok(());
        }
        worker.reactor.advance(expired)?;
        expired.drain(..).for_each(|number| tunnels.expire(number, scratch));
        Ok(())
    }

    /// The worker has nothing left: nothing more shall be sent to it. True when there was a tunnel on its way.
    fn take_last_messages(&self) -> bool {
        for message in self.inbox.close() {
            if let Message::Adopt(tunnels) = message {
                heirs::adopt(&self.worker, tunnels);
            }
        }
        !self.worker.is_done()
    }

    fn end(&self) {
        self.worker.tunnels.borrow_mut().close_all(self.worker.end(), &mut self.worker.scratch.borrow_mut());
        bury(&self.worker);
        self.worker.abandon_tasks();
    }
}

/// Where messages are read and obeyed.
struct Desk {
    worker: Rc<Worker>,
    doors: Doors,
    heirs: Rc<Heirs>,
}

impl Desk {
    async fn read(self, inbox: Arc<Inbox>, bell: Descriptor) {
        let mut count = [0; 8];
        let worker = &self.worker;
        loop {
            inbox.take().into_iter().for_each(|message| self.obey(message));
            inspect::look_at_errands(worker);
            // One that ends serves what it was handed before, and is handed nothing more.
            let handed = match worker.is_quitting() {
                true => worker.balance().leave(worker.id),
                false => worker.balance().take(worker.id),
            };
            handed.into_iter().for_each(|connection| listener::take_over(worker, connection));
            bell.readable().await;
            // How often it rang does not matter; read, the next ring is an edge again (eventfd(2)).
            let _ = nix::unistd::read(&bell, &mut count);
        }
    }

    fn obey(&self, message: Message) {
        let worker = &self.worker;
        match message {
            Message::Drain(drain) => {
                let own = Rc::clone(worker);
                worker.spawn(async move { drain::drain(&own, &drain).await });
            }
            Message::Quit(quit) => drain::quit(worker, quit),
            Message::Pulse(pulse) => drop(pulse),
            Message::Listen(all) => {
                let nowhere = all.is_empty();
                self.listen(all);
                if nowhere && worker.is_draining() {
                    worker.change(State::Quitting);
                }
            }
            Message::Reload(generation, balance, all) => {
                // Who waits at a listener that goes is let in while there is one.
                self.listen(all);
                worker.renew(generation, Some(balance));
            }
            Message::Leave(generation, heirs) => {
                self.listen(Vec::new());
                worker.renew(generation, None);
                self.heirs.name(heirs);
                worker.change(State::Quitting);
            }
            Message::Adopt(tunnels) => heirs::adopt(worker, tunnels),
        }
    }

    fn listen(&self, all: Vec<Listening>) {
        if let Err(error) = self.doors.open(&self.worker, all) {
            let message = format_args!("a listening socket cannot be watched ({})", os_error(&error));
            self.worker.log(Level::Alert, message);
        }
    }
}

/// Writes the last lines of tunnels that have ended.
fn bury(worker: &Rc<Worker>) {
    let mut tunnels = worker.tunnels.borrow_mut();
    let ended: Vec<_> = tunnels.finished().collect();
    drop(tunnels);
    for finished in ended {
        session::tunnel_ended(worker, finished);
        worker.connections_ended();
    }
}
