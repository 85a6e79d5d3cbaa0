//! Server blocks and backends, as far as there is room for them.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use crate::{
    generation::Generation,
    limits::STATUS_ROWS,
    observe::{
        status::{Server, Upstream, UpstreamServer, Zone},
        tally::{PeerTally, server_name},
    },
    upstream::{Group, Seen},
    zone::{Limited, Tally},
};

/// The server blocks; those of one name together, where the first stands.
pub fn servers(generation: &Generation) -> Vec<Server> {
    let mut seen = HashSet::new();
    let rows = generation.config.servers.iter().enumerate().filter_map(|(index, server)| {
        let tally = generation.tallies.server(index)?;
        seen.insert(Arc::as_ptr(tally)).then(|| Server {
            name: server_name(&generation.config, index),
            place: server.place.to_string(),
            tunnels_open: tally.tunnels.now(),
            tunnels: tally.tunnels.opened(),
            requests: tally.requests.load(Relaxed),
        })
    });
    rows.take(STATUS_ROWS).collect()
}

/// The groups of backends.
pub fn upstreams(generation: &Generation, now: Instant) -> Vec<Upstream> {
    let mut room = STATUS_ROWS;
    let groups = generation.config.upstreams.iter().zip(&generation.upstreams.groups).enumerate();
    groups
        .map(|(index, (upstream, group))| {
            let servers: Vec<_> = group_servers(generation, index, group, now).take(room).collect();
            room -= servers.len();
            Upstream { name: upstream.name.to_string(), servers }
        })
        .take_while(|upstream| !upstream.servers.is_empty())
        .collect()
}

/// The zones of `limit_conn` and `limit_req`.
pub fn zones(generation: &Generation) -> Vec<Zone> {
    let connections = generation.zones.connections.iter().map(|zone| Zone {
        connections: Some(zone.places()),
        ..zone_row(&zone.identity.name, zone.keys(), zone.most_keys, &zone.tally)
    });
    let requests = generation.zones.requests.iter();
    let requests = requests.map(|zone| zone_row(&zone.identity.name, zone.keys(), zone.most_keys, &zone.tally));
    connections.chain(requests).take(STATUS_ROWS).collect()
}

fn zone_row(name: &str, keys: usize, most_keys: usize, tally: &Tally) -> Zone {
    Zone {
        name: name.to_owned(),
        keys: keys as u64,
        keys_max: most_keys as u64,
        connections: None,
        passed: tally.count(Limited::Passed),
        rejected: tally.count(Limited::Rejected),
        delayed: tally.count(Limited::Delayed),
        rejected_dry_run: tally.count(Limited::RejectedDryRun),
        delayed_dry_run: tally.count(Limited::DelayedDryRun),
    }
}

fn group_servers(
    generation: &Generation,
    index: usize,
    group: &Group,
    now: Instant,
) -> impl Iterator<Item = UpstreamServer> {
    group.seen(now).into_iter().enumerate().filter_map(move |(peer, seen)| {
        let number = generation.tallies.number(index, peer)?;
        Some(row(seen, generation.tallies.peer(number)?))
    })
}

fn row(seen: Seen, tally: &PeerTally) -> UpstreamServer {
    let average_us = tally.connect_average_us.load(Relaxed);
    UpstreamServer {
        name: seen.name.into(),
        address: seen.address.to_string(),
        state: seen.state,
        backup: seen.backup,
        weight: seen.weight,
        connections: u64::from(seen.conns),
        max_conns: u64::from(seen.max_conns),
        tunnels_open: tally.tunnels.now(),
        tunnels: tally.tunnels.opened(),
        requests: tally.requests.load(Relaxed),
        fails: tally.fails.load(Relaxed),
        connect_errors: tally.connect_errors.load(Relaxed),
        connect_ms: (average_us > 0).then(|| average_us as f64 / 1e3),
        connects: tally.connects.load(Relaxed),
        connect_s: tally.connect_us.load(Relaxed) as f64 / 1e6,
    }
}
