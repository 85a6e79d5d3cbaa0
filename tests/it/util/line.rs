//! One process after another: a program that is followed by others on the same sockets.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Proxy, eventually,
    process::{Finished, finish},
    proxy::{Setup, executable},
};

/// One that a new program can follow: started by a link, and ended to the last process.
pub struct Line {
    pub proxy: Proxy,
}

impl Line {
    pub fn start(setup: Setup) -> Self {
        let line = Self { proxy: setup.linked().start() };
        // Written behind its listening.
        assert!(eventually(|| line.pid_file().exists()), "{}", line.proxy.log());
        line
    }

    pub fn pid_file(&self) -> PathBuf {
        self.proxy.dir().join("proxy.pid")
    }

    /// Whom the pid file names.
    pub fn current(&self) -> u32 {
        pid_in(&self.pid_file()).expect("a pid file")
    }

    /// Runs the program once more with `-s ORDER`.
    pub fn tell(&self, order: &str) -> Finished {
        let (dir, file) = (self.proxy.dir(), self.proxy.dir().join("nginx.conf"));
        finish(Command::new(executable()).arg("-c").arg(file).arg("-p").arg(dir).args(["-s", order]))
    }

    /// Puts another program, or nothing, where this one was started from.
    pub fn replace_by(&self, program: Option<&Path>) {
        let link = self.proxy.dir().join("longsplice");
        let _ = fs::remove_file(&link);
        if let Some(program) = program {
            symlink(program, &link).expect("a link");
        }
    }

    /// A script in its place.
    pub fn replace_by_script(&self, text: &str) {
        let script = self.proxy.dir().join("script");
        fs::write(&script, format!("#!/bin/sh\n{text}\n")).expect("a script");
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("its mode");
        self.replace_by(Some(&script));
    }
}

impl Drop for Line {
    /// The first process ends with its [`Proxy`]; the others here, whatever became of the test: they hold its pipes.
    fn drop(&mut self) {
        let first = self.proxy.pid();
        let others = || processes_with(self.proxy.dir()).into_iter().filter(move |pid| *pid != first);
        let passed = !thread::panicking();
        others().for_each(|pid| send(pid, Signal::SIGTERM));
        let ended = eventually(|| others().next().is_none());
        others().for_each(|pid| send(pid, Signal::SIGKILL));
        assert!(ended || !passed, "a process does not end by SIGTERM");
    }
}

/// Processes that were started with a file in this directory, and live. Launchers end with the process they belong to.
pub fn processes_with(dir: &Path) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").expect("/proc").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let needle = dir.to_str().expect("a name").as_bytes();
    let is_ours = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        line.windows(needle.len()).any(|words| words == needle) && !name.starts_with("longsplice-") && lives(*pid)
    };
    numbers.filter(is_ours).collect()
}

/// The number in a pid file.
pub fn pid_in(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Whether or not there still is such a process.
pub fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// Exists, and is no zombie that nobody has waited for.
pub fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}
