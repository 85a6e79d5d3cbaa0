//! From a client's SYN to accept(2).

use super::{Finding, Line, Mark, Seen, Setting, as_it_is, grouped};
use crate::host::files::numbers;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "net.core.somaxconn",
        wanted: "as large as the largest backlog of the file",
        line: Line::Set(
            "The accept queue of each listening socket may be this long; `listen ... backlog=` asks for it. 128 before Linux 5.4.",
            &[("net.core.somaxconn", "16384")],
        ),
        since: "",
        why: "Connections that are established wait in the listening socket's queue until a worker accepts them. A full queue drops \
              the client's last handshake packet without a word; the client sends again after a second. The queue is as long as the \
              smaller of this and `backlog=`.",
        when: "After a restart or a network break, when all clients come back within seconds. Over wss more, since workers are busy \
               with handshakes meanwhile. RHEL 8 has 128.",
        cost: "Clients wait in the queue instead of being dropped. Kernel memory for each that waits, as for any connection.",
        see: "`ss -ltn`: Send-Q is the size, Recv-Q what waits. `nstat -az TcpExtListenOverflows TcpExtListenDrops` grow while a \
              queue is full.",
        measured: "4,000 clients at once, plain, one worker, each three times in a row: all were in after 0.17 to 0.21 s with a \
              queue of 4,096, after 0.23 to 3.1 s with 511, after 0.18 to 5.5 s with somaxconn at 128: up to 26 times as long. \
              None was lost: the dropped ones come again after one and three seconds.",
        judge: somaxconn,
    },
    Setting {
        key: "listen ... backlog=",
        wanted: "a tenth of the tunnels, divided by the workers; no less than 511",
        line: Line::None,
        since: "",
        why: "What the file asks for. Each worker has a socket of its own for every listener, so the queues add up: 511, nginx's \
              default and ours, times the workers.",
        when: "As above.",
        cost: "As above.",
        see: "`ss -ltn`.",
        measured: "",
        judge: backlog,
    },
    Setting {
        key: "net.ipv4.tcp_syncookies",
        wanted: "1",
        line: Line::None,
        since: "",
        why: "With 1, the default, a queue full of half-open connections answers with cookies and nobody is dropped. With 0 SYNs \
              are dropped, and only then `tcp_max_syn_backlog` has a say. With 2 every connection goes without the queue, and \
              without what a cookie cannot hold.",
        when: "Only where something switched it off.",
        cost: "A connection made by a cookie has no window scaling unless both sides have timestamps.",
        see: "`nstat -az TcpExtSyncookiesSent`; \"Possible SYN flooding\" in dmesg.",
        measured: "the storm above with 511 and 128 sent 1,200 to 3,000 cookies and lost nobody. `tcp_max_syn_backlog` at 64 \
              instead of 2,048 changed nothing: no drop, no cookie, 0.24 to 0.26 s (three times).",
        judge: |seen| {
            let says = "with 0 a burst of new clients is dropped at the SYN; with 2 every connection pays for it";
            Some(seen.one_of("net.ipv4.tcp_syncookies", &[1], Mark::Warn, says))
        },
    },
    Setting {
        key: "net.ipv4.tcp_abort_on_overflow",
        wanted: "0",
        line: Line::None,
        since: "",
        why: "With 1 a full accept queue resets the client instead of letting it try again, and a burst becomes a wave of errors.",
        when: "Only where something switched it on.",
        cost: "None.",
        see: "`sysctl net.ipv4.tcp_abort_on_overflow`.",
        measured: "",
        judge: |seen| {
            let says = "a full accept queue resets clients instead of letting them try again";
            Some(seen.one_of("net.ipv4.tcp_abort_on_overflow", &[0], Mark::Warn, says))
        },
    },
    Setting {
        key: "net.ipv4.tcp_migrate_req",
        wanted: "any",
        line: Line::Offered(
            "for two processes that share the ports by other means than an upgrade, while one leaves",
            &[("net.ipv4.tcp_migrate_req", "1")],
        ),
        since: "5.14",
        why: "A listening socket that is closed takes the connections in its queue with it: their clients are reset. With 1 the kernel \
              moves them to another socket of the same port. longsplice keeps its listening sockets over reloads, with fewer workers \
              too, and hands them over in an upgrade: nothing is lost without it.",
        when: "Only where a second process is started on the same port by other means.",
        cost: "Until a fix of 2026 (\"call sk_data_ready() after listener migration\") the kernel does not tell the other socket: on \
               a quiet port a moved client waits until the next one comes.",
        see: "`nstat -az TcpExtTCPMigrateReqSuccess TcpExtTCPMigrateReqFailure`.",
        measured: "two sockets on one port, 100 clients, one socket closed with 48 to 58 of them in its queue: with 0 all of these \
              were reset (three times of three), with 1 none, and the other socket was told (Linux 6.18.44 has the fix).",
        judge: |seen| {
            Some(as_it_is(seen, "net.ipv4.tcp_migrate_req", "listening sockets outlive reloads and upgrades"))
        },
    },
    Setting {
        key: "net.core.netdev_max_backlog",
        wanted: "1000, more where packets were dropped",
        line: Line::Offered(
            "where packets were dropped between network card and protocol (second column of /proc/net/softnet_stat)",
            &[("net.core.netdev_max_backlog", "10000")],
        ),
        since: "",
        why: "Packets that wait for a CPU, where another one took them from the card (RPS), and on virtual interfaces: veth of \
              containers, loopback. Network cards with NAPI do not use it.",
        when: "Containers and RPS, when the dropped column grows.",
        cost: "A longer queue is a longer wait.",
        see: "Second column of /proc/net/softnet_stat, one line a CPU, hexadecimal: it must not grow.",
        measured: "",
        judge: packets,
    },
    Setting {
        key: "net.ipv4.tcp_fastopen",
        wanted: "2 or 3, where a `listen` has `fastopen=`",
        line: Line::None,
        since: "",
        why: "`listen ... fastopen=` has no effect unless this has the bit 2 (server).",
        when: "Only files with `fastopen=`.",
        cost: "Data in a SYN may be replayed; networks that drop such SYNs cost clients a second.",
        see: "`nstat -az TcpExtTCPFastOpenPassive`.",
        measured: "",
        judge: fast_open,
    },
];

fn somaxconn(seen: &Seen<'_>) -> Option<Finding> {
    let wanted = longest_backlog(seen).max(seen.needs.backlog());
    let finding = seen.at_least("net.core.somaxconn", wanted, Mark::Bad, |found| {
        format!("a queue of {} drops connections silently when all clients come back at once", grouped(found))
    });
    // Kernels that count the queue in 16 bits take no more.
    Some(if finding.mark == Mark::Bad && wanted > 32_768 {
        finding.set("net.core.somaxconn", wanted.max(65_535))
    } else {
        finding
    })
}

/// The largest `backlog=` of the file.
fn longest_backlog(seen: &Seen<'_>) -> u64 {
    let backlogs =
        seen.config.into_iter().flat_map(|config| &config.listeners).map(|listener| listener.options.backlog);
    backlogs.filter_map(|backlog| u64::try_from(backlog).ok()).max().unwrap_or(0)
}

fn backlog(seen: &Seen<'_>) -> Option<Finding> {
    let wanted = seen.needs.backlog();
    // A negative backlog is as large as somaxconn allows.
    let backlogs = seen
        .config?
        .listeners
        .iter()
        .filter_map(|listener| Some((u64::try_from(listener.options.backlog).ok()?, listener.address.to_string())));
    let (least, address) = backlogs.min()?;
    let finding = Finding::ok(format!("{} ({address})", grouped(least)), format!("at least {}", grouped(wanted)));
    if least >= wanted {
        return Some(finding);
    }
    let says = format!("{} connections may wait for each worker when all clients come back at once", grouped(least));
    let line = format!("listen {address} ... backlog={};", wanted.next_power_of_two());
    Some(finding.marked(Mark::Warn, says).mended(line, "that parameter in the file"))
}

fn packets(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.core.netdev_max_backlog";
    let Some(found) = seen.files.sysctl_number(key) else { return Some(Finding::unseen("nothing dropped")) };
    let table = seen.files.text("proc/net/softnet_stat").unwrap_or_default();
    let dropped: u64 =
        table.lines().filter_map(|line| u64::from_str_radix(line.split_ascii_whitespace().nth(1)?, 16).ok()).sum();
    let finding = Finding::ok(grouped(found), "nothing dropped");
    if dropped == 0 {
        return Some(finding);
    }
    let says = format!("{} packets were dropped since the start because a CPU's queue was full", grouped(dropped));
    Some(finding.marked(Mark::Warn, says).set(key, (found * 10).next_power_of_two()))
}

fn fast_open(seen: &Seen<'_>) -> Option<Finding> {
    seen.config?.listeners.iter().find(|listener| listener.options.fastopen.is_some())?;
    let key = "net.ipv4.tcp_fastopen";
    let Some(found) = seen.files.sysctl(key).and_then(|text| numbers::<u64>(&text).next()) else {
        return Some(Finding::unseen("bit 2"));
    };
    let finding = Finding::ok(found.to_string(), "bit 2");
    if found & 2 != 0 {
        return Some(finding);
    }
    Some(finding.marked(Mark::Warn, "`fastopen=` of the file has no effect").set(key, found | 2))
}
