//! A host of its own, somewhere else.

use std::{net::SocketAddr, process::Command, thread};

use nix::sched::{CloneFlags, setns};

use super::{external::external, process::finish};

/// A network namespace with a cable to us, whose packets can be made to vanish.
pub struct Elsewhere {
    name: String,
    /// Our end of the cable.
    pub ours: String,
    /// Its end.
    pub theirs: String,
}

impl Elsewhere {
    /// None where namespaces cannot be made. `number` is the caller's own.
    pub fn new(number: u8) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || external("ip").is_none() {
            eprintln!("skipped: needs root and ip(8)");
            return None;
        }
        let pid = std::process::id();
        let name = format!("ls-{pid}-{number}");
        let near = format!("ls{number}n{}", pid % 1_000_000);
        // A network of four addresses, of which others that test on this machine at the same time have another.
        let network = (pid.wrapping_mul(61) + u32::from(number)) % (1 << 14);
        let [third, fourth] = [network >> 6, (network & 63) * 4];
        let (ours, theirs) = (format!("10.213.{third}.{}", fourth + 1), format!("10.213.{third}.{}", fourth + 2));
        let elsewhere = Self { name: name.clone(), ours: ours.clone(), theirs: theirs.clone() };
        for line in [
            format!("netns add {name}"),
            format!("link add {near} type veth peer name eth0 netns {name}"),
            format!("addr add {ours}/30 dev {near}"),
            format!("link set {near} up"),
            format!("-n {name} addr add {theirs}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
        ] {
            if !ip(&line) {
                eprintln!("skipped: ip {line}");
                return None;
            }
        }
        Some(elsewhere)
    }

    /// A port of its end.
    pub fn there(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.theirs.parse().expect("an address"), port)
    }

    /// A port of our end.
    pub fn here(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ours.parse().expect("an address"), port)
    }

    /// Runs something there.
    pub fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
                action()
            });
            thread.join().expect("no panic there")
        })
    }

    /// Waits until all that was sent there has come to an acknowledgement.
    pub fn is_settled(&self) {
        let there: std::net::Ipv4Addr = self.theirs.parse().expect("an address");
        let there = format!("{:08X}", u32::from_ne_bytes(there.octets()));
        // sl local_address rem_address st tx_queue:rx_queue
        let unacknowledged = |line: &str| {
            let mut columns = line.split_ascii_whitespace().skip(2);
            let remote = columns.next().unwrap_or_default();
            remote.starts_with(&there) && !columns.nth(1).unwrap_or_default().starts_with("00000000")
        };
        let table = || std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        assert!(super::eventually(|| !table().lines().any(unacknowledged)), "{}", table());
    }

    /// From now on nothing comes back from there.
    pub fn vanish(&self) {
        assert!(ip(&format!("-n {} route add blackhole {}/32", self.name, self.ours)));
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // Takes the cable along.
        ip(&format!("netns del {}", self.name));
    }
}

fn ip(line: &str) -> bool {
    finish(Command::new("ip").args(line.split(' '))).status.success()
}
