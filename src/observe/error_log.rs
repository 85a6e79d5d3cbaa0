//! `error_log`: one line an event, in nginx's shape:
//! `2026/11/21 22:09:28 [error] 1234#1236: *77 upstream refused (111: Connection refused), client: 10.0.0.1, server: x, request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:3000/", host: "x"`.
//!
//! The numbers are process, thread (as `top -H` shows it) and connection (`$connection`).

use std::{fmt, io::Write};

use super::{
    Logs,
    clock::append_local_time,
    escape::{append_printable, escape_from},
    settings,
};
use crate::{
    config::{Content, ErrorLog, Escape, Level, LogTarget, ProxyPass},
    limits::LOG_RECORD_BYTES,
    request::{Address, ClientConnection, Request},
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
pub fn wanted(logs: &Logs, level: Level, about: &About<'_>) -> bool {
    targets(logs, about).iter().any(|log| level <= log.level)
}

/// Writes one event.
pub fn event(logs: &Logs, level: Level, about: &About<'_>, message: fmt::Arguments<'_>) {
    let targets = targets(logs, about).iter().filter(|log| level <= log.level).map(|log| &log.target);
    write(logs, targets, level, about, message);
}

/// Writes one event about the program to the files among the main logs: for what was said on stderr already.
pub fn event_in_files(logs: &Logs, level: Level, message: fmt::Arguments<'_>) {
    let files = logs.main.iter().filter(|log| level <= log.level && matches!(log.target, LogTarget::File(_)));
    write(logs, files.map(|log| &log.target), level, &About::Process, message);
}

/// nginx's name of a level.
pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::Emerg => "emerg",
        Level::Alert => "alert",
        Level::Crit => "crit",
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Notice => "notice",
        Level::Info => "info",
        Level::Debug => "debug",
    }
}

/// A whole line about the program, for the writer's own use.
pub(super) fn line_about_the_process(level: Level, message: fmt::Arguments<'_>) -> Vec<u8> {
    line(level, &About::Process, message)
}

fn write<'a>(
    logs: &Logs,
    targets: impl Iterator<Item = &'a LogTarget>,
    level: Level,
    about: &About<'_>,
    message: fmt::Arguments<'_>,
) {
    let mut targets = targets.peekable();
    if targets.peek().is_none() {
        return;
    }
    let line = line(level, about, message);
    for target in targets {
        logs.write(target, line.clone());
    }
}

fn targets<'a>(logs: &'a Logs, about: &About<'a>) -> &'a [ErrorLog] {
    let own = match about {
        About::Request(request) => settings(&request.config, request).map(|settings| settings.error_logs.as_slice()),
        About::Process | About::Connection(_) => None,
    };
    own.filter(|logs| !logs.is_empty()).unwrap_or(&logs.main)
}

fn line(level: Level, about: &About<'_>, message: fmt::Arguments<'_>) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    append_local_time(&mut line);
    append(&mut line, format_args!(" [{}] {}#{}: ", level_name(level), std::process::id(), nix::unistd::gettid()));
    if let Some(client) = connection(about) {
        append(&mut line, format_args!("*{} ", client.serial));
    }
    append_printable(fmt::format(message).as_bytes(), &mut line);
    match about {
        About::Process => {}
        About::Connection(client) => append_connection(&mut line, client),
        About::Request(request) => append_request(&mut line, request),
    }
    line.truncate(LOG_RECORD_BYTES - 1);
    line.push(b'\n');
    line
}

fn connection<'a>(about: &About<'a>) -> Option<&'a ClientConnection> {
    match about {
        About::Process => None,
        About::Connection(client) => Some(client),
        About::Request(request) => Some(&request.client),
    }
}

/// As nginx: the listening address stands for the server while no request has named one.
fn append_connection(line: &mut Vec<u8>, client: &ClientConnection) {
    append_client(line, &client.remote);
    match &client.local {
        Address::Tcp(address) => append(line, format_args!(", server: {address}")),
        Address::Unix(path) => append(line, format_args!(", server: unix:{path}")),
    }
}

fn append_request(line: &mut Vec<u8>, request: &Request) {
    append_client(line, request.remote());
    let server = request.config.servers.get(request.server);
    append(line, format_args!(", server: {}", server.map_or("", |server| &server.name)));
    if !request.line.is_empty() {
        append_quoted(line, "request", &[&request.line]);
    }
    if let Some(attempt) = request.attempts.last() {
        let (scheme, target) = upstream_uri(request);
        let colon: &[u8] = if attempt.address.starts_with("unix:") && !target.is_empty() { b":" } else { b"" };
        append_quoted(line, "upstream", &[scheme, attempt.address.as_bytes(), colon, target]);
    }
    for (label, field) in [("host", "host"), ("referrer", "referer")] {
        if let Some(value) = request.head.fields.get(field) {
            append_quoted(line, label, &[value]);
        }
    }
}

/// The address without its port, as nginx.
fn append_client(line: &mut Vec<u8>, remote: &Address) {
    match remote {
        Address::Tcp(address) => append(line, format_args!(", client: {}", address.ip())),
        Address::Unix(path) => append(line, format_args!(", client: unix:{path}")),
    }
}

/// Scheme and request target at the backend. The target is left out where `proxy_pass` or a rewrite makes another one.
fn upstream_uri(request: &Request) -> (&'static [u8], &[u8]) {
    let server = request.config.servers.get(request.server);
    let location = server.and_then(|server| server.locations.get(request.location?));
    match location.map(|location| &location.content) {
        Some(Content::Proxy(ProxyPass { tls, uri, .. })) => {
            let scheme: &[u8] = if *tls { b"https://" } else { b"http://" };
            let as_sent = uri.is_none() && !request.uri_changed;
            (scheme, if as_sent { &request.head.target } else { b"" })
        }
        _ => (b"", b""),
    }
}

fn append_quoted(line: &mut Vec<u8>, label: &str, pieces: &[&[u8]]) {
    append(line, format_args!(", {label}: \""));
    let start = line.len();
    pieces.iter().for_each(|piece| line.extend_from_slice(piece));
    escape_from(line, start, Escape::Default);
    line.push(b'"');
}

fn append(line: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = line.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn client(remote: &str) -> ClientConnection {
        ClientConnection {
            serial: 77,
            remote: Address::Tcp(remote.parse().unwrap()),
            local: Address::Tcp("127.0.0.1:443".parse().unwrap()),
            proxied: None,
            tls: None,
            accepted: Instant::now(),
        }
    }

    /// The line without its time, process and thread.
    fn tail(line: &[u8]) -> &str {
        let line = std::str::from_utf8(line).unwrap();
        assert_eq!(&line[4..5], "/");
        line[20..].trim_end_matches('\n')
    }

    #[test]
    fn a_line_about_the_process_has_nginx_shape() {
        let line = line(Level::Notice, &About::Process, format_args!("ready"));
        let expected = format!("[notice] {}#{}: ready", std::process::id(), nix::unistd::gettid());
        assert_eq!(tail(&line), expected);
        assert_eq!(line.last(), Some(&b'\n'));
    }

    #[test]
    fn a_line_about_a_connection_names_both_ends() {
        let client = client("[::1]:5000");
        let line = line(Level::Info, &About::Connection(&client), format_args!("client closed"));
        assert!(tail(&line).ends_with(": *77 client closed, client: ::1, server: 127.0.0.1:443"));
    }

    #[test]
    fn bytes_of_a_client_cannot_begin_a_line_of_their_own() {
        let line = line(Level::Info, &About::Process, format_args!("bad \"x\"\r\n2026/01/01 \x1b[31m"));
        assert!(tail(&line).ends_with("bad \"x\"\\x0D\\x0A2026/01/01 \\x1B[31m"));
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let mut line = Vec::new();
        append_quoted(&mut line, "host", &[b"a\", client: 1.1.1.1", b"\\"]);
        assert_eq!(line, b", host: \"a\\x22, client: 1.1.1.1\\x5C\"");
    }

    #[test]
    fn an_event_below_the_level_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let logs = super::super::tests::logs_into(directory.path(), Level::Warn, &[]);
        assert!(wanted(&logs, Level::Warn, &About::Process) && !wanted(&logs, Level::Notice, &About::Process));
        event(&logs, Level::Warn, &About::Process, format_args!("one"));
        event(&logs, Level::Notice, &About::Process, format_args!("two"));
        event_in_files(&logs, Level::Emerg, format_args!("three"));
        logs.flush();
        let text = std::fs::read_to_string(directory.path().join("error.log")).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("[warn]") && text.contains("[emerg]"));
    }

    #[test]
    fn a_long_message_is_cut_and_stays_a_line() {
        let line = line(Level::Error, &About::Process, format_args!("{}", "x".repeat(LOG_RECORD_BYTES * 2)));
        assert_eq!((line.len(), line.last()), (LOG_RECORD_BYTES, Some(&b'\n')));
    }
}
