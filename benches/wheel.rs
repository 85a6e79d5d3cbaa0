//! The timer wheel: what a deadline costs among few and among a million.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use longsplice::wheel::{Tick, Wheel};

/// An hour of ticks: the idle time of a tunnel.
const HOUR: Tick = 36_000;
const SIZES: [u32; 2] = [1_000, 1_000_000];

/// Deadlines spread over the next hour, as tunnels that came one after the other have them.
fn filled(entries: u32) -> Wheel<u32> {
    let mut wheel = Wheel::default();
    for owner in 0..entries {
        wheel.arm(1 + Tick::from(owner) * HOUR / Tick::from(entries), owner);
    }
    wheel
}

/// A connection's handshake deadline: armed, and disarmed before it comes.
fn arm_and_disarm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/arm and disarm");
    for entries in SIZES {
        let mut wheel = filled(entries);
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter(|| {
                let timer = wheel.arm(black_box(600), 0);
                wheel.disarm(black_box(timer));
            });
        });
    }
}

/// A byte through one of a million tunnels: the tick is noted, and the wheel is left alone. In an order no cache foresees.
fn touch(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/touch");
    for entries in SIZES {
        let wheel = filled(entries);
        let mut last_active = vec![0; entries as usize];
        let mut owner = 0;
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter(|| {
                // Odd and not a factor of either size: every owner has its turn.
                owner = (owner + 618_033) % last_active.len();
                last_active[owner] = black_box(wheel.now() as u32);
            });
        });
    }
}

/// A tick of a worker whose tunnels are all alive: those whose deadline comes are armed for another hour.
fn tick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel/tick");
    for entries in SIZES {
        let mut wheel = filled(entries);
        let mut expired = Vec::new();
        group.bench_function(BenchmarkId::from_parameter(entries), |bencher| {
            bencher.iter(|| {
                let now = wheel.now() + 1;
                wheel.advance(now, &mut expired);
                expired.drain(..).for_each(|owner| {
                    wheel.arm(now + HOUR, owner);
                });
            });
        });
        assert_eq!(wheel.len(), entries as usize, "a timer was lost");
    }
}

criterion_group!(benches, arm_and_disarm, touch, tick);
criterion_main!(benches);
