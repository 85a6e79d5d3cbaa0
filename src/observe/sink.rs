//! One log file, and what becomes of lines that it does not take.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{errno::Errno, sys::uio::writev};

use crate::{
    config::LogTarget,
    limits::{LOG_LINES_PER_WRITE, LOG_LOSS_REPORT_SECS},
};

/// An open log.
#[derive(Debug)]
pub(super) struct Sink {
    name: String,
    output: Output,
    /// The last write ended inside a line: the next begins with a newline.
    torn: bool,
    lost: Lost,
}

#[derive(Debug)]
enum Output {
    File(File),
    // Not duplicated, and past std's line buffer: when a daemon points its standard streams at /dev/null, its log follows.
    Stderr(io::Stderr),
    Stdout(io::Stdout),
}

/// Lines not written since the last report.
#[derive(Debug, Default)]
struct Lost {
    lines: u64,
    cause: Option<Errno>,
    reported: Option<Instant>,
}

impl Sink {
    /// Opens (creates) a log; `prefix` is what a relative path is relative to.
    pub(super) fn open(target: &LogTarget, prefix: &Path) -> io::Result<Self> {
        let (name, output) = match target {
            LogTarget::File(path) => {
                let path = prefix.join(path);
                (path.display().to_string(), Output::File(open_for_append(&path)?))
            }
            LogTarget::Stderr => ("stderr".to_owned(), Output::Stderr(io::stderr())),
            LogTarget::Stdout => ("stdout".to_owned(), Output::Stdout(io::stdout())),
        };
        Ok(Self { name, output, torn: false, lost: Lost::default() })
    }

    /// Writes the lines. What the file does not take at once (a full disk, a pipe nobody reads) is lost, and counted.
    pub(super) fn write<'a>(&mut self, lines: impl IntoIterator<Item = &'a [u8]>) {
        let mut chunk = Vec::with_capacity(64);
        let mut lines = lines.into_iter().peekable();
        while lines.peek().is_some() {
            chunk.clear();
            chunk.extend(lines.by_ref().take(LOG_LINES_PER_WRITE - 1));
            self.write_chunk(&chunk);
        }
    }

    /// Counts lines that were lost before they came here.
    pub(super) fn count_lost(&mut self, lines: u64) {
        self.lost.lines += lines;
    }

    /// Says how many lines were lost, at most once a minute unless it is the `last` chance.
    pub(super) fn report(&mut self, now: Instant, last: bool) -> Option<String> {
        let pause = Duration::from_secs(LOG_LOSS_REPORT_SECS);
        let due = last || self.lost.reported.is_none_or(|reported| now.duration_since(reported) >= pause);
        if self.lost.lines == 0 || !due {
            return None;
        }
        let cause = match self.lost.cause {
            Some(errno) => format!("write() failed ({}: {})", errno as i32, errno.desc()),
            None => "they came faster than the log takes them".to_owned(),
        };
        let message = format!("{} lines for the log \"{}\" were lost: {cause}", self.lost.lines, self.name);
        self.lost = Lost { reported: Some(now), ..Lost::default() };
        Some(message)
    }

    fn write_chunk(&mut self, lines: &[&[u8]]) {
        let mut slices = Vec::with_capacity(lines.len() + 1);
        if self.torn {
            slices.push(IoSlice::new(b"\n"));
        }
        slices.extend(lines.iter().map(|line| IoSlice::new(line)));
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            match writev(self.output.fd(), left) {
                Ok(0) => return self.give_up(left, lines.len(), Errno::EAGAIN),
                Ok(written) => {
                    IoSlice::advance_slices(&mut left, written);
                    self.torn = left.first().is_some_and(|slice| is_rest_of_line(slice, lines, left.len()));
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return self.give_up(left, lines.len(), errno),
            }
        }
        self.torn = false;
    }

    fn give_up(&mut self, left: &[IoSlice<'_>], lines: usize, errno: Errno) {
        // The newline that mends a torn line is no line.
        self.lost.lines += left.len().min(lines) as u64;
        self.lost.cause = Some(errno);
    }
}

/// True when `slice`, the first of the `left` last ones, is less than its whole line: some of the line is in the file.
fn is_rest_of_line(slice: &[u8], lines: &[&[u8]], left: usize) -> bool {
    lines.len().checked_sub(left).and_then(|index| lines.get(index)).is_some_and(|line| slice.len() < line.len())
}

/// Opens a log as nginx does: mode 644 less the umask, every write at the end.
pub(super) fn open_for_append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().append(true).create(true).mode(0o644).open(path)
}

impl Output {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Output::File(file) => file.as_fd(),
            Output::Stderr(stream) => stream.as_fd(),
            Output::Stdout(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sink(output: File) -> Sink {
        Sink { name: "test".to_owned(), output: Output::File(output), torn: false, lost: Lost::default() }
    }

    #[test]
    fn lines_are_appended_in_order_whatever_their_number() {
        let directory = tempfile::tempdir().unwrap();
        let target = LogTarget::File("x.log".into());
        let mut log = Sink::open(&target, directory.path()).unwrap();
        let lines: Vec<Vec<u8>> = (0..3 * LOG_LINES_PER_WRITE).map(|n| format!("{n}\n").into_bytes()).collect();
        log.write(lines.iter().map(Vec::as_slice));
        log.write([b"end\n".as_slice()]);
        let text = std::fs::read(directory.path().join("x.log")).unwrap();
        assert_eq!(text, [lines.concat(), b"end\n".to_vec()].concat());
        assert_eq!(log.report(Instant::now(), true), None);
    }

    #[test]
    fn a_full_disk_loses_lines_and_is_reported_once() {
        let mut log = sink(OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.write([b"a\n".as_slice(), b"b\n"]);
        let now = Instant::now();
        let message = log.report(now, false).unwrap();
        assert_eq!(message, "2 lines for the log \"test\" were lost: write() failed (28: No space left on device)");
        log.write([b"c\n".as_slice()]);
        assert_eq!(log.report(now, false), None, "only once a minute");
        assert!(log.report(now + Duration::from_secs(61), false).unwrap().starts_with("1 lines"));
    }

    #[test]
    fn a_pipe_nobody_reads_loses_lines_and_a_torn_line_is_mended() {
        let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
        let mut log = sink(File::from(write));
        let long = [vec![b'x'; 40_000], b"\n".to_vec()].concat();
        log.write([long.as_slice(), &long, &long]);
        assert!(log.torn, "the pipe holds 64 KiB: the second line is cut");
        assert_eq!(log.lost.lines, 2);
        let mut reader = File::from(read);
        let mut text = vec![0; 200_000];
        let first = reader.read(&mut text).unwrap();
        log.write([b"next\n".as_slice()]);
        let second = reader.read(&mut text[first..]).unwrap();
        assert_eq!(&text[first..first + second], b"\nnext\n");
        assert!(!log.torn);
    }
}
