//! How evenly a proxy's workers share long-lived tunnels.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{Run, text};
use crate::metric::Metric;

/// How long the workers have to sort out among themselves who takes what.
const SETTLE: Duration = Duration::from_millis(500);

impl Run<'_> {
    pub(super) fn workers(&mut self, workers: usize, tunnels: usize) -> Result<(), String> {
        self.open(tunnels)?;
        let shares = self.shares(tunnels)?;
        let Some(fullest) = shares.iter().max_by_key(|share| share.len()) else { return Ok(()) };
        self.put(Metric::Unevenness, unevenness(&shares, workers));

        self.load.hang_up(fullest.iter().copied());
        self.others_gone(tunnels - fullest.len())?;
        self.open(fullest.len())?;
        let shares = self.shares(tunnels)?;
        self.put(Metric::UnevennessAfter, unevenness(&shares, workers));
        let alive: BTreeSet<usize> = shares.into_iter().flatten().collect();
        self.use_once(alive.into_iter())
    }

    /// The tunnels of each worker, as far as epoll shows whose they are: none without a proxy, an error if some are nobody's.
    fn shares(&mut self, tunnels: usize) -> Result<Vec<Vec<usize>>, String> {
        self.rest(self.bench.settle(SETTLE))?;
        let Some(process) = &self.process else { return Ok(Vec::new()) };
        let of_client: HashMap<_, _> = self.load.clients().collect();
        let shares = process.watched_clients(self.proxy.port()).map_err(text)?;
        let shares: Vec<Vec<usize>> = shares
            .into_iter()
            .map(|clients| clients.iter().filter_map(|client| of_client.get(client).copied()).collect())
            .collect();
        match shares.iter().map(Vec::len).sum::<usize>() {
            all if all == tunnels => Ok(shares),
            some => Err(format!("{some} of {tunnels} tunnels are in a worker's epoll instance")),
        }
    }
}

/// The fullest over the mean.
fn unevenness(shares: &[Vec<usize>], workers: usize) -> f64 {
    let fullest = shares.iter().map(Vec::len).max().unwrap_or(0);
    let all: usize = shares.iter().map(Vec::len).sum();
    (fullest * workers) as f64 / all as f64
}
