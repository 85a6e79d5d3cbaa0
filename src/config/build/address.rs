//! `host[:port]`, `[v6]:port` and `unix:path` (`ngx_parse_url`). Nothing is looked up.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use super::super::BackendAddress;

/// Longest path of a unix socket (`sun_path`, unix(7)), its NUL not counted.
const UNIX_PATH_BYTES: usize = 107;

/// Splits `host[:port]`; the host of an IPv6 address comes without brackets.
///
/// # Errors
/// nginx's words for what is wrong.
pub fn split(text: &str) -> Result<(&str, Option<u16>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("invalid host")?;
        host.parse::<Ipv6Addr>().map_err(|_| "invalid IPv6 address")?;
        return match rest.strip_prefix(':') {
            None if rest.is_empty() => Ok((host, None)),
            None => Err("invalid host"),
            Some(port) => Ok((host, Some(self::port(port)?))),
        };
    }
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((_, port)) if port.contains(':') => return Err("an IPv6 address must be in brackets: invalid host"),
        Some((host, port)) => (host, Some(self::port(port)?)),
    };
    if host.is_empty() {
        return Err("no host");
    }
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') || byte >= 0x80) {
        return Err("invalid host");
    }
    Ok((host, port))
}

/// A port, 1 to 65535.
///
/// # Errors
/// nginx's words.
pub fn port(text: &str) -> Result<u16, &'static str> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or("invalid port")
}

/// The path of a unix socket.
///
/// # Errors
/// nginx's words.
pub fn unix(path: &str) -> Result<PathBuf, &'static str> {
    match path.len() {
        0 => Err("no path in the unix domain socket"),
        length if length > UNIX_PATH_BYTES => Err("too long path in the unix domain socket"),
        _ => Ok(PathBuf::from(path)),
    }
}

/// A backend's address, and the port where one is written.
///
/// # Errors
/// nginx's words.
pub fn backend(text: &str, default_port: u16) -> Result<(BackendAddress, Option<u16>), &'static str> {
    if let Some(path) = strip_unix(text) {
        return Ok((BackendAddress::Unix(unix(path)?), None));
    }
    let (host, written) = split(text)?;
    let port = written.unwrap_or(default_port);
    let address = match host.parse::<IpAddr>() {
        Ok(ip) => BackendAddress::Ip(SocketAddr::new(ip, port)),
        Err(_) => BackendAddress::Name(host.to_ascii_lowercase().into(), port),
    };
    Ok((address, written))
}

/// What follows `unix:`.
pub fn strip_unix(text: &str) -> Option<&str> {
    let (scheme, path) = text.split_at_checked(5)?;
    scheme.eq_ignore_ascii_case("unix:").then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_split_as_nginx_does() {
        assert_eq!(split("a.b:80"), Ok(("a.b", Some(80))));
        assert_eq!(split("my_app"), Ok(("my_app", None)));
        assert_eq!(split("[::1]:8080"), Ok(("::1", Some(8080))));
        assert_eq!(split("[::1]"), Ok(("::1", None)));
        assert_eq!(split(":80"), Err("no host"));
        assert_eq!(split("a:"), Err("invalid port"));
        assert_eq!(split("a:0"), Err("invalid port"));
        assert_eq!(split("a:65536"), Err("invalid port"));
        assert_eq!(split("a:+80"), Err("invalid port"));
        assert_eq!(split("[::1"), Err("invalid host"));
        assert_eq!(split("[zz]:1"), Err("invalid IPv6 address"));
        assert_eq!(split("a b"), Err("invalid host"));
        assert!(split("::1").is_err());
    }

    #[test]
    fn backends_are_addresses_names_and_sockets() {
        assert_eq!(backend("127.0.0.1", 80), Ok((BackendAddress::Ip(([127, 0, 0, 1], 80).into()), None)));
        assert_eq!(backend("Node:3000", 80), Ok((BackendAddress::Name("node".into(), 3000), Some(3000))));
        assert_eq!(backend("unix:/run/x", 80), Ok((BackendAddress::Unix("/run/x".into()), None)));
        assert!(backend("unix:", 80).is_err());
        assert!(backend(&format!("unix:/{}", "x".repeat(200)), 80).is_err());
    }
}
