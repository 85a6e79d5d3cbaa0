//! SIGUSR2: another process takes the listening sockets over. nginx's dance, but the new process says when it is ready.

use std::os::fd::OwnedFd;

use nix::unistd::Pid;

use super::{
    answer,
    launcher::{Launcher, News},
};

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
    /// This process ends, and has let the other go.
    Released,
}

impl Upgrade {
    /// None yet, by this launcher.
    pub(super) fn by(launcher: Option<Launcher>) -> Self {
        Self { launcher, stage: Stage::Alone }
    }

    /// Begins. `asker` is told what becomes of it.
    ///
    /// # Errors
    /// Why not; nothing was done.
    pub(super) fn begin<'a>(
        &mut self,
        asker: Option<Pid>,
        sockets: impl Iterator<Item = &'a OwnedFd>,
    ) -> Result<(), String> {
        let begun = self.try_to_begin(sockets);
        match &begun {
            Ok(()) => self.stage = Stage::Starting(asker),
            Err(reason) => answer::give(asker, &News::Failed(reason.clone())),
        }
        begun
    }

    fn try_to_begin<'a>(&self, sockets: impl Iterator<Item = &'a OwnedFd>) -> Result<(), String> {
        match self.stage {
            Stage::Alone => {}
            Stage::Starting(_) => return Err("another process is being started already".to_owned()),
            Stage::Both(pid) => return Err(format!("process {pid} serves already: end this one or that one first")),
            Stage::Released => return Err("this process ends".to_owned()),
        }
        let launcher = self.launcher.as_ref().ok_or("there is nobody to start another process")?;
        launcher.start(sockets).map_err(|error| format!("the launcher has gone ({error}): start longsplice anew"))
    }

    /// What the launcher has to say, when its socket is readable.
    pub(super) fn hear(&mut self) -> Option<News> {
        let news = self.launcher.as_ref()?.news();
        let news = news.unwrap_or_else(|_| {
            self.launcher = None;
            News::Failed("the launcher was killed".to_owned())
        });
        if let Stage::Starting(asker) = self.stage {
            answer::give(asker, &news);
        }
        self.stage = match &news {
            _ if self.stage == Stage::Released => Stage::Released,
            News::Ready(pid) => Stage::Both(*pid),
            News::Failed(_) | News::Ended(_) => Stage::Alone,
        };
        Some(news)
    }

    /// What becomes readable when there is something to hear.
    pub(super) fn socket(&self) -> Option<&OwnedFd> {
        self.launcher.as_ref().map(Launcher::socket)
    }

    /// The process that serves beside this one.
    pub(super) fn successor(&self) -> Option<Pid> {
        match self.stage {
            Stage::Both(pid) => Some(pid),
            _ => None,
        }
    }

    /// This process ends, and lets go of the one beside it, whose number it returns.
    pub(super) fn release(&mut self) -> Option<Pid> {
        let successor = self.successor();
        if let Some(launcher) = self.launcher.as_ref().filter(|_| successor.is_some()) {
            launcher.release();
        }
        self.stage = Stage::Released;
        successor
    }
}
