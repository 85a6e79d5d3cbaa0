//! A buffer of bytes to be sent.

use std::ops::Deref;

/// Bytes to be sent. Cleared, it keeps its room as it is: a worker's own serves for every record it seals, and is neither
/// allocated nor zeroed for each.
#[derive(Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    filled: usize,
}

impl Outgoing {
    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Takes back what is behind the first `length` bytes.
    pub(super) fn split_off(&mut self, length: usize) -> Vec<u8> {
        let rest = self[length..].to_vec();
        self.filled = length;
        rest
    }

    /// Appends `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `length` bytes, whatever is in them, for the caller to fill.
    pub(super) fn room(&mut self, length: usize) -> &mut [u8] {
        let start = self.filled;
        self.filled += length;
        if self.filled > self.bytes.len() {
            self.bytes.resize(self.filled, 0);
        }
        &mut self.bytes[start..self.filled]
    }
}

impl Deref for Outgoing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing").field("filled", &self.filled).finish_non_exhaustive()
    }
}
