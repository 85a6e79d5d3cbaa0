//! Messages on their way to a worker.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::Message;
use crate::balance::Bell;

/// What a worker is told. Nothing that it takes is lost: a worker that ends closes it, and gets what is in it once more.
#[derive(Debug)]
pub struct Inbox {
    /// None once it is closed.
    waiting: Mutex<Option<Vec<Message>>>,
    bell: Bell,
}

impl Inbox {
    /// An empty one of the worker that hears this bell.
    pub fn new(bell: Bell) -> Self {
        Self { waiting: Mutex::new(Some(Vec::new())), bell }
    }

    /// Sends a message and wakes the worker.
    ///
    /// # Errors
    /// The message, when the worker has ended.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        match self.waiting().as_mut() {
            Some(waiting) => waiting.push(message),
            None => return Err(message),
        }
        self.bell.ring();
        Ok(())
    }

    /// What was sent since the last call.
    pub fn take(&self) -> Vec<Message> {
        self.waiting().as_mut().map(mem::take).unwrap_or_default()
    }

    /// As [`Inbox::take`], for the last time.
    pub fn close(&self) -> Vec<Message> {
        self.waiting().take().unwrap_or_default()
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Vec<Message>>> {
        // Every change is one push or one swap.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Balance;

    #[test]
    fn what_is_taken_in_comes_out_and_nothing_is_taken_in_behind_the_end() {
        let inbox = Inbox::new(Balance::new(1).unwrap().own_bell(0));
        let listen = || Message::Listen(Vec::new());
        inbox.send(listen()).unwrap();
        assert!(matches!(inbox.take()[..], [Message::Listen(_)]));
        inbox.send(listen()).unwrap();
        assert!(matches!(inbox.close()[..], [Message::Listen(_)]));
        assert!(matches!(inbox.send(listen()), Err(Message::Listen(_))));
        assert!(inbox.take().is_empty() && inbox.close().is_empty());
    }
}
