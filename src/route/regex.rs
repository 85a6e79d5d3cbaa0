//! The one type of regular expression: of `server_name`, `location`, `map`, `rewrite` and `if`.

use regex::bytes::RegexBuilder;

use super::pcre;
use crate::{
    limits::{REGEX_CACHE_BYTES, REGEX_PROGRAM_BYTES},
    variables::Slot,
};

/// A regular expression of nginx's (PCRE in nginx; here the `regex` crate over bytes, which never takes more than
/// linear time) and the slots of its named captures. Not anchored, as in nginx.
#[derive(Debug, Clone)]
pub struct Regex {
    compiled: regex::bytes::Regex,
    named: Box<[(usize, Slot)]>,
}

/// What a match captured.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Captures {
    /// `$1`...; a group that took no part is empty, as in nginx.
    pub numbered: Vec<Vec<u8>>,
    /// Named ones.
    pub named: Vec<(Slot, Vec<u8>)>,
}

impl Regex {
    /// Compiles. Used by server_name, location and map as well.
    ///
    /// # Errors
    /// Why not, naming look-around and back-references, which PCRE has and this engine has not.
    pub fn new(source: &str, ignore_case: bool, slot_of: &mut dyn FnMut(&str) -> Slot) -> Result<Self, String> {
        let translated = pcre::translate(source).map_err(|construct| {
            format!("\"{source}\" has {construct}; PCRE knows this, but expressions here run in linear time and do not")
        })?;
        let compiled = RegexBuilder::new(&translated.pattern)
            .unicode(translated.unicode)
            .case_insensitive(ignore_case)
            .size_limit(REGEX_PROGRAM_BYTES)
            .dfa_size_limit(REGEX_CACHE_BYTES)
            .build()
            .map_err(|error| format!("\"{source}\": {}", reason(&error)))?;
        let named =
            compiled.capture_names().enumerate().filter_map(|(group, name)| Some((group, slot_of(name?)))).collect();
        Ok(Self { compiled, named })
    }

    /// True when `text` has a match.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }

    /// Searches `text`; none when it does not match.
    pub fn captures(&self, text: &[u8]) -> Option<Captures> {
        if self.compiled.captures_len() == 1 {
            return self.is_match(text).then(Captures::default);
        }
        let found = self.compiled.captures(text)?;
        let bytes = |group: usize| found.get(group).map_or_else(Vec::new, |group| group.as_bytes().to_vec());
        Some(Captures {
            numbered: (1..found.len()).map(bytes).collect(),
            named: self.named.iter().map(|(group, slot)| (*slot, bytes(*group))).collect(),
        })
    }
}

/// The crate's error in one line: its own has the expression and an underline in front.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => format!("the expression needs more than {limit} bytes once compiled"),
        _ => {
            let text = error.to_string();
            text.lines().last().map_or_else(String::new, |line| line.trim_start_matches("error: ").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(source: &str) -> Regex {
        Regex::new(source, false, &mut |_| 0).unwrap()
    }

    #[test]
    fn expressions_are_not_anchored() {
        assert!(regex("ws").is_match(b"/news"));
        assert!(!regex("^ws").is_match(b"/news"));
    }

    #[test]
    fn captures_are_numbered_and_named_and_empty_where_a_group_took_no_part() {
        let mut names = Vec::new();
        let regex = Regex::new(r"^/(?<room>\w+)(/x)?(?:y)*(z)?$", false, &mut |name| {
            names.push(name.to_owned());
            7
        })
        .unwrap();
        assert_eq!(names, ["room"]);
        let captures = regex.captures(b"/blue").unwrap();
        assert_eq!(captures.numbered, [b"blue".to_vec(), Vec::new(), Vec::new()]);
        assert_eq!(captures.named, [(7, b"blue".to_vec())]);
        assert_eq!(regex.captures(b"blue"), None);
    }

    #[test]
    fn an_expression_without_groups_captures_nothing() {
        assert_eq!(regex("^/a").captures(b"/a"), Some(Captures::default()));
    }

    #[test]
    fn bytes_that_are_no_utf8_match_as_bytes() {
        assert!(regex("^/.x$").is_match(b"/\xffx"));
        assert!(!regex("(*UTF8)^/.x$").is_match(b"/\xffx"));
        assert!(regex("(*UTF8)^/.x$").is_match("/éx".as_bytes()));
    }

    #[test]
    fn case_is_ignored_on_request() {
        assert!(Regex::new("^/WS", true, &mut |_| 0).unwrap().is_match(b"/ws"));
    }

    #[test]
    fn errors_are_one_line_and_name_the_cause() {
        let error = |source: &str| Regex::new(source, false, &mut |_| 0).unwrap_err();
        assert!(error("(?!x)").contains("negative look-ahead"));
        assert_eq!(error("(a"), "\"(a\": unclosed group");
        assert!(error("(?:a{1000}){1000}").contains("once compiled"));
        assert!(!error("[z-a]").contains('\n'));
    }
}
