//! Capabilities, and what the kernel calls privileges (capabilities(7), PR_SET_NO_NEW_PRIVS).

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::sys::prctl;

use crate::observe::os_error;

/// What the control plane keeps, where it has it: a reload may name a port below 1024.
pub(super) const CONTROL: &[Capability] = &[Capability::CAP_NET_BIND_SERVICE];
/// What a worker keeps.
pub(super) const NONE: &[Capability] = &[];

/// Nothing that this process executes gets a capability. The bounding set is each thread's own, and its children's.
pub(super) fn empty_bounding_set() -> Result<(), CapsError> {
    caps::runtime::thread_all_supported()
        .into_iter()
        .try_for_each(|capability| caps::drop(None, CapSet::Bounding, capability))
}

/// The calling thread keeps these, and no other; what it does not have it does not get.
pub(super) fn give_up(but: &[Capability]) -> Result<(), String> {
    let of = |set| caps::read(None, set);
    let keep = |held: CapsHashSet| held.into_iter().filter(|capability| but.contains(capability)).collect();
    let give_up = || -> Result<(), CapsError> {
        caps::set(None, CapSet::Effective, &keep(of(CapSet::Effective)?))?;
        caps::set(None, CapSet::Permitted, &keep(of(CapSet::Permitted)?))?;
        // With it the ambient set, which is never more (capabilities(7)).
        caps::clear(None, CapSet::Inheritable)
    };
    give_up().map_err(|error| error.to_string())
}

/// No execve(2) of this thread or of those it starts gives it rights; what Landlock and seccomp ask for.
pub(super) fn no_new_privileges() -> Result<(), String> {
    prctl::set_no_new_privs().map_err(|errno| os_error(&errno.into()))
}

/// No core file, which would hold keys, and no ptrace(2) by others of the same user. A change of user has done it already.
pub(super) fn not_dumpable() -> Result<(), String> {
    prctl::set_dumpable(false).map_err(|errno| os_error(&errno.into()))
}
