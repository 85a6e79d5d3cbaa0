//! How far a bench is.

use std::{io::IsTerminal, time::Instant};

use crate::{measure::Sample, rows::Row};

/// One line that says where we are; on a terminal it is overwritten.
pub struct Progress {
    total: usize,
    done: usize,
    start: Instant,
    line: String,
    terminal: bool,
}

impl Progress {
    pub fn new(total: usize) -> Self {
        Self { total, done: 0, start: Instant::now(), line: String::new(), terminal: std::io::stderr().is_terminal() }
    }

    pub fn begin(&mut self, what: &str) {
        let left = match self.done {
            0 => String::new(),
            done => format!(
                ", {:.0} min left",
                self.start.elapsed().as_secs_f64() / done as f64 * (self.total - done) as f64 / 60.0
            ),
        };
        self.line = format!("[{}/{}{left}] {what}", self.done + 1, self.total);
        if self.terminal {
            eprint!("\r\x1b[K{}", self.line);
        }
    }

    pub fn end(&mut self, row: &Row, outcome: &Result<Sample, String>) {
        self.done += 1;
        let told = match outcome {
            Err(why) => format!("failed: {why}"),
            Ok(sample) => {
                let figures = sample.values.iter().filter(|(metric, _)| row.job.headline().contains(metric));
                let mut told: Vec<_> =
                    figures.map(|(metric, value)| format!("{} {}", metric.show(*value), metric.title())).collect();
                told.extend(sample.errors.iter().map(|(what, count)| format!("{count} x {what}")));
                told.join("; ")
            }
        };
        if self.terminal {
            eprint!("\r\x1b[K{}: {told}", self.line);
        } else {
            eprintln!("{}: {told}", self.line);
        }
    }

    pub fn finish(&self) {
        if self.terminal {
            eprintln!("\r\x1b[K{} runs in {:.0} s", self.done, self.start.elapsed().as_secs_f64());
        }
    }
}
