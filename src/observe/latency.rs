//! A distribution of times, counted by one thread and read by others.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{
    counters::Counters,
    status::{self, Bucket},
};

/// Upper bounds of the buckets, microseconds: a local backend answers in less than a millisecond, one across an ocean in 200.
const BOUNDS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
];

/// Times of one worker.
#[derive(Debug, Default)]
pub struct Latency {
    /// The last: beyond every bound.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Latency {
    /// Counts a time. By one thread only: nothing is locked.
    pub fn note(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        Counters::grow(&self.buckets[bucket], 1);
        Counters::grow(&self.sum_us, us);
    }

    /// Adds another's times.
    pub fn add(&self, other: &Self) {
        self.buckets.iter().zip(&other.buckets).for_each(|(sum, count)| Counters::grow(sum, count.load(Relaxed)));
        Counters::grow(&self.sum_us, other.sum_us.load(Relaxed));
    }

    /// As it is told.
    pub fn told(&self) -> status::Latency {
        let bounds = BOUNDS_US.iter().map(|us| Some(*us as f64 / 1000.0)).chain([None]);
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        let buckets = bounds.zip(counts).map(|(le, count)| Bucket { le, count }).collect();
        status::Latency::of(buckets, self.sum_us.load(Relaxed) as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_into_the_first_bucket_that_holds_it() {
        let latency = Latency::default();
        for us in [0, 250, 251, 10_000_000, 10_000_001] {
            latency.note(Duration::from_micros(us));
        }
        let sum = Latency::default();
        sum.add(&latency);
        sum.add(&latency);
        let told = sum.told();
        assert_eq!(told.count, 10);
        assert_eq!(told.sum, 2.0 * 20_000.502);
        let counted: Vec<_> = told.buckets.iter().filter(|bucket| bucket.count > 0).collect();
        let of = |le, count| Bucket { le, count };
        assert_eq!(counted, [&of(Some(0.25), 4), &of(Some(0.5), 2), &of(Some(10_000.0), 2), &of(None, 2)]);
    }
}
