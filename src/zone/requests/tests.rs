//! Against nginx's rules, written down once more with numbers that cannot overflow.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::{config::ONE_REQUEST, zone::tests::zone};

fn requests(keys: usize) -> Requests {
    Requests::new(&zone("a", "$x", keys * REQUEST_KEY_BYTES))
}

/// A limit whose figures are whole requests.
fn paced<'a>(zone: &'a Requests, key: &[u8], rate: u64, burst: u64, delay: u64) -> Paced<'a> {
    Paced { zone, key: Key::of(key), rate: rate * ONE_REQUEST, burst: burst * ONE_REQUEST, delay: delay * ONE_REQUEST }
}

#[test]
fn without_a_burst_requests_come_at_the_rate() {
    let zone = requests(8);
    let limit = [paced(&zone, b"a", 10, 0, 0)];
    assert_eq!(judge(&limit, 1_000), Verdict::Pass);
    assert_eq!(judge(&limit, 1_050), Verdict::Reject { excess: 500, at: 0 });
    assert_eq!(judge(&limit, 1_100), Verdict::Pass, "what was refused does not count");
    assert_eq!(judge(&[paced(&zone, b"b", 10, 0, 0)], 1_100), Verdict::Pass, "another key");
    assert_eq!(judge(&[], 0), Verdict::Pass);
}

#[test]
fn a_burst_waits_for_its_turn_and_some_of_it_need_not() {
    let zone = requests(8);
    let delayed = [paced(&zone, b"a", 10, 3, 0)];
    let seen: Vec<_> = (0..5).map(|_| judge(&delayed, 0)).collect();
    let delay = |excess: u64| Verdict::Delay { ms: excess / 10, excess, at: 0 };
    assert_eq!(
        seen,
        [Verdict::Pass, delay(1_000), delay(2_000), delay(3_000), Verdict::Reject { excess: 4_000, at: 0 }]
    );
    let two_at_once = [paced(&zone, b"b", 10, 3, 2)];
    let seen: Vec<_> = (0..4).map(|_| judge(&two_at_once, 0)).collect();
    assert_eq!(seen[..3], [Verdict::Pass; 3]);
    assert_eq!(seen[3], Verdict::Delay { ms: 100, excess: 3_000, at: 0 });
    let nodelay = [Paced { delay: u64::MAX, ..paced(&zone, b"c", 10, 3, 0) }];
    assert_eq!((0..5).filter(|_| judge(&nodelay, 0) == Verdict::Pass).count(), 4);
}

#[test]
fn all_limits_must_let_a_request_in_and_the_slowest_holds_it() {
    let (one, other) = (requests(8), requests(8));
    let limits = [paced(&one, b"a", 1, 5, 0), paced(&other, b"a", 10, 5, 0)];
    assert_eq!(judge(&limits, 0), Verdict::Pass);
    assert_eq!(judge(&limits, 0), Verdict::Delay { ms: 1_000, excess: 1_000, at: 0 });
    let strict = [paced(&one, b"a", 1, 1, 0), paced(&other, b"b", 10, 5, 0)];
    assert_eq!(judge(&strict, 0), Verdict::Reject { excess: 2_000, at: 0 });
    assert_eq!(other.keys(), 1, "the others do not count what one refuses");
    let strict = [paced(&one, b"b", 1, 5, 0), paced(&other, b"a", 10, 1, 0)];
    assert_eq!(judge(&strict, 0), Verdict::Reject { excess: 2_000, at: 1 });
    assert_eq!(one.keys(), 1);
}

#[test]
fn the_key_seen_least_recently_gives_way_when_a_zone_is_full() {
    let zone = requests(3);
    let come = |key: &[u8]| judge(&[paced(&zone, key, 1, 0, 0)], 1_000);
    for key in [b"a", b"b", b"c"] {
        assert_eq!(come(key), Verdict::Pass);
    }
    assert_ne!(come(b"a"), Verdict::Pass, "refused, but seen");
    assert_eq!(come(b"d"), Verdict::Pass);
    assert_eq!(zone.keys(), 3);
    assert_ne!(come(b"a"), Verdict::Pass);
    assert_eq!(come(b"b"), Verdict::Pass, "forgotten");
}

#[test]
fn keys_that_say_nothing_any_more_go_as_others_come() {
    let zone = requests(1_000);
    for key in 0..100u8 {
        judge(&[paced(&zone, &[key], 1, 0, 0)], 0);
    }
    for key in 100..130u8 {
        judge(&[paced(&zone, &[key], 1, 0, 0)], REQUEST_KEY_IDLE_MS);
    }
    assert_eq!(zone.keys(), 100 - 60 + 30);
}

#[test]
fn a_hundred_thousand_keys_take_no_more_than_their_zone() {
    let zone = requests(256);
    for number in 0..100_000u32 {
        assert_eq!(judge(&[paced(&zone, &number.to_le_bytes(), 1, 0, 0)], 0), Verdict::Pass);
        assert!(zone.keys() <= 256);
    }
}

#[test]
fn no_wait_is_too_long_to_be_told() {
    let zone = requests(1);
    let limit = Paced { rate: 1, burst: u64::MAX, ..paced(&zone, b"a", 1, 0, 0) };
    judge(&[limit], 0);
    assert_eq!(limit.wait_ms(u64::MAX), u64::MAX);
    assert_eq!(judge(&[limit], 0), Verdict::Delay { ms: 1_000_000, excess: 1_000, at: 0 });
    assert_eq!(Paced { rate: 0, ..limit }.wait_ms(5), 5_000, "a rate of nothing is refused in the file");
}

/// `ngx_http_limit_req_lookup` and `_account`, for zones that forget nothing.
#[derive(Default)]
struct Nginx {
    nodes: HashMap<(usize, u8), (i128, i128)>,
}

impl Nginx {
    /// Limits as zone, key, rate, burst, delay.
    fn judge(&mut self, limits: &[(usize, u8, i128, i128, i128)], now: i128) -> (i128, bool) {
        for (zone, key, rate, burst, _) in limits {
            if self.excess(*zone, *key, *rate, now) > *burst {
                return (0, false);
            }
        }
        let mut most = 0;
        for (zone, key, rate, _, delay) in limits {
            let excess = self.excess(*zone, *key, *rate, now);
            self.nodes.insert((*zone, *key), (excess, now));
            most = most.max((excess - delay).max(0) * 1_000 / rate);
        }
        (most, true)
    }

    fn excess(&self, zone: usize, key: u8, rate: i128, now: i128) -> i128 {
        let Some((excess, last)) = self.nodes.get(&(zone, key)) else { return 0 };
        (excess - rate * (now - last) / 1_000 + 1_000).max(0)
    }
}

proptest! {
    #[test]
    fn requests_are_judged_as_by_nginx(
        figures in prop::collection::vec((1u64..20_000, 0u64..8, 0u64..8), 1..4),
        steps in prop::collection::vec((0u64..300, prop::collection::vec(0u8..3, 3)), 1..120),
    ) {
        let zones: Vec<Requests> = figures.iter().map(|_| requests(64)).collect();
        let mut nginx = Nginx::default();
        let mut now = 0;
        for (step, keys) in steps {
            now += step;
            let ours: Vec<_> = zones.iter().zip(&figures).zip(&keys).map(|((zone, (rate, burst, delay)), key)| {
                Paced { rate: *rate, ..paced(zone, &[*key], 1, *burst, *delay) }
            }).collect();
            let theirs: Vec<_> = figures.iter().zip(&keys).enumerate().map(|(zone, ((rate, burst, delay), key))| {
                (zone, *key, i128::from(*rate), i128::from(*burst) * 1_000, i128::from(*delay) * 1_000)
            }).collect();
            let expected = nginx.judge(&theirs, now.into());
            let got = match judge(&ours, now) {
                Verdict::Pass => (0, true),
                Verdict::Delay { ms, .. } => (ms.into(), true),
                Verdict::Reject { .. } => (0, false),
            };
            prop_assert_eq!(got, expected);
        }
    }
}
