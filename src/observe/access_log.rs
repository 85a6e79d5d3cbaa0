//! `access_log` and `log_format`.

use std::sync::Arc;

use super::{Logs, escape::escape_from, settings};
use crate::{
    config::{AccessLog, Config, Escape, LogFormat},
    request::Request,
    variables::{Known, Part, Scope, Template, Variable},
};

/// Writes the request's line to every `access_log` of its location (server, while there is none) whose `if=` holds.
pub fn record(logs: &Logs, request: &mut Request) {
    // The configuration is borrowed for itself, since computing a variable may write to the request.
    let config = Arc::clone(&request.config);
    for log in settings(&config, request).map_or(&[][..], |settings| &settings.access_logs) {
        write(logs, log, request);
    }
}

fn write(logs: &Logs, log: &AccessLog, scope: &mut dyn Scope) {
    if holds(log, scope) {
        logs.write(&log.target, line(&log.format, scope));
    }
}

/// The lines of a tunnel that has just opened, as far as they are known: all but what only its end will tell. So an open tunnel
/// keeps some text for each of its logs and not its request.
#[derive(Debug, Default)]
pub struct Sealed(Box<[SealedLine]>);

#[derive(Debug)]
struct SealedLine {
    /// Index in the `access_logs` of the request's settings.
    log: u32,
    text: Box<[u8]>,
    /// What is filled in at the end, and where.
    holes: Box<[(u32, Known)]>,
}

impl Sealed {
    /// True when there is nothing to log.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Seals the lines of a request. None: what decides about a line (`if=`), or a `map` in it, depends on the end.
pub fn seal(request: &mut Request) -> Option<Sealed> {
    let config = Arc::clone(&request.config);
    let logs = settings(&config, request).map_or(&[][..], |settings| &settings.access_logs);
    let mut lines = Vec::new();
    for (index, log) in logs.iter().enumerate() {
        let known_now = |template: &Template| template.parts.iter().all(|part| !waits(part, &config));
        if !log.condition.as_ref().is_none_or(known_now)
            || log.format.template.parts.iter().any(|part| is_map(part, &config))
        {
            return None;
        }
        if holds(log, request) {
            let (text, holes) = line_with_holes(&log.format, request);
            lines.push(SealedLine { log: index as u32, text: text.into(), holes: holes.into() });
        }
    }
    Some(Sealed(lines.into()))
}

/// Writes sealed lines; `request` need only have what [`Known::waits_for_the_end`] names.
pub fn record_sealed(logs: &Logs, sealed: &Sealed, request: &mut Request) {
    let config = Arc::clone(&request.config);
    let Some(settings) = settings(&config, request) else { return };
    for line in &sealed.0 {
        let Some(log) = settings.access_logs.get(line.log as usize) else { continue };
        let mut whole = Vec::with_capacity(line.text.len() + 64);
        let mut start = 0;
        for (at, known) in &line.holes {
            let at = *at as usize;
            whole.extend_from_slice(&line.text[start..at]);
            append(&mut whole, &Variable::Known(*known), log.format.escape, request);
            start = at;
        }
        whole.extend_from_slice(&line.text[start..]);
        logs.write(&log.target, whole);
    }
}

/// A piece whose value is known only at the end.
fn waits(part: &Part, config: &Config) -> bool {
    match part {
        Part::Variable(Variable::Known(known)) => known.waits_for_the_end(),
        part => is_map(part, config),
    }
}

/// A `map` whose value is known only at the end.
fn is_map(part: &Part, config: &Config) -> bool {
    let Part::Variable(Variable::Map(number)) = part else { return false };
    config
        .maps
        .get(*number)
        .is_some_and(|map| map.texts().any(|text| text.parts.iter().any(|part| waits(part, config))))
}

/// `if=`: nothing is logged when it expands to nothing or to `0`.
fn holds(log: &AccessLog, scope: &mut dyn Scope) -> bool {
    let value = log.condition.as_ref().map(|condition| condition.expand(scope));
    value.is_none_or(|value| !value.is_empty() && value != b"0")
}

/// The line, with its newline. What the format says literally is not escaped; every value is.
fn line(format: &LogFormat, scope: &mut dyn Scope) -> Vec<u8> {
    let mut line = Vec::with_capacity(256);
    for part in &format.template.parts {
        match part {
            Part::Text(text) => line.extend_from_slice(text),
            Part::Variable(variable) => append(&mut line, variable, format.escape, scope),
        }
    }
    line.push(b'\n');
    line
}

/// As [`line`], with nothing where a value is known only at the end.
fn line_with_holes(format: &LogFormat, scope: &mut dyn Scope) -> (Vec<u8>, Vec<(u32, Known)>) {
    let (mut line, mut holes) = (Vec::with_capacity(256), Vec::new());
    for part in &format.template.parts {
        match part {
            Part::Text(text) => line.extend_from_slice(text),
            Part::Variable(Variable::Known(known)) if known.waits_for_the_end() => {
                holes.push((line.len() as u32, *known))
            }
            Part::Variable(variable) => append(&mut line, variable, format.escape, scope),
        }
    }
    line.push(b'\n');
    (line, holes)
}

fn append(line: &mut Vec<u8>, variable: &Variable, escape: Escape, scope: &mut dyn Scope) {
    let start = line.len();
    if scope.append(variable, line) {
        escape_from(line, start, escape);
    } else if escape == Escape::Default {
        line.push(b'-');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Level, LogTarget};

    /// `$request` and `$http_user_agent` have hostile values, `$remote_user` has none, `$status` is as given.
    struct Values(&'static str);

    impl Scope for Values {
        fn append(&mut self, variable: &Variable, out: &mut Vec<u8>) -> bool {
            let value: &[u8] = match variable {
                Variable::Known(Known::Request) => b"GET /\"\n HTTP/1.1",
                Variable::RequestField(_) => b"caf\xc3\xa9 \\",
                Variable::Known(Known::Status) => self.0.as_bytes(),
                Variable::Known(Known::Args) => b"",
                _ => return false,
            };
            out.extend_from_slice(value);
            true
        }
    }

    fn template(parts: &[Part]) -> Template {
        Template { parts: parts.to_vec() }
    }

    fn text(text: &str) -> Part {
        Part::Text(text.as_bytes().into())
    }

    fn known(name: &str) -> Part {
        Part::Variable(Variable::Known(Known::named(name).unwrap()))
    }

    fn format(escape: Escape) -> Arc<LogFormat> {
        let agent = Part::Variable(Variable::RequestField("user-agent".into()));
        let parts = [
            text("\"lit\" "),
            known("request"),
            text(" "),
            known("remote_user"),
            text(" "),
            known("args"),
            text("|"),
            agent,
        ];
        Arc::new(LogFormat { name: "x".into(), escape, template: template(&parts) })
    }

    #[test]
    fn values_are_escaped_and_literal_text_is_not() {
        let line = |escape| String::from_utf8(line(&format(escape), &mut Values("200"))).unwrap();
        assert_eq!(line(Escape::Default), "\"lit\" GET /\\x22\\x0A HTTP/1.1 - |caf\\xC3\\xA9 \\x5C\n");
        assert_eq!(line(Escape::Json), "\"lit\" GET /\\\"\\n HTTP/1.1  |café \\\\\n");
        assert_eq!(line(Escape::None), "\"lit\" GET /\"\n HTTP/1.1  |café \\\n");
    }

    #[test]
    fn if_is_false_when_empty_or_zero_only() {
        let log = |condition| AccessLog {
            target: LogTarget::Stderr,
            format: format(Escape::Default),
            condition: Some(template(&[condition])),
            buffer: None,
        };
        assert!(!holds(&log(known("remote_user")), &mut Values("200")));
        assert!(!holds(&log(known("args")), &mut Values("200")));
        assert!(!holds(&log(known("status")), &mut Values("0")));
        assert!(holds(&log(known("status")), &mut Values("00")));
        assert!(holds(&log(known("status")), &mut Values("200")));
        assert!(holds(&AccessLog { condition: None, ..log(known("args")) }, &mut Values("0")));
    }

    #[test]
    fn each_line_goes_to_the_file_of_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let logs = super::super::tests::logs_into(directory.path(), Level::Error, &["a.log"]);
        let target = LogTarget::File("a.log".into());
        let log = AccessLog { target, format: format(Escape::Default), condition: None, buffer: None };
        write(&logs, &log, &mut Values("200"));
        write(&logs, &AccessLog { condition: Some(Template::text("0")), ..log }, &mut Values("200"));
        logs.flush();
        let text = std::fs::read_to_string(directory.path().join("a.log")).unwrap();
        assert_eq!(text.lines().count(), 1);
    }
}
