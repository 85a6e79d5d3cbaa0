//! What a worker does when a burst of work is over.

use std::{rc::Rc, time::Duration};

use super::Worker;
use crate::{limits::REST_AFTER_MS, sys};

/// Waits until nothing has come for a while, then gives back what the burst has left behind: a handshake takes twenty times the memory
/// of the tunnel it becomes, and the allocator keeps it until it is asked.
pub(super) async fn after_burst(worker: Rc<Worker>) {
    let mut before = 0;
    while worker.work.get() != before {
        before = worker.work.get();
        worker.reactor.sleep(Duration::from_millis(REST_AFTER_MS)).await;
    }
    worker.work.set(0);
    worker.tunnels.borrow_mut().shrink();
    worker.reactor.shrink();
    sys::give_memory_back();
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use monoio::{LegacyDriver, RuntimeBuilder};

    use super::*;
    use crate::{generation::tests::generation, limits::BURST, reactor::yield_now, request::tests::config};

    fn worker() -> Rc<Worker> {
        let generation = generation(Arc::new(config(Vec::new(), Vec::new())));
        let balance = Arc::new(crate::balance::Balance::new(1).unwrap());
        Worker::new(0, generation, Arc::default(), balance).unwrap()
    }

    /// Runs the worker for so long, with a piece of work every now and then; true when it was at rest meanwhile.
    async fn rested(worker: &Rc<Worker>, time: Duration, every: Duration) -> bool {
        let (start, mut last) = (Instant::now(), Instant::now());
        while start.elapsed() < time {
            if last.elapsed() > every {
                last = Instant::now();
                worker.worked();
            }
            worker.reactor.turn(&mut Vec::new()).unwrap();
            worker.reactor.advance(&mut Vec::new()).unwrap();
            yield_now().await;
            if worker.work.get() == 0 {
                return true;
            }
        }
        false
    }

    #[test]
    fn a_worker_rests_after_a_burst_and_not_within_it() {
        let worker = worker();
        RuntimeBuilder::<LegacyDriver>::new().build().unwrap().block_on(async {
            (0..BURST).for_each(|_| worker.worked());
            let rest = Duration::from_millis(REST_AFTER_MS);
            assert!(!rested(&worker, rest * 3, rest / 10).await, "it rested under load");
            assert!(rested(&worker, rest * 10, rest * 20).await, "it never rested");
            // And again after the next.
            (0..BURST).for_each(|_| worker.worked());
            assert!(rested(&worker, rest * 10, rest * 20).await, "it rested once only");
        });
    }
}
