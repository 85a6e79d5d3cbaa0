//! The samples of all rounds, and the questions the report asks of them.

use crate::{
    contest::DIRECT,
    measure::Sample,
    metric::{Metric, Spread},
    peers::{REFERENCE, SUBJECT},
};

/// One run, or why there was none.
pub struct Record {
    pub row: usize,
    pub peer: usize,
    pub round: u32,
    pub outcome: Result<Sample, String>,
}

impl Record {
    /// Something went wrong in it.
    pub fn is_troubled(&self) -> bool {
        self.outcome.as_ref().map_or(true, |sample| !sample.errors.is_empty())
    }
}

/// All runs.
pub struct Results {
    /// Names of the columns: proxies, and perhaps the load without one.
    pub peers: Vec<&'static str>,
    records: Vec<Record>,
}

impl Results {
    pub fn new(peers: Vec<&'static str>) -> Self {
        Self { peers, records: Vec::new() }
    }

    pub fn add(&mut self, record: Record) {
        self.records.push(record);
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// A column by its name.
    pub fn peer(&self, name: &str) -> Option<usize> {
        self.peers.iter().position(|peer| *peer == name)
    }

    pub fn of(&self, row: usize, peer: usize) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.row == row && record.peer == peer)
    }

    /// The values of a figure, with their rounds.
    fn rounds(&self, row: usize, peer: usize, metric: Metric) -> Vec<(u32, f64)> {
        self.of(row, peer)
            .filter_map(|record| {
                let values = &record.outcome.as_ref().ok()?.values;
                values.iter().find(|(of, _)| *of == metric).map(|(_, value)| (record.round, *value))
            })
            .collect()
    }

    /// A figure over all rounds.
    pub fn figure(&self, row: usize, peer: usize, metric: Metric) -> Option<Spread> {
        Spread::of(self.rounds(row, peer, metric).into_iter().map(|(_, value)| value).collect())
    }

    /// One proxy's figure over another's, within each round, because what disturbs a round disturbs both.
    pub fn ratio(&self, row: usize, [over, under]: [usize; 2], metric: Metric) -> Option<Spread> {
        let base = self.rounds(row, under, metric);
        let pairs = self.rounds(row, over, metric).into_iter().filter_map(|(round, value)| {
            let (_, base) = base.iter().find(|(of, base)| *of == round && *base != 0.0)?;
            Some(value / base)
        });
        Spread::of(pairs.collect())
    }

    /// longsplice over nginx.
    pub fn to_reference(&self, row: usize, metric: Metric) -> Option<Spread> {
        self.ratio(row, [self.peer(SUBJECT)?, self.peer(REFERENCE)?], metric)
    }

    /// longsplice over the best peer but `except`, and which that is.
    pub fn to_best(&self, row: usize, metric: Metric, except: &[&str]) -> Option<(Spread, &'static str)> {
        let best = self.best(row, metric, except)?;
        Some((self.ratio(row, [self.peer(SUBJECT)?, best], metric)?, self.peers[best]))
    }

    /// The peer with the best median of a figure, but for `except`; longsplice and the load without a proxy are none.
    pub fn best(&self, row: usize, metric: Metric, except: &[&str]) -> Option<usize> {
        let sign = if metric.is_cost() { 1.0 } else { -1.0 };
        let medians = (0..self.peers.len())
            .filter(|&peer| ![SUBJECT, DIRECT].contains(&self.peers[peer]) && !except.contains(&self.peers[peer]))
            .filter_map(|peer| Some((peer, sign * self.figure(row, peer, metric)?.median)));
        medians.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(peer, _)| peer)
    }

    /// Shares of time in which a proxy waited for its core, percent, one a run.
    pub fn waits(&self) -> Vec<f64> {
        let samples = self.records.iter().filter_map(|record| record.outcome.as_ref().ok());
        let values = samples.flat_map(|sample| &sample.values);
        values.filter(|(metric, _)| *metric == Metric::Waited).map(|(_, value)| *value).collect()
    }

    /// What went wrong in a row with a peer: each error with how often it was seen.
    pub fn troubles(&self, row: usize, peer: usize) -> Vec<String> {
        let mut troubles = Vec::new();
        for record in self.of(row, peer) {
            match &record.outcome {
                Err(why) => troubles.push(format!("round {}: {why}", record.round)),
                Ok(sample) => {
                    troubles.extend(
                        sample.errors.iter().map(|(what, count)| format!("round {}: {count} x {what}", record.round)),
                    );
                }
            }
        }
        troubles
    }
}
