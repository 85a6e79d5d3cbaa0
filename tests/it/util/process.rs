//! Processes: ours run to their end or until their test is through, with all that they say.

use std::{
    io::{BufRead, BufReader, Read},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{PATIENCE, eventually};

/// What a program that ended left behind.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    _dir: Option<TempDir>,
}

impl Finished {
    /// Keeps the directory of its file as long as what it said is looked at.
    pub fn in_directory(mut self, dir: TempDir) -> Self {
        self._dir = Some(dir);
        self
    }

    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {}", self.status.signal(), self.stderr))
    }

    /// Everything it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), code, "it said:\n{}", self.said());
        self
    }

    #[track_caller]
    pub fn expect(&self, words: &[&str]) -> &Self {
        let said = self.said();
        for word in words {
            assert!(said.contains(word), "no {word:?} in:\n{said}");
        }
        self
    }
}

/// Runs a command to its end, in bounded time.
pub fn finish(command: &mut Command) -> Finished {
    let mut child = start(command, Stdio::null());
    let output = [collect(child.stdout.take().expect("piped")), collect(child.stderr.take().expect("piped"))];
    let status = wait(&mut child, PATIENCE * 4);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    output.iter().for_each(Output::wait);
    let [stdout, stderr] = output.map(|output| output.text());
    let status = status.unwrap_or_else(|| panic!("{command:?} did not end by itself; it said:\n{stdout}{stderr}"));
    Finished { status, stdout, stderr, _dir: None }
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What a process writes to one of its pipes, read by a thread.
struct Output {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

/// Line by line: nobody sees half of one.
fn collect(output: impl Read + Send + 'static) -> Output {
    let mut output = BufReader::new(output);
    collect_by(move |line| output.read_until(b'\n', line).unwrap_or(0))
}

/// As it comes: a screen has no lines.
fn collect_pieces(mut output: impl Read + Send + 'static) -> Output {
    collect_by(move |bytes| {
        let mut piece = [0; 4096];
        let length = output.read(&mut piece).unwrap_or(0);
        bytes.extend_from_slice(&piece[..length]);
        length
    })
}

fn collect_by(mut read: impl FnMut(&mut Vec<u8>) -> usize + Send + 'static) -> Output {
    let bytes = Arc::<Mutex<Vec<u8>>>::default();
    let sink = bytes.clone();
    let reader = thread::spawn(move || {
        let mut piece = Vec::new();
        while read(&mut piece) > 0 {
            sink.lock().unwrap().append(&mut piece);
        }
    });
    Output { bytes, reader }
}

impl Output {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    /// Until the pipe is closed: by the end of the process, mostly.
    fn wait(&self) {
        eventually(|| self.reader.is_finished());
    }
}

fn start(command: &mut Command, input: Stdio) -> Child {
    command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// A process of ours and what it says.
pub struct Running {
    child: Child,
    output: [Output; 2],
    ended: Option<ExitStatus>,
    foreign: bool,
}

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        Self::reading(command, Stdio::null())
    }

    /// With its standard input in our hands: what is written to it was typed.
    pub fn spawn_interactive(command: &mut Command) -> (Self, ChildStdin) {
        let mut child = start(command, Stdio::piped());
        let keyboard = child.stdin.take().expect("piped");
        let stdout = collect_pieces(child.stdout.take().expect("piped"));
        let stderr = collect_pieces(child.stderr.take().expect("piped"));
        (Self { child, output: [stdout, stderr], ended: None, foreign: false }, keyboard)
    }

    /// With something else as its standard input.
    pub fn fed(command: &mut Command, input: OwnedFd) -> Self {
        Self::reading(command, input.into())
    }

    fn reading(command: &mut Command, input: Stdio) -> Self {
        let mut child = start(command, input);
        let output = [collect(child.stdout.take().expect("piped")), collect(child.stderr.take().expect("piped"))];
        Self { child, output, ended: None, foreign: false }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far, stdout first.
    pub fn said(&self) -> String {
        self.output[0].text() + &self.output[1].text()
    }

    /// Its status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("wait");
        }
        self.ended
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("a process of ours");
    }

    /// Its status within [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        if self.ended.is_none() {
            self.ended = wait(&mut self.child, PATIENCE);
        }
        self.ended.unwrap_or_else(|| panic!("still running; it says:\n{}", self.said()))
    }

    /// Ends it at once, whatever its status: for programs that are not ours.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.foreign = true;
    }

    fn check_end(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM);
        }
        let status = self.wait();
        self.output.iter().for_each(Output::wait);
        let said = self.said();
        assert!(status.success(), "ended with {status}; it says:\n{said}");
        assert!(!said.contains("panicked at"), "it panicked:\n{said}");
    }
}

impl Drop for Running {
    /// Every process must end by SIGTERM, with status 0 and without a panic in its log: each test checks that too.
    fn drop(&mut self) {
        if self.foreign {
            return;
        }
        if thread::panicking() {
            eprintln!("--- it said:\n{}---", self.said());
            // nginx's workers outlive a master that is killed: it is asked first.
            let _ = kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGTERM);
            if wait(&mut self.child, Duration::from_secs(1)).is_none() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        } else {
            self.check_end();
        }
    }
}
