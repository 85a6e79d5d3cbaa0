//! `location` blocks, and the nameless locations that `if` blocks with settings of their own are.

use std::sync::Arc;

use super::{
    super::{
        Content, Fallback, Location,
        diagnostic::{Diagnostic, Span},
        values,
    },
    Build, Directive, Level, Word,
    proxy::{Passed, Replaces, regex_of},
};
use crate::route::location::{LocationId, Locations, Pattern};

/// The locations of a server while it is built.
#[derive(Default)]
pub struct Places {
    /// To look up.
    pub routes: Locations,
    /// By id.
    pub locations: Vec<Location>,
    /// A `location /` is among them.
    pub has_root: bool,
}

/// The location a script stands in: where its `if` blocks have their content from.
#[derive(Clone, Copy)]
pub struct Enclosing<'a> {
    name: &'a str,
    internal: bool,
    proxy_pass: Option<&'a Directive>,
    replaces: Replaces<'a>,
    try_files: Option<&'a Directive>,
    eyes: Option<&'a Directive>,
}

impl<'a> Enclosing<'a> {
    /// Within an `if` of it; unlike nested locations, they inherit where the answer comes from.
    pub fn inside_if(self, own: &'a [Directive]) -> Self {
        match own.iter().find(|directive| directive.is("proxy_pass")) {
            Some(own) => {
                Self { proxy_pass: Some(own), replaces: Replaces::Nothing, try_files: None, eyes: None, ..self }
            }
            None => self,
        }
    }
}

/// Directives whose location tells of the program itself.
const EYES: [&str; 3] = ["status", "metrics", "stub_status"];

/// The first of [`EYES`] in a block.
pub fn eyes(block: &[Directive]) -> Option<&Directive> {
    block.iter().find(|directive| EYES.iter().any(|name| directive.is(name)))
}

impl Build<'_> {
    /// The locations in a block.
    pub(super) fn locations(
        &mut self,
        outer: &Level<'_>,
        directives: &[Directive],
        parent: Option<LocationId>,
        places: &mut Places,
    ) {
        for directive in directives.iter().filter(|directive| directive.is("location")) {
            self.location(outer, directive, parent, places);
        }
    }

    fn location(&mut self, outer: &Level<'_>, directive: &Directive, parent: Option<LocationId>, places: &mut Places) {
        let Some(pattern) = self.pattern(directive) else { return };
        let own = directive.children();
        let level = outer.inner(own);
        let name = directive.args.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let path = prefix_of(&pattern);
        let find = |name: &str| own.iter().find(|child| child.is(name));
        let enclosing = Enclosing {
            name: &name,
            internal: find("internal").is_some(),
            proxy_pass: find("proxy_pass"),
            replaces: path.map_or(Replaces::Nothing, Replaces::Prefix),
            try_files: find("try_files"),
            eyes: eyes(own),
        };
        self.one_content(own);
        let id = self.place(&level, enclosing, places);
        let auto_slash = enclosing.proxy_pass.is_some() && path.is_some_and(|path| path.ends_with('/'));
        places.has_root |= parent.is_none() && matches!(&pattern, Pattern::Prefix { path, .. } if **path == *b"/");
        self.route(places, id, pattern.clone(), parent, auto_slash, directive.span());
        let script = self.script(&level, own, Some(enclosing), places);
        if let Some(location) = places.locations.get_mut(id) {
            location.script = script;
        }
        self.locations(&level, own, Some(id), places);
    }

    /// Adds a location to the ones that are looked up.
    pub(super) fn route(
        &mut self,
        places: &mut Places,
        id: LocationId,
        pattern: Pattern,
        parent: Option<LocationId>,
        auto_slash: bool,
        span: Span,
    ) {
        let names = &mut self.names;
        if let Err(why) = places.routes.insert(id, pattern, parent, auto_slash, &mut |name| names.slot(name)) {
            self.error(span, why);
        }
    }

    /// The nameless location of an `if` block.
    pub(super) fn if_location(
        &mut self,
        level: &Level<'_>,
        directive: &Directive,
        enclosing: Enclosing<'_>,
        places: &mut Places,
    ) -> LocationId {
        let name = format!("{} (if, line {})", enclosing.name, self.report.line(directive.name.span));
        self.place(level, Enclosing { name: &name, ..enclosing }, places)
    }

    /// A location without its script.
    fn place(&mut self, level: &Level<'_>, enclosing: Enclosing<'_>, places: &mut Places) -> LocationId {
        let passed = enclosing.proxy_pass.and_then(|directive| self.proxy_pass(directive, enclosing.replaces));
        let default_redirect = passed.as_ref().and_then(|passed| passed.default_redirect.clone());
        let content = match (enclosing.try_files, passed, enclosing.eyes) {
            (Some(try_files), ..) => Content::Fallback(self.try_files(try_files)),
            (None, Some(Passed { pass, .. }), _) => Content::Proxy(pass),
            (None, None, Some(eyes)) => self.content_of_eyes(level, eyes),
            (None, None, None) => Content::NotFound,
        };
        let settings = Arc::new(self.settings(level, default_redirect.as_ref()));
        let script = Default::default();
        let internal = enclosing.internal;
        places.locations.push(Location { name: enclosing.name.into(), internal, script, content, settings });
        places.locations.len() - 1
    }

    /// What `status`, `metrics` or `stub_status` answers with.
    pub(super) fn content_of_eyes(&mut self, level: &Level<'_>, eyes: &Directive) -> Content {
        match eyes.name.text.as_str() {
            "status" => Content::Status { admin: self.value(level, "status_admin", &values::FLAG) },
            "metrics" => Content::Metrics,
            _ => Content::StubStatus,
        }
    }

    /// A request has one answer: nginx takes the last of these directives, silently.
    fn one_content(&mut self, own: &[Directive]) {
        let is_content =
            |directive: &&Directive| directive.is("proxy_pass") || EYES.iter().any(|name| directive.is(name));
        let mut contents = own.iter().filter(is_content);
        let first = contents.next();
        for other in contents.filter(|other| !first.is_some_and(|first| first.is(&other.name.text))) {
            let name = first.map_or("", |first| first.name.text.as_str());
            let message = format!("`{}` and `{name}` cannot both answer the requests of one location", other.name.text);
            let error = Diagnostic::error(other.span(), message);
            self.report.push(error.help("give it a location of its own"));
        }
    }

    /// `try_files`: none of the files is there, so it is the last argument.
    pub(super) fn try_files(&mut self, directive: &Directive) -> Fallback {
        let warning = Diagnostic::warning(directive.span(), "no files are served here: only the last argument counts");
        self.report.push(warning.label("the files before the last argument are never found"));
        let last = directive.args.len().saturating_sub(1);
        let Some(word) = directive.args.get(last) else { return Fallback::Status(404) };
        match word.text.strip_prefix('=') {
            Some(code) => match code.parse::<u16>() {
                Ok(status) if status <= 999 => Fallback::Status(status),
                _ => {
                    self.error(word.span, format!("invalid code \"{}\"", word.text));
                    Fallback::Status(404)
                }
            },
            None => self.fallback(word, 0),
        }
    }

    /// `@name` or a URI.
    pub(super) fn fallback(&mut self, word: &Word, start: usize) -> Fallback {
        match word.text.get(start..).and_then(|text| text.strip_prefix('@')) {
            Some(name) if !name.contains('$') => Fallback::Named(name.into()),
            _ => Fallback::Uri(self.template_of(word, start)),
        }
    }

    /// `[= | ~ | ~* | ^~] URI` or `@NAME`; nginx also takes the modifier without a space behind it.
    fn pattern(&mut self, directive: &Directive) -> Option<Pattern> {
        let regex = |source: &str, ignore_case| Pattern::Regex { source: source.into(), ignore_case };
        let prefix = |path: &str, no_regex| Pattern::Prefix { path: path.as_bytes().into(), no_regex };
        let exact = |path: &str| Pattern::Exact(path.as_bytes().into());
        let pattern = match (directive.arg(0), directive.args.len()) {
            ("=", 2) => exact(directive.arg(1)),
            ("^~", 2) => prefix(directive.arg(1), true),
            ("~", 2) => regex(directive.arg(1), false),
            ("~*", 2) => regex(directive.arg(1), true),
            (other, 2) => {
                let error = Diagnostic::error(directive.arg_span(0), format!("invalid location modifier \"{other}\""));
                self.report.push(error.help("one of =, ~, ~*, ^~; a path with spaces must stand in quotes"));
                return None;
            }
            (text, _) => {
                match (text.strip_prefix('='), text.strip_prefix("^~"), text.strip_prefix('@'), regex_of(text)) {
                    (Some(path), ..) => exact(path),
                    (_, Some(path), ..) => prefix(path, true),
                    (_, _, Some(name), _) => Pattern::Named(name.into()),
                    (.., Some((start, ignore_case))) => regex(text.get(start..).unwrap_or_default(), ignore_case),
                    _ => prefix(text, false),
                }
            }
        };
        self.unreachable(directive, &pattern);
        Some(pattern)
    }

    /// Every path begins with a slash; a location that does not is never chosen.
    fn unreachable(&mut self, directive: &Directive, pattern: &Pattern) {
        let path = match pattern {
            Pattern::Exact(path) | Pattern::Prefix { path, .. } => path,
            Pattern::Regex { .. } | Pattern::Named(_) => return,
        };
        if !path.starts_with(b"/") {
            let path = String::from_utf8_lossy(path);
            let warning =
                Diagnostic::warning(directive.span(), "this location is never chosen: every path begins with \"/\"");
            self.report.push(warning.help(format!("write `location /{path} {{`")));
        }
    }
}

/// The path that `proxy_pass`'s URI part replaces.
fn prefix_of(pattern: &Pattern) -> Option<&str> {
    match pattern {
        Pattern::Exact(path) | Pattern::Prefix { path, .. } => std::str::from_utf8(path).ok(),
        Pattern::Regex { .. } | Pattern::Named(_) => None,
    }
}
