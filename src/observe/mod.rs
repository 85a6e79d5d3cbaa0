//! What the program says: access log, error log, counters. Never blocks a worker.
//!
//! A worker formats a line and pushes it to a bounded `queue`; one `writer` thread empties it, a write(2) a file.

pub mod access_log;
pub mod board;
pub mod counters;
pub mod errand;
pub mod error_log;
pub mod library_log;
pub mod status;
pub mod status_page;
pub mod tally;

mod clock;
pub(crate) mod escape;
mod latency;
mod queue;
mod sink;
mod writer;

use std::{
    collections::HashMap,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use self::{
    queue::{Queue, Record, SinkId},
    sink::{Sink, is_fifo},
};
use crate::{
    config::{Config, ErrorLog, Level, LogBuffer, LogTarget, Settings},
    limits::{LOG_FLUSH_MS, LOG_RECORD_BYTES},
    request::Request,
    variables::local_zone,
};

/// The logs that a configuration names, written by one thread of their own. Configurations that follow each other share the thread,
/// and the files that both name: a file is open as long as anybody is left who may write to it.
#[derive(Debug)]
pub struct Logs {
    index: Index,
    main: Vec<ErrorLog>,
    writing: Arc<Writing>,
}

/// The writer's thread. Dropped, it ends, behind the last line.
#[derive(Debug, Default)]
struct Writing {
    queue: Arc<Queue>,
    started: AtomicBool,
    /// Number of the next log to be opened.
    next: AtomicU32,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// An open log of the writer's. Dropped, it is closed, behind its last line.
#[derive(Debug)]
struct Opened {
    number: SinkId,
    queue: Arc<Queue>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.queue.change(|changes| changes.closed.push(self.number));
    }
}

impl Logs {
    /// Opens (creates) the files and starts the writer.
    ///
    /// # Errors
    /// Every file that cannot be opened: cause and cure.
    pub fn open(config: &Config) -> Result<Arc<Logs>, Vec<String>> {
        let logs = Self::prepare(config)?;
        logs.start().map_err(|error| vec![error])?;
        Ok(logs)
    }

    /// Opens (creates) the files. Lines wait until the writer is [started](Logs::start): a process that is to give up rights has one
    /// thread until then.
    ///
    /// # Errors
    /// As [`Logs::open`].
    pub fn prepare(config: &Config) -> Result<Arc<Logs>, Vec<String>> {
        Self::prepare_targets(&config.main.error_logs, &targets(config), &config.main.prefix)
    }

    /// Starts the writer, unless it has been.
    ///
    /// # Errors
    /// No thread.
    pub fn start(&self) -> Result<(), String> {
        if self.writing.started.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        writer::start(Arc::clone(&self.writing.queue))
            .map_err(|error| format!("the log writer's thread cannot be started ({})", os_error(&error)))
    }

    /// The logs of the configuration that comes next: opens (creates) the files that this one does not name.
    ///
    /// # Errors
    /// As [`Logs::open`].
    pub fn follow(&self, config: &Config) -> Result<Arc<Logs>, Vec<String>> {
        let targets = targets(config);
        Self::open_with(&config.main.error_logs, &targets, &config.main.prefix, Arc::clone(&self.writing), &self.index)
    }

    /// What is to be said about the logs themselves is said in this main log from now on.
    pub fn lead(&self) {
        let main = self.main.iter().filter_map(|log| self.index.get(&log.target)).collect();
        self.writing.queue.change(|changes| changes.main = Some(main));
    }

    /// Opens every file of the process anew, by its name, behind the lines handed over so far: for who has moved them away. One that
    /// cannot be opened goes on as it is, and the main error log says why.
    pub fn reopen(&self) {
        self.writing.queue.change(|changes| changes.reopen = true);
    }

    /// Lines written to all logs of the process, ever.
    pub fn written(&self) -> u64 {
        self.writing.queue.tally.written()
    }

    /// Lines lost of all logs of the process, ever: a full disk, a pipe that nobody reads, more than the writer could take.
    pub fn lost(&self) -> u64 {
        self.writing.queue.tally.lost()
    }

    /// Says which log files of a configuration could not be opened, without creating any.
    ///
    /// # Errors
    /// As [`Logs::open`].
    pub fn check(config: &Config) -> Result<(), Vec<String>> {
        let errors: Vec<String> = Self::files(config).iter().filter_map(|path| check_file(path).err()).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The files a configuration has logs written to.
    pub fn files(config: &Config) -> Vec<PathBuf> {
        let files = targets(config).into_keys().filter_map(|target| match target {
            LogTarget::File(path) => Some(config.main.prefix.join(path)),
            LogTarget::Stderr | LogTarget::Stdout => None,
        });
        files.collect()
    }

    /// Hands one line to the writer; lost, and counted, when it cannot keep up.
    pub fn write(&self, target: &LogTarget, mut line: Vec<u8>) {
        // Every target was collected from the configuration that the line comes from.
        let Some(sink) = self.index.get(target) else { return };
        if line.len() > LOG_RECORD_BYTES {
            line.truncate(LOG_RECORD_BYTES - 1);
            line.push(b'\n');
        }
        self.writing.queue.push(Record { sink, line });
    }

    /// Waits (at most a second) until everything handed over is written.
    pub fn flush(&self) {
        self.writing.queue.flush(Duration::from_millis(LOG_FLUSH_MS));
    }

    fn prepare_targets(main: &[ErrorLog], targets: &Targets<'_>, prefix: &Path) -> Result<Arc<Logs>, Vec<String>> {
        // Read while files can be opened.
        local_zone();
        let writing = Arc::<Writing>::default();
        let logs = Self::open_with(main, targets, prefix, writing, &Index::default())?;
        logs.lead();
        Ok(logs)
    }

    /// Opens what is not among the `known`.
    fn open_with(
        main: &[ErrorLog],
        targets: &Targets<'_>,
        prefix: &Path,
        writing: Arc<Writing>,
        known: &Index,
    ) -> Result<Arc<Logs>, Vec<String>> {
        // nginx's default: stderr, from `error` up.
        let default = [ErrorLog { target: LogTarget::Stderr, level: Level::Error }];
        let main = if main.is_empty() { default.to_vec() } else { main.to_vec() };
        let (mut index, mut opened, mut errors) = (Index::default(), Vec::new(), Vec::new());
        let mut all: Targets<'_> = main.iter().map(|log| (&log.target, None)).collect();
        all.extend(targets);
        for target in all.keys().copied() {
            if let Some(log) = known.opened(target) {
                index.insert(target, Arc::clone(log));
                continue;
            }
            match Sink::open(target, prefix, &writing.queue.tally) {
                Ok(sink) => opened.push((target, sink)),
                Err(error) => errors.push(cannot_open(target, prefix, &error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        for (target, sink) in opened {
            index.insert(target, writing.open(sink));
        }
        let buffers = all.into_iter().filter_map(|(target, buffer)| Some((index.get(target)?, buffer)));
        writing.queue.change(|changes| changes.buffers.extend(buffers));
        Ok(Arc::new(Logs { index, main, writing }))
    }
}

impl Writing {
    fn open(&self, sink: Sink) -> Arc<Opened> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.queue.change(|changes| changes.opened.push((number, sink)));
        Arc::new(Opened { number, queue: Arc::clone(&self.queue) })
    }
}

/// An operating system's error as nginx writes it: `13: Permission denied`.
pub fn os_error(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => format!("{code}: {}", nix::errno::Errno::from_raw(code).desc()),
        None => error.to_string(),
    }
}

/// The settings a request is logged by: its location's; its server's while no location is chosen.
fn settings<'a>(config: &'a Config, request: &Request) -> Option<&'a Settings> {
    let server = config.servers.get(request.server)?;
    let location = request.location.and_then(|id| server.locations.get(id));
    Some(location.map_or(&server.settings, |location| &location.settings))
}

/// Which log a target is. Looked up by the bytes of the path: `PathBuf` would compare it component by component.
#[derive(Debug, Default)]
struct Index {
    files: HashMap<Box<[u8]>, Arc<Opened>>,
    stderr: Option<Arc<Opened>>,
    stdout: Option<Arc<Opened>>,
}

impl Index {
    fn get(&self, target: &LogTarget) -> Option<SinkId> {
        self.opened(target).map(|log| log.number)
    }

    fn opened(&self, target: &LogTarget) -> Option<&Arc<Opened>> {
        match target {
            LogTarget::File(path) => self.files.get(path.as_os_str().as_bytes()),
            LogTarget::Stderr => self.stderr.as_ref(),
            LogTarget::Stdout => self.stdout.as_ref(),
        }
    }

    fn insert(&mut self, target: &LogTarget, log: Arc<Opened>) {
        match target {
            LogTarget::File(path) => {
                self.files.insert(path.as_os_str().as_bytes().into(), log);
            }
            LogTarget::Stderr => self.stderr = Some(log),
            LogTarget::Stdout => self.stdout = Some(log),
        }
    }
}

/// Every log a configuration names, and how it is buffered.
type Targets<'a> = HashMap<&'a LogTarget, Option<LogBuffer>>;

fn targets(config: &Config) -> Targets<'_> {
    let locations = config.servers.iter().flat_map(|server| &server.locations).map(|location| &location.settings);
    let servers = config.servers.iter().map(|server| &server.settings);
    let mut targets: Targets<'_> = config.main.error_logs.iter().map(|log| (&log.target, None)).collect();
    for settings in servers.chain(locations) {
        for log in &settings.error_logs {
            targets.entry(&log.target).or_default();
        }
        for log in &settings.access_logs {
            let buffer = targets.entry(&log.target).or_default();
            *buffer = buffer.or(log.buffer);
        }
    }
    targets
}

fn cannot_open(target: &LogTarget, prefix: &Path, error: &io::Error) -> String {
    match target {
        LogTarget::File(path) => cannot_open_file(&prefix.join(path), error),
        LogTarget::Stderr | LogTarget::Stdout => format!("a standard stream cannot be used ({})", os_error(error)),
    }
}

fn cannot_open_file(path: &Path, error: &io::Error) -> String {
    let directory = path.parent().unwrap_or(Path::new("/")).display();
    let cure = match error.kind() {
        io::ErrorKind::NotFound => format!("; make the directory: mkdir -p {directory}"),
        io::ErrorKind::PermissionDenied => {
            format!("; who starts longsplice must be able to write in {directory}")
        }
        _ if is_fifo(path) => "; nobody reads this pipe: start its reader first".to_owned(),
        _ => String::new(),
    };
    format!("open() \"{}\" failed ({}){cure}", path.display(), os_error(error))
}

/// Says whether a file could be opened for writing, without creating it.
pub(crate) fn check_file(path: &Path) -> Result<(), String> {
    use nix::unistd::{AccessFlags, access};
    let checked = match access(path, AccessFlags::W_OK) {
        Err(nix::errno::Errno::ENOENT) => {
            access(path.parent().unwrap_or(Path::new("/")), AccessFlags::W_OK | AccessFlags::X_OK)
        }
        other => other,
    };
    checked.map_err(|errno| cannot_open_file(path, &errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn logs_into(directory: &Path, level: Level, others: &[&str]) -> Arc<Logs> {
        let main = [ErrorLog { target: LogTarget::File("error.log".into()), level }];
        let others: Vec<LogTarget> = others.iter().map(|name| LogTarget::File(name.into())).collect();
        let logs = Logs::prepare_targets(&main, &plain(&others), directory).unwrap();
        logs.start().unwrap();
        logs
    }

    fn plain(targets: &[LogTarget]) -> Targets<'_> {
        targets.iter().map(|target| (target, None)).collect()
    }

    #[test]
    fn lines_reach_their_files_and_flush_waits_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs_into(directory.path(), Level::Error, &["a.log", "b.log"]);
        for number in 0..100 {
            logs.write(&LogTarget::File("a.log".into()), format!("a{number}\n").into_bytes());
            logs.write(&LogTarget::File("b.log".into()), format!("b{number}\n").into_bytes());
        }
        logs.flush();
        for name in ["a", "b"] {
            let text = std::fs::read_to_string(directory.path().join(format!("{name}.log"))).unwrap();
            let expected: String = (0..100).map(|number| format!("{name}{number}\n")).collect();
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn every_file_that_cannot_be_opened_is_named_with_its_cure() {
        let main = [ErrorLog { target: LogTarget::File("/nonexistent/e.log".into()), level: Level::Error }];
        let other = [main[0].target.clone(), LogTarget::File("/nonexistent/a.log".into()), LogTarget::Stdout];
        let mut errors = Logs::prepare_targets(&main, &plain(&other), Path::new("/")).unwrap_err();
        errors.sort();
        assert_eq!(errors.len(), 2);
        assert_eq!(
            errors[1],
            "open() \"/nonexistent/e.log\" failed (2: No such file or directory); make the directory: mkdir -p /nonexistent"
        );
    }

    #[test]
    fn a_check_creates_no_file() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(check_file(&directory.path().join("x.log")), Ok(()));
        assert!(!directory.path().join("x.log").exists());
        assert!(check_file(&directory.path().join("no/x.log")).unwrap_err().contains("mkdir -p"));
    }

    #[test]
    fn a_record_longer_than_the_limit_is_cut_and_stays_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs_into(directory.path(), Level::Error, &["a.log"]);
        logs.write(&LogTarget::File("a.log".into()), vec![b'x'; LOG_RECORD_BYTES * 2]);
        logs.flush();
        let text = std::fs::read(directory.path().join("a.log")).unwrap();
        assert_eq!(text.len(), LOG_RECORD_BYTES);
        assert_eq!(text.last(), Some(&b'\n'));
    }

    #[test]
    fn logs_that_follow_share_files_and_close_what_nobody_names() {
        let directory = tempfile::tempdir().unwrap();
        let target = |name: &str| LogTarget::File(name.into());
        let first = logs_into(directory.path(), Level::Error, &["both.log", "old.log"]);
        let others = [target("both.log"), target("new.log")];
        let writing = Arc::clone(&first.writing);
        let next = Logs::open_with(&first.main, &plain(&others), directory.path(), writing, &first.index);
        let next = next.unwrap();
        next.lead();
        assert_eq!(first.index.get(&target("both.log")), next.index.get(&target("both.log")));
        first.write(&target("both.log"), b"1\n".to_vec());
        first.write(&target("old.log"), b"2\n".to_vec());
        drop(first);
        next.write(&target("both.log"), b"3\n".to_vec());
        next.write(&target("new.log"), b"4\n".to_vec());
        next.flush();
        assert_eq!((next.written(), next.lost()), (4, 0));
        let text = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((text("both.log"), text("old.log"), text("new.log")), ("1\n3\n".into(), "2\n".into(), "4\n".into()));
        let open = || {
            std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok())
        };
        assert!(!open().any(|path| path == directory.path().join("old.log")), "it stays open");
        assert!(open().any(|path| path == directory.path().join("both.log")));
    }

    #[test]
    fn the_last_lines_are_written_after_the_logs_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs_into(directory.path(), Level::Error, &["a.log"]);
        let queue = Arc::clone(&logs.writing.queue);
        logs.write(&LogTarget::File("a.log".into()), b"last\n".to_vec());
        drop(logs);
        queue.flush(Duration::from_secs(5));
        assert_eq!(std::fs::read(directory.path().join("a.log")).unwrap(), b"last\n");
    }

    #[test]
    fn what_cannot_be_reopened_is_told_in_the_main_log() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let log = LogTarget::File("inner/a.log".into());
        let logs = logs_into(directory.path(), Level::Error, &["inner/a.log"]);
        std::fs::rename(&inner, directory.path().join("moved")).unwrap();
        logs.reopen();
        logs.write(&log, b"x\n".to_vec());
        logs.flush();
        let told = std::fs::read_to_string(directory.path().join("error.log")).unwrap();
        assert!(told.contains("(2: No such file or directory), the file that was open goes on"), "{told}");
        assert_eq!(std::fs::read(directory.path().join("moved/a.log")).unwrap(), b"x\n");
    }

    #[test]
    fn a_named_pipe_without_reader_is_an_error_and_no_hang() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let errors =
            Logs::prepare_targets(&[], &plain(&[LogTarget::File("pipe".into())]), directory.path()).unwrap_err();
        assert!(errors[0].ends_with("nobody reads this pipe: start its reader first"), "{errors:?}");
    }
}
