//! A walk through a worker's tunnels for those that stand out: some at a time, so that the others are not kept waiting.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use crate::{
    limits::{SURVEY_PLACES_PER_TURN, SURVEY_TUNNELS},
    observe::{errand::Outstanding, status::Tunnel, tally::server_name},
    reactor::yield_now,
    record::Record,
    tunnel::Look,
    worker::Worker,
};

/// The largest of what it is given, by number of the tunnel.
#[derive(Default)]
struct Top(BinaryHeap<Reverse<(u64, u32)>>);

impl Top {
    fn offer(&mut self, value: u64, number: u32) {
        if self.0.len() < SURVEY_TUNNELS {
            self.0.push(Reverse((value, number)));
        } else if self.0.peek().is_some_and(|Reverse((least, _))| *least < value) {
            self.0.pop();
            self.0.push(Reverse((value, number)));
        }
    }

    fn numbers(self) -> impl Iterator<Item = u32> {
        self.0.into_sorted_vec().into_iter().map(|Reverse((_, number))| number)
    }
}

/// The tunnels of a worker that stand out.
pub async fn outstanding(worker: &Worker) -> Outstanding {
    let (mut longest, mut busiest) = (Top::default(), Top::default());
    let now = Instant::now();
    in_turns(worker, |number, tunnel| {
        longest.offer(tunnel.record.age(now).as_millis() as u64, number);
        busiest.offer(tunnel.from_client + tunnel.from_upstream, number);
    })
    .await;
    let tunnels = worker.tunnels.borrow();
    // One that has gone since is left out.
    let told = |number| tunnels.look(number).map(|tunnel| told(&tunnel, worker.id, now));
    Outstanding {
        longest: longest.numbers().filter_map(told).collect(),
        busiest: busiest.numbers().filter_map(told).collect(),
    }
}

/// The numbers of those tunnels of a worker that `is_wanted`.
pub async fn numbers(worker: &Worker, is_wanted: impl Fn(&Record) -> bool) -> Vec<u32> {
    let mut numbers = Vec::new();
    in_turns(worker, |number, tunnel| {
        if is_wanted(tunnel.record) {
            numbers.push(number);
        }
    })
    .await;
    numbers
}

async fn in_turns(worker: &Worker, mut look: impl FnMut(u32, Look<'_, Record>)) {
    let mut next = 0;
    while let Some(place) = turn(worker, next, &mut look) {
        next = place;
        yield_now().await;
    }
}

/// Looks at some tunnels, from this place on; the next place, if there is one.
fn turn(worker: &Worker, from: u32, look: &mut impl FnMut(u32, Look<'_, Record>)) -> Option<u32> {
    let tunnels = worker.tunnels.borrow();
    let (end, places) = (from + SURVEY_PLACES_PER_TURN, tunnels.places());
    for number in from..end.min(places) {
        if let Some(tunnel) = tunnels.look(number) {
            look(number, tunnel);
        }
    }
    (end < places).then_some(end)
}

fn told(tunnel: &Look<'_, Record>, worker: usize, now: Instant) -> Tunnel {
    let record = tunnel.record;
    let generation = record.generation();
    let server = generation.config.servers.get(record.server());
    let location = server.zip(record.location()).and_then(|(server, location)| server.locations.get(location));
    Tunnel {
        id: record.serial(),
        worker,
        client: record.client().to_string(),
        server: server_name(&generation.config, record.server()),
        location: location.map_or_else(String::new, |location| location.name.to_string()),
        upstream: record.upstream().to_string(),
        age_s: record.age(now).as_secs_f64(),
        idle_s: tunnel.idle.as_secs_f64(),
        bytes_from_client: tunnel.from_client,
        bytes_from_upstream: tunnel.from_upstream,
        frames_from_client: tunnel.frames_from_client.into(),
        frames_from_upstream: tunnel.frames_from_upstream.into(),
        tls: record.is_tls(),
        generation: generation.number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_is_the_largest_in_order() {
        let mut top = Top::default();
        for number in 0..1_000u32 {
            top.offer(u64::from(number * 7919 % 1_000), number);
        }
        let values: Vec<_> = top.numbers().map(|number| number * 7919 % 1_000).collect();
        assert_eq!(values, (980..1_000).rev().collect::<Vec<_>>());
    }
}
