//! Connection tracking: firewalld, nftables with `ct state`, Docker, Kubernetes' kube-proxy.

use super::{Finding, Line, Mark, Seen, Setting, grouped};
use crate::host::finding::bytes;

/// Seconds a tunnel may be silent where no file says otherwise: `websocket_timeout`.
const TUNNEL_TIMEOUT_SECS: u64 = 3_600;

pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "net.netfilter.nf_conntrack_max",
        wanted: "four for each tunnel, where connections are tracked",
        line: Line::Offered(
            "for hosts that track connections (the leading `-` lets hosts without the module ignore the line)",
            &[("-net.netfilter.nf_conntrack_max", "524288")],
        ),
        since: "",
        why: "A tunnel takes two entries, one for each side, loopback included; those that closed stay for up to two minutes. A full \
              table drops packets of new connections.",
        when: "firewalld, nftables or iptables with `ct state`, Docker, kube-proxy. Better than a larger table is not to track these \
               ports at all: `notrack` in nftables' raw priority.",
        cost: "320 bytes of kernel memory an entry.",
        see: "`sysctl net.netfilter.nf_conntrack_count`; \"table full\" in dmesg.",
        measured: "",
        judge: table,
    },
    Setting {
        key: "net.netfilter.nf_conntrack_buckets",
        wanted: "no less than an eighth of nf_conntrack_max",
        line: Line::None,
        since: "",
        why: "The hash table of the entries. When only the maximum is raised its chains become long, and every packet looks along one.",
        when: "After nf_conntrack_max was raised.",
        cost: "8 bytes each.",
        see: "`sysctl net.netfilter.nf_conntrack_buckets`.",
        measured: "",
        judge: buckets,
    },
    Setting {
        key: "net.netfilter.nf_conntrack_tcp_timeout_established",
        wanted: "longer than a tunnel may be silent",
        line: Line::None,
        since: "",
        why: "An entry whose connection was silent for so long is forgotten, and a firewall that drops what it does not know then drops \
              the tunnel's next packet: both ends believe in a connection that is none. The default is five days.",
        when: "Where it was lowered to save entries; NAT and cloud firewalls do the same after four to six minutes, which is what pings \
               and keepalive are for.",
        cost: "Entries of peers that vanished stay as long.",
        see: "`conntrack -L -p tcp --dport 443 | head`: the third column is the time left.",
        measured: "",
        judge: established,
    },
];

fn table(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.netfilter.nf_conntrack_max";
    let (tracked, wanted) = (seen.needs.tracked(), seen.needs.tracked() * 2);
    let words = format!("at least {}", grouped(wanted));
    let Some(most) = seen.files.sysctl_number(key) else {
        let is_visible = seen.files.exists("proc/sys/net");
        return Some(if is_visible { Finding::ok("nothing is tracked", "any") } else { Finding::unseen(words) });
    };
    let count = seen.files.sysctl_number("net.netfilter.nf_conntrack_count");
    let found = count.map_or(grouped(most), |count| format!("{}, {} in use", grouped(most), grouped(count)));
    let finding = Finding::ok(found, words);
    if most >= wanted {
        return Some(finding);
    }
    let value = wanted.next_power_of_two();
    let finding = finding.set(key, value);
    // The module is there and sees nothing: no rule asks for it here.
    if count == Some(0) {
        return Some(
            finding.marked(Mark::Warn, "nothing is tracked now; a firewall rule with `ct state` would change that"),
        );
    }
    let mark = if most < tracked { Mark::Bad } else { Mark::Warn };
    let says = format!(
        "past it packets of new connections are dropped; {} for the entries",
        bytes(seen.needs.tracked_bytes())
    );
    Some(finding.marked(mark, says))
}

fn buckets(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.netfilter.nf_conntrack_buckets";
    let most = seen.files.sysctl_number("net.netfilter.nf_conntrack_max")?;
    Some(seen.at_least(key, most / 8, Mark::Warn, |_| {
        "every packet looks along a chain of eight entries and more".to_owned()
    }))
}

fn established(seen: &Seen<'_>) -> Option<Finding> {
    let key = "net.netfilter.nf_conntrack_tcp_timeout_established";
    seen.files.sysctl_number(key)?;
    let longest = seen.config.map_or(Some(TUNNEL_TIMEOUT_SECS), |config| {
        let settings = config.servers.iter().flat_map(|server| &server.locations).map(|location| &location.settings);
        settings.map(|settings| settings.tunnel_timeout.as_secs()).filter(|timeout| *timeout > 0).max()
    });
    let wanted = longest.unwrap_or(TUNNEL_TIMEOUT_SECS);
    Some(seen.at_least(key, wanted, Mark::Warn, |found| {
        format!("a firewall forgets tunnels that are silent for {} s, and drops what comes then", grouped(found))
    }))
}
