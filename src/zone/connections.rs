//! `limit_conn`: how many requests and tunnels there are of a key.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Identity, Key, Tally};
use crate::{config::Zone, limits::CONNECTION_KEY_BYTES};

/// A zone of `limit_conn_zone`. It holds the keys that have connections now.
#[derive(Debug)]
pub struct Connections {
    /// Which it is.
    pub identity: Identity,
    /// What it refused.
    pub tally: Tally,
    counts: Mutex<Counts>,
    /// Keys that fit in it.
    pub most_keys: usize,
}

/// Places that are taken.
#[derive(Debug, Default)]
struct Counts {
    by_key: HashMap<Key, u32>,
    total: u64,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unplaced {
    /// The key has as many as it may.
    Limit,
    /// The zone has as many keys as fit in it.
    NoMemory,
}

/// A place of a key in a zone, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    zone: Arc<Connections>,
    key: Key,
}

impl Connections {
    pub(super) fn new(zone: &Zone) -> Self {
        Self {
            identity: Identity::of(zone),
            tally: Tally::default(),
            counts: Mutex::default(),
            most_keys: zone.bytes / CONNECTION_KEY_BYTES,
        }
    }

    /// A place for one more of a key, of which there may be `most`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn enter(self: &Arc<Self>, key: Key, most: u32) -> Result<Place, Unplaced> {
        let mut counts = self.counts();
        let full = counts.by_key.len() >= self.most_keys;
        match counts.by_key.entry(key) {
            Entry::Occupied(entry) if *entry.get() >= most => return Err(Unplaced::Limit),
            Entry::Occupied(mut entry) => *entry.get_mut() += 1,
            Entry::Vacant(_) if full => return Err(Unplaced::NoMemory),
            Entry::Vacant(entry) => {
                entry.insert(1);
            }
        }
        counts.total += 1;
        Ok(Place { zone: Arc::clone(self), key })
    }

    /// Keys that have connections.
    pub fn keys(&self) -> usize {
        self.counts().by_key.len()
    }

    /// Places that are taken.
    pub fn places(&self) -> u64 {
        self.counts().total
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is held.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.zone.counts();
        counts.total -= 1;
        if let Entry::Occupied(mut entry) = counts.by_key.entry(self.key) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::zone::tests::zone;

    fn small() -> Arc<Connections> {
        Arc::new(Connections::new(&zone("a", "$x", 4 * CONNECTION_KEY_BYTES)))
    }

    #[test]
    fn a_place_that_is_given_back_is_free_again() {
        let zone = small();
        let key = Key::of(b"a");
        let places: Vec<_> = (0..2).map(|_| zone.enter(key, 2).unwrap()).collect();
        assert_eq!(zone.enter(key, 2).unwrap_err(), Unplaced::Limit);
        assert!(zone.enter(Key::of(b"b"), 2).is_ok(), "another key has its own");
        drop(places);
        assert_eq!(zone.keys(), 0);
        assert!(zone.enter(key, 1).is_ok());
    }

    #[test]
    fn a_full_zone_refuses_new_keys_and_goes_on_with_those_it_has() {
        let zone = small();
        let mut places: Vec<_> = (0..4u8).map(|key| zone.enter(Key::of(&[key]), 9).unwrap()).collect();
        assert_eq!(zone.enter(Key::of(&[4]), 9).unwrap_err(), Unplaced::NoMemory);
        assert!(zone.enter(Key::of(&[3]), 9).is_ok());
        places.pop();
        assert!(zone.enter(Key::of(&[4]), 9).is_ok());
    }

    #[test]
    fn threads_lose_no_place() {
        let zone = small();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..2_000).for_each(|_| drop(zone.enter(Key::of(b"x"), 3))));
            }
        });
        assert_eq!((zone.keys(), zone.places()), (0, 0));
    }

    proptest! {
        /// Against a list of what was let in.
        #[test]
        fn counts_are_those_of_a_list(
            most in 1u32..5, steps in prop::collection::vec((0u8..6, any::<bool>()), 0..200),
        ) {
            let zone = small();
            let mut places: Vec<(u8, Place)> = Vec::new();
            for (key, comes) in steps {
                if !comes {
                    if let Some(at) = places.iter().position(|(of, _)| *of == key) {
                        places.swap_remove(at);
                    }
                    continue;
                }
                let of_key = places.iter().filter(|(of, _)| *of == key).count();
                let mut keys: Vec<u8> = places.iter().map(|(of, _)| *of).collect();
                keys.sort_unstable();
                keys.dedup();
                match zone.enter(Key::of(&[key]), most) {
                    Ok(place) => {
                        prop_assert!(of_key < most as usize && (of_key > 0 || keys.len() < 4));
                        places.push((key, place));
                    }
                    Err(Unplaced::Limit) => prop_assert_eq!(of_key, most as usize),
                    Err(Unplaced::NoMemory) => prop_assert!(of_key == 0 && keys.len() == 4),
                }
                prop_assert_eq!(zone.places(), places.len() as u64);
            }
        }
    }
}
