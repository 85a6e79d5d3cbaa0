//! `proxy_pass` and `proxy_redirect`.

use super::{
    super::{ProxyPass, ProxyTarget, Redirect, diagnostic::Diagnostic},
    Build, Directive, Level, address,
};
use crate::{
    route::rewrite::Regex,
    variables::{Known, Part, Template, Variable},
};

/// What the URI part of a `proxy_pass` replaces.
#[derive(Debug, Clone, Copy)]
pub enum Replaces<'a> {
    /// The prefix of its location.
    Prefix(&'a str),
    /// Nothing: nginx allows no URI part here.
    Nothing,
}

/// A `proxy_pass`, and what `proxy_redirect default` means with it.
pub struct Passed {
    /// It.
    pub pass: ProxyPass,
    /// From, to. None with variables.
    pub default_redirect: Option<(String, String)>,
}

/// Where the pieces of `proxy_pass`'s argument end and begin.
struct Pieces {
    /// Where the authority ends.
    authority_end: usize,
    /// Where the URI part begins; the end of the text when there is none.
    uri: usize,
}

impl Build<'_> {
    /// Reads a `proxy_pass`.
    pub(super) fn proxy_pass(&mut self, directive: &Directive, replaces: Replaces<'_>) -> Option<Passed> {
        let word = directive.args.first()?;
        let text = word.text.as_str();
        let Some((tls, authority)) = scheme(text) else {
            if text.starts_with('$') {
                return Some(variable(false, self.template(word)));
            }
            let error = Diagnostic::error(word.span, "invalid URL prefix");
            self.report.push(error.help(format!("write `proxy_pass http://{text};` or `https://`")));
            return None;
        };
        let Some(pieces) = self.pieces(text, authority) else {
            return Some(variable(tls, self.template(word)));
        };
        let target = text.get(authority..pieces.authority_end).unwrap_or_default();
        let written_uri = text.get(pieces.uri..).unwrap_or_default();
        let constant = !written_uri.contains('$');
        if !written_uri.is_empty() && constant && matches!(replaces, Replaces::Nothing) {
            self.report.push(
                Diagnostic::error(
                    word.part(pieces.uri, text.len()),
                    "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location, \
                     or inside \"if\" statement",
                )
                .help("remove it, or change the path with `rewrite ... break`"),
            );
        }
        let group = self.group(target, tls, word.part(authority, pieces.authority_end))?;
        let mut uri = (!written_uri.is_empty()).then(|| self.template_of(word, pieces.uri));
        if let Some(uri) = uri.as_mut().filter(|_| written_uri.starts_with('?')) {
            uri.parts.insert(0, Part::Text(b"/".as_slice().into()));
        }
        let prefix = match replaces {
            Replaces::Prefix(path) if uri.is_some() && constant => path.len(),
            _ => 0,
        };
        let default_redirect = match (written_uri, replaces) {
            _ if !constant => None,
            ("", _) => Some((format!("{text}/"), "/".to_owned())),
            (_, Replaces::Prefix(path)) => Some((text.to_owned(), path.to_owned())),
            (_, Replaces::Nothing) => None,
        };
        let target = ProxyTarget::Upstream(group, proxy_host(target, tls));
        Some(Passed { pass: ProxyPass { target, tls, uri, prefix }, default_redirect })
    }

    /// None when the authority itself has variables.
    fn pieces(&self, text: &str, authority: usize) -> Option<Pieces> {
        let rest = text.get(authority..).unwrap_or_default();
        let (length, separator) = match address::strip_unix(rest) {
            Some(path) => match path.find(':') {
                Some(colon) => (rest.len() - path.len() + colon, 1),
                None => (rest.len(), 0),
            },
            None => (rest.find(['/', '?']).unwrap_or(rest.len()), 0),
        };
        let authority_end = match rest.get(..length).and_then(|authority| authority.find('$')) {
            None => authority + length,
            Some(dollar) if dollar > 0 && self.begins_with_slash(rest.get(dollar..).unwrap_or_default()) => {
                authority + dollar
            }
            Some(_) => return None,
        };
        let separator = if authority_end == authority + length { separator } else { 0 };
        Some(Pieces { authority_end, uri: authority_end + separator })
    }

    /// `http://backend$request_uri`: these variables begin with a slash, so that the authority ends in front of them.
    fn begins_with_slash(&self, text: &str) -> bool {
        const PATHS: [Known; 3] = [Known::RequestUri, Known::Uri, Known::DocumentUri];
        let compiled = super::template::compile(text, &self.names).unwrap_or_default();
        matches!(compiled.parts.first(), Some(Part::Variable(Variable::Known(known))) if PATHS.contains(known))
    }

    /// The redirects that hold at a level.
    pub(super) fn redirects(&mut self, level: &Level<'_>, default: Option<&(String, String)>) -> Vec<Redirect> {
        let default =
            default.map(|(from, to)| Redirect::Prefix(Template::text(from.as_str()), Template::text(to.as_str())));
        let directives = level.all("proxy_redirect");
        if directives.is_empty() {
            return default.into_iter().collect();
        }
        if directives.iter().any(|directive| directive.args.len() == 1 && directive.arg(0) == "off") {
            return Vec::new();
        }
        directives
            .iter()
            .filter_map(|directive| match directive.args.len() {
                1 if directive.arg(0) == "default" => default.clone(),
                1 => {
                    let error =
                        Diagnostic::error(directive.arg_span(0), format!("invalid parameter \"{}\"", directive.arg(0)));
                    self.report.push(error.help("`default`, `off`, or `FROM TO`"));
                    None
                }
                _ => self.redirect(directive),
            })
            .collect()
    }

    fn redirect(&mut self, directive: &Directive) -> Option<Redirect> {
        let [from, to] = directive.args.as_slice() else { return None };
        let to = self.template(to);
        match regex_of(&from.text) {
            Some((start, ignore_case)) => Some(Redirect::Regex(self.regex(from, start, ignore_case)?, to)),
            None => Some(Redirect::Prefix(self.template(from), to)),
        }
    }

    /// Compiles the regular expression that begins at byte `start` of a word.
    pub(super) fn regex(&mut self, word: &super::Word, start: usize, ignore_case: bool) -> Option<Regex> {
        let names = &mut self.names;
        let source = word.text.get(start..).unwrap_or_default();
        match Regex::new(source, ignore_case, &mut |name| names.slot(name)) {
            Ok(regex) => Some(regex),
            Err(why) => {
                self.error(word.span, why);
                None
            }
        }
    }
}

fn variable(tls: bool, template: Template) -> Passed {
    let pass = ProxyPass { target: ProxyTarget::Variable(template), tls, uri: None, prefix: 0 };
    Passed { pass, default_redirect: None }
}

/// Whether it is `https://`, and the length of the scheme.
fn scheme(text: &str) -> Option<(bool, usize)> {
    let is = |scheme: &str| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if is("http://") {
        Some((false, "http://".len()))
    } else if is("https://") {
        Some((true, "https://".len()))
    } else {
        None
    }
}

/// `~x` and `~*x`: where the expression begins, and whether case is ignored.
pub fn regex_of(text: &str) -> Option<(usize, bool)> {
    let rest = text.strip_prefix('~')?;
    Some(if rest.starts_with('*') { (2, true) } else { (1, false) })
}

/// `$proxy_host`: as written, without the scheme's own port; `localhost` for a unix socket.
fn proxy_host(authority: &str, tls: bool) -> Box<str> {
    if address::strip_unix(authority).is_some() {
        return "localhost".into();
    }
    let default_port = if tls { ":443" } else { ":80" };
    authority.strip_suffix(default_port).unwrap_or(authority).into()
}
