//! The rewrite module's directives: `set`, `if`, `rewrite`, `return`, `break`.

use super::{
    super::{diagnostic::Diagnostic, template, values},
    Build, Directive, Level, Word,
    location::{Enclosing, Places},
};
use crate::{
    route::rewrite::{Condition, Flag, Return, Script, Step},
    variables::{Part, Template, Variable},
};

const REWRITE: [&str; 5] = ["set", "if", "rewrite", "return", "break"];

impl Build<'_> {
    /// The script of a block. `enclosing` is the location it is in, if any.
    pub(super) fn script(
        &mut self,
        level: &Level<'_>,
        directives: &[Directive],
        enclosing: Option<Enclosing<'_>>,
        places: &mut Places,
    ) -> Script {
        let mut steps = Vec::new();
        for directive in directives {
            steps.extend(match directive.name.text.as_str() {
                "set" => self.set(directive),
                "rewrite" => self.rewrite(directive),
                "return" => self.answer(directive).map(Step::Return),
                "break" => Some(Step::Break),
                "if" => self.condition_block(level, directive, enclosing, places),
                _ => None,
            });
        }
        Script { steps }
    }

    fn set(&mut self, directive: &Directive) -> Option<Step> {
        let [variable, value] = directive.args.as_slice() else { return None };
        let name = variable.text.strip_prefix('$')?.to_ascii_lowercase();
        match self.names.find(&name) {
            Some(Variable::Slot(slot)) => Some(Step::Set(slot, self.template(value))),
            None if name == "args" => Some(Step::SetArgs(self.template(value))),
            _ => None,
        }
    }

    fn rewrite(&mut self, directive: &Directive) -> Option<Step> {
        let [pattern, replacement, ..] = directive.args.as_slice() else { return None };
        let regex = self.regex(pattern, 0, false)?;
        let redirects = is_url(&replacement.text);
        let flag = match directive.args.get(2).map(|word| (word, word.text.as_str())) {
            Some((_, "permanent")) => Flag::Permanent,
            Some((_, "redirect")) => Flag::Redirect,
            None | Some((_, "last" | "break")) if redirects => Flag::Redirect,
            None => Flag::None,
            Some((_, "last")) => Flag::Last,
            Some((_, "break")) => Flag::Break,
            Some((word, other)) => {
                let error = Diagnostic::error(word.span, format!("invalid parameter \"{other}\""));
                self.report.push(error.help("a flag is `last`, `break`, `redirect` or `permanent`"));
                return None;
            }
        };
        Some(Step::Rewrite { regex, replacement: self.template(replacement), flag })
    }

    fn answer(&mut self, directive: &Directive) -> Option<Return> {
        let first = directive.args.first()?;
        let status = match values::number(&first.text) {
            Some(status) => u16::try_from(status).ok().filter(|status| *status <= 999),
            None if directive.args.len() == 1 && is_url(&first.text) => {
                return Some(Return { status: 302, text: Some(self.template(first)) });
            }
            None => None,
        };
        let Some(status) = status else {
            let error = Diagnostic::error(first.span, format!("invalid return code \"{}\"", first.text));
            self.report.push(error.help("`return CODE;`, `return CODE TEXT;` or `return https://...;`"));
            return None;
        };
        Some(Return { status, text: directive.args.get(1).map(|word| self.template(word)) })
    }

    fn condition_block(
        &mut self,
        level: &Level<'_>,
        directive: &Directive,
        enclosing: Option<Enclosing<'_>>,
        places: &mut Places,
    ) -> Option<Step> {
        let condition = self.condition(directive);
        let own = directive.children();
        let inner = level.inner(own);
        let has_settings = own.iter().any(|child| !REWRITE.contains(&child.name.text.as_str()));
        let inside = enclosing.map(|enclosing| enclosing.inside_if(own));
        let location =
            inside.filter(|_| has_settings).map(|enclosing| self.if_location(&inner, directive, enclosing, places));
        let then = self.script(&inner, own, inside, places);
        Some(Step::If { condition: condition?, then, location })
    }

    fn condition(&mut self, directive: &Directive) -> Option<Condition> {
        let Some(pieces) = between_parentheses(&directive.args) else {
            let error = Diagnostic::error(directive.span(), format!("invalid condition \"{}\"", directive.arg(0)));
            self.report.push(error.help("a condition stands in parentheses: `if ($request_method = POST) { ... }`"));
            return None;
        };
        match pieces.as_slice() {
            [value] => Some(Condition::Value(self.variable(*value)?)),
            [test, _] if is_file_test(test.text()) => {
                let error =
                    Diagnostic::error(directive.span(), format!("the test \"{}\" is not supported", test.text()));
                self.report.push(error.help("no files are served here: use a variable, a `map` or `return`"));
                None
            }
            [left, operator, right] => {
                let left = self.variable(*left);
                self.comparison(left?, *operator, *right)
            }
            _ => {
                let error = Diagnostic::error(directive.span(), "invalid condition");
                self.report.push(
                    error.help("`($x)`, `($x = text)`, `!=`, `~`, `~*`, `!~`, `!~*`; text with spaces in quotes"),
                );
                None
            }
        }
    }

    fn comparison(&mut self, left: Template, operator: Piece<'_>, right: Piece<'_>) -> Option<Condition> {
        let (negated, name) = match operator.text().strip_prefix('!') {
            Some(name) => (true, name),
            None => (false, operator.text()),
        };
        match name {
            "=" => {
                let right = self.template_of(&right.cut(), right.offset());
                Some(Condition::Equal { left, right, negated })
            }
            "~" | "~*" => {
                let regex = self.regex(&right.cut(), right.offset(), name == "~*")?;
                Some(Condition::Match { value: left, regex, negated })
            }
            _ => {
                let error =
                    Diagnostic::error(operator.word.span, format!("unexpected \"{}\" in condition", operator.text()));
                self.report.push(error.help("one of =, !=, ~, ~*, !~, !~*"));
                None
            }
        }
    }

    /// The left side of a condition: one variable.
    fn variable(&mut self, piece: Piece<'_>) -> Option<Template> {
        let text = piece.text();
        let name = text.strip_prefix('$').map(|name| name.trim_start_matches('{').trim_end_matches('}'));
        let Some(name) = name else {
            let error = Diagnostic::error(piece.word.span, format!("invalid condition \"{text}\""));
            self.report.push(error.help("a condition begins with a variable, such as `$http_upgrade`"));
            return None;
        };
        if let [digit @ b'1'..=b'9'] = name.as_bytes() {
            return Some(Template { parts: vec![Part::Variable(Variable::Capture(digit - b'0'))] });
        }
        match template::named(name, &self.names) {
            Ok(variable) => Some(Template { parts: vec![Part::Variable(variable)] }),
            Err((message, help)) => {
                let glued = name.contains(['=', '~', '!']);
                let help = if glued { Some("spaces are missing around the operator".to_owned()) } else { help };
                self.report.push(Diagnostic::error(piece.word.span, message).maybe_help(help));
                None
            }
        }
    }
}

/// A replacement or `return` that is a redirect.
fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://") || text.starts_with("$scheme")
}

fn is_file_test(text: &str) -> bool {
    matches!(text.strip_prefix('!').unwrap_or(text), "-f" | "-d" | "-e" | "-x")
}

/// A word of a condition, without the parentheses.
#[derive(Clone, Copy)]
struct Piece<'a> {
    word: &'a Word,
    start: usize,
    end: usize,
}

impl<'a> Piece<'a> {
    fn text(&self) -> &'a str {
        self.word.text.get(self.start..self.end).unwrap_or_default()
    }

    fn offset(&self) -> usize {
        self.start
    }

    /// The word, cut at the piece's end, so that offsets into it keep their places.
    fn cut(&self) -> Word {
        let mut word = self.word.clone();
        word.text.truncate(self.end);
        word
    }
}

/// The words between the parentheses; none without them.
fn between_parentheses(words: &[Word]) -> Option<Vec<Piece<'_>>> {
    let mut pieces: Vec<_> = words.iter().map(|word| Piece { word, start: 0, end: word.text.len() }).collect();
    let first = pieces.first_mut().filter(|first| first.text().starts_with('('))?;
    first.start = 1;
    if first.start == first.end {
        pieces.remove(0);
    }
    let last = pieces.last_mut().filter(|last| last.text().ends_with(')'))?;
    last.end -= 1;
    if last.start == last.end {
        pieces.pop();
    }
    Some(pieces)
}
