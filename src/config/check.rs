//! Holds every directive of a tree against the table: known, allowed here, the right number of arguments, not twice.
//! What comes out has only directives that passed, so that what is built of it repeats none of these errors.

use std::collections::{HashMap, VecDeque};

use super::{
    diagnostic::{Diagnostic, Report, Span, did_you_mean},
    directives::{self, Class, Contexts, Definition, Form, Merge},
    lexer::Word,
    tree::Directive,
    values,
};

/// The directives of one block that passed.
pub fn check(directives: Vec<Directive>, context: Contexts, report: &mut Report) -> Vec<Directive> {
    let mut block = Block { context, first: HashMap::new(), report };
    let mut pending: VecDeque<Directive> = directives.into();
    let mut passed = Vec::with_capacity(pending.len());
    while let Some(directive) = pending.pop_front() {
        match block.check(directive) {
            Outcome::Passed(directive) => passed.push(directive),
            Outcome::Dropped => {}
            Outcome::Split(head, tail) => {
                pending.push_front(tail);
                pending.push_front(head);
            }
        }
    }
    passed
}

enum Outcome {
    Passed(Directive),
    Dropped,
    /// A `;` was missing: these were meant.
    Split(Directive, Directive),
}

struct Block<'a> {
    context: Contexts,
    /// Where each directive that may stand once stood first.
    first: HashMap<&'static str, Span>,
    report: &'a mut Report,
}

impl Block<'_> {
    fn check(&mut self, directive: Directive) -> Outcome {
        let meanings = directives::named(&directive.name.text);
        if meanings.is_empty() {
            self.unknown(&directive);
            return Outcome::Dropped;
        }
        let here = meanings.iter().find(|meaning| meaning.contexts.meets(self.context)).copied();
        let Some(meaning) = here.or_else(|| refused_everywhere(&meanings)) else {
            self.not_here(&directive, &meanings);
            return Outcome::Dropped;
        };
        if !self.class_lets_through(&directive, meaning) {
            return Outcome::Dropped;
        }
        if let Some(outcome) = self.wrong_shape(&directive, meaning) {
            return outcome;
        }
        self.swallowed_line(&directive);
        if self.is_duplicate(&directive, meaning) {
            return Outcome::Dropped;
        }
        Outcome::Passed(self.check_block(directive, meaning))
    }

    fn unknown(&mut self, directive: &Directive) {
        let name = &directive.name.text;
        let error = Diagnostic::error(directive.name.span, format!("unknown directive \"{name}\""));
        let help =
            broken_sed(directive).or_else(|| cut_by_brace(name)).or_else(|| did_you_mean(name, directives::names()));
        self.report.push(error.maybe_help(help));
    }

    fn not_here(&mut self, directive: &Directive, meanings: &[&Definition]) {
        let name = &directive.name.text;
        let contexts = meanings.iter().fold(Contexts::NOWHERE, |all, meaning| all.and(meaning.contexts));
        let message = format!("\"{name}\" directive is not allowed here");
        let mut error = Diagnostic::error(directive.name.span, message).help(format!("it may stand in: {contexts}"));
        if name == "location" && self.context.meets(Contexts::HTTP) {
            error = error.help("put it into a `server { listen ...; }` block");
        } else if self.context == Contexts::MAIN && contexts.meets(Contexts::HTTP) {
            error = error.help("put it into the `http { ... }` block of this file");
        }
        self.report.push(error);
    }

    /// False for a directive that is an error by its class; those without effect leave their note.
    fn class_lets_through(&mut self, directive: &Directive, meaning: &Definition) -> bool {
        let (name, span) = (&directive.name.text, directive.span());
        match meaning.class {
            Class::Understood => {}
            Class::Accepted(why) => self.report.push(Diagnostic::note(span, format!("`{name}` has no effect: {why}"))),
            Class::Surprising(why) => {
                self.report.push(Diagnostic::warning(span, format!("`{name}` has no effect: {why}")))
            }
            Class::Refused(_, harmless) | Class::NotYet(_, harmless) if asks_for_nothing(directive, harmless) => {
                self.report
                    .push(Diagnostic::note(span, format!("`{name}` has no effect: it asks for what is so anyway")));
            }
            Class::Refused(instead, _) => {
                self.report.push(Diagnostic::error(span, format!("`{name}` is not supported")).help(instead));
                return false;
            }
            Class::NotYet(until, _) => {
                self.report.push(Diagnostic::error(span, format!("`{name}` is not supported yet")).help(until));
                return false;
            }
        }
        true
    }

    /// Arguments or block that the directive does not take. A `;` forgotten on the line before is looked for first.
    fn wrong_shape(&mut self, directive: &Directive, meaning: &Definition) -> Option<Outcome> {
        let name = &directive.name.text;
        let (least, most) = meaning.form.bounds();
        let message = match (meaning.form.has_block(), directive.block.is_some()) {
            (Some(false), true) => format!("directive \"{name}\" is not terminated by \";\""),
            (Some(true), false) => format!("directive \"{name}\" has no opening \"{{\""),
            _ if !(least..=most).contains(&directive.args.len()) => {
                format!("invalid number of arguments in \"{name}\" directive")
            }
            _ if meaning.form == Form::Flag && values::flag(directive.arg(0)).is_none() => {
                let word = directive.arg(0);
                let message = format!("invalid value \"{word}\" in \"{name}\" directive, it must be \"on\" or \"off\"");
                self.report.push(Diagnostic::error(directive.arg_span(0), message));
                return Some(Outcome::Dropped);
            }
            _ => return None,
        };
        if let Some(at) = self.line_that_is_a_directive(directive) {
            let last = at.checked_sub(1).map_or(directive.name.span, |last| directive.arg_span(last));
            let error = Diagnostic::error(directive.name.span.to(last), message);
            self.report.push(error.label("a \";\" is missing behind this"));
            return split(directive, at);
        }
        let error = Diagnostic::error(directive.span(), message);
        self.report.push(error.help(format!("arguments: {}", directives::describe(meaning.form))));
        Some(Outcome::Dropped)
    }

    /// The first argument that begins a line and is a directive's name.
    fn line_that_is_a_directive(&self, directive: &Directive) -> Option<usize> {
        let mut line = self.report.line(directive.name.span);
        for (index, word) in directive.args.iter().enumerate() {
            let own = self.report.line(word.span);
            if own > line && !word.quoted && directives::is_known(&word.text) {
                return Some(index);
            }
            line = own;
        }
        None
    }

    /// A directive that takes any number of words takes the next line too when its `;` is missing; nginx says nothing.
    fn swallowed_line(&mut self, directive: &Directive) {
        if let Some(word) = self.line_that_is_a_directive(directive).and_then(|at| directive.args.get(at)) {
            let message = format!("`{}` is read as an argument of `{}`", word.text, directive.name.text);
            self.report.push(Diagnostic::warning(word.span, message).help("is a \";\" missing on the line before?"));
        }
    }

    fn is_duplicate(&mut self, directive: &Directive, meaning: &Definition) -> bool {
        if !matches!(meaning.merge, Merge::Value | Merge::Own) {
            return false;
        }
        if let Some(first) = self.first.get(meaning.name) {
            let error = Diagnostic::error(directive.span(), format!("\"{}\" directive is duplicate", meaning.name));
            self.report.push(error.related(*first, "it is here already"));
            return true;
        }
        self.first.insert(meaning.name, directive.span());
        false
    }

    fn check_block(&mut self, directive: Directive, meaning: &Definition) -> Directive {
        let inner = match meaning.name {
            "events" => Contexts::EVENTS,
            "http" => Contexts::HTTP,
            "server" => Contexts::SERVER,
            "upstream" => Contexts::UPSTREAM,
            "location" => Contexts::LOCATION,
            "if" if self.context.meets(Contexts::SERVER) => Contexts::SERVER_IF,
            "if" => Contexts::LOCATION_IF,
            _ => return directive,
        };
        match directive.block {
            Some(block) => Directive { block: Some(check(block, inner, self.report)), ..directive },
            None => directive,
        }
    }
}

/// A directive that is refused is so whatever block it stands in: its own words help more than "not allowed here".
fn refused_everywhere(meanings: &[&'static Definition]) -> Option<&'static Definition> {
    match meanings {
        [one] if matches!(one.class, Class::Refused(..) | Class::NotYet(..)) => Some(one),
        _ => None,
    }
}

fn asks_for_nothing(directive: &Directive, harmless: &[&str]) -> bool {
    directive.args.len() == 1 && directive.block.is_none() && harmless.contains(&directive.arg(0))
}

fn split(directive: &Directive, at: usize) -> Option<Outcome> {
    let mut args = directive.args.clone();
    let mut tail = args.split_off(at).into_iter();
    let name = tail.next()?;
    let tail = Directive { name, args: tail.collect(), block: directive.block.clone(), end: directive.end };
    let head = Directive { name: directive.name.clone(), args, block: None, end: directive.end };
    Some(Outcome::Split(head, tail))
}

/// `n proxy_send_timeout 3600s;`: sed's `a` command was given `\n` without its backslash, so a line break became the letter n.
fn broken_sed(directive: &Directive) -> Option<String> {
    let name = directive.name.text.as_str();
    let rest = |words: &[Word]| words.iter().map(|word| format!(" {}", word.text)).collect::<String>();
    let meant = match (name, directive.args.split_first()) {
        ("n" | "t" | "r" | "nt" | "i" | "a", Some((first, others))) if directives::is_known(&first.text) => {
            format!("{}{}", first.text, rest(others))
        }
        _ => {
            let stripped = name
                .strip_prefix(['n', 't'])
                .filter(|stripped| stripped.len() > 3 && directives::is_known(stripped))?;
            format!("{stripped}{}", rest(&directive.args))
        }
    };
    Some(format!(
        "a sed command that lost the backslash of its `\\n` probably made this line; write instead: `{meant};`"
    ))
}

/// `location ~ ^/a{2} {`: nginx ends a bare word at `{`, so that the rest of the expression looks like a directive.
fn cut_by_brace(name: &str) -> Option<String> {
    let (count, _) = name.split_once('}')?;
    let is_count = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
    is_count.then(|| "a regular expression with \"{\" must stand in quotes: `location ~ \"^/a{2}$\" {`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    fn run(text: &str, context: Contexts) -> (usize, String) {
        let mut report = Report::default();
        let file = report.add_source("t", text.to_owned());
        let parsed = tree::parse(file, text, false, &mut report);
        let passed = check(parsed, context, &mut report).len();
        (passed, report.render(false, true))
    }

    #[test]
    fn a_misspelt_name_gets_the_nearest() {
        let (passed, text) = run("proxy_raed_timeout 1s;", Contexts::LOCATION);
        assert_eq!(passed, 0);
        assert!(text.contains("unknown directive \"proxy_raed_timeout\""), "{text}");
        assert!(text.contains("did you mean `proxy_read_timeout`?"), "{text}");
    }

    #[test]
    fn a_line_glued_by_a_broken_sed_is_shown_as_it_should_be() {
        for line in ["proxy_read_timeout 3600s;n proxy_send_timeout 3600s;", "nproxy_send_timeout 3600s;"] {
            let (_, text) = run(line, Contexts::LOCATION);
            assert!(text.contains("unknown directive \"n"), "{text}");
            assert!(text.contains("sed") && text.contains("write instead: `proxy_send_timeout 3600s;`"), "{text}");
        }
    }

    #[test]
    fn all_errors_come_in_one_run() {
        let (passed, text) = run(
            "server { listen 80; listn 81; location / { proxy_pass; sendfile maybe; auth_basic x; internal; internal; } }\n\
             proxy_buffering off; satisfy any; location / {} gadget;",
            Contexts::HTTP,
        );
        assert_eq!(passed, 2, "{text}");
        for expected in [
            "did you mean `listen`?",
            "invalid number of arguments in \"proxy_pass\" directive",
            "it must be \"on\" or \"off\"",
            "`auth_basic` is not supported",
            "\"internal\" directive is duplicate",
            "`satisfy` is not supported yet",
            "\"location\" directive is not allowed here",
            "unknown directive \"gadget\"",
            "`proxy_buffering` has no effect",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }

    #[test]
    fn a_forgotten_semicolon_is_named_and_both_lines_are_read() {
        let (passed, text) = run("proxy_pass http://a\nproxy_http_version 1.1;\n", Contexts::LOCATION);
        assert_eq!(passed, 2);
        assert!(text.contains("a \";\" is missing behind this"), "{text}");
        let (passed, text) = run("listen 80\nlocation / { }\n", Contexts::SERVER);
        assert_eq!(passed, 2, "{text}");
        let (_, text) = run("server_name a\n  listen 80;", Contexts::SERVER);
        assert!(text.contains("`listen` is read as an argument of `server_name`"), "{text}");
    }

    #[test]
    fn a_regular_expression_cut_at_its_brace_is_explained() {
        let (_, text) = run("location ~ ^/[0-9]{4}$ { return 200; }", Contexts::SERVER);
        assert!(text.contains("must stand in quotes"), "{text}");
    }

    #[test]
    fn values_that_ask_for_nothing_are_let_through() {
        for text in ["auth_basic off;", "proxy_cache off;", "ssl_verify_client off;", "satisfy all;", "expires off;"] {
            let context = if text.starts_with("ssl") { Contexts::SERVER } else { Contexts::LOCATION };
            assert_eq!(run(text, context).0, 1, "{text}");
        }
        for text in ["auth_basic \"closed\";", "ssl_verify_client on;", "satisfy any;", "proxy_cache a;"] {
            let context = if text.starts_with("ssl") { Contexts::SERVER } else { Contexts::LOCATION };
            assert_eq!(run(text, context).0, 0, "{text}");
        }
    }

    #[test]
    fn refused_blocks_are_refused_by_name() {
        let (_, text) = run("stream { server { listen 1; proxy_pass x; } }", Contexts::MAIN);
        assert!(text.contains("`stream` is not supported") && text.matches("error").count() == 1, "{text}");
        let (_, text) = run("location / { limit_except GET { deny all; } }", Contexts::SERVER);
        assert!(text.contains("`limit_except` is not supported"), "{text}");
    }
}
