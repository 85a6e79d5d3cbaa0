//! Names of variables the file itself makes: by `map`, `set` and named captures.
//!
//! nginx lets a variable be used above the place that makes it, so all names are collected before any text is compiled.

use std::collections::HashMap;

use super::{
    diagnostic::{Diagnostic, Report, Span},
    lexer::Word,
    tree::Directive,
};
use crate::variables::{Known, Slot, Variable};

/// Variables nginx has that never have a value here: empty, and `-` in a log, as in an nginx that does not use their module.
const EMPTY: [&str; 4] = ["gzip_ratio", "upstream_cache_status", "upstream_cache_last_modified", "uid_got"];

/// Names, and what they are compiled to.
#[derive(Debug, Default)]
pub struct Names {
    slots: Vec<Box<str>>,
    maps: usize,
    by_name: HashMap<String, Made>,
}

#[derive(Debug, Clone, Copy)]
enum Made {
    Slot(Slot),
    Map(usize),
}

impl Names {
    /// The slot of a writable variable, made when it is new. nginx's names have no case.
    pub fn slot(&mut self, name: &str) -> Slot {
        let name = name.to_ascii_lowercase();
        if let Some(Made::Slot(slot)) = self.by_name.get(&name) {
            return *slot;
        }
        let slot = self.slots.len();
        self.slots.push(name.as_str().into());
        self.by_name.insert(name, Made::Slot(slot));
        slot
    }

    /// The variable of a name (lower case) the file makes.
    pub fn find(&self, name: &str) -> Option<Variable> {
        match self.by_name.get(name)? {
            Made::Slot(slot) => Some(Variable::Slot(*slot)),
            Made::Map(map) => Some(Variable::Map(*map)),
        }
    }

    /// Every name the file makes.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// The writable variables by slot.
    pub fn into_slots(self) -> Vec<Box<str>> {
        self.slots
    }

    /// Collects the names of a file, before it is checked: a variable whose directive is refused is not unknown as well.
    pub fn collect(directives: &[Directive], report: &mut Report) -> Self {
        let mut names = Self::default();
        for name in EMPTY {
            names.slot(name);
        }
        names.maps_of(directives, report);
        names.slots_of(directives, report);
        names
    }

    fn maps_of(&mut self, directives: &[Directive], report: &mut Report) {
        for directive in directives {
            if directive.is("map") && directive.args.len() == 2 {
                if let Some(name) = variable_name(directive, 1, report) {
                    let message = format!("the variable \"{name}\" is made by two maps; the last one holds");
                    if let Some(Made::Map(_)) = self.by_name.insert(name, Made::Map(self.maps)) {
                        report.push(Diagnostic::warning(directive.arg_span(1), message));
                    }
                }
                self.maps += 1;
            }
            if directive.is("http") {
                self.maps_of(directive.children(), report);
            }
        }
    }

    fn slots_of(&mut self, directives: &[Directive], report: &mut Report) {
        for directive in directives {
            match directive.name.text.as_str() {
                "set" if directive.args.len() == 2 => {
                    if let Some(name) = variable_name(directive, 0, report).filter(|name| name != "args") {
                        self.writable(&name, directive.arg_span(0), report);
                    }
                }
                // Refused, each with its own error.
                "geo" | "split_clients" => {
                    directive.args.last().map(|word| self.slot(word.text.trim_start_matches('$')));
                }
                "auth_request_set" | "perl_set" | "js_set" | "set_by_lua_block" => {
                    self.slot(directive.arg(0).trim_start_matches('$'));
                }
                "server_name" | "location" | "rewrite" | "if" | "proxy_redirect" | "websocket_origin" => {
                    directive.args.iter().for_each(|word| self.captures_of(word, report));
                }
                "map" => directive.children().iter().for_each(|line| self.captures_of(&line.name, report)),
                _ => {}
            }
            self.slots_of(directive.children(), report);
        }
    }

    /// Named groups: `(?<name>`, `(?P<name>`, `(?'name'`.
    fn captures_of(&mut self, word: &Word, report: &mut Report) {
        for (at, _) in word.text.match_indices("(?") {
            let rest = word.text.get(at + 2..).unwrap_or_default();
            let rest = rest.strip_prefix('P').unwrap_or(rest);
            let Some(rest) = rest.strip_prefix(['<', '\'']) else { continue };
            let length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
            if let Some(name) = rest.get(..length).filter(|name| !name.is_empty()) {
                self.writable(&name.to_ascii_lowercase(), word.span, report);
            }
        }
    }

    fn writable(&mut self, name: &str, span: Span, report: &mut Report) {
        if matches!(self.by_name.get(name), Some(Made::Map(_))) {
            let message = format!("\"{name}\" is made by a `map` already");
            report.push(Diagnostic::error(span, message).help("give one of the two another name"));
        } else if Known::named(name).is_some_and(|known| known != Known::Args) {
            report.push(duplicate(span, name));
        } else if matches!(name, "args" | "limit_rate") {
            let message = format!("setting \"{name}\" is not supported yet");
            report.push(
                Diagnostic::error(span, message).help("use `rewrite ^ $uri?name=value? ...` to change arguments"),
            );
        } else {
            self.slot(name);
        }
    }
}

/// The variable an argument names, in lower case; an error when it has no `$`, or is one of nginx's own but `$args`.
fn variable_name(directive: &Directive, index: usize, report: &mut Report) -> Option<String> {
    let text = directive.arg(index);
    let Some(name) = text.strip_prefix('$').filter(|name| !name.is_empty()) else {
        let error = Diagnostic::error(directive.arg_span(index), format!("invalid variable name \"{text}\""));
        report.push(error.help("a variable's name begins with \"$\""));
        return None;
    };
    let name = name.to_ascii_lowercase();
    if Known::named(&name).is_some() && name != "args" {
        report.push(duplicate(directive.arg_span(index), &name));
        return None;
    }
    Some(name)
}

fn duplicate(span: Span, name: &str) -> Diagnostic {
    Diagnostic::error(span, format!("the duplicate \"{name}\" variable"))
        .help("this name is one of nginx's own variables, which cannot be written: choose another")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    fn collect(text: &str) -> (Names, String) {
        let mut report = Report::default();
        let file = report.add_source("t", text.to_owned());
        let parsed = tree::parse(file, text, false, &mut report);
        let names = Names::collect(&parsed, &mut report);
        (names, report.render(false, false))
    }

    #[test]
    fn every_way_to_make_a_variable_is_found() {
        let (names, text) = collect(
            "http { map $a $one { ~^(?<two>x) 1; } server { server_name ~^(?P<three>.+)\\.x$; location ~ \"^/(?'four'a)\" { \
             if ($uri ~ (?<five>b)) { set $SIX 6; } rewrite (?<seven>c) /x; } } } map $b $eight {}",
        );
        assert_eq!(text, "");
        for name in ["two", "three", "four", "five", "six", "seven"] {
            assert!(matches!(names.find(name), Some(Variable::Slot(_))), "{name}");
        }
        assert_eq!(names.find("one"), Some(Variable::Map(0)));
        assert_eq!(names.find("eight"), Some(Variable::Map(1)));
        assert_eq!(names.find("nine"), None);
    }

    #[test]
    fn nginx_s_own_variables_cannot_be_made() {
        let (_, text) = collect(
            "map $a $host {} server { set $uri /; set x 1; set $limit_rate 1k; set $args a; server_name ~(?<scheme>x); }",
        );
        assert!(text.contains("the duplicate \"host\" variable"), "{text}");
        assert!(text.contains("the duplicate \"uri\" variable"), "{text}");
        assert!(text.contains("the duplicate \"scheme\" variable"), "{text}");
        assert!(text.contains("invalid variable name \"x\""), "{text}");
        assert!(text.contains("setting \"limit_rate\" is not supported yet"), "{text}");
    }
}
