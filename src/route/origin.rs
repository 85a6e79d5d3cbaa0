//! `websocket_origin`: which pages may open a tunnel.
//!
//! A browser sends cookies with a WebSocket handshake to any site and lets any page make it: the Origin field is all
//! that tells a site's own page from a stranger's (RFC 6455 section 10.2).

use super::regex::Regex;
use crate::http::head::RequestHead;

/// `websocket_origin`'s patterns.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Host or `scheme://host[:port]`, lower case; `*.x` matches below x. A host alone is of any scheme, and of any port
    /// unless it names one; with a scheme and no port it is that scheme's own port.
    Text(Box<str>),
    /// `~regex`
    Regex(Regex),
    /// `none`: requests without Origin (clients that are no browsers).
    None,
    /// `same`: Origin's host equals Host.
    Same,
}

/// True when one of `origins` admits the request. `scheme` is the request's own (`http`, `https`).
/// A request with two Origin fields is never admitted: browsers send one.
pub fn origin_allowed(origins: &[Origin], request: &RequestHead, scheme: &str) -> bool {
    let mut sent = request.fields.all("origin");
    match (sent.next(), sent.next()) {
        (None, _) => origins.iter().any(|origin| matches!(origin, Origin::None)),
        (Some(value), None) => origins.iter().any(|origin| origin.admits(value, &request.authority, scheme)),
        _ => false,
    }
}

impl Origin {
    fn admits(&self, sent: &[u8], authority: &[u8], scheme: &str) -> bool {
        match self {
            Origin::None => false,
            Origin::Regex(regex) => regex.is_match(sent),
            Origin::Text(pattern) => Site::parse(pattern.as_bytes()).covers(&Site::parse(sent)),
            Origin::Same => {
                let (origin, host) = (Site::parse(sent), Site::host_field(authority));
                let same_port = origin.port == host.port || origin.port_or_default() == host.port_or(scheme.as_bytes());
                !host.host.is_empty()
                    && origin.scheme.is_some()
                    && origin.host.eq_ignore_ascii_case(host.host)
                    && same_port
            }
        }
    }
}

/// `[scheme://]host[:port]`, in pieces.
struct Site<'a> {
    scheme: Option<&'a [u8]>,
    host: &'a [u8],
    port: Option<&'a [u8]>,
}

impl<'a> Site<'a> {
    fn parse(text: &'a [u8]) -> Self {
        match text.windows(3).position(|part| part == b"://") {
            Some(at) => Self { scheme: Some(&text[..at]), ..Self::host_field(&text[at + 3..]) },
            None => Self::host_field(text),
        }
    }

    fn host_field(text: &'a [u8]) -> Self {
        // The last colon, unless it stands within an IPv6 address in brackets.
        let colon = text.iter().rposition(|byte| *byte == b':').filter(|at| !text[*at..].contains(&b']'));
        match colon {
            Some(at) => Self { scheme: None, host: &text[..at], port: Some(&text[at + 1..]) },
            None => Self { scheme: None, host: text, port: None },
        }
    }

    fn port_or_default(&self) -> &[u8] {
        self.port_or(self.scheme.unwrap_or_default())
    }

    fn port_or(&self, scheme: &[u8]) -> &[u8] {
        self.port.unwrap_or(if scheme.eq_ignore_ascii_case(b"https") { b"443" } else { b"80" })
    }

    /// This pattern against an origin. An opaque origin (`null`) has no scheme: only the pattern `null` covers it.
    fn covers(&self, origin: &Site<'_>) -> bool {
        if origin.scheme.is_none() {
            return origin.host == b"null" && self.host == b"null";
        }
        let port = match (self.scheme, self.port) {
            (Some(scheme), _) => {
                origin.scheme.is_some_and(|sent| sent.eq_ignore_ascii_case(scheme))
                    && origin.port_or_default() == self.port_or_default()
            }
            (None, Some(port)) => origin.port_or_default() == port,
            (None, None) => true,
        };
        port && self.host_covers(origin.host)
    }

    fn host_covers(&self, host: &[u8]) -> bool {
        let Some(parent) = self.host.strip_prefix(b"*") else {
            return host.eq_ignore_ascii_case(self.host);
        };
        // `parent` begins with the dot.
        let below = host.len().checked_sub(parent.len()).filter(|label| *label > 0).map(|label| &host[label..]);
        parent.starts_with(b".") && below.is_some_and(|tail| tail.eq_ignore_ascii_case(parent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{body::Framing, fields::Fields, head::Version};

    fn allowed(patterns: &[Origin], origins: &[&str], host: &str, scheme: &str) -> bool {
        let head = RequestHead {
            method: "GET".into(),
            target: b"/".as_slice().into(),
            version: Version::Http11,
            fields: Fields::from_pairs(origins.iter().map(|origin| (b"Origin".as_slice(), origin.as_bytes()))),
            host: host.as_bytes().into(),
            authority: host.as_bytes().into(),
            path: b"/".to_vec(),
            query: None,
            body: Framing::None,
            keep_alive: true,
            expects_continue: false,
        };
        origin_allowed(patterns, &head, scheme)
    }

    fn text(pattern: &str, origin: &str) -> bool {
        allowed(&[Origin::Text(pattern.into())], &[origin], "h", "http")
    }

    #[test]
    fn a_host_is_of_any_scheme_and_port() {
        assert!(text("example.com", "https://example.com"));
        assert!(text("example.com", "http://example.com:8080"));
        assert!(!text("example.com", "https://example.com.evil.org"));
        assert!(!text("example.com", "https://evil-example.com"));
        assert!(!text("example.com", "https://www.example.com"));
        assert!(text("example.com:8080", "http://example.com:8080"));
        assert!(!text("example.com:8080", "http://example.com"));
    }

    #[test]
    fn a_scheme_brings_its_port() {
        assert!(text("https://example.com", "https://example.com"));
        assert!(text("https://example.com", "https://example.com:443"));
        assert!(!text("https://example.com", "https://example.com:8443"));
        assert!(!text("https://example.com", "http://example.com"));
        assert!(text("http://[::1]:8080", "http://[::1]:8080"));
        assert!(!text("http://[::1]", "http://[::1]:8080"));
    }

    #[test]
    fn a_star_is_below_the_name_only() {
        assert!(text("*.example.com", "https://a.b.example.com"));
        assert!(text("https://*.example.com", "https://a.example.com"));
        assert!(!text("https://*.example.com", "http://a.example.com"));
        assert!(!text("*.example.com", "https://example.com"));
        assert!(!text("*.example.com", "https://.example.com"));
        assert!(!text("*.example.com", "https://aexample.com"));
    }

    #[test]
    fn an_opaque_origin_is_admitted_by_its_own_word_only() {
        assert!(text("null", "null"));
        assert!(!text("null", "https://null.com"));
        assert!(!allowed(&[Origin::None, Origin::Same, Origin::Text("h".into())], &["null"], "null", "http"));
        assert!(!text("example.com", "example.com"));
    }

    #[test]
    fn same_compares_with_host_and_knows_default_ports() {
        for (origin, host, scheme, expected) in [
            ("https://example.com", "example.com", "https", true),
            ("https://Example.com", "example.com:443", "https", true),
            // Behind a balancer that ends TLS.
            ("https://example.com", "example.com", "http", true),
            ("http://localhost:8080", "localhost:8080", "http", true),
            ("http://localhost:3000", "localhost:8080", "http", false),
            ("http://localhost", "localhost:8080", "http", false),
            ("https://evil.org", "example.com", "https", false),
            ("http://", "", "http", false),
        ] {
            assert_eq!(allowed(&[Origin::Same], &[origin], host, scheme), expected, "{origin} {host} {scheme}");
        }
    }

    #[test]
    fn no_origin_and_two_origins() {
        assert!(allowed(&[Origin::None], &[], "h", "http"));
        assert!(!allowed(&[Origin::Same], &[], "h", "http"));
        assert!(!allowed(&[Origin::Same], &["http://h", "http://h"], "h", "http"));
        assert!(!allowed(&[Origin::None], &[""], "h", "http"));
    }

    #[test]
    fn an_expression_sees_the_origin_as_sent() {
        let regex = Regex::new(r"^https://[a-z]+\.example\.com$", false, &mut |_| 0).unwrap();
        assert!(allowed(&[Origin::Regex(regex.clone())], &["https://app.example.com"], "h", "http"));
        assert!(!allowed(&[Origin::Regex(regex)], &["https://app.example.com.evil.org"], "h", "http"));
    }
}
