//! What `cargo test --benches` runs: every kind of row, small, without a proxy and through longsplice, must move checked bytes
//! and show no error; and a report of known figures must say what they are.

use std::{error::Error, time::Duration};

use crate::{
    certificate::Certificates,
    contest::{Contestant, DIRECT},
    goals::GOALS,
    host::{self, Cores},
    isolation::Isolation,
    load::{LONGEST_FRAME, Pattern},
    measure::{Bench, Sample},
    peers::{PEERS, REFERENCE, SUBJECT},
    plots,
    report::Report,
    results::{Record, Results},
    rows::{self, Row},
};

type Outcome = Result<(), Box<dyn Error>>;

/// Descriptors of a usual machine.
const DESCRIPTORS: u64 = 20_000;

pub fn run() -> Outcome {
    words_select_rows()?;
    goals_and_plots_show_the_figures()?;
    every_row_runs()
}

fn every_row_runs() -> Outcome {
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
    let contestants = [Contestant::direct(), Contestant::proxy(longsplice.ok_or("longsplice was not built")?)];
    let mut seen = Vec::new();
    for row in rows::all(bench.descriptors, None).into_iter().map(Row::shrunk) {
        if seen.contains(&(row.tls, row.job)) {
            continue; // the same row in another size
        }
        seen.push((row.tls, row.job));
        for contestant in contestants.iter().filter(|contestant| contestant.takes_part(&row)) {
            let fail = |why: String| format!("{}, {}: {why}", row.name, contestant.name);
            let sample = bench.run(&row, contestant.proxy.as_ref()).map_err(fail)?;
            if !sample.errors.is_empty() {
                return Err(fail(format!("{:?}", sample.errors)).into());
            }
            let expected = row.job.headline().iter();
            let missing = expected.filter(|metric| !sample.values.iter().any(|(of, _)| of == *metric));
            let missing: Vec<_> = missing.collect();
            if contestant.name != DIRECT && !missing.is_empty() {
                return Err(fail(format!("no {missing:?}")).into());
            }
        }
    }
    Ok(())
}

fn words_select_rows() -> Outcome {
    let count = |words: &[&str]| -> Result<usize, String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        Ok(rows::select(rows::all(DESCRIPTORS, None), &words)?.len())
    };
    expect("a whole name", count(&["echo-ws-64B-x1"])?, 1)?;
    expect("a part is not its beginning: ws is not wss, x1 is not x100", count(&["echo-ws+x1"])?, 3)?;
    expect("words add up", count(&["idle", "handshake-wss-rsa"])?, 4)?;
    expect("all is more than the usual", count(&["all"])? > count(&[])?, true)?;
    expect("an unknown word is an error", count(&["echoes"]).is_err(), true)
}

fn goals_and_plots_show_the_figures() -> Outcome {
    let rows = rows::select(rows::all(DESCRIPTORS, None), &[])?;
    let page = |ours: [f64; 2]| {
        let results = invented(&rows, ours);
        let report = Report { rows: &rows, results: &results, facts: &[] };
        (report.markdown(), plots::all(&report))
    };
    let (good, plots) = page([0.3, 0.3]);
    expect("goals that are met", good.matches("| yes |").count(), GOALS.len())?;
    expect("goals that are missed", good.matches("**no**").count(), 0)?;
    expect("the ratio to nginx", good.contains("| 1.0 | 0.3 | 0.30 | 0.30 (nginx) |"), true)?;
    expect("goals that are missed", page([2.0, 2.0]).0.matches("**no**").count() > 10, true)?;
    let mut failed = invented(&rows, [0.3, 0.3]);
    let subject = failed.peer(SUBJECT).ok_or("no subject")?;
    (0..rows.len()).for_each(|row| failed.add(Record { row, peer: subject, round: 3, outcome: Err("ended".into()) }));
    let failed = Report { rows: &rows, results: &failed, facts: &[] }.markdown();
    expect("goals of rows that failed", failed.matches("**no**").count(), GOALS.len())?;
    expect("the spread", page([0.2, 0.4]).0.contains("0.30 (0.20 to 0.40)"), true)?;
    expect("charts", plots.len(), 7)?;
    for (name, svg) in plots {
        expect(name, svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("NaN"), true)?;
    }
    Ok(())
}

/// Two rounds in which every figure of nginx is 1.
fn invented(rows: &[Row], ours: [f64; 2]) -> Results {
    let mut results = Results::new(vec![REFERENCE, SUBJECT]);
    for (row, of) in rows.iter().enumerate() {
        for (round, ours) in (1..).zip(ours) {
            for (peer, value) in [1.0, ours].into_iter().enumerate() {
                let values = of.job.metrics().iter().map(|metric| (*metric, value)).collect();
                results.add(Record { row, peer, round, outcome: Ok(Sample { values, ..Sample::default() }) });
            }
        }
    }
    results
}

fn expect<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should_be: T) -> Outcome {
    if is == should_be { Ok(()) } else { Err(format!("{what}: {is:?}, not {should_be:?}").into()) }
}
