//! What a zone has done.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Limited;

/// Requests by what became of them at a zone.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; 5]);

impl Tally {
    /// One more.
    pub fn bump(&self, limited: Limited) {
        self.of(limited).fetch_add(1, Relaxed);
    }

    /// How many.
    pub fn count(&self, limited: Limited) -> u64 {
        self.of(limited).load(Relaxed)
    }

    fn of(&self, limited: Limited) -> &AtomicU64 {
        let [passed, delayed, rejected, delayed_dry_run, rejected_dry_run] = &self.0;
        match limited {
            Limited::Passed => passed,
            Limited::Delayed => delayed,
            Limited::Rejected => rejected,
            Limited::DelayedDryRun => delayed_dry_run,
            Limited::RejectedDryRun => rejected_dry_run,
        }
    }
}
