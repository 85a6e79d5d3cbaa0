//! TLS without sockets: bytes in, bytes out, and no buffer while nothing is half-received.
//!
//! [`ServerTls`] and [`BackendTls`] are made once from a configuration, [`peek_hello`] chooses the server block, and a
//! [`Session`] is one connection's: rustls makes its handshake, [`traffic`] moves its records after that.

mod backend;
mod certificates;
mod ciphers;
mod handshake;
mod hello;
mod outgoing;
mod record;
mod resumption;
mod server;
mod session;
#[cfg(test)]
pub(crate) mod tests;
mod traffic;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use rustls::{SupportedProtocolVersion, version};

pub use self::{
    backend::BackendTls,
    certificates::certificate_end,
    hello::{Hello, peek_hello},
    outgoing::Outgoing,
    server::ServerTls,
    session::{Decrypted, Session},
};

/// What `ssl_*` says in a server block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerTlsOptions {
    /// `ssl_certificate` and `ssl_certificate_key`, in pairs; several: RSA and ECDSA together.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// `ssl_protocols` offers TLS 1.2.
    pub tls12: bool,
    /// `ssl_protocols` offers TLS 1.3.
    pub tls13: bool,
    /// `ssl_ciphers` as written (OpenSSL's language, as far as it can be mapped); empty: rustls' choice.
    pub ciphers: Box<str>,
    /// `ssl_prefer_server_ciphers`
    pub prefer_server_ciphers: bool,
    /// `ssl_session_cache shared:NAME:SIZE` in sessions (nginx: about 4,000 a megabyte); 0: none.
    pub session_cache: usize,
    /// `ssl_session_timeout` (5m)
    pub session_timeout: Duration,
    /// `ssl_session_tickets` (on)
    pub tickets: bool,
    /// `ssl_session_ticket_key`: the first seals, all open; none: keys of our own.
    pub ticket_keys: Vec<PathBuf>,
    /// `ssl_certificate_watch`
    pub watch: bool,
    /// `ssl_reject_handshake`
    pub reject: bool,
}

/// Facts of a finished handshake, for variables and logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// `TLSv1.2`, `TLSv1.3`
    pub protocol: &'static str,
    /// OpenSSL's name of the suite, as nginx shows it.
    pub cipher: &'static str,
    /// The key exchange group: `X25519`, `prime256v1` ...
    pub curve: &'static str,
    /// SNI.
    pub server_name: Option<Box<str>>,
    /// A resumed session.
    pub resumed: bool,
}

/// What `proxy_ssl_*` says in a location.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendTlsOptions {
    /// `proxy_ssl_verify` (off, as in nginx).
    pub verify: bool,
    /// `proxy_ssl_trusted_certificate`; none: the system's.
    pub trusted: Option<PathBuf>,
    /// `proxy_ssl_server_name` (off): send SNI.
    pub send_server_name: bool,
    /// `proxy_ssl_certificate` and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `proxy_ssl_protocols` offers TLS 1.2.
    pub tls12: bool,
    /// `proxy_ssl_protocols` offers TLS 1.3.
    pub tls13: bool,
}

/// A certificate, key or option that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfigError {
    /// The directive to point at: `ssl_certificate`, `ssl_certificate_key`, `ssl_ciphers` ...
    pub directive: &'static str,
    /// Which of the certificates (index), where that matters.
    pub index: usize,
    /// Cause and cure: `cannot open "/x.pem": No such file ...`, `the key does not match the certificate`.
    pub message: String,
}

/// Why a TLS connection ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    /// Snake case label: `tls_handshake`, `tls_protocol`, `tls_decrypt`, `tls_alert`, `tls_certificate`, `tls_alpn`,
    /// `tls_unrecognized_name`, `tls_exhausted`, `tls_closed`.
    pub reason: &'static str,
    /// rustls' words.
    pub detail: String,
    /// Plaintext of good records that came before the failing one, at the front of the buffer, bytes: still to be delivered.
    pub plain: usize,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for TlsError {}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.directive, self.message)
    }
}

impl std::error::Error for TlsConfigError {}

/// aws-lc-rs with these suites; no process-wide default is installed, so that a library user keeps theirs.
fn provider(suites: Vec<rustls::SupportedCipherSuite>) -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::CryptoProvider { cipher_suites: suites, ..rustls::crypto::aws_lc_rs::default_provider() })
}

/// The versions of `ssl_protocols` (`proxy_ssl_protocols`), or why there is none.
fn versions(
    tls12: bool,
    tls13: bool,
    directive: &'static str,
) -> Result<Vec<&'static SupportedProtocolVersion>, TlsConfigError> {
    let versions: Vec<_> = [(tls13, &version::TLS13), (tls12, &version::TLS12)]
        .into_iter()
        .filter_map(|(on, v)| on.then_some(v))
        .collect();
    if versions.is_empty() {
        return Err(TlsConfigError {
            directive,
            index: 0,
            message: "neither TLSv1.2 nor TLSv1.3 is left, and older protocols are not offered (RFC 8996); \
                      use `TLSv1.2 TLSv1.3`"
                .into(),
        });
    }
    Ok(versions)
}
