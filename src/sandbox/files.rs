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
    ABI, Access, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
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

/// EOPNOTSUPP (landlock(7)).
pub(super) const SWITCHED_OFF: &str = "not in the kernel's lsm= list";
/// ENOSYS, also where a container's filter knows no calls of it.
pub(super) const NOT_BUILT_IN: &str = "kernel before 5.13, or without it";

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
    let confine = || -> Result<RestrictionStatus, RulesetError> {
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
        rules.restrict_self()
    };
    in_words(confine())
}

/// The calling thread opens nothing at all.
pub(super) fn confine_worker() -> Result<(), String> {
    let confine = || Ruleset::default().handle_access(AccessFs::from_all(FILES))?.create()?.restrict_self();
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

fn in_words(status: Result<RestrictionStatus, RulesetError>) -> Result<(), String> {
    let status = status.map_err(|error| error.to_string())?;
    match (status.ruleset, status.landlock) {
        // Older kernels deny less; what they cannot deny they could not grant to others, either.
        (RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced, _) => Ok(()),
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Err(SWITCHED_OFF.to_owned()),
        (RulesetStatus::NotEnforced, _) => Err(NOT_BUILT_IN.to_owned()),
    }
}
