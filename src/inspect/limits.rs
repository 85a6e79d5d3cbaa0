//! What this process may have, and how much of it is used.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};

use crate::{
    limits::NOFILE_RESERVE,
    observe::status::{Limits, Ports, Status, Used},
    worker::Worker,
};

/// The limits of a process whose figures are known already.
pub fn of(worker: &Worker, status: &Status) -> Limits {
    let connections = worker.generation().config.main.worker_connections;
    let workers = status.workers.len() as u64;
    Limits {
        descriptors: descriptors(status),
        ports: ports(status, worker.generation().board.local_ports()),
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

/// The kernel needs another local port for each connection to one address; those to different addresses share them.
fn ports(status: &Status, max: u64) -> Ports {
    let mut by_address = std::collections::HashMap::new();
    for server in status.upstreams.iter().flat_map(|group| &group.servers) {
        if !server.address.starts_with("unix:") {
            *by_address.entry(server.address.as_str()).or_insert(0) += server.tunnels_open;
        }
    }
    let busiest = by_address.into_iter().filter(|(_, used)| *used > 0).max_by_key(|(address, used)| (*used, *address));
    Ports { used: busiest.map_or(0, |(_, used)| used), max, busiest: busiest.map(|(address, _)| address.to_owned()) }
}
