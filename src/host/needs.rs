//! The arithmetic: what so many tunnels take of a host.

use std::net::IpAddr;

use crate::{
    config::{BackendAddress, Bind, Config, Content, ListenAddress, ProxyTarget},
    limits::{DOCTOR_TUNNELS, NOFILE_RESERVE, PIPE_BYTES, PIPES_POOLED, RESOLVERS, SCRATCH_BYTES},
};

/// Bytes of the program an idle tunnel takes, over ws and over wss. Measured: benches/results/idle.md.
const USER_BYTES: [u64; 2] = [180, 2_600];
/// Kernel memory of an idle tunnel's two sockets, bytes: TCP objects, inodes, files, dentries, epoll entries. Measured as what
/// `Slab` grows by on Linux 6.18: 8,404 to 8,524 (benches/results/versus.md).
const KERNEL_BYTES: u64 = 8_600;
/// What the program takes before its first tunnel, bytes: code, TLS library, configuration. Measured: 6.9 MB with two workers.
const PROCESS_BYTES: u64 = 8 << 20;
/// What each worker adds to that, bytes, beside its scratch buffer: stack and allocator.
const WORKER_BYTES: u64 = 1 << 20;
/// Bytes of one entry of the connection tracking table: `nf_conntrack` of /proc/slabinfo, and its two places in the hash table.
const TRACKED_BYTES: u64 = 320;
/// One socket of so many holds bytes that are on their way, at any moment: one page each. For tunnels that push small messages
/// now and then, that is plenty.
const BUSY_SOCKETS: u64 = 10;
/// One client of so many may knock while a worker is busy, when all come back at once.
const STORM_SHARE: u64 = 10;
/// nginx's backlog, and ours.
const DEFAULT_BACKLOG: u64 = 511;
/// The accept queue is counted in 16 bits before Linux 4.1, and no more than this has a use.
const LONGEST_BACKLOG: u64 = 65_535;
/// Bytes of a page on every machine this guide was tried on.
pub const PAGE_BYTES: u64 = 4_096;

/// What is asked of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Tunnels at once: each one connection of a client and one to a backend.
    pub tunnels: u64,
    /// Worker threads.
    pub workers: u64,
    /// Listening sockets of each worker.
    pub listeners: u64,
    /// Some listener is `ssl`.
    pub tls: bool,
    /// The upstream group that the fewest tunnels fit to. None: no backend has ports.
    pub narrowest: Option<Narrowest>,
}

/// A group of backends, as far as its addresses go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Narrowest {
    /// Its name.
    pub name: String,
    /// TCP addresses.
    pub addresses: u64,
    /// Addresses of ours that connections come from (`proxy_bind`); 1 where the kernel takes one.
    pub sources: u64,
}

impl Narrowest {
    /// Pairs of addresses, each with a range of ports of its own.
    pub fn ways(&self) -> u64 {
        self.addresses * self.sources
    }
}

impl Needs {
    /// For a host of which no file is known: one listener, one backend.
    pub fn of_tunnels(tunnels: u64, workers: u64) -> Self {
        let tunnels = tunnels.min(DOCTOR_TUNNELS);
        let one = Narrowest { name: "one backend address".to_owned(), addresses: 1, sources: 1 };
        Self { tunnels, workers, listeners: 1, tls: true, narrowest: Some(one) }
    }

    /// For a file.
    pub fn of_config(tunnels: u64, config: &Config) -> Self {
        let groups = config.upstreams.iter().zip(sources(config)).map(|(group, sources)| {
            let serving = group.servers.iter().filter(|server| !server.down && !server.backup);
            let addresses = serving.filter(|server| !matches!(server.address, BackendAddress::Unix(_))).count();
            Narrowest { name: group.name.to_string(), addresses: addresses as u64, sources: sources.max(1) }
        });
        Self {
            tunnels: tunnels.min(DOCTOR_TUNNELS),
            workers: config.main.workers as u64,
            listeners: config.listeners.len() as u64,
            tls: config.listeners.iter().any(|listener| listener.ssl),
            narrowest: groups.filter(|group| group.addresses > 0).min_by_key(Narrowest::ways),
        }
    }

    /// Descriptors of the process: two a tunnel, the listeners, the idle pipes, and some for itself.
    pub fn descriptors(&self) -> u64 {
        let per_worker = self.listeners + 2 * PIPES_POOLED as u64;
        NOFILE_RESERVE + self.workers * per_worker + self.tunnels * 2
    }

    /// Sockets in epoll instances: the descriptors less the pipes.
    pub fn watches(&self) -> u64 {
        self.tunnels * 2 + self.workers * (self.listeners + 2)
    }

    /// Local ports toward each backend address of the narrowest group, were every tunnel to go there.
    pub fn ports(&self) -> Option<u64> {
        self.narrowest.as_ref().map(|group| self.tunnels.div_ceil(group.ways()))
    }

    /// Bytes of the program itself.
    pub fn user_bytes(&self) -> u64 {
        let workers = self.workers * (WORKER_BYTES + SCRATCH_BYTES as u64);
        PROCESS_BYTES + workers + self.tunnels * USER_BYTES[usize::from(self.tls)]
    }

    /// Bytes of the kernel for sockets at rest.
    pub fn kernel_bytes(&self) -> u64 {
        self.tunnels * KERNEL_BYTES
    }

    /// Bytes of both, with what busy sockets hold.
    pub fn bytes(&self) -> u64 {
        self.user_bytes() + self.kernel_bytes() + self.buffer_pages() * PAGE_BYTES
    }

    /// Pages (of 4 kB) in socket buffers while one socket of ten is busy.
    pub fn buffer_pages(&self) -> u64 {
        self.tunnels * 2 / BUSY_SOCKETS
    }

    /// Entries in a table of tracked connections, both sides of a tunnel.
    pub fn tracked(&self) -> u64 {
        self.tunnels * 2
    }

    /// Bytes of these.
    pub fn tracked_bytes(&self) -> u64 {
        self.tracked() * TRACKED_BYTES
    }

    /// Pages of the pipes that the workers keep for bulk transfers.
    pub fn pipe_pages(&self) -> u64 {
        self.workers * PIPES_POOLED as u64 * (PIPE_BYTES as u64 / PAGE_BYTES)
    }

    /// Threads of the process.
    pub fn threads(&self) -> u64 {
        // The main thread, the log's, and those that look names up.
        self.workers + 2 + RESOLVERS as u64
    }

    /// What may wait in each listening socket when everybody comes back at once.
    pub fn backlog(&self) -> u64 {
        (self.tunnels / STORM_SHARE / self.workers.max(1)).clamp(DEFAULT_BACKLOG, LONGEST_BACKLOG)
    }
}

/// Addresses of ours that connections to each group come from, in the location that has the fewest; 0 where none passes to it.
fn sources(config: &Config) -> Vec<u64> {
    let mut fewest = vec![0; config.upstreams.len()];
    for location in config.servers.iter().flat_map(|server| &server.locations) {
        let Content::Proxy(pass) = &location.content else { continue };
        let ProxyTarget::Upstream(group, _) = pass.target else { continue };
        let sources = match &location.settings.bind {
            Some(Bind::Pool(sources)) => sources.addresses().filter(IpAddr::is_ipv4).count().max(1) as u64,
            Some(Bind::Variable(_)) | None => 1,
        };
        fewest[group] = if fewest[group] == 0 { sources } else { sources.min(fewest[group]) };
    }
    fewest
}

/// How many tunnels so many descriptors hold.
pub fn tunnels_within(descriptors: u64, needs: &Needs) -> u64 {
    descriptors.saturating_sub(needs.descriptors() - needs.tunnels * 2) / 2
}

/// How many tunnels a file lets in: by `worker_connections` and `worker_rlimit_nofile`. None: as many as the host allows.
pub fn tunnels_of(config: &Config) -> Option<u64> {
    let connections =
        config.main.worker_connections.map(|each| (each as u64).saturating_mul(config.main.workers as u64));
    let descriptors = config.main.nofile.map(|nofile| nofile.saturating_sub(NOFILE_RESERVE));
    // Both count both sides of a tunnel.
    connections.into_iter().chain(descriptors).min().map(|both| (both / 2).max(1))
}

/// Ports of a file's TCP listeners.
pub fn listening_ports(config: &Config) -> impl Iterator<Item = u16> {
    config.listeners.iter().filter_map(|listener| match &listener.address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_tunnels_add_up() {
        let needs = Needs { listeners: 2, ..Needs::of_tunnels(10_000, 8) };
        assert_eq!(needs.descriptors(), 20_000 + 64 + 8 * (2 + 64));
        assert_eq!(needs.ports(), Some(10_000));
        assert_eq!(needs.tracked(), 20_000);
        assert_eq!(needs.kernel_bytes(), 86_000_000);
        assert_eq!(needs.backlog(), 511);
        assert_eq!(Needs::of_tunnels(1_000_000, 8).backlog(), 12_500);
        assert_eq!(needs.pipe_pages(), 8 * 32 * 256);
    }

    #[test]
    fn no_number_of_tunnels_is_too_large_to_add() {
        let needs = Needs::of_tunnels(u64::MAX, 1_024);
        assert!(needs.descriptors() > 2 * DOCTOR_TUNNELS && needs.bytes() > needs.kernel_bytes());
        assert_eq!(Needs::of_tunnels(u64::MAX, 1).backlog(), LONGEST_BACKLOG);
    }
}
