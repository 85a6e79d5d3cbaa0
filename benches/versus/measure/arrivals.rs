//! Clients that come: one after the other, or all at once.

use std::time::{Duration, Instant};

use super::{OPEN_LIMIT, Run, TURN, text};
use crate::metric::Metric;

/// How long a proxy has to close its connections to the backend when their clients have gone.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

impl Run<'_> {
    pub(super) fn handshakes(&mut self, slots: usize, resumed: bool) -> Result<(), String> {
        if resumed {
            // Each of these leaves a ticket at least; every session that goes on from one brings the next.
            self.open(slots)?;
        }
        self.load.churn(slots, resumed).map_err(text)?;
        let window = self.closed_loop()?;
        let opened = self.load.tally().opened as f64;
        self.put(Metric::HandshakesPerSecond, opened / window.wall);
        self.costs(&window, Metric::CpuPerHandshake, 1e6, opened);
        self.times();
        Ok(())
    }

    pub(super) fn storm(&mut self, clients: usize) -> Result<(), String> {
        self.open(clients)?;
        self.load.tally().restart();
        let before = self.clocks()?;
        self.load.hang_up(0..clients);
        self.load.open_at_once(clients, Instant::now() + OPEN_LIMIT)?;
        let window = self.since(&before)?;
        self.put(Metric::AllOpen, window.wall * 1e3);
        self.costs(&window, Metric::CpuPerHandshake, 1e6, clients as f64);
        self.times();
        self.others_gone(clients)?;
        self.use_once(clients..2 * clients)
    }

    /// Waits until nothing is left at the backend but these tunnels.
    pub(super) fn others_gone(&mut self, tunnels: usize) -> Result<(), String> {
        let until = Instant::now() + CLOSE_LIMIT;
        while self.load.connections() > 2 * tunnels {
            self.load.turn(TURN).map_err(text)?;
            if Instant::now() > until {
                let left = self.load.connections() - 2 * tunnels;
                return Err(format!("{left} connections to the backend were kept though their clients had gone"));
            }
        }
        Ok(())
    }
}
