//! One connection's TLS: rustls' unbuffered connection, and the little that must be kept between two reads.

use std::fmt;

use rustls::{
    AlertDescription, Error, HandshakeKind, ProtocolVersion, client::UnbufferedClientConnection, pki_types::ServerName,
    server::UnbufferedServerConnection,
};

use super::{
    BackendTls, Hello, ServerTls, TlsError, TlsFacts, ciphers, peek_hello,
    records::{Endpoint, Opened, flush, notify, open, record_length, seal, shake},
};
use crate::limits;

/// A fatal alert in the clear: unrecognized_name (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// One side's TLS session: of a client of ours, or ours at a backend. In an idle tunnel it holds no buffer.
pub struct Session {
    side: Side,
    stage: Stage,
    /// Ciphertext received and not yet used up; allocated only while there is some.
    partial: Vec<u8>,
    /// How much of `partial` rustls has seen already: parts of a handshake message, which it wants to see again in front of
    /// the rest.
    seen: usize,
    /// The client's SNI; rustls' unbuffered API does not tell.
    server_name: Option<Box<str>>,
    /// We sent close_notify.
    closed: bool,
    /// The peer sent close_notify.
    peer_closed: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// `ssl_reject_handshake`
    Reject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The ClientHello is not complete (server side).
    Hello,
    Handshake,
    Traffic,
    Failed,
}

/// What came out of decrypting.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decrypted {
    /// Plaintext at the front of the buffer, bytes.
    pub plain: usize,
    /// The peer sent close_notify: a clean end (nothing follows).
    pub closed: bool,
}

/// Calls `$f(connection, ...)` for whichever side the session is.
macro_rules! on_side {
    ($side:expr, $f:ident $(, $argument:expr)*) => {
        match $side {
            Side::Server(connection) => $f(connection.as_mut() $(, $argument)*),
            Side::Client(connection) => $f(connection.as_mut() $(, $argument)*),
            Side::Reject => Err(Error::HandshakeNotComplete),
        }
    };
}

impl Session {
    /// The server side of a new connection.
    ///
    /// # Errors
    /// rustls' own.
    pub fn server(tls: &ServerTls) -> Result<Self, TlsError> {
        let side = match &tls.config {
            Some(config) => {
                let connection =
                    UnbufferedServerConnection::new(config.clone()).map_err(|e| error(&e, Stage::Hello))?;
                Side::Server(Box::new(connection))
            }
            None => Side::Reject,
        };
        Ok(Self::new(side, Stage::Hello))
    }

    /// The client side; `name` is what is sent as SNI and verified (`proxy_ssl_name`, default `$proxy_host`; a port behind it is
    /// cut off).
    ///
    /// # Errors
    /// rustls' own; a name that cannot be one, where it is sent or verified.
    pub fn client(tls: &BackendTls, name: &str) -> Result<Self, TlsError> {
        let name = match host(name) {
            Some(name) => name,
            None if tls.name_unused => ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()),
            None => {
                let detail = format!("\"{name}\" is no server name; set one with proxy_ssl_name");
                return Err(TlsError { reason: "tls_handshake", detail, plain: 0 });
            }
        };
        let connection =
            UnbufferedClientConnection::new(tls.config.clone(), name).map_err(|e| error(&e, Stage::Handshake))?;
        Ok(Self::new(Side::Client(Box::new(connection)), Stage::Handshake))
    }

    fn new(side: Side, stage: Stage) -> Self {
        Self { side, stage, partial: Vec::new(), seen: 0, server_name: None, closed: false, peer_closed: false }
    }

    /// A step of the handshake: takes all of `received`, appends to `out` what must be sent to the peer now. True once
    /// application data may flow. What was received beyond the handshake is kept for [`Session::decrypt`] (call it when
    /// [`Session::has_partial`]), or refused where it came in the clear. Call it once with nothing received to begin (client
    /// side).
    ///
    /// # Errors
    /// The handshake failed; `out` then has the alert to send.
    pub fn handshake(&mut self, received: &[u8], out: &mut Vec<u8>) -> Result<bool, TlsError> {
        match self.stage {
            Stage::Traffic => {
                self.partial.extend_from_slice(received);
                return Ok(true);
            }
            Stage::Failed => return Err(closed()),
            Stage::Hello | Stage::Handshake => {}
        }
        if let Side::Reject = self.side {
            return Err(self.reject(out));
        }
        self.partial.extend_from_slice(received);
        if self.stage == Stage::Hello && !self.hello_is_whole() {
            return Ok(false);
        }
        match on_side!(&mut self.side, shake, &mut self.partial, &mut self.seen, out) {
            Ok(true) => self.stage = Stage::Traffic,
            Ok(false) if self.partial.len() <= limits::TLS_PENDING_BYTES => return Ok(false),
            Ok(false) => return Err(self.fail(&Error::PeerSentOversizedRecord, out)),
            Err(error) => return Err(self.fail(&error, out)),
        }
        Ok(true)
    }

    /// Facts of the finished handshake.
    pub fn facts(&self) -> TlsFacts {
        let common = match &self.side {
            Side::Server(connection) => connection.common(),
            Side::Client(connection) => connection.common(),
            Side::Reject => return TlsFacts::default(),
        };
        TlsFacts {
            protocol: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "",
            },
            cipher: common.negotiated_cipher_suite().map_or("", |suite| ciphers::openssl_name(suite.suite())),
            curve: common.negotiated_key_exchange_group().map_or("", |group| ciphers::curve_name(group.name())),
            server_name: self.server_name.clone(),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// Puts the ciphertext kept of an incomplete record at the front of `buffer` and says how long it is. Receive behind it,
    /// and call [`Session::decrypt`] with all of it, also when nothing was received. The session holds no buffer afterwards,
    /// unless the peer has cut a handshake message into several records and all of them have not come yet.
    ///
    /// `buffer` must hold more than a record (16 KiB and 261 bytes, RFC 8446 section 5.2), and more than what was kept: a buffer of the same
    /// length every time does. Into a shorter one nothing is put, and the session is over.
    pub fn resume(&mut self, buffer: &mut [u8]) -> usize {
        let kept = self.partial.len();
        let Some(front) = buffer.get_mut(..kept) else {
            self.forget();
            self.stage = Stage::Failed;
            return 0;
        };
        front.copy_from_slice(&self.partial);
        // An incomplete record rustls has no memory of; parts of a handshake message it wants to see whenever it is called.
        if record_length(&self.partial[..self.seen]).is_none() {
            self.forget();
        }
        kept
    }

    /// Decrypts `buffer[..filled]` in place: the plaintext of all whole records comes to lie at its front, an incomplete record is
    /// kept inside (at most one record). `reply`: bytes to send to the peer (key update, alert), usually nothing.
    ///
    /// # Errors
    /// A record that does not authenticate, an alert, a protocol error; `reply` then has the alert to send, and
    /// [`TlsError::plain`] what was good before it.
    pub fn decrypt(&mut self, buffer: &mut [u8], filled: usize, reply: &mut Vec<u8>) -> Result<Decrypted, TlsError> {
        if self.stage != Stage::Traffic {
            return Err(closed());
        }
        let filled = filled.min(buffer.len());
        if filled < self.seen {
            // The buffer does not begin with what resume() gives; rustls would look for it in vain.
            return Err(self.fail(&Error::General("decrypt() without resume()".into()), reply));
        }
        // What is left must leave room to receive behind it the next time.
        let most = limits::TLS_PENDING_BYTES.min(buffer.len());
        let mut opened = Opened::default();
        let result = on_side!(&mut self.side, open, &mut buffer[..filled], reply, &mut opened);
        self.peer_closed |= opened.closed;
        self.forget();
        let left = &buffer[opened.used.min(filled)..filled];
        match result {
            Ok(()) if !left.is_empty() && left.len() >= most => {
                Err(self.fail_after(&Error::PeerSentOversizedRecord, opened.plain, reply))
            }
            Ok(()) => {
                if !left.is_empty() && !self.peer_closed {
                    self.partial = left.to_vec();
                    self.seen = left.len();
                }
                Ok(Decrypted { plain: opened.plain, closed: self.peer_closed })
            }
            Err(error) => Err(self.fail_after(&error, opened.plain, reply)),
        }
    }

    /// Appends `plain` as records to `out`.
    ///
    /// # Errors
    /// The session's sequence numbers are exhausted, or it was closed.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        if self.stage != Stage::Traffic || self.closed {
            return Err(closed());
        }
        let seen = &mut self.partial[..self.seen];
        on_side!(&mut self.side, seal, seen, plain, out).map_err(|e| match e {
            Error::EncryptError => {
                TlsError { reason: "tls_exhausted", detail: "the keys of the session are used up".into(), plain: 0 }
            }
            other => error(&other, Stage::Traffic),
        })
    }

    /// Appends a close_notify alert to `out`, once.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.stage != Stage::Traffic || self.closed {
            return;
        }
        self.closed = true;
        let seen = &mut self.partial[..self.seen];
        // The only fault there can be is that an alert was sent before, and then this one is not due.
        let _ = on_side!(&mut self.side, notify, seen, out);
    }

    /// A record is half received: the end of the stream now is a truncation. (Without close_notify before it, it is one
    /// between two records too, and this cannot tell: see [`Decrypted::closed`].)
    pub fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    /// The peer has sent close_notify.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// Notes the server name of a whole ClientHello. rustls sees none of it before: it joins parts in place, and the name could
    /// not be read after that.
    fn hello_is_whole(&mut self) -> bool {
        match peek_hello(&self.partial) {
            Hello::Partial => return false,
            Hello::Name(name) => self.server_name = name,
            Hello::Invalid { .. } => {} // rustls knows the alert.
        }
        self.stage = Stage::Handshake;
        true
    }

    fn forget(&mut self) {
        self.partial = Vec::new();
        self.seen = 0;
    }

    fn reject(&mut self, out: &mut Vec<u8>) -> TlsError {
        self.stage = Stage::Failed;
        out.extend_from_slice(&UNRECOGNIZED_NAME);
        TlsError { reason: "tls_unrecognized_name", detail: "the server rejects every handshake".into(), plain: 0 }
    }

    fn fail(&mut self, why: &Error, out: &mut Vec<u8>) -> TlsError {
        self.fail_after(why, 0, out)
    }

    /// Ends the session: the alert rustls has queued goes to `out`.
    fn fail_after(&mut self, why: &Error, plain: usize, out: &mut Vec<u8>) -> TlsError {
        let error = TlsError { plain, ..error(why, self.stage) };
        let _ = on_side!(&mut self.side, flush, out);
        self.forget();
        self.stage = Stage::Failed;
        error
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Server(_) => "server",
            Side::Client(_) => "client",
            Side::Reject => "reject",
        };
        f.debug_struct("Session")
            .field("side", &side)
            .field("stage", &self.stage)
            .field("partial", &self.partial.len())
            .field("closed", &self.closed)
            .field("peer_closed", &self.peer_closed)
            .finish()
    }
}

/// A name as rustls wants it: without port and brackets.
fn host(name: &str) -> Option<ServerName<'static>> {
    let without_port = match name.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => name,
    };
    let host = without_port.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(without_port);
    ServerName::try_from(host.to_owned()).ok()
}

fn closed() -> TlsError {
    TlsError { reason: "tls_closed", detail: "the TLS session is closed".into(), plain: 0 }
}

/// rustls' error under a label for logs and counters.
fn error(error: &Error, stage: Stage) -> TlsError {
    let reason = match error {
        Error::AlertReceived(AlertDescription::UnrecognisedName) => "tls_unrecognized_name",
        Error::AlertReceived(_) => "tls_alert",
        Error::DecryptError => "tls_decrypt",
        Error::InvalidCertificate(_) => "tls_certificate",
        Error::NoApplicationProtocol => "tls_alpn",
        _ if stage == Stage::Traffic => "tls_protocol",
        _ => "tls_handshake",
    };
    TlsError { reason, detail: error.to_string(), plain: 0 }
}
