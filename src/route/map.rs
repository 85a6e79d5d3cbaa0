//! `map`: a value chosen by a value; exact, `hostnames` wildcards, regular expressions, `default`.

use std::borrow::Cow;

use super::{
    hostnames::{Hostnames, Invalid},
    regex::Regex,
};
use crate::variables::{Slot, Template};

/// One `map` block.
#[derive(Debug, Default)]
pub struct Map {
    /// The variable's name, without `$`.
    pub name: Box<str>,
    /// The text that is looked up.
    pub source: Template,
    /// `volatile`: computed at every use.
    pub volatile: bool,
    hostnames: bool,
    /// Keys, in lower case, and the index of their value. Wildcards are among them only with `hostnames`.
    keys: Hostnames<usize>,
    /// In the order of the file.
    expressions: Vec<(Regex, usize)>,
    default: Option<usize>,
    values: Vec<Template>,
}

/// A map's answer.
#[derive(Debug)]
pub struct MapValue<'a> {
    /// The value; may contain variables.
    pub value: &'a Template,
    /// Captures when a regular expression with captures matched.
    pub captures: Option<Vec<Vec<u8>>>,
    /// Named captures.
    pub named: Vec<(Slot, Vec<u8>)>,
}

impl Map {
    /// A map without entries.
    pub fn new(name: &str, source: Template, hostnames: bool, volatile: bool) -> Self {
        Self { name: name.into(), source, hostnames, volatile, ..Self::default() }
    }

    /// Every text it is made of: what is looked up, and the values.
    pub fn texts(&self) -> impl Iterator<Item = &Template> {
        std::iter::once(&self.source).chain(&self.values)
    }

    /// Adds a line: `key` as written after unquoting (`default`, `\default`, `~re`, `~*re`, text; `*.x`, `.x`, `x.*` with `hostnames`).
    ///
    /// # Errors
    /// A duplicate, or an expression that does not compile.
    pub fn insert(&mut self, key: &str, value: Template, slot_of: &mut dyn FnMut(&str) -> Slot) -> Result<(), String> {
        let index = self.values.len();
        if key == "default" {
            if self.default.replace(index).is_some() {
                return Err("duplicate default map parameter".to_owned());
            }
        } else if let Some(source) = key.strip_prefix('~') {
            let caseless = source.strip_prefix('*');
            let regex = Regex::new(caseless.unwrap_or(source), caseless.is_some(), slot_of)?;
            self.expressions.push((regex, index));
        } else {
            let key = key.strip_prefix('\\').unwrap_or(key);
            if !self.insert_key(&key.to_ascii_lowercase(), index)? {
                return Err(format!("conflicting parameter \"{key}\""));
            }
        }
        self.values.push(value);
        Ok(())
    }

    fn insert_key(&mut self, key: &str, index: usize) -> Result<bool, String> {
        if !self.hostnames {
            return Ok(self.keys.insert_exact(key.as_bytes(), index));
        }
        self.keys.insert(key.as_bytes(), index).map_err(|Invalid| format!("invalid hostname or wildcard \"{key}\""))
    }

    /// The value for a key (case-insensitive, as nginx). None: nothing matched and no default: empty.
    pub fn find(&self, key: &[u8]) -> Option<MapValue<'_>> {
        // A fully qualified name may end in a dot.
        let key = if self.hostnames { key.strip_suffix(b".").unwrap_or(key) } else { key };
        let lower = match key.iter().any(u8::is_ascii_uppercase) {
            true => Cow::Owned(key.to_ascii_lowercase()),
            false => Cow::Borrowed(key),
        };
        if let Some(index) = self.keys.find(&lower) {
            return self.value(index, None);
        }
        // nginx does not try expressions on the empty text.
        let mut expressions = self.expressions.iter().filter(|_| !key.is_empty());
        if let Some((captures, index)) = expressions.find_map(|(regex, index)| Some((regex.captures(key)?, *index))) {
            return self.value(index, Some(captures));
        }
        self.value(self.default?, None)
    }

    fn value(&self, index: usize, captures: Option<super::regex::Captures>) -> Option<MapValue<'_>> {
        let value = self.values.get(index)?;
        let (captures, named) = captures.map_or((None, Vec::new()), |found| (Some(found.numbered), found.named));
        Some(MapValue { value, captures, named })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(hostnames: bool, lines: &[(&str, &str)]) -> Map {
        let mut map = Map::new("m", Template::default(), hostnames, false);
        for (key, value) in lines {
            map.insert(key, Template::text(*value), &mut |_| 5).unwrap();
        }
        map
    }

    fn value<'a>(map: &'a Map, key: &str) -> Option<&'a str> {
        map.find(key.as_bytes()).map(|found| str::from_utf8(found.value.constant().unwrap()).unwrap())
    }

    #[test]
    fn the_map_of_every_websocket_file() {
        let map = map(false, &[("default", "upgrade"), ("", "close")]);
        assert_eq!(value(&map, "websocket"), Some("upgrade"));
        assert_eq!(value(&map, ""), Some("close"));
    }

    #[test]
    fn keys_ignore_case_and_win_over_expressions_which_win_over_default() {
        let map = map(false, &[("~^/a", "first"), ("~*^/B", "second"), ("/ABC", "exact"), ("default", "other")]);
        for (key, expected) in
            [("/abc", "exact"), ("/aBC", "exact"), ("/ab", "first"), ("/A", "other"), ("/b", "second")]
        {
            assert_eq!(value(&map, key), Some(expected), "{key}");
        }
    }

    #[test]
    fn without_default_nothing_is_found() {
        assert_eq!(value(&map(false, &[("a", "1")]), "b"), None);
    }

    #[test]
    fn expressions_are_not_tried_on_the_empty_text() {
        assert_eq!(value(&map(false, &[("~.*", "any"), ("default", "none")]), ""), Some("none"));
    }

    #[test]
    fn a_backslash_takes_special_words_and_signs_literally() {
        let map = map(false, &[("\\default", "word"), ("\\~x", "tilde"), ("default", "other")]);
        assert_eq!(value(&map, "default"), Some("word"));
        assert_eq!(value(&map, "~x"), Some("tilde"));
    }

    #[test]
    fn wildcards_are_text_without_hostnames() {
        let plain = map(false, &[("*.example.com", "wild")]);
        assert_eq!(value(&plain, "a.example.com"), None);
        assert_eq!(value(&plain, "*.example.com"), Some("wild"));
        let hosts = map(true, &[("*.example.com", "wild"), (".example.org", "both"), ("mail.*", "mail")]);
        for (key, expected) in [("a.Example.com.", "wild"), ("example.org", "both"), ("mail.x", "mail")] {
            assert_eq!(value(&hosts, key), Some(expected), "{key}");
        }
    }

    #[test]
    fn captures_come_with_the_value() {
        let map = map(false, &[("~^/(?<room>[^/]+)/(.*)", "x")]);
        let found = map.find(b"/Blue/7").unwrap();
        assert_eq!(found.captures, Some(vec![b"Blue".to_vec(), b"7".to_vec()]));
        assert_eq!(found.named, [(5, b"Blue".to_vec())]);
    }

    #[test]
    fn duplicates_and_broken_lines_are_errors() {
        let mut map = map(true, &[("a", "1"), ("default", "2"), ("*.x", "3")]);
        for (key, words) in [
            ("A", "conflicting parameter \"A\""),
            ("default", "duplicate default"),
            ("*.x", "conflicting"),
            ("a*b", "invalid hostname"),
            ("~(", "unclosed"),
        ] {
            let error = map.insert(key, Template::default(), &mut |_| 0).unwrap_err();
            assert!(error.contains(words), "{key}: {error}");
        }
    }
}
