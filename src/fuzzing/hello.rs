//! The ClientHello; rustls is the oracle.

use std::net::IpAddr;

use rustls::server::Acceptor;

use super::pieces::cuts;
use crate::{
    limits::TLS_HELLO_BYTES,
    tls::{Hello, peek_hello},
};

/// A ClientHello, however it arrives.
pub fn client_hello(data: &[u8]) {
    let whole = peek_hello(data);
    for cut in cuts(data) {
        let part = peek_hello(&data[..cut]);
        assert!(part == Hello::Partial || part == whole, "the first {cut} bytes: {part:?}, not {whole:?}");
    }
    match (accepted(data), whole) {
        (Some(Some(name)), Hello::Name(found)) => {
            let name = name.to_ascii_lowercase();
            assert_eq!(found.as_deref(), Some(name.strip_suffix('.').unwrap_or(&name)));
        }
        // rustls takes an address for no name (RFC 6066 section 3); nginx looks it up.
        (Some(None), Hello::Name(found)) => {
            assert!(found.is_none_or(|name| name.parse::<IpAddr>().is_ok()));
        }
        (Some(_), other) => assert!(data.len() > TLS_HELLO_BYTES, "rustls accepts it: {other:?}"),
        (None, _) => {}
    }
}

/// The name in a hello that rustls accepts.
fn accepted(data: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut rest = data;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return Some(accepted.client_hello().server_name().map(str::to_owned));
        }
    }
    None
}
