//! What is inherited down to a location.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        AddHeader, ErrorPage, NextUpstream, Origin, Settings,
        diagnostic::{Diagnostic, did_you_mean},
        values,
    },
    Build, Directive, Level,
    proxy::regex_of,
};
use crate::{proxy_protocol::Version, variables::Template, websocket::handshake::Protocols};

/// Of `websocket_max_lifetime`: tunnels that came together shall not go together.
const LIFETIME_JITTER_PERCENT: u8 = 10;

const NEXT_UPSTREAM: [&str; 12] = [
    "error",
    "timeout",
    "invalid_header",
    "non_idempotent",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "http_403",
    "http_404",
    "http_429",
    "off",
];

impl Build<'_> {
    /// Everything that holds at a level. `default_redirect`: what `proxy_redirect default` means there.
    pub(super) fn settings(&mut self, level: &Level<'_>, default_redirect: Option<&(String, String)>) -> Settings {
        let (keepalive_timeout, keepalive_header) = self.keepalive_timeout(level);
        let (backend_tls, backend_tls_name) = self.backend_tls(level);
        Settings {
            set_headers: self.set_headers(level),
            proxy_http_10: self.proxy_http_10(level),
            proxy_protocol: self.proxy_protocol(level),
            connect_timeout: self.value(level, "proxy_connect_timeout", &values::TIME),
            read_timeout: self.value(level, "proxy_read_timeout", &values::TIME),
            send_timeout: self.value(level, "proxy_send_timeout", &values::TIME),
            tunnel_timeout: self.tunnel_timeout(level),
            max_lifetime: self.time_or_off(level, "websocket_max_lifetime"),
            lifetime_jitter: self.lifetime_jitter(level),
            ping: self.time_or_off(level, "websocket_ping"),
            client_send_timeout: self.value(level, "send_timeout", &values::TIME),
            body_timeout: self.value(level, "client_body_timeout", &values::TIME),
            keepalive_timeout,
            keepalive_header,
            keepalive_requests: self.value(level, "keepalive_requests", &values::NUMBER),
            max_body_bytes: self.value(level, "client_max_body_size", &values::OFFSET),
            add_headers: self.add_headers(level),
            hide_headers: field_names(level, "proxy_hide_header"),
            pass_headers: field_names(level, "proxy_pass_header"),
            redirects: self.redirects(level, default_redirect),
            method: self.method(level),
            response_head_bytes: self.response_head_bytes(level),
            error_pages: self.error_pages(level),
            intercept_errors: self.value(level, "proxy_intercept_errors", &values::FLAG),
            next_upstream: self.next_upstream(level),
            access_logs: self.access_logs(level),
            access_log_interval: self.access_log_interval(level),
            error_logs: self.error_logs(level),
            protocols: self.protocols(level),
            origins: self.origins(level),
            backend_tls,
            backend_tls_name,
            server_tokens: self.server_tokens(level),
            default_type: self.default_type(level),
            bind: self.proxy_bind(level),
            backend_keepalive: self.value(level, "proxy_socket_keepalive", &values::FLAG),
            user_timeout: self.value(level, "tcp_user_timeout", &values::TIME),
            reset_timedout: self.value(level, "reset_timedout_connection", &values::FLAG),
            access: self.access(level),
            limit_conn: self.limit_conn(level),
            limit_req: self.limit_req(level),
            real_ip: self.real_ip(level),
        }
    }

    fn set_headers(&mut self, level: &Level<'_>) -> Vec<(Box<str>, Template)> {
        let directives = level.all("proxy_set_header");
        directives.iter().filter_map(|directive| self.field(directive)).collect()
    }

    /// The name and value of `proxy_set_header` and `add_header`.
    fn field(&mut self, directive: &Directive) -> Option<(Box<str>, Template)> {
        let [name, value, ..] = directive.args.as_slice() else { return None };
        if !is_token(&name.text) {
            self.error(name.span, format!("\"{}\" cannot be the name of a header field", name.text));
            return None;
        }
        if value.text.contains(['\r', '\n', '\0']) {
            self.error(value.span, "the value of a header field cannot have a line break");
            return None;
        }
        Some((name.text.as_str().into(), self.template(value)))
    }

    fn add_headers(&mut self, level: &Level<'_>) -> Vec<AddHeader> {
        let directives = level.all("add_header");
        directives
            .iter()
            .filter_map(|directive| {
                let always = match directive.args.get(2) {
                    None => false,
                    Some(word) if word.text == "always" => true,
                    Some(word) => {
                        let error = Diagnostic::error(word.span, format!("invalid parameter \"{}\"", word.text));
                        self.report.push(error.help("`always`, or a value in quotes when it has spaces"));
                        false
                    }
                };
                self.field(directive).map(|(name, value)| AddHeader { name, value, always })
            })
            .collect()
    }

    fn proxy_http_10(&mut self, level: &Level<'_>) -> bool {
        let Some(directive) = level.one("proxy_http_version") else { return false };
        let version = directive.arg(0);
        if !matches!(version, "1.0" | "1.1") {
            let message = format!("invalid value \"{version}\" in \"proxy_http_version\" directive");
            self.report.push(Diagnostic::error(directive.arg_span(0), message).help("`1.0` or `1.1`"));
        }
        version == "1.0"
    }

    /// `on` is nginx's word for version 1.
    fn proxy_protocol(&mut self, level: &Level<'_>) -> Option<Version> {
        let directive = level.one("proxy_protocol")?;
        match directive.arg(0) {
            "off" => None,
            "on" | "v1" => Some(Version::V1),
            "v2" => Some(Version::V2),
            other => {
                let message = format!("invalid value \"{other}\" in \"proxy_protocol\" directive");
                let error = Diagnostic::error(directive.arg_span(0), message);
                self.report.push(error.help("`on` (version 1), `v1`, `v2` or `off`"));
                None
            }
        }
    }

    /// `websocket_timeout` where it is set, else `proxy_read_timeout` where it is set, else the default of the former.
    fn tunnel_timeout(&mut self, level: &Level<'_>) -> Duration {
        match (level.one("websocket_timeout"), level.one("proxy_read_timeout")) {
            (Some(directive), _) if directive.arg(0) == "off" => Duration::ZERO,
            (None, Some(_)) => self.value(level, "proxy_read_timeout", &values::TIME),
            _ => self.value(level, "websocket_timeout", &values::TIME),
        }
    }

    pub(super) fn time_or_off(&mut self, level: &Level<'_>, name: &'static str) -> Duration {
        match level.one(name) {
            Some(directive) if directive.arg(0) != "off" => self.read(directive, 0, &values::TIME).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }

    /// `jitter=10%` of `websocket_max_lifetime`.
    fn lifetime_jitter(&mut self, level: &Level<'_>) -> u8 {
        let Some(word) = level.one("websocket_max_lifetime").and_then(|found| found.args.get(1)) else {
            return LIFETIME_JITTER_PERCENT;
        };
        let percent = word.text.strip_prefix("jitter=").and_then(|value| value.strip_suffix('%')?.parse().ok());
        percent.filter(|percent| *percent <= 100).unwrap_or_else(|| {
            let error = Diagnostic::error(word.span, format!("invalid parameter \"{}\"", word.text));
            self.report.push(error.help("`jitter=10%`: so much of the time, at random, is taken off; 0% to 100%"));
            LIFETIME_JITTER_PERCENT
        })
    }

    fn keepalive_timeout(&mut self, level: &Level<'_>) -> (Duration, Option<u64>) {
        let timeout = self.value(level, "keepalive_timeout", &values::TIME);
        let header = level.one("keepalive_timeout").and_then(|directive| self.read(directive, 1, &values::SECONDS));
        (timeout, header.map(|header| header.as_secs()))
    }

    fn method(&mut self, level: &Level<'_>) -> Option<Template> {
        level.one("proxy_method").and_then(|directive| directive.args.first()).map(|word| self.template(word))
    }

    fn response_head_bytes(&mut self, level: &Level<'_>) -> usize {
        let bytes = self.value(level, "proxy_buffer_size", &values::SIZE);
        if bytes == 0
            && let Some(directive) = level.one("proxy_buffer_size")
        {
            self.error(directive.arg_span(0), "no response has a head of 0 bytes");
        }
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    fn server_tokens(&mut self, level: &Level<'_>) -> bool {
        let Some(directive) = level.one("server_tokens") else { return true };
        match directive.arg(0) {
            "on" | "build" => true,
            "off" => false,
            other => {
                let message = format!("invalid value \"{other}\" in \"server_tokens\" directive");
                self.report.push(Diagnostic::error(directive.arg_span(0), message).help("`on`, `off` or `build`"));
                true
            }
        }
    }

    fn default_type(&mut self, level: &Level<'_>) -> Box<str> {
        let written = level.one("default_type").map(|directive| directive.arg(0));
        written.unwrap_or_else(|| super::directives::default_of("default_type")).into()
    }

    fn error_pages(&mut self, level: &Level<'_>) -> Vec<ErrorPage> {
        let directives = level.all("error_page");
        directives.iter().filter_map(|directive| self.error_page(directive)).collect()
    }

    /// `error_page CODE ... [=[STATUS]] URI`
    fn error_page(&mut self, directive: &Directive) -> Option<ErrorPage> {
        let (target, codes) = directive.args.split_last()?;
        let (codes, status) = match codes.split_last() {
            Some((word, codes)) if word.text.starts_with('=') => {
                let code = word.text.get(1..).unwrap_or_default();
                let status = if code.is_empty() { Some(0) } else { code.parse().ok().filter(|code| *code <= 999) };
                if status.is_none() {
                    self.error(word.span, format!("invalid value \"{}\"", word.text));
                }
                (codes, status)
            }
            _ => (codes, None),
        };
        let mut statuses = Vec::new();
        for word in codes {
            match word.text.parse::<u16>() {
                Ok(499) => self.error(word.span, "invalid value \"499\": the client has gone"),
                Ok(status @ 300..=599) => statuses.push(status),
                _ => self.error(word.span, format!("value \"{}\" must be between 300 and 599", word.text)),
            }
        }
        if codes.is_empty() {
            self.error(directive.span(), "invalid number of arguments in \"error_page\" directive");
        }
        Some(ErrorPage { statuses, status, target: self.fallback(target, 0) })
    }

    fn next_upstream(&mut self, level: &Level<'_>) -> NextUpstream {
        let words: Vec<_> = match level.one("proxy_next_upstream") {
            Some(directive) => directive.args.iter().map(|word| (word.text.as_str(), Some(word.span))).collect(),
            None => super::directives::default_of("proxy_next_upstream").split(' ').map(|word| (word, None)).collect(),
        };
        let off = words.iter().any(|(word, _)| *word == "off");
        let has = |name: &str| !off && words.iter().any(|(word, _)| *word == name);
        let status = |word: &str| word.strip_prefix("http_").and_then(|code| code.parse().ok());
        let statuses = if off { Vec::new() } else { words.iter().filter_map(|(word, _)| status(word)).collect() };
        for (word, span) in &words {
            if let Some(span) = span.filter(|_| !NEXT_UPSTREAM.contains(word)) {
                let help = did_you_mean(word, NEXT_UPSTREAM);
                self.report.push(Diagnostic::error(span, format!("invalid value \"{word}\"")).maybe_help(help));
            }
        }
        let tries: u64 = self.value(level, "proxy_next_upstream_tries", &values::NUMBER);
        NextUpstream {
            error: has("error"),
            timeout: has("timeout"),
            invalid_header: has("invalid_header"),
            non_idempotent: has("non_idempotent"),
            statuses,
            tries: u32::try_from(tries).unwrap_or(u32::MAX),
            timeout_total: self.value(level, "proxy_next_upstream_timeout", &values::TIME),
        }
    }

    fn protocols(&mut self, level: &Level<'_>) -> Protocols {
        let Some(directive) = level.one("upgrade_protocols") else { return Protocols::Only(vec!["websocket".into()]) };
        if directive.args.len() == 1 && directive.arg(0).eq_ignore_ascii_case("any") {
            return Protocols::Any;
        }
        let mut names = Vec::new();
        for word in &directive.args {
            let name = word.text.to_ascii_lowercase();
            if name == "h2c" {
                let error =
                    Diagnostic::error(word.span, "h2c is never let through: it smuggles requests past every rule");
                self.report.push(error.help("remove it"));
            } else if !is_token(&name) || name == "any" {
                self.error(word.span, format!("\"{}\" cannot be an Upgrade token here", word.text));
            }
            names.push(name.into());
        }
        Protocols::Only(names)
    }

    fn origins(&mut self, level: &Level<'_>) -> Option<Vec<Origin>> {
        let directive = level.one("websocket_origin")?;
        if directive.args.len() == 1 && directive.arg(0) == "any" {
            return None;
        }
        Some(directive.args.iter().filter_map(|word| self.origin(word)).collect())
    }

    fn origin(&mut self, word: &super::Word) -> Option<Origin> {
        match word.text.as_str() {
            "none" => return Some(Origin::None),
            "same" => return Some(Origin::Same),
            "any" => self.error(word.span, "`any` makes the other origins meaningless: it stands alone"),
            _ => {}
        }
        if let Some((start, ignore_case)) = regex_of(&word.text) {
            return Some(Origin::Regex(self.regex(word, start, ignore_case)?));
        }
        let text = word.text.to_ascii_lowercase();
        let host = text.split_once("://").map_or(text.as_str(), |(_, host)| host);
        let wildcards = host.strip_prefix("*.").unwrap_or(host).contains('*');
        if host.is_empty() || wildcards || host.contains(['/', '$', ' ']) {
            let error = Diagnostic::error(word.span, format!("\"{}\" is no origin", word.text));
            self.report.push(error.help(
                "`example.com`, `*.example.com`, `https://example.com[:8443]` (no path), `~regex`, `same`, `none`",
            ));
            return None;
        }
        Some(Origin::Text(text.into()))
    }

    fn backend_tls(&mut self, level: &Level<'_>) -> (Arc<crate::tls::BackendTls>, Option<Template>) {
        let name = level.one("proxy_ssl_name").and_then(|directive| directive.args.first());
        let name = name.map(|word| self.template(word));
        (self.backend_tls_of(level), name)
    }
}

/// Lower-case field names of a list.
fn field_names(level: &Level<'_>, name: &'static str) -> Vec<Box<str>> {
    level.all(name).iter().map(|directive| directive.arg(0).to_ascii_lowercase().into()).collect()
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let other = b"!#$%&'*+-.^_`|~";
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || other.contains(&byte))
}
