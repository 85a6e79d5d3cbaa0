//! A timer wheel: deadlines of connections, coarse on purpose.
//!
//! Four levels of 64 slots; a tick is [`TICK_MS`]. Arming, disarming and expiring cost O(1) whatever the number of
//! entries. An entry is 24 bytes and lives in one slab. Activity on a tunnel does not touch the wheel: the owner
//! notes the tick of its last byte, and when its entry expires arms it again for the rest of its time.
//!
//! The wheel never reads a clock: the worker tells it what time it is.

use slab::Slab;

use crate::limits::TICK_MS;

const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
const LEVELS: usize = 4;
/// Ticks the wheel can see ahead (19 days of 100 ms); a later deadline waits in the last slot and is sorted in again.
const HORIZON: u64 = (SLOTS as u64).pow(LEVELS as u32) - 1;
const END: u32 = u32::MAX;

/// Ticks since the worker started.
pub type Tick = u64;

/// The ticks of a duration, rounded up: a timer never fires early.
pub fn ticks(duration: std::time::Duration) -> Tick {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).div_ceil(TICK_MS)
}

/// An armed deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timer(u32);

#[derive(Debug, Clone, Copy)]
struct Entry<T> {
    deadline: Tick,
    next: u32,
    previous: u32,
    /// Level and slot it hangs in.
    bucket: u8,
    level: u8,
    owner: T,
}

/// The wheel; `T` says whose deadline it is.
#[derive(Debug)]
pub struct Wheel<T> {
    entries: Slab<Entry<T>>,
    heads: [[u32; SLOTS]; LEVELS],
    now: Tick,
}

impl<T: Copy> Default for Wheel<T> {
    fn default() -> Self {
        Self { entries: Slab::new(), heads: [[END; SLOTS]; LEVELS], now: 0 }
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

    /// Arms a deadline; one that is past fires with the next tick.
    pub fn arm(&mut self, deadline: Tick, owner: T) -> Timer {
        let entry = Entry { deadline, next: END, previous: END, bucket: 0, level: 0, owner };
        // A slab of connections cannot reach 2^32 entries: descriptors end long before.
        let key = self.entries.insert(entry) as u32;
        self.link(key, self.now + 1);
        Timer(key)
    }

    /// Disarms a deadline that has not fired.
    pub fn disarm(&mut self, timer: Timer) {
        self.unlink(timer.0);
        self.entries.remove(timer.0 as usize);
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
            let slot = (self.now >> below) as usize % SLOTS;
            let mut key = self.take(level, slot);
            while key != END {
                let next = self.entries[key as usize].next;
                // What is due this very tick goes into the slot that is emptied right after.
                self.link(key, self.now);
                key = next;
            }
        }
    }

    fn expire(&mut self, expired: &mut Vec<T>) {
        let slot = self.now as usize % SLOTS;
        let mut key = self.take(0, slot);
        while key != END {
            let entry = self.entries[key as usize];
            if entry.deadline <= self.now {
                self.entries.remove(key as usize);
                expired.push(entry.owner);
            } else {
                self.link(key, self.now + 1);
            }
            key = entry.next;
        }
    }

    /// Empties a slot and returns its first entry.
    fn take(&mut self, level: usize, slot: usize) -> u32 {
        std::mem::replace(&mut self.heads[level][slot], END)
    }

    /// Hangs an entry where its deadline belongs, at `earliest` or later.
    fn link(&mut self, key: u32, earliest: Tick) {
        let deadline = self.entries[key as usize].deadline;
        let at = deadline.clamp(earliest, self.now + HORIZON);
        // The level is that of the highest digit in which the deadline differs from now.
        let level = ((63 - ((at ^ self.now) | 1).leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1) as usize;
        let slot = (at >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let head = self.heads[level][slot];
        if head != END {
            self.entries[head as usize].previous = key;
        }
        let entry = &mut self.entries[key as usize];
        (entry.next, entry.previous, entry.level, entry.bucket) = (head, END, level as u8, slot as u8);
        self.heads[level][slot] = key;
    }

    fn unlink(&mut self, key: u32) {
        let Entry { next, previous, level, bucket, .. } = self.entries[key as usize];
        if next != END {
            self.entries[next as usize].previous = previous;
        }
        if previous != END {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[usize::from(level)][usize::from(bucket)] = next;
        }
    }
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
        assert!(size_of::<Entry<u32>>() <= 24);
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
