//! What `cargo test --benches` runs: every row, small, without a proxy and through longsplice, must move checked bytes and
//! show no error.

use std::{error::Error, time::Duration};

use crate::{
    DIRECT,
    certificate::Certificates,
    host::{self, Cores},
    isolation::Isolation,
    load::{LONGEST_FRAME, Pattern},
    measure::Bench,
    peers::{Installed, PEERS, SUBJECT},
    rows::{self, Row},
};

pub fn run() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let bench = Bench {
        cores: Cores::choose()?,
        descriptors: host::raise_descriptor_limit()?,
        isolation: Isolation::prepare(),
        certificates: Certificates::make(dir.path())?,
        pattern: Pattern::new(LONGEST_FRAME).into(),
        window: Duration::from_millis(50),
    };
    let longsplice = PEERS.iter().find(|peer| peer.name == SUBJECT).and_then(|peer| peer.installed());
    let longsplice = longsplice.ok_or("longsplice was not built")?;
    let mut seen = Vec::new();
    for row in rows::all(bench.descriptors, None).into_iter().map(Row::shrunk) {
        if seen.contains(&(row.tls, row.job)) {
            continue; // the same row in another size
        }
        seen.push((row.tls, row.job));
        if row.tls.is_none() {
            check(&bench, &row, None)?;
        }
        check(&bench, &row, Some(&longsplice))?;
    }
    Ok(())
}

fn check(bench: &Bench, row: &Row, proxy: Option<&Installed>) -> Result<(), String> {
    let name = proxy.map_or(DIRECT, |proxy| proxy.peer.name);
    let sample = bench.run(row, proxy).map_err(|why| format!("{}, {name}: {why}", row.name))?;
    if sample.errors.is_empty() { Ok(()) } else { Err(format!("{}, {name}: {:?}", row.name, sample.errors)) }
}
