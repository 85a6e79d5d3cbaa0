//! `location`: `=`, `^~`, prefix, `~`, `~*`, nested and `@named`, chosen in nginx's order.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use super::regex::{Captures, Regex};
use crate::variables::Slot;

/// Index of a location in its server.
pub type LocationId = usize;

/// How a location is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// `location = /x`
    Exact(Box<[u8]>),
    /// `location /x`; `no_regex` for `^~`.
    Prefix {
        /// The prefix.
        path: Box<[u8]>,
        /// `^~`: regular expressions are not tried when this is the longest prefix.
        no_regex: bool,
    },
    /// `location ~ x` and `~* x`.
    Regex {
        /// The expression as written.
        source: Box<str>,
        /// `~*`
        ignore_case: bool,
    },
    /// `location @x`
    Named(Box<str>),
}

/// The locations of one server, ready to look up.
#[derive(Debug, Default)]
pub struct Locations {
    top: Level,
    /// What is nested in a location.
    nested: HashMap<LocationId, Level>,
    named: HashMap<Box<str>, LocationId>,
    /// As written: what is nested is judged by it.
    patterns: HashMap<LocationId, Pattern>,
}

/// The locations of one block: of the server, or of a location.
#[derive(Debug, Default)]
struct Level {
    exact: BTreeMap<Box<[u8]>, LocationId>,
    prefixes: BTreeMap<Box<[u8]>, Prefix>,
    /// Paths without the final `/` that an automatic redirect adds.
    unslashed: BTreeMap<Box<[u8]>, LocationId>,
    /// In the order of the file.
    expressions: Vec<(Regex, LocationId)>,
}

#[derive(Debug, Clone, Copy)]
struct Prefix {
    location: LocationId,
    no_regex: bool,
}

/// A location found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub location: LocationId,
    /// `$1`... when found by a regular expression.
    pub captures: Option<Vec<Vec<u8>>>,
    /// Named captures.
    pub named: Vec<(Slot, Vec<u8>)>,
    /// nginx's automatic slash: the path lacks the final `/` of a prefix location that proxies; answer 301 with it.
    pub add_slash: bool,
}

impl Locations {
    /// Adds a location. `parent` is the location it is nested in. `auto_slash`: it has a proxy_pass, so that the
    /// request for `/x` of `location /x/` is answered 301. Of two locations `@x` the first stays, as in nginx.
    ///
    /// # Errors
    /// A duplicate, a regular expression that does not compile, a nesting nginx refuses.
    pub fn insert(
        &mut self,
        id: LocationId,
        pattern: Pattern,
        parent: Option<LocationId>,
        auto_slash: bool,
        slot_of: &mut dyn FnMut(&str) -> Slot,
    ) -> Result<(), String> {
        if let Some(parent) = parent.and_then(|parent| self.patterns.get(&parent)) {
            nestable(&pattern, parent)?;
            if never_searched(&pattern, parent) {
                self.patterns.insert(id, pattern);
                return Ok(());
            }
        }
        let level = match parent {
            Some(parent) => self.nested.entry(parent).or_default(),
            None => &mut self.top,
        };
        match &pattern {
            Pattern::Exact(path) => {
                vacant(&level.exact, path)?;
                level.exact.insert(path.clone(), id);
                level.redirect(path, id, auto_slash);
            }
            Pattern::Prefix { path, no_regex } => {
                vacant(&level.prefixes, path)?;
                level.prefixes.insert(path.clone(), Prefix { location: id, no_regex: *no_regex });
                level.redirect(path, id, auto_slash);
            }
            Pattern::Regex { source, ignore_case } => {
                level.expressions.push((Regex::new(source, *ignore_case, slot_of)?, id));
            }
            Pattern::Named(name) => {
                self.named.entry(bare(name).into()).or_insert(id);
            }
        }
        self.patterns.insert(id, pattern);
        Ok(())
    }

    /// nginx's search for a normalised path (ngx_http_core_find_location).
    pub fn find(&self, path: &[u8]) -> Option<Found> {
        let mut search =
            Search { locations: self, path, location: None, captures: None, named: Vec::new(), add_slash: false };
        search.level(&self.top);
        let Search { location, captures, named, add_slash, .. } = search;
        location.map(|location| Found { location, captures, named, add_slash })
    }

    /// The location `@name`; the name with or without its `@`.
    pub fn named(&self, name: &str) -> Option<LocationId> {
        self.named.get(bare(name)).copied()
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix('@').unwrap_or(name)
}

/// Whether nginx allows a location in another.
fn nestable(pattern: &Pattern, parent: &Pattern) -> Result<(), String> {
    let (name, outer) = (pattern.name(), parent.name());
    match (pattern, parent) {
        (_, Pattern::Exact(_)) => Err(format!("location \"{name}\" cannot be inside the exact location \"{outer}\"")),
        (_, Pattern::Named(_)) => Err(format!("location \"{name}\" cannot be inside the named location \"{outer}\"")),
        (Pattern::Named(_), _) => Err(format!("named location \"{name}\" can be on the server level only")),
        // In a regular expression's location nginx compares with its source, as far as that is a path at all.
        (Pattern::Exact(_) | Pattern::Prefix { .. }, _) if !name.starts_with(&*outer) => {
            Err(format!("location \"{name}\" is outside location \"{outer}\""))
        }
        _ => Ok(()),
    }
}

/// nginx makes a tree of the paths of the server and of those nested in paths, but none of the paths nested in a regular
/// expression's location: it accepts them, and they never match.
pub fn never_searched(pattern: &Pattern, parent: &Pattern) -> bool {
    matches!(pattern, Pattern::Exact(_) | Pattern::Prefix { .. }) && matches!(parent, Pattern::Regex { .. })
}

fn vacant<T>(locations: &BTreeMap<Box<[u8]>, T>, path: &[u8]) -> Result<(), String> {
    match locations.contains_key(path) {
        true => Err(format!("duplicate location \"{}\"", String::from_utf8_lossy(path))),
        false => Ok(()),
    }
}

impl Pattern {
    fn name(&self) -> String {
        match self {
            Pattern::Exact(path) | Pattern::Prefix { path, .. } => String::from_utf8_lossy(path).into_owned(),
            Pattern::Regex { source, .. } => source.to_string(),
            Pattern::Named(name) => format!("@{}", bare(name)),
        }
    }
}

/// What the paths of a level say, before its regular expressions.
enum Fixed {
    /// `=`, or nothing more can match.
    Final(LocationId),
    /// Only the final slash is missing.
    Unslashed(LocationId),
    Longest(Prefix),
    Nothing,
}

impl Level {
    fn redirect(&mut self, path: &[u8], id: LocationId, wanted: bool) {
        if let Some(unslashed) = path.strip_suffix(b"/").filter(|_| wanted) {
            self.unslashed.entry(unslashed.into()).or_insert(id);
        }
    }

    fn fixed(&self, path: &[u8]) -> Fixed {
        if let Some(location) = self.exact.get(path) {
            return Fixed::Final(*location);
        }
        let longest = self.longest_prefix(path);
        let whole = longest.is_some_and(|(prefix, _)| prefix.len() == path.len());
        if let Some(location) = self.unslashed.get(path).filter(|_| !whole) {
            return Fixed::Unslashed(*location);
        }
        longest.map_or(Fixed::Nothing, |(_, prefix)| Fixed::Longest(prefix))
    }

    /// Every prefix of a text sorts before it. So the greatest entry not behind the text is its longest prefix, or else
    /// shares with it only a part that is shorter than both: what can still match is a prefix of that part.
    fn longest_prefix(&self, path: &[u8]) -> Option<(&[u8], Prefix)> {
        let mut wanted = path;
        loop {
            let up_to_wanted = (Bound::Unbounded, Bound::Included(wanted));
            let (found, prefix) = self.prefixes.range::<[u8], _>(up_to_wanted).next_back()?;
            let common = wanted.iter().zip(found).take_while(|(one, other)| one == other).count();
            if common == found.len() {
                return Some((found, *prefix));
            }
            wanted = wanted.get(..common)?;
        }
    }
}

/// One search, level by level.
struct Search<'a> {
    locations: &'a Locations,
    path: &'a [u8],
    location: Option<LocationId>,
    captures: Option<Vec<Vec<u8>>>,
    named: Vec<(Slot, Vec<u8>)>,
    add_slash: bool,
}

impl Search<'_> {
    /// True when the choice is final: no regular expression of the levels around may replace it.
    fn level(&mut self, level: &Level) -> bool {
        let mut no_regex = false;
        match level.fixed(self.path) {
            Fixed::Final(location) => {
                self.location = Some(location);
                return true;
            }
            Fixed::Unslashed(location) => {
                self.location = Some(location);
                self.add_slash = true;
                return true;
            }
            Fixed::Longest(prefix) => {
                no_regex = prefix.no_regex;
                if self.enter(prefix.location) {
                    return true;
                }
            }
            Fixed::Nothing => {}
        }
        !no_regex && self.expressions(level)
    }

    /// Takes a location and looks at what is nested in it.
    fn enter(&mut self, location: LocationId) -> bool {
        self.location = Some(location);
        let locations = self.locations;
        locations.nested.get(&location).is_some_and(|level| self.level(level))
    }

    fn expressions(&mut self, level: &Level) -> bool {
        let path = self.path;
        let found = level.expressions.iter().find_map(|(regex, location)| Some((regex.captures(path)?, *location)));
        let Some((Captures { numbered, named }, location)) = found else { return false };
        self.captures = Some(numbered);
        self.named.extend(named);
        self.enter(location);
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pattern in nginx's words.
    pub(in crate::route) fn pattern(text: &str) -> Pattern {
        match text.split_once(' ') {
            Some(("=", path)) => Pattern::Exact(path.as_bytes().into()),
            Some(("^~", path)) => Pattern::Prefix { path: path.as_bytes().into(), no_regex: true },
            Some(("~", source)) => Pattern::Regex { source: source.into(), ignore_case: false },
            Some(("~*", source)) => Pattern::Regex { source: source.into(), ignore_case: true },
            _ if text.starts_with('@') => Pattern::Named(text.into()),
            _ => Pattern::Prefix { path: text.as_bytes().into(), no_regex: false },
        }
    }

    fn add(locations: &mut Locations, id: LocationId, text: &str, parent: Option<LocationId>) -> Result<(), String> {
        locations.insert(id, pattern(text), parent, true, &mut |_| 0)
    }

    /// Locations, each with its index.
    fn locations(list: &[(&str, Option<LocationId>)]) -> Locations {
        let mut locations = Locations::default();
        for (id, (text, parent)) in list.iter().enumerate() {
            add(&mut locations, id, text, *parent).unwrap();
        }
        locations
    }

    fn find(locations: &Locations, path: &str) -> Option<LocationId> {
        locations.find(path.as_bytes()).map(|found| found.location)
    }

    #[test]
    fn the_example_of_the_documentation() {
        let locations = locations(&[
            ("= /", None),
            ("/", None),
            ("/documents/", None),
            ("^~ /images/", None),
            ("~* \\.(gif|jpg|jpeg)$", None),
        ]);
        for (path, expected) in [
            ("/", 0),
            ("/index.html", 1),
            ("/documents/document.html", 2),
            ("/images/1.gif", 3),
            ("/documents/1.jpg", 4),
        ] {
            assert_eq!(find(&locations, path), Some(expected), "{path}");
        }
    }

    #[test]
    fn a_prefix_is_text_and_not_a_path() {
        let locations = locations(&[("/wss", None)]);
        assert_eq!(find(&locations, "/wssfoo"), Some(0));
        assert_eq!(find(&locations, "/ws"), None);
    }

    #[test]
    fn the_longest_prefix_wins_past_neighbours_that_only_begin_alike() {
        let locations =
            locations(&[("/a", None), ("/a/b/c/d", None), ("/a/b", None), ("/a/b/cx", None), ("/a-", None)]);
        for (path, expected) in
            [("/a/b/c/e", 2), ("/a/b/cw", 2), ("/a/b/cxy", 3), ("/a0", 0), ("/a-0", 4), ("/a/b/c/d", 1)]
        {
            assert_eq!(find(&locations, path), Some(expected), "{path}");
        }
    }

    #[test]
    fn a_missing_final_slash_is_a_redirect_before_any_regex() {
        let locations = locations(&[("/ws/", None), ("~ ^/ws", None), ("/", None)]);
        let found = locations.find(b"/ws").unwrap();
        assert!(found.add_slash);
        assert_eq!(found.location, 0);
        assert!(!locations.find(b"/ws/").unwrap().add_slash);
        assert!(!locations.find(b"/w").unwrap().add_slash);
    }

    #[test]
    fn a_location_of_the_path_without_slash_replaces_the_redirect() {
        for other in ["/ws", "= /ws", "^~ /ws"] {
            let locations = locations(&[("/ws/", None), (other, None)]);
            let found = locations.find(b"/ws").unwrap();
            assert_eq!((found.location, found.add_slash), (1, false), "{other}");
        }
    }

    #[test]
    fn a_location_without_proxy_pass_redirects_nothing() {
        let mut locations = Locations::default();
        locations.insert(0, pattern("/ws/"), None, false, &mut |_| 0).unwrap();
        assert_eq!(locations.find(b"/ws"), None);
    }

    #[test]
    fn nested_locations_are_searched_with_their_own_expressions_first() {
        let locations = locations(&[
            ("/a/", None),
            ("/a/b/", Some(0)),
            ("~ \\.x$", Some(0)),
            ("~ \\.x$", None),
            ("~ \\.y$", None),
            ("^~ /c/", None),
            ("/c/d", Some(5)),
            ("~ e(.)", Some(4)),
        ]);
        assert_eq!(find(&locations, "/a/b/1"), Some(1));
        assert_eq!(find(&locations, "/a/b/1.x"), Some(2));
        assert_eq!(find(&locations, "/a/b/1.y"), Some(4));
        assert_eq!(find(&locations, "/1.x"), Some(3));
        assert_eq!(find(&locations, "/c/d.y"), Some(6));
        let found = locations.find(b"/ef.y").unwrap();
        assert_eq!((found.location, found.captures), (7, Some(vec![b"f".to_vec()])));
    }

    #[test]
    fn paths_nested_in_an_expression_never_match_but_expressions_do() {
        let locations =
            locations(&[("~ /b", None), ("= /b", Some(0)), ("/b/", Some(0)), ("~ x", Some(0)), ("~ y", Some(2))]);
        assert_eq!(find(&locations, "/b"), Some(0));
        assert_eq!(find(&locations, "/b/1"), Some(0));
        assert_eq!(find(&locations, "/b/y"), Some(0));
        assert_eq!(find(&locations, "/b/x"), Some(3));
    }

    #[test]
    fn captures_come_by_number_and_name() {
        let mut locations = Locations::default();
        locations.insert(0, pattern("~ ^/r/(?<room>\\w+)/(\\d+)"), None, false, &mut |_| 3).unwrap();
        let found = locations.find(b"/r/blue/7").unwrap();
        assert_eq!(found.captures, Some(vec![b"blue".to_vec(), b"7".to_vec()]));
        assert_eq!(found.named, [(3, b"blue".to_vec())]);
    }

    #[test]
    fn named_locations_are_found_by_name_only() {
        let locations = locations(&[("@fallback", None)]);
        assert_eq!(locations.named("@fallback"), Some(0));
        assert_eq!(locations.named("fallback"), Some(0));
        assert_eq!(locations.named("@other"), None);
        assert_eq!(find(&locations, "@fallback"), None);
    }

    #[test]
    fn what_nginx_refuses_is_refused() {
        let mut locations =
            locations(&[("/a", None), ("= /b", None), ("~ /c", None), ("@d", None), ("/c/x", Some(2)), ("= /a", None)]);
        for (text, parent, words) in [
            ("/a", None, "duplicate location \"/a\""),
            ("^~ /a", None, "duplicate"),
            ("= /b", None, "duplicate"),
            ("~ (", None, "unclosed group"),
            ("/b/c", Some(1), "cannot be inside the exact location \"/b\""),
            ("/d", Some(3), "cannot be inside the named location \"@d\""),
            ("@e", Some(0), "can be on the server level only"),
            ("/b", Some(0), "\"/b\" is outside location \"/a\""),
            ("/d", Some(2), "is outside location \"/c\""),
        ] {
            let error = add(&mut locations, 99, text, parent).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert_eq!(add(&mut locations, 99, "~ x", Some(0)), Ok(()));
    }

    proptest! {
        /// The tables against the definition: compare with every prefix.
        #[test]
        fn the_longest_prefix_is_the_longest_of_all(
            paths in prop::collection::btree_set("/[ab/]{0,5}", 0..12),
            path in "/[ab/]{0,7}",
        ) {
            let mut locations = Locations::default();
            for (id, path) in paths.iter().enumerate() {
                locations.insert(id, pattern(path), None, false, &mut |_| 0).unwrap();
            }
            let expected = paths.iter().enumerate().filter(|(_, prefix)| path.starts_with(prefix.as_str()))
                .max_by_key(|(_, prefix)| prefix.len()).map(|(id, _)| id);
            prop_assert_eq!(find(&locations, &path), expected);
        }
    }
}
