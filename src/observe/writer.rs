//! The thread that writes the logs.

use std::{collections::BTreeMap, sync::Arc, thread, time::Instant};

use super::{
    error_log,
    queue::{Batch, Changes, Queue, Record},
    sink::Sink,
};
use crate::config::Level;

/// Starts the writer; it learns of its logs by the queue.
pub(super) fn start(queue: Arc<Queue>) -> std::io::Result<()> {
    thread::Builder::new().name("log".to_owned()).spawn(move || Writer::default().run(&queue))?;
    Ok(())
}

#[derive(Default)]
struct Writer {
    /// By their numbers.
    sinks: BTreeMap<usize, Sink>,
    /// The sinks of the main error log: what is said about the logs themselves goes there.
    main: Vec<usize>,
}

impl Writer {
    fn run(mut self, queue: &Queue) {
        let mut written = 0;
        loop {
            let Batch { mut records, lost, changes, last } = queue.take(written);
            let Changes { opened, closed, main } = changes;
            written = records.len();
            self.sinks.extend(opened);
            self.main = main.unwrap_or(std::mem::take(&mut self.main));
            self.write(&mut records);
            self.report(lost, |sink| last || closed.contains(&sink));
            closed.iter().for_each(|sink| drop(self.sinks.remove(sink)));
            if last {
                queue.take(written);
                return;
            }
            drop(records);
            queue.gather();
        }
    }

    /// One writev(2) a file (for up to a thousand lines): the sort is stable, so lines of a file keep their order.
    fn write(&mut self, records: &mut [Record]) {
        records.sort_by_key(|record| record.sink);
        for lines in records.chunk_by(|one, other| one.sink == other.sink) {
            let sink = lines.first().and_then(|first| self.sinks.get_mut(&first.sink));
            if let Some(sink) = sink {
                sink.write(lines.iter().map(|record| record.line.as_slice()));
            }
        }
    }

    fn report(&mut self, lost: u64, is_last: impl Fn(usize) -> bool) {
        if let Some(sink) = self.main.first().and_then(|number| self.sinks.get_mut(number)) {
            sink.count_lost(lost);
        }
        let now = Instant::now();
        let messages: Vec<String> =
            self.sinks.iter_mut().filter_map(|(number, sink)| sink.report(now, is_last(*number))).collect();
        for message in messages {
            let line = error_log::line_about_the_process(Level::Alert, format_args!("{message}"));
            for number in &self.main {
                if let Some(sink) = self.sinks.get_mut(number) {
                    sink.write([line.as_slice()]);
                }
            }
        }
    }
}
