//! Pipes, and splice(2) through them.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};

use super::retry;

/// A non-blocking pipe (pipe(7)).
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    /// Opens a pipe of `bytes` where the kernel allows it (F_SETPIPE_SZ; else of the size it has, 64 KiB).
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn open(bytes: usize) -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        if let Ok(bytes) = i32::try_from(bytes) {
            // EPERM past /proc/sys/fs/pipe-user-pages-soft: a smaller pipe works as well, only in more steps.
            let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(bytes));
        }
        Ok(Self { reader, writer })
    }

    /// Takes `bytes` out that are in it.
    ///
    /// # Errors
    /// read(2)'s, and `UnexpectedEof` when there are fewer.
    pub fn take(&self, bytes: usize) -> io::Result<Box<[u8]>> {
        let mut taken = vec![0; bytes].into_boxed_slice();
        let mut filled = 0;
        while filled < bytes {
            match nix::unistd::read(&self.reader, &mut taken[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(taken)
    }
}

/// Moves up to `bytes` from a socket into the pipe; 0 is the peer's FIN. The socket must be O_NONBLOCK:
/// SPLICE_F_NONBLOCK protects the pipe's side only.
///
/// # Errors
/// `WouldBlock`: the socket is empty or the pipe is full. Only the caller knows which: a pipe known to be empty cannot be full.
pub fn splice_in(from: BorrowedFd<'_>, pipe: &Pipe, bytes: usize) -> io::Result<usize> {
    splice(from.as_raw_fd(), pipe.writer.as_raw_fd(), bytes, libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK)
}

/// Moves up to `bytes` from the pipe to a socket; `more` follows at once (SPLICE_F_MORE).
///
/// # Errors
/// `WouldBlock`: the socket is full. EPIPE, ECONNRESET: it is gone.
pub fn splice_out(pipe: &Pipe, to: BorrowedFd<'_>, bytes: usize, more: bool) -> io::Result<usize> {
    let more = if more { libc::SPLICE_F_MORE } else { 0 };
    splice(pipe.reader.as_raw_fd(), to.as_raw_fd(), bytes, libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK | more)
}

/// A splice that failed by no fault of the connection: the kernel has no memory for it, or does not splice what it is given, or a filter
/// of system calls forbids it. Copying does the same.
pub fn cannot_splice(error: &io::Error) -> bool {
    let codes = [libc::EINVAL, libc::ENOSYS, libc::EPERM, libc::EACCES];
    super::is_shortage(error) || error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn splice(from: i32, to: i32, bytes: usize, flags: u32) -> io::Result<usize> {
    // SAFETY: both descriptors are borrowed for the call; null offsets mean "the stream's position" (splice(2)).
    retry(|| unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), bytes, flags) })
}
