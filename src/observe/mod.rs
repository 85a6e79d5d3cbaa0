//! What the program says: access log, error log, counters. Never blocks a worker.

pub mod access_log;
pub mod error_log;

/// All log files of a configuration, written by one thread of their own.
#[derive(Debug)]
pub struct Logs {}

impl Logs {
    /// Opens (creates) the files and starts the writer.
    ///
    /// # Errors
    /// Every file that cannot be opened: cause and cure.
    pub fn open(_config: &crate::config::Config) -> Result<std::sync::Arc<Logs>, Vec<String>> {
        unimplemented!()
    }

    /// Hands one line to the writer; lost, and counted, when it cannot keep up.
    pub fn write(&self, _target: &crate::config::LogTarget, _line: Vec<u8>) {
        unimplemented!()
    }

    /// Waits (at most a second) until everything handed over is written.
    pub fn flush(&self) {
        unimplemented!()
    }
}
