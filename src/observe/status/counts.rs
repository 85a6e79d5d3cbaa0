//! What is counted, and told in a figure or a few.

use serde::{Deserialize, Serialize};

/// Clients' connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Accepted.
    pub accepted: u64,
    /// Open now, tunnels included.
    pub open: u64,
    /// Of these, no tunnels.
    pub sessions: u64,
    /// Sessions whose request head is being read, or their TLS handshake made.
    pub reading: u64,
    /// Sessions whose request is being answered.
    pub writing: u64,
    /// Sessions that wait for a request.
    pub waiting: u64,
}

/// Tunnels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tunnels {
    /// Now.
    pub open: u64,
    /// Ever.
    pub opened: u64,
    /// Ended.
    pub closed: u64,
}

/// Upgrade requests by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handshakes {
    /// A tunnel.
    pub upgraded: u64,
    /// The backend answered otherwise than with 101.
    pub declined: u64,
    /// A refusal by us: it breaks a rule, or comes from where it must not.
    pub refused: u64,
    /// No backend answered, or the client left.
    pub failed: u64,
    /// Nothing yet: under way now.
    pub pending: u64,
}

/// A distribution of times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// The upper bound of the bucket that holds the median, milliseconds; none without any. The largest bound stands for more.
    pub p50: Option<f64>,
    /// The same of 90 of 100.
    pub p90: Option<f64>,
    /// The same of 99 of 100.
    pub p99: Option<f64>,
    /// Sum of all, milliseconds.
    pub sum: f64,
    /// How many.
    pub count: u64,
    /// How many by time, each in one bucket only.
    pub buckets: Vec<Bucket>,
}

/// A part of a distribution.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Its upper bound, milliseconds; none: no bound.
    pub le: Option<f64>,
    /// How many.
    pub count: u64,
}

/// A count for each direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BothWays {
    /// From clients to backends.
    pub from_client: u64,
    /// From backends to clients.
    pub from_upstream: u64,
}

/// TLS handshakes with clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// TLS 1.2.
    pub v1_2: u64,
    /// TLS 1.3.
    pub v1_3: u64,
    /// Of both, resumed sessions.
    pub resumed: u64,
    /// Those that failed.
    pub failed: u64,
}

/// What went wrong on our side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Errors {
    /// accept4(2) failed: no descriptor, no memory.
    pub accept: u64,
    /// Calls that failed because the host had no descriptor or memory.
    pub shortages: u64,
    /// Sessions that ended in a panic.
    pub panics: u64,
}

/// Log lines.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// Written.
    pub written: u64,
    /// Lost: the disk was full, or too slow.
    pub lost: u64,
}

impl Latency {
    /// With the quantiles that these buckets give.
    pub fn of(buckets: Vec<Bucket>, sum: f64) -> Self {
        let count: u64 = buckets.iter().map(|bucket| bucket.count).sum();
        let largest = buckets.iter().rev().find_map(|bucket| bucket.le);
        let quantile = |percent: u64| -> Option<f64> {
            let wanted = (count * percent).div_ceil(100);
            let mut seen = 0;
            let holds = |bucket: &&Bucket| {
                seen += bucket.count;
                seen >= wanted
            };
            buckets.iter().find(holds).filter(|_| count > 0).and_then(|bucket| bucket.le.or(largest))
        };
        let (p50, p90, p99) = (quantile(50), quantile(90), quantile(99));
        Self { p50, p90, p99, sum, count, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let bucket = |le, count| Bucket { le, count };
        let latency = Latency::of(vec![bucket(Some(1.0), 98), bucket(Some(5.0), 1), bucket(None, 1)], 200.0);
        assert_eq!((latency.p50, latency.p90, latency.p99, latency.count), (Some(1.0), Some(1.0), Some(5.0), 100));
        let slow = Latency::of(vec![bucket(Some(1.0), 0), bucket(None, 1)], 9.0);
        assert_eq!(slow.p50, Some(1.0), "the largest bound there is");
        assert_eq!(Latency::of(vec![bucket(Some(1.0), 0)], 0.0).p50, None);
    }
}
