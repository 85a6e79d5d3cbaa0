//! Removing what only root can remove, for a server that is root no more.
//!
//! nginx's master process stays root and takes its pid file along at its end. Here one process does everything and gives up
//! root, and `nobody` cannot remove `/run/longsplice.pid`; a stale one would make every logrotate script complain. So a second
//! process stays behind as root. It reads nothing from anybody, has no descriptor but one, and does one thing at the end.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    process,
    time::Duration,
};

use nix::{
    sys::{prctl, signal::SigSet},
    unistd::{dup2_stderr, dup2_stdin, dup2_stdout},
};

use crate::{
    limits::STOP_WAIT_SECS,
    sys::process::{Forked, fork},
};

/// The other end of the process that removes files.
#[derive(Debug)]
pub(super) struct Janitor {
    line: UnixStream,
}

impl Janitor {
    /// Starts it; `remove` is what it does when this process ends, however that happens, if [`Janitor::started`] was
    /// called. To be called while there is one thread.
    ///
    /// # Errors
    /// No process, no socket pair.
    pub(super) fn start(remove: impl FnOnce()) -> io::Result<Self> {
        // What is buffered would otherwise be written by both.
        io::stdout().flush()?;
        let (server, mut janitor) = UnixStream::pair()?;
        if fork()? == Forked::Parent {
            return Ok(Self { line: server });
        }
        drop(server);
        // It cannot report anything, and without these two it is only less tidy: Ctrl-C may end it early.
        let _ = detach();
        // A server whose start failed owns nothing that is there: the socket it could not bind is somebody else's.
        if janitor.read_exact(&mut [0]).is_ok() {
            let _ = janitor.read(&mut [0]);
            remove();
        }
        process::exit(0);
    }

    /// From now on there is something to remove.
    pub(super) fn started(&mut self) {
        // Without a janitor the files stay, which is no reason not to serve.
        let _ = self.line.write_all(b"1");
    }
}

impl Drop for Janitor {
    /// Waits until it has removed everything: who waits for this process may then look.
    fn drop(&mut self) {
        let _ = self.line.shutdown(Shutdown::Write);
        let _ = self.line.set_read_timeout(Some(Duration::from_secs(STOP_WAIT_SECS)));
        let _ = self.line.read(&mut [0]);
    }
}

/// Hears no signal (systemd and the terminal send theirs to every process), and holds no terminal or pipe open.
fn detach() -> io::Result<()> {
    SigSet::all().thread_block()?;
    prctl::set_name(c"longsplice-end")?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_waits_for_its_janitor() {
        let (line, mut janitor) = UnixStream::pair().unwrap();
        let mut server = Janitor { line };
        let other = std::thread::spawn(move || {
            let mut told = Vec::new();
            janitor.read_to_end(&mut told).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            (told, std::time::Instant::now())
        });
        server.started();
        drop(server);
        let after = std::time::Instant::now();
        let (told, removed) = other.join().unwrap();
        assert_eq!(told, b"1");
        assert!(after >= removed);
    }
}
