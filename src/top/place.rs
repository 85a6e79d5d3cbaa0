//! Where a status location is.

use std::{fmt, path::PathBuf, str::FromStr};

/// Where `top` looks when nothing is said.
pub(super) const DEFAULT: &str = "http://127.0.0.1/status";
const DEFAULT_PATH: &str = "/status";
const FORMS: &str = "http://HOST[:PORT]/PATH, https://HOST[:PORT]/PATH or unix:SOCKET:/PATH";

/// A status location, and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub address: Address,
    pub tls: bool,
    /// `Host`, and with TLS whose certificate is expected.
    pub host: String,
    pub path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A name or an address (IPv6 without brackets), and a port.
    Tcp(String, u16),
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    /// Reads a URL. Without a scheme it is http; what stands behind `?` or `#` is left out.
    fn from_str(url: &str) -> Result<Self, String> {
        if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(format!("the URL {url:?} has a blank or a control character; it is {FORMS}"));
        }
        let (tls, rest) = match url.split_once("://") {
            None => (false, url),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(format!("{scheme}:// cannot be asked for a status; it is {FORMS}")),
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        match rest.strip_prefix("unix:") {
            Some(rest) => Self::unix(tls, rest),
            None => Self::tcp(tls, rest),
        }
        .ok_or_else(|| format!("{url:?} is no URL of a status location; it is {FORMS}"))
    }
}

impl Place {
    fn unix(tls: bool, rest: &str) -> Option<Self> {
        let (socket, path) = rest.split_once(':').unwrap_or((rest, DEFAULT_PATH));
        let whole = socket.starts_with('/') && path.starts_with('/');
        let address = Address::Unix(PathBuf::from(socket));
        whole.then(|| Self { address, tls, host: "localhost".to_owned(), path: path.to_owned() })
    }

    fn tcp(tls: bool, rest: &str) -> Option<Self> {
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, DEFAULT_PATH),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None if tls => 443,
            None => 80,
        };
        let named = !host.is_empty() && !authority.contains('@');
        let address = Address::Tcp(host.to_owned(), port);
        named.then(|| Self { address, tls, host: authority.to_owned(), path: path.to_owned() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.address {
            Address::Unix(socket) => write!(formatter, "{scheme}://unix:{}:{}", socket.display(), self.path),
            Address::Tcp(host, port) if host.contains(':') => {
                write!(formatter, "{scheme}://[{host}]:{port}{}", self.path)
            }
            Address::Tcp(host, port) => write!(formatter, "{scheme}://{host}:{port}{}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        let place: Place = url.parse().unwrap();
        format!("{place} of {}", place.host)
    }

    #[test]
    fn urls_are_read_as_people_write_them() {
        assert_eq!(shown("http://127.0.0.1/status"), "http://127.0.0.1:80/status of 127.0.0.1");
        assert_eq!(shown("https://edge.example.com/s/t"), "https://edge.example.com:443/s/t of edge.example.com");
        assert_eq!(shown("localhost:8080"), "http://localhost:8080/status of localhost:8080");
        assert_eq!(shown("http://[::1]:81/x?json#y"), "http://[::1]:81/x of [::1]:81");
        assert_eq!(shown("[::1]"), "http://[::1]:80/status of [::1]");
        assert_eq!(shown("unix:/run/x.sock:/s"), "http://unix:/run/x.sock:/s of localhost");
        assert_eq!(shown("http://unix:/run/x.sock"), "http://unix:/run/x.sock:/status of localhost");
    }

    #[test]
    fn what_is_no_url_is_told_with_the_forms_that_are() {
        let wrong = [
            "",
            "http://",
            "http:///x",
            "ftp://x/",
            "http://x:0/",
            "http://x:99999/",
            "http://[::1/",
            "http://[::1]x/",
            "http://a b/",
            "http://a/\r\nX: y",
            "http://user@x/",
            "unix:x",
            "unix:/x:y",
            ":80",
        ];
        for url in wrong {
            let error = url.parse::<Place>().unwrap_err();
            assert!(error.contains("http://HOST"), "{url:?}: {error}");
        }
    }
}
