//! SIGHUP: another configuration into the running process, or nothing of it.
//!
//! All that can fail comes first: the file and what it names are read and judged, names resolved, logs opened, addresses bound, workers
//! started. Only then do the workers hear of it, and go over to it between two events.

use std::{
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError, channel},
    },
    thread,
};

use super::{Server, certificates::Certificates, log_panics, unresolved};
use crate::{
    balance::Balance,
    config::{self, Config, Level, LoadOptions, Loaded, Main},
    generation::Generation,
    host,
    limits::RELOAD_LINES,
    listener::Listening,
    observe::{Logs, library_log, os_error},
    runtime::{self, Message},
    upstream::Upstreams,
};

/// Reloads of a process.
#[derive(Default)]
pub(super) struct Reloads {
    /// What is read again; none: there is no file.
    source: Option<LoadOptions>,
    /// A configuration that is being read, on a thread of its own: a name server that does not answer must not hold up a signal.
    reading: Option<Receiver<Result<Next, Vec<String>>>>,
    /// SIGHUP came meanwhile: the file may have changed behind what was read of it.
    again: bool,
}

/// A configuration that could be used: nothing in the process has changed yet.
struct Next {
    config: Arc<Config>,
    upstreams: Arc<Upstreams>,
    logs: Arc<Logs>,
    warnings: usize,
}

impl Reloads {
    /// Those of this file.
    pub(super) fn of(source: Option<LoadOptions>) -> Self {
        Self { source, ..Self::default() }
    }

    /// One is under way.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }
}

impl Server {
    /// Begins to read the file again.
    pub(super) fn begin_reload(&mut self) {
        if self.reloads.is_reading() {
            self.reloads.again = true;
            return;
        }
        let Some(source) = self.reloads.source.clone() else {
            return self.notice(format_args!("SIGHUP: there is no file to read again"));
        };
        self.notify.reloading();
        let (tell, told) = channel();
        let before = Arc::clone(&self.generation);
        let read = move || {
            // Nobody listens any more where the process ends meanwhile.
            let _ = tell.send(Next::read(&source, &before));
        };
        match thread::Builder::new().name("reload".to_owned()).spawn(read) {
            Ok(_) => self.reloads.reading = Some(told),
            Err(error) => self.reload_failed(&[format!("no thread to read the file ({})", os_error(&error))]),
        }
    }

    /// Goes on once the file has been read.
    pub(super) fn go_on_with_reload(&mut self) {
        let read = match self.reloads.reading.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => return,
            Some(Ok(read)) => read,
            Some(Err(TryRecvError::Disconnected)) => Err(vec!["reading the file panicked".to_owned()]),
        };
        self.reloads.reading = None;
        match read.and_then(|next| self.adopt(next)) {
            Ok(()) => {}
            Err(errors) => self.reload_failed(&errors),
        }
        if mem::take(&mut self.reloads.again) {
            self.begin_reload();
        }
    }

    fn reload_failed(&mut self, errors: &[String]) {
        let number = self.generation.number;
        self.log(Level::Emerg, format_args!("reload failed: nothing was changed, configuration {number} serves on"));
        let lines = || errors.iter().flat_map(|error| error.lines()).filter(|line| !line.trim().is_empty());
        lines().take(RELOAD_LINES).for_each(|line| self.log(Level::Emerg, format_args!("{line}")));
        if let Some(more) = lines().count().checked_sub(RELOAD_LINES).filter(|more| *more > 0) {
            self.log(Level::Emerg, format_args!("... and {more} more lines; `-t` shows them"));
        }
        self.say_ready();
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
        self.past.retain(|past| past.strong_count() > 0);
        self.past.push(Arc::downgrade(&before));
        self.tell_of_reload(&before, warnings, &gone);
        Ok(())
    }

    /// Tells the workers, of which there may be more or fewer from now on.
    fn change_workers(&mut self, generation: &Arc<Generation>) -> Result<(), String> {
        let (count, before) = (generation.config.main.workers, self.workers.len());
        let failed = |error| format!("the workers cannot be told ({})", os_error(&error));
        let balance = match count == before {
            true => Arc::clone(&self.balance),
            false => Arc::new(self.balance.of(count).map_err(failed)?),
        };
        let shares = (0..count).map(|id| self.sockets.of_worker(id, count)).collect::<Result<Vec<_>, _>>();
        let mut shares = shares.map_err(failed)?;
        let new = shares.split_off(before.min(count));
        self.start_more(generation, &balance, new)?;
        let heirs: Vec<_> = self.workers.iter().take(count).flatten().map(|worker| Arc::clone(&worker.inbox)).collect();
        for worker in self.workers.drain(count.min(before)..before.max(count).min(self.workers.len())).flatten() {
            worker.send(Message::Leave(Arc::clone(generation), heirs.clone()));
            self.leaving.push(worker);
        }
        for (worker, share) in self.workers.iter().flatten().zip(shares) {
            worker.send(Message::Reload(Arc::clone(generation), Arc::clone(&balance), share));
        }
        self.balance = balance;
        Ok(())
    }
}
