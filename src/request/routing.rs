//! From a request to what answers it: nginx's phases server-rewrite, find-config, rewrite, post-rewrite, access and try-files;
//! the preaccess phase, which may take time, is the session's.

use std::sync::Arc;

use super::Request;
use crate::{
    config::{Content, ErrorPage, Fallback, Server},
    limits::INTERNAL_REDIRECTS,
    route::{
        access, escape,
        location::{Found, LocationId},
        rewrite::{Captures, Rewritable, Verdict, is_redirect},
    },
};

/// What answers a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Routed {
    /// The content of a location: `proxy_pass`, `status` and its like. It is the request's location now.
    Content(LocationId),
    /// `return` with a text, of the location's `default_type`.
    Answer {
        /// The status; of an error page the one it was asked for.
        status: u16,
        /// The body; may be empty.
        body: Vec<u8>,
    },
    /// A redirect: of `return`, of `rewrite`, or nginx's automatic slash. [`redirect_error`] may replace it.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// Fit for the field Location; a path was made absolute (nginx's `absolute_redirect on`).
        location: Vec<u8>,
    },
    /// The same, but `limit_req` and `limit_conn` of the location have their say first; then [`access`] goes on.
    Limited(LocationId),
    /// The page of a status, unless [`redirect_error`] finds another. 444: close without an answer.
    Refuse(u16),
    /// 403 by `deny`, unless [`redirect_error`] finds another page.
    Forbidden,
}

/// Chooses what answers a request whose server block is chosen.
pub fn route(request: &mut Request) -> Routed {
    request.find_real_ip();
    on_server(request, |mut way| way.server_rewrite())
}

/// Goes on with a request that is within the limits of its location.
pub fn access(request: &mut Request, location: LocationId) -> Routed {
    on_server(request, |mut way| way.access(location))
}

/// Serves another location instead: the target of `error_page`, or the last argument of `try_files`. A path is routed
/// from the server's own script on, with the arguments it brings and no others; a named location keeps path and arguments.
pub fn internal_redirect(request: &mut Request, target: &Fallback) -> Routed {
    on_server(request, |mut way| way.fall_back(target))
}

/// The `error_page` for a status, if one is in force. While one is being served there is none.
pub fn error_page(request: &Request, status: u16) -> Option<&ErrorPage> {
    let pages = if request.error_paged { &[] } else { request.settings().error_pages.as_slice() };
    pages.iter().find(|page| page.statuses.contains(&status))
}

/// Serves the `error_page` for a status. None: there is none; answer with the status's own page. Otherwise the status of
/// a [`Routed::Content`] is replaced by [`Request::error_status`], where that is set, and where the page is a path the
/// request's method is GET (or HEAD) from now on, as in nginx.
pub fn redirect_error(request: &mut Request, status: u16) -> Option<Routed> {
    request.error_status = None;
    let page = error_page(request, status)?.clone();
    request.error_paged = true;
    request.error_status = match page.status {
        Some(0) => None,
        Some(wanted) => Some(wanted),
        // nginx's own 494 to 497 are 400 to the client.
        None if (494..=497).contains(&status) => Some(400),
        None => Some(status),
    };
    Some(on_server(request, |mut way| way.send_error_page(&page.target)))
}

/// Runs a step of the way, and settles which status an error page's answer has.
fn on_server(request: &mut Request, step: impl FnOnce(Way<'_>) -> Routed) -> Routed {
    let config = Arc::clone(&request.config);
    let Some(server) = config.servers.get(request.server) else { return Routed::Refuse(500) };
    let mut routed = step(Way { request, server });
    match &mut routed {
        Routed::Content(_) | Routed::Limited(_) => {}
        Routed::Answer { status, .. } => *status = request.error_status.unwrap_or(*status),
        Routed::Redirect { .. } | Routed::Refuse(_) | Routed::Forbidden => request.error_status = None,
    }
    routed
}

/// A request on its way through its server block.
struct Way<'a> {
    request: &'a mut Request,
    server: &'a Server,
}

impl Way<'_> {
    fn server_rewrite(&mut self) -> Routed {
        self.request.location = None;
        match self.server.script.run(self.request) {
            Verdict::Answer { status, text } => self.answer(status, text),
            // A URI changed here is looked up anyway: it does not count as a redirect.
            Verdict::Search | Verdict::Continue { .. } => self.find_location(),
        }
    }

    fn find_location(&mut self) -> Routed {
        self.request.location = None;
        let Some(found) = self.server.routes.find(&self.request.uri) else { return Routed::Refuse(404) };
        let Found { location, captures, named, add_slash } = found;
        self.request.location = Some(location);
        if let Some(numbered) = captures {
            self.request.set_captures(Captures { numbered, named }, true);
        }
        if self.request.location().is_some_and(|location| location.internal) && !self.request.internal {
            return Routed::Refuse(404);
        }
        if add_slash { self.add_slash() } else { self.location_rewrite(location) }
    }

    fn add_slash(&mut self) -> Routed {
        let mut location = Vec::new();
        escape::path(&self.request.uri, &mut location);
        location.push(b'/');
        if !self.request.args.is_empty() {
            location.push(b'?');
            location.extend_from_slice(&self.request.args);
        }
        self.redirect(301, location)
    }

    fn location_rewrite(&mut self, id: LocationId) -> Routed {
        let Some(location) = self.server.locations.get(id) else { return Routed::Refuse(500) };
        self.request.location = Some(id);
        match location.script.run(self.request) {
            Verdict::Answer { status, text } => self.answer(status, text),
            Verdict::Search if self.count() => self.find_location(),
            Verdict::Search => Routed::Refuse(500),
            Verdict::Continue { location } => self.content(location.unwrap_or(id)),
        }
    }

    fn content(&mut self, id: LocationId) -> Routed {
        self.request.location = Some(id);
        self.request.find_real_ip();
        if self.request.awaits_limits() { Routed::Limited(id) } else { self.access(id) }
    }

    fn access(&mut self, id: LocationId) -> Routed {
        let location = self.server.locations.get(id);
        let client = self.request.remote().ip();
        if location.is_some_and(|location| !access::permits(&location.settings.access, client)) {
            return Routed::Forbidden;
        }
        match location.map(|location| &location.content) {
            Some(Content::Proxy(_) | Content::Status { .. } | Content::Metrics | Content::StubStatus) => {
                Routed::Content(id)
            }
            Some(Content::Fallback(target)) => self.fall_back(target),
            Some(Content::NotFound) => Routed::Refuse(404),
            None => Routed::Refuse(500),
        }
    }

    fn answer(&mut self, status: u16, text: Option<Vec<u8>>) -> Routed {
        match text {
            None => Routed::Refuse(status),
            Some(text) if is_redirect(status) => self.redirect(status, text),
            Some(body) => Routed::Answer { status, body },
        }
    }

    fn fall_back(&mut self, target: &Fallback) -> Routed {
        match target {
            Fallback::Status(status) => Routed::Refuse(*status),
            Fallback::Named(name) => self.named_location(name.as_bytes()),
            Fallback::Uri(uri) => {
                let uri = uri.expand(self.request);
                if uri.starts_with(b"@") { self.named_location(&uri) } else { self.redirect_to_path(&uri) }
            }
        }
    }

    fn send_error_page(&mut self, target: &Fallback) -> Routed {
        let Fallback::Uri(uri) = target else { return self.fall_back(target) };
        let uri = uri.expand(self.request);
        match uri.first() {
            Some(b'/') => {
                if &*self.request.head.method != "HEAD" {
                    self.request.head.method = "GET".into();
                }
                self.redirect_to_path(&uri)
            }
            Some(b'@') => self.named_location(&uri),
            _ => {
                let status = self.request.error_status.filter(|status| is_redirect(*status)).unwrap_or(302);
                let mut location = Vec::new();
                escape::field(&uri, &mut location);
                self.redirect(status, location)
            }
        }
    }

    fn redirect_to_path(&mut self, uri: &[u8]) -> Routed {
        if !self.count() {
            return Routed::Refuse(500);
        }
        let (path, args) = match uri.iter().position(|byte| *byte == b'?') {
            Some(at) => (&uri[..at], &uri[at + 1..]),
            None => (uri, [].as_slice()),
        };
        self.request.set_uri(path.to_vec(), args.to_vec());
        self.request.prefix_matched = true;
        self.server_rewrite()
    }

    fn named_location(&mut self, name: &[u8]) -> Routed {
        let found = str::from_utf8(name).ok().and_then(|name| self.server.routes.named(name));
        match found {
            Some(location) if self.count() => {
                self.request.internal = true;
                self.location_rewrite(location)
            }
            _ => Routed::Refuse(500),
        }
    }

    /// Counts a change of the URI; false when it is one too many: two locations that send a request to each other.
    fn count(&mut self) -> bool {
        self.request.redirects = self.request.redirects.saturating_add(1);
        self.request.redirects <= INTERNAL_REDIRECTS
    }

    fn redirect(&mut self, status: u16, location: Vec<u8>) -> Routed {
        Routed::Redirect { status, location: self.request.absolute(location) }
    }
}

#[cfg(test)]
mod tests;
