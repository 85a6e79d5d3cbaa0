//! The rewrite module's directives, compiled: `set`, `if`, `rewrite`, `return`, `break`.

use super::location::LocationId;
use crate::variables::{Slot, Template};

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
    /// `rewrite regex replacement [flag];`
    Rewrite {
        /// Matched against `$uri`.
        regex: Regex,
        /// The new path, with `?args` if it has a `?`.
        replacement: Template,
        /// The flag.
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

/// A regular expression of nginx's (PCRE in nginx; here the `regex` crate over bytes) and the slots of its named captures.
#[derive(Debug, Clone)]
pub struct Regex {
    // regex::bytes::Regex, named: Vec<(group index, Slot)>
}

/// What a match captured.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// `$1`...
    pub numbered: Vec<Vec<u8>>,
    /// Named ones.
    pub named: Vec<(Slot, Vec<u8>)>,
}

impl Regex {
    /// Compiles. Used by server_name, location and map as well.
    ///
    /// # Errors
    /// Why not, naming look-around and back-references, which PCRE has and this engine has not.
    pub fn new(_source: &str, _ignore_case: bool, _slot_of: &mut dyn FnMut(&str) -> Slot) -> Result<Self, String> {
        unimplemented!()
    }

    /// Searches `text`; none when it does not match.
    pub fn captures(&self, _text: &[u8]) -> Option<Captures> {
        unimplemented!()
    }
}

/// What running a script needs of a request.
pub trait Rewritable: crate::variables::Scope {
    /// `$uri`.
    fn uri(&self) -> &[u8];
    /// `$args`.
    fn args(&self) -> &[u8];
    /// Replaces the path and arguments.
    fn set_uri(&mut self, uri: Vec<u8>, args: Vec<u8>);
    /// `set`, and named captures.
    fn set_slot(&mut self, slot: Slot, value: Vec<u8>);
    /// `$1`...
    fn set_captures(&mut self, captures: Vec<Vec<u8>>);
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
        /// Expanded text or URL.
        text: Option<Vec<u8>>,
    },
}

impl Script {
    /// Runs the steps for a request.
    pub fn run(&self, _request: &mut dyn Rewritable) -> Verdict {
        unimplemented!()
    }
}
