//! TLS by rustls' unbuffered API: records in, records out; no socket, and no buffer while nothing is half-received.

use std::{path::PathBuf, time::Duration};

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

/// What a server block presents and accepts, ready to use (an `Arc<rustls::ServerConfig>` inside).
#[derive(Debug)]
pub struct ServerTls {}

/// How a location speaks TLS to its backend, ready to use.
#[derive(Debug)]
pub struct BackendTls {}

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

impl ServerTls {
    /// Reads certificates and keys and makes the server side. The second value: notes for `-t`
    /// (cipher names that have no equal here, an expired certificate ...).
    ///
    /// # Errors
    /// Each certificate, key or option that cannot be used.
    pub fn build(_options: &ServerTlsOptions) -> Result<(Self, Vec<String>), Vec<TlsConfigError>> {
        unimplemented!()
    }
}

impl BackendTls {
    /// Makes the client side.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn build(_options: &BackendTlsOptions) -> Result<Self, Vec<TlsConfigError>> {
        unimplemented!()
    }
}

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

/// Reads the server name of the ClientHello at the front of `bytes`, without consuming anything.
pub fn peek_hello(_bytes: &[u8]) -> Hello {
    unimplemented!()
}

/// Why a TLS connection ended early.
#[derive(Debug)]
pub struct TlsError {
    /// Snake case label: `tls_handshake`, `tls_decrypt`, `tls_alert`, `tls_unrecognized_name` ...
    pub reason: &'static str,
    /// rustls' words.
    pub detail: String,
}

/// One side's TLS session: of a client of ours, or ours at a backend. In an idle tunnel it holds no buffer.
#[derive(Debug)]
pub struct Session {}

/// What came out of decrypting.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decrypted {
    /// Plaintext at the front of the buffer, bytes.
    pub plain: usize,
    /// The peer sent close_notify: a clean end (nothing follows).
    pub closed: bool,
}

impl Session {
    /// The server side of a new connection.
    ///
    /// # Errors
    /// rustls' own.
    pub fn server(_tls: &ServerTls) -> Result<Self, TlsError> {
        unimplemented!()
    }

    /// The client side; `name` is what is sent as SNI and verified (`proxy_ssl_name`, default `$proxy_host`).
    ///
    /// # Errors
    /// rustls' own; a name that cannot be one.
    pub fn client(_tls: &BackendTls, _name: &str) -> Result<Self, TlsError> {
        unimplemented!()
    }

    /// A step of the handshake: takes all of `received`, appends to `out` what must be sent to the peer now. True once
    /// application data may flow. What was received beyond the handshake is kept for [`Session::decrypt`] (server side), or
    /// refused where it came in the clear. Call it once with nothing received to begin (client side).
    ///
    /// # Errors
    /// The handshake failed; `out` then has the alert to send.
    pub fn handshake(&mut self, _received: &[u8], _out: &mut Vec<u8>) -> Result<bool, TlsError> {
        unimplemented!()
    }

    /// Facts of the finished handshake.
    pub fn facts(&self) -> TlsFacts {
        unimplemented!()
    }

    /// Puts the ciphertext kept of an incomplete record at the front of `buffer` and says how long it is. Receive behind it.
    /// The session holds no buffer afterwards.
    pub fn resume(&mut self, _buffer: &mut [u8]) -> usize {
        unimplemented!()
    }

    /// Decrypts `buffer[..filled]` in place: the plaintext of all whole records comes to lie at its front, an incomplete record is
    /// kept inside (at most one record). `reply`: bytes to send to the peer (key update, alert), usually nothing.
    ///
    /// # Errors
    /// A record that does not authenticate, an alert, a protocol error; `reply` then has the alert to send.
    pub fn decrypt(&mut self, _buffer: &mut [u8], _filled: usize, _reply: &mut Vec<u8>) -> Result<Decrypted, TlsError> {
        unimplemented!()
    }

    /// Appends `plain` as records to `out`.
    ///
    /// # Errors
    /// The session's sequence numbers are exhausted, or it was closed.
    pub fn encrypt(&mut self, _plain: &[u8], _out: &mut Vec<u8>) -> Result<(), TlsError> {
        unimplemented!()
    }

    /// Appends a close_notify alert to `out`, once.
    pub fn close(&mut self, _out: &mut Vec<u8>) {
        unimplemented!()
    }

    /// A record is half received: the end of the stream now is a truncation.
    pub fn has_partial(&self) -> bool {
        unimplemented!()
    }
}
