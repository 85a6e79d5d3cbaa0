//! SIGHUP: another configuration into the running process, or nothing of it.
//!
//! All that can fail comes first: the file and what it names are read and judged, names resolved, logs opened, addresses bound, workers
//! started. Only then do the workers hear of it, and go over to it between two events.

use std::{
    mem,
    sync::{
        Arc, Weak,
        mpsc::{Receiver, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Phase, Server, certificates::Certificates, log_panics, ready_line, unresolved, words_of};
use crate::{
    config::{self, Config, Level, ListenAddress, LoadOptions, Loaded, Main, Sandbox},
    generation::{Generation, Routes},
    host,
    limits::{FRAME_END_SECS, RELOAD_LINES},
    listener::Listening,
    observe::{Logs, library_log, os_error},
    record::Record,
    runtime::Message,
    tunnel::{Farewell, Reason},
    upstream::Upstreams,
    worker::drain::Drain,
};

/// What may be behind a file or a port that was there at the start.
const ROOTLESS: &str = "this process has given up root's rights: what a reload opens must be open to its user; `-s upgrade` reads \
                        the configuration in a new process that has them";

/// What was in no directory that the file named at the start.
const SANDBOXED: &str = "`sandbox on`: what this process may still write lies below the directories that the file named for logs, pid and \
                         unix sockets when it was started, or below /var/log; `-s upgrade` reads the configuration in a new process";

/// The reloads of a process.
#[derive(Default)]
pub(super) struct Reloads {
    /// What is read again; none: there is no file.
    source: Option<LoadOptions>,
    /// A configuration that is being read, on a thread of its own: a name server that does not answer must not hold up a signal.
    reading: Option<Receiver<Result<Next, Vec<String>>>>,
    /// A configuration that the workers were told of: whether they have all heard of it.
    told: Option<Told>,
    /// SIGHUP came meanwhile: the file may have changed behind what was read of it.
    again: bool,
    /// `drain_on_reload`, for tunnels that were on their way to another worker, too.
    drain: Option<Arc<Drain>>,
    /// The configurations of before, for as long as anything is served by them.
    past: Vec<Weak<Generation>>,
}

/// A configuration that could be used: nothing in the process has changed yet.
struct Next {
    config: Arc<Config>,
    upstreams: Arc<Upstreams>,
    logs: Arc<Logs>,
    warnings: usize,
}

/// The present configuration, as long as not every worker goes by it.
struct Told {
    /// Each worker drops its own when it does.
    pulse: Arc<()>,
    /// What is to be said then.
    line: String,
}

impl Reloads {
    /// Those of this file.
    pub(super) fn of(source: Option<LoadOptions>) -> Self {
        Self { source, ..Self::default() }
    }

    /// One is under way.
    pub(super) fn are_under_way(&self) -> bool {
        self.reading.is_some() || self.told.is_some()
    }

    /// How many configurations are in use still, the present one left out.
    fn alive(&mut self) -> usize {
        self.past.retain(|past| past.strong_count() > 0);
        self.past.len()
    }
}

impl Next {
    /// Reads the file and all that it names.
    fn read(source: &LoadOptions, before: &Generation) -> Result<Self, Vec<String>> {
        let Loaded { config, report, .. } = config::load(source);
        let Some(mut config) = config else { return Err(vec![report.render(false, false)]) };
        config.follow(&before.config);
        let upstreams = before.upstreams.follow(&before.config, &config).map_err(unresolved);
        let logs = before.logs.follow(&config);
        let (upstreams, logs) = match (upstreams, logs) {
            (Ok(upstreams), Ok(logs)) => (Arc::new(upstreams), logs),
            (upstreams, logs) => return Err([upstreams.err(), logs.err()].into_iter().flatten().flatten().collect()),
        };
        Ok(Self { config: Arc::new(config), upstreams, logs, warnings: report.warnings() })
    }
}

impl Server {
    /// Begins to read the file again.
    pub(super) fn begin_reload(&mut self) {
        if self.phase != Phase::Serving {
            return self.notice(format_args!("nothing is read: this process ends"));
        }
        if self.reloads.are_under_way() {
            self.reloads.again = true;
            return;
        }
        let Some(source) = self.reloads.source.clone() else {
            return self.notice(format_args!("there is no file to read again"));
        };
        self.notify.reloading();
        let (tell, told) = channel();
        let before = Arc::clone(&self.generation);
        let read = move || {
            let next = Next::read(&source, &before);
            drop(before);
            // Nobody listens any more where the process ends meanwhile.
            let _ = tell.send(next);
        };
        match thread::Builder::new().name("reload".to_owned()).spawn(read) {
            Ok(_) => self.reloads.reading = Some(told),
            Err(error) => self.reload_failed(&[format!("no thread to read the file ({})", os_error(&error))]),
        }
    }

    /// Goes on once the file has been read, or the workers have heard of it.
    pub(super) fn go_on_with_reload(&mut self) {
        if self.phase != Phase::Serving {
            return;
        }
        self.take_what_was_read();
        if let Some(told) = self.reloads.told.take_if(|told| Arc::strong_count(&told.pulse) == 1) {
            let alive = self.reloads.alive();
            self.notice(format_args!("{}; earlier ones still in use: {alive}", told.line));
            self.notify.ready(&ready_line(&self.generation.config));
        }
        if !self.reloads.are_under_way() && mem::take(&mut self.reloads.again) {
            self.begin_reload();
        }
    }

    fn take_what_was_read(&mut self) {
        let read = match self.reloads.reading.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => return,
            Some(Ok(read)) => read,
            Some(Err(TryRecvError::Disconnected)) => Err(vec!["reading the file panicked".to_owned()]),
        };
        self.reloads.reading = None;
        if let Err(errors) = read.and_then(|next| self.adopt(next)) {
            self.reload_failed(&errors);
        }
    }

    fn reload_failed(&mut self, errors: &[String]) {
        let number = self.generation.number;
        self.board.reload_failed(errors.first().and_then(|error| error.lines().next()).unwrap_or("unknown"));
        self.log(Level::Emerg, format_args!("reload failed: nothing was changed, configuration {number} is in use on"));
        let lines = || errors.iter().flat_map(|error| error.lines()).filter(|line| !line.trim().is_empty());
        lines().take(RELOAD_LINES).for_each(|line| self.log(Level::Emerg, format_args!("{line}")));
        if errors.iter().any(|error| error.contains("Permission denied")) {
            let is_sandboxed = self.generation.config.main.sandbox == Sandbox::On;
            let causes = [(self.gave_up_root, ROOTLESS), (is_sandboxed, SANDBOXED)];
            causes
                .iter()
                .filter(|(holds, _)| *holds)
                .for_each(|(_, cause)| self.log(Level::Emerg, format_args!("{cause}")));
        }
        if let Some(more) = lines().count().checked_sub(RELOAD_LINES).filter(|more| *more > 0) {
            self.log(Level::Emerg, format_args!("... and {more} more lines; `-t` shows them"));
        }
        self.notify.ready(&ready_line(&self.generation.config));
    }

    /// Makes a configuration the present one.
    fn adopt(&mut self, next: Next) -> Result<(), Vec<String>> {
        let Next { config, upstreams, logs, warnings } = next;
        let before = Arc::clone(&self.generation);
        self.sockets.bind(&config, config.main.workers)?;
        let generation = before.next(config, upstreams, logs);
        if let Err(error) = self.change_workers(&generation) {
            self.sockets.retain(&before.config);
            self.deal_again();
            return Err(vec![error]);
        }
        let gone = self.sockets.retain(&generation.config);
        generation.logs.lead();
        library_log::attach(&generation.logs);
        log_panics(&generation.logs);
        self.certificates = Certificates::of(&generation.config);
        self.generation = generation;
        self.board.reloaded();
        self.reloads.past.push(Arc::downgrade(&before));
        self.warn_of_reload(&before.config.main, warnings);
        self.await_workers(&gone);
        self.drain_what_changed();
        Ok(())
    }

    /// Tells the workers, of which there may be more or fewer from now on. An error: none of them has been told.
    fn change_workers(&mut self, generation: &Arc<Generation>) -> Result<(), String> {
        let failed = |error| format!("the workers cannot be told ({})", os_error(&error));
        let (before, count) = (self.workers.len(), generation.config.main.workers);
        let balance = match count == before {
            true => Arc::clone(&self.balance),
            false => Arc::new(self.balance.of(count).map_err(failed)?),
        };
        let is_named = |listening: &Listening| generation.listener(&listening.address).is_some();
        let share = |id| Ok(self.sockets.of_worker(id, count)?.into_iter().filter(is_named).collect());
        let mut shares = (0..count).map(share).collect::<Result<Vec<Vec<Listening>>, _>>().map_err(failed)?;
        for (id, share) in (before..count).zip(shares.split_off(before.min(count))) {
            if let Err(error) = self.start_worker(id, Arc::clone(generation), Arc::clone(&balance), share) {
                // Those that were started hand back what they have accepted meanwhile.
                self.let_go_of_workers(before, &self.generation.clone());
                return Err(format!("worker {id} cannot be started ({})", os_error(&error)));
            }
        }
        self.let_go_of_workers(count, generation);
        for (worker, share) in self.workers.iter().flatten().zip(shares) {
            worker.send(Message::Reload(Arc::clone(generation), Arc::clone(&balance), share));
        }
        self.balance = balance;
        Ok(())
    }

    /// Keeps so many workers. The others finish what they have begun, and hand their tunnels to these.
    fn let_go_of_workers(&mut self, count: usize, generation: &Arc<Generation>) {
        let leaving = self.workers.split_off(count.min(self.workers.len()));
        let heirs: Vec<_> = self.workers.iter().flatten().map(|worker| Arc::clone(&worker.inbox)).collect();
        for worker in leaving.into_iter().flatten() {
            worker.send(Message::Leave(Arc::clone(generation), heirs.clone()));
            self.leaving.push(worker);
        }
    }

    /// Workers accept from the sockets that there are, however many.
    pub(super) fn deal_again(&self) {
        for (id, worker) in self.workers.iter().enumerate() {
            let (Some(worker), Ok(share)) = (worker, self.sockets.of_worker(id, self.workers.len())) else { continue };
            worker.send(Message::Listen(share));
        }
    }

    fn warn_of_reload(&self, before: &Main, warnings: usize) {
        let now = &self.generation;
        for what in unchangeable(before, &now.config.main) {
            self.log(Level::Warn, format_args!("`{what}` is another now: it takes effect at the next start"));
        }
        if let Err(warning) = host::raise_nofile(&now.config) {
            self.log(Level::Warn, format_args!("{warning}"));
        }
        if warnings > 0 {
            self.log(Level::Warn, format_args!("warnings in the configuration: {warnings}; -t shows them"));
        }
    }

    /// It is in use once every worker goes by it.
    fn await_workers(&mut self, gone: &[ListenAddress]) {
        let pulse = Arc::new(());
        self.workers.iter().flatten().for_each(|worker| worker.send(Message::Pulse(Arc::clone(&pulse))));
        let now = &self.generation;
        let no_longer: String = gone.iter().map(|address| format!("; no longer at {address}")).collect();
        let line = format!("configuration {} is in use: {}{no_longer}", now.number, ready_line(&now.config));
        self.reloads.told = Some(Told { pulse, line });
    }

    /// Tunnels to a backend that is `down` or `drain` now are asked to end, and with `drain_on_reload` those whose route is not there any more.
    fn drain_what_changed(&mut self) {
        let drain = self.generation.config.main.drain;
        let routes = Routes::of(&self.generation);
        let lets_some_go = routes.let_some_go();
        let has_gone = move |record: &Record| {
            let address = record.upstream();
            let leads = |(server, location)| {
                let before = record.generation();
                !routes.let_go(&address, before, server, location)
                    && (!drain.on_reload || routes.lead_to(&address, before, server, location))
            };
            !record.route().map_or(!drain.on_reload, leads)
        };
        let patience = Duration::from_secs(FRAME_END_SECS);
        let farewell = Farewell { reason: Reason::Drain, code: drain.code, patience };
        self.reloads.drain = (drain.on_reload || lets_some_go)
            .then(|| Arc::new(Drain { select: Box::new(has_gone), percent: 100, window: drain.window, farewell }));
        self.ask_to_end();
    }

    fn ask_to_end(&self) {
        if let Some(drain) = &self.reloads.drain {
            self.tell(|| Message::Drain(Arc::clone(drain)));
        }
    }

    /// Joins the workers that have left. True when one of them panicked.
    pub(super) fn bury_those_who_left(&mut self) -> bool {
        let ended: Vec<_> = self.leaving.extract_if(.., |worker| worker.thread.is_finished()).collect();
        if !ended.is_empty() && self.phase == Phase::Serving {
            // What they handed over came behind the first asking.
            self.ask_to_end();
        }
        let mut unexpected = false;
        for worker in ended {
            self.board.leave(&worker.counters);
            if let Err(panic) = worker.thread.join() {
                self.log(
                    Level::Alert,
                    format_args!("a worker that was leaving ended: {}; stopping", words_of(&*panic)),
                );
                unexpected = true;
            }
        }
        unexpected
    }

    /// `ssl_certificate_watch`.
    pub(super) fn look_after_certificates(&mut self) {
        for (level, line) in self.certificates.look(Instant::now()) {
            self.log(level, format_args!("{line}"));
        }
    }
}

/// Directives of the main context that say something else now, and that only a new process obeys.
fn unchangeable(before: &Main, now: &Main) -> Vec<&'static str> {
    let is_another = [
        ("user", before.user != now.user),
        ("daemon", before.daemon != now.daemon),
        ("pid", before.pid != now.pid),
        ("use", before.driver != now.driver),
        ("sandbox", before.sandbox != now.sandbox),
        ("worker_cpu_affinity", before.workers == now.workers && before.affinity != now.affinity),
    ];
    is_another.into_iter().filter(|(_, is_another)| *is_another).map(|(name, _)| name).collect()
}
