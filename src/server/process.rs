//! What must be done while the program has one thread: fork, and block signals for all threads to come.

use std::{fs, path::PathBuf, process::ExitCode};

use super::{
    daemon::{self, Daemon, Detached},
    janitor::Janitor,
    pid_file,
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
    /// The one a shell waits for while its daemon starts.
    Foreground(ExitCode),
}

/// The process that serves.
pub(super) struct Process {
    /// Someone waits for us to be ready.
    pub daemon: Option<Daemon>,
    /// Whom to become.
    pub identity: Option<Identity>,
    /// Removes what that one cannot.
    pub janitor: Option<Janitor>,
    /// Its signals.
    pub signals: Signals,
}

impl Process {
    /// Goes into the background if the configuration says so, leaves a janitor behind if one is needed, and blocks signals.
    ///
    /// # Errors
    /// An unknown user, or the system's: cause and cure.
    pub(super) fn begin(config: &Config) -> Result<Begun, String> {
        let identity = user::identity(config.main.user.as_ref())?;
        let daemon = match config.main.daemon.then(daemon::detach).transpose() {
            Ok(Some(Detached::Foreground(code))) => return Ok(Begun::Foreground(code)),
            Ok(Some(Detached::Background(daemon))) => Some(daemon),
            Ok(None) => None,
            Err(error) => return Err(format!("daemon on: fork() failed ({})", os_error(&error))),
        };
        let janitor = identity.as_ref().and_then(|_| janitor(config)).transpose()?;
        let signals = Signals::block().map_err(|error| format!("signalfd() failed ({})", os_error(&error)))?;
        Ok(Begun::Server(Self { daemon, identity, janitor, signals }))
    }
}

/// None: there is nothing to remove.
fn janitor(config: &Config) -> Option<Result<Janitor, String>> {
    let pid_file = config.main.pid.clone();
    let sockets = unix_sockets(config);
    if pid_file.is_none() && sockets.is_empty() {
        return None;
    }
    let server = nix::unistd::Pid::this();
    let janitor = Janitor::start(move || {
        remove_all(&sockets);
        if let Some(path) = pid_file {
            pid_file::remove(&path, server);
        }
    });
    Some(janitor.map_err(|error| format!("fork() failed ({})", os_error(&error))))
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
