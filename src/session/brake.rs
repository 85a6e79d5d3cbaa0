//! `upgrade_rate`: upgrade requests that come too thick are refused before anything else is done for them.

use super::{Session, tunnels::random};
use crate::{
    config::Level,
    http::refusal::Refusal,
    observe::{
        counters::Counters,
        error_log::{self, About},
    },
    proxy::Next,
    request::Request,
    worker::{Braked, Pending},
};

const BRAKED: Refusal = Refusal::new(503, "handshake_brake", "too many upgrade requests at once");

impl Session {
    /// Whether this worker takes a request now; an upgrade is under way for as long as what is returned lives. One that comes when no
    /// more tunnels are taken is not: it will be refused, and the end of the process must not wait for it.
    pub(super) fn brake(&self, request: &Request) -> Result<Option<Pending>, Braked> {
        if !request.head.fields.lists("Connection", "upgrade") {
            return Ok(None);
        }
        let pending = self.worker.brake.admit(self.generation.config.upgrade_rate, self.now_ms(), random())?;
        Ok((!self.worker.refuses_tunnels()).then_some(pending))
    }

    /// No page of the file, which might be a backend's, and no line in the log for each: both would cost what is to be spared.
    pub(super) async fn refuse_braked(&mut self, request: &mut Request, braked: Braked) -> Next {
        let counters = &self.worker.counters;
        Counters::bump(&counters.upgrades_refused);
        counters.refusals.bump(BRAKED.reason);
        if let Some(count) = braked.to_tell {
            let message = format_args!("limiting upgrades, {count} refused ({} {})", BRAKED.status, BRAKED.reason);
            error_log::event(&self.generation.logs, Level::Warn, &About::Connection(&self.client), message);
        }
        request.close_reason = Some(BRAKED.reason);
        let seconds = braked.retry_after_secs.to_string();
        let field = [("Retry-After", seconds.as_bytes())];
        self.own(request, BRAKED.status, "text/html", &BRAKED.page(), &field, false).await
    }
}
