//! The readiness of every descriptor of a worker, and its deadlines.
//!
//! One epoll instance a worker holds all sockets for all of their life, edge-triggered: those of handshakes, whose
//! tasks wait for a [`Descriptor`], and those of tunnels, whose events [`Reactor::turn`] hands out in batches. A socket
//! that becomes part of a tunnel only changes its token (`EPOLL_CTL_MOD`), so a handshake costs no registration that
//! its tunnel would not need anyway. monoio runs the tasks; it waits for nothing but this epoll instance, and that only on io_uring.

mod clock;
mod descriptor;
mod gate;

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, poll_fn},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use clock::Clock;
pub use descriptor::Descriptor;
pub use gate::Gate;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use slab::Slab;

use crate::{
    limits::{EVENTS_PER_BATCH, JUMP_TICKS, TICK_MS},
    wheel::{Tick, Timer, Wheel, ticks},
};

/// Bit of a token that says "tunnel"; the rest is the tunnel's own number.
const TUNNEL: u64 = 1 << 63;
/// The token of the clock.
const CLOCK: u64 = TUNNEL - 1;

const WATCHED: EpollFlags =
    EpollFlags::EPOLLIN.union(EpollFlags::EPOLLOUT).union(EpollFlags::EPOLLRDHUP).union(EpollFlags::EPOLLET);

/// See the module.
pub struct Reactor {
    epoll: Epoll,
    clock: Clock,
    ready: RefCell<Box<[EpollEvent]>>,
    sources: RefCell<Slab<Source>>,
    wheel: RefCell<Wheel<Owner>>,
    waits: RefCell<Slab<Wait>>,
    started: Instant,
    now: Cell<Instant>,
    /// The tick of `now`; the wheel comes to it with [`Reactor::advance`], and lies behind when the worker was held up.
    tick: Cell<Tick>,
    /// The tick at which the clock last struck, and whether it had jumped by then.
    heard: Cell<Tick>,
    jumped: Cell<bool>,
}

/// What is known of a watched descriptor between two waits.
#[derive(Default)]
struct Source {
    readable: bool,
    writable: bool,
    hangup: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Waits for the peer to leave, whatever the other two wait for.
    watcher: Option<Waker>,
}

#[derive(Default)]
struct Wait {
    expired: bool,
    waker: Option<Waker>,
}

/// Whose deadline it is: a tunnel's, or with the highest bit a task's. Neither number comes near it.
#[derive(Clone, Copy)]
struct Owner(u32);

impl Owner {
    const WAIT: u32 = 1 << 31;
}

/// A ready socket of a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The number given to [`Reactor::adopt`].
    pub token: u64,
    /// What happened.
    pub flags: EpollFlags,
}

/// The time given to [`Reactor::within`] is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl Reactor {
    /// A reactor with its own epoll instance.
    ///
    /// # Errors
    /// epoll_create1(2)'s.
    pub fn new() -> io::Result<Rc<Self>> {
        let now = Instant::now();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let clock = Clock::new()?;
        epoll.add(&clock.timer, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, CLOCK))?;
        Ok(Rc::new(Self {
            epoll,
            clock,
            ready: RefCell::new(vec![EpollEvent::empty(); EVENTS_PER_BATCH].into_boxed_slice()),
            sources: RefCell::default(),
            wheel: RefCell::default(),
            waits: RefCell::default(),
            started: now,
            now: Cell::new(now),
            tick: Cell::new(0),
            heard: Cell::new(0),
            jumped: Cell::new(false),
        }))
    }

    /// The epoll instance, for whoever waits for it: readable when [`Reactor::turn`] has something to do.
    pub fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// The time of the last turn: exact enough for deadlines, and no system call.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// The tick of the last turn.
    pub fn tick(&self) -> Tick {
        self.tick.get()
    }

    fn look_at_the_clock(&self) {
        let now = Instant::now();
        self.now.set(now);
        self.tick.set(now.duration_since(self.started).as_millis() as Tick / TICK_MS);
    }

    /// Descriptors watched for tasks, those of tunnels not counted.
    pub fn watched(&self) -> usize {
        self.sources.borrow().len()
    }

    /// Deadlines armed.
    pub fn deadlines(&self) -> usize {
        self.wheel.borrow().len()
    }

    /// Takes one batch of events: wakes the tasks of those that are descriptors, appends those of tunnels to `events`.
    /// Returns how many came; a full batch means that there may be more.
    ///
    /// # Errors
    /// epoll_wait(2)'s, EINTR excepted.
    pub fn turn(&self, events: &mut Vec<Event>) -> io::Result<usize> {
        self.take(events, EpollTimeout::ZERO)
    }

    /// As [`Reactor::turn`], waiting for the first event. No task may be ready to run.
    ///
    /// # Errors
    /// epoll_wait(2)'s, EINTR excepted.
    pub fn wait(&self, events: &mut Vec<Event>) -> io::Result<usize> {
        self.take(events, EpollTimeout::NONE)
    }

    /// Asks for events until some come, for at most `patience`.
    ///
    /// # Errors
    /// As [`Reactor::wait`].
    pub fn poll_busily(&self, events: &mut Vec<Event>, patience: Duration) -> io::Result<usize> {
        let begun = Instant::now();
        loop {
            let count = self.turn(events)?;
            if count > 0 || begun.elapsed() >= patience {
                return Ok(count);
            }
            std::hint::spin_loop();
        }
    }

    fn take(&self, events: &mut Vec<Event>, timeout: EpollTimeout) -> io::Result<usize> {
        let mut ready = self.ready.borrow_mut();
        let count = match self.epoll.wait(&mut ready, timeout) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        self.look_at_the_clock();
        let mut sources = self.sources.borrow_mut();
        for event in &ready[..count] {
            let (token, flags) = (event.data(), event.events());
            if token & TUNNEL != 0 {
                events.push(Event { token: token & !TUNNEL, flags });
            } else if token == CLOCK {
                self.clock.struck.set(true);
            } else if let Some(source) = sources.get_mut(token as usize) {
                source.note(flags);
            }
        }
        Ok(count)
    }

    /// True once when the clock has jumped since the last tick: the process was stopped, or the worker held up. What came meanwhile is not
    /// all among the events that were fetched; what is due can wait for the next tick.
    fn has_jumped(&self) -> bool {
        let passed = self.tick() - self.heard.replace(self.tick());
        let jumped = passed > JUMP_TICKS;
        !self.jumped.replace(jumped) && jumped
    }

    /// After a tick: wakes the tasks whose time is over, appends the tunnels whose deadline came to `tunnels`. Without deadlines
    /// there are no ticks: an idle worker sleeps.
    ///
    /// # Errors
    /// timerfd_settime(2)'s.
    pub fn advance(&self, tunnels: &mut Vec<u32>) -> io::Result<()> {
        if !self.clock.struck.take() {
            return Ok(());
        }
        if self.has_jumped() {
            self.clock.hear();
            return Ok(());
        }
        let mut expired = Vec::new();
        let mut wheel = self.wheel.borrow_mut();
        wheel.advance(self.tick(), &mut expired);
        if wheel.is_empty() {
            self.clock.stop()?;
        } else {
            self.clock.hear();
        }
        drop(wheel);
        let mut waits = self.waits.borrow_mut();
        for Owner(number) in expired {
            if number & Owner::WAIT == 0 {
                tunnels.push(number);
            } else if let Some(wait) = waits.get_mut((number & !Owner::WAIT) as usize) {
                wait.expired = true;
                wake(&mut wait.waker);
            }
        }
        Ok(())
    }

    /// Puts a deadline on the wheel, `delay` ticks from now, and starts the clock for it.
    fn set(&self, delay: Tick, owner: Owner) -> Timer {
        let mut wheel = self.wheel.borrow_mut();
        if !self.clock.runs.get() {
            // The wheel stood still, and was empty: nothing can expire on its way to the present.
            wheel.advance(self.tick(), &mut Vec::new());
            self.heard.set(self.tick());
            self.clock.start();
        }
        wheel.arm(self.tick().saturating_add(delay), owner)
    }

    /// Watches a descriptor for a task.
    ///
    /// # Errors
    /// epoll_ctl(2)'s: ENOSPC past /proc/sys/fs/epoll/max_user_watches, ENOMEM.
    pub fn watch(self: &Rc<Self>, fd: OwnedFd) -> io::Result<Descriptor> {
        let key = self.sources.borrow_mut().insert(Source { readable: true, writable: true, ..Source::default() });
        if let Err(error) = self.epoll.add(&fd, EpollEvent::new(WATCHED, key as u64)) {
            self.sources.borrow_mut().remove(key);
            return Err(error.into());
        }
        Ok(Descriptor::new(fd, key, Rc::clone(self)))
    }

    /// Gives a released descriptor to a tunnel: its events come out of [`Reactor::turn`] from now on, at first one for
    /// whatever is ready already. `output`: also when it takes bytes again.
    ///
    /// # Errors
    /// epoll_ctl(2)'s.
    pub fn adopt(&self, fd: BorrowedFd<'_>, token: u64, output: bool) -> io::Result<()> {
        let flags = if output { WATCHED } else { WATCHED.difference(EpollFlags::EPOLLOUT) };
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags, token | TUNNEL))?)
    }

    /// Watches a descriptor for a tunnel that another reactor watched before.
    ///
    /// # Errors
    /// epoll_ctl(2)'s.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, output: bool) -> io::Result<()> {
        let flags = if output { WATCHED } else { WATCHED.difference(EpollFlags::EPOLLOUT) };
        Ok(self.epoll.add(fd, EpollEvent::new(flags, token | TUNNEL))?)
    }

    /// Watches a descriptor of a tunnel no longer: another reactor will.
    pub fn forget(&self, fd: BorrowedFd<'_>) {
        // It was added, and this is the only way to remove it.
        let _ = self.epoll.delete(fd);
    }

    /// Arms the deadline of a tunnel, `delay` ticks from now.
    pub fn arm(&self, delay: Tick, tunnel: u32) -> Timer {
        self.set(delay, Owner(tunnel))
    }

    /// Disarms the deadline of a tunnel that has not come.
    pub fn disarm(&self, timer: Timer) {
        self.wheel.borrow_mut().disarm(timer);
    }

    /// Forgets all tasks: nothing will come any more. Whoever waits for something is known by its waker alone, so that this ends it.
    /// Without it neither would ever be freed: a task owns its descriptor, that the reactor, and this what wakes the task.
    pub fn abandon(&self) {
        let mut forgotten = Vec::new();
        for (_, Source { reader, writer, watcher, .. }) in self.sources.borrow_mut().iter_mut() {
            forgotten.extend([reader.take(), writer.take(), watcher.take()]);
        }
        forgotten.extend(self.waits.borrow_mut().iter_mut().map(|(_, wait)| wait.waker.take()));
        // A task that ends by this gives its descriptor and its deadline back: not while these are walked through.
        drop(forgotten);
    }

    /// Gives up room that a crowd of tasks and deadlines has left behind.
    pub fn shrink(&self) {
        self.sources.borrow_mut().shrink_to_fit();
        self.waits.borrow_mut().shrink_to_fit();
        self.wheel.borrow_mut().shrink();
    }

    /// Runs `future` for at most `limit`; it is dropped when the time is over.
    ///
    /// # Errors
    /// [`Elapsed`].
    pub async fn within<F: Future>(&self, limit: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        // Most futures are ready at once: they cost no timer.
        if let Poll::Ready(output) = at_once(future.as_mut()).await {
            return Ok(output);
        }
        let deadline = Deadline::arm(self, limit);
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            deadline.poll(context).map(Err)
        })
        .await
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        let _ = self.within(duration, std::future::pending::<()>()).await;
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reactor").field("watched", &self.watched()).finish_non_exhaustive()
    }
}

/// A deadline on the wheel for as long as it lives.
struct Deadline<'a> {
    reactor: &'a Reactor,
    key: usize,
    timer: Timer,
}

impl<'a> Deadline<'a> {
    fn arm(reactor: &'a Reactor, limit: Duration) -> Self {
        let key = reactor.waits.borrow_mut().insert(Wait::default());
        // One tick more: the present one has begun already.
        let timer = reactor.set(ticks(limit).saturating_add(1), Owner(Owner::WAIT | key as u32));
        Self { reactor, key, timer }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Elapsed> {
        let mut waits = self.reactor.waits.borrow_mut();
        let wait = &mut waits[self.key];
        if wait.expired {
            return Poll::Ready(Elapsed);
        }
        register(&mut wait.waker, context);
        Poll::Pending
    }
}

impl Drop for Deadline<'_> {
    fn drop(&mut self) {
        let wait = self.reactor.waits.borrow_mut().remove(self.key);
        if !wait.expired {
            self.reactor.wheel.borrow_mut().disarm(self.timer);
        }
    }
}

impl Source {
    fn note(&mut self, flags: EpollFlags) {
        let gone = flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP);
        let left = gone || flags.contains(EpollFlags::EPOLLRDHUP);
        if left || flags.contains(EpollFlags::EPOLLIN) {
            self.readable = true;
            wake(&mut self.reader);
        }
        if gone || flags.contains(EpollFlags::EPOLLOUT) {
            self.writable = true;
            wake(&mut self.writer);
        }
        if left {
            self.hangup = true;
            wake(&mut self.watcher);
        }
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn register(slot: &mut Option<Waker>, context: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(context.waker()) => {}
        _ => *slot = Some(context.waker().clone()),
    }
}

/// Runs two futures until either is done; the left one has precedence.
pub async fn race<A: Future, B: Future>(left: A, right: B) -> Either<A::Output, B::Output> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|context| {
        if let Poll::Ready(output) = left.as_mut().poll(context) {
            return Poll::Ready(Either::Left(output));
        }
        right.as_mut().poll(context).map(Either::Right)
    })
    .await
}

/// Which of two futures was done first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first.
    Left(A),
    /// The second.
    Right(B),
}

/// Lets the other tasks of the worker run. monoio puts a task that wakes itself at the front of its queue (0.2.4,
/// `TaskQueue::push_front`): it would run again before all others, and nothing else ever would. One woken by another task goes to
/// the back.
pub async fn yield_now() {
    monoio::spawn(async {}).await;
}

/// Polls a future once.
pub async fn at_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

#[cfg(test)]
mod tests;
