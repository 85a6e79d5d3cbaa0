//! The allocator's memory.

/// Gives the kernel what the calling thread's allocations no longer need: 0.1 ms with nothing to give, a millisecond for each 10 MB.
pub fn give_memory_back() {
    // SAFETY: no precondition. It walks the calling thread's own heap, and the free pages of the process under their own lock.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
