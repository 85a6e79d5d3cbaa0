//! The thread that writes the logs.

use std::{sync::Arc, thread, time::Instant};

use super::{
    error_log,
    queue::{Batch, Queue, Record},
    sink::Sink,
};
use crate::config::Level;

/// Starts the writer. `main` are the sinks of the main error log: what is said about the logs themselves goes there.
pub(super) fn start(queue: Arc<Queue>, sinks: Vec<Sink>, main: Vec<usize>) -> std::io::Result<()> {
    let writer = Writer { sinks, main };
    thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&queue))?;
    Ok(())
}

struct Writer {
    sinks: Vec<Sink>,
    main: Vec<usize>,
}

impl Writer {
    fn run(mut self, queue: &Queue) {
        let mut written = 0;
        loop {
            let Batch { mut records, lost, last } = queue.take(written);
            written = records.len();
            self.write(&mut records);
            self.report(lost, last);
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
            let sink = lines.first().and_then(|first| self.sinks.get_mut(first.sink));
            if let Some(sink) = sink {
                sink.write(lines.iter().map(|record| record.line.as_slice()));
            }
        }
    }

    fn report(&mut self, lost: u64, last: bool) {
        if let Some(sink) = self.main.first().and_then(|index| self.sinks.get_mut(*index)) {
            sink.count_lost(lost);
        }
        let now = Instant::now();
        let messages: Vec<String> = self.sinks.iter_mut().filter_map(|sink| sink.report(now, last)).collect();
        for message in messages {
            let line = error_log::line_about_the_process(Level::Alert, format_args!("{message}"));
            for index in &self.main {
                if let Some(sink) = self.sinks.get_mut(*index) {
                    sink.write([line.as_slice()]);
                }
            }
        }
    }
}
