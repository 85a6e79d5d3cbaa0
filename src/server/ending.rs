//! How the process ends: quickly, or when its tunnels have been let go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Phase, Server};
use crate::{
    limits::{RELOAD_POLL_MS, STOP_LINGER_MS, STOP_POLL_MS, STOP_WAIT_SECS, SUPERVISE_MS},
    observe::board::State,
    runtime::Message,
    tunnel::Reason,
    websocket::close::GOING_AWAY,
    worker::drain::Quit,
};

impl Server {
    /// Lets the tunnels go, finishes requests, and ends; with `drain_delay` not at once. Told again, it goes on.
    pub(super) fn quit(&mut self) {
        if self.phase != Phase::Serving {
            return self.notice(format_args!("SIGQUIT: quitting already; SIGTERM ends it now"));
        }
        let drain = self.generation.config.main.drain;
        self.notice(format_args!(
            "SIGQUIT: quitting; tunnels are closed over {} s after {} s, all connections within {} s",
            drain.window.as_secs_f32(),
            drain.delay.as_secs_f32(),
            drain.timeout.as_secs_f32()
        ));
        self.board.set_state(State::Draining);
        self.let_go("draining");
        // With a successor nobody has to be told to send no more.
        let delay = if self.is_accompanied() { Duration::ZERO } else { drain.delay };
        self.phase = Phase::Leaving(Instant::now() + delay);
        self.go_on();
    }

    /// Closes everything now, as well as half a second allows.
    pub(super) fn stop(&mut self) {
        if !matches!(self.phase, Phase::Stopping(_)) {
            self.phase = Phase::Stopping(Instant::now() + Duration::from_secs(STOP_WAIT_SECS));
            self.board.set_state(State::Stopping);
            self.let_go("stopping");
            self.tell(|| {
                Message::Quit(Quit {
                    keep_listeners: false,
                    window: Duration::ZERO,
                    timeout: Duration::from_millis(STOP_LINGER_MS),
                    reason: Reason::Shutdown,
                    code: GOING_AWAY,
                })
            });
        }
    }

    /// What its phase brings with time.
    pub(super) fn go_on(&mut self) {
        match &mut self.phase {
            Phase::Leaving(until) if Instant::now() >= *until => self.drain(),
            Phase::Draining { until, pulse } => {
                let until = *until;
                // Who has heard takes no more tunnels: all there is to wait for has been counted. (`strong_count` would do, but orders
                // nothing: what the workers counted before they heard might not be seen yet.)
                let all_have_heard = Arc::get_mut(pulse).is_some();
                // With the last tunnel nobody is left who could come back at once.
                if all_have_heard && self.board.tunnels_left() == 0 {
                    self.phase = Phase::Quitting(until);
                    self.tell(|| Message::Listen(Vec::new()));
                }
            }
            _ => {}
        }
    }

    fn drain(&mut self) {
        let drain = self.generation.config.main.drain;
        let until = Instant::now() + drain.timeout + Duration::from_secs(STOP_WAIT_SECS);
        let keep_listeners = !self.is_accompanied();
        self.tell(|| {
            Message::Quit(Quit {
                keep_listeners,
                window: drain.window,
                timeout: drain.timeout,
                reason: Reason::Drain,
                code: drain.code,
            })
        });
        let pulse = Arc::new(());
        // Messages are obeyed in their order.
        self.tell(|| Message::Pulse(Arc::clone(&pulse)));
        self.phase = if keep_listeners { Phase::Draining { until, pulse } } else { Phase::Quitting(until) };
    }

    pub(super) fn has_ended(&self) -> bool {
        let late = matches!(self.phase, Phase::Draining { until, .. } | Phase::Quitting(until) | Phase::Stopping(until) if Instant::now() >= until);
        late || self.workers.iter().all(Option::is_none) && self.leaving.is_empty()
    }

    /// How long to wait for a signal before looking after the workers.
    pub(super) fn patience(&self) -> Duration {
        let most = Duration::from_millis(SUPERVISE_MS);
        let patience = match self.phase {
            Phase::Serving if self.reloads.are_under_way() => Duration::from_millis(RELOAD_POLL_MS),
            Phase::Serving => most,
            Phase::Leaving(until) => most.min(until.saturating_duration_since(Instant::now())),
            Phase::Draining { .. } | Phase::Quitting(_) | Phase::Stopping(_) => Duration::from_millis(STOP_POLL_MS),
        };
        self.watchdog.as_ref().map_or(patience, |watchdog| patience.min(watchdog.patience()))
    }
}
