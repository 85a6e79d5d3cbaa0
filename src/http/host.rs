//! Host and port of a request: the text routing trusts, so nothing doubtful is let into it.

use std::net::Ipv6Addr;

/// The host of `host[:port]` in lower case, without port and without a trailing dot, as nginx's `$host`; an IPv6 address
/// keeps its brackets. None where the text is no such thing.
///
/// Stricter than RFC 3986: only letters, digits, `-`, `.`, `_` and `~`. Percent-encoding and sub-delimiters occur in no
/// real host name, and each has been a way to be understood differently by two readers. Non-ASCII names arrive as punycode.
pub fn host_of(authority: &[u8]) -> Option<Box<[u8]>> {
    let (host, port) = split_port(authority)?;
    if !port.is_none_or(is_port) {
        return None;
    }
    let host = host.strip_suffix(b".").unwrap_or(host);
    (is_ipv6(host) || is_name(host)).then(|| host.to_ascii_lowercase().into())
}

/// Splits at the colon before the port, which is not one of those inside `[...]`.
fn split_port(authority: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let host_len = match authority.first()? {
        b'[' => memchr::memchr(b']', authority)? + 1,
        _ => memchr::memchr(b':', authority).unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(host_len);
    match rest {
        [] => Some((host, None)),
        [b':', port @ ..] => Some((host, Some(port))),
        _ => None,
    }
}

/// `*DIGIT` (RFC 3986 section 3.2.3: it may be empty) up to 65535.
fn is_port(port: &[u8]) -> bool {
    let number = port.iter().try_fold(0u16, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.is_some()
}

fn is_ipv6(host: &[u8]) -> bool {
    let inner = host.strip_prefix(b"[").and_then(|host| host.strip_suffix(b"]"));
    inner.and_then(|inner| str::from_utf8(inner).ok()).is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

/// Labels of one or more permitted characters between single dots.
fn is_name(host: &[u8]) -> bool {
    let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
    host.split(|byte| *byte == b'.').all(|label| !label.is_empty() && label.iter().all(permitted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(authority: &str) -> Option<String> {
        host_of(authority.as_bytes()).map(|host| String::from_utf8(host.into()).expect("ASCII"))
    }

    #[test]
    fn host_is_lower_case_without_port_and_trailing_dot() {
        for authority in ["Example.COM", "example.com:8080", "example.com.", "EXAMPLE.com.:80", "example.com:"] {
            assert_eq!(host(authority).as_deref(), Some("example.com"), "{authority}");
        }
    }

    #[test]
    fn addresses_are_hosts_and_ipv6_keeps_its_brackets() {
        assert_eq!(host("127.0.0.1:3000").as_deref(), Some("127.0.0.1"));
        assert_eq!(host("[::1]:443").as_deref(), Some("[::1]"));
        assert_eq!(host("[2001:DB8::a]").as_deref(), Some("[2001:db8::a]"));
        for bad in ["[::1", "::1", "[::1]x", "[::1]:x", "[fe80::1%25eth0]", "[]", "[v1.x]", "[::1.]"] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_could_be_read_two_ways_is_no_host() {
        let bad =
            ["", ".", "..", "a..b", ".a", "user@host", "a/b", "a b", "a,b", "a?b", "a#b", "a\\b", "a%2eb", "a:b", "é"];
        for bad in bad {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[test]
    fn ports_end_at_65535() {
        assert_eq!(host("a:65535").as_deref(), Some("a"));
        for bad in ["a:65536", "a:99999999999", "a:-1", "a:+1", "a:1:2", "a: 1", "a:0x1"] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_host_found_is_its_own_host(authority in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Some(host) = host_of(&authority) {
                prop_assert_eq!(host_of(&host), Some(host));
            }
        }
    }
}
