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
    queue::{Batch, Order, Queue, Record, SinkId},
    sink::Sink,
};
use crate::config::Level;

/// Starts the writer; it ends when the queue is closed.
pub(super) fn start(queue: Arc<Queue>) -> io::Result<()> {
    let writer = Writer { queue, sinks: BTreeMap::new(), mains: Vec::new() };
    thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
    Ok(())
}

struct Writer {
    queue: Arc<Queue>,
    sinks: BTreeMap<SinkId, Sink>,
    /// The main error logs of every configuration that lives, the newest last.
    mains: Vec<Vec<SinkId>>,
}

impl Writer {
    fn run(mut self) {
        let mut flushed = 0;
        loop {
            let Batch { records, orders, lost, flushes, last } = self.queue.take(flushed, self.patience());
            // A log is open before its first line comes, and its last line has come before it is closed.
            let (before, after): (Vec<_>, Vec<_>) = orders.into_iter().partition(Order::is_for_lines_to_come);
            before.into_iter().for_each(|order| self.obey(order));
            self.add(records);
            self.write_out(last || flushes > mem::replace(&mut flushed, flushes));
            after.into_iter().for_each(|order| self.obey(order));
            if last {
                self.sinks.values_mut().for_each(Sink::close);
            }
            self.report(lost, last);
            if last {
                return self.queue.end();
            }
            self.queue.gather();
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

    fn obey(&mut self, order: Order) {
        match order {
            Order::Open(id, sink) => drop(self.sinks.insert(id, sink)),
            Order::Buffer(id, buffer) => {
                if let Some(sink) = self.sinks.get_mut(&id) {
                    sink.set_buffer(buffer);
                }
            }
            Order::Main(ids) => self.mains.push(ids),
            Order::Close(id) => self.close(id),
            Order::Reopen => self.reopen(),
        }
    }

    fn close(&mut self, id: SinkId) {
        self.mains.iter_mut().for_each(|main| main.retain(|other| *other != id));
        self.mains.retain(|main| !main.is_empty());
        let Some(mut sink) = self.sinks.remove(&id) else { return };
        sink.close();
        if let Some(message) = sink.report(Instant::now(), true) {
            self.say(Level::Alert, &message);
        }
    }

    fn reopen(&mut self) {
        let failed: Vec<_> = self.sinks.values_mut().filter_map(|sink| sink.reopen().err()).collect();
        failed.iter().for_each(|(path, error)| self.say(Level::Error, &not_reopened(path, error)));
    }

    fn report(&mut self, lost: u64, last: bool) {
        if let Some(sink) = self.mains.last().and_then(|main| main.first()).and_then(|id| self.sinks.get_mut(id)) {
            sink.report_lost(lost);
        }
        let now = Instant::now();
        let messages: Vec<String> = self.sinks.values_mut().filter_map(|sink| sink.report(now, last)).collect();
        messages.iter().for_each(|message| self.say(Level::Alert, message));
    }

    /// Writes a line about the logs themselves.
    fn say(&mut self, level: Level, message: &str) {
        let line = error_log::line_about_the_process(level, format_args!("{message}"));
        for id in self.mains.last().into_iter().flatten() {
            if let Some(sink) = self.sinks.get_mut(id) {
                sink.add(&line, Instant::now());
                sink.write_out();
            }
        }
    }
}

impl Order {
    fn is_for_lines_to_come(&self) -> bool {
        matches!(self, Order::Open(..) | Order::Buffer(..) | Order::Main(_))
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
