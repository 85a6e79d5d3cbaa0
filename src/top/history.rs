//! What was: the rates between two answers, and enough of them for a sparkline.

use std::collections::{HashMap, VecDeque};

use crate::observe::status::{Status, Tunnel, Worker};

/// As many samples as the widest terminal has columns for a sparkline.
const SAMPLES: usize = 512;

/// The last answers, as far as they are needed.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    /// The newest two answers: rates lie between them.
    pub now: Status,
    before: Option<Status>,
}

/// One answer: what is open, and growth a second of what is counted. None where there is nothing to compare with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    pub tunnels: Option<f64>,
    pub opened: Option<f64>,
    pub closed: Option<f64>,
    pub frames_in: Option<f64>,
    pub frames_out: Option<f64>,
    pub bytes_in: Option<f64>,
    pub bytes_out: Option<f64>,
    pub upgraded: Option<f64>,
    pub declined: Option<f64>,
    pub refused: Option<f64>,
    pub failed: Option<f64>,
}

impl History {
    /// Takes an answer in.
    pub fn add(&mut self, status: Status) {
        let before = std::mem::replace(&mut self.now, status);
        // Another process: its counters began anew.
        let same = before.pid == self.now.pid && before.started_ms == self.now.started_ms;
        self.before = same.then_some(before);
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(self.sample());
    }

    /// The newest.
    pub fn last(&self) -> Sample {
        self.samples.back().copied().unwrap_or_default()
    }

    pub fn all(&self, pick: fn(&Sample) -> Option<f64>) -> impl DoubleEndedIterator<Item = Option<f64>> {
        self.samples.iter().map(pick)
    }

    /// What a counter grew by, a second.
    pub fn growth(&self, pick: impl Fn(&Status) -> u64) -> Option<f64> {
        self.between(pick(&self.now), pick(self.before.as_ref()?))
    }

    /// By worker: messages and bytes a second.
    pub fn workers(&self) -> HashMap<usize, (Option<f64>, Option<f64>)> {
        let Some(before) = &self.before else { return HashMap::new() };
        let earlier: HashMap<usize, &Worker> = before.workers.iter().map(|worker| (worker.id, worker)).collect();
        let rates = self.now.workers.iter().filter_map(|now| {
            let before = earlier.get(&now.id)?;
            let rates = (
                self.between(frames(now), frames(before)),
                self.between(bytes_of_worker(now), bytes_of_worker(before)),
            );
            Some((now.id, rates))
        });
        rates.collect()
    }

    /// By tunnel, of those that were listed before: bytes a second.
    pub fn tunnels(&self) -> HashMap<u64, f64> {
        let Some(before) = &self.before else { return HashMap::new() };
        let earlier: HashMap<u64, u64> =
            before.busiest.iter().chain(&before.longest).map(|tunnel| (tunnel.id, bytes(tunnel))).collect();
        let now = self.now.busiest.iter().chain(&self.now.longest);
        now.filter_map(|now| Some((now.id, self.between(bytes(now), *earlier.get(&now.id)?)?))).collect()
    }

    fn between(&self, now: u64, before: u64) -> Option<f64> {
        let ms = self.now.now_ms.saturating_sub(self.before.as_ref()?.now_ms);
        (ms > 0).then(|| now.saturating_sub(before) as f64 * 1000.0 / ms as f64)
    }

    fn sample(&self) -> Sample {
        Sample {
            tunnels: Some(self.now.tunnels.open as f64),
            opened: self.growth(|status| status.tunnels.opened),
            closed: self.growth(|status| status.tunnels.closed),
            frames_in: self.growth(|status| status.frames.from_client),
            frames_out: self.growth(|status| status.frames.from_upstream),
            bytes_in: self.growth(|status| status.bytes.from_client),
            bytes_out: self.growth(|status| status.bytes.from_upstream),
            upgraded: self.growth(|status| status.handshakes.upgraded),
            declined: self.growth(|status| status.handshakes.declined),
            refused: self.growth(|status| status.handshakes.refused),
            failed: self.growth(|status| status.handshakes.failed),
        }
    }
}

impl Sample {
    /// Both directions together.
    pub fn frames(&self) -> Option<f64> {
        Some(self.frames_in? + self.frames_out?)
    }

    pub fn bytes(&self) -> Option<f64> {
        Some(self.bytes_in? + self.bytes_out?)
    }

    /// However they ended.
    pub fn handshakes(&self) -> Option<f64> {
        Some(self.upgraded? + self.declined? + self.refused? + self.failed?)
    }
}

fn bytes(tunnel: &Tunnel) -> u64 {
    tunnel.bytes_from_client.saturating_add(tunnel.bytes_from_upstream)
}

fn bytes_of_worker(worker: &Worker) -> u64 {
    worker.bytes_from_client.saturating_add(worker.bytes_from_upstream)
}

fn frames(worker: &Worker) -> u64 {
    worker.frames_from_client.saturating_add(worker.frames_from_upstream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pid: u32, now_ms: u64, opened: u64) -> Status {
        let mut status = Status { pid, now_ms, ..Status::default() };
        status.tunnels.opened = opened;
        status
    }

    #[test]
    fn rates_lie_between_two_answers_of_one_process() {
        let mut history = History::default();
        history.add(status(1, 1000, 10));
        assert_eq!(history.last().opened, None, "nothing to compare with");
        history.add(status(1, 3000, 20));
        assert_eq!(history.last().opened, Some(5.0));
        history.add(status(2, 4000, 1));
        assert_eq!(history.last().opened, None, "another process counts from the beginning");
        history.add(status(2, 4000, 2));
        assert_eq!(history.last().opened, None, "no time has passed");
        history.add(status(2, 5000, 1));
        assert_eq!(history.last().opened, Some(0.0), "a counter that sank did not grow");
    }

    #[test]
    fn only_so_much_is_kept() {
        let mut history = History::default();
        for n in 0..2 * SAMPLES as u64 {
            history.add(status(1, n, 0));
        }
        assert_eq!(history.all(|sample| sample.tunnels).count(), SAMPLES);
    }
}
