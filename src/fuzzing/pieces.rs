//! The same bytes, as they may arrive.

use std::hash::{DefaultHasher, Hasher};

/// Inputs up to this length are cut everywhere.
const CUT_EVERYWHERE_BYTES: usize = 48;
/// Cuts tried of a longer one.
const CUTS: usize = 24;

/// Numbers that are the same for the same input.
pub(super) struct Chance(u64);

impl Chance {
    pub fn of(data: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(data);
        Self(hasher.finish() | 1)
    }

    /// A number below `bound`, which is not 0 (xorshift).
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// Where the front of an input may end: everywhere in a short one, else in some places, the last byte among them.
pub(super) fn cuts(data: &[u8]) -> Vec<usize> {
    if data.len() <= CUT_EVERYWHERE_BYTES {
        return (0..data.len()).collect();
    }
    let mut chance = Chance::of(data);
    let mut cuts: Vec<usize> = (0..CUTS).map(|_| chance.below(data.len())).collect();
    cuts.push(data.len() - 1);
    cuts
}

/// The input in pieces, many of them short: what is at stake lies at their borders.
pub(super) fn pieces(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut chance = Chance::of(data);
    let mut rest = data;
    std::iter::from_fn(move || {
        let longest = [1, 4, 64, data.len()][chance.below(4)].clamp(1, rest.len().max(1));
        let (piece, behind) = rest.split_at_checked(1 + chance.below(longest))?;
        rest = behind;
        Some(piece)
    })
}
