//! The results as Markdown and as CSV.

use std::fmt::Write;

use crate::{
    goals,
    metric::{Metric, show_ratio},
    peers::{REFERENCE, SUBJECT},
    results::Results,
    rows::Row,
};

/// What the report is about.
pub struct Report<'a> {
    pub rows: &'a [Row],
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
        page.push_str("\n## Goals\n\n");
        goals::table(self, &mut page);
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
        let titles = self.results.peers.iter().map(|peer| (*peer).to_string());
        let ratios = [format!("{SUBJECT} / {REFERENCE}"), format!("{SUBJECT} / best peer")];
        let columns = 2 + self.results.peers.len() + ratios.len();
        line(page, ["row".to_string(), "figure".to_string()].into_iter().chain(titles).chain(ratios));
        line(page, ["---", "---"].into_iter().chain(std::iter::repeat_n("---:", columns - 2)).map(str::to_string));
        for (index, row) in self.rows.iter().enumerate() {
            for &metric in row.job.headline() {
                let values = (0..self.results.peers.len()).map(|peer| self.cell(index, peer, metric));
                let ratios = [self.ratio_to_reference(index, metric), self.ratio_to_best(index, metric)];
                let names = [format!("`{}`", row.name), metric.title().to_string()];
                line(page, names.into_iter().chain(values).chain(ratios));
            }
        }
    }

    /// How far the machine was not ours.
    fn noise(&self, page: &mut String) {
        let waits = self.results.waits();
        let noisy = waits.iter().filter(|wait| **wait > NOISY_PERCENT).count();
        let most = waits.iter().copied().fold(0.0, f64::max);
        let failed = self.results.records().iter().filter(|record| record.is_troubled()).count();
        let _ = writeln!(
            page,
            "\n(!): something went wrong, see below: in {failed} of {} runs. In {noisy} of {} runs a proxy waited for its core more \
             than {NOISY_PERCENT} % of the time, at most {most:.0} %.",
            self.results.records().len(),
            waits.len()
        );
    }

    /// A median; marked where something went wrong.
    fn cell(&self, row: usize, peer: usize, metric: Metric) -> String {
        let mark = if self.results.troubles(row, peer).is_empty() { "" } else { " (!)" };
        match self.results.figure(row, peer, metric) {
            Some(figure) => format!("{}{mark}", metric.show(figure.median)),
            None => format!("-{mark}"),
        }
    }

    fn ratio_to_reference(&self, row: usize, metric: Metric) -> String {
        self.results.to_reference(row, metric).map_or_else(dash, |ratio| ratio.show(show_ratio))
    }

    fn ratio_to_best(&self, row: usize, metric: Metric) -> String {
        let ratio = self.results.to_best(row, metric, &[]);
        ratio.map_or_else(dash, |(ratio, best)| format!("{} ({best})", show_ratio(ratio.median)))
    }

    fn details(&self, page: &mut String, index: usize) {
        let row = &self.rows[index];
        let _ = write!(page, "\n### `{}`\n{}.\n\n", row.name, row.about());
        let metrics = row.job.metrics();
        line(page, std::iter::once(String::new()).chain(metrics.iter().map(|metric| metric.title().to_string())));
        line(page, std::iter::once("---").chain(std::iter::repeat_n("---:", metrics.len())).map(str::to_string));
        for (peer, name) in self.results.peers.iter().enumerate() {
            if self.results.of(index, peer).next().is_some() {
                let values = metrics.iter().map(|&metric| self.spread(index, peer, metric));
                line(page, std::iter::once((*name).to_string()).chain(values));
            }
        }
        for (peer, name) in self.results.peers.iter().enumerate() {
            for (number, trouble) in self.results.troubles(index, peer).iter().enumerate() {
                let _ = writeln!(page, "{}- {name}, {trouble}", if number == 0 { "\n" } else { "" });
            }
        }
    }

    fn spread(&self, row: usize, peer: usize, metric: Metric) -> String {
        let figure = self.results.figure(row, peer, metric);
        figure.map_or_else(dash, |figure| figure.show(|value| metric.show(value)))
    }

    /// Every value of every round.
    pub fn csv(&self) -> String {
        let mut text = String::from("row,peer,round,figure,value\n");
        for record in self.results.records() {
            let Ok(sample) = &record.outcome else { continue };
            for (metric, value) in &sample.values {
                let (row, peer) = (&self.rows[record.row].name, self.results.peers[record.peer]);
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
each round; below 1 is better for costs and times, above 1 for rates. Kernel memory is what `Slab` in /proc/meminfo grows by
a tunnel, less what a tunnel without a proxy takes.
";

/// A line of a Markdown table.
pub fn line(page: &mut String, cells: impl IntoIterator<Item = String>) {
    page.push('|');
    for cell in cells {
        let _ = write!(page, " {} |", cell.replace('|', "\\|"));
    }
    page.push('\n');
}

fn dash() -> String {
    "-".into()
}
