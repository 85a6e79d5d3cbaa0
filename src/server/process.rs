//! What must be done while the program has one thread: fork, and block signals for all threads to come.

use std::{fs, path::PathBuf, process::ExitCode};

use super::{
    daemon::{self, Daemon, Detached},
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
    /// Its signals.
    pub signals: Signals,
}

impl Process {
    /// Goes into the background if the configuration says so, and blocks signals.
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
        let signals = Signals::block().map_err(|error| format!("signalfd() failed ({})", os_error(&error)))?;
        Ok(Begun::Server(Self { daemon, identity, signals }))
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
