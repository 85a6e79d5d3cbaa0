//! Directives and blocks: what the tokens of one text mean before any directive is known.

use super::{
    diagnostic::{Diagnostic, FileId, Report, Span},
    lexer::{Lexer, Token, Word},
};
use crate::limits::BLOCK_DEPTH;

/// A directive, with its block if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Its name.
    pub name: Word,
    /// Its arguments.
    pub args: Vec<Word>,
    /// `{ ... }`
    pub block: Option<Vec<Directive>>,
    /// The byte behind its last word: `;` or `{`.
    pub end: Span,
}

impl Directive {
    /// From its name to its last argument.
    pub fn span(&self) -> Span {
        self.args.last().map_or(self.name.span, |last| self.name.span.to(last.span))
    }

    /// An argument's text; empty where there is none.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", |word| &word.text)
    }

    /// An argument's place; the name's where there is none.
    pub fn arg_span(&self, index: usize) -> Span {
        self.args.get(index).map_or(self.name.span, |word| word.span)
    }

    /// True for this name.
    pub fn is(&self, name: &str) -> bool {
        self.name.text == name
    }

    /// The directives in its block.
    pub fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// Parses one text. Errors go to the report; what can be understood of the rest comes back, so that all errors are found in one run.
pub fn parse(file: FileId, text: &str, lossy: bool, report: &mut Report) -> Vec<Directive> {
    let mut parser = Parser { lexer: Lexer::new(text, file, lossy), report, open: Vec::new() };
    parser.block()
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    report: &'a mut Report,
    /// Headers of the blocks that are open.
    open: Vec<Span>,
}

impl Parser<'_> {
    /// Directives up to the `}` of the block that is open, or the end of the text.
    fn block(&mut self) -> Vec<Directive> {
        let mut directives = Vec::new();
        let mut words = Vec::new();
        loop {
            match self.lexer.next(self.report) {
                Some(Token::Word(word)) => words.push(word),
                Some(Token::Semicolon(end)) => match take(&mut words) {
                    Some((name, args)) => directives.push(Directive { name, args, block: None, end }),
                    None => self.report.push(Diagnostic::error(end, "unexpected \";\"")),
                },
                Some(Token::Open(end)) => directives.extend(self.open(&mut words, end)),
                Some(Token::Close(end)) => {
                    directives.extend(self.unterminated(&mut words, end));
                    if !self.open.is_empty() {
                        return directives;
                    }
                    self.report.push(
                        Diagnostic::error(end, "unexpected \"}\"")
                            .help("no block is open here: is there one \"}\" too many?"),
                    );
                }
                None => {
                    directives.extend(self.end_of_file(&mut words));
                    return directives;
                }
            }
        }
    }

    /// A `{` behind `words`.
    fn open(&mut self, words: &mut Vec<Word>, end: Span) -> Option<Directive> {
        let header = words.first().map_or(end, |name| name.span.to(words.last().map_or(end, |last| last.span)));
        if self.open.len() >= BLOCK_DEPTH {
            self.report.push(Diagnostic::error(end, format!("blocks are nested deeper than {BLOCK_DEPTH}")));
            self.lexer.skip_block();
            words.clear();
            return None;
        }
        let Some((name, args)) = take(words) else {
            self.report
                .push(Diagnostic::error(end, "unexpected \"{\"").help("a block has a name in front, such as `server`"));
            self.inner(header);
            return None;
        };
        // Lua's blocks would be read as hundreds of strange directives.
        if name.text.ends_with("_by_lua_block") {
            self.lexer.skip_block();
            return Some(Directive { name, args, block: Some(Vec::new()), end });
        }
        let block = Some(self.inner(header));
        Some(Directive { name, args, block, end })
    }

    fn inner(&mut self, header: Span) -> Vec<Directive> {
        self.open.push(header);
        let directives = self.block();
        self.open.pop();
        directives
    }

    /// Words in front of a `}`: a `;` is missing.
    fn unterminated(&mut self, words: &mut Vec<Word>, close: Span) -> Option<Directive> {
        let last = words.last()?.span;
        let (name, args) = take(words)?;
        self.report.push(
            Diagnostic::error(close, "unexpected \"}\"")
                .related(last, "a \";\" is missing behind this")
                .help(format!("end the directive `{}` with \";\"", name.text)),
        );
        Some(Directive { name, args, block: None, end: close })
    }

    fn end_of_file(&mut self, words: &mut Vec<Word>) -> Option<Directive> {
        let end = self.lexer.end();
        let last = words.last().map(|word| word.span);
        let directive = take(words).map(|(name, args)| Directive { name, args, block: None, end });
        if let Some(last) = last {
            let message = "unexpected end of file, expecting \";\" or \"}\"";
            self.report.push(Diagnostic::error(last, message).label("a \";\" is missing behind this"));
        } else if let Some(open) = self.open.last() {
            let message = "unexpected end of file, expecting \"}\"";
            self.report.push(Diagnostic::error(*open, message).label("this block is never closed"));
        }
        directive
    }
}

fn take(words: &mut Vec<Word>) -> Option<(Word, Vec<Word>)> {
    let mut words = std::mem::take(words).into_iter();
    let name = words.next()?;
    Some((name, words.collect()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(directives: &[Directive]) -> String {
        directives
            .iter()
            .map(|directive| {
                let words = std::iter::once(&directive.name).chain(&directive.args);
                let words = words.map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
                match &directive.block {
                    Some(block) => format!("{words}{{{}}}", show(block)),
                    None => format!("{words};"),
                }
            })
            .collect()
    }

    fn read(text: &str) -> (String, Report) {
        let mut report = Report::default();
        let file = report.add_source("t", text.to_owned());
        let tree = parse(file, text, false, &mut report);
        (show(&tree), report)
    }

    #[test]
    fn directives_and_blocks_nest() {
        let (tree, report) = read("a 1; b x { c; d { e 2 3; } } f {}");
        assert_eq!(tree, "a 1;b x{c;d{e 2 3;}}f{}");
        assert_eq!(report.errors(), 0);
    }

    #[test]
    fn every_broken_place_is_reported_and_the_rest_is_read() {
        let (tree, report) = read("a { b 1 } ; c 2; } { d; } e {\n f 3;\n g");
        assert_eq!(tree, "a{b 1;}c 2;e{f 3;g;}");
        let text = report.render(false, false);
        assert_eq!(report.errors(), 5, "{text}");
        assert!(text.contains("end the directive `b` with \";\""), "{text}");
        assert!(text.contains("expecting \";\" or \"}\""), "{text}");
    }

    #[test]
    fn an_open_block_is_reported_at_its_head() {
        let text = read("http {\n server {\n listen 80;\n}\n").1.render(false, false);
        assert!(text.contains("t:1:1") && text.contains("never closed"), "{text}");
    }

    #[test]
    fn nesting_has_an_end() {
        let (_, report) = read(&"a {".repeat(100_000));
        assert!(report.render(false, false).contains("nested deeper"));
    }

    #[test]
    fn lua_is_skipped_whole() {
        let (tree, report) = read("content_by_lua_block { local t = { \"it's\" == a; } } b 1;");
        assert!(tree.starts_with("content_by_lua_block"), "{tree}");
        assert_eq!(report.errors(), 0, "{tree}");
    }

    proptest! {
        #[test]
        fn any_text_ends_without_panic(text in "[a-z ;{}\"'\\\\$#\n]*") {
            read(&text).1.render(false, true);
        }
    }
}
