//! The configuration: files, texts with variables, and arguments.

use std::{path::PathBuf, sync::LazyLock, time::Duration};

use regex::Regex;

use super::serving;
use crate::{
    config::{
        LoadOptions, Source,
        diagnostic::Report,
        load,
        names::Names,
        template,
        tree::{self, Directive},
        values,
    },
    limits::EXPANSION_BYTES,
    variables::{Scope, Template, Variable},
};

/// A whole file: every diagnostic can be printed, what is understood can be written down again, and what is accepted can serve
/// a request. Nothing of the host is asked: no file, no name (`cfg(fuzzing)`).
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    syntax(&text);
    let file = Source::Text { name: "fuzz".to_owned(), text };
    let options = LoadOptions { file, prefix: PathBuf::from("/nonexistent"), globals: None, conf_error_log: None };
    let loaded = load(&options);
    assert_eq!(loaded.config.is_some(), loaded.report.errors() == 0);
    loaded.report.render(data.len().is_multiple_of(2), true);
    if let Some(config) = loaded.config {
        serving::serve_one(config);
    }
}

/// Directives written down with every word in quotes are the same directives.
fn syntax(text: &str) {
    let (directives, errors) = parse(text);
    if errors == 0 {
        let mut again = String::new();
        directives.iter().for_each(|directive| write(directive, &mut again));
        let (read, errors) = parse(&again);
        assert_eq!((words(&read), errors), (words(&directives), 0), "{again}");
    }
}

fn parse(text: &str) -> (Vec<Directive>, usize) {
    let mut report = Report::default();
    let file = report.add_source("fuzz", text.to_owned());
    let directives = tree::parse(file, text, false, &mut report);
    (directives, report.errors())
}

fn write(directive: &Directive, out: &mut String) {
    for word in std::iter::once(&directive.name).chain(&directive.args) {
        out.push('"');
        out.push_str(&word.text.replace('\\', "\\\\").replace('"', "\\\""));
        out.push_str("\" ");
    }
    let Some(block) = &directive.block else { return out.push(';') };
    out.push('{');
    block.iter().for_each(|directive| write(directive, out));
    out.push('}');
}

/// What directives say, without where.
fn words(directives: &[Directive]) -> Vec<(String, Vec<String>)> {
    let mut out = Vec::new();
    for directive in directives {
        let args = directive.args.iter().map(|word| word.text.clone()).collect();
        out.push((directive.name.text.clone(), args));
        if let Some(block) = &directive.block {
            out.push(("{".to_owned(), Vec::new()));
            out.extend(words(block));
        }
    }
    out
}

/// A text with variables: its pieces stand where a regular expression finds them.
pub fn template(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut names = Names::default();
    names.slot("made");
    match template::compile(&text, &names) {
        Err(faults) => {
            assert!(!faults.is_empty());
            assert!(faults.iter().all(|fault| text.get(fault.at.clone()).is_some_and(|at| at.starts_with('$'))));
        }
        Ok(template) => {
            assert_eq!(template.constant().is_some(), !text.contains('$'));
            expands(&text, &template);
        }
    }
}

fn expands(text: &str, template: &Template) {
    static VARIABLE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\$(?:\{[0-9A-Za-z_]+\}|[1-9]|[0-9A-Za-z_]+)").expect("an expression"));
    let expected = VARIABLE.replace_all(text, "<>");
    let mut out = b"before".to_vec();
    template.expand_into(&mut Brackets, &mut out);
    let length = expected.len().min(EXPANSION_BYTES);
    assert_eq!(out[6..], expected.as_bytes()[..length]);
}

/// Every variable is `<>`.
struct Brackets;

impl Scope for Brackets {
    fn append(&mut self, _: &Variable, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(b"<>");
        true
    }
}

/// Times and sizes, beside nginx's ngx_parse_time, ngx_parse_size and ngx_parse_offset told in other words. In one thing the
/// package is stricter: a unit needs digits before it.
pub fn values(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert_eq!(values::number(&text), number(&text));
    assert_eq!(values::size(&text), scaled(&text, &[("k", 10), ("m", 20)]));
    assert_eq!(values::offset(&text), scaled(&text, &[("k", 10), ("m", 20), ("g", 30)]));
    static IN_SECONDS: LazyLock<Regex> = LazyLock::new(|| grammar(&SECONDS));
    static IN_MILLISECONDS: LazyLock<Regex> = LazyLock::new(|| grammar(&MILLISECONDS));
    assert_eq!(values::seconds(&text), time(&text, &IN_SECONDS, &SECONDS).map(Duration::from_secs));
    assert_eq!(values::time(&text), time(&text, &IN_MILLISECONDS, &MILLISECONDS).map(Duration::from_millis));
    assert_eq!(values::flag(&text).is_some(), matches!(&*text.to_ascii_lowercase(), "on" | "off"));
}

/// Largest value of nginx's, a signed number of 64 bits.
const MOST: u128 = i64::MAX as u128;

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| big(text)).filter(|value| *value <= MOST).map(|value| value as u64)
}

/// Digits as a number; too many are more than any bound.
fn big(digits: &str) -> u128 {
    digits.trim_start_matches('0').parse().unwrap_or(if digits.bytes().all(|byte| byte == b'0') {
        0
    } else {
        u128::MAX
    })
}

fn scaled(text: &str, units: &[(&str, u32)]) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, shift) =
        units.iter().find_map(|(unit, shift)| Some((lower.strip_suffix(unit)?, *shift))).unwrap_or((&lower, 0));
    let value = u128::from(number(digits)?) << shift;
    (value <= MOST).then_some(value as u64)
}

/// Units in the order they must have, and what they come to.
const SECONDS: [(&str, u64); 7] =
    [("y", 31_536_000), ("M", 2_592_000), ("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const MILLISECONDS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Numbers with units, each unit once and in order, blanks behind them. A bare number is in seconds: it may come last, and with a
/// blank behind it in the place of the seconds.
fn grammar(units: &[(&str, u64)]) -> Regex {
    let unit = |(name, _): &(&str, u64)| format!("(?:([0-9]+){name} *)?");
    let (before, since): (Vec<_>, Vec<_>) = units.iter().partition(|(name, _)| !name.ends_with('s'));
    let [before, since] = [before, since].map(|units| units.into_iter().map(unit).collect::<String>());
    Regex::new(&format!("^{before}(?:{since}|([0-9]+) +)([0-9]+)?$")).expect("an expression")
}

fn time(text: &str, grammar: &Regex, units: &[(&str, u64)]) -> Option<u64> {
    let second = units.iter().find(|(name, _)| *name == "s")?.1;
    let scales = units.iter().map(|(_, scale)| *scale).chain([second, second]);
    let found = grammar.captures(text)?;
    let parts: Vec<u128> = found
        .iter()
        .skip(1)
        .zip(scales)
        .filter_map(|(number, scale)| Some(big(number?.as_str()).saturating_mul(scale.into())))
        .collect();
    let total = parts.iter().fold(0u128, |total, part| total.saturating_add(*part));
    (!parts.is_empty() && total <= MOST).then_some(total as u64)
}
