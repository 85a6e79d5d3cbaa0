//! The status location that a configuration file has.

use std::net::SocketAddr;

use super::place::{Address, Place};
use crate::{
    config::{Config, Content, ListenAddress, Listener, Location},
    route::server_name::ServerId,
};

/// The first status location of a configuration that a request from this host can reach.
///
/// # Errors
/// There is none, or none whose address and path are fixed.
pub(super) fn find(config: &Config) -> Result<Place, String> {
    let mut plain_first: Vec<&Listener> = config.listeners.iter().collect();
    plain_first.sort_by_key(|listener| listener.ssl);
    plain_first.into_iter().find_map(|listener| at(config, listener)).ok_or_else(|| {
        if config.servers.iter().flat_map(|server| &server.locations).any(is_status) {
            "its status location has no fixed path, or its server no fixed name: say the URL".to_owned()
        } else {
            "it has no status location; `location = /status { status; allow 127.0.0.1; deny all; }` makes one"
                .to_owned()
        }
    })
}

fn is_status(location: &Location) -> bool {
    matches!(location.content, Content::Status { .. })
}

/// The first status location behind a listening address.
fn at(config: &Config, listener: &Listener) -> Option<Place> {
    let (address, own) = reachable(&listener.address);
    listener.servers.iter().find_map(|id| {
        let host = host_of(config, listener, *id, &own)?;
        let locations = config.servers.get(*id)?.locations.iter();
        let path = locations.filter(|location| is_status(location)).find_map(|location| path_of(&location.name))?;
        Some(Place { address: address.clone(), tls: listener.ssl, host, path: path.to_owned() })
    })
}

/// How to reach a listening address from here, and a `Host` for it.
fn reachable(address: &ListenAddress) -> (Address, String) {
    match address {
        ListenAddress::Unix(path) => (Address::Unix(path.clone()), "localhost".to_owned()),
        ListenAddress::Tcp(listening) => {
            let ip = match listening {
                SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".to_owned(),
                SocketAddr::V6(v6) if v6.ip().is_unspecified() => "::1".to_owned(),
                other => other.ip().to_string(),
            };
            let host = if listening.is_ipv6() { format!("[{ip}]") } else { ip.clone() };
            (Address::Tcp(ip, listening.port()), host)
        }
    }
}

/// The `Host` that leads to a server: its first name, or any at all when it is the default.
fn host_of(config: &Config, listener: &Listener, id: ServerId, own: &str) -> Option<String> {
    let name = &config.servers.get(id)?.name;
    let leads_there = listener.names.find(name.as_bytes()).is_some_and(|found| found.server == id);
    match leads_there && !name.is_empty() && !name.starts_with(['~', '*', '.']) {
        true => Some(name.to_string()),
        false => (listener.default == id).then(|| own.to_owned()),
    }
}

/// A path that a location surely answers: that of an exact or a prefix location.
fn path_of(name: &str) -> Option<&str> {
    let path = name.strip_prefix("= ").or_else(|| name.strip_prefix("^~ ")).unwrap_or(name);
    path.starts_with('/').then_some(path)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{self, LoadOptions, Source};

    fn found(text: &str) -> Result<String, String> {
        let options = LoadOptions {
            file: Source::Text { name: "test.conf".to_owned(), text: text.to_owned() },
            prefix: PathBuf::from("/"),
            globals: None,
            conf_error_log: None,
        };
        let loaded = config::load(&options);
        let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.render(false, true)));
        find(&config).map(|place| format!("{place} of {}", place.host))
    }

    #[test]
    fn the_first_status_location_is_found_whatever_leads_to_it() {
        for (text, place) in [
            ("server { listen 8080; location /s/ { status; } }", "http://127.0.0.1:8080/s/ of 127.0.0.1"),
            ("server { listen [::]:81; location = /s { status; } }", "http://[::1]:81/s of [::1]"),
            ("server { listen unix:/x.sock; location ^~ /s { status; } }", "http://unix:/x.sock:/s of localhost"),
            (
                "server { listen 10.0.0.1:80; return 404; }
                 server { listen 10.0.0.1:80; server_name b.example a.example; location = /s { status; } }",
                "http://10.0.0.1:80/s of b.example",
            ),
            (
                "server { listen 80; location / { location = /deep { status; } return 404; } }",
                "http://127.0.0.1:80/deep of 127.0.0.1",
            ),
        ] {
            assert_eq!(found(text).as_deref(), Ok(place), "{text}");
        }
    }

    #[test]
    fn where_there_is_none_the_error_says_how_to_make_one() {
        let error = found("server { listen 80; return 404; }").unwrap_err();
        assert!(error.contains("location = /status {"), "{error}");
        let error = found("server { listen 80; location ~ ^/s { status; } }").unwrap_err();
        assert!(error.contains("say the URL"), "{error}");
    }
}
