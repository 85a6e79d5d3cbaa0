//! Connections to backends that wait for their next request: `keepalive` in `upstream` (ngx_http_upstream_keepalive_module).
//!
//! One pool a worker. What goes in has carried a whole request and a whole response and not a byte more; what comes out is looked at
//! once more, since a byte that came meanwhile would be taken for the next client's answer.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    config::{KeepIdle, Sources},
    stream::Stream,
    tls::BackendTls,
    upstream::{Backend, ports::Port},
};

/// An `upstream` of a generation: each keeps so many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    /// [`crate::generation::Generation::number`]
    pub generation: u64,
    /// Its index in the configuration.
    pub upstream: usize,
}

/// To whom a connection leads, and how: only a request that would have opened the very same one may use it.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where.
    pub backend: Backend,
    /// Over TLS: by which settings, and the name sent and verified.
    pub tls: Option<(Arc<BackendTls>, Box<str>)>,
    /// `proxy_bind`: from which addresses.
    pub sources: Option<Arc<Sources>>,
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        let same_tls = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some((one, name)), Some((other, other_name))) => Arc::ptr_eq(one, other) && name == other_name,
            _ => false,
        };
        same_tls && self.backend == other.backend && self.sources == other.sources
    }
}

/// A connection, and what it has behind it.
#[derive(Debug)]
pub struct Kept {
    /// It.
    pub stream: Stream,
    /// Requests it has carried.
    pub requests: u64,
    /// When it was opened.
    pub opened: Instant,
    /// Its local port; none of a unix socket. Last, so that the socket is closed before it is free.
    pub port: Option<Port>,
}

#[derive(Debug)]
struct Idle {
    kept: Kept,
    peer: Peer,
    /// When it has waited long enough.
    ends: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Pool {
    /// Of each group, the one that has waited longest first.
    idle: RefCell<HashMap<Group, Vec<Idle>>>,
    len: Cell<usize>,
    /// Of the task that looks after them, once there is one.
    watcher: RefCell<Option<Waker>>,
    watched: Cell<bool>,
    /// Until when it sleeps, and that something ends before that.
    awaited: Cell<Option<Instant>>,
    sooner: Cell<bool>,
}

impl Pool {
    /// Connections that wait.
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The connection to this peer that has waited least, if it is still good. Those that are not are closed.
    pub fn take(&self, group: Group, peer: &Peer) -> Option<Kept> {
        let mut groups = self.idle.borrow_mut();
        let idle = groups.get_mut(&group)?;
        let mut found = None;
        while found.is_none()
            && let Some(at) = idle.iter().rposition(|idle| idle.peer == *peer)
        {
            let Idle { kept, .. } = idle.remove(at);
            found = Some(kept).filter(|kept| kept.stream.is_quiet());
        }
        self.count(&groups);
        found
    }

    /// Keeps a connection behind its response, unless it has carried enough or says something unasked. Past the group's number, the
    /// one that has waited longest is closed.
    pub fn keep(&self, group: Group, limits: &KeepIdle, peer: Peer, kept: Kept, now: Instant) {
        let is_spent =
            kept.requests >= limits.requests || now.saturating_duration_since(kept.opened) >= limits.lifetime;
        if limits.connections == 0 || is_spent || kept.stream.descriptor().has_hung_up() {
            return;
        }
        if let Some(watcher) = &*self.watcher.borrow() {
            kept.stream.descriptor().watch_hangup(watcher);
        }
        let mut groups = self.idle.borrow_mut();
        let idle = groups.entry(group).or_default();
        if idle.len() >= limits.connections {
            idle.remove(0);
        }
        let ends = now + limits.timeout;
        idle.push(Idle { kept, peer, ends });
        self.count(&groups);
        if self.awaited.get().is_some_and(|awaited| ends < awaited) {
            self.sooner.set(true);
            self.watcher.borrow().iter().for_each(Waker::wake_by_ref);
        }
    }

    /// Closes those that have waited long enough, those whose backend has left, and those of groups that are not to be kept.
    pub fn sweep(&self, now: Instant, is_wanted: impl Fn(&Group) -> bool) {
        let mut groups = self.idle.borrow_mut();
        groups.retain(|group, idle| {
            idle.retain(|idle| is_wanted(group) && now < idle.ends && !idle.kept.stream.descriptor().has_hung_up());
            !idle.is_empty()
        });
        self.count(&groups);
    }

    /// Forgets who looks after them.
    pub fn abandon(&self) {
        drop(self.watcher.take());
    }

    /// Closes all.
    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.len.set(0);
    }

    fn count(&self, groups: &HashMap<Group, Vec<Idle>>) {
        self.len.set(groups.values().map(Vec::len).sum());
    }

    /// True when connections wait and nobody looks after them: whoever asks does from now on, until [`Pool::patience`] says none.
    pub fn wants_watcher(&self) -> bool {
        !self.is_empty() && !self.watched.replace(true)
    }

    /// How long until the first of them has waited long enough; none, when there are none: then nobody looks after them any more.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let first = self.idle.borrow().values().flatten().map(|idle| idle.ends).min();
        if first.is_none() {
            self.watched.set(false);
            self.watcher.take();
        }
        self.awaited.set(first);
        first.map(|ends| ends.saturating_duration_since(now))
    }

    /// Waits until the backend of one of them has left, or one came that waits for less than [`Pool::patience`] said.
    pub async fn left(&self) {
        poll_fn(|context| {
            self.watcher.replace(Some(context.waker().clone()));
            let groups = self.idle.borrow();
            let mut left = self.sooner.take();
            for idle in groups.values().flatten() {
                left |= idle.kept.stream.descriptor().watch_hangup(context.waker());
            }
            if left { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        os::unix::net::UnixStream,
        pin::pin,
        rc::Rc,
        task::Context,
    };

    use super::*;
    use crate::{reactor::Reactor, tls::BackendTlsOptions};

    const GROUP: Group = Group { generation: 1, upstream: 0 };

    struct Bench {
        reactor: Rc<Reactor>,
        pool: Pool,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { reactor: Reactor::new().unwrap(), pool: Pool::default(), now: Instant::now() }
        }

        /// A connection, and its other end.
        fn connection(&self) -> (Kept, UnixStream) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            let stream = Stream::new(self.reactor.watch(ours.into()).unwrap(), Rc::default());
            (Kept { stream, requests: 1, opened: self.now, port: None }, theirs)
        }

        fn keep(&self, group: Group, peer: &Peer) -> UnixStream {
            let (kept, theirs) = self.connection();
            self.pool.keep(group, &limits(), peer.clone(), kept, self.now);
            theirs
        }

        fn turn(&self) {
            self.reactor.turn(&mut Vec::new()).unwrap();
        }
    }

    fn limits() -> KeepIdle {
        let minute = Duration::from_secs(60);
        KeepIdle { connections: 2, requests: 10, timeout: minute, lifetime: 60 * minute }
    }

    fn peer(port: u16) -> Peer {
        Peer { backend: Backend::Tcp(([127, 0, 0, 1], port).into()), tls: None, sources: None }
    }

    /// True when the other end of a connection was closed.
    fn is_closed(mut theirs: &UnixStream) -> bool {
        theirs.set_nonblocking(true).unwrap();
        matches!(theirs.read(&mut [0]), Ok(0))
    }

    #[test]
    fn the_one_that_waited_least_is_taken_and_the_one_that_waited_longest_closed() {
        let bench = Bench::new();
        let [first, second, third] = [(); 3].map(|()| bench.keep(GROUP, &peer(1)));
        assert_eq!(bench.pool.len(), 2);
        assert!(is_closed(&first) && !is_closed(&second));
        let taken = bench.pool.take(GROUP, &peer(1)).unwrap();
        nix::unistd::write(taken.stream.descriptor(), b"x").unwrap();
        let mut third = third;
        assert_eq!(third.read(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_connection_serves_the_peer_it_was_opened_to_and_nobody_else() {
        let options = BackendTlsOptions { tls13: true, ..BackendTlsOptions::default() };
        let [one, other] = [(); 2].map(|()| Arc::new(BackendTls::build(&options).unwrap()));
        let over = |tls: &Arc<BackendTls>, name: &str| Peer { tls: Some((Arc::clone(tls), name.into())), ..peer(1) };
        let bench = Bench::new();
        let _theirs = bench.keep(GROUP, &over(&one, "a.example"));
        for stranger in [peer(1), over(&one, "b.example"), over(&other, "a.example")] {
            assert!(bench.pool.take(GROUP, &stranger).is_none());
        }
        let others = [Group { upstream: 1, ..GROUP }, Group { generation: 2, ..GROUP }];
        assert!(others.iter().all(|group| bench.pool.take(*group, &over(&one, "a.example")).is_none()));
        assert!(bench.pool.take(GROUP, &over(&one, "a.example")).is_some());
        assert!(bench.pool.is_empty());
    }

    #[test]
    fn one_that_says_something_or_has_left_is_closed_and_the_next_is_taken() {
        let bench = Bench::new();
        let good = bench.keep(GROUP, &peer(1));
        let mut noisy = bench.keep(GROUP, &peer(1));
        noisy.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        let taken = bench.pool.take(GROUP, &peer(1)).unwrap();
        assert!(bench.pool.is_empty() && !is_closed(&good));
        drop(taken);
        drop(bench.keep(GROUP, &peer(1)));
        assert!(bench.pool.take(GROUP, &peer(1)).is_none(), "without an event having told");
    }

    #[test]
    fn one_that_has_carried_enough_or_is_old_is_not_kept() {
        let bench = Bench::new();
        let kept = |requests, age| {
            let (mut kept, theirs) = bench.connection();
            kept.requests = requests;
            bench.pool.keep(GROUP, &limits(), peer(1), kept, bench.now + Duration::from_secs(age));
            (bench.pool.take(GROUP, &peer(1)).is_some(), theirs).0
        };
        assert!(kept(9, 3599));
        assert!(!kept(10, 0) && !kept(1, 3600));
    }

    #[test]
    fn a_sweep_closes_the_old_the_left_and_the_unwanted() {
        let bench = Bench::new();
        let other = Group { upstream: 1, ..GROUP };
        let (one, two, unwanted) =
            (bench.keep(GROUP, &peer(1)), bench.keep(GROUP, &peer(2)), bench.keep(other, &peer(1)));
        assert!(bench.pool.wants_watcher() && !bench.pool.wants_watcher(), "one is enough");
        drop(two);
        bench.turn();
        bench.pool.sweep(bench.now, |group| *group == GROUP);
        assert_eq!(bench.pool.len(), 1);
        assert!(is_closed(&unwanted) && !is_closed(&one));
        assert_eq!(bench.pool.patience(bench.now + Duration::from_secs(50)), Some(Duration::from_secs(10)));
        bench.pool.sweep(bench.now + Duration::from_secs(60), |_| true);
        assert!(is_closed(&one));
        assert_eq!(bench.pool.patience(bench.now), None);
        let _theirs = bench.keep(GROUP, &peer(1));
        assert!(bench.pool.wants_watcher(), "the last one is gone");
    }

    #[test]
    fn who_waits_for_one_to_leave_is_woken_also_by_those_that_came_later() {
        let bench = Bench::new();
        let _first = bench.keep(GROUP, &peer(1));
        let mut left = pin!(bench.pool.left());
        let mut poll = || left.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        let second = bench.keep(GROUP, &peer(2));
        bench.turn();
        assert!(poll().is_pending());
        drop(second);
        bench.turn();
        assert!(poll().is_ready());
    }

    #[test]
    fn who_sleeps_is_woken_for_one_that_ends_sooner() {
        let bench = Bench::new();
        let _first = bench.keep(GROUP, &peer(1));
        assert_eq!(bench.pool.patience(bench.now), Some(Duration::from_secs(60)));
        let mut left = pin!(bench.pool.left());
        let mut poll = || left.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(poll().is_pending());
        let (kept, _theirs) = bench.connection();
        let limits = KeepIdle { timeout: Duration::from_secs(1), ..limits() };
        bench.pool.keep(Group { upstream: 1, ..GROUP }, &limits, peer(1), kept, bench.now);
        assert!(poll().is_ready());
        assert_eq!(bench.pool.patience(bench.now), Some(Duration::from_secs(1)));
    }

    // A TCP connection knows RST as well.
    #[test]
    fn one_that_was_reset_is_closed() {
        let bench = Bench::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (theirs, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = Stream::new(bench.reactor.watch(ours.into()).unwrap(), Rc::default());
        let kept = Kept { stream, requests: 1, opened: bench.now, port: None };
        bench.pool.keep(GROUP, &limits(), peer(1), kept, bench.now);
        socket2::SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
        drop(theirs);
        assert!(bench.pool.take(GROUP, &peer(1)).is_none());
    }
}
