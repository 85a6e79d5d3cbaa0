//! The binary: everything is in the library.

use std::process::ExitCode;

// A worker allocates for handshakes only, at most some thousands at a time: mimalloc's per-thread heaps make these short-lived
// allocations cheap, and give the memory back when they are asked to (`sys::give_memory_back`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    longsplice::cli::run(std::env::args_os())
}
