//! The ClientHello before a server is chosen.

use proptest::prelude::*;

use super::*;

fn hello(name: &str, fragment: Option<usize>) -> Vec<u8> {
    let identity = Identity::new("a.example");
    let mut config = identity.client(&VERSIONS);
    config.max_fragment_size = fragment;
    Theirs::client(config, name).taken()
}

fn named(name: &str) -> Hello {
    Hello::Name(Some(name.into()))
}

#[test]
fn every_prefix_is_partial_and_the_whole_has_the_name_in_lower_case() {
    for fragment in [None, Some(32), Some(100)] {
        let bytes = hello("WWW.Example.ORG", fragment);
        for cut in 0..bytes.len() {
            assert_eq!(peek_hello(&bytes[..cut]), Hello::Partial, "{cut} of {}", bytes.len());
        }
        assert_eq!(peek_hello(&bytes), named("www.example.org"));
        assert_eq!(peek_hello(&[&bytes[..], b"more"].concat()), named("www.example.org"));
    }
}

#[test]
fn without_server_name_there_is_none() {
    assert_eq!(peek_hello(&hello("127.0.0.1", None)), Hello::Name(None));
}

#[test]
fn plain_http_is_told_from_other_garbage_at_the_first_byte() {
    assert_eq!(peek_hello(b""), Hello::Partial);
    assert_eq!(peek_hello(b"G"), Hello::Invalid { plain_http: true });
    assert_eq!(peek_hello(b"POST / HTTP/1.0\r\n"), Hello::Invalid { plain_http: true });
    let garbage: [&[u8]; 6] =
        [b"\x80\x2e\x01\x03\x01", b"get / HTTP/1.1", b"\0", b"\x16\x02", b"\x16\x03\x01\0\0", b"\x16\x03\x01\xff\xff"];
    for bytes in garbage {
        assert_eq!(peek_hello(bytes), Hello::Invalid { plain_http: false }, "{bytes:?}");
    }
}

#[test]
fn another_handshake_message_first_is_no_hello() {
    assert_eq!(peek_hello(b"\x16\x03\x01\0\x04\x02\0\0\0"), Hello::Invalid { plain_http: false });
    // Another record between the parts of a hello.
    assert_eq!(peek_hello(b"\x16\x03\x01\0\x02\x01\0\x15\x03\x01\0\x02\x02\x28"), Hello::Invalid { plain_http: false });
}

#[test]
fn its_length_is_bounded() {
    let long = [&b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"[..], &[0; 100]].concat();
    assert_eq!(peek_hello(&long), Hello::Partial, "its first record is not whole");
    let long = [&b"\x16\x03\x01\x00\x04\x01\x00\xff\xff"[..], &[0; 100]].concat();
    assert_eq!(peek_hello(&long), Hello::Invalid { plain_http: false });
    let dripped: Vec<u8> = [22, 3, 1, 0, 1, 1].into_iter().chain([22, 3, 1, 0, 1, 0].repeat(4000)).collect();
    assert_eq!(peek_hello(&dripped), Hello::Invalid { plain_http: false });
}

/// A ClientHello with this server_name extension.
fn crafted(extension: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([0; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    let length = u16::try_from(extension.len()).expect("short");
    body.extend((length + 4).to_be_bytes());
    body.extend([0, 0]);
    body.extend(length.to_be_bytes());
    body.extend(extension);
    let message = [&[1, 0][..], &u16::try_from(body.len()).expect("short").to_be_bytes(), &body].concat();
    [&[22, 3, 1][..], &u16::try_from(message.len()).expect("short").to_be_bytes(), &message].concat()
}

fn host_name(name: &[u8]) -> Vec<u8> {
    let length = u16::try_from(name.len()).expect("short");
    [&(length + 3).to_be_bytes()[..], &[0], &length.to_be_bytes(), name].concat()
}

#[test]
fn names_are_cleaned_and_impossible_ones_dropped() {
    assert_eq!(peek_hello(&crafted(&host_name(b"Example.org."))), named("example.org"));
    assert_eq!(peek_hello(&crafted(&host_name(b"10.0.0.1"))), named("10.0.0.1"));
    assert_eq!(peek_hello(&crafted(&host_name(b"my_host"))), named("my_host"));
    for impossible in [&b""[..], b".", b"a b", b"a/b", b"a\0.example", b"\xff", &[b'a'; 300]] {
        assert_eq!(peek_hello(&crafted(&host_name(impossible))), Hello::Name(None), "{impossible:?}");
    }
    // Lengths that do not fit.
    assert_eq!(peek_hello(&crafted(b"\0\xff\0\0\x01a")), Hello::Invalid { plain_http: false });
    // A kind of name that is none we know.
    assert_eq!(peek_hello(&crafted(b"\0\x04\x01\0\x01a")), Hello::Name(None));
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), b in any::<u8>()) {
        peek_hello(&bytes);
        peek_hello(&[&[22, 3, 1, 1, 0][..], &bytes].concat());
        let mut hello = crafted(&host_name(b"a.example"));
        let at = at.index(hello.len());
        hello[at] = b;
        peek_hello(&hello);
    }
}
