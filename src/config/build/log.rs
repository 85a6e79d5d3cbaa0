//! `log_format`, `access_log`, `error_log`.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        AccessLog, ErrorLog, Escape, Level as LogLevel, LogBuffer, LogFormat, LogTarget, TunnelEvent, TunnelEvents,
        diagnostic::{Diagnostic, Span, did_you_mean},
        template, values,
    },
    Build, Directive, Level, Paths, prefix_path,
};
use crate::{limits::LOG_INTERVAL_SECS, variables::Template};

/// nginx's predefined format.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                        \"$http_referer\" \"$http_user_agent\"";

/// Ours: every key is the name of its variable. What is not in quotes is a number always.
const JSON: &str = "{\"time_iso8601\":\"$time_iso8601\",\"tunnel_event\":\"$tunnel_event\",\"connection\":$connection,\
    \"remote_addr\":\"$remote_addr\",\"remote_port\":\"$remote_port\",\"server_name\":\"$server_name\",\"host\":\"$host\",\
    \"request_method\":\"$request_method\",\"request_uri\":\"$request_uri\",\"server_protocol\":\"$server_protocol\",\
    \"status\":$status,\"close_reason\":\"$close_reason\",\"request_time\":$request_time,\
    \"bytes_received\":$bytes_received,\"bytes_sent\":$bytes_sent,\
    \"frames_received\":$frames_received,\"frames_sent\":$frames_sent,\
    \"upstream_addr\":\"$upstream_addr\",\"upstream_status\":\"$upstream_status\",\
    \"upstream_connect_time\":\"$upstream_connect_time\",\"upstream_header_time\":\"$upstream_header_time\",\
    \"ssl_protocol\":\"$ssl_protocol\",\"ssl_cipher\":\"$ssl_cipher\",\"request_id\":\"$request_id\",\
    \"http_origin\":\"$http_origin\",\"http_referer\":\"$http_referer\",\"http_user_agent\":\"$http_user_agent\",\
    \"http_x_forwarded_for\":\"$http_x_forwarded_for\"}";

const LEVELS: [(&str, LogLevel); 8] = [
    ("emerg", LogLevel::Emerg),
    ("alert", LogLevel::Alert),
    ("crit", LogLevel::Crit),
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("notice", LogLevel::Notice),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

/// Where a log goes.
pub fn target(text: &str, paths: &Paths) -> LogTarget {
    match text {
        "stderr" | "/dev/stderr" => LogTarget::Stderr,
        "/dev/stdout" => LogTarget::Stdout,
        path => LogTarget::File(prefix_path(path, paths)),
    }
}

impl Build<'_> {
    /// Every format of the file, `combined`, and `json` where the file has none of that name.
    pub(super) fn log_formats(&mut self, http: &Level<'_>) {
        let combined = template::compile(COMBINED, &self.names).unwrap_or_default();
        self.formats.push(Arc::new(LogFormat { name: "combined".into(), escape: Escape::Default, template: combined }));
        for directive in http.own("log_format") {
            let name = directive.arg(0);
            if self.formats.iter().any(|format| &*format.name == name) {
                self.error(directive.arg_span(0), format!("duplicate \"log_format\" name \"{name}\""));
                continue;
            }
            let (escape, first) = self.escape(directive);
            let mut template = Template::default();
            for word in directive.args.iter().skip(first) {
                template.parts.extend(self.template(word).parts);
            }
            self.formats.push(Arc::new(LogFormat { name: name.into(), escape, template }));
        }
        if !self.formats.iter().any(|format| &*format.name == "json") {
            let template = template::compile(JSON, &self.names).unwrap_or_default();
            self.formats.push(Arc::new(LogFormat { name: "json".into(), escape: Escape::Json, template }));
        }
    }

    /// The escape, and the index of the first word of the text.
    fn escape(&mut self, directive: &Directive) -> (Escape, usize) {
        let Some(escape) = directive.arg(1).strip_prefix("escape=") else { return (Escape::Default, 1) };
        let escape = match escape {
            "default" => Escape::Default,
            "json" => Escape::Json,
            "none" => Escape::None,
            other => {
                self.error(directive.arg_span(1), format!("unknown log format escaping \"{other}\""));
                Escape::Default
            }
        };
        (escape, 2)
    }

    /// The access logs that hold at a level.
    pub(super) fn access_logs(&mut self, level: &Level<'_>) -> Vec<AccessLog> {
        let directives = level.all("access_log");
        let off = directives.iter().find(|directive| directive.arg(0) == "off");
        if let Some(off) = off {
            if off.args.len() > 1 {
                self.error(off.arg_span(1), format!("invalid parameter \"{}\"", off.arg(1)));
            }
            return Vec::new();
        }
        directives.iter().filter_map(|directive| self.access_log(level, directive)).collect()
    }

    /// `access_log_interval TIME|off`
    pub(super) fn access_log_interval(&mut self, level: &Level<'_>) -> Duration {
        let interval = self.time_or_off(level, "access_log_interval");
        let Some(directive) = level.one("access_log_interval") else { return interval };
        if !interval.is_zero() && interval < Duration::from_secs(LOG_INTERVAL_SECS) {
            let error = Diagnostic::error(directive.arg_span(0), "a line about every tunnel more than once a second");
            self.report.push(error.help(format!("at least {LOG_INTERVAL_SECS}s")));
        }
        interval
    }

    fn access_log(&mut self, level: &Level<'_>, directive: &Directive) -> Option<AccessLog> {
        if !self.log_is_a_file(directive) {
            return None;
        }
        let (mut named, mut condition) = (None, None);
        let (mut buffer, mut flush) = (None, None);
        let mut events = TunnelEvents::CLOSE;
        for (index, word) in directive.args.iter().enumerate().skip(1) {
            match word.text.split_once('=') {
                Some(("if", _)) => condition = Some(self.template_of(word, "if=".len())),
                Some(("events", list)) => match TunnelEvents::parse(list) {
                    Some(list) => events = list,
                    None => {
                        let error = Diagnostic::error(word.span, format!("invalid parameter \"{}\"", word.text));
                        self.report
                            .push(error.help("`events=` takes open, interval and close, with commas between them"));
                    }
                },
                Some(("buffer", size)) => {
                    let size = values::size(size).filter(|size| *size > 0);
                    buffer = self.log_parameter(word, size, "buffer size");
                }
                Some(("flush", time)) => {
                    let time = values::time(time).filter(|time| !time.is_zero());
                    flush = self.log_parameter(word, time, "flush time").map(|time| (word.span, time));
                }
                _ if word.text == "gzip" || word.text.starts_with("gzip=") => {
                    let error = Diagnostic::error(word.span, "compressed logs are not supported yet");
                    self.report.push(error.help("let logrotate compress them"));
                }
                _ if index == 1 => named = Some(word),
                _ => self.error(word.span, format!("invalid parameter \"{}\"", word.text)),
            }
        }
        let target = target(directive.arg(0), &self.paths);
        let buffer = self.log_buffer(directive, &target, buffer, flush);
        let name = named.map_or("combined", |word| word.text.as_str());
        let Some(format) = self.formats.iter().find(|format| &*format.name == name).cloned() else {
            let span = named.map_or(directive.name.span, |word| word.span);
            let help = did_you_mean(name, self.formats.iter().map(|format| &*format.name));
            self.report.push(Diagnostic::error(span, format!("unknown log format \"{name}\"")).maybe_help(help));
            return None;
        };
        if events.has(TunnelEvent::Interval) && level.one("access_log_interval").is_none() {
            let warning =
                Diagnostic::warning(directive.span(), "no line is written for `events=interval` without an interval");
            self.report.push(warning.help("add `access_log_interval 1m;`"));
        }
        Some(AccessLog { target, format, condition, buffer, events })
    }

    fn log_parameter<T>(&mut self, word: &super::Word, value: Option<T>, what: &str) -> Option<T> {
        if value.is_none() {
            self.error(word.span, format!("invalid {what} in \"{}\"", word.text));
        }
        value
    }

    /// `buffer=` and `flush=` together; every line of the file that says how its log is buffered must say the same.
    fn log_buffer(
        &mut self,
        directive: &Directive,
        target: &LogTarget,
        size: Option<u64>,
        flush: Option<(Span, Duration)>,
    ) -> Option<LogBuffer> {
        let Some(size) = size else {
            if let Some((span, _)) = flush {
                let error =
                    Diagnostic::error(span, format!("no buffer is defined for access_log \"{}\"", directive.arg(0)));
                self.report.push(error.help("add `buffer=64k`: without one, lines are written at once"));
            }
            return None;
        };
        let buffer =
            LogBuffer { bytes: usize::try_from(size).unwrap_or(usize::MAX), flush: flush.map(|(_, time)| time) };
        if *self.log_buffers.entry(target.clone()).or_insert(buffer) != buffer {
            let message = format!("access_log \"{}\" already defined with conflicting parameters", directive.arg(0));
            self.report
                .push(Diagnostic::error(directive.span(), message).help("one file has one `buffer=` and `flush=`"));
        }
        Some(buffer)
    }

    /// Targets that nginx knows and this program does not.
    fn log_is_a_file(&mut self, directive: &Directive) -> bool {
        let text = directive.arg(0);
        let (message, help) = if text.starts_with("syslog:") {
            ("logging to syslog is not supported yet", "log to stderr: systemd and containers take it from there")
        } else if text.starts_with("memory:") {
            ("logging to memory is not supported", "log to a file")
        } else if text.contains('$') {
            ("variables in the name of a log are not supported yet", "write one file, with the variable in its format")
        } else {
            return true;
        };
        self.report.push(Diagnostic::error(directive.arg_span(0), message).help(help));
        false
    }

    /// The error logs that hold at a level; none: those of the main context.
    pub(super) fn error_logs(&mut self, level: &Level<'_>) -> Vec<ErrorLog> {
        level.all("error_log").iter().filter_map(|directive| self.error_log(directive)).collect()
    }

    fn error_log(&mut self, directive: &Directive) -> Option<ErrorLog> {
        if !self.log_is_a_file(directive) {
            return None;
        }
        if directive.arg(0) == "off" {
            let warning =
                Diagnostic::warning(directive.arg_span(0), "this writes to a file named \"off\", as in nginx");
            self.report.push(warning.help("to log as little as possible: `error_log /dev/null emerg;`"));
        }
        let target = target(directive.arg(0), &self.paths);
        let Some(word) = directive.args.get(1) else { return Some(ErrorLog { target, level: LogLevel::Error }) };
        let Some((_, level)) = LEVELS.iter().find(|(name, _)| *name == word.text) else {
            let error = Diagnostic::error(word.span, format!("invalid log level \"{}\"", word.text));
            self.report.push(error.help("one of debug, info, notice, warn, error, crit, alert, emerg"));
            return None;
        };
        Some(ErrorLog { target, level: *level })
    }
}
