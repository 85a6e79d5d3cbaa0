//! Lines on their way to their log: whole ones, and the rest of one that is there in part.

use std::{collections::VecDeque, time::Instant};

/// Lines not written yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    /// What is left of each line.
    lines: VecDeque<usize>,
    /// Since when the first of them waits.
    pub(super) since: Option<Instant>,
    /// The first is in the file in part.
    cut: bool,
    /// A line was lost when it was in the file in part: the next that gets there begins with a newline.
    torn: bool,
}

impl Pending {
    pub(super) fn add(&mut self, line: &[u8], now: Instant) {
        let before = self.bytes.len();
        if self.torn && self.bytes.is_empty() {
            self.bytes.push(b'\n');
        }
        self.bytes.extend_from_slice(line);
        self.lines.push_back(self.bytes.len() - before);
        self.since.get_or_insert(now);
    }

    /// So many bytes are in the file: how many lines that completes.
    pub(super) fn drop_front(&mut self, mut written: usize) -> u64 {
        self.bytes.drain(..written);
        self.torn &= written == 0;
        let mut whole = 0;
        while let Some(line) = self.lines.front_mut() {
            if *line > written {
                *line -= written;
                self.cut |= written > 0;
                break;
            }
            written -= *line;
            whole += 1;
            self.cut = false;
            self.lines.pop_front();
        }
        if self.lines.is_empty() {
            self.since = None;
        }
        whole
    }

    /// Forgets all lines: how many.
    pub(super) fn drop_all(&mut self) -> u64 {
        let lines = self.lines.len() as u64;
        *self = Self { torn: self.torn || self.cut, ..Self::default() };
        lines
    }

    /// What is written next is the first of its file.
    pub(super) fn begin_file(&mut self) {
        (self.cut, self.torn) = (false, false);
    }
}

/// As many whole lines as fit into `most` bytes, or a piece of a line that is longer.
pub(super) fn first_lines(bytes: &[u8], most: usize) -> &[u8] {
    let Some(piece) = bytes.get(..most) else { return bytes };
    let end = memchr::memrchr(b'\n', piece).map_or(most, |newline| newline + 1);
    bytes.get(..end).unwrap_or(piece)
}
