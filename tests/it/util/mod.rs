//! What the tests stand on: the program under test, backends and clients over real sockets.

pub mod backend;
pub mod browser;
pub mod elsewhere;
pub mod external;
pub mod frames;
pub mod host;
pub mod leaks;
pub mod line;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod tls;
pub mod wire;

use std::{
    thread,
    time::{Duration, Instant},
};

pub use self::{
    backend::Backend,
    elsewhere::Elsewhere,
    external::{absent, external, python_module},
    leaks::Leaks,
    proxy::{Driver, Program, Proxy},
    wire::{Ending, Head, Response, Wire},
};

/// Longest wait for anything that ought to happen at once: generous, since the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Polls until `condition` holds. False when it did not within [`PATIENCE`].
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Deterministic bytes without a short period: whatever is lost, repeated or swapped shows.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// FNV-1a: two megabytes that differ print two numbers, not two megabytes.
pub fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes a test of each named function (which takes the [`Driver`]) on io_uring and on epoll.
macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod io_uring { $(#[test] fn $name() { super::$name($crate::util::Driver::IoUring) })* }
        mod epoll { $(#[test] fn $name() { super::$name($crate::util::Driver::Epoll) })* }
    };
}
pub(crate) use on_both_drivers;

/// Leaves a test that asks for what nginx, standing in for the program under test, does not do.
macro_rules! beyond_nginx {
    () => {
        if $crate::util::proxy::nginx_stands_in() {
            eprintln!("skipped: nginx does not do this");
            return;
        }
    };
}
pub(crate) use beyond_nginx;
