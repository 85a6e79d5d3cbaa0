//! Open tunnels that carry something: echoes, a fixed rate, bulk; and requests over open connections.

use std::time::{Duration, Instant};

use super::{Run, TURN, Window, text};
use crate::{
    load::{Pace, Work},
    metric::Metric,
};

/// How long stragglers of a fixed rate are waited for.
const STRAGGLER_LIMIT: Duration = Duration::from_secs(2);
/// How far the sending of a fixed rate may fall behind: past it the load could not keep it.
const LAG_LIMIT: Duration = Duration::from_secs(1);

impl Run<'_> {
    pub(super) fn echo(&mut self, tunnels: usize) -> Result<(), String> {
        self.open(tunnels)?;
        self.load.start(Work::PingPong);
        let window = self.closed_loop()?;
        self.round_trips(&window, Metric::MessagesPerSecond, Metric::CpuPerMessage);
        Ok(())
    }

    pub(super) fn requests(&mut self, clients: usize) -> Result<(), String> {
        self.load.start(Work::Requests);
        self.open(clients)?;
        let window = self.closed_loop()?;
        self.round_trips(&window, Metric::RequestsPerSecond, Metric::CpuPerRequest);
        Ok(())
    }

    pub(super) fn bulk(&mut self, direction: Work, tunnels: usize) -> Result<(), String> {
        self.open(tunnels)?;
        self.load.start(direction);
        let window = self.closed_loop()?;
        let gib = self.load.tally().bytes as f64 / (1_u64 << 30) as f64;
        self.put(Metric::GibPerSecond, gib / window.wall);
        self.costs(&window, Metric::CpuPerGib, 1.0, gib);
        Ok(())
    }

    /// A message when it is due, whatever became of those before.
    pub(super) fn paced(&mut self, tunnels: usize, per_second: u32) -> Result<(), String> {
        self.open(tunnels)?;
        let gap = Duration::from_secs(1) / per_second;
        let pace = Pace { start: Instant::now(), gap, tunnels: tunnels as u32 };
        self.load.start(Work::Paced(pace));
        let (mut sent, mut lag) = (0_u64, Duration::ZERO);
        let window = self.window(|load| {
            while pace.due(sent) <= Instant::now() {
                load.send((sent % tunnels as u64) as usize);
                sent += 1;
            }
            lag = lag.max(pace.due(sent).elapsed());
            // Sleeping is too coarse for the next message unless it is far away.
            let left = pace.due(sent).saturating_duration_since(Instant::now());
            load.turn(if left > Duration::from_millis(2) { Duration::from_millis(1) } else { Duration::ZERO })
        })?;
        if lag > LAG_LIMIT {
            return Err(format!("the load fell {} ms behind its rate", lag.as_millis()));
        }
        self.round_trips(&window, Metric::MessagesPerSecond, Metric::CpuPerMessage);
        self.stragglers(sent)
    }

    /// Every message of a fixed rate must come back, also after the window.
    fn stragglers(&mut self, sent: u64) -> Result<(), String> {
        let until = Instant::now() + STRAGGLER_LIMIT;
        while self.load.tally().answered < sent && Instant::now() < until {
            self.load.turn(TURN).map_err(text)?;
        }
        let lost = sent.saturating_sub(self.load.tally().answered);
        if lost > 0 {
            self.load.tally().error(format!("{lost} of {sent} messages did not come back"));
        }
        Ok(())
    }

    fn round_trips(&mut self, window: &Window, rate: Metric, cost: Metric) {
        let messages = self.load.tally().messages as f64;
        self.put(rate, messages / window.wall);
        self.costs(window, cost, 1e6, messages);
        self.times();
    }
}
