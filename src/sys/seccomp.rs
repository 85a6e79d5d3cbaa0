//! System call filters (seccomp(2)): what the process is denied, and all that a worker may do.
//!
//! Two lists, since they fail in different ways. The process' is of what is denied: the control plane reads files, resolves names
//! by whatever modules the system's libc loads, and starts threads, so a list of what it may do would break with the next libc. A
//! worker's is of what it may do: its calls are ours and the allocator's, and a test runs the whole suite with them.

mod allowed;
mod denied;

use std::{collections::BTreeMap, env::consts::ARCH, io};

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter, apply_filter_all_threads,
};

/// What becomes of a call that a filter denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// It fails with EPERM.
    Fails,
    /// It is made, and the kernel logs it (audit, or the kernel's log).
    IsLogged,
}

impl Denial {
    fn action(self) -> SeccompAction {
        match self {
            Self::Fails => SeccompAction::Errno(libc::EPERM as u32),
            Self::IsLogged => SeccompAction::Log,
        }
    }
}

/// Denies all threads of this process, now and later, what none of them needs. `ring`: io_uring is used.
///
/// # Errors
/// `Unsupported` on machines the filters are not made for; EINVAL where the kernel has no filters (CONFIG_SECCOMP_FILTER).
pub fn deny_process(denial: Denial, ring: bool) -> io::Result<()> {
    let filter = filter(denied::rules(ring), SeccompAction::Allow, denial.action())?;
    apply_filter_all_threads(&filter).map_err(from_library)?;
    // Its flags lie in memory, where no filter sees them. ENOSYS is what makes libc take clone(2) instead.
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = self::filter(vec![(libc::SYS_clone3, Vec::new())], SeccompAction::Allow, unknown)?;
    apply_filter_all_threads(&filter).map_err(from_library)
}

/// Leaves the calling thread what a worker needs. `ring`: it waits by io_uring, whose ring exists already.
///
/// # Errors
/// As [`deny_process`].
pub fn allow_worker(denial: Denial, ring: bool) -> io::Result<()> {
    let filter = filter(allowed::rules(ring), denial.action(), SeccompAction::Allow)?;
    apply_filter(&filter).map_err(from_library)
}

/// A call, and when the rule applies: under one of these conditions, or always.
type Rule = (libc::c_long, Vec<SeccompRule>);

fn filter(rules: Vec<Rule>, otherwise: SeccompAction, matching: SeccompAction) -> io::Result<BpfProgram> {
    let arch = ARCH.try_into().map_err(|_| io::ErrorKind::Unsupported)?;
    let rules: BTreeMap<i64, Vec<SeccompRule>> = rules.into_iter().collect();
    let filter = SeccompFilter::new(rules, otherwise, matching, arch).map_err(io::Error::other)?;
    BpfProgram::try_from(filter).map_err(io::Error::other)
}

fn from_library(error: Error) -> io::Error {
    match error {
        Error::Prctl(error) | Error::Seccomp(error) => error,
        other => io::Error::other(other),
    }
}

/// Calls that a rule applies to always.
fn always(calls: &[libc::c_long]) -> impl Iterator<Item = Rule> {
    calls.iter().map(|call| (*call, Vec::new()))
}

/// All of these conditions.
fn when<const N: usize>(conditions: [SeccompCondition; N]) -> SeccompRule {
    // It fails for no condition at all and for an argument beyond the sixth: constants here, and the tests make every rule.
    SeccompRule::new(conditions.into()).unwrap_or_else(|error| unreachable!("{error}"))
}

/// One condition on one argument, 32 bits of it, as these calls take them.
fn argument(number: u8, operator: SeccompCmpOp, value: u64) -> SeccompCondition {
    let condition = SeccompCondition::new(number, SeccompCmpArgLen::Dword, operator, value);
    condition.unwrap_or_else(|error| unreachable!("{error}"))
}

/// An argument of 64 bits has this value.
fn pointer(number: u8, value: u64) -> SeccompCondition {
    let condition = SeccompCondition::new(number, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value);
    condition.unwrap_or_else(|error| unreachable!("{error}"))
}
