//! Who takes part, and whose turn it is.

use crate::{
    measure::Bench,
    peers::{Installed, PEERS},
    progress::Progress,
    results::{Record, Results},
    rows::Row,
};

/// The load without a proxy: what the figures cannot be better than. Only where it is asked for.
pub const DIRECT: &str = "direct";

/// A column: its name, and the proxy unless it is [`DIRECT`].
pub struct Contestant {
    pub name: &'static str,
    pub proxy: Option<Installed>,
}

/// Name and value, for the report.
pub type Facts = Vec<(String, String)>;

/// The proxies of these names, or all; versions and what is missing become facts.
pub fn contestants(names: &[String], facts: &mut Facts) -> Result<Vec<Contestant>, String> {
    let known = || PEERS.iter().map(|peer| peer.name).chain([DIRECT]);
    if let Some(name) = names.iter().find(|name| !known().any(|known| known == name.as_str())) {
        return Err(format!("no peer is called {name:?}; there are: {}", known().collect::<Vec<_>>().join(", ")));
    }
    let is_wanted = |name: &str| names.iter().any(|wanted| wanted == name);
    let mut contestants = Vec::new();
    if is_wanted(DIRECT) {
        facts.push((DIRECT.into(), "the load without a proxy".into()));
        contestants.push(Contestant::direct());
    }
    for peer in PEERS.iter().filter(|peer| names.is_empty() || is_wanted(peer.name)) {
        match peer.installed() {
            Some(installed) => {
                facts.push((peer.name.into(), format!("{}; {}", installed.version, peer.about)));
                contestants.push(Contestant::proxy(installed));
            }
            None => {
                eprintln!("{}: not installed, left out", peer.name);
                facts.push((peer.name.into(), "not installed, left out".into()));
            }
        }
    }
    if contestants.is_empty() { Err("no peer is installed".into()) } else { Ok(contestants) }
}

impl Contestant {
    /// The load without a proxy.
    pub fn direct() -> Self {
        Self { name: DIRECT, proxy: None }
    }

    pub fn proxy(proxy: Installed) -> Self {
        Self { name: proxy.peer.name, proxy: Some(proxy) }
    }

    /// Whether it has something to show in a row.
    pub fn takes_part(&self, row: &Row) -> bool {
        match &self.proxy {
            Some(proxy) => proxy.suits(row),
            // The backend itself speaks no TLS and has no workers.
            None => row.tls.is_none() && row.job.workers() == 1,
        }
    }
}

/// Runs of one round.
pub fn runs(rows: &[Row], contestants: &[Contestant]) -> usize {
    rows.iter().map(|row| contestants.iter().filter(|contestant| contestant.takes_part(row)).count()).sum()
}

/// Row by row all take turns, in an order that rotates with the rounds, so that none is always first.
pub fn round(
    number: u32,
    bench: &Bench,
    rows: &[Row],
    contestants: &[Contestant],
    results: &mut Results,
    progress: &mut Progress,
) {
    for (row_index, row) in rows.iter().enumerate() {
        for turn in 0..contestants.len() {
            let peer = (turn + number as usize) % contestants.len();
            let Contestant { name, proxy } = &contestants[peer];
            if contestants[peer].takes_part(row) {
                progress.begin(&format!("round {number} {} {name}", row.name));
                let outcome = bench.run(row, proxy.as_ref());
                progress.end(row, &outcome);
                results.add(Record { row: row_index, peer, round: number, outcome });
            }
        }
    }
}
