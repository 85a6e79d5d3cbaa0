//! Descriptors: two a tunnel.

use super::{Finding, Line, Mark, Seen, Setting, grouped};
use crate::host::{files::numbers, needs};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "LimitNOFILE",
        wanted: "two for each tunnel, 64 for the process, and for each worker 64 and one a listener",
        line: Line::None,
        since: "",
        why: "A tunnel is two sockets. The program raises its soft limit to the hard one by itself (or to what \
              `worker_rlimit_nofile` or `worker_connections` ask for), so the hard limit is what counts. Past it new connections \
              wait in the accept queue, and the log says so.",
        when: "Always. The usual soft limit of 1,024 is 480 tunnels; systemd's hard limit is 524,288, a login shell's is often \
               far less, a container's is its runtime's (`docker run --ulimit nofile=524288`).",
        cost: "None until used.",
        see: "`grep 'open files' /proc/PID/limits`; in use: `ls /proc/PID/fd | wc -l`.",
        measured: "",
        judge: nofile,
    },
    Setting {
        key: "worker_connections",
        wanted: "two for each tunnel of a worker, or no such line",
        line: Line::None,
        since: "",
        why: "As in nginx it counts both sides and is for each worker: 1,024, RHEL's stock value, is 512 tunnels a worker. Without \
              the line the descriptor limit is the only one.",
        when: "Wherever a file was taken over from nginx.",
        cost: "None until used.",
        see: "`longsplice doctor -c FILE` takes its default for `--connections` from it.",
        measured: "",
        judge: worker_connections,
    },
    Setting {
        key: "fs.nr_open",
        wanted: "no less than LimitNOFILE",
        line: Line::Offered(
            "for more than 520,000 tunnels in one process: LimitNOFILE cannot exceed it",
            &[("fs.nr_open", "4194304")],
        ),
        since: "",
        why: "No limit of descriptors can be set above it, by anybody: a unit with a larger LimitNOFILE does not start.",
        when: "More than 520,000 tunnels in one process: it is 1,048,576 by default.",
        cost: "A process with a million descriptors has a table of 8 MB.",
        see: "`sysctl fs.nr_open`.",
        measured: "",
        judge: nr_open,
    },
    Setting {
        key: "fs.file-max",
        wanted: "what the process needs beyond what the host has open",
        line: Line::None,
        since: "",
        why: "Open files of the whole host. Past it every program gets ENFILE.",
        when: "Hosts where something has lowered it: systemd sets it to the largest number there is.",
        cost: "None until used.",
        see: "`sysctl fs.file-nr`: open, free, most.",
        measured: "",
        judge: file_max,
    },
    Setting {
        key: "fs.epoll.max_user_watches",
        wanted: "two for each tunnel",
        line: Line::Offered(
            "for more tunnels than the memory's default allows (4 % of it, about 200 bytes each)",
            &[("fs.epoll.max_user_watches", "4194304")],
        ),
        since: "",
        why: "Each socket is in an epoll instance. One user may have so many of these, over all processes; past it a new tunnel \
              fails with ENOSPC, which looks like a full disk and is none.",
        when: "A million tunnels on a host with less than 10 GB. The default grows with the memory: some 220,000 a GB.",
        cost: "None until used; an entry is part of the kernel memory reckoned below.",
        see: "`sysctl fs.epoll.max_user_watches`; in use: `grep -c tfd /proc/PID/fdinfo/*`.",
        measured: "",
        judge: watches,
    },
];

fn nofile(seen: &Seen<'_>) -> Option<Finding> {
    let asked = seen.config.and_then(|config| config.main.nofile);
    let needed = seen.needs.descriptors();
    let words = format!("at least {}", grouped(needed));
    let Some((soft, hard)) = limits_of(seen) else { return Some(Finding::unseen(words)) };
    let whose = if seen.running { "of the running process" } else { "of this shell; a unit has its own" };
    // A running process has raised its soft limit as far as it will.
    let (name, limit) = if seen.running { ("soft", soft) } else { ("hard", hard) };
    let limit = asked.map_or(limit, |asked| asked.min(limit));
    let finding = Finding::ok(format!("{} ({name} limit {whose})", grouped(limit)), words);
    if limit >= needed {
        return Some(finding);
    }
    let fits = needs::tunnels_within(limit, seen.needs);
    let value = needed.next_power_of_two();
    let finding = finding.marked(Mark::Bad, format!("{} tunnels fit, then new connections wait", grouped(fits)));
    Some(match asked {
        Some(asked) if asked == limit => {
            finding.mended(format!("worker_rlimit_nofile {value};"), "that line in the file, and LimitNOFILE no less")
        }
        _ if seen.running => {
            let pid = seen.process.rsplit('/').next().unwrap_or_default();
            finding.mended(
                format!("prlimit --pid {pid} --nofile={value}:{value}"),
                format!("LimitNOFILE={value} in the unit"),
            )
        }
        _ => finding.mended(format!("ulimit -Hn {value}"), format!("LimitNOFILE={value} in the unit")),
    })
}

/// Soft and hard limit of open files; `unlimited` is the largest number.
fn limits_of(seen: &Seen<'_>) -> Option<(u64, u64)> {
    let text = seen.files.text(&format!("{}/limits", seen.process))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_ascii_whitespace().map(|word| word.parse().unwrap_or(u64::MAX));
    Some((words.next()?, words.next()?))
}

fn worker_connections(seen: &Seen<'_>) -> Option<Finding> {
    let each = seen.config?.main.worker_connections? as u64;
    let (workers, needed) = (seen.needs.workers, (seen.needs.tunnels * 2).div_ceil(seen.needs.workers));
    let finding =
        Finding::ok(format!("{} for each of {workers}", grouped(each)), format!("at least {}", grouped(needed)));
    if each >= needed {
        return Some(finding);
    }
    let says = format!("{} tunnels fit, then new connections wait", grouped(each * workers / 2));
    let line = format!("worker_connections {};", needed.next_power_of_two());
    Some(finding.marked(Mark::Bad, says).mended(line, "that line in the file's `events`"))
}

fn nr_open(seen: &Seen<'_>) -> Option<Finding> {
    let needed = seen.needs.descriptors();
    Some(seen.at_least("fs.nr_open", needed, Mark::Bad, |_| "LimitNOFILE cannot be set high enough".to_owned()))
}

fn file_max(seen: &Seen<'_>) -> Option<Finding> {
    let open = seen.files.sysctl("fs.file-nr").and_then(|text| numbers::<u64>(&text).next()).unwrap_or(0);
    // What runs already has opened some of what it needs: counted twice, to be on the safe side.
    let needed = open + seen.needs.descriptors();
    Some(seen.at_least("fs.file-max", needed, Mark::Bad, |_| {
        format!("{} are open on this host already; past it nothing can open a file", grouped(open))
    }))
}

fn watches(seen: &Seen<'_>) -> Option<Finding> {
    let needed = seen.needs.watches();
    Some(seen.at_least("fs.epoll.max_user_watches", needed, Mark::Bad, |found| {
        format!("past {} tunnels new ones fail with ENOSPC (28: No space left on device)", grouped(found / 2))
    }))
}
