//! SIGUSR2: another process takes the listening sockets over. nginx's dance, but the new process says when it is ready.

use std::{os::fd::OwnedFd, time::Duration};

use nix::unistd::Pid;

use super::{
    Phase, Server, answer,
    launcher::{Launcher, News},
};
use crate::{config::Level, limits::LET_GO_WAIT_MS, runtime::Message};

/// The upgrade of this process to another.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// None in a process that cannot be upgraded.
    launcher: Option<Launcher>,
    stage: Stage,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There is no other process.
    Alone,
    /// One starts; this one wants to know what becomes of it.
    Starting(Option<Pid>),
    /// It serves, as this one does.
    Both(Pid),
    /// This process ends, and has let the other go, if there is one.
    Released(Option<Pid>),
}

impl Upgrade {
    /// None yet, by this launcher.
    pub(super) fn by(launcher: Option<Launcher>) -> Self {
        Self { launcher, stage: Stage::Alone }
    }

    /// Begins. `asker` is told what becomes of it.
    fn begin<'a>(&mut self, asker: Option<Pid>, sockets: impl Iterator<Item = &'a OwnedFd>) -> Result<(), String> {
        match self.stage {
            Stage::Alone => {}
            Stage::Starting(_) => return Err("another process is being started already".to_owned()),
            Stage::Both(pid) => return Err(format!("process {pid} serves already: end this one or that one first")),
            Stage::Released(_) => return Err("this process ends".to_owned()),
        }
        let launcher = self.launcher.as_ref().ok_or("there is nobody who could start another process")?;
        launcher.start(sockets).map_err(|error| format!("the launcher has gone ({error}); start longsplice anew"))?;
        self.stage = Stage::Starting(asker);
        Ok(())
    }

    /// What the launcher has to say, if anything.
    fn hear(&mut self) -> Option<News> {
        let news = self.launcher.as_ref()?.news().unwrap_or_else(|_| {
            self.launcher = None;
            Some(News::Failed("its launcher has gone".to_owned()))
        })?;
        if let Stage::Starting(asker) = self.stage {
            answer::give(asker, &news);
        }
        self.stage = match (&news, self.stage) {
            (_, Stage::Released(successor)) => Stage::Released(successor),
            (News::Ready(pid), _) => Stage::Both(*pid),
            (News::Failed(_) | News::Ended(_), _) => Stage::Alone,
        };
        Some(news)
    }

    /// The process that serves beside this one.
    fn successor(&self) -> Option<Pid> {
        match self.stage {
            Stage::Both(pid) => Some(pid),
            _ => None,
        }
    }

    /// This process ends, and lets go of the one that serves beside it, whose number it returns.
    fn release(&mut self) -> Option<Pid> {
        let successor = match self.stage {
            Stage::Both(pid) | Stage::Released(Some(pid)) => Some(pid),
            _ => None,
        };
        if let (Stage::Both(_), Some(launcher)) = (self.stage, &self.launcher) {
            launcher.release();
        }
        self.stage = Stage::Released(successor);
        successor
    }
}

impl Server {
    /// SIGUSR2.
    pub(super) fn begin_upgrade(&mut self, asker: Option<Pid>) {
        match self.try_upgrade(asker) {
            Ok(()) => self.notice(format_args!("SIGUSR2: starting the program that replaces this one")),
            Err(reason) => {
                self.log(Level::Error, format_args!("SIGUSR2: {reason}; nothing was done"));
                answer::give(asker, &News::Failed(reason));
            }
        }
    }

    fn try_upgrade(&mut self, asker: Option<Pid>) -> Result<(), String> {
        if self.phase != Phase::Serving {
            return Err("this process ends".to_owned());
        }
        if self.is_held(Duration::from_millis(LET_GO_WAIT_MS)) {
            return Err("the process before this one still serves: end that one first, with QUIT".to_owned());
        }
        self.upgrade.begin(asker, self.sockets.all())
    }

    /// Notes what became of the process that was started.
    pub(super) fn hear_of_upgrade(&mut self) {
        while let Some(news) = self.upgrade.hear() {
            match news {
                News::Ready(pid) => {
                    self.notice(format_args!("process {pid} is ready and serves too; QUIT drains this one"))
                }
                News::Failed(reason) => {
                    self.log(Level::Error, format_args!("no upgrade, this process goes on: {reason}"))
                }
                News::Ended(how) => {
                    self.log(Level::Error, format_args!("the new process has ended ({how}), this one goes on"));
                    // It may have left them to the other one alone.
                    self.deal_again();
                }
            }
        }
    }

    /// This process ends: its sockets, its successor and systemd hear of it.
    pub(super) fn let_go(&mut self, status: &str) {
        self.sockets.close();
        match self.upgrade.release() {
            Some(successor) => self.notify.hand_over(successor),
            None => self.notify.stopping(status),
        }
    }

    fn is_held(&self, patience: Duration) -> bool {
        self.predecessor.as_ref().is_some_and(|predecessor| predecessor.holds_on(patience))
    }

    /// True when another process has the same listening sockets.
    pub(super) fn is_accompanied(&self) -> bool {
        matches!(self.upgrade.stage, Stage::Released(Some(_))) || self.is_held(Duration::ZERO)
    }

    /// SIGWINCH: leaves new connections to the process beside this one, until that ends or SIGHUP comes. Where there is none it means
    /// that a terminal has another size.
    pub(super) fn rest(&mut self) {
        if let Some(successor) = self.upgrade.successor() {
            self.notice(format_args!("SIGWINCH: process {successor} accepts alone from now on"));
            self.tell(|| Message::Listen(Vec::new()));
        }
    }
}
