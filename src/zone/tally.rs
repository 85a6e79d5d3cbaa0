//! What a zone has done.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Limited;

/// Requests by what became of them at a zone, those that passed not counted.
#[derive(Debug, Default)]
pub struct Tally([AtomicU64; 4]);

impl Tally {
    /// One more; nothing of a request that passed.
    pub fn bump(&self, limited: Limited) {
        if let Some(count) = self.of(limited) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// How many.
    pub fn count(&self, limited: Limited) -> u64 {
        self.of(limited).map_or(0, |count| count.load(Relaxed))
    }

    fn of(&self, limited: Limited) -> Option<&AtomicU64> {
        let [delayed, rejected, delayed_dry_run, rejected_dry_run] = &self.0;
        match limited {
            Limited::Passed => None,
            Limited::Delayed => Some(delayed),
            Limited::Rejected => Some(rejected),
            Limited::DelayedDryRun => Some(delayed_dry_run),
            Limited::RejectedDryRun => Some(rejected_dry_run),
        }
    }
}
