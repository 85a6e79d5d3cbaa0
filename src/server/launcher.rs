//! Who starts the new program at SIGUSR2, and looks after it until it is let go.
//!
//! Started by root, this process becomes `user` for good: it could not start a program that binds ports below 1024, reads keys and
//! writes /run. So before it does, it forks a launcher that stays root. That one has no socket open but the one to this
//! process, reads nothing else, and can do one thing: start the program it was itself started as, with the same arguments, and
//! with the descriptors that it is sent. It is a process also where there is no root to give up: the one that serves may start no
//! program (`sandbox`).

use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::Child,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::Pid,
};
use socket2::SockRef;

use super::{
    pid_file,
    program::{Program, Started},
};
use crate::{
    observe::os_error,
    sys::{
        self, DESCRIPTORS_PER_MESSAGE,
        process::{Forked, fork},
    },
};

/// Longest message, bytes: the reason of a failed start is cut to it.
pub(super) const MESSAGE_BYTES: usize = 4 << 10;
/// What `ps` calls a launcher (15 bytes, prctl(2)): one that stays root,
const ROOT: &CStr = c"longsplice-root";
/// and one that is who the serving process is.
const NEXT: &CStr = c"longsplice-next";

/// An order: sockets, of which more follow.
const MORE: &[u8] = b"more";
/// The last of the sockets: start the program with all of them.
const START: &[u8] = b"start";
/// Let go of the program that was started.
const RELEASE: &[u8] = b"release";

/// What a launcher says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// The new process accepts connections.
    Ready(Pid),
    /// There is no new process, and why.
    Failed(String),
    /// The new process was ready, and has ended: how.
    Ended(String),
}

impl News {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Ready(pid) => format!("ready {pid}"),
            Self::Failed(reason) => format!("failed {reason}"),
            Self::Ended(how) => format!("ended {how}"),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ')?;
        match word {
            "ready" => rest.parse().ok().map(|pid| Self::Ready(Pid::from_raw(pid))),
            "failed" => Some(Self::Failed(rest.to_owned())),
            "ended" => Some(Self::Ended(rest.to_owned())),
            _ => None,
        }
    }
}

/// The serving process' end.
#[derive(Debug)]
pub(super) struct Launcher {
    socket: OwnedFd,
}

/// Which process came out of [`Launcher::begin`].
pub(super) enum Which {
    Server(Launcher),
    Launcher(Work),
}

impl Launcher {
    /// As a process that keeps the rights of this one. Only while there is one thread.
    ///
    /// # Errors
    /// No process.
    pub(super) fn begin(job: Job, stays_root: bool) -> io::Result<Which> {
        let (here, there) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let work = Work { job, orders: there, sockets: Vec::new(), successor: None, is_named: true };
        SockRef::from(&here).set_nonblocking(true)?;
        match fork()? {
            Forked::Parent => Ok(Which::Server(Self { socket: here })),
            Forked::Child => {
                let _ = nix::sys::prctl::set_name(if stays_root { ROOT } else { NEXT });
                Ok(Which::Launcher(work))
            }
        }
    }

    /// Orders the start of the program with these sockets.
    ///
    /// # Errors
    /// The launcher has gone.
    pub(super) fn start<'a>(&self, sockets: impl Iterator<Item = &'a OwnedFd>) -> io::Result<()> {
        let sockets: Vec<_> = sockets.map(AsFd::as_fd).collect();
        let mut batches = sockets.chunks(DESCRIPTORS_PER_MESSAGE).peekable();
        while let Some(batch) = batches.next() {
            let order = if batches.peek().is_some() { MORE } else { START };
            sys::send_descriptors(self.socket.as_fd(), order, batch)?;
        }
        if sockets.is_empty() { sys::send_descriptors(self.socket.as_fd(), START, &[]) } else { Ok(()) }
    }

    /// Lets the new process go: it is nobody's successor any more.
    pub(super) fn release(&self) {
        // A launcher that has gone holds nobody.
        let _ = sys::send_descriptors(self.socket.as_fd(), RELEASE, &[]);
    }

    /// What it says, if it says anything.
    ///
    /// # Errors
    /// It has gone.
    pub(super) fn news(&self) -> io::Result<Option<News>> {
        let mut bytes = [0; MESSAGE_BYTES];
        match sys::recv_descriptors(self.socket.as_fd(), &mut bytes) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((length, _)) => Ok(News::parse(&String::from_utf8_lossy(&bytes[..length]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Readable when there is news.
    pub(super) fn socket(&self) -> &OwnedFd {
        &self.socket
    }
}

/// What a launcher is there for.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// What to start.
    pub program: Program,
    /// How long it may take to be ready.
    pub timeout: Duration,
    /// The pid file of the serving process,
    pub pid_path: Option<PathBuf>,
    /// and its number.
    pub pid: Pid,
}

/// A launcher at work.
pub(super) struct Work {
    job: Job,
    orders: OwnedFd,
    /// Sockets for the next start, as far as they have come.
    sockets: Vec<OwnedFd>,
    successor: Option<Successor>,
    /// The pid file is the serving process', and no successor's.
    is_named: bool,
}

/// The process it started.
struct Successor {
    child: Child,
    pipe: File,
    /// Until when it must be ready; none: it is.
    deadline: Option<Instant>,
    /// Why it says it cannot be.
    reason: Option<String>,
}

impl Work {
    /// Until the serving process ends.
    pub(super) fn run(mut self) {
        loop {
            let (order, successor) = self.wait();
            if order && !self.obey() {
                break;
            }
            if successor {
                self.hear();
            }
            if self.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                self.bury(true);
            }
        }
        if let Some(path) = &self.job.pid_path {
            pid_file::forget(path, self.job.pid, self.is_named);
        }
    }

    /// Waits for an order, for what the successor says, or for its deadline.
    fn wait(&self) -> (bool, bool) {
        let mut watched = vec![PollFd::new(self.orders.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.successor.as_ref().map(|it| PollFd::new(it.pipe.as_fd(), PollFlags::POLLIN)));
        let timeout = self.deadline().map_or(PollTimeout::NONE, |deadline| {
            let rest = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut watched, timeout).is_err() {
            return (false, false);
        }
        let has = |index: usize| watched.get(index).and_then(PollFd::any).unwrap_or(false);
        (has(0), has(1))
    }

    fn deadline(&self) -> Option<Instant> {
        self.successor.as_ref().and_then(|successor| successor.deadline)
    }

    /// Takes one order. False when there will be no other.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 16];
        let Ok((length @ 1.., sockets)) = sys::recv_descriptors(self.orders.as_fd(), &mut bytes) else { return false };
        self.sockets.extend(sockets);
        match &bytes[..length] {
            START => self.start(),
            RELEASE => self.successor = None,
            _ => {}
        }
        true
    }

    fn start(&mut self) {
        let sockets = std::mem::take(&mut self.sockets);
        let Job { program, timeout, pid_path, pid } = &self.job;
        if let Some(path) = pid_path {
            pid_file::set_aside(path, *pid);
        }
        self.is_named = false;
        match program.start(&sockets) {
            Ok(Started { child, pipe }) => {
                let deadline = Some(Instant::now() + *timeout);
                self.successor = Some(Successor { child, pipe, deadline, reason: None });
            }
            Err(error) => {
                let file = program.file().display();
                self.fail(format!("execve() \"{file}\" failed ({}){}", os_error(&error), cure(&error)));
            }
        }
    }

    /// Reads what the successor says; the end of its pipe is its own.
    fn hear(&mut self) {
        let Some(successor) = &mut self.successor else { return };
        let mut bytes = [0; MESSAGE_BYTES];
        let length = successor.pipe.read(&mut bytes).unwrap_or(0);
        let said = String::from_utf8_lossy(&bytes[..length]);
        match said.trim_end().split_once(' ').unwrap_or((said.trim_end(), "")) {
            ("ready", _) => {
                successor.deadline = None;
                let pid = Pid::from_raw(successor.child.id().cast_signed());
                self.tell(&News::Ready(pid));
            }
            ("failed", reason) => successor.reason = Some(reason.to_owned()),
            _ if length > 0 => {}
            _ => self.bury(false),
        }
    }

    /// Buries the successor: its pipe is at its end, or its time.
    fn bury(&mut self, late: bool) {
        let Some(Successor { mut child, deadline, reason, .. }) = self.successor.take() else { return };
        // One that has closed the pipe and lives is ended too: nobody could tell what becomes of it. What has ended keeps its status.
        // A launcher in a unit without CAP_KILL may not, and must not wait then.
        let ended = child.kill().and_then(|()| child.wait());
        let status = ended.map_or_else(|error| os_error(&error), |status| status.to_string());
        if deadline.is_none() {
            self.restore();
            self.tell(&News::Ended(status));
        } else if late {
            self.fail(format!("it was not ready within {} s", self.job.timeout.as_secs()));
        } else {
            let nothing = || format!("it ended before it was ready ({status}); stderr and its error log say more");
            self.fail(reason.unwrap_or_else(nothing));
        }
    }

    fn fail(&mut self, reason: String) {
        self.restore();
        self.tell(&News::Failed(reason));
    }

    fn restore(&mut self) {
        self.is_named = true;
        if let Some(path) = &self.job.pid_path {
            pid_file::restore(path, self.job.pid);
        }
    }

    fn tell(&self, news: &News) {
        let text = news.text();
        let length = text.len().min(MESSAGE_BYTES);
        // A server that has gone does not want to know.
        let _ = sys::send_descriptors(self.orders.as_fd(), &text.as_bytes()[..length], &[]);
    }
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; the program must be where this one was started from",
        io::ErrorKind::PermissionDenied => "; it must be executable by the user this process runs as",
        _ => "",
    }
}
