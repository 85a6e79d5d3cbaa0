//! Whose turn it is: nginx's `ngx_http_upstream_round_robin.c` (1.22), word for word where it matters.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::{
    Backend,
    open::{Conns, Counts, Held, Leg, Open},
    ports::Port,
};
use crate::{
    config::UpstreamServer,
    observe::{status::UpstreamState, tally::PeerTally},
};

/// One group: each address of each of its servers is a peer.
#[derive(Debug)]
pub struct Group {
    /// Those that are no backups, then the backups; in the order of the file.
    peers: Vec<Peer>,
    /// Number of those that are no backups.
    primaries: usize,
    /// One for each peer. All workers share it: weights and failures count for the whole program, as in an nginx group with
    /// `zone`. The lock is held for a walk over the peers.
    turns: Mutex<Vec<Turn>>,
}

/// What the file says of a peer.
#[derive(Debug, PartialEq)]
struct Peer {
    backend: Backend,
    /// As `$upstream_addr` shows it.
    address: Arc<str>,
    name: Box<str>,
    weight: i64,
    max_fails: u32,
    fail_timeout: Duration,
    /// 0: no limit.
    max_conns: u32,
    down: bool,
    drain: bool,
}

/// What has happened to a peer.
#[derive(Debug, Default, Clone)]
struct Turn {
    /// How long it has waited, in weights.
    current_weight: i64,
    /// Its weight, lowered by failures and recovering with each turn.
    effective_weight: i64,
    /// Failures since the last success behind a check.
    fails: u32,
    /// When it last failed.
    accessed: Option<Instant>,
    /// When the count of failures last began or grew; one request may try the peer `fail_timeout` later.
    checked: Option<Instant>,
    /// It shall get nothing new.
    drained: bool,
    /// Requests and tunnels that are at it.
    conns: Arc<Conns>,
    /// What its tunnels count in: one entry for each source address.
    counts: Vec<Weak<Counts>>,
}

/// A peer as a status tells of it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// As the file names it.
    pub name: Box<str>,
    /// As `$upstream_addr` shows it.
    pub address: Arc<str>,
    /// `weight=`
    pub weight: u64,
    /// `backup`
    pub backup: bool,
    /// May it be asked?
    pub state: UpstreamState,
    /// Requests and tunnels that are at it.
    pub conns: u32,
    /// `max_conns=`; 0: no limit.
    pub max_conns: u32,
}

/// A peer chosen.
#[derive(Debug)]
pub struct Choice {
    /// Index of the peer in its group.
    pub peer: usize,
    /// Its address.
    pub backend: Backend,
    /// The same, as `$upstream_addr` shows it.
    pub address: Arc<str>,
    /// It counts against the peer's `max_conns` as long as this lives.
    pub held: Held,
}

/// Peers a request has tried.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    /// A bit for each of the first 64: nearly every group, without an allocation.
    first: u64,
    /// And for the rest.
    more: Vec<u64>,
}

impl Tried {
    fn has(&self, peer: usize) -> bool {
        let bit = 1 << (peer % 64);
        match peer / 64 {
            0 => self.first & bit != 0,
            word => self.more.get(word - 1).is_some_and(|bits| bits & bit != 0),
        }
    }

    fn add(&mut self, peer: usize) {
        let bit = 1 << (peer % 64);
        match peer / 64 {
            0 => self.first |= bit,
            word => {
                if self.more.len() < word {
                    self.more.resize(word, 0);
                }
                self.more[word - 1] |= bit;
            }
        }
    }

    /// How many were tried.
    pub fn count(&self) -> u32 {
        self.first.count_ones() + self.more.iter().map(|bits| bits.count_ones()).sum::<u32>()
    }
}

impl Group {
    /// A group of these servers, each with its addresses.
    pub(super) fn new<'a>(servers: impl IntoIterator<Item = (&'a UpstreamServer, Vec<Backend>)>) -> Self {
        let (mut peers, mut backups) = (Vec::new(), Vec::new());
        for (server, backends) in servers {
            let place = if server.backup { &mut backups } else { &mut peers };
            place.extend(backends.into_iter().map(|backend| Peer::new(server, backend)));
        }
        let primaries = peers.len();
        peers.append(&mut backups);
        Self::with(peers, primaries)
    }

    /// A group of addresses decided at the request (`proxy_pass` with variables), with nginx's defaults.
    pub fn of(backends: impl IntoIterator<Item = Backend>) -> Self {
        let peers: Vec<Peer> = backends.into_iter().map(Peer::plain).collect();
        let primaries = peers.len();
        Self::with(peers, primaries)
    }

    /// A group of one address.
    pub fn single(backend: Backend) -> Self {
        Self::of([backend])
    }

    fn with(peers: Vec<Peer>, primaries: usize) -> Self {
        let turn = |peer: &Peer| Turn { effective_weight: peer.weight, ..Turn::default() };
        let turns = Mutex::new(peers.iter().map(turn).collect());
        Self { peers, primaries, turns }
    }

    /// True when the file says the same of both, and their names have the same addresses.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.primaries == other.primaries && self.peers == other.peers
    }

    /// Counts what is open at its servers in the counts of all configurations.
    pub(super) fn count_in(&self, open: &Open, name: &str) {
        let conns = open.of_group(name, self.peers.iter().map(|peer| &peer.backend));
        self.turns().iter_mut().zip(conns).for_each(|(turn, conns)| turn.conns = conns);
    }

    /// Takes over what has happened to the addresses that both have.
    pub(super) fn inherit(&self, before: &Self) {
        let known = before.turns().clone();
        for (turn, peer) in self.turns().iter_mut().zip(&self.peers) {
            let Some(index) = before.peers.iter().position(|known| known.backend == peer.backend) else { continue };
            let lost = before.peers[index].weight - known[index].effective_weight;
            let effective_weight = (peer.weight - lost).clamp(0, peer.weight);
            let (conns, counts) = (Arc::clone(&turn.conns), Vec::new());
            *turn = Turn { effective_weight, current_weight: 0, conns, counts, ..known[index].clone() };
        }
    }

    /// Number of peers, backups included.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// True without peers (never, by construction).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True for an address, as `$upstream_addr` shows it, that the file wants to be asked.
    pub fn serves(&self, address: &str) -> bool {
        self.peers.iter().any(|peer| &*peer.address == address && !peer.is_let_go())
    }

    /// The addresses that the file lets have nothing more: `down`, `drain`.
    pub fn let_go(&self) -> impl Iterator<Item = &Arc<str>> {
        self.peers.iter().filter(|peer| peer.is_let_go()).map(|peer| &peer.address)
    }

    /// A peer as the file names it: `app.internal:3000`. Its address, as `$upstream_addr` has it, is [`Choice::address`].
    pub fn name(&self, peer: usize) -> &str {
        self.peers.get(peer).map_or("", |peer| &peer.name)
    }

    /// The name and the address of each peer.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, &Arc<str>)> {
        self.peers.iter().map(|peer| (&*peer.name, &peer.address))
    }

    /// Lets a peer have nothing new, or takes that back.
    pub fn set_drained(&self, peer: usize, drained: bool) {
        if let Some(turn) = self.turns().get_mut(peer) {
            turn.drained = drained;
        }
    }

    /// Every peer as it stands.
    pub fn seen(&self, now: Instant) -> Vec<Seen> {
        let turns = self.turns();
        let state = |peer: &Peer, turn: &Turn| match () {
            () if peer.down => UpstreamState::Down,
            () if turn.drained || peer.drain => UpstreamState::Drain,
            () if !self.is_single() && turn.counted_out(peer, now) => UpstreamState::Failed,
            () => UpstreamState::Up,
        };
        let seen = |(index, (peer, turn)): (usize, (&Peer, &Turn))| Seen {
            name: peer.name.clone(),
            address: Arc::clone(&peer.address),
            weight: peer.weight.unsigned_abs(),
            backup: index >= self.primaries,
            state: state(peer, turn),
            conns: turn.conns.now(),
            max_conns: peer.max_conns,
        };
        self.peers.iter().zip(turns.iter()).enumerate().map(seen).collect()
    }

    /// Whose turn it is: smooth weighted round robin among the peers that are not down, not counted out and not yet tried;
    /// then the backups. A peer counted out for `fail_timeout` gets one request after it. As nginx, a group of one peer is never
    /// counted out. One that has `max_conns` is passed over. None: no peer is left (nginx: "no live upstreams").
    pub fn choose(&self, tried: &mut Tried, now: Instant) -> Option<Choice> {
        let mut turns = self.turns();
        let (primaries, backups) = (0..self.primaries, self.primaries..self.peers.len());
        let peer =
            self.next(&mut turns, primaries, tried, now).or_else(|| self.next(&mut turns, backups, tried, now))?;
        tried.add(peer);
        let Peer { backend, address, .. } = &self.peers[peer];
        // Under the lock: no two requests take the last place. Who leaves needs no lock.
        let held = Held::one_of(&turns[peer].conns);
        Some(Choice { peer, backend: backend.clone(), address: Arc::clone(address), held })
    }

    /// Peers that would be asked if they had not `max_conns` already.
    pub fn full(&self) -> usize {
        let turns = self.turns();
        let peers = self.peers.iter().zip(turns.iter());
        peers.filter(|(peer, turn)| !peer.is_let_go() && !turn.drained && turn.is_full(peer)).count()
    }

    /// The request that this was chosen for is a tunnel from now on, counted in `tally` too. Under the lock: nobody sees both.
    pub fn leg(&self, choice: Choice, tally: Option<&Arc<PeerTally>>, port: Option<Port>) -> Leg {
        let mut turns = self.turns();
        let wanted = Counts::new(&choice.held, tally, port.as_ref());
        let Some(turn) = turns.get_mut(choice.peer) else { return Leg::in_all(Arc::new(wanted)) };
        turn.counts.retain(|counts| counts.strong_count() > 0);
        let known = turn.counts.iter().filter_map(Weak::upgrade).find(|counts| counts.is(&wanted));
        Leg::in_all(known.unwrap_or_else(|| {
            let counts = Arc::new(wanted);
            turn.counts.push(Arc::downgrade(&counts));
            counts
        }))
    }

    /// The peer failed: one of the `max_fails` within `fail_timeout`. True when that counts it out now (worth a line in the log).
    pub fn failed(&self, peer: usize, now: Instant) -> bool {
        let Some(server) = self.peers.get(peer).filter(|_| !self.is_single()) else { return false };
        let turn = &mut self.turns()[peer];
        turn.fails = turn.fails.saturating_add(1);
        turn.accessed = Some(now);
        turn.checked = Some(now);
        if server.max_fails == 0 {
            return false;
        }
        turn.effective_weight = (turn.effective_weight - server.weight / i64::from(server.max_fails)).max(0);
        turn.fails >= server.max_fails
    }

    /// The peer answered.
    pub fn succeeded(&self, peer: usize) {
        if peer >= self.peers.len() || self.is_single() {
            return;
        }
        let turn = &mut self.turns()[peer];
        // It was tried after its last failure, so the failures are history. (None is before every time.)
        if turn.accessed < turn.checked {
            turn.fails = 0;
        }
    }

    /// The next of `range`, if any may be asked.
    fn next(&self, turns: &mut [Turn], range: std::ops::Range<usize>, tried: &Tried, now: Instant) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for i in range {
            let (peer, turn) = (&self.peers[i], &mut turns[i]);
            let counted_out = !self.is_single() && turn.counted_out(peer, now);
            if tried.has(i) || peer.is_let_go() || turn.drained || counted_out || turn.is_full(peer) {
                continue;
            }
            turn.current_weight += turn.effective_weight;
            total += turn.effective_weight;
            if turn.effective_weight < peer.weight {
                turn.effective_weight += 1;
            }
            let waited = turn.current_weight;
            if best.is_none_or(|best| waited > turns[best].current_weight) {
                best = Some(i);
            }
        }
        let turn = &mut turns[best?];
        turn.current_weight -= total;
        if turn.rested(self.peers[best?].fail_timeout, now) {
            turn.checked = Some(now);
        }
        best
    }

    fn is_single(&self) -> bool {
        self.peers.len() == 1
    }

    fn turns(&self) -> MutexGuard<'_, Vec<Turn>> {
        // Nothing below panics, and numbers half-updated would only favour one peer for a moment.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    fn new(server: &UpstreamServer, backend: Backend) -> Self {
        Self {
            address: backend.to_string().into(),
            backend,
            name: server.name.clone(),
            weight: i64::from(server.weight),
            max_fails: server.max_fails,
            fail_timeout: server.fail_timeout,
            max_conns: server.max_conns,
            down: server.down,
            drain: server.drain,
        }
    }

    fn is_let_go(&self) -> bool {
        self.down || self.drain
    }

    fn plain(backend: Backend) -> Self {
        let address: Arc<str> = backend.to_string().into();
        let name = (&*address).into();
        Self {
            backend,
            address,
            name,
            weight: 1,
            max_fails: 1,
            fail_timeout: Duration::from_secs(10),
            max_conns: 0,
            down: false,
            drain: false,
        }
    }
}

impl Turn {
    fn counted_out(&self, peer: &Peer, now: Instant) -> bool {
        peer.max_fails > 0 && self.fails >= peer.max_fails && !self.rested(peer.fail_timeout, now)
    }

    fn is_full(&self, peer: &Peer) -> bool {
        peer.max_conns > 0 && self.conns.now() >= peer.max_conns
    }

    /// More than `fail_timeout` has passed since it was last checked.
    fn rested(&self, fail_timeout: Duration, now: Instant) -> bool {
        self.checked.is_none_or(|checked| now.saturating_duration_since(checked) > fail_timeout)
    }
}

#[cfg(test)]
mod tests;
