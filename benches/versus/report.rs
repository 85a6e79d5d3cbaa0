//! The results as Markdown and as CSV.

use std::fmt::Write;

use crate::{
    metric::{Metric, range},
    peers::{REFERENCE, SUBJECT},
    results::Results,
    rows::Row,
};

/// What the report is about.
pub struct Report<'a> {
    pub rows: &'a [Row],
    /// Names, in the order of the columns.
    pub peers: &'a [&'a str],
    pub results: &'a Results,
    /// Name and value: the machine, the settings, the versions; what is missing.
    pub facts: &'a [(String, String)],
}

impl Report<'_> {
    /// The whole page.
    pub fn markdown(&self) -> String {
        let mut page = String::from("# longsplice beside its peers\n\n");
        page.push_str(PREFACE);
        page.push_str("\n| | |\n|---|---|\n");
        for (name, value) in self.facts {
            line(&mut page, [name.clone(), value.clone()]);
        }
        page.push_str("\n## In short\n\n");
        self.summary(&mut page);
        self.noise(&mut page);
        page.push_str("\n## Every figure\n\nMedian (least to greatest of the rounds).\n");
        for row in 0..self.rows.len() {
            self.details(&mut page, row);
        }
        page
    }

    fn summary(&self, page: &mut String) {
        let titles = self.peers.iter().map(|peer| (*peer).to_string());
        let ratios = [format!("{SUBJECT} / {REFERENCE}"), format!("{SUBJECT} / best peer")];
        let columns = 2 + self.peers.len() + ratios.len();
        line(page, ["row".to_string(), "figure".to_string()].into_iter().chain(titles).chain(ratios));
        line(page, ["---", "---"].into_iter().chain(std::iter::repeat_n("---:", columns - 2)).map(str::to_string));
        for (index, row) in self.rows.iter().enumerate() {
            for &metric in row.job.headline() {
                let values = (0..self.peers.len()).map(|peer| self.cell(index, peer, metric));
                let ratios = [self.ratio_to_reference(index, metric), self.ratio_to_best(index, metric)];
                let names = [format!("`{}`", row.name), metric.title().to_string()];
                line(page, names.into_iter().chain(values).chain(ratios));
            }
        }
    }

    /// How far the machine was not ours.
    fn noise(&self, page: &mut String) {
        let waits = self.results.waits();
        if waits.is_empty() {
            return;
        }
        let noisy = waits.iter().filter(|wait| **wait > NOISY_PERCENT).count();
        let most = waits.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            page,
            "\n(!): something went wrong, see below. In {noisy} of {} runs a proxy waited for its core more than \
             {NOISY_PERCENT} % of the time, at most {most:.0} %.",
            waits.len()
        );
    }

    /// A median; marked where something went wrong.
    fn cell(&self, row: usize, peer: usize, metric: Metric) -> String {
        let mark = if self.results.troubles(row, peer).is_empty() { "" } else { " (!)" };
        match self.results.median(row, peer, metric) {
            Some(value) => format!("{}{mark}", metric.show(value)),
            None => format!("-{mark}"),
        }
    }

    fn ratio_to_reference(&self, row: usize, metric: Metric) -> String {
        let pair = self.peer(SUBJECT).zip(self.peer(REFERENCE));
        pair.and_then(|(over, under)| self.results.ratio(row, [over, under], metric))
            .map_or_else(dash, |ratio| format!("{ratio:.2}"))
    }

    fn ratio_to_best(&self, row: usize, metric: Metric) -> String {
        let pair = self.peer(SUBJECT).zip(self.results.best(row, self.peers, metric));
        let ratio = pair.and_then(|(over, under)| Some((self.results.ratio(row, [over, under], metric)?, under)));
        ratio.map_or_else(dash, |(ratio, under)| format!("{ratio:.2} ({})", self.peers[under]))
    }

    fn peer(&self, name: &str) -> Option<usize> {
        self.peers.iter().position(|peer| *peer == name)
    }

    fn details(&self, page: &mut String, index: usize) {
        let row = &self.rows[index];
        let _ = write!(page, "\n### `{}`\n{}.\n\n", row.name, row.about());
        let metrics = row.job.metrics();
        line(page, std::iter::once(String::new()).chain(metrics.iter().map(|metric| metric.title().to_string())));
        line(page, std::iter::once("---").chain(std::iter::repeat_n("---:", metrics.len())).map(str::to_string));
        for (peer, name) in self.peers.iter().enumerate() {
            let values = metrics.iter().map(|&metric| self.spread(index, peer, metric));
            line(page, std::iter::once((*name).to_string()).chain(values));
        }
        for (peer, name) in self.peers.iter().enumerate() {
            for (number, trouble) in self.results.troubles(index, peer).iter().enumerate() {
                let _ = writeln!(page, "{}- {name}, {trouble}", if number == 0 { "\n" } else { "" });
            }
        }
    }

    fn spread(&self, row: usize, peer: usize, metric: Metric) -> String {
        let Some(median) = self.results.median(row, peer, metric) else { return dash() };
        let (low, high) = range(&self.results.values(row, peer, metric));
        format!("{} ({} to {})", metric.show(median), metric.show(low), metric.show(high))
    }

    /// Every value of every round, for plots.
    pub fn csv(&self) -> String {
        let mut text = String::from("row,peer,round,figure,value\n");
        for record in self.results.records() {
            let Ok(sample) = &record.outcome else { continue };
            for (metric, value) in &sample.values {
                let (row, peer) = (&self.rows[record.row].name, self.peers[record.peer]);
                let _ = writeln!(text, "{row},{peer},{},{metric:?},{value}", record.round);
            }
        }
        text
    }
}

/// A proxy that waits longer than this shared its core.
const NOISY_PERCENT: f64 = 5.0;

const PREFACE: &str = "\
Made by `cargo bench --bench versus`. Each run starts its proxy afresh, with one worker on one core; the load (websocket
clients and their backend, one thread, every byte of every payload compared) has the other core. The proxies take turns
within each round. CPU is that of all threads of the proxy's processes; a message is a round trip, two hops. Where the load
is busy nearly 100 % it is what limits a closed loop, and CPU is what compares. Ratios are the median of the ratios within
each round; below 1 is better for costs and times, above 1 for rates.
";

fn line(page: &mut String, cells: impl IntoIterator<Item = String>) {
    page.push('|');
    for cell in cells {
        let _ = write!(page, " {} |", cell.replace('|', "\\|"));
    }
    page.push('\n');
}

fn dash() -> String {
    "-".into()
}
