//! From PCRE's dialect, which nginx files are written in, to that of the `regex` crate.
//!
//! Most expressions are the same text in both. What means something else is translated, what the crate cannot do
//! (because it promises linear time) is refused by name, so that no expression silently changes its meaning.
//! One difference stays: PCRE's `$` also matches before a final line feed, here it matches only at the end.

use std::{iter::Peekable, str::CharIndices};

/// An expression in the crate's dialect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    /// The text.
    pub(super) pattern: String,
    /// `(*UTF8)` in front: characters are code points, not bytes.
    pub(super) unicode: bool,
}

/// Translates.
///
/// # Errors
/// The construct that has no equal, as a noun phrase with its spelling.
pub(super) fn translate(source: &str) -> Result<Translated, String> {
    let (unicode, rest) = strip_utf_verbs(source);
    let mut translator = Translator { source: rest, rest: rest.char_indices().peekable(), out: String::new() };
    translator.expression()?;
    Ok(Translated { pattern: translator.out, unicode })
}

/// nginx documents `(*UTF8)` for names with national characters; `(*UTF)` is PCRE2's spelling.
fn strip_utf_verbs(source: &str) -> (bool, &str) {
    let mut rest = source;
    while let Some(tail) = ["(*UTF8)", "(*UTF)", "(*UCP)"].iter().find_map(|verb| rest.strip_prefix(verb)) {
        rest = tail;
    }
    (rest.len() < source.len(), rest)
}

struct Translator<'a> {
    source: &'a str,
    rest: Peekable<CharIndices<'a>>,
    out: String,
}

impl<'a> Translator<'a> {
    fn expression(&mut self) -> Result<(), String> {
        while let Some((at, found)) = self.rest.next() {
            match found {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group(at)?,
                '*' | '+' | '?' => {
                    self.out.push(found);
                    self.after_quantifier()?;
                }
                '{' => self.brace(at)?,
                _ => self.out.push(found),
            }
        }
        Ok(())
    }

    /// Behind a backslash, outside of a class.
    fn escape(&mut self) -> Result<(), String> {
        if let Some((_, found)) = self.rest.peek().copied() {
            let lacking = match found {
                '1'..='9' | 'k' | 'g' => "a back-reference",
                'K' => "a new start of the match",
                'G' => "the anchor at the last match",
                'Q' => "a quoted run (escape each character instead)",
                'R' => "any line break (write `(?:\\r\\n|\\n|\\r)`)",
                'X' => "a grapheme",
                'C' => "a single code unit",
                _ => return self.escaped(),
            };
            return Err(format!("{lacking}: `\\{found}`"));
        }
        self.out.push('\\');
        Ok(())
    }

    /// An escape that may also stand in a class.
    fn escaped(&mut self) -> Result<(), String> {
        let Some((_, found)) = self.rest.next() else {
            self.out.push('\\');
            return Ok(());
        };
        match found {
            // In the crate `\<` and `\>` are word boundaries; a non-ASCII character cannot be escaped at all.
            '<' | '>' => self.out.push(found),
            _ if !found.is_ascii() => self.out.push(found),
            '0' => return Err("an octal escape (write `\\x..`): `\\0`".to_owned()),
            'e' => self.out.push_str("\\x1B"),
            'Z' => self.out.push_str("\\z"),
            _ => {
                self.out.push('\\');
                self.out.push(found);
            }
        }
        Ok(())
    }

    /// Behind an opening parenthesis at `at`.
    fn group(&mut self, at: usize) -> Result<(), String> {
        let text = &self.source[at..];
        if let Some(lacking) = lacking_group(text) {
            return Err(lacking);
        }
        if text.starts_with("(?#") {
            while self.rest.next().is_some_and(|(_, found)| found != ')') {}
        } else if text.starts_with("(?'") {
            self.skip(2);
            self.out.push_str("(?<");
            while let Some((_, found)) = self.rest.next_if(|(_, found)| *found != '\'') {
                self.out.push(found);
            }
            self.skip(1);
            self.out.push('>');
        } else if text.starts_with("(?") {
            // The `?` is no quantifier.
            self.skip(1);
            self.out.push_str("(?");
        } else {
            self.out.push('(');
        }
        Ok(())
    }

    /// A `{` is a quantifier only in the forms `{n}`, `{n,}` and `{n,m}`; PCRE takes any other literally.
    fn brace(&mut self, at: usize) -> Result<(), String> {
        let Some(quantifier) = counted(&self.source[at..]) else {
            self.out.push_str("\\{");
            return Ok(());
        };
        self.out.push_str(quantifier);
        self.skip(quantifier.len() - 1);
        self.after_quantifier()
    }

    /// The crate would read `a++` as `(?:a+)+`, which matches where a possessive quantifier does not.
    fn after_quantifier(&mut self) -> Result<(), String> {
        match self.rest.peek() {
            Some((_, '+')) => Err("a possessive quantifier: `+` behind `*`, `+`, `?` or `}`".to_owned()),
            Some((_, '?')) => {
                self.skip(1);
                self.out.push('?');
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Behind the `[` of a class. The crate has nested classes and set operators in there, PCRE has not.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.rest.next_if(|(_, found)| *found == '^').is_some() {
            self.out.push('^');
        }
        if self.rest.next_if(|(_, found)| *found == ']').is_some() {
            self.out.push_str("\\]");
        }
        while let Some((at, found)) = self.rest.next() {
            match found {
                ']' => {
                    self.out.push(']');
                    return Ok(());
                }
                '[' => self.posix_class(at),
                '\\' if self.rest.next_if(|(_, found)| *found == 'b').is_some() => self.out.push_str("\\x08"),
                '\\' => self.escaped()?,
                '&' | '~' => {
                    self.out.push('\\');
                    self.out.push(found);
                }
                '-' if self.rest.peek().is_some_and(|(_, next)| *next == '-') => {
                    return Err("two `-` in a row in a class (write `\\-`)".to_owned());
                }
                _ => self.out.push(found),
            }
        }
        Ok(())
    }

    /// `[:alpha:]` inside of a class, or a literal `[`.
    fn posix_class(&mut self, at: usize) {
        let text = &self.source[at..];
        let name = text.strip_prefix("[:").and_then(|tail| tail.split_once(":]")).map(|(name, _)| name);
        match name.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'^')) {
            Some(name) => {
                let length = name.len() + 4;
                self.out.push_str(&text[..length]);
                self.skip(length - 1);
            }
            None => self.out.push_str("\\["),
        }
    }

    fn skip(&mut self, characters: usize) {
        for _ in 0..characters {
            self.rest.next();
        }
    }
}

/// The kinds of group that need backtracking or recursion.
fn lacking_group(text: &str) -> Option<String> {
    const LACKING: [(&str, &str); 15] = [
        ("(?=", "look-ahead"),
        ("(?!", "negative look-ahead"),
        ("(?<=", "look-behind"),
        ("(?<!", "negative look-behind"),
        ("(?>", "an atomic group"),
        ("(?|", "a branch reset group"),
        ("(?(", "a conditional group"),
        ("(?R", "recursion"),
        ("(?&", "recursion"),
        ("(?P>", "recursion"),
        ("(?+", "recursion"),
        ("(?P=", "a back-reference"),
        ("(?C", "a callout"),
        ("(?J", "duplicate group names"),
        ("(*", "a verb"),
    ];
    let recursion =
        |text: &str| text.strip_prefix("(?").is_some_and(|tail| tail.starts_with(|c: char| c.is_ascii_digit()));
    if recursion(text) {
        return Some(format!("recursion: `{}`", &text[..3]));
    }
    LACKING
        .iter()
        .find(|(spelling, _)| text.starts_with(spelling))
        .map(|(spelling, name)| format!("{name}: `{spelling}`"))
}

/// The counted quantifier at the front of `text`.
fn counted(text: &str) -> Option<&str> {
    let end = text.find('}')?;
    let (low, high) = match text[1..end].split_once(',') {
        Some((low, high)) => (low, high),
        None => (&text[1..end], ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (!low.is_empty() && digits(low) && digits(high)).then(|| &text[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(source: &str) -> String {
        translate(source).unwrap().pattern
    }

    #[test]
    fn ordinary_nginx_expressions_stay_as_they_are() {
        for source in [
            r"^/ws/(?<room>[a-z0-9_-]+)/?$",
            r"\.(?:gif|jpe?g|png)$",
            r"^(?P<user>.+)\.example\.com$",
            r"^/(\d{4})/(\d{2,})/(.*?)x{1,3}$",
            r"[[:alpha:]]+[^/]",
            r"(?i)chrome|(?i:edge)",
            r"a\/b\-c",
            "日本",
        ] {
            assert_eq!(pattern(source), source);
        }
    }

    #[test]
    fn what_the_crate_reads_differently_is_translated() {
        for (source, expected) in [
            (r"(?'room'\w+)", r"(?<room>\w+)"),
            (r"[a-z[]", r"[a-z\[]"),
            (r"[]a]", r"[\]a]"),
            (r"[^]a]", r"[^\]a]"),
            (r"[a&&b]", r"[a\&\&b]"),
            (r"[\b]", r"[\x08]"),
            (r"\<b\>", "<b>"),
            (r"{x}", r"\{x}"),
            (r"a{,3}", r"a\{,3}"),
            (r"a(?#why)b", "ab"),
            (r"a\Z", r"a\z"),
            (r"\é", "é"),
        ] {
            assert_eq!(pattern(source), expected, "{source}");
        }
    }

    #[test]
    fn what_needs_backtracking_is_named() {
        for (source, word) in [
            (r"^(?!/admin)", "negative look-ahead"),
            (r"(?=x)", "look-ahead"),
            (r"(?<!x)y", "negative look-behind"),
            (r"(?<=x)y", "look-behind"),
            (r"(a)\1", "back-reference"),
            (r"(?<a>x)\k<a>", "back-reference"),
            (r"a++b", "possessive"),
            (r"a{2}+", "possessive"),
            (r"(?>a)", "atomic"),
            (r"(a(?1)?)", "recursion"),
            (r"(?R)", "recursion"),
            (r"(*ANYCRLF)a", "verb"),
            (r"[a--b]", "two `-`"),
        ] {
            let error = translate(source).unwrap_err();
            assert!(error.contains(word), "{source}: {error}");
        }
    }

    #[test]
    fn a_utf_verb_in_front_asks_for_code_points() {
        assert_eq!(translate("(*UTF8)é").unwrap(), Translated { pattern: "é".to_owned(), unicode: true });
        assert!(!translate("é").unwrap().unicode);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(source in r"[\\\[\](){}?*+:<>'!=|a-z0-9#é&~-]{0,24}") {
            let _ = translate(&source);
        }
    }
}
