//! What one worker asks of all: each does its part when its bell rings, and the last of them rings the askers' bells.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{status::Tunnel, tally::PeerTally};
use crate::limits::{SURVEY_KEPT_MS, SURVEY_TUNNELS};

/// See the module.
#[derive(Debug)]
pub struct Errand {
    /// What is to be done.
    pub task: Task,
    asked: Instant,
    people: Mutex<People>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Task {
    /// Tell of the tunnels that stand out.
    Survey(Mutex<Outstanding>),
    /// Close the tunnel of this number (`$connection`).
    Close {
        /// Its number.
        serial: u64,
        /// Somebody had it.
        found: AtomicBool,
    },
    /// Close so many of a hundred tunnels of a backend.
    Drain {
        /// The backend.
        peer: Arc<PeerTally>,
        /// So many of a hundred.
        percent: u8,
    },
}

#[derive(Debug)]
struct People {
    /// Workers that have not answered.
    left: usize,
    askers: Vec<usize>,
}

/// The tunnels that stand out.
#[derive(Debug, Default, Clone)]
pub struct Outstanding {
    /// The oldest, the oldest first.
    pub longest: Vec<Tunnel>,
    /// Those that moved the most bytes, the busiest first.
    pub busiest: Vec<Tunnel>,
}

impl Outstanding {
    /// Takes in what another worker found.
    pub fn merge(&mut self, other: Self) {
        self.longest.extend(other.longest);
        self.longest.sort_by(|one, other| other.age_s.total_cmp(&one.age_s));
        self.longest.truncate(SURVEY_TUNNELS);
        self.busiest.extend(other.busiest);
        self.busiest.sort_by_key(|tunnel| Reverse(tunnel.bytes_from_client + tunnel.bytes_from_upstream));
        self.busiest.truncate(SURVEY_TUNNELS);
    }
}

impl Errand {
    fn new(task: Task, workers: usize, asker: usize) -> Arc<Self> {
        let people = Mutex::new(People { left: workers, askers: vec![asker] });
        Arc::new(Self { task, asked: Instant::now(), people })
    }

    /// Every worker has done its part.
    pub fn is_done(&self) -> bool {
        self.people().left == 0
    }

    /// A worker has done its part; whom to tell of it.
    pub fn answered(&self) -> Vec<usize> {
        let mut people = self.people();
        people.left = people.left.saturating_sub(1);
        if people.left == 0 { std::mem::take(&mut people.askers) } else { Vec::new() }
    }

    /// What a survey found so far; nothing, of another errand.
    pub fn outstanding(&self) -> Outstanding {
        match &self.task {
            Task::Survey(found) => found.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Task::Close { .. } | Task::Drain { .. } => Outstanding::default(),
        }
    }

    /// Somebody had the tunnel that was to be closed.
    pub fn has_found(&self) -> bool {
        matches!(&self.task, Task::Close { found, .. } if found.load(Relaxed))
    }

    fn people(&self) -> MutexGuard<'_, People> {
        // Every change is complete when it is let go.
        self.people.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Errands that workers have not looked at, and the last survey.
#[derive(Debug, Default)]
pub struct Errands(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    by_worker: HashMap<usize, Vec<Arc<Errand>>>,
    survey: Option<Arc<Errand>>,
}

impl Errands {
    /// Asks these workers; their bells are for whoever asks to ring.
    pub fn ask(&self, task: Task, workers: &[usize], asker: usize) -> Arc<Errand> {
        self.waiting().ask(task, workers, asker)
    }

    /// The last survey while it is fresh, or a new one (true: its workers' bells are to be rung).
    pub fn survey(&self, workers: &[usize], asker: usize) -> (Arc<Errand>, bool) {
        let mut waiting = self.waiting();
        let fresh = |errand: &&Arc<Errand>| errand.asked.elapsed() < Duration::from_millis(SURVEY_KEPT_MS);
        if let Some(survey) = waiting.survey.as_ref().filter(fresh) {
            survey.people().askers.push(asker);
            return (Arc::clone(survey), false);
        }
        let survey = waiting.ask(Task::Survey(Mutex::default()), workers, asker);
        waiting.survey = Some(Arc::clone(&survey));
        (survey, true)
    }

    /// What a worker is asked.
    pub fn take(&self, worker: usize) -> Vec<Arc<Errand>> {
        self.waiting().by_worker.remove(&worker).unwrap_or_default()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn ask(&mut self, task: Task, workers: &[usize], asker: usize) -> Arc<Errand> {
        let errand = Errand::new(task, workers.len(), asker);
        for worker in workers {
            self.by_worker.entry(*worker).or_default().push(Arc::clone(&errand));
        }
        errand
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_answer_tells_all_askers() {
        let errands = Errands::default();
        let (survey, is_new) = errands.survey(&[0, 1], 0);
        let (same, again) = errands.survey(&[0, 1], 1);
        assert!(is_new && !again && Arc::ptr_eq(&survey, &same));
        assert_eq!((errands.take(0).len(), errands.take(0).len(), errands.take(1).len()), (1, 0, 1));
        assert!(survey.answered().is_empty() && !survey.is_done());
        assert_eq!(survey.answered(), [0, 1]);
        assert!(survey.is_done());
    }

    #[test]
    fn only_the_most_outstanding_are_kept() {
        let tunnel = |id: u64| Tunnel { id, age_s: id as f64, bytes_from_client: 1000 - id, ..Tunnel::default() };
        let found = |ids: std::ops::Range<u64>| Outstanding {
            longest: ids.clone().map(tunnel).collect(),
            busiest: ids.map(tunnel).collect(),
        };
        let mut sum = Outstanding::default();
        sum.merge(found(0..15));
        sum.merge(found(15..30));
        assert_eq!((sum.longest.len(), sum.longest[0].id), (SURVEY_TUNNELS, 29));
        assert_eq!((sum.busiest.len(), sum.busiest[0].id), (SURVEY_TUNNELS, 0));
    }
}
