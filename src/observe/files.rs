//! Which logs are open, and how many configurations write to each.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    queue::{Order, Queue, SinkId},
    sink::Sink,
    writer,
};
use crate::config::{LogBuffer, LogTarget};

/// A log that a configuration writes to; its path is absolute.
pub(super) type Wanted = (LogTarget, Option<LogBuffer>);

/// Every log of the process. Dropped with the last configuration, it ends the writer.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) queue: Arc<Queue>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: SinkId,
    open: HashMap<LogTarget, Open>,
}

#[derive(Debug)]
struct Open {
    sink: SinkId,
    /// Configurations that write to it.
    users: usize,
}

impl Files {
    /// Starts the writer, with no log.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let queue = Arc::new(Queue::default());
        writer::start(Arc::clone(&queue))?;
        Ok(Arc::new(Self { queue, state: Mutex::default() }))
    }

    /// Opens what is not open yet. All or nothing: after an error everything is as it was.
    ///
    /// # Errors
    /// Every log that cannot be opened.
    pub(super) fn acquire(&self, wanted: &[Wanted]) -> Result<HashMap<LogTarget, SinkId>, Vec<(LogTarget, io::Error)>> {
        let mut state = self.state();
        let (mut opened, mut errors) = (Vec::new(), Vec::new());
        for (target, _) in wanted.iter().filter(|(target, _)| !state.open.contains_key(target)) {
            match Sink::open(target, &self.queue.tally) {
                Ok(sink) => opened.push((target, sink)),
                Err(error) => errors.push((target.clone(), error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for (target, sink) in opened {
            let id = state.next;
            state.next += 1;
            state.open.insert(target.clone(), Open { sink: id, users: 0 });
            self.queue.order([Order::Open(id, sink)]);
        }
        let mut ids = HashMap::new();
        for (target, buffer) in wanted {
            let Some(open) = state.open.get_mut(target) else { continue };
            open.users += 1;
            self.queue.order([Order::Buffer(open.sink, *buffer)]);
            ids.insert(target.clone(), open.sink);
        }
        Ok(ids)
    }

    /// A configuration is gone: closes what no other writes to.
    pub(super) fn release<'a>(&self, targets: impl IntoIterator<Item = &'a LogTarget>) {
        let mut state = self.state();
        for target in targets {
            let Some(open) = state.open.get_mut(target) else { continue };
            open.users -= 1;
            if open.users == 0 {
                self.queue.order([Order::Close(open.sink)]);
                state.open.remove(target);
            }
        }
    }

    // Nothing below panics; numbers half-updated would only leave a file open.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.queue.close();
    }
}
