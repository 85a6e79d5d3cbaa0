//! What stands for a key.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

/// 128 bits made of a key and of secrets of this process (SipHash, as in std's maps): two keys of a zone that are ever taken for each
/// other are out of the question, and nobody can choose two that are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u64, u64);

impl Key {
    /// Of a key's text.
    pub fn of(text: &[u8]) -> Self {
        static SECRETS: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);
        let [one, other] = &*SECRETS;
        Self(one.hash_one(text), other.hash_one(text))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_told_apart_whatever_their_length() {
        let mut seen = HashSet::new();
        for length in 0..2_000 {
            assert!(seen.insert(Key::of(&vec![b'x'; length])), "{length}");
        }
        assert!(!seen.insert(Key::of(b"xx")));
        let halves: HashSet<u64> = seen.iter().flat_map(|key| [key.0, key.1]).collect();
        assert_eq!(halves.len(), 4_000, "two hashes, not one twice");
    }
}
