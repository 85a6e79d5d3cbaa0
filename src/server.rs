//! The control plane: from a configuration to running workers, and from a signal to their end.

pub(crate) mod answer;
mod certificates;
mod daemon;
mod ending;
mod inherited;
mod launcher;
mod notify;
pub(crate) mod pid_file;
mod process;
mod program;
mod reload;
mod signals;
mod upgrade;
mod user;

use std::{any::Any, mem, panic, process::ExitCode, sync::Arc, time::Instant};

use nix::sys::signal::Signal;

pub use self::program::Program;
use self::{
    certificates::Certificates,
    daemon::Daemon,
    inherited::{Inherited, Predecessor},
    notify::{Notify, Watchdog},
    pid_file::PidFile,
    process::{Begun, Process},
    reload::Reloads,
    signals::{Received, Signals},
    upgrade::Upgrade,
    user::Identity,
};
use crate::{
    balance::Balance,
    config::{Config, Driver, Level, ListenAddress, LoadOptions, LogTarget},
    generation::Generation,
    host,
    listener::{Listening, Sockets},
    observe::{
        Logs,
        board::Board,
        check_file,
        error_log::{self, About},
        library_log, os_error,
    },
    runtime::{self, Message, Plan},
    sandbox::{self, InForce},
    upstream::{Unresolved, Upstreams},
};

/// How to serve, beyond what the configuration says.
#[derive(Default)]
pub struct Options {
    /// Called once, when every worker accepts connections.
    pub ready: Option<Box<dyn FnOnce()>>,
    /// SIGHUP ends the program: there is no file to read again, and the terminal may be gone.
    pub hangup_ends: bool,
    /// What SIGUSR2 starts in place of this process; none: nothing.
    pub program: Option<Program>,
    /// What SIGHUP reads again; none: there is no file.
    pub source: Option<LoadOptions>,
}

/// Serves until a signal ends it. 0 after a stop that was asked for, else 1, with the reasons on stderr and in the error log.
pub fn serve(config: Config, options: Options) -> ExitCode {
    // Where the kernel gives huge pages unasked, a few tunnels would take 2 MiB. Before Linux 3.15 there is nothing to turn off.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let Inherited { sockets, mut predecessor } = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => return fail(None, None, &[error]),
    };
    let process = match Process::begin(&config, options.program.clone(), predecessor.is_some()) {
        Ok(Begun::Server(process)) => process,
        Ok(Begun::Foreground(code)) => return code,
        Ok(Begun::Launcher(work)) => {
            // What others take the end of for a sign must not stay open in it.
            drop(sockets);
            predecessor.into_iter().for_each(Predecessor::close);
            work.run();
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(None, predecessor.as_mut(), &[error]),
    };
    let logs = match Logs::prepare(&config) {
        Ok(logs) => logs,
        Err(errors) => return fail(None, predecessor.as_mut(), &errors),
    };
    library_log::attach(&logs);
    log_panics(&logs);
    let sockets = Sockets::inheriting(sockets);
    let code = match Server::start(Arc::new(config), &logs, process, sockets, predecessor.is_some()) {
        Ok(server) => server.run(options, predecessor),
        Err(errors) => fail(Some(&logs), predecessor.as_mut(), &errors),
    };
    logs.flush();
    code
}

/// What would keep a configuration from being served, as far as that can be known without touching anything: for `-t`.
pub fn check(config: &Config) -> Vec<String> {
    let mut errors = user::identity(config.main.user.as_ref()).err().into_iter().collect::<Vec<_>>();
    errors.extend(Logs::check(config).err().into_iter().flatten());
    errors.extend(config.main.pid.as_ref().and_then(|path| check_file(path).err()));
    errors.extend(Upstreams::resolve(config).err().into_iter().flat_map(unresolved));
    errors
}

/// nginx's words, with the place.
fn unresolved(names: Vec<Unresolved>) -> Vec<String> {
    names.into_iter().map(|name| format!("{} in {}", name.message, name.place)).collect()
}

/// Says a startup message as nginx does: on stderr, and in the files of the error log.
fn say(logs: &Logs, level: Level, message: &str) {
    eprintln!("longsplice: [{}] {message}", error_log::level_name(level));
    error_log::event_in_files(logs, level, format_args!("{message}"));
}

fn fail(logs: Option<&Logs>, predecessor: Option<&mut Predecessor>, errors: &[String]) -> ExitCode {
    if let Some(predecessor) = predecessor {
        predecessor.failed(errors);
    }
    // Where it cannot be started, stderr has it all.
    let _ = logs.map(Logs::start);
    for error in errors {
        match logs {
            Some(logs) => say(logs, Level::Emerg, error),
            None => eprintln!("longsplice: [emerg] {error}"),
        }
    }
    ExitCode::FAILURE
}

/// A panic is caught at the border of its session; here it gets its line, since stderr may be /dev/null.
fn log_panics(logs: &Arc<Logs>) {
    let logs = Arc::clone(logs);
    panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = words_of(panic.payload());
        error_log::event(&logs, Level::Alert, &About::Process, format_args!("panic at {place}: {words}"));
    }));
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (None, Some(words)) => words,
        (None, None) => "no message",
    }
}

/// A running server.
struct Server {
    generation: Arc<Generation>,
    daemon: Option<Daemon>,
    signals: Signals,
    workers: Vec<Option<runtime::Handle>>,
    board: Arc<Board>,
    /// Workers that finish what they have begun, since a reload: there are fewer now.
    leaving: Vec<runtime::Handle>,
    /// What the workers know of each other.
    balance: Arc<Balance>,
    reloads: Reloads,
    certificates: Certificates,
    /// It began as root and is somebody else now.
    gave_up_root: bool,
    sockets: Sockets,
    notify: Notify,
    watchdog: Option<Watchdog>,
    upgrade: Upgrade,
    predecessor: Option<Predecessor>,
    pid_file: Option<PidFile>,
    phase: Phase,
    failed: bool,
}

/// What the workers were last told.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Nothing yet, but at this time to quit.
    Leaving(Instant),
    /// To let their tunnels go; new connections still come. They have until then, and each drops its own pulse when it has heard.
    Draining {
        until: Instant,
        pulse: Arc<()>,
    },
    /// To accept nothing more, either.
    Quitting(Instant),
    /// To stop. They have until then.
    Stopping(Instant),
}

impl Server {
    /// In nginx's order: what root alone can do (limits, ports, pid file) comes before the change of user.
    fn start(
        config: Arc<Config>,
        logs: &Arc<Logs>,
        process: Process,
        mut sockets: Sockets,
        replaces_another: bool,
    ) -> Result<Self, Vec<String>> {
        let one = |error| vec![error];
        let pid_path = config.main.pid.as_deref();
        pid_path.filter(|_| !replaces_another).map_or(Ok(()), pid_file::check_not_running).map_err(one)?;
        let Process { daemon, identity, signals, launcher } = process;
        warn_of_what_is_short(&config, logs);
        let upstreams = Arc::new(Upstreams::resolve(&config).map_err(unresolved)?);
        sockets.bind(&config, config.main.workers)?;
        for address in sockets.retain(&config) {
            say(logs, Level::Warn, &format!("the inherited socket {address} is closed: no `listen` names it"));
        }
        let pid_file = pid_path.map(|path| PidFile::write(path, identity.as_ref())).transpose().map_err(one)?;
        let sandbox = sandbox::Plan::of(&config);
        sandbox.begin();
        identity.as_ref().map_or(Ok(()), Identity::assume).map_err(one)?;
        let in_force = sandbox.confine_process();
        logs.start().map_err(one)?;
        say_what_is_in_force(logs, &in_force);
        let board = Arc::<Board>::default();
        board.set_sandbox(in_force.to_string());
        let workers = config.main.workers;
        if let Some(launcher) = &launcher {
            let watched = signals.watch(launcher.socket());
            watched.map_err(|error| vec![format!("epoll_ctl() failed ({})", os_error(&error))])?;
        }
        let balance =
            Balance::new(workers).map_err(|error| vec![format!("eventfd() failed ({})", os_error(&error))])?;
        let mut server = Self {
            certificates: Certificates::of(&config),
            gave_up_root: identity.is_some(),
            generation: Generation::first(config, upstreams, Arc::clone(logs), Arc::clone(&board)),
            daemon,
            signals,
            workers: Vec::new(),
            leaving: Vec::new(),
            balance: Arc::new(balance),
            reloads: Reloads::default(),
            board,
            sockets,
            notify: Notify::from_environment(),
            watchdog: Watchdog::from_environment(),
            upgrade: Upgrade::by(launcher),
            predecessor: None,
            pid_file,
            phase: Phase::Serving,
            failed: false,
        };
        for id in 0..workers {
            let (generation, balance) = (Arc::clone(&server.generation), Arc::clone(&server.balance));
            let share = server.sockets.of_worker(id, workers);
            if let Err(error) = share.and_then(|share| server.start_worker(id, generation, balance, share)) {
                server.stop();
                return Err(vec![format!("worker {id} cannot be started ({})", os_error(&error))]);
            }
        }
        Ok(server)
    }

    fn start_worker(
        &mut self,
        id: usize,
        generation: Arc<Generation>,
        balance: Arc<Balance>,
        listen: Vec<Listening>,
    ) -> std::io::Result<()> {
        let cpus = generation.config.main.affinity.as_ref().and_then(|cpus| cpus.get(id).cloned());
        let cpu = cpus.as_deref().and_then(|cpus| if let [cpu] = cpus { Some(*cpu) } else { None });
        let counters = self.board.join(id, cpu);
        let handle = runtime::start(Plan { id, cpus, generation, counters, balance, listen })?;
        self.workers.push(Some(handle));
        Ok(())
    }

    fn run(mut self, options: Options, predecessor: Option<Predecessor>) -> ExitCode {
        self.predecessor = predecessor;
        self.reloads = Reloads::of(options.source);
        self.wait_for_workers();
        self.notice(format_args!("{}", ready_line(&self.generation.config)));
        self.say_ready();
        if let Some(Err(error)) = self.daemon.take().map(Daemon::ready) {
            self.log(Level::Alert, format_args!("daemon on: /dev/null failed ({})", os_error(&error)));
        }
        if let Some(ready) = options.ready {
            ready();
        }
        while !self.has_ended() {
            match self.signals.wait(self.patience()) {
                Ok(Some(received)) => self.obey(received, options.hangup_ends),
                Ok(None) => {}
                Err(error) => {
                    self.log(Level::Alert, format_args!("signalfd failed ({})", os_error(&error)));
                    self.failed = true;
                    self.stop();
                }
            }
            self.go_on();
            self.hear_of_upgrade();
            self.look_after_workers();
            self.go_on_with_reload();
            self.look_after_certificates();
            self.feed_watchdog();
        }
        self.end()
    }

    fn obey(&mut self, received: Received, hangup_ends: bool) {
        match received.signal {
            Signal::SIGHUP if !hangup_ends => {
                self.notice(format_args!("SIGHUP: reading the configuration again"));
                self.begin_reload();
            }
            Signal::SIGUSR1 => {
                self.notice(format_args!("SIGUSR1: reopening logs"));
                self.generation.logs.reopen();
            }
            Signal::SIGUSR2 => self.begin_upgrade(received.sender),
            Signal::SIGWINCH => self.rest(),
            Signal::SIGQUIT => self.quit(),
            other => {
                self.notice(format_args!("{other}: stopping"));
                self.stop();
            }
        }
    }

    fn tell(&self, message: impl Fn() -> Message) {
        self.workers.iter().flatten().chain(&self.leaving).for_each(|worker| worker.send(message()));
    }

    /// Joins the workers that have ended. One that was not told to takes the others along: whoever supervises the process
    /// (systemd) starts it again, and a server that silently lost a core would be worse.
    fn look_after_workers(&mut self) {
        let mut unexpected = false;
        for id in 0..self.workers.len() {
            let ended = self.workers.get_mut(id).and_then(|slot| slot.take_if(|worker| worker.thread.is_finished()));
            let Some(worker) = ended else { continue };
            let panic = worker.thread.join().err();
            self.board.leave(&worker.counters);
            if panic.is_some() || matches!(self.phase, Phase::Serving | Phase::Leaving(_)) {
                let words = panic.as_deref().map_or("without a word", words_of);
                self.log(Level::Alert, format_args!("worker {id} ended: {words}; stopping"));
                unexpected = true;
            }
        }
        unexpected |= self.bury_those_who_left();
        if unexpected {
            self.failed = true;
            self.stop();
        }
    }

    fn end(mut self) -> ExitCode {
        let late = self.workers.iter().flatten().chain(&self.leaving).count();
        if late > 0 {
            self.log(Level::Alert, format_args!("{late} workers did not end in time"));
        }
        // As nginx: a socket that nobody listens on must not be found, nor the number of a process that has ended.
        if !self.is_accompanied() {
            self.sockets.unlink();
        }
        drop(self.pid_file.take());
        self.notice(format_args!("exit: {}", self.board.sum()));
        if mem::take(&mut self.failed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }

    fn notice(&self, message: std::fmt::Arguments<'_>) {
        self.log(Level::Notice, message);
    }

    fn log(&self, level: Level, message: std::fmt::Arguments<'_>) {
        error_log::event(&self.generation.logs, level, &About::Process, message);
    }
}

/// Nobody asked for a sandbox that this kernel does not have: it is said, and no reason not to serve.
fn say_what_is_in_force(logs: &Logs, in_force: &InForce) {
    if in_force.missing().is_empty() {
        error_log::event(logs, Level::Notice, &About::Process, format_args!("sandbox: {in_force}"));
    } else {
        say(logs, Level::Warn, &format!("sandbox: {in_force}; see \"Privileges\" in README"));
    }
}

fn warn_of_what_is_short(config: &Config, logs: &Logs) {
    if let Err(warning) = host::raise_nofile(config) {
        say(logs, Level::Warn, &warning);
    }
    if user::is_ignored(config.main.user.as_ref()) {
        say(logs, Level::Warn, "`user` is ignored: only root can become another user");
    }
    if config.main.daemon && !config.main.error_logs.iter().any(|log| matches!(log.target, LogTarget::File(_))) {
        say(logs, Level::Warn, "`daemon on` without `error_log FILE`: what goes wrong from now on is seen by nobody");
    }
}

/// `longsplice/0.1.0 ready: 127.0.0.1:8080, [::]:8443 ssl, 2 workers, epoll`.
fn ready_line(config: &Config) -> String {
    let addresses = config.listeners.iter().map(|listener| {
        let ssl = if listener.ssl { " ssl" } else { "" };
        match &listener.address {
            ListenAddress::Tcp(address) => format!("{address}{ssl}"),
            ListenAddress::Unix(path) => format!("unix:{}{ssl}", path.display()),
        }
    });
    let workers = match config.main.workers {
        1 => "1 worker".to_owned(),
        workers => format!("{workers} workers"),
    };
    let parts: Vec<String> = addresses.chain([workers, driver(config.main.driver).to_owned()]).collect();
    format!("longsplice/{} ready: {}", env!("CARGO_PKG_VERSION"), parts.join(", "))
}

/// The driver that workers get: epoll also where the kernel lets us have no ring.
fn driver(asked: Driver) -> &'static str {
    if asked == Driver::IoUring && monoio::utils::detect_uring() { "io_uring" } else { "epoll" }
}
