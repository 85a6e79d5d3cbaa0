//! The thread that writes the logs.

use std::{
    collections::BTreeMap,
    io, mem,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    error_log, os_error,
    queue::{Batch, Changes, Queue, Record, SinkId},
    sink::Sink,
};
use crate::config::{Level, LogBuffer};

/// Starts the writer; it learns of its logs by the queue, and ends when that is closed.
pub(super) fn start(queue: Arc<Queue>) -> io::Result<()> {
    thread::Builder::new().name("log".to_owned()).spawn(move || Writer::default().run(&queue))?;
    Ok(())
}

#[derive(Default)]
struct Writer {
    /// By their numbers.
    sinks: BTreeMap<SinkId, Sink>,
    /// The sinks of the main error log: what is said about the logs themselves goes there.
    main: Vec<SinkId>,
}

impl Writer {
    fn run(mut self, queue: &Queue) {
        let mut flushed = 0;
        loop {
            let Batch { records, changes, lost, flushes, last } = queue.take(flushed, self.patience());
            let Changes { opened, buffers, closed, main, reopen } = changes;
            self.sinks.extend(opened);
            self.main = main.unwrap_or(mem::take(&mut self.main));
            self.set_buffers(buffers);
            self.add(records);
            self.write_out(last || flushes > mem::replace(&mut flushed, flushes));
            if reopen {
                self.reopen();
            }
            let is_closed = |sink| last || closed.contains(&sink);
            self.sinks.iter_mut().filter(|(number, _)| is_closed(**number)).for_each(|(_, sink)| sink.close());
            self.report(lost, is_closed);
            closed.iter().for_each(|sink| drop(self.sinks.remove(sink)));
            if last {
                return queue.end();
            }
            queue.gather();
        }
    }

    /// How long no line need come before there is something to do; none: for ever.
    fn patience(&self) -> Option<Duration> {
        let now = Instant::now();
        self.sinks.values().filter_map(|sink| sink.due_in(now)).min()
    }

    fn add(&mut self, records: Vec<Record>) {
        let now = Instant::now();
        for record in records {
            if let Some(sink) = self.sinks.get_mut(&record.sink) {
                sink.add(&record.line, now);
            }
        }
    }

    fn write_out(&mut self, everything: bool) {
        let now = Instant::now();
        self.sinks.values_mut().filter(|sink| everything || sink.is_due(now)).for_each(Sink::write_out);
    }

    fn set_buffers(&mut self, buffers: Vec<(SinkId, Option<LogBuffer>)>) {
        for (number, buffer) in buffers {
            if let Some(sink) = self.sinks.get_mut(&number) {
                sink.set_buffer(buffer);
            }
        }
    }

    fn reopen(&mut self) {
        let failed: Vec<_> = self.sinks.values_mut().filter_map(|sink| sink.reopen().err()).collect();
        for (path, error) in &failed {
            self.say(Level::Error, &not_reopened(path, error));
        }
    }

    fn report(&mut self, lost: u64, is_last: impl Fn(SinkId) -> bool) {
        if let Some(sink) = self.main.first().and_then(|number| self.sinks.get_mut(number)) {
            sink.report_lost(lost);
        }
        let now = Instant::now();
        let reports: Vec<(SinkId, String)> = self
            .sinks
            .iter_mut()
            .filter_map(|(number, sink)| Some((*number, sink.report(now, is_last(*number))?)))
            .collect();
        for (number, message) in reports {
            // The disk that is full may be this log's too: it is told later then.
            if self.say(Level::Alert, &message)
                && let Some(sink) = self.sinks.get_mut(&number)
            {
                sink.told();
            }
        }
    }

    /// Writes a line about the logs themselves. True when one of the main logs has it.
    fn say(&mut self, level: Level, message: &str) -> bool {
        let line = error_log::line_about_the_process(level, format_args!("{message}"));
        let now = Instant::now();
        let mut is_said = false;
        for number in &self.main {
            is_said |= self.sinks.get_mut(number).is_some_and(|sink| sink.say(&line, now));
        }
        is_said
    }
}

fn not_reopened(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let cure = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; this process may not create it: let logrotate do that (`create 0640 USER GROUP`), or give USER the directory"
        }
        io::ErrorKind::NotFound => "; make its directory",
        _ => "",
    };
    format!("open() \"{path}\" failed ({}), the file that was open goes on{cure}", os_error(error))
}
