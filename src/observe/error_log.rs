//! `error_log`: one line an event, in nginx's shape:
//! `2026/11/21 22:09:28 [error] 1234#2: *77 upstream refused (111: Connection refused), client: 10.0.0.1, server: x, request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:3000/", host: "x"`.

use super::Logs;
use crate::{
    config::Level,
    request::{ClientConnection, Request},
};

/// What an event is about.
pub enum About<'a> {
    /// The program.
    Process,
    /// A connection without a request yet.
    Connection(&'a ClientConnection),
    /// A request.
    Request(&'a Request),
}

/// True when some log of main (or of the request's location) takes this level: ask before formatting.
pub fn wanted(_logs: &Logs, _level: Level, _about: &About<'_>) -> bool {
    unimplemented!()
}

/// Writes one event.
pub fn event(_logs: &Logs, _level: Level, _about: &About<'_>, _message: std::fmt::Arguments<'_>) {
    unimplemented!()
}
