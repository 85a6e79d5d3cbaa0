//! PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): whose connection it is that another proxy passes on.
//!
//! What a header says is read and written by `ppp`. Where it ends is found here, so that it may come in any pieces.

use std::{borrow::Cow, net::SocketAddr};

use ppp::{
    v1,
    v2::{self, Addresses, Builder, Command, Protocol, TypeLengthValues},
};

use crate::{http::refusal::Refusal, limits::PROXY_HEADER_BYTES};

/// What a connection begins with.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// A header, and its length. None: the sender speaks for itself (`LOCAL`), or of a client that has no IP address and port
    /// (`UNKNOWN`, a unix socket), so that the connection's own addresses hold.
    Complete(Option<Proxied>, usize),
}

/// A connection that its sender passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// Who.
    pub source: SocketAddr,
    /// At which address of the sender.
    pub destination: SocketAddr,
    /// What else the sender says of it, as it came.
    tlvs: Box<[u8]>,
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
/// Longest header of version 1, bytes: two IPv6 addresses with ports, and CRLF.
const V1_BYTES: usize = 107;
/// Signature, version, family and length of version 2, bytes.
const V2_HEAD_BYTES: usize = 16;
/// Version 2, and no client: what follows is skipped, whatever it is.
const V2_LOCAL: u8 = 0x20;

const MISSING: Refusal =
    Refusal::new(444, "proxy_protocol_missing", "there is no PROXY protocol header, which this listener asks for");
const BROKEN: Refusal = Refusal::new(444, "proxy_protocol_broken", "the PROXY protocol header is broken");
const TOO_LONG: Refusal = Refusal::new(444, "proxy_protocol_too_long", "the PROXY protocol header is too long");

/// Reads the header at the front of `bytes`, of either version.
///
/// # Errors
/// There is none, it is broken, or it is longer than 107 bytes (version 1) or [`PROXY_HEADER_BYTES`] (version 2). Status 444: such a
/// connection is closed without a word, as in nginx, since nobody knows to whom an answer would go.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Refusal> {
    if may_begin(bytes, v2::PROTOCOL_PREFIX) {
        version_2(bytes)
    } else if may_begin(bytes, V1_SIGNATURE) {
        version_1(bytes)
    } else {
        Err(MISSING)
    }
}

/// True where they are alike as far as both go.
fn may_begin(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(byte, expected)| byte == expected)
}

fn version_1(bytes: &[u8]) -> Result<Parsed, Refusal> {
    let Some(end) = bytes.iter().take(V1_BYTES).position(|byte| *byte == b'\n') else {
        return if bytes.len() < V1_BYTES { Ok(Parsed::Partial) } else { Err(TOO_LONG) };
    };
    let line = bytes.get(..=end).unwrap_or_default();
    // ppp takes a CR for a space, needs none before the LF of an UNKNOWN line, and "+80" for a number.
    let is_line = line.ends_with(b"\r\n") && line.iter().filter(|byte| **byte == b'\r').count() == 1;
    if !is_line || line.contains(&b'+') {
        return Err(BROKEN);
    }
    let ends = match v1::Header::try_from(line).map_err(|_| BROKEN)?.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(ip) => Some(ipv4_ends(&ip)),
        v1::Addresses::Tcp6(ip) => Some(ipv6_ends(&ip)),
    };
    Ok(Parsed::Complete(ends.map(|ends| Proxied::new(ends, &[])), line.len()))
}

fn version_2(bytes: &[u8]) -> Result<Parsed, Refusal> {
    let Some([.., high, low]) = bytes.first_chunk::<V2_HEAD_BYTES>() else { return Ok(Parsed::Partial) };
    let length = V2_HEAD_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if length > PROXY_HEADER_BYTES {
        return Err(TOO_LONG);
    }
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::Partial) };
    if header.get(v2::PROTOCOL_PREFIX.len()) == Some(&V2_LOCAL) {
        return Ok(Parsed::Complete(None, length));
    }
    let header = v2::Header::try_from(header).map_err(|_| BROKEN)?;
    if header.tlvs().any(|tlv| tlv.is_err()) {
        return Err(BROKEN);
    }
    let ends = match (header.protocol, header.addresses) {
        (Protocol::Stream, Addresses::IPv4(ip)) => Some(ipv4_ends(&ip)),
        (Protocol::Stream, Addresses::IPv6(ip)) => Some(ipv6_ends(&ip)),
        _ => None,
    };
    Ok(Parsed::Complete(ends.map(|ends| Proxied::new(ends, header.tlv_bytes())), length))
}

fn ipv4_ends(ip: &v2::IPv4) -> (SocketAddr, SocketAddr) {
    ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
}

fn ipv6_ends(ip: &v2::IPv6) -> (SocketAddr, SocketAddr) {
    ((ip.source_address, ip.source_port).into(), (ip.destination_address, ip.destination_port).into())
}

/// What a sender may say of a connection beyond its addresses (section 2.2 of the specification): `$proxy_protocol_tlv_NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tlv {
    /// A value of this type.
    Plain(u8),
    /// A value of this type within that about TLS.
    Ssl(u8),
    /// What became of the client's certificate: 0 where it was verified.
    SslVerify,
}

/// The type of what is said about TLS: a byte of flags, the result of the verification (4 bytes), and values within.
const SSL: u8 = 0x20;
const SSL_HEAD_BYTES: usize = 5;

impl Tlv {
    /// By nginx's name: `alpn`, `ssl_version` ..., or a type as `0xea`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ssl_verify" => Some(Self::SslVerify),
            "alpn" => Some(Self::Plain(0x01)),
            "authority" => Some(Self::Plain(0x02)),
            "unique_id" => Some(Self::Plain(0x05)),
            "ssl" => Some(Self::Plain(SSL)),
            "netns" => Some(Self::Plain(0x30)),
            "ssl_version" => Some(Self::Ssl(0x21)),
            "ssl_cn" => Some(Self::Ssl(0x22)),
            "ssl_cipher" => Some(Self::Ssl(0x23)),
            "ssl_sig_alg" => Some(Self::Ssl(0x24)),
            "ssl_key_alg" => Some(Self::Ssl(0x25)),
            _ => match name.strip_prefix("ssl_") {
                Some(name) => hexadecimal(name).map(Self::Ssl),
                None => hexadecimal(name).map(Self::Plain),
            },
        }
    }
}

fn hexadecimal(name: &str) -> Option<u8> {
    u8::from_str_radix(name.strip_prefix("0x")?, 16).ok()
}

impl Proxied {
    fn new((source, destination): (SocketAddr, SocketAddr), tlvs: &[u8]) -> Self {
        Self { source, destination, tlvs: tlvs.into() }
    }

    /// Appends a value to `out`. False, and nothing appended, where the sender gave none.
    pub fn append_tlv(&self, tlv: Tlv, out: &mut Vec<u8>) -> bool {
        let value = match tlv {
            Tlv::Plain(kind) => value(&self.tlvs, kind).map(<[u8]>::to_vec),
            Tlv::Ssl(kind) => self.ssl().and_then(|(_, within)| value(within, kind)).map(<[u8]>::to_vec),
            Tlv::SslVerify => self.ssl().map(|(verified, _)| verified.to_string().into_bytes()),
        };
        value.is_some_and(|value| {
            out.extend_from_slice(&value);
            true
        })
    }

    /// What is said about TLS: the result of the verification, and the values within.
    fn ssl(&self) -> Option<(u32, &[u8])> {
        let ([_flags, verified @ ..], within) = value(&self.tlvs, SSL)?.split_first_chunk::<SSL_HEAD_BYTES>()?;
        Some((u32::from_be_bytes(*verified), within))
    }
}

fn value(tlvs: &[u8], kind: u8) -> Option<&[u8]> {
    let found = TypeLengthValues::from(tlvs).map_while(Result::ok).find(|tlv| tlv.kind == kind)?;
    let Cow::Borrowed(value) = found.value else { return None };
    Some(value)
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A line of text (section 2.1 of the specification).
    V1,
    /// Binary (section 2.2).
    V2,
}

/// What says that nothing is known of a client, in version 2.
const V2_UNKNOWN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// The header before what is sent on a client's behalf. `ends`: the client's address and the one it came in at; none: nothing is known of
/// them (`UNKNOWN`, `LOCAL`).
pub fn header(version: Version, ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let ends = ends.map(of_one_family);
    match version {
        Version::V1 => ends.map_or(v1::Addresses::Unknown, v1::Addresses::from).to_string().into_bytes(),
        Version::V2 => {
            let proxied = |ends| Builder::with_addresses(v2::Version::Two | Command::Proxy, Protocol::Stream, ends);
            // ppp's writer fails past 64 KiB, and not before.
            ends.and_then(|ends| proxied(ends).build().ok()).unwrap_or_else(|| V2_UNKNOWN.to_vec())
        }
    }
}

/// A header has one family: IPv4 where both are, in whatever form, else IPv6, in which every IPv4 address has a form.
fn of_one_family((source, destination): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    match (canonical(source), canonical(destination)) {
        ends @ ((SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_))) => ends,
        (source, destination) => (in_ipv6(source), in_ipv6(destination)),
    }
}

fn in_ipv6(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
        SocketAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests;
