//! `access_log` and `log_format`.

use super::Logs;
use crate::request::Request;

/// Writes the request's line to every `access_log` of its location (server, while there is none) whose `if=` holds.
pub fn record(_logs: &Logs, _request: &mut Request) {
    unimplemented!()
}
