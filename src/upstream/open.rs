//! What is open towards backends, over all workers and all configurations: requests and tunnels, by the server they are at.
//!
//! A count is kept by whatever is counted in it: it outlives the group, the configuration and the worker that began it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use super::{
    Backend,
    ports::{Port, Ports, Tuple},
};
use crate::observe::tally::PeerTally;

/// Everything that is open.
#[derive(Debug, Default)]
pub struct Open {
    /// Local ports.
    pub ports: Ports,
    servers: Mutex<HashMap<Server, Weak<Conns>>>,
}

/// An address of a group's server. A file may name one address several times: each counts for itself.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Server {
    group: Box<str>,
    backend: Backend,
    nth: usize,
}

impl Open {
    /// The counts of a group's servers, by their addresses in the order of the file. Those that a configuration before this one
    /// named too, or that something is still open at, go on.
    pub(super) fn of_group<'a>(&self, group: &str, backends: impl IntoIterator<Item = &'a Backend>) -> Vec<Arc<Conns>> {
        let mut named = HashMap::<&Backend, usize>::new();
        // Nothing panics while it is held.
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut find = |backend: &'a Backend| {
            let nth = named.entry(backend).and_modify(|nth| *nth += 1).or_default();
            let server = Server { group: group.into(), backend: backend.clone(), nth: *nth };
            // Rather than that it grows, those go that nothing counts in any more.
            if servers.len() == servers.capacity() {
                servers.retain(|_, conns| conns.strong_count() > 0);
            }
            let place = servers.entry(server).or_default();
            place.upgrade().unwrap_or_else(|| {
                let conns = Arc::default();
                *place = Arc::downgrade(&conns);
                conns
            })
        };
        backends.into_iter().map(&mut find).collect()
    }
}

/// How many requests and tunnels are at a server now: `peer->conns` of an nginx group with `zone`, for `max_conns`. A connection that
/// waits for another request is not counted, as in nginx.
#[derive(Debug, Default)]
pub struct Conns(AtomicU32);

impl Conns {
    /// Now.
    pub fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }

    fn open(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn end(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A request that is at a server: counted as long as this lives.
#[derive(Debug)]
pub struct Held(Arc<Conns>);

impl Held {
    /// One more.
    pub(super) fn one_of(conns: &Arc<Conns>) -> Self {
        conns.open();
        Self(Arc::clone(conns))
    }

    /// In what it is counted.
    pub(super) fn conns(&self) -> &Arc<Conns> {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A tunnel that is at a server: counted in all that counts it as long as this lives. A pointer, since a million of them may be open:
/// tunnels that count alike share what it leads to.
#[derive(Debug)]
pub struct Leg(Arc<Counts>);

/// What a tunnel counts in.
#[derive(Debug)]
pub(super) struct Counts {
    /// None: the file does not name the server.
    tally: Option<Arc<PeerTally>>,
    conns: Arc<Conns>,
    /// None: a unix socket.
    tuple: Option<Arc<Tuple>>,
}

impl Leg {
    /// One more.
    pub(super) fn in_all(counts: Arc<Counts>) -> Self {
        counts.conns.open();
        counts.tally.iter().for_each(|tally| tally.tunnels.open());
        counts.tuple.iter().for_each(|tuple| tuple.open());
        Self(counts)
    }

    /// What is counted of its backend; nothing of an address that variables came to.
    pub fn tally(&self) -> Option<&Arc<PeerTally>> {
        self.0.tally.as_ref()
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.0.conns.end();
        self.0.tally.iter().for_each(|tally| tally.tunnels.end());
        self.0.tuple.iter().for_each(|tuple| tuple.end());
    }
}

impl Counts {
    pub(super) fn new(held: &Held, tally: Option<&Arc<PeerTally>>, port: Option<&Port>) -> Self {
        Self { tally: tally.cloned(), conns: Arc::clone(held.conns()), tuple: port.and_then(Port::tuple).cloned() }
    }

    /// True when a tunnel of the other kind counts in the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        fn place<T>(shared: &Option<Arc<T>>) -> Option<*const T> {
            shared.as_ref().map(Arc::as_ptr)
        }
        Arc::ptr_eq(&self.conns, &other.conns)
            && place(&self.tally) == place(&other.tally)
            && place(&self.tuple) == place(&other.tuple)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of a tunnel to a backend that the file does not name.
    pub(crate) fn leg() -> Leg {
        Leg::in_all(Arc::new(Counts { tally: None, conns: Arc::default(), tuple: None }))
    }

    fn backend(port: u16) -> Backend {
        Backend::Tcp(([127, 0, 0, 1], port).into())
    }

    #[test]
    fn what_is_open_at_a_server_is_known_to_whoever_names_it_next() {
        let open = Open::default();
        let [one, twice] = [backend(1), backend(1)];
        let first = open.of_group("app", [&one, &twice]);
        let held = Held::one_of(&first[1]);
        let again = open.of_group("app", [&one, &twice, &backend(2)]);
        assert_eq!(again.iter().map(|conns| conns.now()).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(open.of_group("other", [&one])[0].now(), 0);
        // The file does not name it for a while, and the request goes on.
        drop((first, again));
        open.of_group("app", [&backend(3)]);
        assert_eq!(open.of_group("app", [&one, &twice])[1].now(), 1);
        drop(held);
        assert_eq!(open.of_group("app", [&one, &twice])[1].now(), 0);
    }

    #[test]
    fn names_that_come_and_go_do_not_fill_the_memory() {
        let open = Open::default();
        for port in 1..1000 {
            open.of_group("app", [&backend(port)]);
        }
        assert!(open.servers.lock().unwrap().capacity() < 8);
    }
}
