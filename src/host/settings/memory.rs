//! Memory: the program's, the kernel's, and that of pipes.

use super::{Finding, Line, Mark, Seen, Setting, as_it_is, grouped};
use crate::{
    host::{cgroup, finding::bytes, needs::PAGE_BYTES},
    limits::PIPE_BYTES,
};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "memory",
        wanted: "what the arithmetic below says, with a third to spare",
        line: Line::None,
        since: "",
        why: "An idle tunnel takes 180 bytes of the program (2.6 kB over wss) and 8.6 kB of the kernel: two sockets with their inodes, \
              files and epoll entries. An idle socket has no buffer.",
        when: "From 100,000 tunnels, and in every container with a limit: kernel memory counts there too (`memory.max`, or \
               `memory.limit_in_bytes` before cgroup v2; sockets that were accepted count since Linux 6.13, count on all of them).",
        cost: "The memory.",
        see: "`grep -E 'Slab|SUnreclaim' /proc/meminfo`, `slabtop`, `/proc/PID/smaps_rollup`; in a container \
              `/sys/fs/cgroup/memory.stat`.",
        measured: "`Slab` grew by 7.5 and 7.9 kB a tunnel (4,000 tunnels, two runs; 8.4 to 8.5 kB in the runs of \
              benches/results/versus.md), the program by 180 bytes over ws and 2.6 kB over wss (benches/results/idle.md).",
        judge: memory,
    },
    Setting {
        key: "net.ipv4.tcp_mem",
        wanted: "pressure (the second number) above one page for one socket of ten",
        line: Line::None,
        since: "",
        why: "Pages of 4 kB that all socket buffers of the host may hold together: low, pressure, high. Past *pressure* buffers shrink, \
              past *high* packets are dropped. The kernel reckons it at boot: 4.7, 6.2 and 9.4 % of the memory.",
        when: "Many tunnels that are busy at once, or many slow readers. An idle tunnel holds no page.",
        cost: "Memory that other programs then do not have. It is for the whole host, or for the network namespace's host: \
               a container cannot set it.",
        see: "`cat /proc/net/sockstat`: `TCP: ... mem` in pages; `nstat -az TcpExtTCPMemoryPressures TcpExtTCPAbortOnMemory`.",
        measured: "",
        judge: tcp_mem,
    },
    Setting {
        key: "net.ipv4.tcp_rmem",
        wanted: "the default; the third number no less than 256 kB",
        line: Line::None,
        since: "",
        why: "Least, first and largest receive buffer of a socket. The kernel grows it with what a connection needs; idle sockets hold \
              nothing, whatever this says. longsplice stops reading from one side when the other takes nothing, so a slow reader makes \
              its sender's buffer fill up to the third number, and no more.",
        when: "A small third number limits long-distance connections to it for each round trip: 256 kB at 100 ms is 2.5 MB/s. That is \
               plenty for most WebSockets.",
        cost: "A large one is what each slow reader may hold.",
        see: "`ss -tmi`: `rb` and `r` of skmem.",
        measured: "first and second number at 1 MiB instead of 128 kB: no more kernel memory for an idle tunnel (two runs). Largest \
              of both tcp_rmem and tcp_wmem at 64 kB instead of 6 and 4 MB: half the throughput of 256 kB frames on loopback \
              (0.48 to 0.55) at three times the CPU for each byte (three runs).",
        judge: |seen| Some(buffer(seen, "net.ipv4.tcp_rmem")),
    },
    Setting {
        key: "net.ipv4.tcp_wmem",
        wanted: "the default; the third number no less than 256 kB",
        line: Line::Offered(
            "for thousands of readers that may be slow at once: 1 MiB each instead of 4",
            &[("net.ipv4.tcp_wmem", "4096 16384 1048576")],
        ),
        since: "",
        why: "The same for sending: what waits toward a slow reader before longsplice stops reading from the other side.",
        when: "As above.",
        cost: "As above.",
        see: "`ss -tmi`: `tb`, `t` and `w` of skmem.",
        measured: "100 clients that stopped reading, the backend sending as fast as it may: 3.9 MB waited toward each with the \
              default of 4 MiB, 1.0 MB with 1 MiB (two runs each); 2.5 to 6.2 MB more waited from each backend (tcp_rmem).",
        judge: |seen| Some(buffer(seen, "net.ipv4.tcp_wmem")),
    },
    Setting {
        key: "net.ipv4.tcp_notsent_lowat",
        wanted: "any; no less than 16384",
        line: Line::Offered(
            "for many slow readers: no more than so much waits unsent in each socket",
            &[("net.ipv4.tcp_notsent_lowat", "131072")],
        ),
        since: "",
        why: "A socket is not writable while more than this waits unsent in it. So less memory waits toward slow readers, and what is sent \
              is fresher. What is under way does not count. The default is no bound but `tcp_wmem`.",
        when: "Slow readers of streams that matter only while new.",
        cost: "Some more wake-ups for bulk.",
        see: "`ss -tmi`: `notsent`.",
        measured: "the same 100 clients: 0.13 MB toward each instead of 3.9 (two runs). Bulk of 256 kB frames on loopback: \
              throughput the same (1.00 to 1.05), CPU for each byte 1.03 to 1.13 times (three runs); 16384: the same \
              throughput.",
        judge: |seen| {
            let says = |_| "so small a number starves bulk transfers".to_owned();
            Some(seen.at_least("net.ipv4.tcp_notsent_lowat", 16_384, Mark::Warn, says))
        },
    },
    Setting {
        key: "net.ipv4.tcp_max_orphans",
        wanted: "as many as tunnels",
        line: Line::None,
        since: "",
        why: "Sockets that were closed and still have something to send or wait for the peer's FIN. When the program ends every tunnel \
              becomes two. Past the number the kernel drops the rest with RST.",
        when: "Stopping with hundreds of thousands of tunnels: clients then see a reset where a close was sent. A drain spreads it out.",
        cost: "Each holds its socket's memory for some seconds.",
        see: "`cat /proc/net/sockstat`: `orphan`; \"too many orphaned sockets\" in dmesg.",
        measured: "",
        judge: |seen| {
            Some(seen.at_least("net.ipv4.tcp_max_orphans", seen.needs.tunnels, Mark::Warn, |_| {
                "a stop that closes all tunnels at once resets those beyond it".to_owned()
            }))
        },
    },
    Setting {
        key: "fs.pipe-user-pages-soft",
        wanted: "8,192 for each worker, or 0",
        line: Line::Offered(
            "for bulk transfers over plain tunnels with more than two workers: 8,192 pages for each",
            &[("fs.pipe-user-pages-soft", "65536")],
        ),
        since: "4.5",
        why: "Large frames of plain tunnels go through pipes of 1 MiB. A user without privileges may have 16,384 pages in pipes: 64 of \
              them, idle ones included, of which each worker keeps up to 32. Past that the kernel hands out pipes of two pages, and a \
              transfer takes many more steps.",
        when: "Bulk over ws (not wss), more than two workers, started by root with `user` or as a user.",
        cost: "Memory of pipes that hold data: up to 1 MiB for each transfer under way.",
        see: "`ls -l /proc/PID/fd | grep -c pipe:` counts their ends, two each; sizes are not shown.",
        measured: "frames of 1 MiB through 4 workers and 400 tunnels as `nobody`: of 196 pipes 66 had 1 MiB and 130 had two pages; \
              as root all had 1 MiB. One worker and 200 tunnels: throughput the same, CPU for each byte 1.03, 1.08 and 1.23 \
              times root's.",
        judge: pipe_pages,
    },
    Setting {
        key: "fs.pipe-max-size",
        wanted: "1048576",
        line: Line::None,
        since: "",
        why: "The largest pipe a user without privileges may ask for. With less the pipes have the kernel's 64 kB.",
        when: "Only where a hardening guide lowered it.",
        cost: "As above.",
        see: "`sysctl fs.pipe-max-size`.",
        measured: "",
        judge: |seen| {
            let says = |_| "bulk transfers go through pipes of 64 kB".to_owned();
            Some(seen.at_least("fs.pipe-max-size", PIPE_BYTES as u64, Mark::Warn, says))
        },
    },
    Setting {
        key: "transparent huge pages",
        wanted: "any",
        line: Line::None,
        since: "",
        why: "The program turns them off for itself (`PR_SET_THP_DISABLE`): a page of 2 MiB would hold ten thousand tunnels or one. The \
              host's setting has no effect on it.",
        when: "Never.",
        cost: "None.",
        see: "`grep AnonHugePages /proc/PID/smaps_rollup`: 0.",
        measured: "`AnonHugePages` was 0 with 4,000 tunnels (two runs).",
        judge: |seen| {
            let found = seen.files.text("sys/kernel/mm/transparent_hugepage/enabled");
            let chosen =
                found.as_deref().and_then(|text| text.split_once('[')?.1.split_once(']')).map(|(chosen, _)| chosen);
            Some(chosen.map_or(Finding::unseen("any"), |chosen| {
                Finding::ok(chosen, "any").saying("the program turns them off for itself")
            }))
        },
    },
    Setting {
        key: "pids.max",
        wanted: "a thread for each worker and 34 more",
        line: Line::None,
        since: "",
        why: "Threads count as processes in a cgroup. A worker that cannot be started fails the start.",
        when: "Containers with a small limit and many cores.",
        cost: "None.",
        see: "`/sys/fs/cgroup/pids.max`; `TasksMax` of a unit.",
        measured: "",
        judge: threads,
    },
];

fn memory(seen: &Seen<'_>) -> Option<Finding> {
    let needed = seen.needs.bytes();
    let words = format!("{} in all", bytes(needed));
    let limit = cgroup::limit(seen, cgroup::MEMORY);
    let total = seen.files.field("proc/meminfo", "MemTotal").map(|kib| kib * 1_024);
    let Some(most) = limit.into_iter().chain(total).min() else { return Some(Finding::unseen(words)) };
    let limited = limit == Some(most);
    let whose = if limited { "of this cgroup" } else { "of this host" };
    let finding = Finding::ok(format!("{} {whose}", bytes(most)), words);
    let parts = format!(
        "{} of the program, {} of the kernel at rest",
        bytes(seen.needs.user_bytes()),
        bytes(seen.needs.kernel_bytes())
    );
    if needed < most / 4 * 3 {
        return Some(finding);
    }
    let mark = if needed > most { Mark::Bad } else { Mark::Warn };
    let finding = finding.marked(mark, format!("{parts}; beyond the limit the kernel kills the program"));
    let wanted = needed / 3 * 4;
    Some(match limited {
        true => finding.mended(
            format!("systemctl set-property --runtime longsplice MemoryMax={wanted}"),
            format!("MemoryMax={wanted} in the unit, or the container's limit"),
        ),
        false => finding.mended("", "more memory, or fewer tunnels on this host"),
    })
}

fn tcp_mem(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.ipv4.tcp_mem";
    let needed = seen.needs.buffer_pages();
    let words = format!("pressure at least {} pages", grouped(needed));
    let Some([low, pressure, high]) = seen.files.sysctl_numbers(key).and_then(|mem| <[u64; 3]>::try_from(mem).ok())
    else {
        return Some(Finding::unseen(words));
    };
    let finding = Finding::ok(format!("{low} {pressure} {high}"), words);
    if pressure >= needed {
        return Some(finding);
    }
    let each = pressure * PAGE_BYTES / (seen.needs.tunnels * 2).max(1);
    let says = format!(
        "buffers shrink once sockets hold {} on the average, packets are dropped some way past it",
        bytes(each)
    );
    let mark = if high < needed { Mark::Bad } else { Mark::Warn };
    Some(finding.marked(mark, says).set(key, format!("{} {} {}", needed, needed / 3 * 4, needed * 2)))
}

fn buffer(seen: &Seen<'_>, key: &str) -> Finding {
    const LEAST: u64 = 256 << 10;
    let words = format!("largest at least {}", grouped(LEAST));
    let Some([least, first, most]) = seen.files.sysctl_numbers(key).and_then(|sizes| <[u64; 3]>::try_from(sizes).ok())
    else {
        return Finding::unseen(words);
    };
    let finding = as_it_is(seen, key, "");
    let finding = Finding { wanted: words, ..finding };
    if most >= LEAST {
        return finding;
    }
    let says = format!("a connection with a round trip of 100 ms moves no more than {} a second", bytes(most * 10));
    finding.marked(Mark::Warn, says).set(key, format!("{least} {first} {}", LEAST * 4))
}

fn pipe_pages(seen: &Seen<'_>) -> Option<Finding> {
    let key = "fs.pipe-user-pages-soft";
    if seen.files.sysctl_number(key) == Some(0) {
        return Some(Finding::ok("0: no limit", "any"));
    }
    Some(seen.at_least(key, seen.needs.pipe_pages(), Mark::Warn, |found| {
        let pipes = found * PAGE_BYTES / PIPE_BYTES as u64;
        format!("bulk transfers over ws slow down once {pipes} pipes are there; the workers keep more than that")
    }))
}

fn threads(seen: &Seen<'_>) -> Option<Finding> {
    let needed = seen.needs.threads();
    let words = format!("at least {}", grouped(needed));
    if !seen.files.exists(&format!("{}/cgroup", seen.process)) {
        return Some(Finding::unseen(words));
    }
    let Some(most) = cgroup::limit(seen, cgroup::PIDS) else { return Some(Finding::ok("no limit", words)) };
    let finding = Finding::ok(grouped(most), words);
    if most >= needed {
        return Some(finding);
    }
    let value = needed.next_power_of_two();
    let finding = finding.marked(Mark::Bad, "not every worker can be started");
    Some(finding.mended(
        format!("systemctl set-property --runtime longsplice TasksMax={value}"),
        format!("TasksMax={value} in the unit"),
    ))
}
