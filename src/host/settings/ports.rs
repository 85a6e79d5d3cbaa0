//! Local ports of connections to backends.

use super::{Finding, Line, Mark, Seen, Setting, grouped};
use crate::{
    config::{BackendAddress, Config},
    host::needs::{self, Narrowest},
    upstream::ports::Range,
};

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "net.ipv4.ip_local_port_range",
        wanted: "twice the tunnels divided by the backend addresses",
        line: Line::Set(
            "Local ports for connections to backends: 28,232 per backend address by default, 55,296 with this.",
            &[("net.ipv4.ip_local_port_range", "10240 65535")],
        ),
        since: "",
        why: "A connection to a backend needs a local port that no other connection *to the same address and port* has. The default \
              range has 28,232. So one backend address carries 28,232 tunnels, whatever else is tuned; past that `connect()` fails \
              with `Cannot assign requested address` and clients get 502. Unix sockets need none.",
        when: "More than about 25,000 tunnels to one `server` of an upstream. The better cure is more backend addresses: several ports \
               (`server 10.0.0.5:3000; server 10.0.0.5:3001;`), several hosts, or `unix:` on this host; or more addresses of this host: \
               each of `proxy_bind 10.0.0.1 10.0.0.2;` has the whole range.",
        cost: "Services that listen in the range may find their port taken: see below. `connect()` takes ports of one parity first; once \
               half of the range is in use toward an address it looks through all of them each time.",
        see: "The status page, `longsplice_upstream_ports_used` and `_max`, and a warning in the error log at 80 %; `ss -tn dst 10.0.0.5:3000 | \
              wc -l`; `sysctl net.ipv4.ip_local_port_range`.",
        measured: "`connect()` to one address on loopback, a range of 16,000: 7 µs (median) in the first half, 207 to 344 µs in the \
              second; a range of 8,000, twice: 7 to 12 µs and 85 to 162 µs. So past half of the range a core opens some 3,000 \
              tunnels a second instead of 20,000.",
        judge: range,
    },
    Setting {
        key: "net.ipv4.ip_local_reserved_ports",
        wanted: "every port above the range's start on which something listens",
        line: Line::Offered(
            "for services that listen above 10240, longsplice's own ports among them",
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
        wanted: "1",
        line: Line::Set(
            "Plain requests: a port whose connection to a backend was closed here is taken again after a second, not after sixty.",
            &[("net.ipv4.tcp_tw_reuse", "1")],
        ),
        since: "",
        why: "Whoever closes a connection first keeps its port for 60 s (TIME-WAIT). After a plain request over a connection that is not \
              kept that is mostly longsplice: 28,232 ports are then 470 requests a second to one backend address, whatever the CPU could \
              do. With 1 a new outgoing connection may take such a port after one second; with 2 (the default since 4.19) on loopback \
              only. Both sides need `net.ipv4.tcp_timestamps`, which are what makes it safe.",
        when: "Plain HTTP beside the tunnels, backends on other hosts, an `upstream` without `keepalive`. Tunnels live long and do not \
               notice.",
        cost: "None for outgoing connections; incoming ones are not touched.",
        see: "`ss -s`: timewait; `nstat -az TcpExtTWRecycled`.",
        measured: "plain requests as fast as they went for 4 s, a range of 1,000 ports, loopback: with 0, 8 % were answered and the \
              rest got 502 for want of a port; with 1 and with 2, 56 % (one run each; a range of 1,000 allows 1,000 a second).",
        judge: reuse,
    },
];

/// Ports of the guide's range, 10240 to 65535.
const GUIDE_PORTS: u64 = 55_296;

fn range(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.ipv4.ip_local_port_range";
    let narrowest = seen.needs.narrowest.as_ref()?;
    let Narrowest { name, addresses, .. } = narrowest;
    let needed = seen.needs.ports()?;
    let words = format!("{} ports", grouped(needed));
    let Some(range) = local_ports(seen) else { return Some(Finding::unseen(words)) };
    let ports = u64::from(range.len());
    let (first, last) = range.ends();
    let finding = Finding::ok(format!("{first} to {last}: {} ports", grouped(ports)), words);
    let counted = |count: u64| format!("{count} {}", if count == 1 { "address" } else { "addresses" });
    let from = match narrowest.sources {
        1 => String::new(),
        sources => format!(" from {} of this host", counted(sources)),
    };
    let group = format!("\"{name}\", {}{from}", counted(*addresses));
    // A range that is wider already is not made narrower.
    let widened = match ports {
        ..GUIDE_PORTS => Finding::set(finding.clone(), key, "10240 65535"),
        _ => finding.clone().mended("", "add addresses to the upstream: other ports, other hosts, or a unix socket"),
    };
    if needed > ports {
        let most = grouped(ports * narrowest.ways());
        let says = format!("if all tunnels go to {group}, {most} fit, then clients get 502: add backend addresses");
        return Some(widened.marked(Mark::Bad, says));
    }
    if needed * 2 > ports {
        let says =
            format!("if all tunnels go to {group}: past half of the range each connect() costs 30 times the CPU");
        return Some(widened.marked(Mark::Warn, says));
    }
    Some(finding)
}

fn reserved(seen: &Seen<'_>) -> Option<Finding> {
    let range = local_ports(seen)?;
    let reserved = seen.files.sysctl("net.ipv4.ip_local_reserved_ports")?;
    let open: Vec<u16> =
        needs::listening_ports(seen.config?).filter(|port| range.spans(*port) && !range.reserves(*port)).collect();
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

fn local_ports(seen: &Seen<'_>) -> Option<Range> {
    let reserved = seen.files.sysctl("net.ipv4.ip_local_reserved_ports").unwrap_or_default();
    Range::parse(&seen.files.sysctl("net.ipv4.ip_local_port_range")?, &reserved)
}

fn reuse(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.ipv4.tcp_tw_reuse";
    let Some(found) = seen.files.sysctl_number(key) else { return Some(Finding::unseen("1")) };
    let finding = Finding::ok(found.to_string(), "1");
    if seen.files.sysctl_number("net.ipv4.tcp_timestamps") == Some(0) {
        let says = "without timestamps no port in TIME-WAIT is taken again";
        return Some(finding.marked(Mark::Warn, says).set("net.ipv4.tcp_timestamps", 1));
    }
    match found {
        1 => Some(finding),
        2 if seen.config.is_some_and(all_on_this_host) => Some(finding.saying("all backends are on this host")),
        _ => {
            let says = "plain requests run out of ports at some 470 a second for each backend address";
            Some(finding.marked(Mark::Warn, says).set(key, 1))
        }
    }
}

/// True when every backend is reached over loopback or a unix socket.
fn all_on_this_host(config: &Config) -> bool {
    config.upstreams.iter().flat_map(|group| &group.servers).all(|server| match &server.address {
        BackendAddress::Ip(address) => address.ip().is_loopback(),
        BackendAddress::Name(name, _) => &**name == "localhost",
        BackendAddress::Unix(_) => true,
    })
}
