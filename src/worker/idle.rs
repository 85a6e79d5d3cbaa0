//! The task that looks after a worker's idle connections to backends.

use std::rc::Rc;

use super::Worker;
use crate::{
    config::KeepIdle,
    pool::{Group, Kept, Peer},
    reactor::race,
};

impl Worker {
    /// Keeps a connection to a backend behind a complete response. It is closed instead when the worker is on its way out, and when a
    /// reload has made another generation current.
    pub fn keep_backend(self: &Rc<Self>, group: Group, limits: &KeepIdle, peer: Peer, kept: Kept) {
        if !self.keeps(&group) {
            return;
        }
        self.pool.keep(group, limits, peer, kept, self.reactor.now());
        if self.pool.wants_watcher() {
            self.spawn(look_after(Rc::clone(self)));
        }
    }

    fn keeps(&self, group: &Group) -> bool {
        !self.is_draining() && self.generation.borrow().number == group.generation
    }
}

/// Closes idle connections when their time is up, their backend leaves, their generation is no longer the current one, or the worker
/// is told to end. Ends when there are none.
async fn look_after(worker: Rc<Worker>) {
    while let Some(patience) = worker.pool.patience(worker.reactor.now()) {
        let generation = worker.generation().number;
        let changed = worker.until(|| worker.is_draining() || worker.generation.borrow().number != generation);
        let _ = worker.reactor.within(patience, race(worker.pool.left(), changed)).await;
        worker.pool.sweep(worker.reactor.now(), |group| worker.keeps(group));
    }
}
