//! `limit_req`: how far the requests of a key are ahead of its rate.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use super::{Bucket, Identity, Key, Tally};
use crate::{
    config::Zone,
    limits::{REQUEST_KEY_BYTES, REQUEST_KEY_IDLE_MS},
};

/// A zone of `limit_req_zone`. When it is full, the key that was seen least recently gives way.
#[derive(Debug)]
pub struct Requests {
    /// Which it is.
    pub identity: Identity,
    /// What it refused and delayed.
    pub tally: Tally,
    buckets: Mutex<LruCache<Key, Bucket>>,
    /// Keys that fit in it.
    pub most_keys: usize,
}

/// A request at one of its limits.
#[derive(Debug, Clone, Copy)]
pub struct Paced<'a> {
    /// The zone.
    pub zone: &'a Requests,
    /// Its key there.
    pub key: Key,
    /// `rate=`, thousandths of a request per second.
    pub rate: u64,
    /// `burst=`: the excess that is let in,
    pub burst: u64,
    /// `delay=`: and of it what need not wait; thousandths of a request.
    pub delay: u64,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is within all of its limits.
    Pass,
    /// It is to wait.
    Delay {
        /// So long.
        ms: u64,
        /// For so much excess,
        excess: u64,
        /// at this one of its limits.
        at: usize,
    },
    /// It is not to be served.
    Reject {
        /// For so much excess,
        excess: u64,
        /// at this one of its limits.
        at: usize,
    },
}

/// Judges a request by all of its limits: each must let it in, and then it waits for the slowest. One that is not let in counts at none
/// (`ngx_http_limit_req_handler`).
pub fn judge(limits: &[Paced<'_>], now_ms: u64) -> Verdict {
    let Some((last, others)) = limits.split_last() else { return Verdict::Pass };
    for (at, limit) in others.iter().enumerate() {
        let excess = limit.look(now_ms);
        if excess > limit.burst {
            return Verdict::Reject { excess, at };
        }
    }
    let excess = match last.count_within_burst(now_ms) {
        Ok(excess) => excess,
        Err(excess) => return Verdict::Reject { excess, at: others.len() },
    };
    let mut slowest = (last.wait_ms(excess), excess, others.len());
    for (at, limit) in others.iter().enumerate().rev() {
        let excess = limit.count(now_ms);
        if limit.wait_ms(excess) > slowest.0 {
            slowest = (limit.wait_ms(excess), excess, at);
        }
    }
    match slowest {
        (0, ..) => Verdict::Pass,
        (ms, excess, at) => Verdict::Delay { ms, excess, at },
    }
}

impl Paced<'_> {
    /// The excess if the request were let in.
    fn look(&self, now_ms: u64) -> u64 {
        let mut buckets = self.zone.buckets();
        buckets.get(&self.key).map_or(0, |bucket| bucket.with_one_more(self.rate, now_ms))
    }

    /// Lets it in whatever the excess, and returns that: it was looked at before.
    fn count(&self, now_ms: u64) -> u64 {
        self.let_in(u64::MAX, now_ms).unwrap_or_else(|excess| excess)
    }

    fn count_within_burst(&self, now_ms: u64) -> Result<u64, u64> {
        self.let_in(self.burst, now_ms)
    }

    /// Lets it in unless the excess would be more than `burst`, and returns the excess.
    fn let_in(&self, burst: u64, now_ms: u64) -> Result<u64, u64> {
        let mut buckets = self.zone.buckets();
        let Some(bucket) = buckets.get_mut(&self.key) else {
            self.zone.make_room(&mut buckets, self.rate, now_ms);
            buckets.put(self.key, Bucket::first(now_ms));
            return Ok(0);
        };
        let excess = bucket.with_one_more(self.rate, now_ms);
        if excess > burst {
            return Err(excess);
        }
        bucket.came_to(excess, now_ms);
        Ok(excess)
    }

    /// How long the excess makes it wait, milliseconds.
    fn wait_ms(&self, excess: u64) -> u64 {
        let late = u128::from(excess.saturating_sub(self.delay)) * 1_000 / u128::from(self.rate.max(1));
        u64::try_from(late).unwrap_or(u64::MAX)
    }
}

impl Requests {
    pub(super) fn new(zone: &Zone) -> Self {
        Self {
            identity: Identity::of(zone),
            tally: Tally::default(),
            // What it may hold is known here: the map itself would take the room for it at once.
            buckets: Mutex::new(LruCache::unbounded()),
            most_keys: (zone.bytes / REQUEST_KEY_BYTES).max(1),
        }
    }

    /// Keys that are remembered.
    pub fn keys(&self) -> usize {
        self.buckets().len()
    }

    /// Room for a new key. As in nginx one or two old ones that no longer say anything go with each that comes.
    fn make_room(&self, buckets: &mut LruCache<Key, Bucket>, rate: u64, now_ms: u64) {
        for _ in 0..2 {
            let says_nothing =
                |bucket: &Bucket| bucket.age_ms(now_ms) >= REQUEST_KEY_IDLE_MS && bucket.is_empty(rate, now_ms);
            if buckets.peek_lru().is_some_and(|(_, bucket)| says_nothing(bucket)) {
                buckets.pop_lru();
            }
        }
        if buckets.len() >= self.most_keys {
            buckets.pop_lru();
        }
    }

    fn buckets(&self) -> MutexGuard<'_, LruCache<Key, Bucket>> {
        // Nothing panics while it is held.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
