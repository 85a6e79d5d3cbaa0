//! The brake of a worker against crowds that reconnect: `upgrade_rate`, and how many handshakes may be under way.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{Relaxed, Release},
        },
    },
};

use crate::{
    config::{ONE_REQUEST, UpgradeRate},
    limits::{BRAKE_LINE_MS, HANDSHAKES_PENDING, RETRY_SPREAD_SECS},
    observe::counters::Counters,
    zone::Bucket,
};

/// What a worker knows of the upgrade requests that came. Times are milliseconds from any moment.
#[derive(Debug, Default)]
pub struct Brake {
    /// None before the first request.
    bucket: Cell<Option<Bucket>>,
    /// Its gauge says how many handshakes are under way: the control plane must not see it a turn late.
    counters: Arc<Counters>,
    /// Refused since the crowd began to come.
    crowd: Cell<u64>,
    /// Refused since the log last had a line about it, and when that was.
    untold: Cell<u64>,
    told_ms: Cell<Option<u64>>,
}

/// A handshake under way.
#[derive(Debug)]
pub struct Pending(Rc<Brake>);

/// A handshake that is not to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Braked {
    /// When its client may come again.
    pub retry_after_secs: u64,
    /// So many were refused: the log is to have a line about it now.
    pub to_tell: Option<u64>,
}

impl Brake {
    /// One that has let nothing in yet.
    pub fn counting_in(counters: Arc<Counters>) -> Self {
        Self { counters, ..Self::default() }
    }

    /// Lets a handshake begin, or not. `random`: at least 0, less than 1.
    ///
    /// # Errors
    /// Too many came.
    pub fn admit(self: &Rc<Self>, rate: Option<UpgradeRate>, now_ms: u64, random: f64) -> Result<Pending, Braked> {
        if self.pending().load(Relaxed) >= HANDSHAKES_PENDING as u64
            || rate.is_some_and(|rate| !self.within(rate, now_ms))
        {
            return Err(self.refuse(rate, now_ms, random));
        }
        Counters::grow(self.pending(), 1);
        Ok(Pending(Rc::clone(self)))
    }

    fn pending(&self) -> &AtomicU64 {
        &self.counters.gauges.handshakes_pending
    }

    fn within(&self, UpgradeRate { rate, burst }: UpgradeRate, now_ms: u64) -> bool {
        let Some(mut bucket) = self.bucket.get() else {
            self.bucket.set(Some(Bucket::first(now_ms)));
            return true;
        };
        if bucket.is_empty(rate, now_ms) {
            self.crowd.set(0);
        }
        let excess = bucket.with_one_more(rate, now_ms);
        if excess > burst {
            return false;
        }
        bucket.came_to(excess, now_ms);
        self.bucket.set(Some(bucket));
        true
    }

    fn refuse(&self, rate: Option<UpgradeRate>, now_ms: u64, random: f64) -> Braked {
        let ahead = self.crowd.replace(self.crowd.get() + 1);
        self.untold.set(self.untold.get() + 1);
        let is_due = self.told_ms.get().is_none_or(|told| now_ms.saturating_sub(told) >= BRAKE_LINE_MS);
        if is_due {
            self.told_ms.set(Some(now_ms));
        }
        Braked { retry_after_secs: retry_after_secs(ahead, rate, random), to_tell: is_due.then(|| self.untold.take()) }
    }
}

/// As if they queued: who has more of the crowd ahead of it comes back later, at the rate they are taken; give or take half of that, and
/// a second or two, so that no two waves form.
fn retry_after_secs(ahead: u64, rate: Option<UpgradeRate>, random: f64) -> u64 {
    let per_second = rate.map_or(HANDSHAKES_PENDING as u64, |rate| (rate.rate / ONE_REQUEST).max(1));
    let turn = (ahead / per_second).min(RETRY_SPREAD_SECS);
    1 + turn / 2 + ((turn + 2) as f64 * random) as u64
}

impl Drop for Pending {
    fn drop(&mut self) {
        let pending = self.0.pending();
        // Whoever sees it gone sees the tunnel that it became.
        pending.store(pending.load(Relaxed).wrapping_sub(1), Release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN: Option<UpgradeRate> = Some(UpgradeRate { rate: 10_000, burst: 4_000 });

    fn brake() -> Rc<Brake> {
        Rc::new(Brake::default())
    }

    #[test]
    fn a_crowd_is_let_in_at_the_rate() {
        let brake = brake();
        let come = |now_ms: u64| brake.admit(TEN, now_ms, 0.0).is_ok();
        assert_eq!((0..100).filter(|_| come(0)).count(), 5, "a burst of 4 beyond the first");
        assert_eq!((0..100).filter(|_| come(250)).count(), 2);
        assert_eq!((0..100).filter(|_| come(90_000)).count(), 5);
        assert!((0..1_000).all(|_| brake.admit(None, 90_000, 0.0).is_ok()), "off");
    }

    #[test]
    fn handshakes_under_way_are_bounded_whatever_the_rate() {
        let brake = brake();
        let mut pending: Vec<_> = (0..HANDSHAKES_PENDING).map(|_| brake.admit(None, 0, 0.0).unwrap()).collect();
        assert!(brake.admit(None, 0, 0.0).is_err());
        pending.pop();
        assert!(brake.admit(None, 0, 0.0).is_ok());
    }

    #[test]
    fn the_log_has_a_line_at_once_and_then_one_a_second() {
        let brake = brake();
        let told = |now_ms: u64| brake.admit(TEN, now_ms, 0.0).err().and_then(|braked| braked.to_tell);
        let lines: Vec<u64> = (0..3_000).filter_map(|ms| told(50_000 + ms)).collect();
        // A hundredth of them is let in.
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert_eq!(lines[0], 1);
        assert!(lines[1..].iter().all(|count| (980..=1_000).contains(count)), "{lines:?}");
    }

    #[test]
    fn who_has_many_ahead_comes_back_later_and_nobody_much_later() {
        assert_eq!((retry_after_secs(0, TEN, 0.0), retry_after_secs(0, TEN, 0.99)), (1, 2));
        assert_eq!((retry_after_secs(200, TEN, 0.0), retry_after_secs(200, TEN, 0.99)), (11, 32));
        assert_eq!(retry_after_secs(u64::MAX, TEN, 0.99), 1 + 30 + 61);
        assert_eq!(retry_after_secs(u64::MAX, None, 0.0), 31);
    }

    #[test]
    fn a_crowd_that_came_and_went_does_not_make_the_next_wait() {
        let brake = brake();
        let wait = |now_ms: u64| brake.admit(TEN, now_ms, 0.0).err().map(|braked| braked.retry_after_secs);
        let longest = (0..500).filter_map(|_| wait(50_000)).max();
        assert!(longest > Some(20), "{longest:?}");
        let first = (0..10).find_map(|_| wait(60_000));
        assert_eq!(first, Some(1));
    }

    proptest! {
        /// Whoever comes back when told to meets a crowd that the rate can take: no second gets more than a few seconds' worth.
        #[test]
        fn a_crowd_comes_back_spread(seed in 1u64..1_000_000, size in 100u64..500) {
            let brake = brake();
            let mut state = seed;
            let mut random = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 40) as f64 / (1u64 << 24) as f64
            };
            let mut seconds = std::collections::HashMap::<u64, u64>::new();
            for _ in 0..size {
                if let Err(braked) = brake.admit(TEN, 50_000, random()) {
                    *seconds.entry(braked.retry_after_secs).or_default() += 1;
                }
            }
            let fullest = seconds.values().max().copied().unwrap_or_default();
            prop_assert!(fullest <= 40, "{fullest} of {size} in one second, at 10 a second");
        }
    }
}
