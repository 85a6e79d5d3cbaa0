//! The connection that an attempt goes over: one that was kept, or a new one.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use super::{
    attempt::client_left,
    round::{Failed, Kind, Round},
};
use crate::{
    backend::{self, Blame, Connected, Way},
    config::Level,
    exchange::Progress,
    http::refusal::Refusal,
    pool::{Kept, Peer},
    reactor::{Either, race},
    upstream::{Backend, Choice},
};

impl Round<'_> {
    /// A connection that has waited for a request, or a new one.
    pub(super) async fn connect(&self, choice: &Choice, wire: &Wire, fresh: bool) -> Result<Kept, Failed> {
        let pool = self.pool.filter(|_| !fresh);
        if let Some(kept) = pool.and_then(|group| self.client.worker.pool.take(group, &self.peer(&choice.backend))) {
            wire.reused.set(true);
            return Ok(kept);
        }
        let started = Instant::now();
        let Connected { stream, port } = self.open(choice).await?;
        if let Some(tally) = self.tally(choice) {
            tally.connected(started.elapsed());
        }
        Ok(Kept { stream, requests: 0, opened: self.client.worker.reactor.now(), port })
    }

    /// Nothing is left of this request on a connection: another may use it.
    pub(super) fn give_back(&self, backend: &Backend, kept: Kept) {
        if let (Some(group), Some(limits)) = (self.pool, &self.keep) {
            self.client.worker.keep_backend(group, limits, self.peer(backend), kept);
        }
    }

    fn peer(&self, backend: &Backend) -> Peer {
        let tls = self.target.tls_name.as_deref();
        let tls = tls.map(|name| (Arc::clone(&self.settings.backend_tls), name.into()));
        Peer { backend: backend.clone(), tls, sources: self.target.sources.clone() }
    }

    async fn open(&self, choice: &Choice) -> Result<Connected, Failed> {
        let worker = &self.client.worker;
        let ports = &self.client.generation.upstreams.open.ports;
        let way = Way {
            backend: &choice.backend,
            preface: self.preface,
            tls_name: self.target.tls_name.as_deref(),
            settings: self.settings,
            sources: self.target.sources.as_deref(),
            ports,
        };
        let wire = Wire::default();
        let result = race(backend::connect(worker, &way), self.client.stream.descriptor().hangup()).await;
        ports.remarks().iter().for_each(|remark| worker.log(Level::Warn, format_args!("{remark}")));
        match result {
            Either::Left(Err(failed)) if failed.blame == Blame::Host => Err(wire.failed(failed.refusal, Kind::Host)),
            Either::Left(result) => result.map_err(|failed| {
                if let Some(tally) = self.tally(choice) {
                    tally.connect_errors.fetch_add(1, Relaxed);
                }
                let kind = match failed.refusal.status {
                    504 => Kind::Timeout,
                    _ if failed.blame == Blame::Ports => Kind::Ports,
                    _ => Kind::Error,
                };
                wire.failed(failed.refusal, kind)
            }),
            Either::Right(()) => Err(wire.failed(client_left(), Kind::Client)),
        }
    }
}

/// What went over the backend's connection so far.
#[derive(Default)]
pub(super) struct Wire {
    pub head_sent: Cell<bool>,
    /// Another request has used the connection before.
    pub reused: Cell<bool>,
    pub upload: Progress,
    pub received: Cell<u64>,
}

impl Wire {
    pub fn failed(&self, refusal: Refusal, kind: Kind) -> Failed {
        let stale = self.reused.get() && kind == Kind::Error && self.received.get() == 0;
        Failed { refusal, kind, sent: self.head_sent.get(), body_used: self.upload.taken.get() > 0, stale }
    }
}
