//! Tasks that wait for something that other tasks bring about.

use std::{
    cell::RefCell,
    future::poll_fn,
    mem,
    task::{Poll, Waker},
};

use slab::Slab;

/// Wakes whoever waits at it; what they wait for is their own business. A place at it is given back when the wait ends or is
/// dropped: thousands of idle connections come and go.
#[derive(Debug, Default)]
pub struct Gate {
    waiting: RefCell<Slab<Waker>>,
}

impl Gate {
    /// Waits until `condition` holds; looked at now and at every [`Gate::wake`].
    pub async fn until(&self, condition: impl Fn() -> bool) {
        let mut place = Place { gate: self, key: None };
        poll_fn(|context| {
            if condition() {
                return Poll::Ready(());
            }
            place.keep(context.waker());
            Poll::Pending
        })
        .await;
    }

    /// Wakes all.
    pub fn wake(&self) {
        self.waiting.borrow().iter().for_each(|(_, waker)| waker.wake_by_ref());
    }

    /// Forgets all: nothing will come any more. See [`super::Reactor::abandon`].
    pub fn abandon(&self) {
        let forgotten: Vec<Waker> =
            self.waiting.borrow_mut().iter_mut().map(|(_, waker)| mem::replace(waker, Waker::noop().clone())).collect();
        // A task that ends by this gives its place back: not while the places are walked through.
        drop(forgotten);
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// True when nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

struct Place<'a> {
    gate: &'a Gate,
    key: Option<usize>,
}

impl Place<'_> {
    fn keep(&mut self, waker: &Waker) {
        let mut waiting = self.gate.waiting.borrow_mut();
        match self.key {
            Some(key) => waiting[key].clone_from(waker),
            None => self.key = Some(waiting.insert(waker.clone())),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.gate.waiting.borrow_mut().remove(key);
            drop(waker);
        }
    }
}
