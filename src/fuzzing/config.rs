//! The configuration: files, texts with variables, and arguments.

use std::{path::PathBuf, time::Duration};

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
    for colour in [false, true] {
        loaded.report.render(colour, true);
    }
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
    let variable = Regex::new(r"\$(?:\{\w+\}|[1-9]|\w+)").expect("an expression");
    let expected = variable.replace_all(text, "<>");
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
    assert_eq!(values::seconds(&text), time(&text, &SECONDS).map(Duration::from_secs));
    assert_eq!(values::time(&text), time(&text, &MILLISECONDS).map(Duration::from_millis));
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
const SECONDS: [(&str, u128); 7] =
    [("y", 31_536_000), ("M", 2_592_000), ("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
const MILLISECONDS: [(&str, u128); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Numbers with units, the units in order, with blanks behind them; a bare number, in seconds, may come last.
fn time(text: &str, units: &[(&str, u128)]) -> Option<u64> {
    let one_second = units.iter().find(|(unit, _)| *unit == "s")?.1;
    let (mut rest, mut total, mut left) = (text, 0u128, units);
    let mut bare = true;
    while !rest.is_empty() {
        if !bare {
            return None;
        }
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        // `1m5` is a minute and five seconds, `1ms` is a millisecond and not a minute.
        let unit = if behind.starts_with("ms") && units.iter().any(|(unit, _)| *unit == "ms") {
            "ms"
        } else {
            &behind[..letters.min(1)]
        };
        let scale = match unit {
            "" => one_second,
            unit => {
                let at = left.iter().position(|(known, _)| *known == unit)?;
                let scale = left[at].1;
                left = &left[at + 1..];
                scale
            }
        };
        let value = big(number);
        if number.is_empty() || value > MOST {
            return None;
        }
        total += value * scale;
        if total > MOST {
            return None;
        }
        let tail = &behind[unit.len()..];
        rest = tail.trim_start_matches(' ');
        if unit.is_empty() {
            // It may stand where seconds may, and only blanks behind it.
            bare = false;
            let seconds_over = !left.iter().any(|(unit, _)| *unit == "s");
            if tail.len() > rest.len() && seconds_over || tail.len() == rest.len() && !rest.is_empty() {
                return None;
            }
        }
    }
    (!text.is_empty()).then_some(total as u64)
}
