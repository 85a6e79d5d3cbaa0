//! A worker that leaves, and those who go on with its tunnels.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use super::{Inbox, Message};
use crate::{limits::TUNNELS_PER_MOVE, record::Record, tunnel::Loose, worker::Worker};

/// Who takes what a worker leaves behind; nobody, as long as it stays.
#[derive(Debug, Default)]
pub(super) struct Heirs {
    inboxes: RefCell<Vec<Arc<Inbox>>>,
    /// Whose turn it is.
    next: Cell<usize>,
}

impl Heirs {
    /// Names them: the worker leaves.
    pub fn name(&self, inboxes: Vec<Arc<Inbox>>) {
        self.inboxes.replace(inboxes);
    }

    /// There is somebody to hand tunnels to.
    pub fn are_there(&self) -> bool {
        !self.inboxes.borrow().is_empty()
    }

    /// Hands some of the worker's tunnels over, spread over all heirs. Those that nobody takes stay until they end.
    pub fn take_some(&self, worker: &Rc<Worker>) {
        let count = self.inboxes.borrow().len();
        if count == 0 || worker.tunnels.borrow().is_empty() {
            return;
        }
        let mut shares: Vec<Vec<Loose<Record>>> = (0..count).map(|_| Vec::new()).collect();
        let mut tunnels = worker.tunnels.borrow_mut();
        for (place, tunnel) in tunnels.release_some(TUNNELS_PER_MOVE).into_iter().enumerate() {
            shares[place % count].push(tunnel);
        }
        drop(tunnels);
        let refused: Vec<_> = shares.into_iter().filter_map(|share| self.give(share)).flatten().collect();
        if !refused.is_empty() {
            self.inboxes.borrow_mut().clear();
            adopt(worker, refused);
        }
        worker.connections_ended();
    }

    /// Gives tunnels to the next heir that takes them.
    fn give(&self, share: Vec<Loose<Record>>) -> Option<Vec<Loose<Record>>> {
        if share.is_empty() {
            return None;
        }
        let inboxes = self.inboxes.borrow();
        let mut message = Message::Adopt(share);
        for _ in 0..inboxes.len() {
            let heir = self.next.replace(self.next.get() + 1) % inboxes.len();
            match inboxes[heir].send(message) {
                Ok(()) => return None,
                Err(refused) => message = refused,
            }
        }
        match message {
            Message::Adopt(share) => Some(share),
            _ => None,
        }
    }
}

/// Goes on with the tunnels of another worker.
pub(super) fn adopt(worker: &Rc<Worker>, tunnels: Vec<Loose<Record>>) {
    let (mut table, scratch) = (worker.tunnels.borrow_mut(), &mut worker.scratch.borrow_mut());
    tunnels.into_iter().for_each(|tunnel| table.adopt(tunnel, scratch));
    drop(table);
    worker.connections_ended();
}
