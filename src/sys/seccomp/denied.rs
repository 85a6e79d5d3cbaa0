//! What no thread of the process may do.

use std::process;

use libc::c_long;
use seccompiler::{
    SeccompCmpOp::{Eq, MaskedEq, Ne},
    SeccompRule,
};

use super::{Rule, always, argument, when};

/// Calls that a proxy has no use for and an intruder has. The groups are systemd's (`systemd-analyze syscall-filter`).
const CALLS: &[c_long] = &[
    // Other programs, other processes. A launcher was forked before, see `server::launcher`.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_personality,
    // Another identity.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // Namespaces and mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Files past their paths, and what makes programs of them.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_memfd_create,
    libc::SYS_mknodat,
    // What the kernel has had most of its holes in, of no use here.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_io_setup,
    libc::SYS_io_submit,
    libc::SYS_vmsplice,
    libc::SYS_remap_file_pages,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
];

/// What other machines never had.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_mknod,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[c_long] = &[];

/// Address families: names are resolved over all of them (netlink says which addresses there are).
const FAMILIES: [i32; 4] = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX, libc::AF_NETLINK];

/// On x86_64 the x32 ABI has the same calls once more with this bit set, where a kernel has it.
const X32: c_long = 0x4000_0000;
/// Calls that have numbers of their own there: execve, ptrace, rt_sigqueueinfo, kexec_load, process_vm_readv, process_vm_writev,
/// execveat (arch/x86/entry/syscalls/syscall_64.tbl).
const X32_CALLS: [c_long; 7] = [520, 521, 524, 528, 539, 540, 545];

pub(super) fn rules(ring: bool) -> Vec<Rule> {
    let mut rules: Vec<Rule> = always(CALLS).chain(always(OLD_CALLS)).collect();
    rules.extend(conditional());
    if !ring {
        rules.extend(always(&[libc::SYS_io_uring_setup]));
    }
    if cfg!(target_arch = "x86_64") {
        let once_more: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
        rules.extend(once_more);
        rules.extend(X32_CALLS.map(|call| (call | X32, Vec::new())));
    }
    rules
}

fn conditional() -> Vec<Rule> {
    let own = u64::from(process::id());
    let flags = |flags: i32| flags as u64;
    let (thread, execute) = (flags(libc::CLONE_THREAD), flags(libc::PROT_EXEC));
    let written_and_run = flags(libc::PROT_WRITE | libc::PROT_EXEC);
    let no_such_family = when(FAMILIES.map(|family| argument(0, Ne, family as u64)));
    let to_others: Vec<SeccompRule> = vec![when([argument(0, Ne, own)])];
    vec![
        // A process, and no thread.
        (libc::SYS_clone, vec![when([argument(0, MaskedEq(thread), 0)])]),
        (libc::SYS_kill, to_others.clone()),
        (libc::SYS_tgkill, to_others),
        (libc::SYS_socket, vec![no_such_family]),
        // Memory that was written to and is run. Libraries (of the resolver) are mapped from their files.
        (libc::SYS_mmap, vec![when([argument(2, MaskedEq(written_and_run), written_and_run)])]),
        (libc::SYS_mprotect, vec![when([argument(2, MaskedEq(execute), execute)])]),
        (libc::SYS_pkey_mprotect, vec![when([argument(2, MaskedEq(execute), execute)])]),
        (libc::SYS_shmat, vec![when([argument(2, MaskedEq(flags(libc::SHM_EXEC)), flags(libc::SHM_EXEC))])]),
        // Words typed into the terminal that the program was started from.
        (libc::SYS_ioctl, vec![when([argument(1, Eq, libc::TIOCSTI)]), when([argument(1, Eq, libc::TIOCLINUX)])]),
    ]
}
