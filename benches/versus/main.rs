//! longsplice beside its peers: `cargo bench --bench versus [-- OPTIONS]`.
//!
//! Starts each proxy in turn on one core, puts websocket load through it from another, and writes a table.
//! Nothing leaves loopback, everything has an end, and only what was started here is ended here.
#![deny(unsafe_code)]

mod certificate;
mod host;
mod isolation;
mod job;
mod load;
mod measure;
mod metric;
mod options;
mod peers;
mod process;
mod report;
mod results;
mod rows;
mod selftest;
mod sockets;

use std::{error::Error, fs, io::IsTerminal, time::Instant};

use crate::{
    certificate::Certificates,
    host::Cores,
    isolation::Isolation,
    load::{LONGEST_FRAME, Pattern},
    measure::{Bench, Sample},
    options::Options,
    peers::{Installed, PEERS},
    report::Report,
    results::{Record, Results},
    rows::Row,
};

/// The load without a proxy: what the figures cannot be better than. Only where it is asked for.
const DIRECT: &str = "direct";

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` says so; without it, this is `cargo test --benches`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return selftest::run();
    }
    let options = Options::read();
    let descriptors = host::raise_descriptor_limit()?;
    let (rows, mut facts) = choose_rows(&options, descriptors)?;
    if options.list {
        rows.iter().for_each(|row| println!("{:30} {}", row.name, row.about()));
        return Ok(());
    }
    let contestants = contestants(&options, &mut facts)?;

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
    let results = compete(&bench, &rows, &contestants, options.rounds);

    let mut settings = bench.isolation.facts();
    settings
        .push(("run".into(), format!("{} rounds, windows of {} s, {} rows", options.rounds, options.secs, rows.len())));
    let machine = host::facts(cores, descriptors).into_iter().map(|(name, value)| (name.to_string(), value));
    let facts: Vec<_> = machine.chain(settings).chain(facts).collect();
    let names: Vec<&str> = contestants.iter().map(|contestant| contestant.0).collect();
    publish(&Report { rows: &rows, peers: &names, results: &results, facts: &facts }, &options)
}

type Facts = Vec<(String, String)>;

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

/// A column: its name, and the proxy unless it is [`DIRECT`].
struct Contestant(&'static str, Option<Installed>);

/// The proxies asked for, or all; versions and what is missing become facts.
fn contestants(options: &Options, facts: &mut Facts) -> Result<Vec<Contestant>, String> {
    let known = || PEERS.iter().map(|peer| peer.name).chain([DIRECT]);
    if let Some(name) = options.peers.iter().find(|name| !known().any(|known| known == name.as_str())) {
        return Err(format!("no peer is called {name:?}; there are: {}", known().collect::<Vec<_>>().join(", ")));
    }
    let is_wanted = |name: &str| options.peers.iter().any(|wanted| wanted == name);
    let mut contestants = Vec::new();
    if is_wanted(DIRECT) {
        facts.push((DIRECT.into(), "the load without a proxy".into()));
        contestants.push(Contestant(DIRECT, None));
    }
    for peer in PEERS.iter().filter(|peer| options.peers.is_empty() || is_wanted(peer.name)) {
        match peer.installed() {
            Some(installed) => {
                facts.push((peer.name.into(), format!("{}; {}", installed.version, peer.about)));
                contestants.push(Contestant(peer.name, Some(installed)));
            }
            None => {
                eprintln!("{}: not installed, left out", peer.name);
                facts.push((peer.name.into(), "not installed, left out".into()));
            }
        }
    }
    if contestants.is_empty() { Err("no peer is installed".into()) } else { Ok(contestants) }
}

/// Round by round and row by row all take turns, in an order that rotates, so that none is always first.
fn compete(bench: &Bench, rows: &[Row], contestants: &[Contestant], rounds: u32) -> Results {
    let mut results = Results::default();
    let takes_part = |row: &Row, contestant: &&Contestant| match &contestant.1 {
        Some(proxy) => proxy.suits(row),
        // The backend itself speaks no TLS.
        None => row.tls.is_none(),
    };
    let runs: usize = rows.iter().map(|row| contestants.iter().filter(|it| takes_part(row, it)).count()).sum();
    let mut progress = Progress::new(runs * rounds as usize);
    for round in 1..=rounds {
        for (row_index, row) in rows.iter().enumerate() {
            for turn in 0..contestants.len() {
                let peer = (turn + round as usize) % contestants.len();
                let Contestant(name, proxy) = &contestants[peer];
                if !takes_part(row, &&contestants[peer]) {
                    continue;
                }
                progress.begin(&format!("round {round}/{rounds} {} {name}", row.name));
                let outcome = bench.run(row, proxy.as_ref());
                progress.end(row, &outcome);
                results.add(Record { row: row_index, peer, round, outcome });
            }
        }
    }
    progress.finish();
    results
}

/// One line that says where we are; on a terminal it is overwritten.
struct Progress {
    total: usize,
    done: usize,
    start: Instant,
    line: String,
    terminal: bool,
}

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, done: 0, start: Instant::now(), line: String::new(), terminal: std::io::stderr().is_terminal() }
    }

    fn begin(&mut self, what: &str) {
        let left = match self.done {
            0 => String::new(),
            done => format!(
                ", {:.0} min left",
                self.start.elapsed().as_secs_f64() / done as f64 * (self.total - done) as f64 / 60.0
            ),
        };
        self.line = format!("[{}/{}{left}] {what}", self.done + 1, self.total);
        if self.terminal {
            eprint!("\r\x1b[K{}", self.line);
        }
    }

    fn end(&mut self, row: &Row, outcome: &Result<Sample, String>) {
        self.done += 1;
        let told = match outcome {
            Err(why) => format!("failed: {why}"),
            Ok(sample) => {
                let figures = sample.values.iter().filter(|(metric, _)| row.job.headline().contains(metric));
                let mut told: Vec<_> =
                    figures.map(|(metric, value)| format!("{} {}", metric.show(*value), metric.title())).collect();
                told.extend(sample.errors.iter().map(|(what, count)| format!("{count} x {what}")));
                told.join("; ")
            }
        };
        if self.terminal {
            eprint!("\r\x1b[K{}: {told}", self.line);
        } else {
            eprintln!("{}: {told}", self.line);
        }
    }

    fn finish(&self) {
        if self.terminal {
            eprintln!("\r\x1b[K{} runs in {:.0} s", self.done, self.start.elapsed().as_secs_f64());
        }
    }
}

/// Prints the page and writes it. A selection of rows or peers has files of its own, so that it never replaces the whole.
fn publish(report: &Report, options: &Options) -> Result<(), Box<dyn Error>> {
    let page = report.markdown();
    println!("{page}");
    let name = if options.is_partial() { "partial" } else { "versus" };
    fs::create_dir_all(&options.out)?;
    for (extension, text) in [("md", &page), ("csv", &report.csv())] {
        let file = options.out.join(name).with_extension(extension);
        fs::write(&file, text)?;
        eprintln!("written: {}", file.display());
    }
    Ok(())
}
