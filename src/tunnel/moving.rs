//! Tunnels that go over from one worker's table to another's.

use std::io;

use super::{
    Break, Side, Table,
    half::{Marks, Waiting},
    life::Cold,
    state::Tunnel,
    token,
};
use crate::{observe::counters::Counters, scratch::Scratch};

/// A tunnel between two tables: both sockets, what waits, TLS, deadlines and all, and nobody who looks after it.
#[derive(Debug)]
pub struct Loose<R> {
    tunnel: Tunnel,
    cold: Cold<R>,
    /// Ticks without activity.
    quiet: u32,
    /// Pipes with bytes in them.
    pipes: usize,
}

impl<R> Loose<R> {
    /// What its owner gave along.
    pub fn record(&self) -> &R {
        &self.cold.record
    }
}

impl<R> Table<R> {
    /// Takes so many tunnels out, whichever come first.
    pub fn release_some(&mut self, count: usize) -> Vec<Loose<R>> {
        let numbers = self.tunnels.numbers();
        numbers.into_iter().take(count).filter_map(|number| self.release(number)).collect()
    }

    /// Takes a tunnel out, for [`Table::adopt`] of another table. Bytes that come meanwhile wait in its sockets.
    pub fn release(&mut self, number: u32) -> Option<Loose<R>> {
        let quiet = self.quiet(self.tunnels.get(number)?);
        let (tunnel, mut cold) = self.tunnels.remove(number)?;
        self.held -= tunnel.held();
        if let Some(timer) = cold.timer.take() {
            self.reactor.disarm(timer);
        }
        for side in [Side::Client, Side::Upstream] {
            self.reactor.forget(tunnel.fd(side));
        }
        let piped = |waiting: &&Waiting| matches!(waiting, Waiting::Piped(_));
        let pipes = tunnel.extra.as_ref().map_or(0, |extra| extra.waiting.iter().filter(piped).count());
        self.pipes.lend(pipes);
        Counters::grow(&self.counters.tunnels_moved_out, 1);
        Some(Loose { tunnel, cold, quiet, pipes })
    }

    /// Goes on with a tunnel of another table.
    pub fn adopt(&mut self, loose: Loose<R>, scratch: &mut Scratch) {
        let Loose { mut tunnel, cold, quiet, pipes } = loose;
        let number = self.tunnels.vacant();
        tunnel.last_active = (self.reactor.tick() as u32).wrapping_sub(quiet);
        self.pipes.borrow(pipes);
        self.held += tunnel.held();
        Counters::grow(&self.counters.tunnels_moved_in, 1);
        let added = [Side::Client, Side::Upstream].into_iter().try_for_each(|side| -> io::Result<()> {
            tunnel.half_mut(side).clear(Marks::QUEUED);
            let output = tunnel.half(side).is(Marks::HAS_OUTPUT);
            self.reactor.add(tunnel.fd(side), token(number, side), output)
        });
        self.tunnels.insert(tunnel, cold);
        if let Err(error) = added {
            return self.settle(number, Err(Break::shortage("epoll_ctl", &error)), scratch);
        }
        self.arm(number);
        // What the events of the other table said is forgotten with its queue.
        self.queue(number, Side::Client);
        self.queue(number, Side::Upstream);
    }
}
