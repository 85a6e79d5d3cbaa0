//! The samples of all rounds, and the questions the report asks of them.

use crate::{
    measure::Sample,
    metric::{Metric, median},
    peers::SUBJECT,
};

/// One run, or why there was none.
pub struct Record {
    pub row: usize,
    pub peer: usize,
    pub round: u32,
    pub outcome: Result<Sample, String>,
}

/// All runs.
#[derive(Default)]
pub struct Results(Vec<Record>);

impl Results {
    pub fn add(&mut self, record: Record) {
        self.0.push(record);
    }

    pub fn records(&self) -> &[Record] {
        &self.0
    }

    pub fn of(&self, row: usize, peer: usize) -> impl Iterator<Item = &Record> {
        self.0.iter().filter(move |record| record.row == row && record.peer == peer)
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

    /// The values of a figure.
    pub fn values(&self, row: usize, peer: usize, metric: Metric) -> Vec<f64> {
        self.rounds(row, peer, metric).into_iter().map(|(_, value)| value).collect()
    }

    pub fn median(&self, row: usize, peer: usize, metric: Metric) -> Option<f64> {
        median(self.values(row, peer, metric))
    }

    /// One proxy's figure over another's: the median of what it is in each round, because what disturbs a round disturbs
    /// both.
    pub fn ratio(&self, row: usize, [over, under]: [usize; 2], metric: Metric) -> Option<f64> {
        let base = self.rounds(row, under, metric);
        let pairs = self.rounds(row, over, metric).into_iter().filter_map(|(round, value)| {
            let (_, base) = base.iter().find(|(of, base)| *of == round && *base != 0.0)?;
            Some(value / base)
        });
        median(pairs.collect())
    }

    /// The peer with the best median of a figure; longsplice and the load without a proxy are none.
    pub fn best(&self, row: usize, peers: &[&str], metric: Metric) -> Option<usize> {
        let sign = if metric.is_cost() { 1.0 } else { -1.0 };
        let medians = (0..peers.len())
            .filter(|&peer| peers[peer] != SUBJECT && peers[peer] != crate::DIRECT)
            .filter_map(|peer| Some((peer, sign * self.median(row, peer, metric)?)));
        medians.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(peer, _)| peer)
    }

    /// Shares of time in which a proxy waited for its core, percent, one a run.
    pub fn waits(&self) -> Vec<f64> {
        let samples = self.0.iter().filter_map(|record| record.outcome.as_ref().ok());
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
