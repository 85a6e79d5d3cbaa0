//! What must be done while the program has one thread: take what it inherits, fork, and block signals for all threads to come.

use std::{fs, path::PathBuf, process::ExitCode};

use nix::unistd::Pid;

use super::{
    daemon::{self, Daemon, Detached},
    inherited::Inherited,
    launcher::{Job, Launcher, Which},
    program::Program,
    signals::Signals,
    user::{self, Identity},
};
use crate::{
    config::{Config, ListenAddress},
    observe::os_error,
};

/// Which process came out of [`Process::begin`].
pub(super) enum Begun {
    /// The one that goes on to serve.
    Server(Process),
    /// Another one, which has done what it was there for: the one a shell waits for while its daemon starts, or the launcher.
    Other(ExitCode),
}

/// The process that serves.
pub(super) struct Process {
    /// Someone waits for us to be ready.
    pub daemon: Option<Daemon>,
    /// Whom to become.
    pub identity: Option<Identity>,
    /// Its signals.
    pub signals: Signals,
    /// Who can start its successor.
    pub launcher: Option<Launcher>,
    /// What it was started with.
    pub inherited: Inherited,
}

impl Process {
    /// Goes into the background if the configuration says so, blocks signals, and gets a launcher for its successor, if it may
    /// have one: `program`.
    ///
    /// # Errors
    /// An unknown user, or the system's: cause and cure.
    pub(super) fn begin(config: &Config, program: Option<Program>, inherited: Inherited) -> Result<Begun, String> {
        let identity = user::identity(config.main.user.as_ref())?;
        // A process that replaces another is in the background already if that one was (as in nginx).
        let detaches = config.main.daemon && inherited.predecessor.is_none();
        let daemon = match detaches.then(daemon::detach).transpose() {
            Ok(Some(Detached::Foreground(code))) => return Ok(Begun::Other(code)),
            Ok(Some(Detached::Background(daemon))) => Some(daemon),
            Ok(None) => None,
            Err(error) => return Err(format!("daemon on: fork() failed ({})", os_error(&error))),
        };
        let signals = Signals::block().map_err(|error| format!("signalfd() failed ({})", os_error(&error)))?;
        let job = program.map(|program| Job {
            program,
            timeout: config.main.upgrade_timeout,
            pid_path: config.main.pid.clone(),
            pid: Pid::this(),
        });
        let launcher = match job.map(|job| Launcher::begin(job, identity.is_some())).transpose() {
            Ok(Some(Which::Launcher(work))) => {
                // It must keep nothing open that others take the end of as a sign.
                drop((inherited, daemon));
                if config.main.daemon {
                    daemon::leave_terminal().map_err(|error| format!("/dev/null failed ({})", os_error(&error)))?;
                }
                work.run();
                return Ok(Begun::Other(ExitCode::SUCCESS));
            }
            Ok(Some(Which::Server(launcher))) => Some(launcher),
            Ok(None) => None,
            Err(error) => return Err(format!("the launcher cannot be started ({})", os_error(&error))),
        };
        Ok(Begun::Server(Self { daemon, identity, signals, launcher, inherited }))
    }
}

/// The unix sockets that a configuration makes.
pub(super) fn unix_sockets(config: &Config) -> Vec<PathBuf> {
    let addresses = config.listeners.iter().map(|listener| &listener.address);
    let paths = addresses.filter_map(|address| match address {
        ListenAddress::Unix(path) => Some(path.clone()),
        ListenAddress::Tcp(_) => None,
    });
    paths.collect()
}

/// Removes files. Those that are gone, or that this user may not remove, stay as they are.
pub(super) fn remove_all(paths: &[PathBuf]) {
    for path in paths {
        let _ = fs::remove_file(path);
    }
}
