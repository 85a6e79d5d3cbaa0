//! Allocations, counted: a bench that includes this runs on the system's allocator, behind a counter.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fmt,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note(bytes: usize) {
    COUNT.fetch_add(1, Relaxed);
    BYTES.fetch_add(bytes, Relaxed);
}

// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's own promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's own promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller's own promises.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's own promises.
        unsafe { System.dealloc(pointer, layout) };
    }
}

/// What a piece of work allocated, growing included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    pub count: usize,
    pub bytes: usize,
}

/// Counts what `work` allocates. Nothing else may run meanwhile.
pub fn of<T>(work: impl FnOnce() -> T) -> Allocated {
    let (count, bytes) = (COUNT.load(Relaxed), BYTES.load(Relaxed));
    // Dropped after the counters are read; freeing is not counted anyway.
    let _result = work();
    Allocated { count: COUNT.load(Relaxed) - count, bytes: BYTES.load(Relaxed) - bytes }
}

impl fmt::Display for Allocated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} allocations, {} bytes", self.count, self.bytes)
    }
}
