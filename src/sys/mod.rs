//! Every system call the safe crates do not cover as the data plane needs it, and every `unsafe`.
//!
//! All calls are non-blocking, retry EINTR, and leave the meaning of an errno to the caller.
#![allow(unsafe_code)]

mod descriptors;
mod memory;
mod pipe;
pub mod process;
pub mod seccomp;
mod socket;

pub use descriptors::{DESCRIPTORS_PER_MESSAGE, inherit, recv_descriptors, send_descriptors};
pub use memory::give_memory_back;
pub use pipe::{Pipe, cannot_splice, splice_in, splice_out};
pub use socket::{
    accept, available, connect, defer_accept, fast_open, peek, recv, reset_on_close, send, send_more, shutdown_write,
    stream_socket,
};

use std::io;

/// The host has no descriptor or memory for a call: nobody across is to blame.
pub fn is_shortage(error: &io::Error) -> bool {
    let codes = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::ENOSPC];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Calls again while a signal interrupted the call (signal(7)).
fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        let result = call();
        if let Ok(value) = usize::try_from(result) {
            return Ok(value);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
