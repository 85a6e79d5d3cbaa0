//! `limit_conn`, `limit_req` and `upgrade_rate`.

use super::{
    super::{
        LimitConn, LimitReq, ONE_REQUEST, Pace, UpgradeRate, Zone,
        diagnostic::{Diagnostic, Span, did_you_mean},
        directives, logs, values,
    },
    Build, Directive, Level, Word,
};
use crate::limits::{LIMIT_ZONE_BYTES, REQUEST_DELAY_SECS};

const ZONE_HELP: &str = "`zone=NAME:SIZE`, like `zone=addr:10m`";
const RATE_HELP: &str = "requests per second or minute, like `10r/s` or `30r/m`; 1 or more";

/// A zone of the file, while it is built.
struct Declared {
    name: Box<str>,
    directive: &'static str,
    span: Span,
    used: bool,
}

/// The zones of the file, by name.
#[derive(Default)]
pub(super) struct ZoneNames(Vec<Declared>);

impl ZoneNames {
    /// The number of a zone among those of its directive, which is used now.
    fn use_one(&mut self, directive: &'static str, name: &str) -> Option<usize> {
        let mut of_its_kind = self.0.iter_mut().filter(|known| known.directive == directive);
        of_its_kind.position(|known| {
            let is_it = *known.name == *name;
            known.used |= is_it;
            is_it
        })
    }

    fn of(&self, directive: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |known| known.directive == directive).map(|known| &*known.name)
    }
}

impl Build<'_> {
    /// Every `limit_conn_zone KEY zone=NAME:SIZE`, and every `limit_req_zone KEY zone=NAME:SIZE rate=RATE` with its rate in thousandths
    /// of a request per second.
    pub(super) fn zones(&mut self, http: &Level<'_>) -> (Vec<Zone>, Vec<(Zone, u64)>) {
        let (mut connections, mut requests) = (Vec::new(), Vec::new());
        for directive in http.all_of(&["limit_conn_zone", "limit_req_zone"]) {
            if directive.is("limit_conn_zone") {
                connections.extend(self.zone("limit_conn_zone", directive));
            } else {
                let rate = self.parameter(directive, "rate=").map_or(ONE_REQUEST, |word| self.rate(word, "rate="));
                requests.extend(self.zone("limit_req_zone", directive).map(|zone| (zone, rate)));
            }
        }
        self.request_rates = requests.iter().map(|(_, rate)| *rate).collect();
        (connections, requests)
    }

    fn zone(&mut self, name: &'static str, directive: &Directive) -> Option<Zone> {
        let key = directive.args.first()?;
        for word in directive.args.iter().skip(1) {
            let known = word.text.starts_with("zone=") || name == "limit_req_zone" && word.text.starts_with("rate=");
            if !known {
                self.invalid_parameter(word, ZONE_HELP);
            }
        }
        let Some(word) = self.parameter(directive, "zone=") else {
            let error = Diagnostic::error(directive.span(), format!("\"{name}\" must have \"zone\" parameter"));
            self.report.push(error.help(ZONE_HELP));
            return None;
        };
        let (zone, bytes) = self.name_and_size(word)?;
        let (key, key_text) = (self.template(key), key.text.as_str().into());
        if let Some(known) = self.zone_names.0.iter().find(|known| *known.name == *zone) {
            let message = format!("the zone \"{zone}\" is declared already, as a {}", known.directive);
            let error = Diagnostic::error(word.span, message).related(known.span, "it is here already");
            self.report.push(error.help("give one of the two another name: a zone has one key"));
            return None;
        }
        self.zone_names.0.push(Declared { name: zone.into(), directive: name, span: word.span, used: false });
        Some(Zone { name: zone.into(), key, key_text, bytes })
    }

    /// `zone=NAME:SIZE`
    fn name_and_size<'w>(&mut self, word: &'w Word) -> Option<(&'w str, usize)> {
        let value = word.text.strip_prefix("zone=").unwrap_or_default();
        let (name, size) = value.split_once(':').unwrap_or((value, ""));
        let bytes = values::size(size).and_then(|bytes| usize::try_from(bytes).ok());
        let (message, help) = match bytes {
            _ if name.is_empty() => (format!("the zone in \"{}\" has no name", word.text), ZONE_HELP.to_owned()),
            None => (format!("invalid zone size \"{}\"", word.text), ZONE_HELP.to_owned()),
            Some(bytes) if bytes < LIMIT_ZONE_BYTES => {
                (format!("zone \"{}\" is too small", word.text), format!("{}k or more", LIMIT_ZONE_BYTES >> 10))
            }
            Some(bytes) => return Some((name, bytes)),
        };
        self.report.push(Diagnostic::error(word.span, message).help(help));
        None
    }

    /// To be called when every level has been read: a zone alone limits nobody.
    pub(super) fn unused_zones(&mut self) {
        for zone in self.zone_names.0.iter().filter(|zone| !zone.used) {
            let limit = zone.directive.trim_end_matches("_zone");
            let warning = Diagnostic::warning(
                zone.span,
                format!("no `{limit}` uses the zone \"{}\": it limits nobody", zone.name),
            );
            self.report.push(warning.help(match limit {
                "limit_conn" => format!("`limit_conn {} 20;` in http, server or location", zone.name),
                _ => format!("`limit_req zone={};` in http, server or location", zone.name),
            }));
        }
    }

    /// `limit_conn` and its like at a level.
    pub(super) fn limit_conn(&mut self, level: &Level<'_>) -> LimitConn {
        let limits = level.all("limit_conn");
        self.not_twice(limits, |directive| Some(directive.arg(0)));
        LimitConn {
            limits: limits.iter().filter_map(|directive| self.connections(directive)).collect(),
            status: self.limit_status(level, "limit_conn_status"),
            level: self.limit_level(level, "limit_conn_log_level"),
            dry_run: self.value(level, "limit_conn_dry_run", &values::FLAG),
        }
    }

    /// `limit_conn ZONE NUMBER`
    fn connections(&mut self, directive: &Directive) -> Option<(usize, u32)> {
        let zone = self.known_zone("limit_conn_zone", directive.args.first()?, directive.arg(0));
        let number = values::number(directive.arg(1)).and_then(|number| u32::try_from(number).ok());
        let number = number.filter(|number| *number > 0);
        if number.is_none() {
            let message = format!("invalid number of connections \"{}\"", directive.arg(1));
            self.report.push(Diagnostic::error(directive.arg_span(1), message).help(format!("1 to {}", u32::MAX)));
        }
        Some((zone?, number?))
    }

    /// `limit_req` and its like at a level.
    pub(super) fn limit_req(&mut self, level: &Level<'_>) -> LimitReq {
        let limits = level.all("limit_req");
        self.not_twice(limits, |directive| directive.args.iter().find_map(|word| word.text.strip_prefix("zone=")));
        let log_level = self.limit_level(level, "limit_req_log_level");
        LimitReq {
            limits: limits.iter().filter_map(|directive| self.pace(directive)).collect(),
            status: self.limit_status(level, "limit_req_status"),
            level: log_level,
            delay_level: one_lower(log_level),
            dry_run: self.value(level, "limit_req_dry_run", &values::FLAG),
        }
    }

    /// `limit_req zone=NAME [burst=NUMBER] [nodelay | delay=NUMBER]`
    fn pace(&mut self, directive: &Directive) -> Option<Pace> {
        let (mut zone, mut burst, mut delay) = (None, 0, 0);
        for word in &directive.args {
            match word.text.split_once('=') {
                Some(("zone", name)) => zone = Some(self.known_zone("limit_req_zone", word, name)),
                Some(("burst", number)) => burst = self.requests(word, "burst", number),
                Some(("delay", number)) => delay = self.requests(word, "delay", number),
                None if word.text == "nodelay" => delay = u64::MAX,
                _ => {
                    let names = ["zone=", "burst=", "delay=", "nodelay"];
                    let help = did_you_mean(&word.text, names).unwrap_or_else(|| names.join(", "));
                    self.invalid_parameter(word, &help);
                }
            }
        }
        let Some(zone) = zone else {
            let error = Diagnostic::error(directive.span(), "\"limit_req\" must have \"zone\" parameter");
            self.report.push(error.help("`limit_req zone=NAME [burst=NUMBER] [nodelay | delay=NUMBER]`"));
            return None;
        };
        let zone = zone?;
        Some(Pace { zone, burst: self.burst_that_is_waited_for(directive, zone, burst, delay), delay })
    }

    /// A request that would have to wait too long is beyond the burst.
    fn burst_that_is_waited_for(&mut self, directive: &Directive, zone: usize, burst: u64, delay: u64) -> u64 {
        let rate = self.request_rates.get(zone).copied().unwrap_or(ONE_REQUEST);
        let most = delay.saturating_add(rate.saturating_mul(REQUEST_DELAY_SECS));
        if burst > most {
            let message = format!("at this rate the last of so large a burst would wait {} s", (burst - delay) / rate);
            let warning = Diagnostic::warning(directive.span(), message);
            self.report.push(warning.help(format!(
                "requests that would wait more than {REQUEST_DELAY_SECS} s are refused; `nodelay` lets the burst through at once"
            )));
        }
        burst.min(most)
    }

    /// A number of requests, in thousandths.
    fn requests(&mut self, word: &Word, name: &str, number: &str) -> u64 {
        let requests =
            values::number(number).filter(|number| *number > 0).and_then(|number| number.checked_mul(ONE_REQUEST));
        requests.unwrap_or_else(|| {
            let error = Diagnostic::error(word.span, format!("invalid {name} value \"{}\"", word.text));
            self.report.push(error.help("a number of requests, 1 or more"));
            0
        })
    }

    /// The number of a zone that an argument names.
    fn known_zone(&mut self, directive: &'static str, word: &Word, name: &str) -> Option<usize> {
        let number = self.zone_names.use_one(directive, name);
        if number.is_none() {
            let help = did_you_mean(name, self.zone_names.of(directive))
                .unwrap_or_else(|| format!("declare it in http: `{directive} KEY zone={name}:10m ...`"));
            self.report.push(Diagnostic::error(word.span, format!("there is no {directive} \"{name}\"")).help(help));
        }
        number
    }

    /// `upgrade_rate off | RATE [burst=NUMBER]`: the burst is a second's worth unless it is set.
    pub(super) fn upgrade_rate(&mut self, http: &Level<'_>) -> Option<UpgradeRate> {
        let directive = http.one("upgrade_rate")?;
        let [word, rest @ ..] = directive.args.as_slice() else { return None };
        if word.text == "off" && rest.is_empty() {
            return None;
        }
        let rate = self.rate(word, "");
        let mut burst = rate;
        for word in rest {
            match word.text.split_once('=') {
                Some(("burst", number)) => burst = self.requests(word, "burst", number),
                _ => self.invalid_parameter(word, "`upgrade_rate 500r/s burst=1000`"),
            }
        }
        Some(UpgradeRate { rate, burst })
    }

    /// `10r/s`, `30r/m`: thousandths of a request per second, behind a prefix.
    fn rate(&mut self, word: &Word, prefix: &str) -> u64 {
        let value = word.text.strip_prefix(prefix).unwrap_or_default();
        let (number, seconds) = match value.strip_suffix("r/m") {
            Some(number) => (number, 60),
            None => (value.strip_suffix("r/s").unwrap_or(value), 1),
        };
        let rate =
            values::number(number).filter(|number| *number > 0).and_then(|number| number.checked_mul(ONE_REQUEST));
        let rate = rate.map(|rate| rate / seconds);
        rate.unwrap_or_else(|| {
            self.report.push(Diagnostic::error(word.span, format!("invalid rate \"{}\"", word.text)).help(RATE_HELP));
            ONE_REQUEST
        })
    }

    fn limit_status(&mut self, level: &Level<'_>, name: &'static str) -> u16 {
        let status: u64 = self.value(level, name, &values::NUMBER);
        match (u16::try_from(status), level.one(name)) {
            (Ok(status @ 400..=599), _) => status,
            (_, directive) => {
                if let Some(directive) = directive.filter(|directive| values::number(directive.arg(0)).is_some()) {
                    self.error(directive.arg_span(0), "value must be between 400 and 599");
                }
                503
            }
        }
    }

    fn limit_level(&mut self, level: &Level<'_>, name: &'static str) -> logs::Level {
        let directive = level.one(name);
        match directive.map_or(directives::default_of(name), |directive| directive.arg(0)) {
            "info" => logs::Level::Info,
            "notice" => logs::Level::Notice,
            "warn" => logs::Level::Warn,
            "error" => logs::Level::Error,
            other => {
                if let Some(directive) = directive {
                    let error = Diagnostic::error(directive.arg_span(0), format!("invalid value \"{other}\""));
                    self.report.push(error.help("one of info, notice, warn, error"));
                }
                logs::Level::Error
            }
        }
    }

    /// One limit a zone at a level.
    fn not_twice(&mut self, limits: &[&Directive], zone: fn(&Directive) -> Option<&str>) {
        for (at, directive) in limits.iter().enumerate() {
            let Some(first) = limits[..at].iter().find(|first| zone(first) == zone(directive)) else { continue };
            let message = format!("\"{}\" directive is duplicate", directive.name.text);
            let error = Diagnostic::error(directive.span(), message).related(first.span(), "it is here already");
            self.report.push(error.help("one limit a zone; another zone may have the same key"));
        }
    }

    fn parameter<'d>(&self, directive: &'d Directive, prefix: &str) -> Option<&'d Word> {
        directive.args.iter().skip(1).find(|word| word.text.starts_with(prefix))
    }

    fn invalid_parameter(&mut self, word: &Word, help: &str) {
        let error = Diagnostic::error(word.span, format!("invalid parameter \"{}\"", word.text));
        self.report.push(error.help(help));
    }
}

fn one_lower(level: logs::Level) -> logs::Level {
    match level {
        logs::Level::Error => logs::Level::Warn,
        logs::Level::Warn => logs::Level::Notice,
        _ => logs::Level::Info,
    }
}
