//! One connection's TLS: rustls' unbuffered connection, and the little that must be kept between two reads.

use std::fmt;

use rustls::{
    AlertDescription, Error, PeerMisbehaved, client::UnbufferedClientConnection, pki_types::ServerName,
    server::UnbufferedServerConnection,
};

use super::{
    BackendTls, Hello, Outgoing, ServerTls, TlsError, TlsFacts,
    handshake::Handshake,
    peek_hello,
    traffic::{Opened, Traffic},
};
use crate::limits;

/// A fatal alert in the clear: unrecognized_name (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// One side's TLS session: of a client of ours, or ours at a backend. In an idle tunnel it holds no buffer.
pub struct Session {
    pub(super) stage: Stage,
    /// Ciphertext received and not yet used up; allocated only while there is some.
    partial: Vec<u8>,
    /// The peer sent close_notify.
    peer_closed: bool,
}

pub(super) enum Stage {
    /// `ssl_reject_handshake`
    Reject,
    Handshake(Box<Shaking>),
    Traffic(Traffic),
    Failed,
}

pub(super) struct Shaking {
    handshake: Handshake,
    /// The ClientHello is not complete (server side).
    awaits_hello: bool,
    /// How much of what was received rustls has seen already: parts of a message, which it wants to see again in front of the
    /// rest.
    seen: usize,
    /// The client's SNI; rustls' unbuffered API does not tell.
    server_name: Option<Box<str>>,
}

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
    pub fn server(tls: &ServerTls) -> Result<Self, TlsError> {
        let Some(config) = &tls.config else { return Ok(Self::new(Stage::Reject)) };
        let connection = UnbufferedServerConnection::new(config.clone()).map_err(|e| error(&e, "tls_handshake"))?;
        Ok(Self::new(Stage::shaking(Handshake::Server(connection), true)))
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
            UnbufferedClientConnection::new(tls.config.clone(), name).map_err(|e| error(&e, "tls_handshake"))?;
        Ok(Self::new(Stage::shaking(Handshake::Client(connection), false)))
    }

    fn new(stage: Stage) -> Self {
        Self { stage, partial: Vec::new(), peer_closed: false }
    }

    /// A step of the handshake: takes all of `received`, appends to `out` what must be sent to the peer now. The facts come once
    /// application data may flow. What was received beyond the handshake is kept for [`Session::decrypt`] (call it when
    /// [`Session::has_partial`]), or refused where it came in the clear. Call it once with nothing received to begin (client
    /// side).
    ///
    /// # Errors
    /// The handshake failed; `out` then has the alert to send. It was finished before.
    pub fn handshake(&mut self, received: &[u8], out: &mut Outgoing) -> Result<Option<TlsFacts>, TlsError> {
        let shaking = match &mut self.stage {
            Stage::Handshake(shaking) => shaking,
            Stage::Reject => {
                self.stage = Stage::Failed;
                out.push(&UNRECOGNIZED_NAME);
                let detail = "the server rejects every handshake".into();
                return Err(TlsError { reason: "tls_unrecognized_name", detail, plain: 0 });
            }
            Stage::Traffic(_) | Stage::Failed => return Err(closed()),
        };
        self.partial.extend_from_slice(received);
        if shaking.awaits_hello && !shaking.hello_is_whole(&self.partial) {
            return Ok(None);
        }
        let before = out.len();
        let why = match shaking.handshake.shake(&mut self.partial, &mut shaking.seen, out) {
            Ok(true) => return self.establish(before, out),
            Ok(false) if self.partial.len() <= limits::TLS_PENDING_BYTES => return Ok(None),
            Ok(false) => Error::PeerSentOversizedRecord,
            Err(error) => error,
        };
        shaking.handshake.flush(out);
        self.partial = Vec::new();
        self.stage = Stage::Failed;
        Err(error(&why, "tls_handshake"))
    }

    /// The handshake is finished: from here on its records are ours. `out[before..]`: what its last step wants sent.
    fn establish(&mut self, before: usize, out: &mut Outgoing) -> Result<Option<TlsFacts>, TlsError> {
        let Stage::Handshake(shaking) = std::mem::replace(&mut self.stage, Stage::Failed) else { return Err(closed()) };
        let Shaking { handshake, awaits_hello: _, seen, server_name } = *shaking;
        if seen > 0 {
            return Err(error(&PeerMisbehaved::KeyEpochWithPendingFragment.into(), "tls_handshake"));
        }
        let facts = handshake.facts(server_name);
        let mut traffic = handshake.into_traffic().map_err(|e| error(&e, "tls_handshake"))?;
        if traffic.is_server_tls13() {
            // The client has finished; nothing but tickets is left to say.
            traffic.unsent = out.split_off(before);
        }
        self.stage = Stage::Traffic(traffic);
        Ok(Some(facts))
    }

    /// True while ciphertext of an incomplete record is kept.
    pub fn keeps_ciphertext(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Puts the ciphertext kept of an incomplete record at the front of `buffer` and says how long it is. Receive behind it,
    /// and call [`Session::decrypt`] with all of it, also when nothing was received. The session holds no buffer afterwards.
    ///
    /// `buffer` must hold more than a record (16 KiB and 2053 bytes, RFC 5246 section 6.2.3), and more than what was kept: a
    /// buffer of the same length every time does. Into a shorter one nothing is put, and the session is over.
    pub fn resume(&mut self, buffer: &mut [u8]) -> usize {
        let partial = std::mem::take(&mut self.partial);
        match buffer.get_mut(..partial.len()) {
            Some(front) => front.copy_from_slice(&partial),
            None => {
                self.stage = Stage::Failed;
                return 0;
            }
        }
        partial.len()
    }

    /// Decrypts `buffer[..filled]` in place: the plaintext of all whole records comes to lie at its front, an incomplete record is
    /// kept inside (at most one record). `reply`: bytes to send to the peer (key update, alert), usually nothing.
    ///
    /// # Errors
    /// A record that does not authenticate, an alert, a protocol error; `reply` then has the alert to send, and
    /// [`TlsError::plain`] what was good before it.
    pub fn decrypt(&mut self, buffer: &mut [u8], filled: usize, reply: &mut Outgoing) -> Result<Decrypted, TlsError> {
        let Stage::Traffic(traffic) = &mut self.stage else { return Err(closed()) };
        if self.peer_closed {
            return Ok(Decrypted { plain: 0, closed: true });
        }
        let filled = filled.min(buffer.len());
        let mut opened = Opened::default();
        let mut result = if self.partial.is_empty() {
            traffic.open(&mut buffer[..filled], reply, &mut opened)
        } else {
            Err(Error::General("decrypt() without resume()".into()))
        };
        self.peer_closed = opened.closed;
        if filled - opened.used == buffer.len() {
            // Nothing could be received behind it the next time.
            result = result.and(Err(Error::PeerSentOversizedRecord));
        }
        match result {
            Ok(()) => {
                if opened.used < filled && !opened.closed {
                    self.partial = buffer[opened.used..filled].to_vec();
                }
                Ok(Decrypted { plain: opened.plain, closed: opened.closed })
            }
            Err(why) => {
                traffic.fail(&why, reply);
                self.partial = Vec::new();
                self.stage = Stage::Failed;
                Err(TlsError { plain: opened.plain, ..error(&why, "tls_protocol") })
            }
        }
    }

    /// Appends `plain` as records to `out`.
    ///
    /// # Errors
    /// The session's keys are used up, or it was closed.
    pub fn encrypt(&mut self, plain: &[u8], out: &mut Outgoing) -> Result<(), TlsError> {
        match &mut self.stage {
            Stage::Traffic(traffic) if !traffic.is_closed() => {
                traffic.seal(plain, out).map_err(|e| error(&e, "tls_protocol"))
            }
            _ => Err(closed()),
        }
    }

    /// Appends a close_notify alert to `out`, once.
    pub fn close(&mut self, out: &mut Outgoing) {
        if let Stage::Traffic(traffic) = &mut self.stage {
            traffic.close(out);
        }
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
}

impl Stage {
    fn shaking(handshake: Handshake, awaits_hello: bool) -> Self {
        Self::Handshake(Box::new(Shaking { handshake, awaits_hello, seen: 0, server_name: None }))
    }
}

impl Shaking {
    /// Notes the server name of a whole ClientHello. rustls sees none of it before: it joins parts in place, and the name could
    /// not be read after that.
    fn hello_is_whole(&mut self, received: &[u8]) -> bool {
        match peek_hello(received) {
            Hello::Partial => return false,
            Hello::Name(name) => self.server_name = name,
            Hello::Invalid { .. } => {} // rustls knows the alert.
        }
        self.awaits_hello = false;
        true
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = match &self.stage {
            Stage::Reject => "reject",
            Stage::Handshake(_) => "handshake",
            Stage::Traffic(_) => "traffic",
            Stage::Failed => "failed",
        };
        f.debug_struct("Session")
            .field("stage", &stage)
            .field("partial", &self.partial.len())
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

/// rustls' error under a label for logs and counters; `otherwise`: the one of its stage.
fn error(error: &Error, otherwise: &'static str) -> TlsError {
    let reason = match error {
        Error::AlertReceived(AlertDescription::UnrecognisedName) => "tls_unrecognized_name",
        Error::AlertReceived(_) => "tls_alert",
        Error::DecryptError => "tls_decrypt",
        Error::EncryptError => {
            return TlsError {
                reason: "tls_exhausted",
                detail: "the keys of the session are used up".into(),
                plain: 0,
            };
        }
        Error::InvalidCertificate(_) => "tls_certificate",
        Error::NoApplicationProtocol => "tls_alpn",
        _ => otherwise,
    };
    TlsError { reason, detail: error.to_string(), plain: 0 }
}
