//! Which files may be opened (landlock(7)).
//!
//! A rule holds for a directory as it is now, and all below it. So no rule names a file: a log that is rotated, a key that is renewed and
//! /etc/resolv.conf are other files tomorrow. What is read is not narrowed down for the process: a reload may name any file, and what
//! `user` may not read it cannot read.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};

use crate::{
    config::{Config, ListenAddress},
    observe::Logs,
};

/// Linux 6.10: the newest that knows another right on files than to connect to a unix socket, which backends may be.
const FILES: ABI = ABI::V5;
/// Where logs are wont to be, named by the file or not: a reload may name another. What may be written there is a question of `user`,
/// as ever.
const LOGS: &str = "/var/log";

/// The directories in which a configuration has files written: logs, the pid file, unix sockets.
pub(super) fn writable(config: &Config) -> Vec<PathBuf> {
    let logs = Logs::files(config).into_iter();
    let sockets = config.listeners.iter().filter_map(|listener| match &listener.address {
        ListenAddress::Unix(path) => Some(path.clone()),
        ListenAddress::Tcp(_) => None,
    });
    let files = logs.chain(config.main.pid.clone()).chain(sockets);
    let directories = files.flat_map(|file| {
        // A log may be a link to one that lies elsewhere.
        let real = fs::canonicalize(&file).ok();
        real.into_iter().chain([file]).filter_map(|file| file.parent().map(Path::to_owned))
    });
    let all: BTreeSet<PathBuf> = directories.chain([PathBuf::from(LOGS)]).collect();
    all.into_iter().collect()
}

/// The calling thread and those it starts read as before, write below these directories, and execute nothing. No signal leaves the
/// process (Linux 6.12).
pub(super) fn confine_process(writable: &[PathBuf]) -> Result<(), String> {
    let confine = || -> Result<RulesetStatus, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let handled = Ruleset::default().handle_access(AccessFs::from_all(FILES))?.scope(Scope::Signal)?;
        let mut rules = beneath(handled.create()?, "/", read)?;
        // /dev/null, /dev/stdout.
        rules = beneath(rules, "/dev", AccessFs::WriteFile | AccessFs::Truncate)?;
        let write =
            AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::MakeSock | AccessFs::RemoveFile;
        for directory in writable {
            rules = beneath(rules, directory, write)?;
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    in_words(confine())
}

/// The calling thread opens nothing at all.
pub(super) fn confine_worker() -> Result<(), String> {
    let confine =
        || Ok(Ruleset::default().handle_access(AccessFs::from_all(FILES))?.create()?.restrict_self()?.ruleset);
    in_words(confine())
}

/// A directory that is not there, or that this user cannot reach, needs no rule.
fn beneath(
    rules: RulesetCreated,
    directory: impl AsRef<Path>,
    rights: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(directory) {
        Ok(directory) => rules.add_rule(PathBeneath::new(directory, rights)),
        Err(_) => Ok(rules),
    }
}

fn in_words(status: Result<RulesetStatus, RulesetError>) -> Result<(), String> {
    match status {
        // Older kernels deny less; what they cannot deny they could not grant to others, either.
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => Ok(()),
        Ok(RulesetStatus::NotEnforced) => Err("Linux 5.13, lsm=landlock".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
