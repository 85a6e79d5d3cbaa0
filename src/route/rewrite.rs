//! The rewrite module's directives, compiled: `set`, `if`, `rewrite`, `return`, `break`.

use std::ops::ControlFlow::{self, Break, Continue};

pub use super::regex::{Captures, Regex};
use super::{escape, location::LocationId};
use crate::{
    limits::EXPANSION_BYTES,
    variables::{Known, Part, Scope, Slot, Template, Variable},
};

/// Directives in the order of the file.
#[derive(Debug, Default)]
pub struct Script {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One directive.
#[derive(Debug)]
pub enum Step {
    /// `set $x value;`
    Set(Slot, Template),
    /// `set $args value;`: the one variable of the program that can be set.
    SetArgs(Template),
    /// `rewrite regex replacement [flag];`
    Rewrite {
        /// Matched against `$uri`.
        regex: Regex,
        /// The new path, with `?args` if it has a `?`; a `?` at its end keeps the request's own arguments from being added.
        replacement: Template,
        /// The flag. A replacement that begins with `http://`, `https://` or `$scheme` redirects whatever the flag.
        flag: Flag,
    },
    /// `return`
    Return(Return),
    /// `break;`
    Break,
    /// `if (condition) { ... }`
    If {
        /// The condition.
        condition: Condition,
        /// What is done when it holds.
        then: Script,
        /// The settings in force from then on, when the block is in a location and sets any (`proxy_pass` in `if`).
        location: Option<LocationId>,
    },
}

/// Flags of `rewrite`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// No flag: go on with the next directive, then search a location again.
    None,
    /// `last`
    Last,
    /// `break`
    Break,
    /// `redirect` (302), and a replacement that begins with `http://`, `https://` or `$scheme`.
    Redirect,
    /// `permanent` (301)
    Permanent,
}

/// `return CODE [TEXT|URL]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// The status; 302 for `return URL`.
    pub status: u16,
    /// Body, or Location for 301, 302, 303, 307, 308; none: the status's own page.
    pub text: Option<Template>,
}

/// A condition of `if`.
#[derive(Debug)]
pub enum Condition {
    /// True unless empty or `0`.
    Value(Template),
    /// `=` and `!=`.
    Equal {
        /// Left side.
        left: Template,
        /// Right side.
        right: Template,
        /// `!=`
        negated: bool,
    },
    /// `~`, `~*`, `!~`, `!~*`.
    Match {
        /// Left side.
        value: Template,
        /// The expression.
        regex: Regex,
        /// `!~`, `!~*`
        negated: bool,
    },
}

/// What running a script needs of a request.
pub trait Rewritable: Scope {
    /// `$uri`.
    fn uri(&self) -> &[u8];
    /// `$args`.
    fn args(&self) -> &[u8];
    /// True when the path was sent with a `%` or a `+` in it: what is captured from it is then encoded again where it
    /// becomes an argument or a Location.
    fn was_encoded(&self) -> bool;
    /// Replaces the path and arguments.
    fn set_uri(&mut self, uri: Vec<u8>, args: Vec<u8>);
    /// Replaces the arguments only.
    fn set_args(&mut self, args: Vec<u8>);
    /// The new path stays in this location (`break`): it is no longer one that the location's prefix matched, and the URI
    /// part of `proxy_pass` does not replace anything.
    fn leave_prefix(&mut self);
    /// An `if` block with settings of its own was entered: they are in force from now on.
    fn set_location(&mut self, location: LocationId);
    /// `set`.
    fn set_slot(&mut self, slot: Slot, value: Vec<u8>);
    /// `$1`..., and those with names. `decoded`: of a text that was percent-decoded, so that they are encoded again where they
    /// become part of a request target.
    fn set_captures(&mut self, captures: Captures, decoded: bool);
}

/// How a script ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on to the content; `location` replaces the settings when an `if` block brought its own. The URI may have changed
    /// (`break`, or not at all): no new search.
    Continue {
        /// The last `if` block entered that has settings of its own.
        location: Option<LocationId>,
    },
    /// The URI changed: search a location again.
    Search,
    /// Answer now: `return`, or a redirecting rewrite (status and expanded Location).
    Answer {
        /// Status.
        status: u16,
        /// Expanded text or URL; none: the status's own page. A URL is fit for a header field.
        text: Option<Vec<u8>>,
    },
}

/// The statuses whose text is a Location.
pub fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

impl Script {
    /// Runs the steps for a request.
    pub fn run(&self, request: &mut dyn Rewritable) -> Verdict {
        let mut run = Run { request, uri_changed: false, encode_captures: true, location: None };
        match run.steps(&self.steps) {
            Break(End::Answer { status, text }) => Verdict::Answer { status, text },
            _ if run.uri_changed => Verdict::Search,
            _ => Verdict::Continue { location: run.location },
        }
    }
}

/// Why a script stops before its last step.
enum End {
    Stop,
    Answer { status: u16, text: Option<Vec<u8>> },
}

struct Run<'a> {
    request: &'a mut dyn Rewritable,
    uri_changed: bool,
    /// nginx encodes the captures in `set` and `if` until the first `rewrite` that matches, and not any more behind it.
    encode_captures: bool,
    location: Option<LocationId>,
}

impl Run<'_> {
    fn steps(&mut self, steps: &[Step]) -> ControlFlow<End> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> ControlFlow<End> {
        match step {
            Step::Set(slot, value) => {
                let value = self.expand(value, self.encode_captures);
                self.request.set_slot(*slot, value);
            }
            Step::SetArgs(value) => {
                let value = self.expand(value, self.encode_captures);
                self.request.set_args(value);
            }
            Step::Rewrite { regex, replacement, flag } => return self.rewrite(regex, replacement, *flag),
            Step::Return(answer) => return Break(self.answer(answer)),
            Step::Break => {
                self.stay();
                return Break(End::Stop);
            }
            Step::If { condition, then, location } => {
                if self.holds(condition) {
                    if let Some(location) = *location {
                        self.location = Some(location);
                        self.request.set_location(location);
                    }
                    return self.steps(&then.steps);
                }
            }
        }
        Continue(())
    }

    /// A changed path is served where it is.
    fn stay(&mut self) {
        if self.uri_changed {
            self.uri_changed = false;
            self.request.leave_prefix();
        }
    }

    fn holds(&mut self, condition: &Condition) -> bool {
        match condition {
            Condition::Value(value) => !matches!(self.expand(value, false).as_slice(), b"" | b"0"),
            Condition::Equal { left, right, negated } => {
                let left = self.expand(left, false);
                (left == self.expand(right, self.encode_captures)) != *negated
            }
            Condition::Match { value, regex, negated } => {
                let text = self.expand(value, false);
                let captures = regex.captures(&text);
                self.matched(captures, value.may_be_decoded()) != *negated
            }
        }
    }

    /// Takes over what an expression captured; without a match `$1`... are gone, as in nginx.
    fn matched(&mut self, captures: Option<Captures>, decoded: bool) -> bool {
        let matched = captures.is_some();
        self.request.set_captures(captures.unwrap_or_default(), decoded);
        matched
    }

    fn answer(&mut self, answer: &Return) -> End {
        let status = answer.status;
        let text = match &answer.text {
            // As nginx: `return 404 "";` is `return 404;`, and below 400 there is no page.
            None if status < 400 && !is_redirect(status) => Some(Vec::new()),
            Some(text) if status >= 400 && text.parts.is_empty() => None,
            text => text.as_ref().map(|text| self.expand(text, false)),
        };
        End::Answer { status, text: text.map(|text| if is_redirect(status) { as_field(&text) } else { text }) }
    }

    fn rewrite(&mut self, regex: &Regex, replacement: &Template, flag: Flag) -> ControlFlow<End> {
        let captures = regex.captures(self.request.uri());
        if !self.matched(captures, true) {
            return Continue(());
        }
        self.encode_captures = false;
        match redirect_status(replacement, flag) {
            Some(status) => {
                let location = self.location(replacement);
                Break(End::Answer { status, text: Some(location) })
            }
            None => self.rewrite_uri(replacement, flag),
        }
    }

    fn rewrite_uri(&mut self, replacement: &Template, flag: Flag) -> ControlFlow<End> {
        let Expanded { mut text, question, keep_args } = self.expand_replacement(replacement, false);
        let mut args = question.map(|at| text.split_off(at.min(text.len()))).unwrap_or_default();
        if keep_args && !self.request.args().is_empty() {
            if question.is_some() {
                args.push(b'&');
            }
            args.extend_from_slice(self.request.args());
        }
        if text.is_empty() {
            // nginx: "the rewritten URI has a zero length".
            return Break(End::Answer { status: 500, text: None });
        }
        self.request.set_uri(text, args);
        self.uri_changed = true;
        match flag {
            Flag::None => return Continue(()),
            Flag::Break => self.stay(),
            _ => {}
        }
        Break(End::Stop)
    }

    fn location(&mut self, replacement: &Template) -> Vec<u8> {
        let Expanded { text, question, keep_args } = self.expand_replacement(replacement, true);
        let mut location = escape::unescape_redirect(&text);
        if keep_args && !self.request.args().is_empty() {
            location.push(if question.is_some() { b'&' } else { b'?' });
            location.extend_from_slice(self.request.args());
        }
        as_field(&location)
    }

    fn expand(&mut self, template: &Template, encode_captures: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for part in &template.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(variable) => self.append(variable, encode_captures, &mut out),
            }
            out.truncate(EXPANSION_BYTES);
        }
        out
    }

    /// As [`Run::expand`], with the first `?` of the file's own text (not of a variable) taken out where it begins the
    /// arguments: for a redirect it stays.
    fn expand_replacement(&mut self, template: &Template, redirect: bool) -> Expanded {
        let mut out = Expanded { text: Vec::new(), question: None, keep_args: true };
        let last = template.parts.len().saturating_sub(1);
        for (index, part) in template.parts.iter().enumerate() {
            match part {
                Part::Text(text) => {
                    let stripped = if index == last { text.strip_suffix(b"?") } else { None };
                    out.keep_args = stripped.is_none();
                    out.literal(stripped.unwrap_or(text), redirect);
                }
                Part::Variable(variable) => {
                    let encode_captures = redirect || out.question.is_some();
                    self.append(variable, encode_captures, &mut out.text);
                }
            }
            out.text.truncate(EXPANSION_BYTES);
        }
        out
    }

    fn append(&mut self, variable: &Variable, encode_captures: bool, out: &mut Vec<u8>) {
        if encode_captures && matches!(variable, Variable::Capture(_)) && self.request.was_encoded() {
            let mut capture = Vec::new();
            self.request.append(variable, &mut capture);
            escape::argument(&capture, out);
        } else {
            self.request.append(variable, out);
        }
    }
}

struct Expanded {
    text: Vec<u8>,
    /// Where in `text` the arguments begin.
    question: Option<usize>,
    /// The request's arguments are added: the replacement does not end in `?`.
    keep_args: bool,
}

impl Expanded {
    fn literal(&mut self, text: &[u8], redirect: bool) {
        let question = text.iter().position(|byte| *byte == b'?').filter(|_| self.question.is_none());
        match question {
            Some(at) if !redirect => {
                self.text.extend_from_slice(&text[..at]);
                self.question = Some(self.text.len());
                self.text.extend_from_slice(&text[at + 1..]);
            }
            _ => {
                self.question = self.question.or(question.map(|at| self.text.len() + at));
                self.text.extend_from_slice(text);
            }
        }
    }
}

fn redirect_status(replacement: &Template, flag: Flag) -> Option<u16> {
    let absolute = match replacement.parts.first() {
        Some(Part::Text(text)) => text.starts_with(b"http://") || text.starts_with(b"https://"),
        Some(Part::Variable(variable)) => *variable == Variable::Known(Known::Scheme),
        None => false,
    };
    match flag {
        Flag::Permanent => Some(301),
        Flag::Redirect => Some(302),
        _ => absolute.then_some(302),
    }
}

fn as_field(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    escape::field(text, &mut out);
    out
}

#[cfg(test)]
pub(crate) mod tests;
