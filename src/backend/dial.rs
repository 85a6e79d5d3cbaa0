//! The socket to a backend: from which address of ours, and what is said where there is no port left.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::SockAddr;

use super::{Blame, Failed};
use crate::{
    config::Sources,
    http::refusal::Refusal,
    limits::SOURCES_TRIED,
    observe::os_error,
    sys,
    upstream::{
        Backend,
        ports::{Port, Ports},
    },
};

/// Reasons of refusals: all ports from an address of ours to the backend are taken;
const NO_PORT: &str = "upstream_ports";
/// this host has not the address to come from.
const NO_SOURCE: &str = "upstream_bind";

/// A connection that was begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub fd: OwnedFd,
    /// None on a unix socket.
    pub port: Option<Port>,
}

/// Begins a connection, from the first of `sources` that has a port left. A unix socket has no source address.
///
/// # Errors
/// 502; [`Blame::Ports`] where it is this host that has no port, or no such address.
pub(super) fn begin(backend: &Backend, sources: Option<&Sources>, ports: &Ports) -> Result<Begun, Failed> {
    let address = match backend {
        Backend::Tcp(address) => *address,
        Backend::Unix(path) => {
            let address = SockAddr::unix(path).map_err(Failed::connect)?;
            let socket = sys::stream_socket(address.domain()).map_err(Failed::connect)?;
            sys::connect(&socket, &address).map_err(Failed::connect)?;
            return Ok(Begun { fd: socket.into(), port: None });
        }
    };
    let Some(sources) = sources else { return begin_from(None, address, ports) };
    let (mut tried, mut missing) = (0, None);
    for source in sources.in_turn(address.ip()) {
        if ports.are_used_up(source, address) {
            continue;
        }
        match begin_from(Some(source), address, ports) {
            Err(failed) if failed.refusal.reason == NO_SOURCE => missing = Some(failed),
            Err(failed) if failed.refusal.reason == NO_PORT => {}
            result => return result,
        }
        tried += 1;
        if tried == SOURCES_TRIED {
            break;
        }
    }
    Err(match (sources.family(address.ip()), missing) {
        ([], _) => no_address_of_its_family(address),
        ([_], Some(missing)) => missing,
        ([only], None) => no_port(&only.to_string(), address),
        (all, _) => no_port(&format!("any of the {} addresses of `proxy_bind`", all.len()), address),
    })
}

fn begin_from(source: Option<IpAddr>, backend: SocketAddr, ports: &Ports) -> Result<Begun, Failed> {
    let address = SockAddr::from(backend);
    let socket = sys::stream_socket(address.domain()).map_err(Failed::connect)?;
    if let Some(source) = source {
        bind(&socket, source, ports)?;
    }
    let port = ports.take(source, backend);
    match sys::connect(&socket, &address) {
        Ok(()) => Ok(Begun { fd: socket.into(), port: Some(port) }),
        // connect(2): no port is left. An address that is not ours is bind(2)'s to find.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            let from = source.map_or_else(|| "this host".to_owned(), |source| source.to_string());
            Err(no_port(&from, backend))
        }
        Err(error) => Err(Failed::connect(error)),
    }
}

/// The port is chosen by connect(2), which knows the backend: bind(2) would take one that no other connection has, to whatever backend
/// (ip(7), IP_BIND_ADDRESS_NO_PORT, Linux 4.2; of IPv6 sockets too).
fn bind(socket: &socket2::Socket, source: IpAddr, ports: &Ports) -> Result<(), Failed> {
    let bound = setsockopt(socket, IpBindAddressNoPort, &true)
        .map_err(io::Error::from)
        .and_then(|()| socket.bind(&SockAddr::from(SocketAddr::new(source, 0))));
    let is_missing = bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable);
    ports.note_source(source, !is_missing);
    bound.map_err(|error| {
        let why = if is_missing { ": this host has no such address" } else { "" };
        let error = os_error(&error);
        Failed::ports(NO_SOURCE, format!("bind({source}) failed ({error}) while connecting to upstream{why}"))
    })
}

fn no_port(from: &str, backend: SocketAddr) -> Failed {
    Failed::ports(
        NO_PORT,
        format!(
            "connect() failed (99: Cannot assign requested address) while connecting to upstream: no local port is left from {from} to \
             {backend}"
        ),
    )
}

/// Not unbound instead: whoever names addresses has a rule for them somewhere.
fn no_address_of_its_family(backend: SocketAddr) -> Failed {
    let family = if backend.is_ipv4() { "IPv4" } else { "IPv6" };
    Failed::ports(NO_SOURCE, format!("`proxy_bind` has no {family} address to reach {backend} from"))
}

impl Failed {
    fn ports(reason: &'static str, detail: String) -> Self {
        Self { refusal: Refusal::private(502, reason, detail), blame: Blame::Ports, error: None }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn sources(texts: &[&str]) -> Sources {
        Sources::new(texts.iter().map(|text| text.parse().unwrap()))
    }

    fn reason(result: Result<Begun, Failed>) -> &'static str {
        result.map_or_else(|failed| failed.refusal.reason, |_| "begun")
    }

    #[test]
    fn connections_come_from_each_address_in_turn_and_pass_over_what_is_not_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = Backend::Tcp(listener.local_addr().unwrap());
        let (sources, ports) = (sources(&["127.0.0.2", "198.51.100.77", "127.0.0.3"]), Ports::default());
        let from = || {
            let begun = begin(&backend, Some(&sources), &ports).map_err(|failed| failed.refusal);
            let socket = socket2::Socket::from(begun.unwrap().fd);
            socket.local_addr().unwrap().as_socket().unwrap().ip().to_string()
        };
        let turns = [(); 6].map(|()| from());
        assert_eq!(turns, ["127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.2", "127.0.0.3", "127.0.0.3"]);
        let said = ports.remarks();
        assert!(
            said.len() == 1 && said[0].contains("198.51.100.77") && said[0].contains("no such address"),
            "{said:?}"
        );
    }

    #[test]
    fn one_connection_does_not_try_every_address_of_a_long_pool() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (backend, ports) = (Backend::Tcp(listener.local_addr().unwrap()), Ports::default());
        let mut pool: Vec<_> = (0..SOURCES_TRIED).map(|number| format!("198.51.100.{number}")).collect();
        pool.push("127.0.0.2".to_owned());
        let sources = sources(&pool.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(reason(begin(&backend, Some(&sources), &ports)), NO_PORT);
        assert_eq!(reason(begin(&backend, Some(&sources), &ports)), "begun", "the next one begins elsewhere");
    }

    #[test]
    fn what_this_host_lacks_is_told_apart_and_no_backend_s_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (backend, ports) = (Backend::Tcp(listener.local_addr().unwrap()), Ports::default());
        let failed = begin(&backend, Some(&sources(&["198.51.100.77"])), &ports).unwrap_err();
        assert!(
            failed.blame == Blame::Ports && failed.refusal.detail.contains("this host has no such address"),
            "{failed:?}"
        );
        let failed = begin(&backend, Some(&sources(&["::1"])), &ports).unwrap_err();
        assert!(failed.blame == Blame::Ports && failed.refusal.detail.contains("no IPv4 address"), "{failed:?}");
        assert_eq!(ports.seen(), []);
        let nobody = Backend::Unix("/nowhere/at/all".into());
        let failed = begin(&nobody, Some(&sources(&["198.51.100.77"])), &ports).unwrap_err();
        assert!(failed.blame == Blame::Backend, "a unix socket has no source address: {failed:?}");
        assert_eq!(reason(begin(&backend, Some(&sources(&["127.0.0.5"])), &ports)), "begun");
    }
}
