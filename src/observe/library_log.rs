//! What libraries say through the `log` crate (rustls, monoio): in the main error log, at its `debug` level.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{
    Logs,
    error_log::{self, About},
};
use crate::config::Level;

// The `log` crate takes one logger for the life of the process; the logs behind it may change.
static LOGS: ArcSwapOption<Logs> = ArcSwapOption::const_empty();

struct Bridge;

/// Sends what libraries say to these logs from now on; costs nothing while no main log takes `debug`.
pub fn attach(logs: &Arc<Logs>) {
    let wanted = error_log::wanted(logs, Level::Debug, &About::Process);
    LOGS.store(Some(Arc::clone(logs)));
    // It is set already after the first call.
    let _ = log::set_logger(&Bridge);
    log::set_max_level(if wanted { log::LevelFilter::Debug } else { log::LevelFilter::Off });
}

impl log::Log for Bridge {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if let Some(logs) = &*LOGS.load() {
            let message = format_args!("{}: {}", record.target(), record.args());
            error_log::event(logs, Level::Debug, &About::Process, message);
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: the logger is the process's.
    #[test]
    fn library_messages_are_debug_lines_and_are_off_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let logs = super::super::tests::logs_into(directory.path(), Level::Debug, &[]);
        attach(&logs);
        log::warn!(target: "some_library", "said {}", 1);
        attach(&super::super::tests::logs_into(directory.path(), Level::Info, &[]));
        log::warn!(target: "some_library", "said {}", 2);
        logs.flush();
        let text = std::fs::read_to_string(directory.path().join("error.log")).unwrap();
        assert!(text.contains("[debug]") && text.contains("some_library: said 1"));
        assert!(!text.contains("said 2"));
    }
}
