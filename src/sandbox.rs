//! `sandbox`: what is left of the process' rights once it serves, and of a worker's.
//!
//! Threads share their memory: who has taken a worker over can, with enough skill, make another thread act for him. So what counts
//! most is laid on the whole process, before it has a second thread. What a worker has no use for besides, it gives up itself.
//!
//! | | the process | a worker, besides |
//! |---|---|---|
//! | capabilities | none but CAP_NET_BIND_SERVICE, where it was started with it: a reload may name a port | none |
//! | programs | none is started, no process made; no set-user-ID counts | |
//! | files | read as `user` may, written below the directories that the file names | none is opened |
//! | calls | a list of what is denied | a list of what is allowed |
//! | memory | not dumped, not read by other processes of the user | |
//!
//! Each part is laid on as far as the kernel has it, and what is missing is said.

mod files;
mod rights;
#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf};

use nix::errno::Errno;

use crate::{
    config::{Config, Driver, Sandbox},
    observe::os_error,
    sys::seccomp::{self, Denial},
};

/// What a process or a thread has given up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// Parts that are in force, in words.
    parts: Vec<&'static str>,
    /// Parts that are not, and why.
    missing: Vec<String>,
}

impl InForce {
    fn note(&mut self, part: &'static str, laid_on: Result<(), String>) {
        match laid_on {
            Ok(()) => self.parts.push(part),
            Err(reason) => self.missing.push(format!("{part} ({reason})")),
        }
    }

    /// What this host could not give.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Of that, what was not missing where the text `told` was made of.
    pub fn missing_besides(&self, told: &str) -> Option<String> {
        let news: Vec<_> = self.missing.iter().filter(|missing| !told.contains(*missing)).cloned().collect();
        (!news.is_empty()).then(|| news.join(", "))
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = if self.parts.is_empty() { "nothing".to_owned() } else { self.parts.join(", ") };
        write!(formatter, "{parts}")?;
        if !self.missing.is_empty() {
            write!(formatter, "; missing on this host: {}", self.missing.join(", "))?;
        }
        Ok(())
    }
}

/// What is to be laid on a process that serves by a configuration.
#[derive(Debug)]
pub struct Plan {
    mode: Sandbox,
    ring: bool,
    writable: Vec<PathBuf>,
}

impl Plan {
    /// By what a file says.
    pub fn of(config: &Config) -> Self {
        let main = &config.main;
        Self { mode: main.sandbox, ring: main.driver == Driver::IoUring, writable: files::writable(config) }
    }

    /// Before the change of user: afterwards it could not.
    pub fn begin(&self) {
        if self.mode != Sandbox::Off {
            // Without CAP_SETPCAP there is a set that whoever started us has left, and no_new_privs, so that it counts for nothing.
            let _ = rights::empty_bounding_set();
        }
    }

    /// Behind the change of user, and while the process has one thread: what is laid on it now, each later one inherits. Nothing of it is
    /// taken back. What the kernel has not (Landlock: before 5.13) is in what is returned, and no error.
    pub fn confine_process(&self) -> InForce {
        let mut in_force = InForce::default();
        if self.mode == Sandbox::Off {
            return in_force;
        }
        in_force.note("capabilities", rights::give_up(rights::CONTROL));
        in_force.note("no_new_privs", rights::no_new_privileges());
        if self.mode == Sandbox::On {
            in_force.note("dumpable", rights::not_dumpable());
            in_force.note("Landlock", files::confine_process(&self.writable));
        }
        in_force.note("seccomp", from_io(seccomp::deny_process(denial(self.mode), self.ring)));
        in_force
    }
}

/// Leaves the calling thread, whose reactor is there, what a worker needs. As [`Plan::confine_process`] it fails in no part.
pub fn confine_worker(config: &Config) -> InForce {
    let (mode, ring) = (config.main.sandbox, config.main.driver == Driver::IoUring);
    let mut in_force = InForce::default();
    if mode == Sandbox::Off {
        return in_force;
    }
    in_force.note("capabilities", rights::give_up(rights::NONE));
    if mode == Sandbox::On {
        // Seccomp does not see what is asked of a ring (io_uring(7)); Landlock does.
        in_force.note("Landlock", files::confine_worker());
    }
    in_force.note("seccomp", from_io(seccomp::allow_worker(denial(mode), ring)));
    in_force
}

fn denial(mode: Sandbox) -> Denial {
    if mode == Sandbox::Log { Denial::IsLogged } else { Denial::Fails }
}

/// Kernels without CONFIG_SECCOMP have no seccomp(2), those without CONFIG_SECCOMP_FILTER no such operation.
fn from_io(result: std::io::Result<()>) -> Result<(), String> {
    result.map_err(|error| match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
        Errno::ENOSYS | Errno::EINVAL => "kernel without CONFIG_SECCOMP_FILTER".to_owned(),
        _ => os_error(&error),
    })
}
