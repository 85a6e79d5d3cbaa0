//! Where tunnels are kept: in chunks, so that one more never moves those that are there, and a crowd that has gone leaves no room
//! behind it.

use slab::Slab;

/// Places of a chunk.
const CHUNK: usize = 512;

/// Two values by each number: `H`, hot, lies apart from `C`, cold.
#[derive(Debug)]
pub(super) struct Places<H, C> {
    chunks: Vec<Chunk<H, C>>,
    /// All chunks before this one are full.
    open: usize,
    len: usize,
}

#[derive(Debug)]
struct Chunk<H, C> {
    hot: Slab<H>,
    /// By the same numbers.
    cold: Vec<Option<C>>,
}

impl<H, C> Default for Places<H, C> {
    fn default() -> Self {
        Self { chunks: Vec::new(), open: 0, len: 0 }
    }
}

impl<H, C> Places<H, C> {
    pub fn len(&self) -> usize {
        self.len
    }

    /// The number of the next to come.
    pub fn vacant(&mut self) -> u32 {
        while self.chunks.get(self.open).is_some_and(|chunk| chunk.hot.len() == CHUNK) {
            self.open += 1;
        }
        if self.open == self.chunks.len() {
            self.chunks.push(Chunk::default());
        }
        let vacant = self.open * CHUNK + self.chunks[self.open].hot.vacant_key();
        // Descriptors end long before 2^31 tunnels.
        vacant as u32
    }

    /// Keeps both by the number that [`Self::vacant`] says.
    pub fn insert(&mut self, hot: H, cold: C) {
        let number = self.vacant();
        let chunk = &mut self.chunks[number as usize / CHUNK];
        chunk.make_room();
        let place = chunk.hot.insert(hot);
        if place == chunk.cold.len() {
            chunk.cold.push(None);
        }
        chunk.cold[place] = Some(cold);
        self.len += 1;
    }

    pub fn get(&self, number: u32) -> Option<&H> {
        self.chunks.get(number as usize / CHUNK)?.hot.get(number as usize % CHUNK)
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut H> {
        self.chunks.get_mut(number as usize / CHUNK)?.hot.get_mut(number as usize % CHUNK)
    }

    pub fn cold_mut(&mut self, number: u32) -> Option<&mut C> {
        self.chunks.get_mut(number as usize / CHUNK)?.cold.get_mut(number as usize % CHUNK)?.as_mut()
    }

    pub fn cold(&self, number: u32) -> Option<&C> {
        self.chunks.get(number as usize / CHUNK)?.cold.get(number as usize % CHUNK)?.as_ref()
    }

    pub fn both_mut(&mut self, number: u32) -> (Option<&mut H>, Option<&mut C>) {
        let Some(chunk) = self.chunks.get_mut(number as usize / CHUNK) else { return (None, None) };
        let place = number as usize % CHUNK;
        (chunk.hot.get_mut(place), chunk.cold.get_mut(place).and_then(Option::as_mut))
    }

    pub fn remove(&mut self, number: u32) -> Option<(H, C)> {
        let (chunk, place) = (number as usize / CHUNK, number as usize % CHUNK);
        let there = self.chunks.get_mut(chunk)?;
        let hot = there.hot.try_remove(place)?;
        let cold = there.cold[place].take()?;
        self.open = self.open.min(chunk);
        self.len -= 1;
        Some((hot, cold))
    }

    /// All numbers in use are below this one.
    pub fn places(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    /// The numbers in use.
    pub fn numbers(&self) -> Vec<u32> {
        let chunks = self.chunks.iter().enumerate();
        chunks
            .flat_map(|(index, chunk)| chunk.hot.iter().map(move |(place, _)| (index * CHUNK + place) as u32))
            .collect()
    }

    /// Gives up chunks that nothing is in.
    pub fn shrink(&mut self) {
        self.chunks.iter_mut().filter(|chunk| chunk.hot.is_empty()).for_each(|chunk| *chunk = Chunk::default());
    }
}

impl<H, C> Default for Chunk<H, C> {
    /// Without room: most have their tunnels at once, and those that have none need none.
    fn default() -> Self {
        Self { hot: Slab::new(), cold: Vec::new() }
    }
}

impl<H, C> Chunk<H, C> {
    fn make_room(&mut self) {
        if self.hot.capacity() == 0 {
            self.hot.reserve_exact(CHUNK);
            self.cold.reserve_exact(CHUNK);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    impl<H, C> Places<H, C> {
        /// How many there is room for.
        pub fn room(&self) -> usize {
            self.chunks.iter().map(|chunk| chunk.hot.capacity()).sum()
        }
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_room_behind() {
        let mut places = Places::default();
        for number in 0..3 * CHUNK as u32 {
            places.insert(number, number);
        }
        assert_eq!(places.room(), 3 * CHUNK);
        // The last of the first chunk and the first of the last stay.
        let stay = [CHUNK as u32 - 1, 2 * CHUNK as u32];
        for number in (0..3 * CHUNK as u32).filter(|number| !stay.contains(number)) {
            assert_eq!(places.remove(number), Some((number, number)));
        }
        places.shrink();
        assert_eq!((places.len(), places.room(), places.numbers()), (2, 2 * CHUNK, stay.to_vec()));
        // And there is room again, in the first chunks first.
        for count in 1..CHUNK {
            assert!((places.vacant() as usize) < CHUNK, "{count}");
            places.insert(7, 7);
        }
        places.insert(8, 8);
        assert_eq!((places.len(), places.room()), (CHUNK + 2, 3 * CHUNK));
    }

    proptest! {
        /// Any order of coming, going and shrinking gives what a map gives.
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((0u8..8, any::<prop::sample::Index>()), 1..300)) {
            let mut places = Places::default();
            let mut model = BTreeMap::new();
            for (step, (action, pick)) in steps.into_iter().enumerate() {
                match action {
                    0 => places.shrink(),
                    1..4 if !model.is_empty() => {
                        let number = *model.keys().nth(pick.index(model.len())).unwrap();
                        prop_assert_eq!(places.remove(number), model.remove(&number));
                        prop_assert!(places.get(number).is_none() && places.cold_mut(number).is_none());
                    }
                    _ => {
                        let number = places.vacant();
                        places.insert(step, step + 1);
                        prop_assert!(model.insert(number, (step, step + 1)).is_none());
                        prop_assert_eq!(places.get(number).copied(), Some(step));
                    }
                }
                prop_assert_eq!(places.len(), model.len());
            }
            prop_assert_eq!(places.numbers(), model.keys().copied().collect::<Vec<_>>());
        }
    }
}
