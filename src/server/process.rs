//! What must be done while the program has one thread: fork, and block signals for all threads to come.

use std::process::ExitCode;

use nix::unistd::Pid;

use super::{
    daemon::{self, Daemon, Detached},
    launcher::{Job, Launcher, Which, Work},
    program::Program,
    signals::Signals,
    user::{self, Identity},
};
use crate::{config::Config, observe::os_error};

/// Which process came out of [`Process::begin`].
pub(super) enum Begun {
    /// The one that goes on to serve.
    Server(Process),
    /// The one a shell waits for while its daemon starts.
    Foreground(ExitCode),
    /// The one that can start the successor.
    Launcher(Work),
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
}

impl Process {
    /// Goes into the background if the configuration says so, blocks signals, and gets a launcher that can start `program` as its
    /// successor.
    ///
    /// # Errors
    /// An unknown user, or the system's: cause and cure.
    pub(super) fn begin(config: &Config, program: Option<Program>, has_predecessor: bool) -> Result<Begun, String> {
        let identity = user::identity(config.main.user.as_ref())?;
        // A process that replaces another is in the background already if that one was (as in nginx).
        let detaches = config.main.daemon && !has_predecessor;
        let daemon = match detaches.then(daemon::detach).transpose() {
            Ok(Some(Detached::Foreground(code))) => return Ok(Begun::Foreground(code)),
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
            Ok(Some(Which::Launcher(work))) if config.main.daemon => {
                daemon::leave_terminal().map_err(|error| format!("/dev/null failed ({})", os_error(&error)))?;
                return Ok(Begun::Launcher(work));
            }
            Ok(Some(Which::Launcher(work))) => return Ok(Begun::Launcher(work)),
            Ok(Some(Which::Server(launcher))) => Some(launcher),
            Ok(None) => None,
            Err(error) => return Err(format!("the launcher cannot be started ({})", os_error(&error))),
        };
        Ok(Begun::Server(Self { daemon, identity, signals, launcher }))
    }
}
