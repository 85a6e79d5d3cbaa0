//! What this process may have, and how much of it is used.

use std::{fs, net::IpAddr};

use nix::sys::resource::{Resource, getrlimit};

use crate::{
    limits::{NOFILE_RESERVE, STATUS_ROWS},
    observe::status::{Limits, PortPair, Ports, Status, Used},
    upstream::{self, ports::PortsSeen},
    worker::Worker,
};

/// The limits of a process whose figures are known already.
pub fn of(worker: &Worker, status: &Status) -> Limits {
    let generation = worker.generation();
    let connections = generation.config.main.worker_connections;
    let workers = status.workers.len() as u64;
    Limits {
        descriptors: descriptors(status),
        ports: ports(&generation.upstreams.open.ports),
        worker_connections: connections
            .map(|each| Used { used: 2 * status.connections.open, max: (each as u64).saturating_mul(workers) }),
    }
}

fn descriptors(status: &Status) -> Used {
    // Since Linux 6.2 the size of this directory is the number of its entries; to count them would take milliseconds where there
    // are many. Before, it is 0.
    let counted = fs::metadata("/proc/self/fd").map_or(0, |fd| fd.len());
    let pipes: u64 = status.workers.iter().map(|worker| worker.pipes).sum();
    let about = NOFILE_RESERVE + 2 * (status.connections.open + pipes);
    let used = if counted > 0 { counted } else { about };
    Used { used, max: getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft) }
}

/// The kernel needs another local port for each connection from one address to one other; those between others share them.
fn ports(ports: &upstream::ports::Ports) -> Ports {
    let seen = ports.seen();
    let first = seen.first();
    let text = |source: Option<IpAddr>| source.map(|source| source.to_string());
    let pair = |pair: &PortsSeen| PortPair {
        source: text(pair.source),
        address: pair.backend.to_string(),
        used: pair.used.into(),
        max: pair.max.into(),
    };
    Ports {
        used: first.map_or(0, |pair| pair.used.into()),
        max: ports.look().into(),
        busiest: first.map(|pair| pair.backend.to_string()),
        source: first.and_then(|pair| text(pair.source)),
        pairs: seen.iter().take(STATUS_ROWS).map(pair).collect(),
    }
}
