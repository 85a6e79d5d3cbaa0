//! Congestion, keepalive, network cards.

use super::{Finding, Line, Mark, Seen, Setting, as_it_is, grouped};
use crate::{config::Listener, host::files::Files};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "net.ipv4.tcp_slow_start_after_idle",
        wanted: "0",
        line: Line::Set(
            "A tunnel that was silent for a moment keeps its congestion window: the next large message needs no slow start.",
            &[("net.ipv4.tcp_slow_start_after_idle", "0")],
        ),
        since: "",
        why: "With 1, the default, a connection that was silent for longer than its retransmission timeout (some 200 ms and more) \
              starts again with ten packets in flight. Tunnels are silent most of the time: a message of 256 kB then takes four round \
              trips more. bbr does not look at it.",
        when: "Messages of more than 14 kB, clients far away.",
        cost: "After a pause a burst goes out at the speed of before: a path that has become slower may drop some of it.",
        see: "`ss -ti`: `cwnd` of a tunnel that was silent.",
        measured: "256 kB after 2.5 s of silence over a path with a round trip of 100 ms, cubic: the last byte came after 453 to \
              467 ms with 1 and after 51 to 54 ms with 0 (three messages each). With bbr 105 to 126 ms with either.",
        judge: slow_start,
    },
    Setting {
        key: "net.ipv4.tcp_congestion_control",
        wanted: "any; bbr for clients on lossy networks",
        line: Line::Offered(
            "for clients on mobile or lossy networks, streams of more than a few kB a second",
            &[("net.core.default_qdisc", "fq"), ("net.ipv4.tcp_congestion_control", "bbr")],
        ),
        since: "4.9",
        why: "bbr takes delay and not loss for a sign of congestion, so a lost packet on a phone's network does not halve the speed. \
              With `fq` as queueing discipline the kernel paces there; without it each socket has a timer (since 4.13).",
        when: "Clients behind mobile networks that receive much. It concerns what is sent from here; small messages do not notice.",
        cost: "Timers for pacing; its first version takes more than its share beside others.",
        see: "`ss -ti` shows `bbr` and `pacing_rate`; `sysctl net.ipv4.tcp_available_congestion_control`.",
        measured: "",
        judge: |seen| Some(as_it_is(seen, "net.ipv4.tcp_congestion_control", "")),
    },
    Setting {
        key: "net.ipv4.tcp_keepalive_time",
        wanted: "240 with an interval of 30 and 4 probes, where a `listen` says `so_keepalive=on`",
        line: Line::Offered(
            "for files with `listen ... so_keepalive=on`, which takes the system's times",
            &[
                ("net.ipv4.tcp_keepalive_time", "240"),
                ("net.ipv4.tcp_keepalive_intvl", "30"),
                ("net.ipv4.tcp_keepalive_probes", "4"),
            ],
        ),
        since: "",
        why: "A phone that leaves the network sends no FIN, and firewalls, NAT and cloud load balancers forget connections \
              that were silent for four to six minutes. Keepalive keeps these alive and finds the dead. longsplice asks \
              for its own times on both sides (60 s, 15 s, 4 probes); `so_keepalive=on` asks for the system's, and these \
              (2 h, 75 s, 9 probes) are too slow for both.",
        when: "Only files with `so_keepalive=on`.",
        cost: "A small packet each way every four minutes for each silent connection: 830 a second at 100,000 tunnels. It \
              wakes mobile radios.",
        see: "`ss -tno` shows `timer:(keepalive,...)`.",
        measured: "",
        judge: keepalive,
    },
    Setting {
        key: "queues of the network cards",
        wanted: "one for each core, or RPS",
        line: Line::None,
        since: "",
        why: "Each receive queue of a card interrupts one core, which does the protocol work of its packets. With one queue one core \
              does that for all workers, and is full first. `irqbalance` or the card's own script deals the interrupts out; in a \
              machine with fewer queues than cores RPS spreads the packets by software.",
        when: "More than some 100,000 packets a second: 50,000 echoed messages.",
        cost: "RPS: an interrupt between cores for each packet. RFS (`rps_sock_flow_entries`) makes the packet go where its worker \
               runs; SO_REUSEPORT has chosen the worker by hash before, so it saves cache misses and little more.",
        see: "`ethtool -l eth0`; `mpstat -P ALL 1`: %soft of one core near 100; `/proc/interrupts`.",
        measured: "",
        judge: queues,
    },
    Setting {
        key: "net.core.busy_poll",
        wanted: "0",
        line: Line::None,
        since: "",
        why: "With a number, epoll_wait(2) asks the network card so many microseconds long before it sleeps: some microseconds less \
              delay, and a core at 100 %. `busy_read` does the same for reads that block; longsplice's never do. Both do nothing for \
              loopback and veth, which have no queue to poll.",
        when: "tuned's profile network-latency sets 50.",
        cost: "All the CPU there is.",
        see: "`sysctl net.core.busy_poll`.",
        measured: "",
        judge: |seen| {
            Some(seen.one_of("net.core.busy_poll", &[0], Mark::Warn, "workers burn their core while nothing comes"))
        },
    },
    Setting {
        key: "net.core.rmem_max",
        wanted: "no less than `rcvbuf=` and `sndbuf=` of the file",
        line: Line::None,
        since: "",
        why: "`rmem_max` and `wmem_max` bound what a program may ask for with `rcvbuf=` and `sndbuf=`. They do nothing for sockets that \
              the kernel sizes by itself, which are all others; a fixed size switches that off, so these parameters are best left out.",
        when: "Only files with `rcvbuf=` or `sndbuf=`.",
        cost: "None.",
        see: "`ss -ltm`.",
        measured: "",
        judge: fixed_buffers,
    },
];

fn slow_start(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.ipv4.tcp_slow_start_after_idle";
    let finding = seen.one_of(key, &[0], Mark::Warn, "the first large message after a pause starts slowly");
    let bbr = seen.files.sysctl("net.ipv4.tcp_congestion_control").is_some_and(|name| name.starts_with("bbr"));
    if bbr && finding.mark == Mark::Warn {
        return Some(Finding::ok(finding.found, "any").saying("bbr does not look at it"));
    }
    Some(finding)
}

fn keepalive(seen: &Seen<'_>) -> Option<Finding> {
    const MOST_SECS: u64 = 300;
    let asks_for_the_system_s =
        |listener: &Listener| listener.options.keepalive.is_some_and(|times| times.idle.is_none());
    seen.config?.listeners.iter().find(|listener| asks_for_the_system_s(listener))?;
    let key = "net.ipv4.tcp_keepalive_time";
    let words = format!("at most {MOST_SECS} s");
    let Some(found) = seen.files.sysctl_number(key) else { return Some(Finding::unseen(words)) };
    let finding = Finding::ok(format!("{} s", grouped(found)), words);
    if found <= MOST_SECS {
        return Some(finding);
    }
    let says = "`so_keepalive=on` of the file notices nothing for so long, and NAT forgets the connection before";
    let now = format!("sysctl -w {key}=240 net.ipv4.tcp_keepalive_intvl=30 net.ipv4.tcp_keepalive_probes=4");
    Some(finding.marked(Mark::Warn, says).mended(now, "the same three in /etc/sysctl.d/90-longsplice.conf"))
}

/// Cards that have hardware behind them, with fewer queues than there are cores and no RPS.
fn queues(seen: &Seen<'_>) -> Option<Finding> {
    let cpus = online_cpus(seen.files)?;
    let cards: Vec<(String, usize)> = seen
        .files
        .list("sys/class/net")
        .into_iter()
        .filter(|card| seen.files.exists(&format!("sys/class/net/{card}/device")))
        .map(|card| (card.clone(), receive_queues(seen.files, &card).len()))
        .filter(|(_, queues)| *queues > 0)
        .collect();
    let words = format!("{cpus} cores: as many, or RPS");
    if cards.is_empty() {
        return Some(Finding::unseen(words));
    }
    let found = cards.iter().map(|(card, queues)| format!("{card}: {queues}")).collect::<Vec<_>>().join(", ");
    let finding = Finding::ok(found, words);
    let few = cards.iter().find(|(card, queues)| *queues < cpus && !has_rps(seen.files, card));
    let Some((card, queues)) = few else { return Some(finding) };
    let says = format!("{queues} of {cpus} cores do the protocol work for all of {card}'s packets");
    let mask = format!("{:x}", u128::MAX >> (128 - cpus.clamp(1, 128)));
    let now = format!(
        "ethtool -L {card} combined {cpus}  # or: echo {mask} | tee /sys/class/net/{card}/queues/rx-*/rps_cpus"
    );
    Some(finding.marked(Mark::Warn, says).mended(now, "a udev rule or a unit of your own: no sysctl does it"))
}

fn receive_queues(files: &Files, card: &str) -> Vec<String> {
    files.list(&format!("sys/class/net/{card}/queues")).into_iter().filter(|queue| queue.starts_with("rx-")).collect()
}

fn has_rps(files: &Files, card: &str) -> bool {
    let masks = receive_queues(files, card).into_iter();
    let mut masks = masks.filter_map(|queue| files.text(&format!("sys/class/net/{card}/queues/{queue}/rps_cpus")));
    masks.any(|mask| mask.contains(|digit: char| digit != '0' && digit != ','))
}

/// Cores of the host: `0-3,8` in /sys.
fn online_cpus(files: &Files) -> Option<usize> {
    let text = files.text("sys/devices/system/cpu/online")?;
    let ranges = text.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    Some(ranges.map(|(first, last)| (last + 1).saturating_sub(first)).sum()).filter(|cpus| *cpus > 0)
}

fn fixed_buffers(seen: &Seen<'_>) -> Option<Finding> {
    let options = || seen.config.into_iter().flat_map(|config| &config.listeners).map(|listener| &listener.options);
    let receive = options().filter_map(|options| options.rcvbuf).max();
    let send = options().filter_map(|options| options.sndbuf).max();
    let asked = |key: &str, bytes: Option<usize>| {
        let says = |_| "the buffer that the file asks for is cut".to_owned();
        bytes.map(|bytes| seen.at_least(key, bytes as u64, Mark::Warn, says))
    };
    let findings = asked("net.core.rmem_max", receive).into_iter().chain(asked("net.core.wmem_max", send));
    findings.max_by_key(|finding| finding.mark)
}
