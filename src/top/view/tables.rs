//! The tables: which there are, their columns, and what they are sorted by at first.

use std::collections::BTreeMap;

use crate::{
    host::finding::grouped,
    observe::status::{Tunnel, UpstreamServer, UpstreamState},
    top::{
        history::History,
        lines::{Cell, Style, Table, figure, name, nearness},
        units::{bytes, count, millis, none, percent, rate, span, speed},
    },
};

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::top) enum Kind {
    Upstreams,
    Workers,
    Busiest,
    Longest,
    Closes,
    Refusals,
    Servers,
    Configurations,
}

impl Kind {
    /// In the order of their keys, from `1`.
    pub const ALL: [Kind; 8] = [
        Kind::Upstreams,
        Kind::Workers,
        Kind::Busiest,
        Kind::Longest,
        Kind::Closes,
        Kind::Refusals,
        Kind::Servers,
        Kind::Configurations,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Kind::Upstreams => "Upstreams",
            Kind::Workers => "Workers",
            Kind::Busiest => "Busiest tunnels",
            Kind::Longest => "Longest tunnels",
            Kind::Closes => "Tunnels closed",
            Kind::Refusals => "Refused",
            Kind::Servers => "Servers",
            Kind::Configurations => "Configurations",
        }
    }

    /// Its title where eight of them share 80 columns.
    pub fn short(self) -> &'static str {
        match self {
            Kind::Upstreams => "Upstreams",
            Kind::Workers => "Workers",
            Kind::Busiest => "Busiest",
            Kind::Longest => "Longest",
            Kind::Closes => "Closed",
            Kind::Refusals => "Refused",
            Kind::Servers => "Servers",
            Kind::Configurations => "Conf.",
        }
    }

    /// The rows as the server orders them.
    pub fn table(self, history: &History) -> Table {
        match self {
            Kind::Upstreams => upstreams(history),
            Kind::Workers => workers(history),
            Kind::Busiest => tunnels(history, &history.now.busiest),
            Kind::Longest => tunnels(history, &history.now.longest),
            Kind::Closes => reasons(&history.now.closes),
            Kind::Refusals => reasons(&history.now.refusals),
            Kind::Servers => servers(history),
            Kind::Configurations => configurations(history),
        }
    }
}

fn counted(value: u64) -> Cell {
    Cell::figure(value as f64, count(value as f64))
}

fn exact(value: u64) -> Cell {
    Cell::figure(value as f64, grouped(value))
}

fn in_bytes(value: u64) -> Cell {
    Cell::figure(value as f64, bytes(value as f64))
}

fn lasting(seconds: f64) -> Cell {
    Cell::figure(seconds, span(seconds))
}

/// A figure that may not be known yet.
fn maybe(value: Option<f64>, words: fn(Option<f64>) -> String) -> Cell {
    Cell::figure(value.unwrap_or(-1.0), words(value))
}

fn upstreams(history: &History) -> Table {
    let columns = vec![
        name("Upstream"),
        name("Server"),
        name("State"),
        figure("Open"),
        figure("Tunnels"),
        figure("Fails"),
        figure("Connect"),
        figure("Weight"),
        figure("Requests"),
    ];
    let servers = history.now.upstreams.iter().flat_map(|upstream| {
        upstream.servers.iter().map(|server| {
            let (state, mood) = state(server.state);
            vec![
                Cell::name(&upstream.name),
                Cell::name(&both_names(server)),
                Cell::name(state).styled(mood),
                exact(server.tunnels_open),
                counted(server.tunnels),
                counted(server.fails),
                maybe(server.connect_ms, millis),
                weight(server),
                counted(server.requests),
            ]
        })
    });
    Table { columns, rows: servers.collect() }
}

/// Its name, and what it was found to be.
fn both_names(server: &UpstreamServer) -> String {
    if server.address.is_empty() || server.address == server.name {
        return server.name.clone();
    }
    format!("{} ({})", server.name, server.address)
}

fn weight(server: &UpstreamServer) -> Cell {
    match server.backup {
        true => Cell::figure(0.0, "backup".to_owned()),
        false => exact(server.weight),
    }
}

fn state(state: UpstreamState) -> (&'static str, Style) {
    match state {
        UpstreamState::Up => ("up", Style::Good),
        UpstreamState::Down => ("down", Style::Warn),
        UpstreamState::Drain => ("drain", Style::Warn),
        UpstreamState::Failed => ("failed", Style::Bad),
    }
}

fn workers(history: &History) -> Table {
    let columns = vec![
        figure("Worker"),
        figure("CPU"),
        figure("Tunnels"),
        figure("Connections"),
        figure("Messages"),
        figure("Traffic"),
        figure("Busy"),
        figure("Handed"),
        figure("Taken"),
    ];
    let rates = history.workers();
    let rows = history.now.workers.iter().map(|worker| {
        let (messages, traffic) = rates.get(&worker.id).copied().unwrap_or_default();
        let cpu = worker.cpu.map_or_else(none, |cpu| cpu.to_string());
        vec![
            exact(worker.id as u64),
            Cell::figure(worker.cpu.unwrap_or_default() as f64, cpu),
            exact(worker.tunnels),
            exact(worker.connections),
            maybe(messages, rate),
            maybe(traffic, speed),
            Cell::figure(worker.busy, percent(worker.busy)).styled(nearness(worker.busy)),
            counted(worker.handed_over),
            counted(worker.taken_over),
        ]
    });
    Table { columns, rows: rows.collect() }
}

fn tunnels(history: &History, tunnels: &[Tunnel]) -> Table {
    let columns = vec![
        figure("Tunnel"),
        name("Client"),
        name("Upstream"),
        figure("Age"),
        figure("Idle"),
        figure("In"),
        figure("Out"),
        figure("Now"),
        name("Server, location"),
        figure("Messages"),
        figure("Worker"),
        figure("Conf."),
    ];
    let speeds = history.tunnels();
    let rows = tunnels.iter().map(|tunnel| {
        let messages = tunnel.frames_from_client.saturating_add(tunnel.frames_from_upstream);
        vec![
            Cell::figure(tunnel.id as f64, tunnel.id.to_string()),
            Cell::name(&tunnel.client),
            Cell::name(&tunnel.upstream),
            lasting(tunnel.age_s),
            lasting(tunnel.idle_s),
            in_bytes(tunnel.bytes_from_client),
            in_bytes(tunnel.bytes_from_upstream),
            maybe(speeds.get(&tunnel.id).copied(), speed),
            Cell::name(&format!("{} {}", tunnel.server, tunnel.location)),
            counted(messages),
            exact(tunnel.worker as u64),
            exact(tunnel.generation),
        ]
    });
    Table { columns, rows: rows.collect() }
}

fn reasons(counts: &BTreeMap<String, u64>) -> Table {
    let rows =
        counts.iter().filter(|(_, count)| **count > 0).map(|(reason, count)| vec![Cell::name(reason), exact(*count)]);
    let mut table = Table { columns: vec![name("Reason"), figure("Count")], rows: rows.collect() };
    table.sort(1, false);
    table
}

fn servers(history: &History) -> Table {
    let columns = vec![name("Server"), figure("Open"), figure("Tunnels"), figure("Requests"), name("Place")];
    let rows = history.now.servers.iter().map(|server| {
        vec![
            Cell::name(if server.name.is_empty() { "(no name)" } else { &server.name }),
            exact(server.tunnels_open),
            counted(server.tunnels),
            counted(server.requests),
            Cell::name(&server.place),
        ]
    });
    Table { columns, rows: rows.collect() }
}

fn configurations(history: &History) -> Table {
    let columns = vec![figure("Generation"), figure("Loaded"), figure("Tunnels"), figure("Size")];
    let rows = history.now.config.alive.iter().rev().map(|generation| {
        vec![
            exact(generation.generation),
            lasting(history.now.now_ms.saturating_sub(generation.loaded_ms) as f64 / 1000.0),
            exact(generation.tunnels),
            in_bytes(generation.bytes),
        ]
    });
    Table { columns, rows: rows.collect() }
}
