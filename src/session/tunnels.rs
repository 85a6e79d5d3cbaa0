//! A session's tunnel: how long it may live, and its lines in the access log.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use crate::{
    config::{Level, Settings, TunnelEvent},
    observe::{
        access_log,
        counters::Counters,
        error_log::{self, About},
    },
    record::Record,
    request::Traffic,
    tunnel::{Finished, Outcome, Reason, Terms},
    worker::Worker,
};

/// How long a tunnel may live. What was opened together is not closed together: some of the lifetime, at random, is taken off.
pub(super) fn terms(settings: &Settings) -> Terms {
    let off = f64::from(settings.lifetime_jitter) / 100.0 * random();
    let is_told_of = settings.access_logs.iter().any(|log| log.events.has(TunnelEvent::Interval));
    Terms {
        idle: settings.tunnel_timeout,
        ping: settings.ping,
        lifetime: settings.max_lifetime.mul_f64(1.0 - off),
        report: if is_told_of { settings.access_log_interval } else { Duration::ZERO },
    }
}

/// At least 0, less than 1: std keys its hashers with the system's randomness.
pub(super) fn random() -> f64 {
    f64::from(RandomState::new().build_hasher().finish() as u32) / (f64::from(u32::MAX) + 1.0)
}

fn traffic(outcome: &Outcome) -> Traffic {
    Traffic {
        from_client: outcome.from_client,
        from_upstream: outcome.from_upstream,
        frames_from_client: outcome.frames_from_client.into(),
        frames_from_upstream: outcome.frames_from_upstream.into(),
    }
}

/// `access_log_interval` has passed for a tunnel.
pub fn tunnel_goes_on(worker: &Rc<Worker>, number: u32) {
    let mut tunnels = worker.tunnels.borrow_mut();
    let Some(look) = tunnels.look(number) else { return };
    let traffic = Traffic {
        from_client: look.from_client,
        from_upstream: look.from_upstream,
        frames_from_client: look.frames_from_client.into(),
        frames_from_upstream: look.frames_from_upstream.into(),
    };
    let Some(record) = tunnels.record_mut(number) else { return };
    record.write_lines(TunnelEvent::Interval, traffic, worker.reactor.now());
}

/// The end of a tunnel: its line in the access log.
pub fn tunnel_ended(worker: &Rc<Worker>, finished: Finished<Record>) {
    let Finished { record, outcome, detail } = finished;
    let generation = Arc::clone(record.generation());
    let logs = &generation.logs;
    generation.tunnel_ended(record.server());
    let (mut request, sealed) = record.into_request(worker.reactor.now());
    Counters::bump(&worker.counters.tunnels_ended);
    worker.worked();
    worker.counters.closes.bump(outcome.reason.label());
    request.close_reason = Some(outcome.reason.label());
    request.tunnel(TunnelEvent::Close, traffic(&outcome), worker.reactor.now());
    request.completed = matches!(outcome.reason, Reason::ClientClosed | Reason::UpstreamClosed);
    let level = match outcome.reason {
        Reason::ProtocolError | Reason::TlsError => Level::Warn,
        Reason::InternalError => Level::Alert,
        Reason::HostShortage => Level::Crit,
        Reason::UpstreamReset => Level::Error,
        _ => Level::Info,
    };
    let detail = detail.as_deref().unwrap_or("tunnel closed");
    error_log::event(logs, level, &About::Request(&request), format_args!("{detail} ({})", outcome.reason));
    match sealed {
        Some(sealed) => access_log::record_sealed(logs, &sealed, &mut request),
        None => access_log::record(logs, &mut request),
    }
}
