//! `proxy_bind`: are its addresses this host's?

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, UdpSocket},
};

use crate::config::{
    Bind, Config,
    diagnostic::{Diagnostic, Severity},
};

/// Addresses that are named; of more than these the rest are counted.
const NAMED: usize = 8;

/// A warning where this host has not all addresses of `proxy_bind`: no error, since a standby may have them later.
pub(super) fn lint(config: &Config) -> Option<Diagnostic> {
    let missing: Vec<_> = addresses(config).into_iter().filter(|address| is_missing(*address)).collect();
    if missing.is_empty() {
        return None;
    }
    let mut names = missing.iter().take(NAMED).map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    if missing.len() > NAMED {
        names += &format!(" and {} more", missing.len() - NAMED);
    }
    let message = format!(
        "this host has no address {names}: `proxy_bind` passes over it, and requests get 502 where no other address is left"
    );
    let help = "`ip address add ADDRESS dev INTERFACE`; a whole block: `ip route add local BLOCK dev lo`";
    Some(Diagnostic::new(Severity::Warning, message).help(help))
}

fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    let locations = config.servers.iter().flat_map(|server| &server.locations);
    let pools = locations.filter_map(|location| match &location.settings.bind {
        Some(Bind::Pool(sources)) => Some(sources),
        Some(Bind::Variable(_)) | None => None,
    });
    pools.flat_map(|sources| sources.addresses()).collect()
}

/// bind(2): EADDRNOTAVAIL. A datagram socket asks for the same, and takes no port from connections.
fn is_missing(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::{super::tests::config, *};

    #[test]
    fn addresses_that_this_host_has_not_are_named() {
        let warning = |sources: &str| {
            let text = format!(
                "events {{}} http {{ server {{ listen 80; {sources} location / {{ proxy_pass http://127.0.0.1:2; }} }} }}"
            );
            lint(&config(&text)).map(|warning| warning.message)
        };
        assert_eq!(warning(""), None);
        assert_eq!(warning("proxy_bind 127.0.0.1 127.0.0.9;"), None);
        let said = warning("proxy_bind 127.0.0.1 198.51.100.7;").unwrap();
        assert!(said.contains("no address 198.51.100.7:"), "{said}");
        let said = warning("proxy_bind 198.51.100.0/24;").unwrap();
        assert!(said.contains("198.51.100.7 and 248 more"), "{said}");
    }
}
