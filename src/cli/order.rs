//! `-s`: a signal to the running process, found by its pid file.

use std::{path::Path, time::Duration};

use clap::ValueEnum;
use nix::sys::signal::Signal;

use crate::{
    config::Config,
    limits::ANSWER_WAIT_SECS,
    observe::os_error,
    server::{
        answer::Answers,
        pid_file::{send, signal},
    },
};

/// What to tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Order {
    Stop,
    Quit,
    Reload,
    Reopen,
    Upgrade,
}

impl Order {
    /// Gives the order to the process of a configuration, which messages call `name`. What there is to say about its success.
    ///
    /// # Errors
    /// No pid file, no process; an upgrade that failed.
    pub(super) fn give(self, config: &Config, name: &str) -> Result<Option<String>, String> {
        let Some(pid_path) = &config.main.pid else {
            return Err(format!(
                "-s finds the process by its pid file, and {name} names none; add `pid /run/longsplice.pid;` and start it anew"
            ));
        };
        let signal_of_nginx = match self {
            Self::Stop => Signal::SIGTERM,
            Self::Quit => Signal::SIGQUIT,
            Self::Reload => Signal::SIGHUP,
            Self::Reopen => Signal::SIGUSR1,
            Self::Upgrade => return upgrade(pid_path, config.main.upgrade_timeout).map(Some),
        };
        signal(pid_path, signal_of_nginx).map(|_| None)
    }
}

/// nginx's dance in one step: USR2, and once the new process is ready, QUIT to the old one.
fn upgrade(pid_path: &Path, timeout: Duration) -> Result<String, String> {
    let answers = Answers::expect().map_err(|error| format!("bind() failed ({})", os_error(&error)))?;
    let old = signal(pid_path, Signal::SIGUSR2)?;
    let limit = timeout + Duration::from_secs(ANSWER_WAIT_SECS);
    let new = match answers.wait(old, limit) {
        Some(Ok(new)) => new,
        Some(Err(reason)) => return Err(format!("upgrade failed, process {old} serves on: {reason}")),
        None => {
            return Err(format!(
                "process {old} has not answered within {} s: its error log may say more; it serves on",
                limit.as_secs()
            ));
        }
    };
    send(old, Signal::SIGQUIT).map_err(|error| format!("{error}; process {new} serves too"))?;
    Ok(format!("process {new} serves now; process {old} drains and ends"))
}
