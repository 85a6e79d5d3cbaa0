//! What a backend is told of a client before anything else: `proxy_protocol`.

use std::net::SocketAddr;

use crate::{
    proxy_protocol,
    request::{Address, Request},
};

/// The header that a connection made for this request begins with; empty without `proxy_protocol`. Such a connection is this client's
/// alone.
pub fn preface(request: &Request) -> Vec<u8> {
    let Some(version) = request.settings().proxy_protocol else { return Vec::new() };
    proxy_protocol::header(version, ends(request))
}

/// The client, and where it came in: at a unix socket, what the proxy says that connected there. None where either has no address.
fn ends(request: &Request) -> Option<(SocketAddr, SocketAddr)> {
    let passed_on = || request.client.proxied.as_ref().map(|proxied| proxied.destination);
    Some((socket(request.remote())?, socket(&request.client.local).or_else(passed_on)?))
}

fn socket(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::Settings,
        proxy_protocol::{Parsed, Version, parse},
        request::{
            ClientConnection,
            tests::{client, config, head, request, server, settings},
        },
    };

    /// A request to a server with `proxy_protocol`, over this connection.
    fn over(version: Option<Version>, client: ClientConnection) -> Request {
        let settings = Arc::new(Settings { proxy_protocol: version, ..settings() });
        let server = crate::config::Server { settings, ..server("a.example") };
        let mut request = request(config(vec![server], Vec::new()), head("/", &[]));
        request.client = Arc::new(client);
        request
    }

    fn text(request: &Request) -> String {
        String::from_utf8(preface(request)).unwrap()
    }

    #[test]
    fn it_says_who_came_in_where() {
        assert!(preface(&over(None, client())).is_empty());
        let mut request = over(Some(Version::V1), client());
        assert_eq!(text(&request), "PROXY TCP4 192.0.2.1 198.51.100.2 40000 8080\r\n");
        request.real_ip = Some(Address::Tcp("203.0.113.7:0".parse().unwrap()));
        assert_eq!(text(&request), "PROXY TCP4 203.0.113.7 198.51.100.2 0 8080\r\n");
    }

    #[test]
    fn a_unix_socket_has_the_address_of_the_one_in_front_or_none() {
        let unix = ClientConnection { local: Address::Unix("/run/x".into()), ..client() };
        assert_eq!(text(&over(Some(Version::V1), unix.clone())), "PROXY UNKNOWN\r\n");
        let header = b"PROXY TCP4 192.0.2.9 198.51.100.9 9 99\r\n";
        let Ok(Parsed::Complete(proxied, _)) = parse(header) else { panic!("a header") };
        let behind = ClientConnection { proxied: proxied.map(Box::new), ..unix };
        assert_eq!(text(&over(Some(Version::V1), behind)), "PROXY TCP4 192.0.2.1 198.51.100.9 40000 99\r\n");
    }
}
