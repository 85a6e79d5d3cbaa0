//! `server` blocks, and which of them answers on which address.

use std::sync::Arc;

use super::{
    super::{
        Content, Listener, Location, Server,
        diagnostic::{Diagnostic, Span},
        values,
    },
    Build, Directive, Level, Word,
    listen::Bound,
    location::{Places, eyes},
    tls::TlsDraft,
};
use crate::{
    http::head::HeadLimits,
    route::{
        location::Pattern,
        server_name::{ServerId, ServerNames},
    },
    tls::ServerTls,
};

/// Smallest buffer of a request line nginx allows (`connection_pool_size`).
const LINE_BYTES_MIN: u64 = 512;

/// A server without its TLS, which depends on what else listens at its addresses.
struct Draft {
    server: Server,
    names: Vec<(String, Span)>,
    tls: TlsDraft,
    /// Where the server itself sets a certificate.
    certificate: Option<Span>,
}

impl Build<'_> {
    /// Every server of the file, and its listeners.
    pub(super) fn servers(&mut self, http: &Level<'_>) -> (Vec<Server>, Vec<Listener>) {
        // What http says must be right even where no server is.
        self.settings(http, None);
        self.tls_options(http);
        let mut bound = Vec::new();
        let mut drafts = Vec::new();
        for directive in http.own("server") {
            drafts.push(self.server(http, directive));
            self.listens(directive, drafts.len() - 1, &mut bound);
        }
        let tls = self.server_sides(&drafts, &bound);
        for (draft, tls) in drafts.iter_mut().zip(tls) {
            draft.server.tls = tls;
        }
        let listeners = bound.into_iter().map(|bound| self.listener(bound, &drafts)).collect();
        (drafts.into_iter().map(|draft| draft.server).collect(), listeners)
    }

    fn listens(&mut self, directive: &Directive, server: ServerId, bound: &mut Vec<Bound>) {
        let mut listens = directive.children().iter().filter(|child| child.is("listen")).peekable();
        if listens.peek().is_none() {
            self.listen_default(directive.span(), server, bound);
        }
        listens.for_each(|listen| self.listen(listen, server, bound));
    }

    fn server(&mut self, http: &Level<'_>, directive: &Directive) -> Draft {
        let own = directive.children();
        let level = http.inner(own);
        let names = self.names_of(own);
        let mut places = Places::default();
        self.locations(&level, own, None, &mut places);
        let settings = Arc::new(self.settings(&level, None));
        self.root_of_server(&level, own, &settings, &mut places);
        let script = self.script(&level, own, None, &mut places);
        let server = Server {
            name: names.first().map_or("", |(name, _)| name.strip_prefix('.').unwrap_or(name)).into(),
            place: self.report.line_place(directive.name.span).into(),
            head: self.head_limits(&level),
            header_timeout: self.value(&level, "client_header_timeout", &values::TIME),
            tls: None,
            script,
            routes: places.routes,
            locations: places.locations,
            settings,
        };
        let certificate = level.own("ssl_certificate").next().map(Directive::span);
        let tls = self.tls_options(&level);
        Draft { server, names, tls, certificate }
    }

    /// `try_files`, `status`, `metrics` or `stub_status` of a server: for requests that no location takes.
    fn root_of_server(
        &mut self,
        level: &Level<'_>,
        own: &[Directive],
        settings: &Arc<super::super::Settings>,
        places: &mut Places,
    ) {
        if places.has_root {
            return;
        }
        let try_files = own.iter().find(|child| child.is("try_files"));
        let (directive, content) = match (try_files, eyes(own)) {
            (Some(try_files), _) => (try_files, Content::Fallback(self.try_files(try_files))),
            (None, Some(eyes)) => (eyes, self.content_of_eyes(level, eyes)),
            (None, None) => return,
        };
        let settings = Arc::clone(settings);
        places.locations.push(Location {
            name: "/".into(),
            internal: false,
            script: Default::default(),
            content,
            settings,
        });
        let root = Pattern::Prefix { path: b"/".as_slice().into(), no_regex: false };
        let id = places.locations.len() - 1;
        self.route(places, id, root, None, false, directive.span());
    }

    /// Every name of a server; one without has the empty name, which is that of requests without Host.
    fn names_of(&mut self, own: &[Directive]) -> Vec<(String, Span)> {
        let words = own.iter().filter(|child| child.is("server_name")).flat_map(|child| &child.args);
        let mut names: Vec<_> = words.map(|word| (self.server_name(word), word.span)).collect();
        if names.is_empty() {
            let span = own.iter().find(|child| child.is("listen")).map(Directive::span);
            names.extend(span.or(own.first().map(Directive::span)).map(|span| (String::new(), span)));
        }
        names
    }

    fn server_name(&mut self, word: &Word) -> String {
        let text = word.text.as_str();
        if text.starts_with('~') {
            return text.to_owned();
        }
        if text.eq_ignore_ascii_case("$hostname") {
            return crate::variables::hostname().to_owned();
        }
        if text.contains('$') {
            let error = Diagnostic::error(word.span, format!("server name \"{text}\" is invalid"));
            self.report.push(error.help("names have no variables, but for `$hostname`"));
        } else if text.contains(['/', ' ']) {
            let warning = Diagnostic::warning(word.span, format!("server name \"{text}\" has suspicious symbols"));
            self.report.push(warning.help("a name is a host name: no scheme, no path"));
        } else if text.strip_prefix('[').map_or(text, |_| "").contains(':') {
            let warning =
                Diagnostic::warning(word.span, format!("server name \"{text}\" has a port and never matches"));
            self.report.push(warning.help("the port belongs into `listen`"));
        }
        text.to_ascii_lowercase()
    }

    fn head_limits(&mut self, level: &Level<'_>) -> HeadLimits {
        let directive = level.one("large_client_header_buffers");
        let number = directive.and_then(|directive| self.read(directive, 0, &values::NUMBER)).unwrap_or(4);
        let size = directive.and_then(|directive| self.read(directive, 1, &values::SIZE)).unwrap_or(8 << 10);
        if let Some(directive) = directive.filter(|_| number == 0 || size < LINE_BYTES_MIN) {
            let message = format!("\"large_client_header_buffers\" needs a buffer of {LINE_BYTES_MIN} bytes or more");
            self.error(directive.span(), message);
        }
        let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        HeadLimits {
            line_bytes: bytes(size),
            head_bytes: bytes(number.saturating_mul(size)),
            fields: bytes(self.value(level, "max_headers", &values::NUMBER)),
            underscores: self.value(level, "underscores_in_headers", &values::FLAG),
            merge_slashes: self.value(level, "merge_slashes", &values::FLAG),
        }
    }

    /// The TLS side of each server that listens with `ssl`; one without certificate has that of the default server, as nginx.
    fn server_sides(&mut self, drafts: &[Draft], bound: &[Bound]) -> Vec<Option<Arc<ServerTls>>> {
        let mut sides: Vec<Option<Arc<ServerTls>>> = Vec::new();
        for (id, draft) in drafts.iter().enumerate() {
            let listens = bound.iter().filter(|bound| bound.ssl).flat_map(|bound| &bound.servers);
            let listen = listens.filter(|(server, _)| *server == id).map(|(_, span)| *span).next();
            sides.push(match listen {
                Some(span) if draft.is_ready() => self.server_tls(&draft.tls, span),
                Some(_) => None,
                None => {
                    self.certificate_without_ssl(draft);
                    None
                }
            });
        }
        for bound in bound.iter().filter(|bound| bound.ssl) {
            self.certificates_missing(drafts, bound);
            let default = sides.get(bound.default()).cloned().flatten();
            for (id, _) in &bound.servers {
                if let Some(side) = sides.get_mut(*id).filter(|side| side.is_none()) {
                    side.clone_from(&default);
                }
            }
        }
        sides
    }

    fn certificate_without_ssl(&mut self, draft: &Draft) {
        if let Some(span) = draft.certificate {
            let warning =
                Diagnostic::warning(span, "this certificate is not used: no `listen` of the server has `ssl`");
            self.report.push(warning.help("write `listen 443 ssl;`"));
        }
    }

    /// The default server of an address with `ssl` needs a certificate; if it rejects handshakes, every other server does.
    fn certificates_missing(&mut self, drafts: &[Draft], bound: &Bound) {
        let draft = |id: ServerId| drafts.get(id);
        let default = bound.default();
        let rejects = draft(default).is_some_and(|draft| draft.tls.options.reject);
        for (id, span) in &bound.servers {
            let needed = *id == default || rejects;
            if needed && draft(*id).is_some_and(|draft| !draft.is_ready()) && !self.has_half_pair(draft(*id)) {
                let message = "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive";
                let error = Diagnostic::error(*span, message);
                self.report.push(error.help("add `ssl_certificate FILE; ssl_certificate_key FILE;`, or remove `ssl`"));
            }
        }
    }

    /// A certificate without key has its own error already.
    fn has_half_pair(&self, draft: Option<&Draft>) -> bool {
        draft.is_some_and(|draft| draft.certificate.is_some())
    }

    fn listener(&mut self, bound: Bound, drafts: &[Draft]) -> Listener {
        let mut names = ServerNames::default();
        let address = bound.name();
        for (id, _) in &bound.servers {
            for (name, span) in drafts.get(*id).map(|draft| draft.names.as_slice()).unwrap_or_default() {
                let slots = &mut self.names;
                match names.insert(name, *id, &mut |name| slots.slot(name)) {
                    Ok(true) => {}
                    Ok(false) => {
                        let message = format!("conflicting server name \"{name}\" on {address}, ignored");
                        self.report.push(Diagnostic::warning(*span, message));
                    }
                    Err(why) => self.error(*span, why),
                }
            }
        }
        bound.into_listener(names)
    }
}

impl Draft {
    /// It can answer a TLS handshake by itself.
    fn is_ready(&self) -> bool {
        self.tls.options.reject || !self.tls.options.certificates.is_empty()
    }
}
