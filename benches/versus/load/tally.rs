//! What the load has seen.

use std::{collections::BTreeMap, time::Duration};

/// Round-trip times kept of one window, so that memory has a bound.
const TIMES_KEPT: usize = 8 << 20;

/// The counts of a window; errors are kept for the whole run.
#[derive(Debug, Default)]
pub struct Tally {
    /// Tunnels that became open.
    pub opened: u64,
    /// Messages that came back.
    pub messages: u64,
    /// Of the whole run.
    pub answered: u64,
    /// Bytes of frames that arrived, and were right.
    pub bytes: u64,
    /// Round trips and handshakes, nanoseconds.
    times: Vec<u32>,
    /// What went wrong, and how often.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// A new window begins.
    pub fn restart(&mut self) {
        let errors = std::mem::take(&mut self.errors);
        let mut times = std::mem::take(&mut self.times);
        times.clear();
        *self = Self { errors, times, answered: self.answered, ..Self::default() };
    }

    /// A message is back.
    pub fn came_back(&mut self, after: Duration) {
        self.messages += 1;
        self.answered += 1;
        self.time(after);
    }

    /// A round trip or handshake took so long.
    pub fn time(&mut self, took: Duration) {
        if self.times.len() < TIMES_KEPT {
            self.times.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
        }
    }

    /// Something went wrong.
    pub fn error(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }

    /// The times at these quantiles, microseconds; none without any.
    pub fn quantiles<const N: usize>(&mut self, quantiles: [f64; N]) -> Option<[f64; N]> {
        self.times.sort_unstable();
        let last = self.times.len().checked_sub(1)?;
        Some(quantiles.map(|quantile| f64::from(self.times[(last as f64 * quantile).round() as usize]) / 1e3))
    }
}
