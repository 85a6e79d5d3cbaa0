//! nginx's preaccess phase: `limit_req`, then `limit_conn`.

use std::{sync::Arc, time::Duration};

use super::Session;
use crate::{
    config::{Level, LimitConn, LimitReq, ONE_REQUEST},
    http::refusal::Refusal,
    observe::error_log::{self, About},
    reactor::{Either, race},
    request::Request,
    zone::{Key, Limited, Paced, Unplaced, Verdict, judge},
};

const LIMIT_CONN: &str = "limit_conn";
const LIMIT_REQ: &str = "limit_req";

impl Session {
    /// Holds a request to the limits of its location. Its places there are its own from now on.
    ///
    /// # Errors
    /// It is beyond them, or its client left while it had to wait.
    pub(super) async fn preaccess(&self, request: &mut Request) -> Result<(), Refusal> {
        let settings = Arc::clone(request.settings());
        if request.limit_req_status.is_none() {
            self.limit_req(request, &settings.limit_req).await?;
        }
        if request.limit_conn_status.is_none() {
            self.limit_conn(request, &settings.limit_conn)?;
        }
        Ok(())
    }

    async fn limit_req(&self, request: &mut Request, limits: &LimitReq) -> Result<(), Refusal> {
        let paced = self.paced(request, limits);
        if paced.is_empty() {
            return Ok(());
        }
        let (limited, wait_ms, excess, at) = match judge(&paced, self.now_ms()) {
            Verdict::Pass => {
                paced.iter().for_each(|paced| paced.zone.tally.bump(Limited::Passed));
                request.limit_req_status = Some(Limited::Passed);
                return Ok(());
            }
            Verdict::Delay { excess, at, .. } if limits.dry_run => (Limited::DelayedDryRun, 0, excess, at),
            Verdict::Delay { ms, excess, at } => (Limited::Delayed, ms, excess, at),
            Verdict::Reject { excess, at } if limits.dry_run => (Limited::RejectedDryRun, 0, excess, at),
            Verdict::Reject { excess, at } => (Limited::Rejected, 0, excess, at),
        };
        let zone = paced[at].zone;
        zone.tally.bump(limited);
        request.limit_req_status = Some(limited);
        let excess = format!("excess: {}.{:03}", excess / ONE_REQUEST, excess % ONE_REQUEST);
        let name = &zone.identity.name;
        match limited {
            Limited::Passed => {}
            Limited::Rejected => {
                let detail = format!("limiting requests, {excess} by zone \"{name}\"");
                return Err(Refusal::private(limits.status, LIMIT_REQ, detail));
            }
            Limited::RejectedDryRun => self.tell(
                limits.level,
                request,
                format_args!("limiting requests, dry run, {excess} by zone \"{name}\""),
            ),
            Limited::DelayedDryRun => self.tell(
                limits.delay_level,
                request,
                format_args!("delaying request, dry run, {excess}, by zone \"{name}\""),
            ),
            Limited::Delayed => {
                self.tell(limits.delay_level, request, format_args!("delaying request, {excess}, by zone \"{name}\""));
                return self.delay(Duration::from_millis(wait_ms)).await;
            }
        }
        Ok(())
    }

    /// A request at each `limit_req` that has a key for it.
    fn paced(&self, request: &mut Request, limits: &LimitReq) -> Vec<Paced<'_>> {
        let config = Arc::clone(&request.config);
        let paced = limits.limits.iter().filter_map(|pace| {
            let (zone, rate) = &config.request_zones[pace.zone];
            let key = zone.key.expand(request);
            let zone = &*self.generation.zones.requests[pace.zone];
            let paced = Paced { zone, key: Key::of(&key), rate: *rate, burst: pace.burst, delay: pace.delay };
            (!key.is_empty()).then_some(paced)
        });
        paced.collect()
    }

    async fn delay(&self, time: Duration) -> Result<(), Refusal> {
        match race(self.stream.descriptor().hangup(), self.worker.reactor.sleep(time)).await {
            Either::Left(()) => {
                Err(Refusal::new(499, "client_closed", "client closed connection while its request was delayed"))
            }
            Either::Right(()) => Ok(()),
        }
    }

    fn limit_conn(&self, request: &mut Request, limits: &LimitConn) -> Result<(), Refusal> {
        let config = Arc::clone(&request.config);
        for (number, most) in &limits.limits {
            let key = config.connection_zones[*number].key.expand(request);
            if key.is_empty() {
                continue;
            }
            let zone = &self.generation.zones.connections[*number];
            let why = match zone.enter(Key::of(&key), *most) {
                Ok(place) => {
                    zone.tally.bump(Limited::Passed);
                    request.limit_conn_status = Some(Limited::Passed);
                    request.places.push(place);
                    continue;
                }
                Err(why) => why,
            };
            // One that is not let in counts nowhere.
            request.places.clear();
            let limited = if limits.dry_run { Limited::RejectedDryRun } else { Limited::Rejected };
            zone.tally.bump(limited);
            request.limit_conn_status = Some(limited);
            let dry_run = if limits.dry_run { ", dry run," } else { "" };
            let name = &zone.identity.name;
            let detail = match why {
                Unplaced::Limit => format!("limiting connections{dry_run} by zone \"{name}\""),
                Unplaced::NoMemory => format!("limiting connections{dry_run}, no memory in zone \"{name}\""),
            };
            if !limits.dry_run {
                return Err(Refusal::private(limits.status, LIMIT_CONN, detail));
            }
            self.tell(limits.level, request, format_args!("{detail}"));
            return Ok(());
        }
        Ok(())
    }

    /// At which level a refusal is logged, where it is one of these; asked while the request is where it was refused.
    pub(super) fn limit_level(request: &Request, refusal: &Refusal) -> Option<Level> {
        let settings = request.settings();
        match refusal.reason {
            LIMIT_CONN => Some(settings.limit_conn.level),
            LIMIT_REQ => Some(settings.limit_req.level),
            _ => None,
        }
    }

    /// Milliseconds since the process began: one clock for all workers.
    pub(super) fn now_ms(&self) -> u64 {
        let began = self.generation.board.started();
        let since = self.worker.reactor.now().saturating_duration_since(began).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn tell(&self, level: Level, request: &Request, message: std::fmt::Arguments<'_>) {
        error_log::event(&self.generation.logs, level, &About::Request(request), message);
    }
}
