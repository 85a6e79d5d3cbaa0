//! Local ports of connections to backends.

use super::{Finding, Line, Mark, Seen, Setting, grouped};
use crate::host::{files::numbers, needs};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "net.ipv4.ip_local_port_range",
        wanted: "tunnels divided by backend addresses, with a fifth to spare",
        line: Line::Set(
            "Local ports for connections to backends: 28,232 per backend address by default, 55,296 with this.",
            &[("net.ipv4.ip_local_port_range", "10240 65535")],
        ),
        since: "",
        why: "A connection to a backend needs a local port that no other connection *to the same address and port* has. The default \
              range has 28,232. So one backend address carries 28,232 tunnels, whatever else is tuned; past that `connect()` fails \
              with `Cannot assign requested address` and clients get 502. Unix sockets need none.",
        when: "More than about 25,000 tunnels to one `server` of an upstream. The better cure is more backend addresses: several ports \
               (`server 10.0.0.5:3000; server 10.0.0.5:3001;`), several hosts, or `unix:` on this host. A pool of source addresses \
               (`proxy_bind`) is not supported yet.",
        cost: "Services that listen in the range may find their port taken: see below. A range that is nearly used up costs CPU at each \
               `connect()`, since the kernel looks for a free port one by one.",
        see: "`ss -tn dst 10.0.0.5:3000 | wc -l`; `sysctl net.ipv4.ip_local_port_range`.",
        measured: "",
        judge: range,
    },
    Setting {
        key: "net.ipv4.ip_local_reserved_ports",
        wanted: "every port above the range's start on which something listens",
        line: Line::Offered(
            "services that listen above 10240, longsplice's own ports among them",
            &[("net.ipv4.ip_local_reserved_ports", "11211,27017")],
        ),
        since: "",
        why: "An outgoing connection may take a port on which nothing listens just now: a service that restarts then fails with \
              `Address already in use`.",
        when: "Any `listen` in the range of local ports.",
        cost: "One port less for each.",
        see: "`sysctl net.ipv4.ip_local_reserved_ports`.",
        measured: "",
        judge: reserved,
    },
    Setting {
        key: "net.ipv4.tcp_tw_reuse",
        wanted: "1 or 2",
        line: Line::Offered("many short connections to few backends", &[("net.ipv4.tcp_tw_reuse", "1")]),
        since: "",
        why: "Whoever closes a connection first keeps its port for 60 s (TIME-WAIT). With 1 a new outgoing connection may take such a \
              port after one second, with 2 (the default since 4.19) on loopback only; both sides need `net.ipv4.tcp_timestamps`, and \
              they are what makes it safe.",
        when: "Many short connections that longsplice closes first. Tunnels live long, and where backends close first the TIME-WAIT \
               is theirs.",
        cost: "None for outgoing connections; incoming ones are not touched.",
        see: "`ss -s`: timewait; `nstat -az TcpExtTWRecycled`.",
        measured: "",
        judge: reuse,
    },
];

fn range(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.ipv4.ip_local_port_range";
    let (name, addresses) = seen.needs.narrowest.as_ref()?;
    let needed = seen.needs.ports()?;
    let words = format!("{} ports", grouped(needed));
    let found = seen.files.sysctl_numbers(key).filter(|range| range.len() == 2);
    let Some(range) = found else { return Some(Finding::unseen(words)) };
    let ports = (range[1] + 1).saturating_sub(range[0]);
    let finding = Finding::ok(format!("{} to {}: {} ports", range[0], range[1], grouped(ports)), words);
    let group = format!("\"{name}\", {addresses} {}", if *addresses == 1 { "address" } else { "addresses" });
    // The largest range the guide would have.
    let widened = Finding::set(finding.clone(), key, "10240 65535");
    if needed > ports {
        let most = grouped(ports * addresses);
        let says = format!("if all tunnels go to {group}, {most} fit, then clients get 502: add backend addresses");
        return Some(widened.marked(Mark::Bad, says));
    }
    if needed * 5 > ports * 4 {
        return Some(
            widened.marked(
                Mark::Warn,
                format!("{group}: more than four fifths of the ports in use makes connecting slow"),
            ),
        );
    }
    Some(finding)
}

fn reserved(seen: &Seen<'_>) -> Option<Finding> {
    let range = seen.files.sysctl_numbers("net.ipv4.ip_local_port_range").filter(|range| range.len() == 2)?;
    let reserved = seen.files.sysctl("net.ipv4.ip_local_reserved_ports")?;
    let open: Vec<u16> = needs::listening_ports(seen.config?)
        .filter(|port| (range[0]..=range[1]).contains(&u64::from(*port)) && !is_reserved(&reserved, *port))
        .collect();
    let shown = if reserved.is_empty() { "none" } else { &reserved };
    let finding = Finding::ok(shown, "the file's own ports, where the range has them");
    if open.is_empty() {
        return Some(finding);
    }
    let ports = open.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let all = if reserved.is_empty() { ports.clone() } else { format!("{reserved},{ports}") };
    let says = format!("an outgoing connection may take {ports} while longsplice is down, and it cannot start again");
    Some(finding.marked(Mark::Warn, says).set("net.ipv4.ip_local_reserved_ports", all))
}

/// True when a list as the kernel writes it (`8080,9000-9010`) has this port.
fn is_reserved(list: &str, port: u16) -> bool {
    list.split(',').any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.trim().parse::<u16>(), last.trim().parse()), (Ok(first), Ok(last)) if (first..=last).contains(&port))
    })
}

fn reuse(seen: &Seen<'_>) -> Option<Finding> {
    let says = "ports of connections that longsplice closed first rest for 60 s";
    let finding = seen.one_of("net.ipv4.tcp_tw_reuse", &[1, 2], Mark::Warn, says);
    let stamps = seen.files.sysctl("net.ipv4.tcp_timestamps").and_then(|text| numbers::<u64>(&text).next());
    if finding.mark == Mark::Ok && stamps == Some(0) {
        let says = "without timestamps no port in TIME-WAIT is taken again";
        return Some(finding.marked(Mark::Warn, says).set("net.ipv4.tcp_timestamps", 1));
    }
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::is_reserved;

    #[test]
    fn reserved_ports_are_read_as_the_kernel_writes_them() {
        assert!(is_reserved("8080,9000-9010", 9_005) && is_reserved("8080", 8_080));
        assert!(!is_reserved("", 80) && !is_reserved("8080,9000-9010", 9_011));
    }
}
