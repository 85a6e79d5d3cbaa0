//! `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`: whose request it is, by the word of a proxy in front that is believed
//! (`ngx_http_realip_module`).

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::access::Whom;
use crate::http::fields::Fields;

/// What holds at a level of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealIp {
    /// `set_real_ip_from`: whose word is believed.
    pub from: Arc<[Whom]>,
    /// `real_ip_header`: where it stands.
    pub header: RealIpHeader,
    /// `real_ip_recursive`: while it names one who is believed too, the word before it counts.
    pub recursive: bool,
}

/// `real_ip_header`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RealIpHeader {
    /// `X-Forwarded-For`: a list, over all its lines.
    ForwardedFor,
    /// Any other field: its first line.
    Field(Box<str>),
    /// `proxy_protocol`: the header before the first request.
    ProxyProtocol,
}

impl RealIp {
    /// The address the client is taken to have; port 0 where none is named. None: nobody who is believed names one, so that the
    /// connection's own holds. `client`: its IP address, none of a unix socket. `proxied`: who its PROXY protocol header names.
    pub fn find(&self, client: Option<IpAddr>, fields: &Fields, proxied: Option<SocketAddr>) -> Option<SocketAddr> {
        match &self.header {
            RealIpHeader::ProxyProtocol => proxied.filter(|_| self.believes(client)),
            RealIpHeader::Field(name) => self.walk(client, fields.get(name).into_iter()),
            RealIpHeader::ForwardedFor => {
                let lines: Vec<_> = fields.all("x-forwarded-for").collect();
                self.walk(client, lines.into_iter().rev())
            }
        }
    }

    /// From the last address of the last line on, which the nearest proxy wrote, as long as whoever comes next is believed.
    fn walk<'a>(
        &self,
        client: Option<IpAddr>,
        lines_from_the_last: impl Iterator<Item = &'a [u8]>,
    ) -> Option<SocketAddr> {
        let mut sender = client;
        let mut found = None;
        for text in lines_from_the_last.flat_map(members_from_the_last) {
            // What is no address is nobody's: whoever came before it cannot be known.
            let Some(address) = address(text).filter(|_| self.believes(sender)) else { break };
            found = Some(address);
            sender = Some(address.ip());
            if !self.recursive {
                break;
            }
        }
        found
    }

    /// As nginx, an IPv4 client at an IPv6 socket (`::ffff:192.0.2.1`) is one of IPv4.
    fn believes(&self, sender: Option<IpAddr>) -> bool {
        let sender = sender.map(|sender| sender.to_canonical());
        self.from.iter().any(|whom| whom.is(sender))
    }
}

/// The members of a list, of which blanks and commas are the ends.
fn members_from_the_last(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.rsplit(|byte| matches!(byte, b' ' | b',')).filter(|member| !member.is_empty())
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80` (`ngx_parse_addr_port`).
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, 0)),
        // A zone (`fe80::1%2`) means something on the host that wrote it, and not here.
        Err(_) => text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0 && !text.contains('%')),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FORWARDED: &str = "X-Forwarded-For";

    fn real_ip(from: &str, header: RealIpHeader, recursive: bool) -> RealIp {
        let whom = |text: &str| match text {
            "unix:" => Whom::Unix,
            net => Whom::Net(net.parse().unwrap()),
        };
        RealIp { from: from.split_whitespace().map(whom).collect(), header, recursive }
    }

    fn fields(lines: &[(&str, &str)]) -> Fields {
        Fields::from_pairs(lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    /// What `client` is taken to be by `X-Forwarded-For` of these lines.
    fn forwarded(from: &str, recursive: bool, client: &str, lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| (FORWARDED, *line)).collect();
        let found =
            real_ip(from, RealIpHeader::ForwardedFor, recursive).find(client.parse().ok(), &fields(&lines), None);
        found.map_or_else(|| "own".to_owned(), |found| found.to_string())
    }

    #[test]
    fn the_last_address_counts_where_its_sender_is_believed() {
        let of = |line: &str| forwarded("10.0.0.0/8", false, "10.0.0.1", &[line]);
        assert_eq!(of("192.0.2.1"), "192.0.2.1:0");
        assert_eq!(of("198.51.100.9, 192.0.2.1"), "192.0.2.1:0");
        assert_eq!(of("198.51.100.9,192.0.2.1 , "), "192.0.2.1:0");
        assert_eq!(of("192.0.2.1 10.0.0.9"), "10.0.0.9:0");
        assert_eq!(forwarded("10.0.0.0/8", false, "11.0.0.1", &["192.0.2.1"]), "own");
        assert_eq!(forwarded("10.0.0.0/8", false, "unix", &["192.0.2.1"]), "own");
        assert_eq!(forwarded("unix:", false, "unix", &["192.0.2.1"]), "192.0.2.1:0");
        assert_eq!(forwarded("10.0.0.0/8", false, "::ffff:10.0.0.1", &["192.0.2.1"]), "192.0.2.1:0");
        assert_eq!(forwarded("::ffff:0:0/96", false, "::ffff:10.0.0.1", &["192.0.2.1"]), "own", "as nginx");
    }

    #[test]
    fn addresses_may_have_ports_and_brackets() {
        let of = |text: &str| forwarded("10.0.0.1/32", false, "10.0.0.1", &[text]);
        for (text, expected) in [
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("2001:db8::1", "[2001:db8::1]:0"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:0"),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_changes_nothing() {
        for text in [
            "",
            ",",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.1:",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "192.0.2.1:x",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]80",
            "fe80::1%eth0",
            "[fe80::1%1]:80",
            "for=192.0.2.1",
            "192.0.2.1\t",
            "a.example",
            "\u{661}.0.0.1",
        ] {
            assert_eq!(forwarded("10.0.0.1/32", true, "10.0.0.1", &[text]), "own", "{text:?}");
        }
    }

    #[test]
    fn recursion_goes_back_to_the_first_who_is_not_believed() {
        let of = |lines: &[&str]| forwarded("10.0.0.0/8", true, "10.0.0.1", lines);
        assert_eq!(of(&["192.0.2.1, 198.51.100.9, 10.0.0.3, 10.0.0.2"]), "198.51.100.9:0");
        assert_eq!(of(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3:0", "all are believed: the first");
        assert_eq!(of(&["192.0.2.1", "198.51.100.9, 10.0.0.3", "10.0.0.2"]), "198.51.100.9:0", "over all lines");
        assert_eq!(of(&["192.0.2.1, junk, 10.0.0.3, 10.0.0.2"]), "10.0.0.3:0", "as far as it can be read");
        assert_eq!(of(&["192.0.2.1", "junk", "10.0.0.2"]), "10.0.0.2:0");
        assert_eq!(forwarded("10.0.0.0/8", false, "10.0.0.1", &["192.0.2.1", "10.0.0.2"]), "10.0.0.2:0");
    }

    #[test]
    fn other_fields_have_one_line_and_proxy_protocol_none() {
        let named = real_ip("10.0.0.0/8", RealIpHeader::Field("X-Client".into()), true);
        let client = "10.0.0.1".parse().ok();
        let found = |real_ip: &RealIp, lines: &[(&str, &str)], proxied: Option<&str>| {
            let proxied = proxied.map(|proxied| proxied.parse().unwrap());
            real_ip.find(client, &fields(lines), proxied).map(|found| found.to_string())
        };
        let lines = [(FORWARDED, "192.0.2.9"), ("x-client", "192.0.2.1, 10.0.0.2"), ("X-Client", "192.0.2.2")];
        assert_eq!(found(&named, &lines, Some("192.0.2.7:1")).as_deref(), Some("192.0.2.1:0"));
        let proxied = real_ip("10.0.0.0/8", RealIpHeader::ProxyProtocol, true);
        assert_eq!(found(&proxied, &lines, Some("192.0.2.7:1")).as_deref(), Some("192.0.2.7:1"));
        assert_eq!(found(&proxied, &lines, None), None);
        assert_eq!(proxied.find("11.0.0.1".parse().ok(), &fields(&lines), "192.0.2.7:1".parse().ok()), None);
    }

    proptest! {
        #[test]
        fn nobody_who_is_not_believed_is_heard(
            lines in prop::collection::vec(prop::collection::vec(prop::sample::select(PIECES), 0..6), 0..4),
        ) {
            let lines: Vec<_> = lines.iter().map(|pieces| pieces.concat()).collect();
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(forwarded("10.0.0.0/8", true, "192.0.2.1", &lines), "own");
            let last = lines.iter().rev().flat_map(|line| line.rsplit([' ', ','])).find(|member| !member.is_empty());
            let known = last.and_then(|last| address(last.as_bytes()));
            let expected = known.map_or_else(|| "own".to_owned(), |known| known.to_string());
            prop_assert_eq!(forwarded("10.0.0.0/8", false, "10.0.0.1", &lines), expected);
        }
    }

    const PIECES: &[&str] =
        &["192.0.2.9", "10.0.0.1", "10.0.0.2:80", "2001:db8::1", "[::1]:8", "junk", ", ", ",", " ", ":", "[", "]", "."];
}
