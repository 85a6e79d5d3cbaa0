//! What the program says: access log, error log, counters. Never blocks a worker.
//!
//! A worker formats a line and pushes it to a bounded `queue`; one `writer` thread empties it, a write(2) a file. Files and writer
//! are the process'; each configuration has [`Logs`] of its own that say which file is which.

pub mod access_log;
pub mod counters;
pub mod error_log;
pub mod library_log;

mod clock;
mod escape;
mod files;
mod queue;
mod sink;
mod writer;

use std::{collections::HashMap, io, os::unix::ffi::OsStrExt, path::Path, sync::Arc, time::Duration};

use self::{
    files::{Files, Wanted},
    queue::{Record, SinkId},
    sink::is_fifo,
};
use crate::{
    config::{Config, ErrorLog, Level, LogBuffer, LogTarget, Settings},
    limits::{LOG_FLUSH_MS, LOG_RECORD_BYTES},
    request::Request,
};

/// All log files of a configuration, written by one thread of the process.
#[derive(Debug)]
pub struct Logs {
    files: Arc<Files>,
    index: Index,
    main: Vec<ErrorLog>,
    /// What it keeps open.
    targets: Vec<LogTarget>,
}

impl Logs {
    /// Opens (creates) the files and starts the writer.
    ///
    /// # Errors
    /// Every file that cannot be opened: cause and cure.
    pub fn open(config: &Config) -> Result<Arc<Logs>, Vec<String>> {
        let files = Files::start()
            .map_err(|error| vec![format!("the log writer's thread cannot be started ({})", os_error(&error))])?;
        Self::of(files, &config.main.error_logs, &targets(config), &config.main.prefix)
    }

    /// The logs of another configuration, by the same writer. Files that both name stay as they are; those of neither are closed
    /// when the last of their [`Logs`] is dropped.
    ///
    /// # Errors
    /// As [`Logs::open`]; nothing has changed then.
    pub fn for_config(&self, config: &Config) -> Result<Arc<Logs>, Vec<String>> {
        Self::of(Arc::clone(&self.files), &config.main.error_logs, &targets(config), &config.main.prefix)
    }

    /// Opens every file of the process anew, by its name, behind the lines handed over so far: for who has moved them away. One that
    /// cannot be opened goes on as it is, and the main error log says why.
    pub fn reopen(&self) {
        self.files.queue.order([queue::Order::Reopen]);
    }

    /// Lines written to all logs of the process, ever.
    pub fn written(&self) -> u64 {
        self.files.queue.tally.written()
    }

    /// Lines lost of all logs of the process, ever: a full disk, a pipe that nobody reads, more than the writer could take.
    pub fn lost(&self) -> u64 {
        self.files.queue.tally.lost()
    }

    /// Says which log files of a configuration could not be opened, without creating any.
    ///
    /// # Errors
    /// As [`Logs::open`].
    pub fn check(config: &Config) -> Result<(), Vec<String>> {
        let files = targets(config).into_keys().filter_map(|target| match target {
            LogTarget::File(path) => Some(config.main.prefix.join(path)),
            LogTarget::Stderr | LogTarget::Stdout => None,
        });
        let errors: Vec<String> = files.filter_map(|path| check_file(&path).err()).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Hands one line to the writer; lost, and counted, when it cannot keep up.
    pub fn write(&self, target: &LogTarget, mut line: Vec<u8>) {
        // Every target was collected from the configuration that the line comes from.
        let Some(sink) = self.index.get(target) else { return };
        if line.len() > LOG_RECORD_BYTES {
            line.truncate(LOG_RECORD_BYTES - 1);
            line.push(b'\n');
        }
        self.files.queue.push(Record { sink, line });
    }

    /// Waits (at most a second) until everything handed over is written.
    pub fn flush(&self) {
        self.files.queue.flush(Duration::from_millis(LOG_FLUSH_MS));
    }

    fn of(
        files: Arc<Files>,
        main: &[ErrorLog],
        targets: &Targets<'_>,
        prefix: &Path,
    ) -> Result<Arc<Logs>, Vec<String>> {
        // nginx's default: stderr, from `error` up.
        let default = [ErrorLog { target: LogTarget::Stderr, level: Level::Error }];
        let main = if main.is_empty() { default.to_vec() } else { main.to_vec() };
        let absolute = |target: &LogTarget| match target {
            LogTarget::File(path) => LogTarget::File(prefix.join(path)),
            stream => stream.clone(),
        };
        let mut wanted: HashMap<LogTarget, Option<LogBuffer>> =
            main.iter().map(|log| (absolute(&log.target), None)).collect();
        wanted.extend(targets.iter().map(|(target, buffer)| (absolute(target), *buffer)));
        let wanted: Vec<Wanted> = wanted.into_iter().collect();
        let sinks = files
            .acquire(&wanted)
            .map_err(|errors| errors.iter().map(|(target, error)| cannot_open(target, error)).collect::<Vec<_>>())?;
        let mut index = Index::default();
        for target in main.iter().map(|log| &log.target).chain(targets.keys().copied()) {
            if let Some(sink) = sinks.get(&absolute(target)) {
                index.insert(target, *sink);
            }
        }
        let main_sinks = main.iter().filter_map(|log| index.get(&log.target)).collect();
        files.queue.order([queue::Order::Main(main_sinks)]);
        Ok(Arc::new(Logs { files, index, main, targets: sinks.into_keys().collect() }))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.files.release(&self.targets);
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

/// Which sink a target is. Looked up by the bytes of the path: `PathBuf` would compare it component by component.
#[derive(Debug, Default)]
struct Index {
    files: HashMap<Box<[u8]>, SinkId>,
    stderr: Option<SinkId>,
    stdout: Option<SinkId>,
}

impl Index {
    fn get(&self, target: &LogTarget) -> Option<SinkId> {
        match target {
            LogTarget::File(path) => self.files.get(path.as_os_str().as_bytes()).copied(),
            LogTarget::Stderr => self.stderr,
            LogTarget::Stdout => self.stdout,
        }
    }

    fn insert(&mut self, target: &LogTarget, sink: SinkId) {
        match target {
            LogTarget::File(path) => {
                self.files.insert(path.as_os_str().as_bytes().into(), sink);
            }
            LogTarget::Stderr => self.stderr = Some(sink),
            LogTarget::Stdout => self.stdout = Some(sink),
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

fn cannot_open(target: &LogTarget, error: &io::Error) -> String {
    match target {
        LogTarget::File(path) => cannot_open_file(path, error),
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
        open(&main, &others, directory).unwrap()
    }

    fn open(main: &[ErrorLog], others: &[LogTarget], prefix: &Path) -> Result<Arc<Logs>, Vec<String>> {
        Logs::of(Files::start().unwrap(), main, &plain(others), prefix)
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
        let mut errors = open(&main, &other, Path::new("/")).unwrap_err();
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
    fn the_last_lines_are_written_after_the_logs_are_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let logs = logs_into(directory.path(), Level::Error, &["a.log"]);
        let queue = Arc::clone(&logs.files.queue);
        logs.write(&LogTarget::File("a.log".into()), b"last\n".to_vec());
        drop(logs);
        queue.flush(Duration::from_secs(5));
        assert_eq!(std::fs::read(directory.path().join("a.log")).unwrap(), b"last\n");
    }

    fn main_log(name: &str) -> [ErrorLog; 1] {
        [ErrorLog { target: LogTarget::File(name.into()), level: Level::Error }]
    }

    #[test]
    fn two_configurations_share_a_file_and_the_last_one_closes_it() {
        let directory = tempfile::tempdir().unwrap();
        let (shared, own) = (LogTarget::File("shared.log".into()), LogTarget::File("own.log".into()));
        let old = open(&main_log("e.log"), std::slice::from_ref(&shared), directory.path()).unwrap();
        let both = [shared.clone(), own.clone()];
        let new = Logs::of(Arc::clone(&old.files), &main_log("e.log"), &plain(&both), directory.path()).unwrap();
        let files = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter_map(|fd| std::fs::read_link(fd.path()).ok())
                .filter(|path| path.starts_with(directory.path()))
                .count()
        };
        old.write(&shared, b"old\n".to_vec());
        new.write(&shared, b"new\n".to_vec());
        new.write(&own, b"own\n".to_vec());
        new.flush();
        assert_eq!(files(), 3);
        drop(new);
        old.flush();
        assert_eq!(files(), 2);
        old.write(&shared, b"still\n".to_vec());
        old.flush();
        assert_eq!(std::fs::read(directory.path().join("shared.log")).unwrap(), b"old\nnew\nstill\n");
        assert_eq!((old.written(), old.lost()), (4, 0));
    }

    #[test]
    fn a_configuration_whose_logs_cannot_be_opened_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let old = open(&main_log("e.log"), &[], directory.path()).unwrap();
        let others = [LogTarget::File("new.log".into()), LogTarget::File("/nonexistent/a.log".into())];
        assert!(Logs::of(Arc::clone(&old.files), &main_log("e.log"), &plain(&others), directory.path()).is_err());
        old.flush();
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let open = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
        assert_eq!(open.filter(|path| path.starts_with(directory.path())).count(), 1);
    }

    #[test]
    fn what_cannot_be_reopened_is_told_in_the_main_log() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let log = LogTarget::File("inner/a.log".into());
        let logs = open(&main_log("e.log"), std::slice::from_ref(&log), directory.path()).unwrap();
        std::fs::rename(&inner, directory.path().join("moved")).unwrap();
        logs.reopen();
        logs.write(&log, b"x\n".to_vec());
        logs.flush();
        let told = std::fs::read_to_string(directory.path().join("e.log")).unwrap();
        assert!(told.contains("(2: No such file or directory), the file that was open goes on"), "{told}");
        assert_eq!(std::fs::read(directory.path().join("moved/a.log")).unwrap(), b"x\n");
    }

    #[test]
    fn a_named_pipe_without_reader_is_an_error_and_no_hang() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let errors = open(&main_log("e.log"), &[LogTarget::File("pipe".into())], directory.path()).unwrap_err();
        assert!(errors[0].ends_with("nobody reads this pipe: start its reader first"), "{errors:?}");
    }
}
