//! A worker's pipes for splice: taken for a transfer, given back empty.

use std::io;

use crate::{
    limits::{PIPE_BYTES, PIPES_IN_USE, PIPES_POOLED},
    sys::Pipe,
};

/// The pool. A pipe is never given back with bytes in it: they would come out in another tunnel.
#[derive(Debug, Default)]
pub struct Pipes {
    idle: Vec<Pipe>,
    in_use: usize,
    trouble: Option<Trouble>,
}

/// A call that the host did not let succeed, and its error: bytes were copied instead.
#[derive(Debug)]
pub struct Trouble {
    /// Which.
    pub call: &'static str,
    /// Why.
    pub error: io::Error,
}

impl Pipes {
    /// An empty pipe; none past [`PIPES_IN_USE`] or without a descriptor: the caller copies instead.
    pub fn take(&mut self) -> Option<Pipe> {
        if self.in_use >= PIPES_IN_USE {
            return None;
        }
        let pipe = match self.idle.pop() {
            Some(pipe) => pipe,
            None => Pipe::open(PIPE_BYTES).map_err(|error| self.note("pipe2", error)).ok()?,
        };
        self.in_use += 1;
        Some(pipe)
    }

    /// Takes note of a call that failed for a reason of the host's.
    pub fn note(&mut self, call: &'static str, error: io::Error) {
        self.trouble = Some(Trouble { call, error });
    }

    /// The last of them since it was asked for.
    pub fn trouble(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }

    /// Closes those that are only kept.
    pub fn close_idle(&mut self) {
        self.idle.clear();
    }

    /// Takes back a pipe that is empty.
    pub fn give_back(&mut self, pipe: Pipe) {
        self.in_use -= 1;
        if self.idle.len() < PIPES_POOLED {
            self.idle.push(pipe);
        }
    }

    /// Closes a pipe that may still hold bytes.
    pub fn discard(&mut self, pipe: Pipe) {
        self.in_use -= 1;
        drop(pipe);
    }

    /// So many pipes in use go to the pool of another table, bytes and all.
    pub fn lend(&mut self, pipes: usize) {
        self.in_use -= pipes;
    }

    /// So many pipes in use have come from another.
    pub fn borrow(&mut self, pipes: usize) {
        self.in_use += pipes;
    }

    /// Pipes in use.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Pipes waiting for their next use.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }
}
