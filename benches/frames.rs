//! Finding the boundaries of websocket frames: time a frame, whatever its payload.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longsplice::websocket::frames::{Frames, Sender};

/// As much as a worker receives at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A client's frame: binary, masked.
fn frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload {
        0..=125 => frame.push(0x80 | payload as u8),
        126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((payload as u16).to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload as u64).to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.resize(frame.len() + payload, 0x55);
    frame
}

/// A buffer full of whole frames.
fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames/whole");
    for payload in [2, 64, 1024, 16 << 10] {
        let frame = frame(payload);
        let count = BUFFER_BYTES / frame.len();
        let buffer = frame.repeat(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(payload), |bencher| {
            let mut frames = Frames::default();
            bencher.iter(|| assert_eq!(frames.advance(black_box(&buffer), Sender::Client, 0), Ok(count as u32)));
        });
    }
}

/// Frames that come byte by byte: the dearest way.
fn dripped(criterion: &mut Criterion) {
    let frame = frame(64);
    let mut group = criterion.benchmark_group("frames/dripped");
    group.throughput(Throughput::Elements(1));
    group.bench_function("64", |bencher| {
        let mut frames = Frames::default();
        bencher.iter(|| {
            for byte in frame.chunks(1) {
                assert!(frames.advance(black_box(byte), Sender::Client, 0).is_ok());
            }
        });
    });
}

criterion_group!(benches, whole, dripped);
criterion_main!(benches);
