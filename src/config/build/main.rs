//! The main context and `events`.

use std::time::Duration;

use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::{Group, Pid, User, geteuid},
};

use super::{
    super::{
        Drain, Driver, ErrorLog, Main, Sandbox,
        diagnostic::Diagnostic,
        values::{self, Form},
    },
    Build, Directive, Level, prefix_path,
};
use crate::{
    limits::{BUSY_POLL_US, WORKERS},
    websocket::close::{GOING_AWAY, SERVICE_RESTART},
};

/// `sandbox`
const SANDBOX: Form<Sandbox> = Form { read: sandbox, expected: "it must be `on`, `off` or `log`" };

fn sandbox(text: &str) -> Option<Sandbox> {
    match text {
        "log" => Some(Sandbox::Log),
        _ => values::flag(text).map(|on| if on { Sandbox::On } else { Sandbox::Off }),
    }
}

impl Build<'_> {
    /// Everything outside of `http`.
    pub(super) fn main(&mut self, directives: &[Directive], default_log: ErrorLog) -> Main {
        let level = Level::new(directives);
        let events = level.one("events").map(Directive::children).unwrap_or_default();
        let events = Level::new(events);
        let workers = self.workers(&level);
        let mut error_logs = self.error_logs(&level);
        if error_logs.is_empty() {
            error_logs.push(default_log);
        }
        Main {
            workers,
            affinity: self.affinity(&level, workers),
            nofile: level.one("worker_rlimit_nofile").and_then(|found| self.read(found, 0, &values::NUMBER)),
            worker_connections: self.worker_connections(&events),
            busy_poll: self.busy_poll(&events),
            user: self.user(&level),
            pid: level.one("pid").map(|found| prefix_path(found.arg(0), &self.paths)),
            drain: self.drain(&level),
            daemon: self.value(&level, "daemon", &values::FLAG),
            driver: self.driver(&events),
            sandbox: self.value(&level, "sandbox", &SANDBOX),
            upgrade_timeout: self.value(&level, "upgrade_timeout", &values::TIME),
            error_logs,
            prefix: self.paths.prefix.clone(),
        }
    }

    fn drain(&mut self, level: &Level<'_>) -> Drain {
        let code = match level.one("drain_close_code") {
            None => GOING_AWAY,
            Some(directive) => match directive.arg(0) {
                "1001" => GOING_AWAY,
                "1012" => SERVICE_RESTART,
                other => {
                    let message = format!("invalid value \"{other}\" in \"drain_close_code\" directive");
                    let error = Diagnostic::error(directive.arg_span(0), message);
                    self.report.push(error.help("`1001` (going away) or `1012` (service restart)"));
                    GOING_AWAY
                }
            },
        };
        Drain {
            delay: self.value(level, "drain_delay", &values::TIME),
            window: self.value(level, "drain_timeout", &values::TIME),
            timeout: self.value(level, "worker_shutdown_timeout", &values::TIME),
            code,
            on_reload: self.value(level, "drain_on_reload", &values::FLAG),
        }
    }

    fn workers(&mut self, level: &Level<'_>) -> usize {
        let auto = std::thread::available_parallelism().map_or(1, usize::from);
        let Some(directive) = level.one("worker_processes").filter(|found| found.arg(0) != "auto") else { return auto };
        let written = directive.arg(0);
        match values::number(written).and_then(|number| usize::try_from(number).ok()) {
            Some(workers @ 1..=WORKERS) => workers,
            _ => {
                let message = format!("invalid value \"{written}\" in \"worker_processes\" directive");
                let help = format!("`auto`, or a number from 1 to {WORKERS}");
                self.report.push(Diagnostic::error(directive.arg_span(0), message).help(help));
                auto
            }
        }
    }

    fn worker_connections(&mut self, events: &Level<'_>) -> Option<usize> {
        let directive = events.one("worker_connections")?;
        let number = self.read(directive, 0, &values::NUMBER)?;
        if number < 2 {
            self.error(directive.arg_span(0), "a connection needs two: one to the client and one to the backend");
        }
        usize::try_from(number).ok()
    }

    fn busy_poll(&mut self, events: &Level<'_>) -> Duration {
        let micros = events.one("busy_poll").and_then(|found| {
            let micros = self.read(found, 0, &values::NUMBER)?;
            if micros > BUSY_POLL_US {
                self.error(found.arg_span(0), format!("at most {BUSY_POLL_US} microseconds"));
            }
            Some(micros)
        });
        Duration::from_micros(micros.unwrap_or_default())
    }

    fn driver(&mut self, events: &Level<'_>) -> Driver {
        let Some(directive) = events.one("use") else { return Driver::Epoll };
        match directive.arg(0) {
            "io_uring" => Driver::IoUring,
            "epoll" => Driver::Epoll,
            other => {
                let error = Diagnostic::error(directive.arg_span(0), format!("invalid event type \"{other}\""));
                self.report.push(error.help("`epoll` (the default) or `io_uring`"));
                Driver::Epoll
            }
        }
    }

    fn user(&mut self, level: &Level<'_>) -> Option<(Box<str>, Option<Box<str>>)> {
        let directive = level.one("user")?;
        let (name, group) = (directive.arg(0), directive.args.get(1).map(|word| word.text.as_str()));
        if !geteuid().is_root() {
            let message = "the \"user\" directive makes sense only when started as root; ignored";
            self.report.push(Diagnostic::warning(directive.span(), message));
        } else if User::from_name(name).ok().flatten().is_none() {
            // The start fails on it; a test of the file on another machine need not.
            let warning =
                Diagnostic::warning(directive.arg_span(0), format!("there is no user \"{name}\" on this host"));
            self.report.push(warning.help(format!(
                "create it (`useradd --system {name}`), or name another; a start as root fails without"
            )));
        } else if let Some(group) = group.filter(|group| Group::from_name(group).ok().flatten().is_none()) {
            let warning =
                Diagnostic::warning(directive.arg_span(1), format!("there is no group \"{group}\" on this host"));
            self.report.push(warning.help("a start as root fails without"));
        }
        Some((name.into(), group.map(Into::into)))
    }

    /// CPUs for each worker; fewer masks than workers: the last is for the rest, as nginx.
    fn affinity(&mut self, level: &Level<'_>, workers: usize) -> Option<Vec<Vec<usize>>> {
        let directive = level.one("worker_cpu_affinity");
        let masks = match directive {
            Some(found) if found.arg(0) != "auto" => found.args.iter().map(|word| self.mask(word)).collect(),
            found => {
                let allowed = found.and_then(|found| found.args.get(1)).and_then(|word| self.mask(word));
                let mut cpus = cpus_allowed();
                cpus.retain(|cpu| allowed.as_ref().is_none_or(|allowed| allowed.contains(cpu)));
                cpus.into_iter().map(|cpu| Some(vec![cpu])).collect::<Vec<_>>()
            }
        };
        let masks: Vec<Vec<usize>> = masks.into_iter().collect::<Option<_>>()?;
        let auto = directive.is_none_or(|found| found.arg(0) == "auto");
        if let Some(directive) = directive.filter(|_| !auto && masks.len() != workers) {
            let message = "the number of \"worker_processes\" is not the number of \"worker_cpu_affinity\" masks";
            let warning = Diagnostic::warning(directive.span(), message);
            self.report.push(warning.help("missing masks are as the last one; those too many are not used"));
        }
        let last = masks.last()?;
        let of = |worker: usize| if auto { masks.get(worker % masks.len()) } else { masks.get(worker) };
        Some((0..workers).map(|worker| of(worker).unwrap_or(last).clone()).collect())
    }

    /// A mask such as `0101`: the rightmost digit is core 0.
    fn mask(&mut self, word: &super::Word) -> Option<Vec<usize>> {
        let cpus: Vec<_> =
            word.text.bytes().rev().enumerate().filter(|(_, bit)| *bit == b'1').map(|(cpu, _)| cpu).collect();
        let valid = word.text.bytes().all(|bit| matches!(bit, b'0' | b'1')) && word.text.len() <= CpuSet::count();
        if valid && !cpus.is_empty() {
            return Some(cpus);
        }
        let error = Diagnostic::error(word.span, format!("invalid CPU mask \"{}\"", word.text));
        self.report.push(error.help("`auto`, or a mask of 0 and 1 for each worker, the rightmost digit being core 0"));
        None
    }
}

/// The cores this process may use.
fn cpus_allowed() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}
