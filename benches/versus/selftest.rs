//! What `cargo test --benches` runs: every kind of row, small and without a proxy, must move checked bytes and no errors.

use std::{error::Error, time::Duration};

use crate::{
    certificate::Certificate,
    host::{self, Cores},
    load::{LONGEST_FRAME, Pattern},
    measure::Bench,
    rows,
};

pub fn run() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let bench = Bench {
        cores: Cores::choose()?,
        descriptors: host::raise_descriptor_limit()?,
        certificate: Certificate::make(dir.path())?,
        pattern: Pattern::new(LONGEST_FRAME).into(),
        window: Duration::from_millis(50),
    };
    for row in rows::all(20).into_iter().filter(|row| !row.tls).map(rows::Row::shrunk) {
        let sample = bench.run(&row, None)?;
        if !sample.errors.is_empty() {
            return Err(format!("{}: {:?}", row.name, sample.errors).into());
        }
        println!("{}: ok", row.name);
    }
    Ok(())
}
