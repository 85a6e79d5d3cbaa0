//! What a worker may do. It opens no file: keys are read, logs are written, names are looked up by other threads.

use std::process;

use libc::c_long;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};

use super::{Rule, always, argument, pointer, when};

const CALLS: &[c_long] = &[
    // Bytes.
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_pipe2,
    // The status, by files that were opened before.
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    // Connections.
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_dup3,
    // Readiness.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Time, where the vDSO does not answer.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // Memory; mmap and mprotect are below.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_mincore,
    libc::SYS_membarrier,
    // Locks, signals and the end of a thread, as libc makes them.
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // What it is asked about itself.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getcpu,
    libc::SYS_sched_getaffinity,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    // Since Linux 6.7 a lock may be these: futex_wake, futex_wait, futex_requeue. One number on all machines.
    454,
    455,
    456,
];

/// What other machines never had.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[c_long] = &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_time, libc::SYS_arch_prctl];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[c_long] = &[];

/// Address families of clients and backends.
const FAMILIES: [i32; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];

pub(super) fn rules(ring: bool) -> Vec<Rule> {
    let mut rules: Vec<Rule> = always(CALLS).chain(always(OLD_CALLS)).collect();
    let execute = libc::PROT_EXEC as u64;
    let not_run = || vec![when([argument(2, MaskedEq(execute), 0)])];
    rules.extend([
        (libc::SYS_socket, FAMILIES.map(|family| when([argument(0, Eq, family as u64)])).into()),
        (libc::SYS_mmap, not_run()),
        (libc::SYS_mprotect, not_run()),
        // Bytes that have come, and not blocking.
        (libc::SYS_ioctl, [libc::FIONREAD, libc::FIONBIO].map(|request| when([argument(1, Eq, request)])).into()),
        // abort(3) of its own process.
        (libc::SYS_tgkill, vec![when([argument(0, Eq, u64::from(process::id()))])]),
        // Limits are read; to set one is another thread's.
        (libc::SYS_prlimit64, vec![when([pointer(2, 0)])]),
        // The allocator names its memory.
        (libc::SYS_prctl, vec![when([argument(0, Eq, libc::PR_SET_VMA as u64)])]),
    ]);
    if ring {
        rules.extend(always(&[libc::SYS_io_uring_enter]));
    }
    rules
}
