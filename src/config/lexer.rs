//! Words, `;`, `{` and `}`: nginx's tokens (`ngx_conf_read_token`), with their places.

use super::diagnostic::{Diagnostic, FileId, Report, Span};

/// A word, unquoted and unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its value.
    pub text: String,
    /// Where it stands, quotes included.
    pub span: Span,
    /// Written in quotes. The value of a word does not depend on it, advice may.
    pub quoted: bool,
    /// Every byte of the value stands in the file as it is: no escape was resolved.
    literal: bool,
}

impl Word {
    /// The place of a part of the value; the whole word where escapes make it unclear.
    pub fn part(&self, start: usize, end: usize) -> Span {
        if !self.literal || end > self.text.len() {
            return self.span;
        }
        let origin = self.span.start + usize::from(self.quoted);
        Span { start: origin + start, end: origin + end, ..self.span }
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A word.
    Word(Word),
    /// `;`
    Semicolon(Span),
    /// `{`
    Open(Span),
    /// `}`
    Close(Span),
}

/// Reads tokens from one text.
#[derive(Debug)]
pub struct Lexer<'a> {
    text: &'a str,
    file: FileId,
    at: usize,
    /// The file held bytes that are no UTF-8 and were replaced: harmless in comments, an error in words.
    lossy: bool,
}

impl<'a> Lexer<'a> {
    /// Begins at the front of `text`. A byte order mark is skipped: editors write it, and it says nothing.
    pub fn new(text: &'a str, file: FileId, lossy: bool) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, file, at, lossy }
    }

    /// The next token; none at the end. What is wrong with it goes to the report and reading goes on.
    pub fn next(&mut self, report: &mut Report) -> Option<Token> {
        self.skip_space_and_comments();
        let start = self.at;
        let token = match self.peek()? {
            b';' => Token::Semicolon(self.punctuation()),
            b'{' => Token::Open(self.punctuation()),
            b'}' => Token::Close(self.punctuation()),
            quote @ (b'"' | b'\'') => Token::Word(self.quoted(quote, report)),
            _ => {
                self.skip_bare();
                Token::Word(self.word(start, self.at, false))
            }
        };
        if let Token::Word(word) = &token
            && self.lossy
            && word.text.contains('\u{fffd}')
        {
            report.push(Diagnostic::error(word.span, "bytes that are not UTF-8").help("save the file as UTF-8"));
        }
        Some(token)
    }

    /// Where reading stands, as an empty span.
    pub fn end(&self) -> Span {
        Span { file: self.file, start: self.at, end: self.at }
    }

    /// Skips to behind the `}` that closes a block just opened, whatever is in it: for blocks in another language.
    pub fn skip_block(&mut self) {
        let mut depth = 1usize;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.byte(self.at)
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn skip_space_and_comments(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'#' => {
                    let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
                    self.at += memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn punctuation(&mut self) -> Span {
        self.at += 1;
        Span { file: self.file, start: self.at - 1, end: self.at }
    }

    /// A bare word ends at white space, `;` or `{`, unless escaped; the `{` of `${name}` does not end it, nor does `}`.
    fn skip_bare(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => return,
                b'\\' => self.at += 2,
                b'$' if self.byte(self.at + 1) == Some(b'{') => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at = self.at.min(self.text.len());
    }

    fn quoted(&mut self, quote: u8, report: &mut Report) -> Word {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => {
                    self.at = self.text.len();
                    let opening = Span { file: self.file, start, end: start + 1 };
                    report.push(
                        Diagnostic::error(opening, "unexpected end of file: this quote is never closed")
                            .help(format!("end the text with {}", char::from(quote))),
                    );
                    return self.word(start, self.at, true);
                }
                Some(b'\\') => self.at += 2,
                Some(byte) if byte == quote => break,
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        self.expect_space(report);
        self.word(start, self.at, true)
    }

    /// Behind a closing quote nginx wants white space, `;`, `{` or `)`.
    fn expect_space(&self, report: &mut Report) {
        let next = self.text.get(self.at..).and_then(|rest| rest.chars().next());
        if let Some(next) = next.filter(|next| !matches!(next, ' ' | '\t' | '\r' | '\n' | ';' | '{' | ')')) {
            let span = Span { file: self.file, start: self.at, end: self.at + next.len_utf8() };
            report.push(
                Diagnostic::error(span, format!("unexpected \"{next}\""))
                    .help("a space is missing behind the closing quote; quote the whole argument, or nothing of it"),
            );
        }
    }

    fn word(&self, start: usize, end: usize, quoted: bool) -> Word {
        let end = end.min(self.text.len());
        let raw = self.text.get(start..end).unwrap_or_default();
        let mut inner = raw;
        if quoted {
            let quote = raw.chars().next().unwrap_or('"');
            inner = inner.strip_prefix(quote).unwrap_or(inner);
            inner = inner.strip_suffix(quote).unwrap_or(inner);
        }
        let text = unescape(inner);
        let literal = text.len() == inner.len();
        Word { text, span: Span { file: self.file, start, end }, quoted, literal }
    }
}

/// `\"`, `\'`, `\\` lose the backslash; `\t`, `\r`, `\n` become what they name; any other backslash stays (regular expressions need it).
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            out.push(char);
            continue;
        }
        match chars.clone().next() {
            Some(escaped @ ('"' | '\'' | '\\')) => out.push(escaped),
            Some('t') => out.push('\t'),
            Some('r') => out.push('\r'),
            Some('n') => out.push('\n'),
            _ => {
                out.push('\\');
                continue;
            }
        }
        chars.next();
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lex(text: &str) -> (Vec<String>, Report) {
        let mut report = Report::default();
        let file = report.add_source("t", text.to_owned());
        let mut lexer = Lexer::new(text, file, false);
        let mut out = Vec::new();
        while let Some(token) = lexer.next(&mut report) {
            out.push(match token {
                Token::Word(word) => format!("<{}>", word.text),
                Token::Semicolon(_) => ";".into(),
                Token::Open(_) => "{".into(),
                Token::Close(_) => "}".into(),
            });
        }
        (out, report)
    }

    fn words(text: &str) -> String {
        let (words, report) = lex(text);
        assert_eq!(report.errors(), 0, "{}", report.render(false, false));
        words.concat()
    }

    #[test]
    fn words_are_split_as_nginx_splits_them() {
        assert_eq!(words("listen  80;\r\n\tserver_name a b ;"), "<listen><80>;<server_name><a><b>;");
        assert_eq!(words("a{b;}c d;"), "<a>{<b>;}<c><d>;");
        assert_eq!(words("x a#b; # a comment ; {"), "<x><a#b>;");
        assert_eq!(words("x a}b;"), "<x><a}b>;");
        assert_eq!(words("x ${name}y $z;"), "<x><${name}y><$z>;");
        assert_eq!(words("x a\\;b\\ c;"), "<x><a\\;b\\ c>;");
        assert_eq!(words("if ($a = \"b c\") {"), "<if><($a><=><b c><)>{");
        assert_eq!(words("\u{feff}user x;"), "<user><x>;");
    }

    #[test]
    fn quotes_and_escapes_are_nginx_s() {
        assert_eq!(words(r#"x "a b" 'c;{d' "";"#), "<x><a b><c;{d><>;");
        assert_eq!(words(r#"x "a\"b" 'c\'d' "e\\f" "\d+\.";"#), r#"<x><a"b><c'd><e\f><\d+\.>;"#);
        assert_eq!(words(r#"x "a\tb\nc";"#), "<x><a\tb\nc>;");
        assert_eq!(words(r#"x a"b";"#), r#"<x><a"b">;"#);
        assert_eq!(words("x '${a}{' ~^/a;"), "<x><${a}{><~^/a>;");
    }

    #[test]
    fn text_glued_to_a_quote_is_an_error() {
        assert!(lex(r#"x "a"b;"#).1.render(false, false).contains("unexpected \"b\""));
    }

    #[test]
    fn an_unclosed_quote_is_reported_where_it_opens() {
        let (_, report) = lex("x 'a;\ny b;\n");
        assert!(report.render(false, false).contains("t:1:3"));
    }

    #[test]
    fn parts_of_a_word_have_places() {
        let mut report = Report::default();
        let file = report.add_source("t", String::new());
        let Some(Token::Word(word)) = Lexer::new("'ab$c'", file, false).next(&mut report) else { panic!("a word") };
        assert_eq!(word.part(2, 4), Span { file, start: 3, end: 5 });
        let Some(Token::Word(word)) = Lexer::new(r"'a\'$c'", file, false).next(&mut report) else { panic!("a word") };
        assert_eq!(word.part(2, 4), word.span);
    }

    proptest! {
        #[test]
        fn any_text_ends_without_panic(text in "\\PC*|[a-z ;{}\"'\\\\$#\n]*") {
            lex(&text);
        }

        #[test]
        fn a_quoted_word_comes_back(text in "[ -~]*") {
            let quoted = format!("\"{}\";", text.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(words(&quoted), format!("<{}>;", text));
        }
    }
}
