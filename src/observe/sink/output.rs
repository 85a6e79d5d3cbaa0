//! What a log is written to.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::{SFlag, fstat},
};

use crate::config::LogTarget;

#[derive(Debug)]
pub(super) enum Output {
    File(File, PathBuf),
    // Not duplicated, and past std's line buffer: when a daemon points its standard streams at /dev/null, its log follows.
    Stderr(io::Stderr),
    Stdout(io::Stdout),
}

impl Output {
    /// Opens (creates) it; `prefix` is what a relative path is relative to.
    pub(super) fn open(target: &LogTarget, prefix: &Path) -> io::Result<Self> {
        Ok(match target {
            LogTarget::File(path) => {
                let path = prefix.join(path);
                Self::File(open_for_append(&path)?, path)
            }
            LogTarget::Stderr => Self::Stderr(io::stderr()),
            LogTarget::Stdout => Self::Stdout(io::stdout()),
        })
    }

    /// As it is called in messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(_, path) => path.display().to_string(),
            Self::Stderr(_) => "stderr".to_owned(),
            Self::Stdout(_) => "stdout".to_owned(),
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Output::File(file, _) => file.as_fd(),
            Output::Stderr(stream) => stream.as_fd(),
            Output::Stdout(stream) => stream.as_fd(),
        }
    }

    /// Anything but a plain file: a write could wait for a reader. What cannot be asked is taken for one that may.
    pub(super) fn may_wait(&self) -> bool {
        let kind = fstat(self.fd()).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        kind != Ok(SFlag::S_IFREG)
    }

    /// A write of up to [`LOG_PIPE_BYTES`](crate::limits::LOG_PIPE_BYTES) does not wait, or fails at once.
    pub(super) fn has_room(&self) -> bool {
        poll(&mut [PollFd::new(self.fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) != Ok(0)
    }
}

/// Opens a log as nginx does: mode 644 less the umask, every write at the end. A named pipe without a reader is ENXIO, and not an
/// open(2) that waits for one.
pub(super) fn open_for_append(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    Ok(file)
}

/// True for a named pipe.
pub(in crate::observe) fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}
