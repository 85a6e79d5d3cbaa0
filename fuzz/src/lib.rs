//! What the targets share: a property of the package, run on an input, with its memory counted.
//!
//! `fuzz/README.md` says how they are run.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

pub use libfuzzer_sys::fuzz_target;
pub use longsplice::fuzzing;

/// Memory any property may take for a short input, bytes: a regular expression's program and its caches.
const BASE_BYTES: usize = 32 << 20;
/// And for each byte of it.
const BYTES_PER_BYTE: usize = 16 << 10;

/// The binary of the property of this name.
#[macro_export]
macro_rules! target {
    ($property:ident) => {
        $crate::fuzz_target!(|data: &[u8]| $crate::check($crate::fuzzing::$property, data));
    };
}

/// Runs a property, which must not take more memory than its input allows.
pub fn check(property: fuzzing::Property, data: &[u8]) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    property(data);
    let taken = PEAK.load(Relaxed) - before;
    let allowed = BASE_BYTES + data.len() * BYTES_PER_BYTE;
    assert!(taken <= allowed, "{taken} bytes of memory were taken for {} bytes of input", data.len());
}

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
