use proptest::prelude::*;

use super::*;
use crate::config::BackendAddress;

fn server(weight: u32) -> UpstreamServer {
    UpstreamServer { weight, ..UpstreamServer::new(BackendAddress::Name("app".into(), 80), "app:80") }
}

fn backend(port: usize) -> Backend {
    Backend::Tcp(([127, 0, 0, 1], u16::try_from(port).expect("a port")).into())
}

/// A group of one address for each server.
fn group(servers: &[UpstreamServer]) -> Group {
    Group::new(servers.iter().enumerate().map(|(i, server)| (server, vec![backend(i)])))
}

/// The peer of a request that needs one try.
fn pick(group: &Group, now: Instant) -> Option<usize> {
    group.choose(&mut Tried::default(), now).map(|choice| choice.peer)
}

fn picks(group: &Group, n: usize) -> Vec<usize> {
    let now = Instant::now();
    (0..n).filter_map(|_| pick(group, now)).collect()
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn equal_peers_take_turns_in_the_order_of_the_file() {
    assert_eq!(picks(&group(&[server(1), server(1), server(1)]), 7), [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn weights_are_spread_smoothly_as_nginx_documents_it() {
    // The example of nginx's commit "smooth weighted round-robin": { a: 5, b: 1, c: 1 } gives a a b a c a a.
    assert_eq!(picks(&group(&[server(5), server(1), server(1)]), 7), [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn every_address_of_a_server_is_a_peer_of_its_weight() {
    let servers = [server(2), server(1)];
    let group = Group::new([(&servers[0], vec![backend(0), backend(1)]), (&servers[1], vec![backend(2)])]);
    let picks = picks(&group, 5);
    assert_eq!(group.len(), 3);
    for (peer, times) in [(0, 2), (1, 2), (2, 1)] {
        assert_eq!(picks.iter().filter(|&&p| p == peer).count(), times);
    }
}

#[test]
fn a_request_tries_each_peer_once_and_backups_last() {
    let group = group(&[server(1), UpstreamServer { backup: true, ..server(1) }, server(1)]);
    let (mut tried, now) = (Tried::default(), Instant::now());
    let order: Vec<_> = std::iter::from_fn(|| group.choose(&mut tried, now).map(|c| c.backend)).collect();
    assert_eq!(order, [backend(0), backend(2), backend(1)]);
    assert_eq!(tried.count(), 3);
}

#[test]
fn a_peer_that_is_down_gets_nothing() {
    let down = UpstreamServer { down: true, ..server(1) };
    assert_eq!(picks(&group(&[down.clone(), server(1)]), 3), [1, 1, 1]);
    assert_eq!(pick(&group(&[down]), Instant::now()), None);
}

#[test]
fn a_failed_peer_rests_for_fail_timeout_then_gets_one_request() {
    let group = group(&[server(1), server(1)]);
    let start = Instant::now();
    assert_eq!(pick(&group, start), Some(0));
    assert!(group.failed(0, start));
    for second in 0..=10 {
        assert_eq!(pick(&group, start + SECOND * second), Some(1), "second {second}");
    }
    let later = start + SECOND * 11;
    let probes = (0..8).filter(|_| pick(&group, later) == Some(0)).count();
    assert_eq!(probes, 1, "one request finds out whether it is back");
    // It failed again: another fail_timeout.
    assert!(group.failed(0, later));
    assert!((0..8).all(|_| pick(&group, later + SECOND * 10) == Some(1)));
    // And then it is back for good.
    let back = later + SECOND * 11;
    while pick(&group, back) != Some(0) {}
    group.succeeded(0);
    assert!((0..4).filter(|_| pick(&group, back) == Some(0)).count() >= 1);
}

#[test]
fn max_fails_counts_failures_within_fail_timeout() {
    let patient = UpstreamServer { max_fails: 3, ..server(1) };
    let group = group(&[patient.clone(), patient]);
    let start = Instant::now();
    assert!(!group.failed(0, start));
    assert!(!group.failed(0, start + SECOND));
    // A success right after proves nothing yet, as in nginx: the period is still open.
    group.succeeded(0);
    assert!(group.failed(0, start + SECOND * 2));

    let late = start + SECOND * 60;
    while pick(&group, late) != Some(1) {}
    assert!(!group.failed(1, late));
    // The period passed: the next success forgets the failure.
    while pick(&group, late + SECOND * 11) != Some(1) {}
    group.succeeded(1);
    assert!(!group.failed(1, late + SECOND * 12));
    assert!(!group.failed(1, late + SECOND * 12));
    assert!(group.failed(1, late + SECOND * 12));
}

#[test]
fn max_fails_zero_never_counts_out() {
    let stubborn = UpstreamServer { max_fails: 0, ..server(1) };
    let group = group(&[stubborn.clone(), stubborn]);
    let now = Instant::now();
    assert!((0..100).all(|_| !group.failed(0, now)));
    assert_eq!(picks(&group, 4), [0, 1, 0, 1]);
}

#[test]
fn the_only_peer_is_never_counted_out() {
    let group = group(&[server(1)]);
    let now = Instant::now();
    for _ in 0..5 {
        assert!(!group.failed(0, now));
        assert_eq!(pick(&group, now), Some(0));
    }
}

#[test]
fn an_only_peer_with_a_backup_is_counted_out() {
    let group = group(&[server(1), UpstreamServer { backup: true, ..server(1) }]);
    let now = Instant::now();
    assert!(group.failed(0, now));
    assert_eq!(pick(&group, now), Some(1));
    assert!(group.failed(1, now));
    assert_eq!(pick(&group, now), None, "no live upstreams");
    assert_eq!(pick(&group, now + SECOND * 11), Some(0));
}

#[test]
fn when_all_have_failed_there_is_none_until_fail_timeout_has_passed() {
    let group = group(&[server(1), server(1)]);
    let now = Instant::now();
    assert!(group.failed(0, now) && group.failed(1, now));
    assert_eq!(pick(&group, now), None);
    assert_eq!(pick(&group, now + SECOND * 10), None);
    assert!(pick(&group, now + SECOND * 11).is_some());
}

#[test]
fn a_peer_that_comes_back_regains_its_weight_step_by_step() {
    let heavy = UpstreamServer { max_fails: 2, ..server(100) };
    let group = group(&[heavy.clone(), heavy]);
    let now = Instant::now();
    group.failed(0, now);
    let first = picks(&group, 10).iter().filter(|&&p| p == 0).count();
    assert!((2..5).contains(&first), "{first} of the first ten");
    picks(&group, 90);
    assert_eq!(picks(&group, 200).iter().filter(|&&p| p == 0).count(), 100);
}

#[test]
fn addresses_decided_at_the_request_make_a_group_too() {
    let group = Group::single(Backend::Unix("/run/app.sock".into()));
    let choice = group.choose(&mut Tried::default(), Instant::now()).expect("it");
    assert_eq!(choice.backend.to_string(), "unix:/run/app.sock");
    assert_eq!(group.name(choice.peer), "unix:/run/app.sock");
    assert!(!group.is_empty());
    assert_eq!(picks(&Group::of([backend(1), backend(2)]), 3), [0, 1, 0]);
}

#[test]
fn a_peer_out_of_range_is_nobody() {
    let group = group(&[server(1), server(1)]);
    assert!(!group.failed(7, Instant::now()));
    group.succeeded(7);
    assert_eq!(group.name(7), "");
}

#[test]
fn a_full_peer_is_passed_over_until_one_of_its_requests_or_tunnels_ends() {
    let full = UpstreamServer { max_conns: 1, ..server(1) };
    let group = group(&[full.clone(), full.clone(), UpstreamServer { backup: true, ..full }]);
    let now = Instant::now();
    let choose = || group.choose(&mut Tried::default(), now);
    let [first, second, backup] = [choose(), choose(), choose()].map(|choice| choice.expect("a place"));
    assert_eq!([first.peer, second.peer, backup.peer], [0, 1, 2], "the backup when the primaries are full");
    assert!(choose().is_none());
    assert_eq!((group.full(), group.seen(now)[1].conns, group.seen(now)[1].max_conns), (3, 1, 1));
    // A tunnel has its request's place, and gives it back at its end.
    let leg = group.leg(second, None, None);
    assert!(choose().is_none());
    drop(leg);
    assert_eq!(choose().map(|choice| choice.peer), Some(1));
    drop(first);
    assert_eq!(group.full(), 1);
    assert!(choose().is_some());
}

#[test]
fn the_only_peer_has_its_max_conns_too() {
    let group = group(&[UpstreamServer { max_conns: 2, ..server(1) }]);
    let choose = || group.choose(&mut Tried::default(), Instant::now());
    let (_one, _two) = (choose().expect("a place"), choose().expect("a place"));
    assert!(choose().is_none());
}

#[test]
fn a_server_of_several_addresses_has_max_conns_for_each_as_in_nginx() {
    let server = UpstreamServer { max_conns: 1, ..server(1) };
    let group = Group::new([(&server, vec![backend(0), backend(1)])]);
    let choose = || group.choose(&mut Tried::default(), Instant::now());
    let (_one, _two) = (choose().expect("a place"), choose().expect("a place"));
    assert!(choose().is_none());
}

#[test]
fn what_is_open_counts_in_the_group_that_follows() {
    let open = Open::default();
    let before = group(&[server(1), server(1)]);
    before.count_in(&open, "app");
    let now = Instant::now();
    let held = [(); 4].map(|()| before.choose(&mut Tried::default(), now).expect("a place"));
    let next = group(&[server(1), UpstreamServer { max_conns: 2, ..server(1) }]);
    next.count_in(&open, "app");
    next.inherit(&before);
    assert_eq!(picks(&next, 3), [0, 0, 0], "the second has two of the file before");
    drop(held);
    assert!(picks(&next, 3).contains(&1));
}

#[test]
fn tunnels_that_count_alike_share_one_place_in_memory() {
    let group = group(&[server(1)]);
    let choose = || group.choose(&mut Tried::default(), Instant::now()).expect("a place");
    let legs = [(); 3].map(|()| group.leg(choose(), None, None));
    assert_eq!(group.turns()[0].counts.len(), 1);
    assert_eq!((size_of::<Leg>(), group.seen(Instant::now())[0].conns), (8, 3));
    drop(legs);
    assert_eq!(group.seen(Instant::now())[0].conns, 0);
}

#[test]
fn tunnels_from_each_address_of_ours_count_in_its_ports() {
    let (group, ports) = (group(&[server(1)]), crate::upstream::ports::Ports::default());
    let leg = |source: &str| {
        let choice = group.choose(&mut Tried::default(), Instant::now()).expect("a place");
        let port = ports.take(source.parse().ok(), "127.0.0.1:80".parse().unwrap());
        group.leg(choice, None, Some(port))
    };
    let _legs = ["10.0.0.1", "10.0.0.2", "10.0.0.2"].map(leg);
    assert_eq!(ports.seen().iter().map(|seen| seen.used).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn a_server_that_is_drained_is_not_among_the_full() {
    let full = UpstreamServer { max_conns: 1, ..server(1) };
    let group = group(&[full.clone(), full]);
    let _held = [(); 2].map(|()| group.choose(&mut Tried::default(), Instant::now()));
    assert_eq!(group.full(), 2);
    group.set_drained(0, true);
    assert_eq!(group.full(), 1);
}

/// nginx's algorithm once more, as plainly as can be, on a clock of whole seconds.
struct Model {
    peers: Vec<(i64, u32, u64, bool)>,     // weight, max_fails, fail_timeout, down
    state: Vec<(i64, i64, u32, u64, u64)>, // current, effective, fails, accessed, checked
}

impl Model {
    fn choose(&mut self, tried: &mut [bool], now: u64) -> Option<usize> {
        let (mut total, mut best) = (0, None::<usize>);
        for (i, &(weight, max_fails, fail_timeout, down)) in self.peers.iter().enumerate() {
            let state = &mut self.state[i];
            if tried[i] || down || (max_fails > 0 && state.2 >= max_fails && now - state.4 <= fail_timeout) {
                continue;
            }
            state.0 += state.1;
            total += state.1;
            state.1 += i64::from(state.1 < weight);
            if best.is_none_or(|b| self.state[i].0 > self.state[b].0) {
                best = Some(i);
            }
        }
        let i = best?;
        tried[i] = true;
        self.state[i].0 -= total;
        if now - self.state[i].4 > self.peers[i].2 {
            self.state[i].4 = now;
        }
        Some(i)
    }

    fn failed(&mut self, i: usize, now: u64) {
        let (weight, max_fails, ..) = self.peers[i];
        let state = &mut self.state[i];
        state.2 += 1;
        (state.3, state.4) = (now, now);
        if max_fails > 0 {
            state.1 = (state.1 - weight / i64::from(max_fails)).max(0);
        }
    }

    fn succeeded(&mut self, i: usize) {
        if self.state[i].3 < self.state[i].4 {
            self.state[i].2 = 0;
        }
    }
}

proptest! {
    #[test]
    fn picks_are_exactly_in_proportion_to_the_weights(weights in prop::collection::vec(1u32..50, 1..90), rounds in 1usize..4) {
        let group = group(&weights.iter().map(|&weight| server(weight)).collect::<Vec<_>>());
        let total: usize = weights.iter().map(|&weight| weight as usize).sum();
        let mut times = vec![0; weights.len()];
        for peer in picks(&group, rounds * total) {
            times[peer] += 1;
        }
        for (peer, weight) in weights.iter().enumerate() {
            prop_assert_eq!(times[peer], rounds * *weight as usize);
        }
    }

    #[test]
    fn a_request_never_tries_a_peer_twice(n in 1usize..200) {
        let group = group(&vec![server(1); n]);
        let (mut tried, now) = (Tried::default(), Instant::now());
        let mut seen: Vec<_> = std::iter::from_fn(|| group.choose(&mut tried, now).map(|c| c.peer)).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
    }

    #[test]
    fn failures_follow_nginx_step_by_step(
        peers in prop::collection::vec((1u32..8, 0u32..4, 0u64..12, prop::bool::weighted(0.1)), 2..6),
        events in prop::collection::vec((0u64..5, prop::collection::vec(any::<bool>(), 1..4)), 1..120),
    ) {
        let servers: Vec<_> = peers
            .iter()
            .map(|&(weight, max_fails, timeout, down)| UpstreamServer {
                max_fails, fail_timeout: SECOND * u32::try_from(timeout).expect("small"), down, ..server(weight)
            })
            .collect();
        let group = group(&servers);
        let mut model = Model {
            peers: peers.iter().map(|&(w, m, t, d)| (i64::from(w), m, t, d)).collect(),
            state: peers.iter().map(|&(w, ..)| (0, i64::from(w), 0, 0, 0)).collect(),
        };
        let epoch = Instant::now();
        // nginx's clock begins in 1970: everything was last checked long ago.
        let mut clock = 1_000_000u64;
        for (passed, outcomes) in events {
            clock += passed;
            let now = epoch + Duration::from_secs(clock);
            let (mut tried, mut model_tried) = (Tried::default(), vec![false; peers.len()]);
            for good in outcomes {
                let choice = group.choose(&mut tried, now).map(|choice| choice.peer);
                prop_assert_eq!(choice, model.choose(&mut model_tried, clock));
                let Some(peer) = choice else { break };
                if good {
                    group.succeeded(peer);
                    model.succeeded(peer);
                    break;
                }
                group.failed(peer, now);
                model.failed(peer, clock);
            }
        }
    }
}

#[test]
fn a_group_that_changes_keeps_what_it_knows_of_the_addresses_that_stay() {
    let before = group(&[server(1), server(1)]);
    let now = Instant::now();
    assert!(before.failed(1, now));
    let same = group(&[server(1), server(1)]);
    assert!(same.is_as(&before));
    let next = group(&[server(1), server(4), server(1)]);
    assert!(!next.is_as(&before));
    next.inherit(&before);
    assert!(!picks(&next, 12).contains(&1), "it is out still");
    // And comes back as it would have.
    assert!((0..12).filter_map(|_| pick(&next, now + 11 * SECOND)).any(|peer| peer == 1));
}
