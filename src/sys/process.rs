//! fork(2).

use std::io;

/// Which of the two processes this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The one that called.
    Parent,
    /// The new one.
    Child,
}

/// Makes a second process of this one.
///
/// # Errors
/// `InvalidInput` when the process has more than one thread: the child would inherit locks that nobody releases.
/// Otherwise fork(2)'s own: EAGAIN (RLIMIT_NPROC, cgroup pids.max), ENOMEM.
#[allow(unsafe_code)]
pub fn fork() -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a process with threads cannot be forked"));
    }
    // SAFETY: fork(2) is unsafe because the child of a process with several threads may only call async-signal-safe
    // functions. This process has one thread, as was just looked up; where /proc is missing, the only caller
    // (`server::daemon`) runs before the first thread is started.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { .. } => Ok(Forked::Parent),
        nix::unistd::ForkResult::Child => Ok(Forked::Child),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness is such a process.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || stopped.recv());
        assert_eq!(fork().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        drop(stop);
        assert!(other.join().unwrap().is_err());
    }
}
