//! `access_log`, `log_format` and `error_log`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::TunnelEvents;
use crate::variables::Template;

/// `access_log`.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// Where to.
    pub target: LogTarget,
    /// The format, compiled.
    pub format: Arc<LogFormat>,
    /// `if=`
    pub condition: Option<Template>,
    /// `buffer=`; none: written at once.
    pub buffer: Option<LogBuffer>,
    /// `events=`
    pub events: TunnelEvents,
}

/// `buffer=SIZE [flush=TIME]` of `access_log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBuffer {
    /// Bytes that are gathered for one write.
    pub bytes: usize,
    /// Longest time a line waits for that; none: as long as it takes.
    pub flush: Option<Duration>,
}

/// `log_format`.
#[derive(Debug)]
pub struct LogFormat {
    /// Its name.
    pub name: Box<str>,
    /// How values are escaped.
    pub escape: Escape,
    /// The line.
    pub template: Template,
}

/// `escape=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// `"`, `\` and bytes outside 32 to 126 as `\xXX`; no value as `-`.
    Default,
    /// As JSON strings; no value as nothing.
    Json,
    /// As it is.
    None,
}

/// Where a log is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// A file, opened for appending.
    File(PathBuf),
    /// `stderr` and `/dev/stderr`.
    Stderr,
    /// `/dev/stdout`.
    Stdout,
}

/// `error_log FILE LEVEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorLog {
    /// Where to.
    pub target: LogTarget,
    /// Lowest level.
    pub level: Level,
}

/// nginx's levels, the most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Level {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}
