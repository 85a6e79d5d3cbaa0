//! nginx's leaky bucket (`ngx_http_limit_req_lookup`).

use crate::config::ONE_REQUEST;

/// What is left of the requests that came, when it leaks at the rate that is allowed. Times are milliseconds from any moment,
/// an excess is thousandths of a request, and a rate so many of them a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    excess: u64,
    last_ms: u64,
}

impl Bucket {
    /// That of a first request: it is no excess.
    pub const fn first(now_ms: u64) -> Self {
        Self { excess: 0, last_ms: now_ms }
    }

    /// The excess with one more request now.
    pub fn with_one_more(&self, rate: u64, now_ms: u64) -> u64 {
        self.excess.saturating_add(ONE_REQUEST).saturating_sub(self.leaked(rate, now_ms))
    }

    /// A request came, and this is the excess with it.
    pub fn came_to(&mut self, excess: u64, now_ms: u64) {
        self.excess = excess;
        // Workers look at the clock once a turn: another one's time may be a little ahead of this one's.
        self.last_ms = self.last_ms.max(now_ms);
    }

    /// True when nothing is left in it.
    pub fn is_empty(&self, rate: u64, now_ms: u64) -> bool {
        self.leaked(rate, now_ms) >= self.excess
    }

    /// Milliseconds since a request came.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.last_ms)
    }

    fn leaked(&self, rate: u64, now_ms: u64) -> u64 {
        rate.saturating_mul(self.age_ms(now_ms)) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_at_the_rate_are_no_excess_and_those_at_once_add_up() {
        let mut bucket = Bucket::first(5_000);
        assert_eq!(bucket.with_one_more(2 * ONE_REQUEST, 5_500), 0);
        assert_eq!(bucket.with_one_more(2 * ONE_REQUEST, 5_250), 500);
        for expected in [1_000, 2_000, 3_000] {
            let excess = bucket.with_one_more(2 * ONE_REQUEST, 5_000);
            assert_eq!(excess, expected);
            bucket.came_to(excess, 5_000);
        }
        assert!(!bucket.is_empty(2 * ONE_REQUEST, 6_499) && bucket.is_empty(2 * ONE_REQUEST, 6_500));
    }

    #[test]
    fn a_clock_that_lies_behind_leaks_nothing() {
        let mut bucket = Bucket::first(5_000);
        bucket.came_to(700, 4_000);
        assert_eq!(bucket, Bucket { excess: 700, last_ms: 5_000 });
        assert_eq!(bucket.with_one_more(u64::MAX, 4_999), 1_700);
    }

    proptest! {
        /// nginx's arithmetic, in numbers that cannot overflow.
        #[test]
        fn it_is_nginx_s_arithmetic(rate in 1u64..=1 << 42, steps in prop::collection::vec(0u64..100_000, 1..50)) {
            let (mut bucket, mut excess, mut last, mut now) = (Bucket::first(0), 0i128, 0i128, 0u64);
            for step in steps {
                now += step;
                let passed = i128::from(now) - last;
                excess = (excess - i128::from(rate) * passed / 1000 + 1000).max(0);
                last = i128::from(now);
                let ours = bucket.with_one_more(rate, now);
                prop_assert_eq!(i128::from(ours), excess);
                bucket.came_to(ours, now);
            }
        }

        #[test]
        fn no_numbers_make_it_panic(excess: u64, last_ms: u64, rate: u64, now_ms: u64) {
            let mut bucket = Bucket { excess, last_ms };
            let more = bucket.with_one_more(rate, now_ms);
            bucket.came_to(more, now_ms);
            prop_assert!(more <= excess.saturating_add(ONE_REQUEST) && bucket.last_ms >= last_ms);
        }

        /// However the requests come, no more are let through than burst and rate allow.
        #[test]
        fn no_more_pass_than_burst_and_rate_allow(
            rate in 1u64..50, burst in 0u64..20, steps in prop::collection::vec(0u64..400, 1..200),
        ) {
            let (mut bucket, mut now, mut passed) = (Bucket::first(0), 0, 1u128);
            for step in steps {
                now += step;
                let excess = bucket.with_one_more(rate * ONE_REQUEST, now);
                if excess <= burst * ONE_REQUEST {
                    bucket.came_to(excess, now);
                    passed += 1;
                }
                let most = 1 + u128::from(burst) + (u128::from(rate) * u128::from(now)).div_ceil(1_000);
                prop_assert!(passed <= most, "{passed} of at most {most} after {now} ms");
            }
        }
    }
}
