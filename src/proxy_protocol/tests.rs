use proptest::prelude::*;

use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const IPV4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x10, 0x01, 0x01, 0xbb];

/// A header of version 2.
fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("a short body").to_be_bytes();
    [V2, &[command, family], &length, body].concat()
}

fn with_tlvs(tlvs: &[u8]) -> Vec<u8> {
    binary(0x21, 0x11, &[IPV4, tlvs].concat())
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a short value").to_be_bytes();
    [&[kind], &length[..], value].concat()
}

/// Source and destination of a header that must be right, whole at its length and at none before.
fn ends(header: &[u8]) -> Option<(String, String)> {
    for cut in 0..header.len() {
        assert_eq!(parse(&header[..cut]), Ok(Parsed::Partial), "the first {cut} bytes of {}", header.escape_ascii());
    }
    let followed = [header, b"GET / HTTP/1.1\r\n"].concat();
    match parse(&followed) {
        Ok(Parsed::Complete(proxied, length)) => {
            assert_eq!(length, header.len(), "{}", header.escape_ascii());
            proxied.map(|proxied| (proxied.source.to_string(), proxied.destination.to_string()))
        }
        other => panic!("{}: {other:?}", header.escape_ascii()),
    }
}

fn proxied(header: &[u8]) -> Proxied {
    match parse(header) {
        Ok(Parsed::Complete(Some(proxied), _)) => proxied,
        other => panic!("{other:?}"),
    }
}

fn reason(bytes: &[u8]) -> &'static str {
    match parse(bytes) {
        Err(refusal) => {
            assert_eq!(refusal.status, 444);
            refusal.reason
        }
        other => panic!("{}: {other:?}", bytes.escape_ascii()),
    }
}

fn pair(source: &str, destination: &str) -> Option<(String, String)> {
    Some((source.to_owned(), destination.to_owned()))
}

#[test]
fn text_headers_say_who_and_where_in_any_pieces() {
    let four = b"PROXY TCP4 192.0.2.1 198.51.100.2 4097 443\r\n";
    assert_eq!(ends(four), pair("192.0.2.1:4097", "198.51.100.2:443"));
    let six = b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n";
    assert_eq!(ends(six), pair("[2001:db8::1]:0", "[::1]:65535"));
    assert_eq!(ends(b"PROXY UNKNOWN\r\n"), None);
    let long = format!("PROXY UNKNOWN {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    assert_eq!(long.len(), V1_BYTES);
    assert_eq!(ends(long.as_bytes()), None);
}

#[test]
fn binary_headers_say_who_and_where_in_any_pieces() {
    assert_eq!(ends(&with_tlvs(b"")), pair("192.0.2.1:4097", "198.51.100.2:443"));
    let mut six = [0; 36];
    (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
    assert_eq!(ends(&binary(0x21, 0x21, &six)), pair("[::1]:3", "[::2]:4"));
    assert_eq!(ends(&with_tlvs(&tlv(0xea, b"x"))), pair("192.0.2.1:4097", "198.51.100.2:443"));
}

#[test]
fn who_has_no_address_and_port_keeps_the_connection_s_own() {
    for header in [
        binary(0x20, 0x00, b""),
        binary(0x20, 0x11, IPV4),
        // LOCAL: whatever follows is none of ours.
        binary(0x20, 0x11, b""),
        binary(0x20, 0xff, b"\x01\xff"),
        binary(0x21, 0x00, b"anything"),
        binary(0x21, 0x31, &[0; 216]),
        binary(0x21, 0x12, IPV4),
        binary(0x21, 0x10, IPV4),
    ] {
        assert_eq!(ends(&header), None, "{}", header.escape_ascii());
    }
}

#[test]
fn what_is_no_header_is_refused_at_its_first_wrong_byte() {
    for bytes in [
        &b"G"[..],
        b"\x16\x03\x01",
        b"PX",
        b"PROXY\t",
        b"proxy TCP4",
        b"\r\n\r\n\r",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\xff",
        b"\n",
    ] {
        assert_eq!(reason(bytes), "proxy_protocol_missing", "{}", bytes.escape_ascii());
    }
}

#[test]
fn broken_text_headers_are_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
        "PROXY UNKNOWN\n",
        "PROXY \r\n",
        "PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1\t198.51.100.2 1 2\r\n",
        "PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
        "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
        "PROXY TCP6 fe80::1%1 ::1 1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\rGET /\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY TCP4 192.0.2.\u{661} 198.51.100.2 1 2\r\n",
    ] {
        assert_eq!(reason(line.as_bytes()), "proxy_protocol_broken", "{line:?}");
    }
    // CR is no space, and no line ends without it.
    for line in ["PROXY UNKNOWN ffff::1 \n", "PROXY TCP4 192.0.2.1\r198.51.100.2 1 2\r\n", "PROXY UNKNOWN\r\r\n"] {
        assert_eq!(reason(line.as_bytes()), "proxy_protocol_broken", "{line:?}");
    }
    assert_eq!(reason(b"PROXY TCP4 \xff\xfe 198.51.100.2 1 2\r\n"), "proxy_protocol_broken");
}

#[test]
fn a_text_header_without_end_is_refused_at_its_longest() {
    let endless = ["PROXY TCP4 ", &"1".repeat(200)].concat();
    assert_eq!(parse(&endless.as_bytes()[..V1_BYTES - 1]), Ok(Parsed::Partial));
    assert_eq!(reason(&endless.as_bytes()[..V1_BYTES]), "proxy_protocol_too_long");
    let late = [&endless.as_bytes()[..V1_BYTES], b"\r\n"].concat();
    assert_eq!(reason(&late), "proxy_protocol_too_long");
}

#[test]
fn broken_binary_headers_are_refused() {
    for header in [
        binary(0x11, 0x11, IPV4),
        binary(0x22, 0x11, IPV4),
        binary(0x21, 0x41, IPV4),
        binary(0x21, 0x13, IPV4),
        binary(0x21, 0x11, &IPV4[..11]),
        binary(0x21, 0x21, IPV4),
        binary(0x21, 0x31, IPV4),
        with_tlvs(b"\x01"),
        with_tlvs(b"\x01\x00"),
        with_tlvs(b"\x01\x00\x02x"),
        with_tlvs(&[tlv(1, b"h2"), b"\x02\xff\xff".to_vec()].concat()),
    ] {
        assert_eq!(reason(&header), "proxy_protocol_broken", "{}", header.escape_ascii());
    }
}

#[test]
fn a_binary_header_may_be_so_long_and_no_longer() {
    let room = PROXY_HEADER_BYTES - V2_HEAD_BYTES - IPV4.len() - 3;
    assert!(ends(&with_tlvs(&tlv(4, &vec![0; room]))).is_some());
    let long = with_tlvs(&tlv(4, &vec![0; room + 1]));
    assert_eq!(reason(&long[..V2_HEAD_BYTES]), "proxy_protocol_too_long", "before it is waited for");
}

#[test]
fn what_else_is_said_has_nginx_s_names() {
    let ssl = [&[1, 0, 0, 0, 7][..], &tlv(0x21, b"TLSv1.3"), &tlv(0x22, b"me"), &tlv(0x99, b"in")].concat();
    let tlvs = [tlv(1, b"h2"), tlv(2, b"a.example"), tlv(0x20, &ssl), tlv(0xea, b"vpce-1"), tlv(0xea, b"2nd")].concat();
    let proxied = proxied(&with_tlvs(&tlvs));
    let said = |name: &str| {
        let mut out = Vec::new();
        let found = proxied.append_tlv(Tlv::named(name).unwrap_or_else(|| panic!("{name}")), &mut out);
        found.then(|| String::from_utf8_lossy(&out).into_owned())
    };
    for (name, value) in [
        ("alpn", "h2"),
        ("authority", "a.example"),
        ("ssl_version", "TLSv1.3"),
        ("ssl_cn", "me"),
        ("ssl_verify", "7"),
        ("0xea", "vpce-1"),
        ("0x1", "h2"),
        ("ssl_0x99", "in"),
    ] {
        assert_eq!(said(name).as_deref(), Some(value), "{name}");
    }
    for name in ["unique_id", "netns", "ssl_cipher", "ssl_sig_alg", "ssl_key_alg", "0x99"] {
        assert_eq!(said(name), None, "{name}");
    }
    let mut whole = Vec::new();
    assert!(proxied.append_tlv(Tlv::Plain(SSL), &mut whole) && whole == ssl);
    for name in ["", "alpn_", "0x", "0x100", "ea", "ssl_", "ssl_alpn", "crc32c"] {
        assert_eq!(Tlv::named(name), None, "{name}");
    }
}

#[test]
fn what_is_said_about_tls_may_be_cut_short() {
    for value in [&b""[..], b"\x01\0\0\0", b"\x01\0\0\0\0\x21\xff\xff"] {
        let proxied = proxied(&with_tlvs(&tlv(0x20, value)));
        assert!(!proxied.append_tlv(Tlv::Ssl(0x21), &mut Vec::new()), "{}", value.escape_ascii());
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn headers_are_written_as_they_are_read() {
    let wrote =
        |version, source: &str, destination: &str| header(version, Some((address(source), address(destination))));
    let v1 = |source, destination| String::from_utf8(wrote(Version::V1, source, destination)).expect("text");
    assert_eq!(v1("192.0.2.1:4097", "198.51.100.2:443"), "PROXY TCP4 192.0.2.1 198.51.100.2 4097 443\r\n");
    assert_eq!(v1("[2001:db8::1]:1", "[::1]:2"), "PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    assert_eq!(v1("[::ffff:192.0.2.1]:1", "[::ffff:192.0.2.2]:2"), "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    assert_eq!(v1("[2001:db8::1]:1", "192.0.2.2:2"), "PROXY TCP6 2001:db8::1 ::ffff:192.0.2.2 1 2\r\n");
    assert_eq!(header(Version::V1, None), b"PROXY UNKNOWN\r\n");
    assert_eq!(wrote(Version::V2, "192.0.2.1:4097", "198.51.100.2:443"), with_tlvs(b""));
    assert_eq!(header(Version::V2, None), binary(0x20, 0x00, b""));
    let mixed = wrote(Version::V2, "192.0.2.1:1", "[2001:db8::1]:2");
    assert_eq!(ends(&mixed), pair("[::ffff:192.0.2.1]:1", "[2001:db8::1]:2"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&bytes);
        let _ = parse(&[V1_SIGNATURE, &bytes].concat());
        let _ = parse(&[V2, &bytes].concat());
        let _ = parse(&with_tlvs(&bytes));
    }

    #[test]
    fn what_is_written_is_read(source: SocketAddr, destination: SocketAddr) {
        let ends = of_one_family((source, destination));
        for version in [Version::V1, Version::V2] {
            let written = header(version, Some((source, destination)));
            let read = proxied(&written);
            prop_assert_eq!((read.source.ip(), read.source.port()), (ends.0.ip(), ends.0.port()));
            prop_assert_eq!((read.destination.ip(), read.destination.port()), (ends.1.ip(), ends.1.port()));
        }
    }
}
