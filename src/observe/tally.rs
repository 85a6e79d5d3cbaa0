//! Counts of what a configuration names: they are found by name, so that they survive its reloads.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{config::Config, limits::TALLIES_KEPT};

/// A server block, counted by all workers. On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServerTally {
    /// See [`Tunnelled`].
    pub tunnels: Tunnelled,
    /// Requests answered, those that became a tunnel not included.
    pub requests: AtomicU64,
}

/// An address of an upstream server.
#[derive(Debug)]
#[repr(align(128))]
pub struct PeerTally {
    /// As `$upstream_addr` shows it.
    pub address: Arc<str>,
    /// See [`Tunnelled`].
    pub tunnels: Tunnelled,
    /// Requests it was asked.
    pub requests: AtomicU64,
    /// Requests it failed.
    pub fails: AtomicU64,
    /// Connections that came to nothing.
    pub connect_errors: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
    /// Time these took, microseconds.
    pub connect_us: AtomicU64,
    /// The moving average of it, microseconds; 0: none.
    pub connect_average_us: AtomicU64,
    /// It was asked to be drained: it gets nothing new until that is taken back.
    pub drained: AtomicBool,
}

/// Tunnels.
#[derive(Debug, Default)]
pub struct Tunnelled {
    opened: AtomicU64,
    ended: AtomicU64,
}

impl Tunnelled {
    /// One more.
    pub fn open(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// One has ended.
    pub fn end(&self) {
        self.ended.fetch_add(1, Relaxed);
    }

    /// Ever opened.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Open now.
    pub fn now(&self) -> u64 {
        let ended = self.ended.load(Relaxed);
        self.opened.load(Relaxed).saturating_sub(ended)
    }
}

impl PeerTally {
    fn new(address: Arc<str>) -> Self {
        Self {
            address,
            tunnels: Tunnelled::default(),
            requests: AtomicU64::new(0),
            fails: AtomicU64::new(0),
            connect_errors: AtomicU64::new(0),
            connects: AtomicU64::new(0),
            connect_us: AtomicU64::new(0),
            connect_average_us: AtomicU64::new(0),
            drained: AtomicBool::new(false),
        }
    }

    /// A connection was made in this time. The average follows as TCP's own does (RFC 6298); two workers that write it at the same
    /// time lose one of many.
    pub fn connected(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        self.connects.fetch_add(1, Relaxed);
        self.connect_us.fetch_add(us, Relaxed);
        let average = self.connect_average_us.load(Relaxed);
        let next = if average == 0 { us } else { average - average / 8 + us / 8 };
        self.connect_average_us.store(next.max(1), Relaxed);
    }
}

/// The tallies of one configuration.
#[derive(Debug, Default)]
pub struct Tallies {
    servers: Vec<Arc<ServerTally>>,
    /// Group after group.
    peers: Vec<Arc<PeerTally>>,
    /// Where each group begins.
    groups: Vec<usize>,
}

impl Tallies {
    /// Of a server block.
    pub fn server(&self, server: usize) -> Option<&Arc<ServerTally>> {
        self.servers.get(server)
    }

    /// Of a peer, by its number.
    pub fn peer(&self, number: u32) -> Option<&Arc<PeerTally>> {
        self.peers.get(number as usize)
    }

    /// The number of a peer of a group.
    pub fn number(&self, group: usize, peer: usize) -> Option<u32> {
        let number = self.groups.get(group)? + peer;
        // A configuration of 2^32 addresses is larger than any memory.
        (number < self.peers.len()).then_some(number as u32)
    }
}

/// What is kept of tallies beside the configurations that use them.
#[derive(Debug, Default)]
pub struct Kept {
    servers: Shelf<ServerTally>,
    peers: Shelf<PeerTally>,
}

impl Kept {
    /// The tallies of a configuration; `groups` are the names and addresses of the peers of each of its groups.
    pub fn tallies<'a, G>(&self, config: &Config, groups: impl IntoIterator<Item = G>) -> Tallies
    where
        G: IntoIterator<Item = (&'a str, &'a Arc<str>)>,
    {
        let server = |index| self.servers.find(server_name(config, index), ServerTally::default);
        let mut tallies = Tallies { servers: (0..config.servers.len()).map(server).collect(), ..Tallies::default() };
        for (upstream, group) in config.upstreams.iter().zip(groups) {
            tallies.groups.push(tallies.peers.len());
            tallies.peers.extend(group.into_iter().map(|(name, address)| {
                let key = format!("{}/{name}/{address}", upstream.name);
                self.peers.find(key, || PeerTally::new(Arc::clone(address)))
            }));
        }
        tallies
    }
}

/// A server block's name; where it has none, the first address it listens at.
pub fn server_name(config: &Config, server: usize) -> String {
    match config.servers.get(server).map(|server| &*server.name) {
        Some("") | None => {
            let listener = config.listeners.iter().find(|listener| listener.servers.contains(&server));
            listener.map_or_else(String::new, |listener| listener.address.to_string())
        }
        Some(name) => name.to_owned(),
    }
}

/// Tallies by name.
#[derive(Debug)]
struct Shelf<T>(Mutex<BTreeMap<String, Arc<T>>>);

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Shelf<T> {
    /// The tally of a name. Past [`TALLIES_KEPT`] those that no configuration uses are given up, and if all are in use the new one
    /// is not kept beyond its configuration.
    fn find(&self, name: String, make: impl FnOnce() -> T) -> Arc<T> {
        // Nothing panics while it is held.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.get(&name) {
            return Arc::clone(found);
        }
        if kept.len() >= TALLIES_KEPT {
            kept.retain(|_, tally| Arc::strong_count(tally) > 1);
        }
        let tally = Arc::new(make());
        if kept.len() < TALLIES_KEPT {
            kept.insert(name, Arc::clone(&tally));
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_found_again_by_its_name() {
        let shelf = Shelf::<ServerTally>::default();
        shelf.find("a".into(), ServerTally::default).tunnels.open();
        assert_eq!(shelf.find("a".into(), ServerTally::default).tunnels.now(), 1);
        assert_eq!(shelf.find("b".into(), ServerTally::default).tunnels.now(), 0);
    }

    #[test]
    fn names_that_come_and_go_do_not_fill_the_memory() {
        let shelf = Shelf::<ServerTally>::default();
        let used = shelf.find("used".into(), ServerTally::default);
        used.tunnels.open();
        for number in 0..2 * TALLIES_KEPT {
            shelf.find(number.to_string(), ServerTally::default);
        }
        assert!(shelf.0.lock().unwrap().len() <= TALLIES_KEPT);
        assert_eq!(shelf.find("used".into(), ServerTally::default).tunnels.now(), 1);
    }

    #[test]
    fn the_average_follows_slowly() {
        let tally = PeerTally::new("10.0.0.1:80".into());
        tally.connected(Duration::from_millis(8));
        tally.connected(Duration::from_millis(16));
        assert_eq!(tally.connect_average_us.load(Relaxed), 9_000);
        assert_eq!((tally.connects.load(Relaxed), tally.connect_us.load(Relaxed)), (2, 24_000));
    }

    #[test]
    fn servers_without_a_name_have_their_address() {
        use crate::request::tests::{config, server};
        let config = config(vec![server("a.example"), server("")], Vec::new());
        assert_eq!((server_name(&config, 0), server_name(&config, 1)), ("a.example".to_owned(), String::new()));
    }
}
