//! `daemon on`: into the background, once it is known that the start succeeded.
//!
//! nginx binds its sockets before it forks, so that its errors reach the terminal and the exit status. Here threads are
//! needed for that (the resolver, the log writer), and a process with threads must not fork. So the fork comes first and
//! the parent stays in the foreground until its grandchild says that it is ready, or ends.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    process::ExitCode,
};

use nix::{
    fcntl::OFlag,
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2, setsid},
};

use crate::sys::process::{Forked, fork};

/// Which process came out of [`detach`].
#[derive(Debug)]
pub(super) enum Detached {
    /// The one the shell waits for: it has nothing to do but to end with this.
    Foreground(ExitCode),
    /// The daemon; its standard streams are still the terminal's.
    Background(Daemon),
}

/// A daemon that has not said yet that it is ready. Dropped without [`Daemon::ready`], its parent exits with 1.
#[derive(Debug)]
pub(super) struct Daemon {
    parent: File,
}

/// Forks twice: the daemon is no session leader and can never get a controlling terminal.
pub(super) fn detach() -> io::Result<Detached> {
    // What is buffered would otherwise be written by both.
    io::stdout().flush()?;
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    if fork()? == Forked::Parent {
        drop(write);
        return Ok(Detached::Foreground(wait_for_ready(File::from(read))));
    }
    drop(read);
    setsid()?;
    if fork()? == Forked::Parent {
        return Ok(Detached::Foreground(ExitCode::SUCCESS));
    }
    Ok(Detached::Background(Daemon { parent: File::from(write) }))
}

/// A byte is success; the end of the pipe without one is a daemon that ended, its reason told on stderr.
fn wait_for_ready(mut daemon: File) -> ExitCode {
    match daemon.read_exact(&mut [0]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

impl Daemon {
    /// Lets go of the terminal and releases the parent.
    pub(super) fn ready(mut self) -> io::Result<()> {
        leave_terminal()?;
        match self.parent.write_all(b"1") {
            // Somebody killed the parent: nobody waits, and that is no reason to end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// Standard streams to /dev/null.
pub(super) fn leave_terminal() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(dup2_stderr(&null)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(bytes: &[u8]) -> bool {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        File::from(write).write_all(bytes).unwrap();
        format!("{:?}", wait_for_ready(File::from(read))) == format!("{:?}", ExitCode::SUCCESS)
    }

    #[test]
    fn the_parent_succeeds_only_when_told_so() {
        assert!(told(b"1"));
        assert!(!told(b""));
    }
}
