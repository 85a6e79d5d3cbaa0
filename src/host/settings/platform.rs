//! What else a kernel or a distribution decides.

use super::{Finding, Line, Mark, Seen, Setting};
use crate::config::{Driver, Sandbox};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "kernel.io_uring_disabled",
        wanted: "0, where the file says `use io_uring`",
        line: Line::None,
        since: "6.6",
        why: "longsplice waits with epoll_wait(2), which measures better, and needs no ring. `use io_uring;` takes one: 1 allows it to \
              CAP_SYS_ADMIN and the group of `kernel.io_uring_group` only, 2 to nobody. Without one epoll is used, with a line in \
              the log. RHEL 9 has the sysctl in its older kernels, and RHEL 8 no ring at all.",
        when: "Only files with `use io_uring`.",
        cost: "io_uring has had its share of kernel vulnerabilities: where a policy forbids it, leave it so.",
        see: "`longsplice -V`; the `ready:` line of the error log at `notice`.",
        measured: "",
        judge: io_uring,
    },
    Setting {
        key: "sandbox",
        wanted: "seccomp, and landlock in /sys/kernel/security/lsm",
        line: Line::None,
        since: "5.13",
        why: "By default the program gives up what it does not need once it serves (`sandbox`). Without Landlock its main thread writes \
              wherever its user may, and with `use io_uring` a ring of a worker opens files; without seccomp there is nothing but \
              the user. Kernels of distributions have both since Debian 12, Ubuntu 22.04, RHEL 9; RHEL 8 has seccomp.",
        when: "Always, unless `sandbox off`.",
        cost: "A system call takes some nanoseconds more.",
        see: "`Seccomp: 2` and `NoNewPrivs: 1` in /proc/PID/status; the `sandbox:` line of the error log at `notice`.",
        measured: "",
        judge: sandbox,
    },
    Setting {
        key: "SELinux",
        wanted: "a domain that may connect",
        line: Line::None,
        since: "",
        why: "There is no policy of its own: started by systemd from /usr/local/bin it runs as `unconfined_service_t`, and no `httpd_*` \
              boolean concerns it. With nginx's type (`httpd_exec_t`) it runs as `httpd_t`: then `httpd_can_network_connect` decides \
              whether it reaches backends.",
        when: "RHEL and its kin, enforcing.",
        cost: "None.",
        see: "`ps -eZ | grep longsplice`; `ausearch -m avc -ts recent`.",
        measured: "",
        judge: selinux,
    },
    Setting {
        key: "tuned",
        wanted: "any profile but network-latency",
        line: Line::None,
        since: "",
        why: "RHEL's tuned sets sysctls of its own, and then /etc/sysctl.d again (`reapply_sysctl`): what is set there wins, what is not \
              is tuned's. network-latency sets `net.core.busy_poll` and `busy_read` to 50; throughput-performance and \
              network-throughput are fine.",
        when: "RHEL and its kin.",
        cost: "See net.core.busy_poll.",
        see: "`tuned-adm active`.",
        measured: "",
        judge: tuned,
    },
];

fn io_uring(seen: &Seen<'_>) -> Option<Finding> {
    seen.config.filter(|config| config.main.driver == Driver::IoUring)?;
    let key = "kernel.io_uring_disabled";
    if !seen.files.exists("proc/sys/kernel/io_uring_disabled") {
        return Some(Finding::unseen("0"));
    }
    Some(seen.one_of(key, &[0], Mark::Warn, "epoll is used instead, with a line in the log"))
}

fn sandbox(seen: &Seen<'_>) -> Option<Finding> {
    let wanted = "seccomp and Landlock";
    if seen.config.is_some_and(|config| config.main.sandbox == Sandbox::Off) {
        return Some(Finding::ok("off", "as the file says"));
    }
    if seen.running && has_no_filter(seen) {
        let says = "the process that runs has no filter of system calls; its error log at `notice` says why";
        return Some(Finding::ok("not in force", wanted).marked(Mark::Warn, says));
    }
    // Neither file is there in a container that shows little, or where securityfs is not mounted.
    let has_seccomp = seen.files.exists("proc/sys/kernel/seccomp/actions_avail");
    let modules = seen.files.text("sys/kernel/security/lsm");
    let Some(modules) = modules.filter(|_| has_seccomp) else { return Some(Finding::unseen(wanted)) };
    if modules.split(',').any(|module| module == "landlock") {
        return Some(Finding::ok(wanted, wanted));
    }
    let finding = Finding::ok("seccomp", wanted)
        .mended("", "landlock in front of the kernel's lsm= list, where it is compiled in");
    Some(finding.marked(Mark::Warn, "files are guarded by `user` alone once somebody has got beyond a worker"))
}

/// proc_pid_status(5)
fn has_no_filter(seen: &Seen<'_>) -> bool {
    let status = seen.files.text(&format!("{}/status", seen.process)).unwrap_or_default();
    status.lines().any(|line| line.split_once(':').is_some_and(|(name, mode)| name == "Seccomp" && mode.trim() == "0"))
}

fn selinux(seen: &Seen<'_>) -> Option<Finding> {
    let words = "a domain that may connect";
    let enforcing = seen.files.text("sys/fs/selinux/enforce");
    match enforcing.as_deref() {
        Some("1") => {}
        Some(_) => return Some(Finding::ok("permissive", words)),
        None => return Some(Finding::ok("none", words)),
    }
    let domain = seen.files.text(&format!("{}/attr/current", seen.process)).filter(|_| seen.running);
    let domain = domain.as_deref().and_then(|label| label.split(':').nth(2)).unwrap_or("enforcing");
    let finding = Finding::ok(domain, words);
    let connects = seen.files.text("sys/fs/selinux/booleans/httpd_can_network_connect");
    if domain == "httpd_t" && connects.is_some_and(|state| state.starts_with('0')) {
        let now = "setsebool httpd_can_network_connect on";
        return Some(finding.marked(Mark::Bad, "backends cannot be reached").mended(now, "the same with -P"));
    }
    Some(finding)
}

fn tuned(seen: &Seen<'_>) -> Option<Finding> {
    let profile = seen.files.text("etc/tuned/active_profile")?;
    let finding = Finding::ok(profile.clone(), "any but network-latency");
    if !profile.split_ascii_whitespace().any(|name| name == "network-latency") {
        return Some(finding);
    }
    let mended = finding.mended("tuned-adm profile throughput-performance", "that keeps it");
    Some(mended.marked(Mark::Warn, "it makes every epoll_wait(2) spin (net.core.busy_poll)"))
}
