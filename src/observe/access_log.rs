//! `access_log` and `log_format`.

use std::sync::Arc;

use super::{Logs, escape::escape_from, settings};
use crate::{
    config::{AccessLog, Config, Escape, LogFormat, TunnelEvent},
    limits::{LOG_JSON_VALUE_BYTES, LOG_RECORD_BYTES},
    request::Request,
    variables::{Known, Part, Scope, Variable},
};

/// Writes the request's line to every `access_log` of its location (server, while there is none) that asks for it: by `events=` in
/// the life of a tunnel, and by `if=`.
pub fn record(logs: &Logs, request: &mut Request) {
    // The configuration is borrowed for itself, since computing a variable may write to the request.
    let config = Arc::clone(&request.config);
    if request.event.is_some() {
        forget_maps_of_the_end(request, &config);
    }
    let event = event(request);
    let wanted = settings(&config, request).map_or(&[][..], |settings| &settings.access_logs);
    wanted.iter().filter(|log| log.events.has(event)).for_each(|log| write(logs, log, request));
}

/// What the request's line is about now; a plain request has one line, at its end.
fn event(request: &Request) -> TunnelEvent {
    request.event.unwrap_or(TunnelEvent::Close)
}

/// A tunnel has several lines, and a map that tells of its end (or of `$tunnel_event`) has another value in each.
fn forget_maps_of_the_end(request: &mut Request, config: &Config) {
    for (number, value) in request.mapped.iter_mut().enumerate().filter(|(_, value)| value.is_some()) {
        if is_map_of_the_end(number, config, &mut Vec::new()) {
            *value = None;
        }
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
    holes: Box<[Hole]>,
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
        if !log.events.has(TunnelEvent::Interval) && !log.events.has(TunnelEvent::Close) {
            continue;
        }
        let waits = |part: &Part| waits(part, &config, &mut Vec::new());
        let is_map = |part: &Part| matches!(part, Part::Variable(Variable::Map(_)));
        if log.condition.as_ref().is_some_and(|condition| condition.parts.iter().any(waits))
            || log.format.template.parts.iter().any(|part| is_map(part) && waits(part))
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
        if !log.events.has(event(request)) {
            continue;
        }
        let mut whole = Vec::with_capacity(line.text.len() + 64);
        let mut start = 0;
        for (at, known) in &line.holes {
            let at = *at as usize;
            whole.extend_from_slice(&line.text[start..at]);
            append(&mut whole, &Variable::Known(*known), log.format.escape, usize::MAX, request);
            start = at;
        }
        whole.extend_from_slice(&line.text[start..]);
        logs.write(&log.target, whole);
    }
}

/// A piece whose value is known only at the end. `seen`: maps looked at already, since they may name each other in a circle.
fn waits(part: &Part, config: &Config, seen: &mut Vec<usize>) -> bool {
    match part {
        Part::Variable(Variable::Known(known)) => known.waits_for_the_end(),
        Part::Variable(Variable::Map(number)) => is_map_of_the_end(*number, config, seen),
        _ => false,
    }
}

fn is_map_of_the_end(number: usize, config: &Config, seen: &mut Vec<usize>) -> bool {
    let Some(map) = config.maps.get(number).filter(|_| !seen.contains(&number)) else { return false };
    seen.push(number);
    map.texts().any(|text| text.parts.iter().any(|part| waits(part, config, seen)))
}

/// `if=`: nothing is logged when it expands to nothing or to `0`.
fn holds(log: &AccessLog, scope: &mut dyn Scope) -> bool {
    let value = log.condition.as_ref().map(|condition| condition.expand(scope));
    value.is_none_or(|value| !value.is_empty() && value != b"0")
}

/// The line, with its newline.
fn line(format: &LogFormat, scope: &mut dyn Scope) -> Vec<u8> {
    whole_line(format, scope, |_| false).0
}

/// As [`line`], with nothing where a value is known only at the end.
fn line_with_holes(format: &LogFormat, scope: &mut dyn Scope) -> (Vec<u8>, Vec<Hole>) {
    whole_line(format, scope, Known::waits_for_the_end)
}

/// Where in a line something is filled in, and what.
type Hole = (u32, Known);

/// Bytes that what fills a hole has at most: a date, a reason, a number.
const HOLE_BYTES: usize = 40;

/// A line that need not be cut to be a log record, if there is one: JSON that is cut is none.
fn whole_line(format: &LogFormat, scope: &mut dyn Scope, later: fn(Known) -> bool) -> (Vec<u8>, Vec<Hole>) {
    let fits = |(line, holes): &(Vec<u8>, Vec<Hole>)| line.len() + holes.len() * HOLE_BYTES <= LOG_RECORD_BYTES;
    let mut whole = rendered(format, scope, later, usize::MAX);
    if format.escape == Escape::Json && !fits(&whole) {
        let shorter = LOG_JSON_VALUE_BYTES.iter().map(|most| rendered(format, scope, later, *most));
        whole = shorter.into_iter().find(fits).unwrap_or(whole);
    }
    whole
}

/// A line with values of at most `most` bytes. What the format says literally is not escaped; every value is.
fn rendered(format: &LogFormat, scope: &mut dyn Scope, later: fn(Known) -> bool, most: usize) -> (Vec<u8>, Vec<Hole>) {
    let (mut line, mut holes) = (Vec::with_capacity(256), Vec::new());
    for part in &format.template.parts {
        match part {
            Part::Text(text) => line.extend_from_slice(text),
            Part::Variable(Variable::Known(known)) if later(*known) => holes.push((line.len() as u32, *known)),
            Part::Variable(variable) => append(&mut line, variable, format.escape, most, scope),
        }
    }
    line.push(b'\n');
    (line, holes)
}

fn append(line: &mut Vec<u8>, variable: &Variable, escape: Escape, most: usize, scope: &mut dyn Scope) {
    let start = line.len();
    if scope.append(variable, line) {
        line.truncate(start.saturating_add(most));
        escape_from(line, start, escape);
    } else if escape == Escape::Default {
        line.push(b'-');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::{
        config::{Level, LoadOptions, LogTarget, Source, TunnelEvents, load},
        request::tests::{head, request},
        variables::Template,
    };

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
            events: TunnelEvents::CLOSE,
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
        let log = AccessLog {
            target,
            format: format(Escape::Default),
            condition: None,
            buffer: None,
            events: TunnelEvents::CLOSE,
        };
        write(&logs, &log, &mut Values("200"));
        write(&logs, &AccessLog { condition: Some(Template::text("0")), ..log }, &mut Values("200"));
        logs.flush();
        let text = std::fs::read_to_string(directory.path().join("a.log")).unwrap();
        assert_eq!(text.lines().count(), 1);
    }

    /// The predefined `json`, of a file that has no other, and the file's configuration.
    fn predefined_json() -> (Config, Arc<LogFormat>) {
        let text = "access_log /dev/stdout json; server { listen 127.0.0.1:1; }";
        let file = Source::Text { name: "nginx.conf".into(), text: text.into() };
        let options = LoadOptions { file, prefix: "/nowhere".into(), globals: None, conf_error_log: None };
        let config = load(&options).config.unwrap();
        let format = Arc::clone(&config.servers[0].settings.access_logs[0].format);
        (config, format)
    }

    /// Every text is a hostile one, or there is none; what is a number, a request's variables make.
    struct Hostile<'a> {
        text: Option<&'a [u8]>,
        request: Request,
        numbers: Vec<Variable>,
    }

    impl Scope for Hostile<'_> {
        fn append(&mut self, variable: &Variable, out: &mut Vec<u8>) -> bool {
            if self.numbers.contains(variable) {
                return self.request.append(variable, out);
            }
            out.extend_from_slice(self.text.unwrap_or_default());
            self.text.is_some()
        }
    }

    fn hostile(text: Option<&[u8]>) -> (Vec<u8>, usize) {
        let (config, format) = predefined_json();
        let parts = &format.template.parts;
        let is_quoted = |text: &Part| matches!(text, Part::Text(text) if text.ends_with(b"\""));
        let numbers: Vec<Variable> = parts
            .windows(2)
            .filter(|pair| !is_quoted(&pair[0]))
            .filter_map(|pair| if let Part::Variable(variable) = &pair[1] { Some(variable.clone()) } else { None })
            .collect();
        assert!(numbers.len() > 5, "status, times, bytes: {numbers:?}");
        let mut request = request(config, head("/", &[]));
        request.status = 101;
        let values = parts.iter().filter(|part| matches!(part, Part::Variable(_))).count();
        (line(&format, &mut Hostile { text, request, numbers }), values)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_predefined_json_is_json_whatever_the_values(text: Option<Vec<u8>>) {
            let (line, values) = hostile(text.as_deref());
            prop_assert!(line.iter().filter(|byte| **byte == b'\n').count() == 1);
            let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
            prop_assert_eq!(value.as_object().expect("an object").len(), values, "no key twice");
            let agent = String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned();
            prop_assert_eq!(&value["http_user_agent"], &agent);
            prop_assert!(value["status"].is_u64() && value["request_time"].is_f64());
        }
    }

    #[test]
    fn a_json_line_that_would_be_cut_has_shorter_values() {
        for byte in [b'x', 1, 0xff, b'"'] {
            let text = vec![byte; 8000];
            let (line, _) = hostile(Some(&text));
            assert!(line.len() <= LOG_RECORD_BYTES);
            serde_json::from_slice::<serde_json::Value>(&line).expect("JSON");
        }
    }

    #[test]
    fn maps_that_name_each_other_are_looked_at_once() {
        let to = |number| Template { parts: vec![Part::Variable(Variable::Map(number))] };
        let map = |value: Template| {
            let mut map = crate::route::map::Map::new("x", Template::default(), false, false);
            map.insert("default", value, &mut |_| 0).unwrap();
            map
        };
        let close = Template { parts: vec![known("close_reason")] };
        let config = crate::request::tests::config(Vec::new(), vec![map(to(1)), map(to(0)), map(to(3)), map(close)]);
        let of_the_end = |number| is_map_of_the_end(number, &config, &mut Vec::new());
        assert_eq!([0, 1, 2, 3].map(of_the_end), [false, false, true, true]);
    }
}
