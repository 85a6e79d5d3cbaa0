//! What all tasks of a worker share.

mod brake;
pub mod drain;
mod idle;
mod rest;
mod shortage;

use std::{
    cell::{Cell, Ref, RefCell},
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Poll,
    time::{Duration, Instant},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

pub use self::brake::{Brake, Braked, Pending};
use crate::{
    balance::Balance,
    config::Level,
    generation::Generation,
    limits::{BURST, LAST_REQUEST_MS},
    observe::{
        counters::Counters,
        error_log::{self, About},
    },
    pool::Pool,
    reactor::{Gate, Reactor},
    record::Record,
    scratch::Scratch,
    tunnel::{Reason, Table},
};

/// What all tasks of a worker share.
pub struct Worker {
    /// 0, 1, ...
    pub id: usize,
    /// Readiness and deadlines.
    pub reactor: Rc<Reactor>,
    /// The buffers.
    pub scratch: Rc<RefCell<Scratch>>,
    /// The tunnels.
    pub tunnels: RefCell<Table<Record>>,
    /// Connections to backends that wait for another request.
    pub pool: Pool,
    /// Whether another handshake may begin.
    pub brake: Rc<Brake>,
    /// Counters.
    pub counters: Arc<Counters>,
    /// A descriptor to give up when there is no other.
    pub reserve: RefCell<Option<EventFd>>,
    /// What it knows of the other workers.
    balance: RefCell<Arc<Balance>>,
    /// What new sessions are served by.
    generation: RefCell<Arc<Generation>>,
    sessions: Cell<usize>,
    /// What the other workers know of `sessions` and `tunnels`.
    published: Cell<usize>,
    /// A task ran since [`Worker::take_ran`].
    ran: Cell<bool>,
    /// Pieces of work since the worker last rested.
    work: Cell<u64>,
    /// Where those wait who asked something of all workers.
    pub answered: Gate,
    state: Cell<State>,
    /// Where tasks wait for the state to change.
    changed: Gate,
    /// What becomes of tunnels that are there at its end.
    end: Cell<Reason>,
    warned_full: Cell<Option<Instant>>,
    shortage: shortage::Shortage,
}

/// How far a worker has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Accepts connections.
    Serving,
    /// Takes no more tunnels, answers one request a connection, and lets its tunnels go.
    Draining,
    /// Accepts nothing more, either; ends when the last connection has gone.
    Quitting,
    /// Ends at once.
    Stopping,
}

impl Worker {
    /// A worker without connections.
    ///
    /// # Errors
    /// No epoll instance.
    pub fn new(
        id: usize,
        generation: Arc<Generation>,
        counters: Arc<Counters>,
        balance: Arc<Balance>,
    ) -> io::Result<Rc<Self>> {
        let reactor = Reactor::new()?;
        let worker = Self {
            id,
            tunnels: RefCell::new(Table::new(Rc::clone(&reactor), Arc::clone(&counters))),
            reactor,
            scratch: Rc::default(),
            pool: Pool::default(),
            brake: Rc::new(Brake::counting_in(Arc::clone(&counters))),
            counters,
            reserve: RefCell::default(),
            balance: RefCell::new(balance),
            generation: RefCell::new(generation),
            sessions: Cell::new(0),
            published: Cell::new(0),
            ran: Cell::new(false),
            work: Cell::new(0),
            answered: Gate::default(),
            state: Cell::new(State::Serving),
            changed: Gate::default(),
            end: Cell::new(Reason::Shutdown),
            warned_full: Cell::new(None),
            shortage: Default::default(),
        };
        worker.open_reserve();
        Ok(Rc::new(worker))
    }

    /// What new sessions are served by; who has begun keeps the one it began with.
    pub fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.generation.borrow())
    }

    /// How long to ask for events before sleeping: asked each turn, so without a new owner of the generation.
    pub fn busy_poll(&self) -> Duration {
        self.generation.borrow().config.main.busy_poll
    }

    /// True for the generation that new sessions are served by.
    pub fn serves_by(&self, generation: &Arc<Generation>) -> bool {
        Arc::ptr_eq(&self.generation.borrow(), generation)
    }

    /// What new sessions are served by from now on, and who the workers are where others are.
    pub fn renew(&self, generation: Arc<Generation>, balance: Option<Arc<Balance>>) {
        self.generation.replace(generation);
        if let Some(balance) = balance {
            self.balance.replace(balance);
        }
        self.changed.wake();
    }

    /// What it knows of the other workers.
    pub fn balance(&self) -> Ref<'_, Balance> {
        Ref::map(self.balance.borrow(), |balance| &**balance)
    }

    /// Writes to the error log about the program. What a session has to say goes to the logs of its own generation.
    pub fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        error_log::event(&self.generation.borrow().logs, level, &About::Process, message);
    }

    /// Ends all tasks, wherever they are: the worker's own, which wait for what will not come any more, and sessions when it is stopped.
    pub fn abandon_tasks(&self) {
        self.changed.abandon();
        self.answered.abandon();
        self.pool.abandon();
        self.reactor.abandon();
    }

    /// Starts a task.
    pub fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let worker = Rc::clone(self);
        monoio::spawn(async move {
            let mut task = pin!(task);
            poll_fn(|context| {
                worker.ran.set(true);
                task.as_mut().poll(context)
            })
            .await;
        });
    }

    /// True when a task ran since the last call: it may have made another one ready.
    pub fn take_ran(&self) -> bool {
        self.ran.take()
    }

    /// Runs a session as a task of its own. A panic in it is caught at its border, logged and counted: the worker and all of its
    /// other connections live on.
    pub fn start_session(self: &Rc<Self>, session: impl Future<Output = ()> + 'static) {
        self.worked();
        self.sessions.set(self.sessions.get() + 1);
        self.publish();
        let worker = Rc::clone(self);
        let mut session: Pin<Box<dyn Future<Output = ()>>> = Box::pin(session);
        self.spawn(async move {
            let ended = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| session.as_mut().poll(context))) {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            })
            .await;
            if ended.is_err() {
                Counters::bump(&worker.counters.panics);
                worker.log(Level::Alert, format_args!("a session panicked and was closed; please report it"));
            }
            worker.sessions.set(worker.sessions.get() - 1);
            worker.connections_ended();
        });
    }

    /// As [`Worker::start_session`], for a connection that was handed over: the worker that did so has counted it here.
    pub fn start_handed(self: &Rc<Self>, session: impl Future<Output = ()> + 'static) {
        self.published.set(self.published.get() + 1);
        self.start_session(session);
    }

    fn publish(&self) {
        let now = self.sessions.get() + self.tunnels.borrow().len();
        self.balance().publish(self.id, self.published.replace(now), now);
        self.counters.gauges.sessions.store(self.sessions.get() as u64, Relaxed);
    }

    /// Tells what the worker has at the end of a turn: a few plain stores, which whoever wants to know reads.
    pub fn tell(&self) {
        let gauges = &self.counters.gauges;
        let tunnels = self.tunnels.borrow();
        gauges.timers.store(self.reactor.deadlines() as u64, Relaxed);
        gauges.pipes.store(tunnels.pipes() as u64, Relaxed);
        gauges.pipes_in_use.store(tunnels.pipes_in_use() as u64, Relaxed);
        gauges.held_bytes.store(tunnels.held() as u64, Relaxed);
        gauges.tunnel_slots.store(tunnels.len() as u64, Relaxed);
        gauges.sockets.store(self.reactor.watched() as u64, Relaxed);
        gauges.upstream_idle.store(self.pool.len() as u64, Relaxed);
    }

    /// The worker that ought to serve the next connection, when it is another: this one has clearly more than its share, or its
    /// `worker_connections` are used up.
    pub fn relief(&self) -> Option<usize> {
        let comparison = self.balance().compare(self.id)?;
        let wanted = comparison.has_too_many || self.is_full();
        (wanted && !self.fills(comparison.fewest)).then_some(comparison.least)
    }

    /// To be called for each piece of work that allocates: a connection, a request, the end of a tunnel. When a burst of them is
    /// over, the worker gives back what it no longer needs.
    pub fn worked(self: &Rc<Self>) {
        self.work.set(self.work.get() + 1);
        if self.work.get() == BURST {
            self.spawn(rest::after_burst(Rc::clone(self)));
        }
    }

    /// `worker_connections` is used up: a tunnel counts two, a session two (it may be about to connect to its backend). Connections to
    /// backends that wait for a request count too, and give way.
    pub fn is_full(&self) -> bool {
        let connections = self.balance().load(self.id);
        if self.fills(connections + self.pool.len().div_ceil(2)) {
            self.pool.clear();
        }
        self.fills(connections)
    }

    fn fills(&self, connections: usize) -> bool {
        self.generation.borrow().config.main.worker_connections.is_some_and(|limit| 2 * connections + 2 > limit)
    }

    /// Says so, at most once a second.
    pub fn warn_full(&self) {
        let now = self.reactor.now();
        if self.warned_full.get().is_none_or(|last| now.duration_since(last) >= Duration::from_secs(1)) {
            self.warned_full.set(Some(now));
            let message = format_args!("worker_connections are not enough: new connections wait in the backlog");
            self.log(Level::Alert, message);
        }
    }

    /// Opens the reserve descriptor.
    pub fn open_reserve(&self) {
        *self.reserve.borrow_mut() = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).ok();
    }

    /// True from the moment the worker was told to end: connections are not kept for another request.
    pub fn is_draining(&self) -> bool {
        self.state.get() >= State::Draining
    }

    /// True while it accepts connections only so that nobody meets a closed door. Later ones it has accepted before, as somebody who was
    /// to stay: they are served whatever they want.
    pub fn refuses_tunnels(&self) -> bool {
        self.state.get() == State::Draining
    }

    /// Waits until it makes no sense to wait for a first request any more.
    pub async fn takes_no_requests(&self) {
        self.until(|| self.is_quitting()).await;
        self.reactor.sleep(Duration::from_millis(LAST_REQUEST_MS)).await;
    }

    /// Why tunnels are closed that are there at its end,
    pub fn end(&self) -> Reason {
        self.end.get()
    }

    /// as it was told.
    pub fn ends_by(&self, reason: Reason) {
        self.end.set(reason);
    }

    /// True once it accepts nothing more.
    pub fn is_quitting(&self) -> bool {
        self.state.get() >= State::Quitting
    }

    /// Waits until something holds that a message to the worker brings about: its end, another generation.
    pub async fn until(&self, condition: impl Fn() -> bool) {
        self.changed.until(condition).await;
    }

    /// What waits with [`Worker::until`] looks again.
    pub fn look_again(&self) {
        self.changed.wake();
    }

    /// True when it may end.
    pub fn is_done(&self) -> bool {
        match self.state.get() {
            State::Serving | State::Draining => false,
            State::Quitting => self.sessions.get() == 0 && self.tunnels.borrow().is_empty(),
            State::Stopping => true,
        }
    }

    /// Goes on to a state; never back.
    pub fn change(&self, state: State) {
        self.state.set(self.state.get().max(state));
        self.changed.wake();
    }

    /// To be called when sessions or tunnels have gone.
    pub fn connections_ended(&self) {
        self.publish();
        if self.is_done() {
            self.changed.wake();
        }
    }
}
