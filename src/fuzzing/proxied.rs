//! PROXY protocol headers; those of version 1 beside std's own parsers.

use std::net::{IpAddr, SocketAddr};

use super::pieces::cuts;
use crate::proxy_protocol::{Parsed, Tlv, Version, header, parse};

/// A header, however it arrives; written down again it says the same.
pub fn proxy_protocol(data: &[u8]) {
    let whole = parse(data);
    for cut in cuts(data) {
        let part = parse(&data[..cut]);
        assert!(part == Ok(Parsed::Partial) || part == whole, "the first {cut} bytes: {part:?}, not {whole:?}");
    }
    let Ok(Parsed::Complete(found, used)) = whole else { return };
    let text = &data[..used];
    if text.starts_with(b"PROXY ") {
        assert_eq!(found.as_ref().map(|found| (found.source, found.destination)), line(text));
    }
    let Some(found) = found else { return };
    for name in ["alpn", "ssl", "ssl_verify", "ssl_version", "0xea", "ssl_0x21"] {
        let mut out = b"before".to_vec();
        let told = found.append_tlv(Tlv::named(name).expect("a name"), &mut out);
        assert!(out.starts_with(b"before") && (told || out.len() == 6) && out.len() <= used + 16);
    }
    let ends = [found.source, found.destination].map(canonical);
    for version in [Version::V1, Version::V2] {
        let again = header(version, Some((found.source, found.destination)));
        let Ok(Parsed::Complete(Some(read), length)) = parse(&again) else { panic!("{}", again.escape_ascii()) };
        assert_eq!(([read.source, read.destination].map(canonical), length), (ends, again.len()));
    }
}

fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// The ends that a line of version 1 names; None for `UNKNOWN`.
fn line(text: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let text = str::from_utf8(text).expect("ASCII").strip_suffix("\r\n").expect("CRLF");
    let words: Vec<&str> = text.split(' ').collect();
    let (family, [source, destination, from, to]) = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return None,
        ["PROXY", family @ ("TCP4" | "TCP6"), ref ends @ ..] => (family, ends.try_into().expect("four words")),
        _ => panic!("{text}"),
    };
    let end = |ip: &str, port: &str| {
        let end = SocketAddr::new(ip.parse().expect("an address"), port.parse().expect("a port"));
        assert_eq!(end.is_ipv4(), family == "TCP4");
        end
    };
    Some((end(source, from), end(destination, to)))
}
