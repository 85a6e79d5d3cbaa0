//! One log file, and what becomes of lines that it does not take.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::{SFlag, fstat},
    unistd::write,
};

use crate::{
    config::{LogBuffer, LogTarget},
    limits::{
        LOG_BACKLOG_BYTES, LOG_LOSS_REPORT_SECS, LOG_PIPE_BYTES, LOG_RECOVERY_REPORT_SECS, LOG_RETRY_MS,
        LOG_WRITE_BYTES,
    },
};

/// Lines written and lost, ever, of all logs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    written: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    pub(super) fn written(&self) -> u64 {
        self.written.load(Relaxed)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    pub(super) fn add_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Relaxed);
    }
}

/// An open log.
#[derive(Debug)]
pub(super) struct Sink {
    name: String,
    output: Output,
    /// A write could wait for a reader: a pipe, a terminal, a socket.
    may_wait: bool,
    buffer: Option<LogBuffer>,
    pending: Pending,
    unreported: Unreported,
    tally: Arc<Tally>,
}

#[derive(Debug)]
enum Output {
    File(File, PathBuf),
    // Not duplicated, and past std's line buffer: when a daemon points its standard streams at /dev/null, its log follows.
    Stderr(io::Stderr),
    Stdout(io::Stdout),
}

/// Lines not written yet.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// What is left of each line.
    lines: VecDeque<usize>,
    /// Since when the first of them waits.
    since: Option<Instant>,
    /// The first is in the file in part.
    cut: bool,
    /// A line was lost when it was in the file in part: the next that gets there begins with a newline.
    torn: bool,
}

/// Lines lost since the last report that somebody could read.
#[derive(Debug, Default)]
struct Unreported {
    lines: u64,
    cause: Option<Errno>,
    /// When it was last tried to tell.
    reported: Option<Instant>,
    /// A line was written since: there is room again.
    is_over: bool,
}

impl Unreported {
    /// The file took nothing at all. One that is only slow is never over.
    fn has_failed(&self) -> bool {
        self.cause.is_some_and(|errno| errno != Errno::EAGAIN)
    }

    /// When it may be told next: how long from now. Never without lines.
    fn due_in(&self, now: Instant) -> Option<Duration> {
        let pause = if self.is_over { LOG_RECOVERY_REPORT_SECS } else { LOG_LOSS_REPORT_SECS };
        let next = self.reported.map(|reported| reported + Duration::from_secs(pause));
        (self.lines > 0).then(|| next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now)))
    }
}

impl Sink {
    /// Opens (creates) a log; `prefix` is what a relative path is relative to.
    pub(super) fn open(target: &LogTarget, prefix: &Path, tally: &Arc<Tally>) -> io::Result<Self> {
        let (name, output) = match target {
            LogTarget::File(path) => {
                let path = prefix.join(path);
                (path.display().to_string(), Output::File(open_for_append(&path)?, path))
            }
            LogTarget::Stderr => ("stderr".to_owned(), Output::Stderr(io::stderr())),
            LogTarget::Stdout => ("stdout".to_owned(), Output::Stdout(io::stdout())),
        };
        Ok(Self::new(name, output, Arc::clone(tally)))
    }

    fn new(name: String, output: Output, tally: Arc<Tally>) -> Self {
        let may_wait = may_wait(output.fd());
        let (pending, unreported) = (Pending::default(), Unreported::default());
        Self { name, output, may_wait, buffer: None, pending, unreported, tally }
    }

    /// `buffer=` and `flush=`.
    pub(super) fn set_buffer(&mut self, buffer: Option<LogBuffer>) {
        self.buffer = buffer;
    }

    /// Takes a line. It is lost, and counted, when too much waits already.
    pub(super) fn add(&mut self, line: &[u8], now: Instant) {
        let room = self.room();
        if self.pending.bytes.len() + line.len() > room {
            self.write_out();
        }
        if self.pending.bytes.len() + line.len() > room.max(LOG_BACKLOG_BYTES) {
            self.lost(1, Errno::EAGAIN);
        } else {
            self.pending.add(line, now);
        }
    }

    fn room(&self) -> usize {
        self.buffer.map_or(LOG_WRITE_BYTES, |buffer| buffer.bytes)
    }

    /// When something is to be written, or told, without another line: how long from now.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        let lines = match self.is_due(now) {
            true => Some(Duration::from_millis(LOG_RETRY_MS)),
            false => self.flush_in(now),
        };
        [lines, self.unreported.due_in(now)].into_iter().flatten().min()
    }

    fn flush_in(&self, now: Instant) -> Option<Duration> {
        let flush = self.buffer.and_then(|buffer| buffer.flush)?;
        Some((self.pending.since? + flush).saturating_duration_since(now))
    }

    /// True when lines wait that ought to be written: all, with `buffer=` a full one or one that waits since `flush=`.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let Some(since) = self.pending.since else { return false };
        let Some(buffer) = self.buffer else { return true };
        self.pending.bytes.len() >= buffer.bytes || buffer.flush.is_some_and(|flush| now >= since + flush)
    }

    /// Writes what waits. What does not fit into a pipe goes on waiting; what a file does not take (a full disk) is lost.
    pub(super) fn write_out(&mut self) {
        if let Some(errno) = self.try_write() {
            self.give_up(errno);
        }
    }

    /// Writes a line about the logs themselves. False: it is not to be had here either, and no lost line.
    pub(super) fn say(&mut self, line: &[u8], now: Instant) -> bool {
        self.write_out();
        if self.pending.bytes.len() + line.len() > LOG_BACKLOG_BYTES {
            return false;
        }
        self.pending.add(line, now);
        let failed = self.try_write().is_some();
        if failed {
            self.pending.drop_all();
        }
        !failed
    }

    /// Writes what waits, as far as it goes; what the file said to the rest.
    fn try_write(&mut self) -> Option<Errno> {
        let mut sent = 0;
        let failure = loop {
            let Some(piece) = self.pending.bytes.get(sent..).filter(|rest| !rest.is_empty()) else { break None };
            let piece = if self.may_wait { first_lines(piece, LOG_PIPE_BYTES) } else { piece };
            if self.may_wait && !has_room(self.output.fd()) {
                break None;
            }
            match write(self.output.fd(), piece) {
                Ok(0) | Err(Errno::EAGAIN) => break None,
                Ok(written) => sent += written,
                Err(Errno::EINTR) => {}
                Err(errno) => break Some(errno),
            }
        };
        self.tally.written.fetch_add(self.pending.drop_front(sent), Relaxed);
        self.unreported.is_over |= sent > 0 && failure.is_none() && self.unreported.has_failed();
        failure
    }

    /// Opens the file anew, by its name; what waits goes to the old one first.
    ///
    /// # Errors
    /// open(2)'s, with the file's path; the old one goes on.
    pub(super) fn reopen(&mut self) -> Result<(), (PathBuf, io::Error)> {
        self.write_out();
        if let Output::File(file, path) = &mut self.output {
            *file = open_for_append(path).map_err(|error| (path.clone(), error))?;
            (self.pending.cut, self.pending.torn) = (false, false);
            self.may_wait = may_wait(self.output.fd());
        }
        Ok(())
    }

    /// No line comes any more: what cannot be written now is lost.
    pub(super) fn close(&mut self) {
        self.write_out();
        self.give_up(Errno::EAGAIN);
    }

    fn give_up(&mut self, errno: Errno) {
        let lines = self.pending.drop_all();
        self.lost(lines, errno);
    }

    fn lost(&mut self, lines: u64, errno: Errno) {
        if lines > 0 {
            self.tally.add_lost(lines);
            self.unreported.lines += lines;
            self.unreported.cause = Some(errno);
            self.unreported.is_over = false;
        }
    }

    /// Counts lines for the next report that were lost, and counted, before they came here.
    pub(super) fn report_lost(&mut self, lines: u64) {
        self.unreported.lines += lines;
    }

    /// How many lines were lost, when that is to be told: at most once a minute, and once there is room again, unless it is the `last`
    /// chance. [`Sink::told`] when somebody could be.
    pub(super) fn report(&mut self, now: Instant, last: bool) -> Option<String> {
        let due_in = self.unreported.due_in(now)?;
        if !last && !due_in.is_zero() {
            return None;
        }
        self.unreported.reported = Some(now);
        let cause = match self.unreported.cause {
            Some(Errno::EAGAIN) => "nobody reads it, or too slowly".to_owned(),
            Some(errno) => format!("write() failed ({}: {})", errno as i32, errno.desc()),
            None => "they came faster than the log takes them".to_owned(),
        };
        Some(format!("{} lines for the log \"{}\" were lost: {cause}", self.unreported.lines, self.name))
    }

    /// The lines that were reported last have been told of.
    pub(super) fn told(&mut self) {
        self.unreported = Unreported { reported: self.unreported.reported, ..Unreported::default() };
    }
}

impl Pending {
    fn add(&mut self, line: &[u8], now: Instant) {
        let before = self.bytes.len();
        if self.torn && self.bytes.is_empty() {
            self.bytes.push(b'\n');
        }
        self.bytes.extend_from_slice(line);
        self.lines.push_back(self.bytes.len() - before);
        self.since.get_or_insert(now);
    }

    /// So many bytes are in the file: how many lines that completes.
    fn drop_front(&mut self, mut written: usize) -> u64 {
        self.bytes.drain(..written);
        self.torn &= written == 0;
        let mut whole = 0;
        while let Some(line) = self.lines.front_mut() {
            if *line > written {
                *line -= written;
                self.cut |= written > 0;
                break;
            }
            written -= *line;
            whole += 1;
            self.cut = false;
            self.lines.pop_front();
        }
        if self.lines.is_empty() {
            self.since = None;
        }
        whole
    }

    /// Forgets all lines: how many.
    fn drop_all(&mut self) -> u64 {
        let lines = self.lines.len() as u64;
        *self = Self { torn: self.torn || self.cut, ..Self::default() };
        lines
    }
}

/// As many whole lines as fit into `most` bytes, or a piece of a line that is longer.
fn first_lines(bytes: &[u8], most: usize) -> &[u8] {
    let Some(piece) = bytes.get(..most) else { return bytes };
    let end = memchr::memrchr(b'\n', piece).map_or(most, |newline| newline + 1);
    bytes.get(..end).unwrap_or(piece)
}

/// Anything but a plain file. What cannot be asked is taken for one that may.
fn may_wait(fd: BorrowedFd<'_>) -> bool {
    let kind = fstat(fd).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    kind != Ok(SFlag::S_IFREG)
}

/// A write of up to [`LOG_PIPE_BYTES`] does not wait, or fails at once.
fn has_room(fd: BorrowedFd<'_>) -> bool {
    poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], PollTimeout::ZERO) != Ok(0)
}

/// Opens a log as nginx does: mode 644 less the umask, every write at the end. A named pipe without a reader is ENXIO, and not an
/// open(2) that waits for one.
pub(super) fn open_for_append(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    Ok(file)
}

/// True for a named pipe.
pub(super) fn is_fifo(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

impl Output {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Output::File(file, _) => file.as_fd(),
            Output::Stderr(stream) => stream.as_fd(),
            Output::Stdout(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sink(file: File) -> Sink {
        Sink::new("test".to_owned(), Output::File(file, PathBuf::new()), Arc::default())
    }

    fn sink_in(directory: &tempfile::TempDir) -> Sink {
        Sink::open(&LogTarget::File("x.log".into()), directory.path(), &Arc::default()).unwrap()
    }

    fn write_lines<'a>(sink: &mut Sink, lines: impl IntoIterator<Item = &'a [u8]>) {
        lines.into_iter().for_each(|line| sink.add(line, Instant::now()));
        sink.write_out();
    }

    #[test]
    fn lines_are_appended_in_order_whatever_their_number() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = sink_in(&directory);
        let lines: Vec<Vec<u8>> = (0..100_000).map(|n| format!("{n}\n").into_bytes()).collect();
        write_lines(&mut log, lines.iter().map(Vec::as_slice));
        write_lines(&mut log, [b"end\n".as_slice()]);
        let text = std::fs::read(directory.path().join("x.log")).unwrap();
        assert_eq!(text, [lines.concat(), b"end\n".to_vec()].concat());
        assert_eq!(log.report(Instant::now(), true), None);
        assert_eq!((log.tally.written(), log.tally.lost()), (100_001, 0));
    }

    #[test]
    fn a_full_disk_loses_lines_and_is_reported_once() {
        let mut log = sink(OpenOptions::new().write(true).open("/dev/full").unwrap());
        write_lines(&mut log, [b"a\n".as_slice(), b"b\n"]);
        let now = Instant::now();
        let message = log.report(now, false).unwrap();
        assert_eq!(message, "2 lines for the log \"test\" were lost: write() failed (28: No space left on device)");
        log.told();
        write_lines(&mut log, [b"c\n".as_slice()]);
        assert_eq!(log.report(now, false), None, "only once a minute");
        assert!(log.report(now + Duration::from_secs(61), false).unwrap().starts_with("1 lines"));
        assert_eq!((log.tally.written(), log.tally.lost()), (0, 3));
    }

    #[test]
    fn what_nobody_could_be_told_is_told_once_there_is_room() {
        let mut log = sink(OpenOptions::new().write(true).open("/dev/full").unwrap());
        write_lines(&mut log, [b"a\n".as_slice(), b"b\n"]);
        let start = Instant::now();
        assert!(log.report(start, false).unwrap().starts_with("2 lines"));
        assert!(!log.say(b"2 lines are lost\n", start), "it is no better off");
        assert_eq!(log.tally.lost(), 2, "which is no third lost line");
        assert_eq!(log.due_in(start), Some(Duration::from_secs(LOG_LOSS_REPORT_SECS)));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        log.output = Output::File(open_for_append(&path).unwrap(), path.clone());
        write_lines(&mut log, [b"c\n".as_slice()]);
        assert_eq!(log.report(start, false), None, "not with every line");
        let soon = start + Duration::from_secs(LOG_RECOVERY_REPORT_SECS);
        assert_eq!(log.due_in(start), Some(soon - start));
        assert!(log.report(soon, false).unwrap().starts_with("2 lines"));
        assert!(log.say(b"2 lines are lost\n", soon));
        log.told();
        assert_eq!((log.report(soon, true), log.due_in(soon)), (None, None));
        assert_eq!(std::fs::read(path).unwrap(), b"c\n2 lines are lost\n");
    }

    /// Everything the pipe holds now.
    fn drain(reader: &mut File) -> Vec<u8> {
        let mut text = vec![0; 2 << 20];
        let mut length = 0;
        while let Ok(count @ 1..) = reader.read(&mut text[length..]) {
            length += count;
        }
        text.truncate(length);
        text
    }

    #[test]
    fn lines_wait_for_the_reader_of_a_pipe_and_are_lost_only_past_the_limit() {
        for flags in [OFlag::O_NONBLOCK, OFlag::empty()] {
            let (read, write) = nix::unistd::pipe2(flags).unwrap();
            let mut reader = File::from(read);
            nix::fcntl::fcntl(&reader, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
            let mut log = sink(File::from(write));
            let line = [vec![b'x'; 9_999], b"\n".to_vec()].concat();
            write_lines(&mut log, std::iter::repeat_n(line.as_slice(), 200));
            let lost = log.tally.lost();
            assert!((80..100).contains(&lost), "the pipe has 64 KiB, we have 1 MiB: {lost}");
            assert!(log.report(Instant::now(), true).unwrap().contains("nobody reads it"));
            log.told();
            let mut text = Vec::new();
            while log.due_in(Instant::now()).is_some() {
                text.extend(drain(&mut reader));
                log.write_out();
            }
            text.extend(drain(&mut reader));
            assert_eq!(text, line.repeat(200 - lost as usize), "every line is whole");
            write_lines(&mut log, [b"next\n".as_slice()]);
            assert_eq!(drain(&mut reader), b"next\n");
        }
    }

    #[test]
    fn a_line_lost_in_part_does_not_run_into_the_next() {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut log = sink(File::from(write));
        let long = [vec![b'x'; 70_000], b"\n".to_vec()].concat();
        write_lines(&mut log, [long.as_slice()]);
        log.close();
        assert_eq!(log.tally.lost(), 1);
        // Nor into the one after a line that is lost altogether.
        write_lines(&mut log, [b"lost\n".as_slice()]);
        log.close();
        assert_eq!(log.tally.lost(), 2);
        let mut reader = File::from(read);
        let mut text = vec![0; 100_000];
        let first = reader.read(&mut text).unwrap();
        assert!(first < long.len());
        write_lines(&mut log, [b"next\n".as_slice()]);
        let second = reader.read(&mut text[first..]).unwrap();
        assert_eq!(&text[first..first + second], b"\nnext\n");
    }

    #[test]
    fn a_pipe_whose_reader_has_gone_loses_lines() {
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK).unwrap();
        drop(read);
        let mut log = sink(File::from(write));
        write_lines(&mut log, [b"a\n".as_slice()]);
        assert_eq!((log.tally.lost(), log.is_due(Instant::now())), (1, false));
    }

    #[test]
    fn a_buffer_is_written_when_it_is_full_or_old() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = sink_in(&directory);
        let size = || std::fs::metadata(directory.path().join("x.log")).unwrap().len();
        log.set_buffer(Some(LogBuffer { bytes: 100, flush: Some(Duration::from_secs(5)) }));
        let start = Instant::now();
        let line = [b'x'; 40];
        log.add(&line, start);
        log.add(&line, start + Duration::from_secs(1));
        assert!(!log.is_due(start + Duration::from_secs(4)), "neither");
        assert_eq!(log.due_in(start + Duration::from_secs(4)), Some(Duration::from_secs(1)));
        assert!(log.is_due(start + Duration::from_secs(5)), "old");
        log.add(&line, start);
        assert_eq!(size(), 80, "full: the third would not fit");
        log.set_buffer(Some(LogBuffer { bytes: 100, flush: None }));
        assert_eq!(log.due_in(start + Duration::from_secs(3600)), None, "nginx: without `flush=` it waits");
    }

    #[test]
    fn a_file_moved_away_is_made_anew_and_no_line_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("x.log"), directory.path().join("x.log.1"));
        let mut log = sink_in(&directory);
        write_lines(&mut log, [b"one\n".as_slice()]);
        std::fs::rename(&path, &moved).unwrap();
        log.add(b"two\n", Instant::now());
        log.reopen().unwrap();
        write_lines(&mut log, [b"three\n".as_slice()]);
        assert_eq!(std::fs::read(&moved).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn a_file_that_cannot_be_made_anew_goes_on_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let (inner, moved) = (directory.path().join("inner"), directory.path().join("moved"));
        std::fs::create_dir(&inner).unwrap();
        let mut log = Sink::open(&LogTarget::File("x.log".into()), &inner, &Arc::default()).unwrap();
        std::fs::rename(&inner, &moved).unwrap();
        let (path, error) = log.reopen().unwrap_err();
        assert_eq!((path, error.kind()), (inner.join("x.log"), io::ErrorKind::NotFound));
        write_lines(&mut log, [b"still here\n".as_slice()]);
        assert_eq!(std::fs::read(moved.join("x.log")).unwrap(), b"still here\n");
    }
}
