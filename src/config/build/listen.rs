//! `listen`: one [`Listener`] for each distinct address, whatever server names it (`ngx_http_add_listen`).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use super::{
    super::{
        KeepAlive, ListenAddress, ListenOptions, Listener,
        diagnostic::{Diagnostic, Span, did_you_mean},
        values,
    },
    Build, Directive, address,
};
use crate::route::server_name::{ServerId, ServerNames};

const PARAMETERS: [&str; 16] = [
    "default_server",
    "ssl",
    "http2",
    "reuseport",
    "deferred",
    "bind",
    "backlog=",
    "rcvbuf=",
    "sndbuf=",
    "fastopen=",
    "so_keepalive=on",
    "so_keepalive=off",
    "so_keepalive=",
    "ipv6only=on",
    "ipv6only=off",
    "proxy_protocol",
];

/// nginx's backlog on Linux.
const BACKLOG: i32 = 511;

/// An address while servers are still being read.
pub struct Bound {
    pub address: ListenAddress,
    options: ListenOptions,
    /// Where its options were set: only one `listen` of an address may.
    set_at: Option<Span>,
    pub ssl: bool,
    proxy_protocol: bool,
    default_at: Option<(ServerId, Span)>,
    pub servers: Vec<(ServerId, Span)>,
}

impl Bound {
    /// The server for names that none has: `default_server`, else the first.
    pub fn default(&self) -> ServerId {
        self.default_at.map(|(server, _)| server).or(self.servers.first().map(|(server, _)| *server)).unwrap_or(0)
    }

    /// As it is used.
    pub fn into_listener(self, names: ServerNames) -> Listener {
        let default = self.default();
        let servers = self.servers.into_iter().map(|(server, _)| server).collect();
        let Self { address, options, ssl, proxy_protocol, .. } = self;
        Listener { address, options, ssl, proxy_protocol, default, names, servers }
    }

    /// As nginx writes it.
    pub fn name(&self) -> String {
        show(&self.address)
    }
}

/// What one `listen` says.
#[derive(Default)]
struct Parameters {
    options: ListenOptions,
    set: bool,
    ssl: bool,
    proxy_protocol: bool,
    default: bool,
}

impl Build<'_> {
    /// Adds what one `listen` of a server says.
    pub(super) fn listen(&mut self, directive: &Directive, server: ServerId, bound: &mut Vec<Bound>) {
        let addresses = match addresses(directive.arg(0)) {
            Ok(addresses) => addresses,
            Err(why) => {
                let message = format!("{why} in \"{}\" of the \"listen\" directive", directive.arg(0));
                self.report.push(
                    Diagnostic::error(directive.arg_span(0), message)
                        .help("`80`, `127.0.0.1:8080`, `[::]:443`, `unix:/run/x.sock`"),
                );
                return;
            }
        };
        let parameters = self.listen_parameters(directive);
        for address in addresses {
            self.bind(address, &parameters, directive.span(), server, bound);
        }
    }

    /// Where a server without `listen` listens, as nginx: port 80, or 8000 when that port is not for us.
    pub(super) fn listen_default(&mut self, span: Span, server: ServerId, bound: &mut Vec<Bound>) {
        let port = if nix::unistd::geteuid().is_root() { 80 } else { 8000 };
        self.bind(any_address(port), &Parameters::default(), span, server, bound);
    }

    fn bind(&mut self, address: ListenAddress, new: &Parameters, span: Span, server: ServerId, bound: &mut Vec<Bound>) {
        let Some(known) = bound.iter_mut().find(|known| known.address == address) else {
            bound.push(Bound {
                address,
                options: new.options.clone(),
                set_at: new.set.then_some(span),
                ssl: new.ssl,
                proxy_protocol: new.proxy_protocol,
                default_at: new.default.then_some((server, span)),
                servers: vec![(server, span)],
            });
            return;
        };
        let name = known.name();
        if let Some((_, first)) = known.servers.iter().find(|(id, _)| *id == server) {
            let error = Diagnostic::error(span, format!("a duplicate listen {name}"));
            self.report.push(error.related(*first, "it is here already"));
            return;
        }
        if new.set {
            if let Some(first) = known.set_at {
                let error = Diagnostic::error(span, format!("duplicate listen options for {name}"));
                self.report
                    .push(error.related(first, "they are here already").help("the options of an address are set once"));
            }
            known.options = new.options.clone();
            known.set_at = Some(span);
        }
        if new.default {
            if let Some((_, first)) = known.default_at {
                let error = Diagnostic::error(span, format!("a duplicate default server for {name}"));
                self.report.push(error.related(first, "it is here already"));
            }
            known.default_at = Some((server, span));
        }
        if (new.ssl, new.proxy_protocol) != (known.ssl, known.proxy_protocol) {
            let warning = Diagnostic::warning(span, format!("protocol options redefined for {name}"));
            let first = known.servers.first().map_or(span, |(_, first)| *first);
            let warning = warning.related(first, "with other protocols here");
            let option = if new.ssl == known.ssl { "proxy_protocol" } else { "ssl" };
            self.report.push(warning.help(format!(
                "`{option}` holds for every server on an address, or for none: write it in each `listen`"
            )));
            known.ssl |= new.ssl;
            known.proxy_protocol |= new.proxy_protocol;
        }
        known.servers.push((server, span));
    }

    fn listen_parameters(&mut self, directive: &Directive) -> Parameters {
        let mut parameters = Parameters::default();
        for index in 1..directive.args.len() {
            self.listen_parameter(&mut parameters, directive, index);
        }
        parameters
    }

    fn listen_parameter(&mut self, to: &mut Parameters, directive: &Directive, index: usize) {
        let (text, span) = (directive.arg(index), directive.arg_span(index));
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let number = |value: &str| values::number(value).and_then(|number| i32::try_from(number).ok());
        let bytes = |value: &str| values::size(value).and_then(|size| usize::try_from(size).ok());
        let options = &mut to.options;
        let protocol = matches!(name, "default_server" | "default" | "ssl" | "http2" | "spdy" | "proxy_protocol");
        to.set |= !protocol;
        let good = match (name, value) {
            ("default_server" | "default", None) => store(&mut to.default, Some(true)),
            ("ssl", None) => store(&mut to.ssl, Some(true)),
            ("proxy_protocol", None) => store(&mut to.proxy_protocol, Some(true)),
            ("http2" | "spdy", None) => {
                let note = format!("`{name}` has no effect: HTTP/2 is not spoken yet, clients get HTTP/1.1");
                self.report.push(Diagnostic::note(span, note));
                true
            }
            ("bind" | "reuseport", None) => true,
            ("deferred", None) => store(&mut options.deferred, Some(true)),
            ("backlog", Some(value)) => store(&mut options.backlog, number(value).filter(|backlog| *backlog > 0)),
            ("rcvbuf", Some(value)) => store(&mut options.rcvbuf, bytes(value).map(Some)),
            ("sndbuf", Some(value)) => store(&mut options.sndbuf, bytes(value).map(Some)),
            ("fastopen", Some(value)) => store(&mut options.fastopen, number(value).map(Some)),
            ("so_keepalive", Some(value)) => store(&mut options.keepalive, keepalive(value)),
            // nginx takes it for IPv4 addresses too, where it means nothing.
            ("ipv6only", Some(value)) => store(&mut options.ipv6only, values::flag(value)),
            ("quic", None) => {
                let error = Diagnostic::error(span, "`quic` is not supported: HTTP/3 is not spoken here");
                self.report.push(error.help("remove this `listen`, and the Alt-Svc field that offers it"));
                return;
            }
            ("accept_filter" | "setfib", Some(_)) => {
                self.error(span, format!("`{name}` does not exist on Linux"));
                return;
            }
            ("multipath", None) => {
                self.error(span, "`multipath` is not supported");
                return;
            }
            _ => false,
        };
        if !good {
            let help = did_you_mean(text, PARAMETERS);
            self.report.push(Diagnostic::error(span, format!("invalid parameter \"{text}\"")).maybe_help(help));
        }
    }
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: BACKLOG,
            rcvbuf: None,
            sndbuf: None,
            keepalive: Some(KeepAlive::OURS),
            user_timeout: Duration::ZERO,
            ipv6only: true,
            fastopen: None,
            deferred: false,
        }
    }
}

fn store<T>(target: &mut T, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            *target = value;
            true
        }
        None => false,
    }
}

/// `on`, `off`, or `[idle]:[interval]:[count]`.
fn keepalive(text: &str) -> Option<Option<KeepAlive>> {
    match values::flag(text) {
        Some(true) => return Some(Some(KeepAlive::default())),
        Some(false) => return Some(None),
        None => {}
    }
    let parts: Vec<_> = text.split(':').collect();
    let [idle, interval, count] = parts.as_slice() else { return None };
    let time = |text: &str| match text {
        "" => Some(None),
        text => values::seconds(text).filter(|time| *time > Duration::ZERO).map(Some),
    };
    let count = match *count {
        "" => None,
        text => Some(values::number(text).and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0)?),
    };
    let keepalive = KeepAlive { idle: time(idle)?, interval: time(interval)?, count };
    (keepalive != KeepAlive::default()).then_some(Some(keepalive))
}

/// The addresses of `listen`'s first argument; several for a name or a range of ports.
fn addresses(text: &str) -> Result<Vec<ListenAddress>, String> {
    if let Some(path) = address::strip_unix(text) {
        return Ok(vec![ListenAddress::Unix(address::unix(path)?)]);
    }
    let (host, ports) = if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        ("*", Some(text))
    } else {
        // The colon of the port is behind the bracket of an IPv6 address.
        match text.rsplit_once(':').filter(|(host, _)| !host.starts_with('[') || host.ends_with(']')) {
            Some((host, ports)) => (host, Some(ports)),
            None => (text, None),
        }
    };
    let ports = match ports {
        None => 80..=80,
        Some(text) => match text.split_once('-') {
            None => address::port(text).map(|port| port..=port)?,
            Some((first, last)) => {
                let range = address::port(first)?..=address::port(last)?;
                if range.is_empty() { Err("invalid port")? } else { range }
            }
        },
    };
    let hosts = hosts(host)?;
    Ok(hosts.iter().flat_map(|ip| ports.clone().map(|port| ListenAddress::Tcp(SocketAddr::new(*ip, port)))).collect())
}

fn hosts(host: &str) -> Result<Vec<IpAddr>, String> {
    if host == "*" {
        return Ok(vec![Ipv4Addr::UNSPECIFIED.into()]);
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("invalid host")?;
        return inner.parse::<Ipv6Addr>().map(|ip| vec![ip.into()]).map_err(|_| "invalid IPv6 address".to_owned());
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(vec![ip.into()]);
    }
    address::split(host)?;
    // Nobody is asked for the names a fuzzer makes up.
    if cfg!(fuzzing) {
        return Err("host not found".to_owned());
    }
    let mut found: Vec<_> =
        (host, 0).to_socket_addrs().map_err(|_| "host not found")?.map(|address| address.ip()).collect();
    found.dedup();
    if found.is_empty() { Err("host not found".to_owned()) } else { Ok(found) }
}

fn any_address(port: u16) -> ListenAddress {
    ListenAddress::Tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
}

fn show(address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        addresses(text).map(|found| found.iter().map(show).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn addresses_are_nginx_s() {
        let good = |text: &str, expected: &str| assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        good("80", "0.0.0.0:80");
        good("*:8080", "0.0.0.0:8080");
        good("127.0.0.1", "127.0.0.1:80");
        good("127.0.0.1:81", "127.0.0.1:81");
        good("[::]:443", "[::]:443");
        good("[::1]", "[::1]:80");
        good("unix:/run/a.sock", "unix:/run/a.sock");
        good("8000-8002", "0.0.0.0:8000 0.0.0.0:8001 0.0.0.0:8002");
        good("127.0.0.1:1-2", "127.0.0.1:1 127.0.0.1:2");
        for wrong in
            ["0", "65536", "a:b", "127.0.0.1:", "[::1:80", "[zz]:80", "unix:", "9-8", "", ":80", "no.such.invalid:1"]
        {
            assert!(shown(wrong).is_err(), "{wrong}: {:?}", shown(wrong));
        }
    }

    #[test]
    fn keepalive_is_a_flag_or_three_values() {
        assert_eq!(keepalive("on"), Some(Some(KeepAlive::default())));
        assert_eq!(keepalive("off"), Some(None));
        let minutes = KeepAlive { idle: Some(Duration::from_secs(1800)), interval: None, count: Some(10) };
        assert_eq!(keepalive("30m::10"), Some(Some(minutes)));
        for wrong in ["", "::", "1", "a::", "1:2:3:4", "0::"] {
            assert_eq!(keepalive(wrong), None, "{wrong}");
        }
    }
}
