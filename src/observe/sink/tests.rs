use std::{
    fs::{File, OpenOptions},
    io::Read,
};

use nix::fcntl::OFlag;

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
