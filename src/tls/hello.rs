//! The ClientHello, read before a server block is chosen (RFC 8446 section 4.1.2, RFC 6066 section 3).

use std::borrow::Cow;

use crate::limits;

/// A ClientHello, looked at before a server block is chosen.
#[derive(Debug, PartialEq, Eq)]
pub enum Hello {
    /// More bytes are needed.
    Partial,
    /// Its server name (lower case), if any.
    Name(Option<Box<str>>),
    /// No TLS: `plain_http` when it looks like an HTTP request (nginx answers such a client 400 in the clear).
    Invalid {
        /// It begins like a request line.
        plain_http: bool,
    },
}

/// Content type of a handshake record.
const HANDSHAKE: u8 = 22;
/// Handshake type of a ClientHello.
const CLIENT_HELLO: u8 = 1;
/// Extension and name type of a host name.
const HOST_NAME: u16 = 0;
/// Bytes of a record's head.
const RECORD_HEAD: usize = 5;
/// Most a record in the clear may carry, bytes.
const RECORD_PAYLOAD: usize = 1 << 14;

const NO_TLS: Hello = Hello::Invalid { plain_http: false };

/// Reads the server name of the ClientHello at the front of `bytes`, without consuming anything.
///
/// A name that could be no host's is no name here; rustls refuses it when the handshake reaches it. Bytes that rustls
/// would refuse for other reasons pass, so that the client gets its alert.
pub fn peek_hello(bytes: &[u8]) -> Hello {
    match bytes.first() {
        None => return Hello::Partial,
        Some(&HANDSHAKE) => {}
        Some(first) => return Hello::Invalid { plain_http: first.is_ascii_uppercase() },
    }
    match client_hello(bytes) {
        Ok(hello) => server_name(&hello).map_or(NO_TLS, Hello::Name),
        Err(Hello::Partial) if bytes.len() >= limits::TLS_HELLO_BYTES => NO_TLS,
        Err(other) => other,
    }
}

/// The body of the ClientHello, put together from as many records as it takes; copied only when that is more than one.
fn client_hello(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Hello> {
    let mut message = Cow::Borrowed(&[][..]);
    let mut rest = bytes;
    loop {
        if let [kind, a, b, c, body @ ..] = &*message {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if *kind != CLIENT_HELLO || length > limits::TLS_HELLO_BYTES {
                return Err(NO_TLS);
            }
            if body.len() >= length {
                return Ok(match message {
                    Cow::Borrowed(message) => Cow::Borrowed(&message[4..4 + length]),
                    Cow::Owned(message) => Cow::Owned(message[4..4 + length].to_vec()),
                });
            }
        }
        let payload;
        (payload, rest) = record(rest)?;
        match &mut message {
            Cow::Borrowed([]) => message = Cow::Borrowed(payload),
            more => more.to_mut().extend_from_slice(payload),
        }
    }
}

/// Payload of the handshake record at the front, and what follows it.
fn record(bytes: &[u8]) -> Result<(&[u8], &[u8]), Hello> {
    if bytes.first().is_some_and(|&kind| kind != HANDSHAKE) || bytes.get(1).is_some_and(|&major| major != 3) {
        return Err(NO_TLS);
    }
    let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk::<RECORD_HEAD>() else {
        return Err(Hello::Partial);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > RECORD_PAYLOAD {
        return Err(NO_TLS);
    }
    rest.split_at_checked(length).ok_or(Hello::Partial)
}

/// The host name in a ClientHello's body. None: the body is malformed.
fn server_name(body: &[u8]) -> Option<Option<Box<str>>> {
    let mut hello = Reader(body);
    hello.take(2 + 32)?; // version, random
    hello.vec8()?; // session id
    hello.vec16()?; // suites
    hello.vec8()?; // compression
    if hello.0.is_empty() {
        return Some(None);
    }
    let mut extensions = Reader(hello.vec16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vec16()?;
        if kind == HOST_NAME {
            let mut list = Reader(Reader(data).vec16()?);
            return match u16::from(list.u8()?) {
                HOST_NAME => Some(host(list.vec16()?)),
                _ => Some(None),
            };
        }
    }
    Some(None)
}

/// The name as server blocks are looked up: lower case, no dot at its end. An address passes, as in nginx.
fn host(name: &[u8]) -> Option<Box<str>> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let legal = |&b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if name.is_empty() || name.len() > 255 || !name.iter().all(legal) {
        return None;
    }
    Some(std::str::from_utf8(name).ok()?.to_ascii_lowercase().into())
}

/// Walks length-prefixed fields.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn vec8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    fn vec16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}
