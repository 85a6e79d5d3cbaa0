//! longsplice beside its peers: `cargo bench --bench versus [-- OPTIONS]`.
//!
//! Starts each proxy in turn on one core, puts websocket load through it from another, and writes tables and plots.
//! Nothing leaves loopback, everything has an end, and only what was started here is ended here.
#![deny(unsafe_code)]

mod certificate;
mod contest;
mod goals;
mod host;
mod isolation;
mod job;
mod load;
mod measure;
mod metric;
mod options;
mod peers;
mod plots;
mod process;
mod progress;
mod report;
mod results;
mod rows;
mod selftest;
mod sockets;
mod svg;

use std::{error::Error, fs, io};

use crate::{
    certificate::Certificates,
    contest::Facts,
    host::Cores,
    isolation::Isolation,
    load::{LONGEST_FRAME, Pattern},
    measure::Bench,
    options::Options,
    progress::Progress,
    report::Report,
    results::Results,
    rows::Row,
};

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` says so; without it, this is `cargo test --benches`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return selftest::run();
    }
    let options = Options::read();
    let descriptors = host::raise_descriptor_limit()?;
    let (rows, mut seen) = choose_rows(&options, descriptors)?;
    if options.list {
        rows.iter().for_each(|row| println!("{:30} {}", row.name, row.about()));
        return Ok(());
    }
    let contestants = contest::contestants(&options.peers, &mut seen)?;

    let cores = Cores::choose()?;
    host::pin(cores.load)?;
    let dir = tempfile::Builder::new().prefix("versus-").tempdir()?;
    let bench = Bench {
        cores,
        descriptors,
        isolation: Isolation::prepare(),
        certificates: Certificates::make(dir.path())?,
        pattern: Pattern::new(LONGEST_FRAME).into(),
        window: options.window(),
    };
    let settings = format!("{} rounds, windows of {} s, {} rows", options.rounds, options.secs, rows.len());
    let mut facts: Facts = host::facts(cores, descriptors);
    facts.extend(bench.isolation.facts());
    facts.push(("run".into(), settings));
    facts.extend(seen);

    let mut results = Results::new(contestants.iter().map(|contestant| contestant.name).collect());
    let mut progress = Progress::new(contest::runs(&rows, &contestants) * options.rounds as usize);
    for round in 1..=options.rounds {
        contest::round(round, &bench, &rows, &contestants, &mut results, &mut progress);
        // After each round, so that a bench that is ended early has something to show.
        publish(&Report { rows: &rows, results: &results, facts: &facts }, &options)?;
    }
    progress.finish();
    println!("{}", Report { rows: &rows, results: &results, facts: &facts }.markdown());
    eprintln!("written: {}", options.file("*").display());
    Ok(())
}

/// The rows asked for which the descriptor limit allows; what it does not is told.
fn choose_rows(options: &Options, descriptors: u64) -> Result<(Vec<Row>, Facts), String> {
    let rows = rows::select(rows::all(descriptors, options.idle_tunnels()), &options.only)?;
    let (rows, left_out): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.job.descriptors() <= descriptors);
    let why = |row: &Row| format!("left out: needs {} descriptors", row.job.descriptors());
    let facts = left_out.iter().map(|row| (row.name.clone(), why(row))).collect();
    if rows.is_empty() {
        Err("no row is left: raise the descriptor limit (ulimit -Hn)".into())
    } else {
        Ok((rows, facts))
    }
}

/// Writes the tables and plots.
fn publish(report: &Report, options: &Options) -> io::Result<()> {
    fs::create_dir_all(&options.out)?;
    fs::write(options.file(".md"), report.markdown())?;
    fs::write(options.file(".csv"), report.csv())?;
    for (name, plot) in plots::all(report) {
        fs::write(options.file(&format!("-{name}.svg")), plot)?;
    }
    Ok(())
}
