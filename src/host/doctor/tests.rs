//! Hosts made of files.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::host::tests::config;

/// A directory of /proc and /sys files.
pub(in crate::host) struct Host {
    files: Files,
    _root: TempDir,
}

impl Host {
    pub(in crate::host) fn with(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        Self { files: Files::below(root.path()), _root: root }
    }

    /// A host as the kernel makes it, with 16 GB and 8 cores; `changed` files replace its own.
    fn stock(changed: &[(&str, &str)]) -> Self {
        let stock = [
            ("proc/self/limits", "Max open files            1024                 524288               files"),
            ("proc/self/cgroup", "0::/system.slice/longsplice.service"),
            ("proc/meminfo", "MemTotal:       16384000 kB\nMemFree:         1000000 kB"),
            ("proc/sys/kernel/osrelease", "6.1.0-13-amd64"),
            ("proc/sys/fs/nr_open", "1048576"),
            ("proc/sys/fs/file-max", "9223372036854775807"),
            ("proc/sys/fs/file-nr", "1000\t0\t9223372036854775807"),
            ("proc/sys/fs/epoll/max_user_watches", "3600000"),
            ("proc/sys/fs/pipe-user-pages-soft", "16384"),
            ("proc/sys/fs/pipe-max-size", "1048576"),
            ("proc/sys/net/core/somaxconn", "4096"),
            ("proc/sys/net/core/busy_poll", "0"),
            ("proc/sys/net/core/netdev_max_backlog", "1000"),
            ("proc/net/softnet_stat", "0000a000 00000000 00000000\n0000b000 00000000 00000000"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", ""),
            ("proc/sys/net/ipv4/tcp_mem", "188000\t250000\t376000"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304"),
            ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295"),
            ("proc/sys/net/ipv4/tcp_max_orphans", "65536"),
            ("proc/sys/net/ipv4/tcp_syncookies", "1"),
            ("proc/sys/net/ipv4/tcp_abort_on_overflow", "0"),
            ("proc/sys/net/ipv4/tcp_migrate_req", "0"),
            ("proc/sys/net/ipv4/tcp_tw_reuse", "2"),
            ("proc/sys/net/ipv4/tcp_timestamps", "1"),
            ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1"),
            ("proc/sys/net/ipv4/tcp_congestion_control", "cubic"),
            ("proc/sys/net/ipv4/tcp_keepalive_time", "7200"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
            ("sys/devices/system/cpu/online", "0-7"),
        ];
        let kept = stock.into_iter().filter(|(path, _)| !changed.iter().any(|(other, _)| other == path));
        Self::with(&kept.chain(changed.iter().copied()).collect::<Vec<_>>())
    }

    pub(in crate::host) fn files(&self) -> &Files {
        &self.files
    }

    fn examine(&self, tunnels: u64) -> Examination {
        examine(&Patient { files: self.files.clone(), config: None, tunnels: Some(tunnels), cpus: 8 })
    }

    fn examine_with(&self, text: &str, tunnels: Option<u64>) -> Examination {
        let config = config(text);
        examine(&Patient { files: self.files.clone(), config: Some((Path::new("x.conf"), &config)), tunnels, cpus: 8 })
    }
}

#[track_caller]
fn finding<'a>(examination: &'a Examination, name: &str) -> &'a Finding {
    let found = examination.findings.iter().find(|(key, _)| key == name);
    &found.unwrap_or_else(|| panic!("{name} is not in {}", examination.text(100, false))).1
}

fn marks(examination: &Examination, mark: Mark) -> Vec<&str> {
    examination.findings.iter().filter(|(_, finding)| finding.mark == mark).map(|(key, _)| key.as_str()).collect()
}

#[test]
fn a_stock_host_carries_ten_thousand() {
    let examination = Host::stock(&[]).examine(10_000);
    assert_eq!(marks(&examination, Mark::Bad), Vec::<&str>::new(), "{}", examination.text(100, false));
    assert!(!examination.bites());
}

#[test]
fn a_stock_host_does_not_carry_a_million() {
    let examination = Host::stock(&[]).examine(1_000_000);
    assert!(examination.bites());
    let bad = marks(&examination, Mark::Bad);
    for key in ["LimitNOFILE", "fs.nr_open", "net.core.somaxconn", "net.ipv4.ip_local_port_range"] {
        assert!(bad.contains(&key), "{key} in {bad:?}");
    }
    assert_eq!(finding(&examination, "fs.nr_open").now, "sysctl -w fs.nr_open=2097152");
    assert_eq!(finding(&examination, "net.core.somaxconn").now, "sysctl -w net.core.somaxconn=16384");
    // 12.1 GB of 16.8: more than three quarters would be.
    assert_eq!(finding(&examination, "memory").mark, Mark::Ok);
    assert_eq!(finding(&examination, "net.ipv4.tcp_max_orphans").mark, Mark::Warn);
}

#[test]
fn the_smallest_limit_of_the_groups_around_counts() {
    for (line, file) in [
        ("0::/system.slice/longsplice.service", "sys/fs/cgroup/system.slice/memory.max"),
        ("4:memory:/docker/abc", "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes"),
        ("0::/elsewhere", "sys/fs/cgroup/memory.max"),
    ] {
        let host = Host::stock(&[("proc/self/cgroup", line), (file, "536870912")]);
        let examination = host.examine(100_000);
        let memory = finding(&examination, "memory");
        assert!(memory.mark == Mark::Bad && memory.found == "537 MB of this cgroup", "{line}: {memory:?}");
        assert!(memory.keep.contains("MemoryMax="), "{memory:?}");
    }
    let unlimited = [
        ("proc/self/cgroup", "4:memory:/"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ("sys/fs/cgroup/memory.max", "max"),
    ];
    assert_eq!(finding(&Host::stock(&unlimited).examine(100_000), "memory").mark, Mark::Ok);
}

#[test]
fn a_bare_container_is_no_error() {
    let examination = Host::with(&[]).examine(10_000);
    assert!(!examination.bites(), "{}", examination.text(100, false));
    assert!(examination.is_blind() && !Host::stock(&[]).examine(1).is_blind());
    assert!(examination.text(80, false).contains("Not visible here: LimitNOFILE"));
    let seen = marks(&examination, Mark::Ok);
    assert_eq!(seen, ["SELinux"], "what cannot be seen is not fine");
    let json = examination.json();
    assert_eq!(json["findings"][0]["mark"], "unseen");
}

#[test]
fn the_number_of_tunnels_is_the_file_s() {
    let host = Host::stock(&[]);
    let examination = host.examine_with(
        "worker_processes 4; events { worker_connections 30000; } http { server { listen 80; return 204; } }",
        None,
    );
    assert_eq!((examination.needs.tunnels, examination.needs.workers), (60_000, 4));
    let rlimit =
        host.examine_with("worker_rlimit_nofile 20064; events {} http { server { listen 80; return 204; } }", None);
    assert_eq!(rlimit.needs.tunnels, 10_000);
    assert_eq!(finding(&rlimit, "LimitNOFILE").now, "worker_rlimit_nofile 32768;");
    let none = host.examine_with("events {} http { server { listen 80; return 204; } }", None);
    assert_eq!((none.needs.tunnels, none.number_from), (DEFAULT_TUNNELS, "the default"));
}

#[test]
fn ports_are_reckoned_for_the_group_with_the_fewest_addresses() {
    let text = "events {} http {
        upstream wide { server 10.0.0.1:1; server 10.0.0.2:1; server 10.0.0.3:1; }
        upstream narrow { server 10.0.0.1:2; server 10.0.0.2:2 down; server 10.0.0.3:2 backup; }
        upstream local { server unix:/run/app.sock; }
        server { listen 80; location / { proxy_pass http://wide; } location /n { proxy_pass http://narrow; }
                 location /l { proxy_pass http://local; } } }";
    let host = Host::stock(&[]);
    let at = |tunnels| finding(&host.examine_with(text, Some(tunnels)), "net.ipv4.ip_local_port_range").clone();
    assert_eq!([14_000, 25_000, 30_000].map(|tunnels| at(tunnels).mark), [Mark::Ok, Mark::Warn, Mark::Bad]);
    assert!(at(30_000).says.contains("\"narrow\", 1 address, 28,232 fit"), "{:?}", at(30_000));
    let bound = text.replace("http://narrow;", "http://narrow; proxy_bind 10.0.0.7 10.0.0.8;");
    let at = |tunnels| finding(&host.examine_with(&bound, Some(tunnels)), "net.ipv4.ip_local_port_range").clone();
    assert_eq!([28_000, 50_000, 60_000].map(|tunnels| at(tunnels).mark), [Mark::Ok, Mark::Warn, Mark::Bad]);
    assert!(
        at(60_000).says.contains("\"narrow\", 1 address from 2 addresses of this host, 56,464 fit"),
        "{:?}",
        at(60_000)
    );
    let only_unix = "events {} http { server { listen 80; location / { proxy_pass http://unix:/run/app.sock; } } }";
    let examination = host.examine_with(only_unix, Some(1_000_000));
    assert!(examination.findings.iter().all(|(key, _)| key != "net.ipv4.ip_local_port_range"));
}

#[test]
fn the_running_process_s_own_limits_count() {
    let running = [
        ("run/longsplice.pid", "4711"),
        ("proc/4711/comm", "longsplice"),
        ("proc/4711/limits", "Max open files            4096                 4096                 files"),
        ("proc/4711/cgroup", "0::/"),
        ("proc/4711/attr/current", "system_u:system_r:httpd_t:s0"),
        ("sys/fs/selinux/enforce", "1"),
        ("sys/fs/selinux/booleans/httpd_can_network_connect", "0 0"),
    ];
    let text = "pid /run/longsplice.pid; events {} http { server { listen 80; return 204; } }";
    let examination = Host::stock(&running).examine_with(text, Some(10_000));
    assert_eq!(examination.pid, Some(4_711));
    let nofile = finding(&examination, "LimitNOFILE");
    assert!(nofile.mark == Mark::Bad && nofile.now == "prlimit --pid 4711 --nofile=32768:32768", "{nofile:?}");
    assert_eq!(finding(&examination, "SELinux").mark, Mark::Bad);
    // The number of a process that has gone may be another's.
    let reused = Host::stock(&[("run/longsplice.pid", "4711"), ("proc/4711/comm", "vim")]);
    assert_eq!(reused.examine_with(text, Some(1)).pid, None);
}

#[test]
fn what_the_file_asks_for_brings_its_settings() {
    let host = Host::stock(&[
        ("proc/sys/net/ipv4/tcp_fastopen", "1"),
        ("proc/sys/net/core/rmem_max", "212992"),
        ("proc/sys/kernel/io_uring_disabled", "2"),
    ]);
    let text = "events { use io_uring; }
        http { server { listen 40000 fastopen=10 rcvbuf=1m backlog=9000; return 204; } }";
    let examination = host.examine_with(text, Some(10));
    assert_eq!(finding(&examination, "net.ipv4.tcp_fastopen").now, "sysctl -w net.ipv4.tcp_fastopen=3");
    assert_eq!(finding(&examination, "net.core.rmem_max").mark, Mark::Warn);
    assert_eq!(finding(&examination, "kernel.io_uring_disabled").mark, Mark::Warn);
    assert_eq!(finding(&examination, "net.core.somaxconn").mark, Mark::Bad);
    let reserved = finding(&examination, "net.ipv4.ip_local_reserved_ports");
    assert!(reserved.mark == Mark::Warn && reserved.now.ends_with("=40000"), "{reserved:?}");
    let asks = host.examine_with("events {} http { server { listen 80 so_keepalive=on; return 204; } }", Some(10));
    assert_eq!(finding(&asks, "net.ipv4.tcp_keepalive_time").mark, Mark::Warn);
    let plain = host.examine_with("events {} http { server { listen 80; return 204; } }", Some(10));
    for key in ["net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fastopen", "net.core.rmem_max", "kernel.io_uring_disabled"]
    {
        assert!(plain.findings.iter().all(|(name, _)| name != key), "{key}");
    }
}

#[test]
fn a_kernel_without_a_part_of_the_sandbox_is_told_of() {
    let seccomp = ("proc/sys/kernel/seccomp/actions_avail", "kill_process errno log allow");
    let of = |more: &[(&str, &str)], main: &str| {
        let text =
            format!("{main} pid /run/longsplice.pid; events {{}} http {{ server {{ listen 80; return 204; }} }}");
        finding(&Host::stock(more).examine_with(&text, Some(10)), "sandbox").clone()
    };
    assert_eq!(of(&[], "").mark, Mark::Unseen);
    assert_eq!(of(&[seccomp, ("sys/kernel/security/lsm", "lockdown,landlock,yama")], "").mark, Mark::Ok);
    let without = of(&[seccomp, ("sys/kernel/security/lsm", "capability,selinux")], "");
    assert!(without.mark == Mark::Warn && without.keep.contains("lsm="), "{without:?}");
    let running = [("run/longsplice.pid", "4711"), ("proc/4711/comm", "longsplice")];
    let unfiltered = [running[0], running[1], ("proc/4711/status", "Name:\tlongsplice\nSeccomp:\t0")];
    assert_eq!(of(&unfiltered, "").found, "not in force");
    assert_eq!(of(&unfiltered, "sandbox off;").mark, Mark::Ok);
}

#[test]
fn tracking_is_judged_where_there_is_any() {
    let at = |most, count| {
        let host = Host::stock(&[
            ("proc/sys/net/netfilter/nf_conntrack_max", most),
            ("proc/sys/net/netfilter/nf_conntrack_count", count),
            ("proc/sys/net/netfilter/nf_conntrack_buckets", "65536"),
            ("proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "600"),
        ]);
        host.examine(100_000)
    };
    let mark = |most, count| finding(&at(most, count), "net.netfilter.nf_conntrack_max").mark;
    assert_eq!([mark("131072", "9"), mark("262144", "9"), mark("524288", "9")], [Mark::Bad, Mark::Warn, Mark::Ok]);
    assert_eq!(mark("131072", "0"), Mark::Warn);
    let established = at("524288", "9");
    let established = finding(&established, "net.netfilter.nf_conntrack_tcp_timeout_established");
    assert!(established.mark == Mark::Warn && established.now.ends_with("=4096"), "{established:?}");
    assert_eq!(finding(&Host::stock(&[]).examine(100_000), "net.netfilter.nf_conntrack_max").mark, Mark::Ok);
}

#[test]
fn cards_with_few_queues_are_named_unless_packets_are_spread() {
    let card = [("sys/class/net/eth0/device/vendor", "0x1af4"), ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00")];
    let name = "queues of the network cards";
    let examination = Host::stock(&card).examine(10);
    let few = finding(&examination, name);
    assert!(few.mark == Mark::Warn && few.now.starts_with("ethtool -L eth0 combined 8  # or: echo ff |"), "{few:?}");
    let spread = [card[0], ("sys/class/net/eth0/queues/rx-0/rps_cpus", "ff")];
    assert_eq!(finding(&Host::stock(&spread).examine(10), name).mark, Mark::Ok);
    assert_eq!(finding(&Host::stock(&[]).examine(10), name).mark, Mark::Unseen);
}

#[test]
fn small_things_that_bite() {
    let host = Host::stock(&[
        ("proc/net/softnet_stat", "0000a000 000000ff 00000000"),
        ("proc/sys/net/core/busy_poll", "50"),
        ("proc/sys/net/ipv4/tcp_timestamps", "0"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096\t8192\t65536"),
        ("proc/sys/fs/pipe-max-size", "65536"),
        ("etc/tuned/active_profile", "network-latency"),
        ("proc/self/cgroup", "0::/x"),
        ("sys/fs/cgroup/x/pids.max", "16"),
    ]);
    let examination = host.examine(10);
    let warn = marks(&examination, Mark::Warn);
    for key in [
        "net.core.netdev_max_backlog",
        "net.core.busy_poll",
        "net.ipv4.tcp_tw_reuse",
        "net.ipv4.tcp_rmem",
        "fs.pipe-max-size",
        "tuned",
    ] {
        assert!(warn.contains(&key), "{key} in {warn:?}");
    }
    assert_eq!(marks(&examination, Mark::Bad), ["pids.max"]);
    assert!(finding(&examination, "net.core.netdev_max_backlog").says.starts_with("255 packets"));
    let bbr = Host::stock(&[("proc/sys/net/ipv4/tcp_congestion_control", "bbr")]);
    assert_eq!(finding(&bbr.examine(10), "net.ipv4.tcp_slow_start_after_idle").mark, Mark::Ok);
}

#[test]
fn the_report_fits_its_width_and_has_its_cures() {
    let examination = Host::stock(&[]).examine(1_000_000);
    for width in [60, 80, 120] {
        let text = examination.text(width, false);
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with("now:") && !line.trim_start().starts_with("keep:"))
        {
            assert!(line.chars().count() <= width, "{} > {width}: {line}", line.len());
        }
        let worst = text.find("\nbad ").unwrap();
        assert!(text.rfind("\nok ").unwrap() < worst, "the worst comes last:\n{text}");
        assert!(text.contains("now:  sysctl -w fs.nr_open=2097152\n"), "{text}");
        assert!(text.contains("keep: fs.nr_open = 2097152 in /etc/sysctl.d/90-longsplice.conf\n"), "{text}");
    }
    assert!(examination.text(80, true).contains("\x1b[1;31mbad \x1b[0m"));
}

#[test]
fn the_json_says_the_same() {
    let examination = Host::stock(&[]).examine(1_000_000);
    let json = examination.json();
    assert_eq!((json["mark"].as_str(), json["needs"]["tunnels"].as_u64()), (Some("bad"), Some(1_000_000)));
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), examination.findings.len());
    for finding in findings {
        for member in ["name", "mark", "found", "wanted", "says", "now", "keep"] {
            assert!(finding[member].is_string(), "{member} of {finding}");
        }
    }
}
