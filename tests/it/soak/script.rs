//! What one side of a tunnel says: frames that follow from a seed, so that both ends know every byte of it.

use std::sync::LazyLock;

use crate::util::{frames, pattern};

/// Numbers that follow from a seed (xorshift64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// At least 0, less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// In so many of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Small ones as often as large ones: each power of two below `end` has its share.
    pub fn size(&mut self, end: u64) -> u64 {
        let bits = self.below(u64::from(end.ilog2()) + 2) as u32;
        self.below(1u64.checked_shl(bits).unwrap_or(end).min(end))
    }
}

/// Longest payload of a frame.
const PAYLOAD: usize = 1 << 20;

/// Where payloads are cut from.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(PAYLOAD + (64 << 10), 99));

/// Bytes of a payload, or of a body, that follow from a number.
pub fn payload(seed: u64, length: usize) -> &'static [u8] {
    let start = (seed % (64 << 10)) as usize;
    &BYTES[start..start + length.min(PAYLOAD)]
}

/// One side's frames, one after the other, together about `total` bytes.
#[derive(Debug, Clone)]
pub struct Script {
    random: Random,
    left: u64,
    masked: bool,
    within_message: bool,
}

impl Script {
    pub fn new(seed: u64, total: u64, masked: bool) -> Self {
        Self { random: Random::new(seed), left: total, masked, within_message: false }
    }

    /// The next frame: a whole message, a fragment, a ping between.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        if self.left == 0 && !self.within_message {
            return None;
        }
        let control = self.random.percent(5);
        let length = self.random.size(if control { 126 } else { PAYLOAD as u64 }).min(self.left.max(1));
        let bytes = payload(self.random.next(), length as usize);
        self.left -= length.min(self.left);
        if control {
            return Some(frames::raw(0x80 | frames::PING, self.masked, bytes));
        }
        let opcode = if self.within_message { frames::CONTINUATION } else { frames::BINARY };
        self.within_message = self.left > 0 && self.random.percent(20);
        let fin = if self.within_message { 0 } else { 0x80 };
        Some(frames::raw(fin | opcode, self.masked, bytes))
    }
}

/// Holds what arrives against a script, which a close frame may end early.
pub struct Check {
    script: Script,
    frame: Vec<u8>,
    at: usize,
    /// A close frame, as far as it has come.
    parting: Vec<u8>,
    /// Bytes that were right.
    pub received: u64,
}

impl Check {
    pub fn new(script: Script) -> Self {
        Self { script, frame: Vec::new(), at: 0, parting: Vec::new(), received: 0 }
    }

    /// # Errors
    /// Where the first wrong byte is.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if !self.is_within_frame() {
                if !self.parting.is_empty() || bytes[0] == 0x80 | frames::CLOSE {
                    return self.part(bytes);
                }
                let Some(frame) = self.script.next_frame() else {
                    return Err(format!("{} bytes too many behind {}", bytes.len(), self.received));
                };
                (self.frame, self.at) = (frame, 0);
            }
            let length = bytes.len().min(self.frame.len() - self.at);
            let expected = &self.frame[self.at..self.at + length];
            if bytes[..length] != *expected {
                let right = bytes.iter().zip(expected).take_while(|(one, other)| one == other).count();
                return Err(format!("byte {} is wrong", self.received + right as u64));
            }
            self.at += length;
            self.received += length as u64;
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// No script has a close frame: it is one of the program's, or the answer to that.
    fn part(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.parting.extend_from_slice(bytes);
        match self.parting.get(1).map(|length| usize::from(length & 0x7f) + if length & 0x80 == 0 { 2 } else { 6 }) {
            Some(whole) if self.parting.len() > whole => {
                Err(format!("bytes behind a close frame: {:x?}", self.parting))
            }
            _ => Ok(()),
        }
    }

    /// The code of the close frame that came in place of the rest.
    pub fn parted(&self) -> Option<u16> {
        let (masked, payload) = (self.parting.get(1)? & 0x80 != 0, self.parting.get(2..)?);
        let (key, payload) = if masked { payload.split_at_checked(4)? } else { payload.split_at(0) };
        let byte = |index: usize| Some(payload.get(index)? ^ key.get(index).copied().unwrap_or(0));
        Some(u16::from_be_bytes([byte(0)?, byte(1)?]))
    }

    fn is_within_frame(&self) -> bool {
        self.at < self.frame.len()
    }

    /// Everything has come.
    pub fn is_complete(&self) -> bool {
        !self.is_within_frame() && self.parting.is_empty() && self.script.clone().next_frame().is_none()
    }
}
