//! A timer wheel: deadlines of connections, coarse on purpose.
//!
//! Four levels of 64 slots; a tick is [`TICK_MS`]. Arming, disarming and expiring cost O(1) whatever the number of
//! entries. An entry is 16 bytes and lives in one slab. Activity on a tunnel does not touch the wheel: the owner
//! notes the tick of its last byte, and when its entry expires arms it again for the rest of its time.
//!
//! The wheel never reads a clock: the worker tells it what time it is.

use std::num::NonZeroU32;

use slab::Slab;

use crate::limits::TICK_MS;

const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
const LEVELS: usize = 4;
/// Ticks the wheel can see ahead (19 days of 100 ms); a later deadline waits in the last slot and is sorted in again.
const HORIZON: u64 = (SLOTS as u64).pow(LEVELS as u32) - 1;
/// Ticks an entry can be ahead (6.8 years): a later deadline comes then.
const FARTHEST: u64 = i32::MAX as u64;
const END: u32 = u32::MAX;

/// Ticks since the worker started.
pub type Tick = u64;

/// The ticks of a duration, rounded up: a timer never fires early.
pub fn ticks(duration: std::time::Duration) -> Tick {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).div_ceil(TICK_MS)
}

/// The time that so many ticks take.
pub fn duration(ticks: Tick) -> std::time::Duration {
    std::time::Duration::from_millis(ticks.saturating_mul(TICK_MS))
}

/// An armed deadline. Never zero inside, so that `Option<Timer>` is four bytes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer(NonZeroU32);

impl Timer {
    fn of(key: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(key))
    }

    fn key(self) -> u32 {
        self.0.get() - 1
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    /// The low half of a tick less than [`FARTHEST`] away from now.
    deadline: u32,
    next: u32,
    before: Before,
    owner: T,
}

/// What hangs before an entry. Never zero inside, so that the slab can tell its empty places without another byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Before(NonZeroU32);

impl Before {
    /// From here on: a slot whose first entry it is. Below: another entry.
    const SLOTS: u32 = 1 << 31;

    fn entry(key: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(key))
    }

    fn slot(index: usize) -> Self {
        Self::entry(Self::SLOTS - 1 + index as u32)
    }
}

/// The wheel; `T` says whose deadline it is.
#[derive(Debug)]
pub struct Wheel<T> {
    entries: Slab<Entry<T>>,
    /// The first entry of each slot, level by level.
    heads: [u32; LEVELS * SLOTS],
    now: Tick,
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self { entries: Slab::new(), heads: [END; LEVELS * SLOTS], now: 0 }
    }
}

impl<T: Copy> Wheel<T> {
    /// The tick the wheel has come to.
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Armed deadlines.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing is armed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Arms a deadline; one that is past fires with the next tick, one beyond 6.8 years then.
    pub fn arm(&mut self, deadline: Tick, owner: T) -> Timer {
        let deadline = deadline.min(self.now + FARTHEST) as u32;
        let entry = Entry { deadline, next: END, before: Before::slot(0), owner };
        // A slab of connections cannot reach 2^31 entries: descriptors end long before.
        let key = self.entries.insert(entry) as u32;
        self.link(key, self.now + 1);
        Timer::of(key)
    }

    /// Disarms a deadline that has not fired.
    pub fn disarm(&mut self, timer: Timer) {
        self.unlink(timer.key());
        self.entries.remove(timer.key() as usize);
    }

    /// Gives up room that a crowd of deadlines has left behind.
    pub fn shrink(&mut self) {
        // Worth a walk through them only where most are gone.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to_fit();
        }
    }

    /// Advances to `tick` and hands out the owners whose deadline has come; their timers are gone.
    pub fn advance(&mut self, tick: Tick, expired: &mut Vec<T>) {
        while self.now < tick {
            if self.entries.is_empty() {
                self.now = tick;
                return;
            }
            self.now += 1;
            self.cascade();
            self.expire(expired);
        }
    }

    /// At the turn of a level its next slot is sorted into the levels below.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            let below = SLOT_BITS * level as u32;
            if self.now & ((1 << below) - 1) != 0 {
                return;
            }
            let mut key = self.take(slot(level, self.now >> below));
            while key != END {
                let next = self.entries[key as usize].next;
                // What is due this very tick goes into the slot that is emptied right after.
                self.link(key, self.now);
                key = next;
            }
        }
    }

    fn expire(&mut self, expired: &mut Vec<T>) {
        let mut key = self.take(slot(0, self.now));
        while key != END {
            let entry = self.entries[key as usize];
            if self.deadline(key) <= self.now {
                self.entries.remove(key as usize);
                expired.push(entry.owner);
            } else {
                self.link(key, self.now + 1);
            }
            key = entry.next;
        }
    }

    /// Empties a slot and returns its first entry.
    fn take(&mut self, slot: usize) -> u32 {
        std::mem::replace(&mut self.heads[slot], END)
    }

    fn deadline(&self, key: u32) -> Tick {
        let ahead = self.entries[key as usize].deadline.wrapping_sub(self.now as u32).cast_signed();
        self.now.saturating_add_signed(ahead.into())
    }

    /// Hangs an entry where its deadline belongs, at `earliest` or later.
    fn link(&mut self, key: u32, earliest: Tick) {
        let at = self.deadline(key).clamp(earliest, self.now + HORIZON);
        // The level is that of the highest digit in which the deadline differs from now.
        let level = ((63 - ((at ^ self.now) | 1).leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1) as usize;
        let slot = slot(level, at >> (SLOT_BITS * level as u32));
        let first = std::mem::replace(&mut self.heads[slot], key);
        if first != END {
            self.entries[first as usize].before = Before::entry(key);
        }
        let entry = &mut self.entries[key as usize];
        (entry.next, entry.before) = (first, Before::slot(slot));
    }

    fn unlink(&mut self, key: u32) {
        let Entry { next, before, .. } = self.entries[key as usize];
        if next != END {
            self.entries[next as usize].before = before;
        }
        match before.0.get().checked_sub(Before::SLOTS) {
            Some(slot) => self.heads[slot as usize] = next,
            None => self.entries[before.0.get() as usize - 1].next = next,
        }
    }
}

/// Where `digit` of a tick stands in a level.
fn slot(level: usize, digit: Tick) -> usize {
    level * SLOTS + digit as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn fire(wheel: &mut Wheel<u32>, tick: Tick) -> Vec<u32> {
        let mut expired = Vec::new();
        wheel.advance(tick, &mut expired);
        expired.sort_unstable();
        expired
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        for deadline in [1, 63, 64, 65, 4095, 4096, 4097, 262_143, 262_144, 300_000] {
            let mut wheel = Wheel::default();
            wheel.arm(deadline, 7);
            assert_eq!(fire(&mut wheel, deadline - 1), [] as [u32; 0], "{deadline}");
            assert_eq!(fire(&mut wheel, deadline), [7], "{deadline}");
            assert!(wheel.is_empty());
        }
    }

    #[test]
    fn a_past_deadline_fires_with_the_next_tick() {
        let mut wheel = Wheel::default();
        fire(&mut wheel, 100);
        wheel.arm(3, 1);
        assert_eq!(fire(&mut wheel, 101), [1]);
    }

    #[test]
    fn a_deadline_beyond_the_horizon_is_kept() {
        let mut wheel = Wheel::default();
        wheel.arm(HORIZON + 100, 1);
        assert_eq!(fire(&mut wheel, HORIZON + 99), [] as [u32; 0]);
        assert_eq!(fire(&mut wheel, HORIZON + 100), [1]);
    }

    #[test]
    fn durations_round_up_to_ticks() {
        assert_eq!(ticks(Duration::ZERO), 0);
        assert_eq!(ticks(Duration::from_millis(1)), 1);
        assert_eq!(ticks(Duration::from_millis(TICK_MS)), 1);
        assert_eq!(ticks(Duration::from_secs(3600)), 3600 * 1000 / TICK_MS);
    }

    #[test]
    fn an_entry_stays_small() {
        /// As the slab keeps it.
        enum Place {
            _Empty(usize),
            _Taken(Entry<u32>),
        }
        assert_eq!(size_of::<Place>(), 16);
        assert_eq!(size_of::<Option<Timer>>(), 4);
    }

    #[test]
    fn a_deadline_beyond_what_an_entry_holds_comes_then() {
        // The low half of a tick turns over between arming and firing.
        let mut wheel = Wheel { now: (1 << 32) - 5, ..Wheel::default() };
        wheel.arm(wheel.now + 10, 1);
        wheel.arm(Tick::MAX, 2);
        let start = wheel.now;
        assert_eq!(fire(&mut wheel, start + 9), [] as [u32; 0]);
        assert_eq!(fire(&mut wheel, start + 10), [1]);
        wheel.now = start + FARTHEST - 1;
        assert_eq!(wheel.deadline(1), start + FARTHEST);
    }

    proptest! {
        /// Any order of arming, disarming and advancing gives what a sorted map gives.
        #[test]
        fn agrees_with_a_sorted_map(steps in prop::collection::vec((0u8..3, 1u64..9000, any::<prop::sample::Index>()), 1..200)) {
            let mut wheel = Wheel::default();
            let mut model: BTreeMap<u32, (Tick, Timer)> = BTreeMap::new();
            for (number, (action, amount, pick)) in steps.into_iter().enumerate() {
                match action {
                    0 => {
                        let deadline = wheel.now() + amount;
                        let timer = wheel.arm(deadline, number as u32);
                        model.insert(number as u32, (deadline, timer));
                    }
                    1 if !model.is_empty() => {
                        let key = *model.keys().nth(pick.index(model.len())).unwrap();
                        wheel.disarm(model.remove(&key).unwrap().1);
                    }
                    _ => {
                        let tick = wheel.now() + amount / 3;
                        let due: Vec<u32> = model.iter().filter(|(_, (at, _))| *at <= tick).map(|(key, _)| *key).collect();
                        model.retain(|_, (at, _)| *at > tick);
                        prop_assert_eq!(fire(&mut wheel, tick), due);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
