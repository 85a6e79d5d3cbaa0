//! An established connection's records, in both directions: what kTLS does in the kernel, done in the worker's buffers.
//!
//! rustls makes the handshake and then hands over the keys (`rustls::kernel`). Its own record layer would allocate every
//! record twice and copy it three times, and keep 2 kB more for each connection. What is left to do is little: application
//! data, alerts, and in TLS 1.3 new keys and tickets, for both of which rustls is asked.

use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, HandshakeType, InvalidMessage,
    PeerMisbehaved, ProtocolVersion, SupportedCipherSuite, client::ClientConnectionData, kernel::KernelConnection,
    server::ServerConnectionData,
};

use super::{
    Outgoing,
    record::{PLAIN, RecordKey, unexpected},
};
use crate::limits::{TLS_FRUITLESS_RECORDS, TLS_MESSAGE_BYTES};

/// A KeyUpdate that asks for none in return (RFC 8446 section 4.6.3).
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
/// Levels of alerts.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// rustls, as far as it is still needed: it knows the next keys, and what to do with tickets.
pub(super) enum Kernel {
    Server(Box<KernelConnection<ServerConnectionData>>),
    Client(Box<KernelConnection<ClientConnectionData>>),
}

/// Both directions of an established connection.
pub(super) struct Traffic {
    opening: RecordKey,
    sealing: RecordKey,
    /// Records one key may seal (RFC 8446 section 5.5).
    pub(super) records_per_key: u64,
    /// TLS 1.3 only: nothing of that comes behind a handshake of TLS 1.2.
    kernel: Option<Kernel>,
    /// What would begin a renegotiation of TLS 1.2 (RFC 5246 section 7.4.1): it is declined once.
    renegotiation: Option<HandshakeType>,
    /// The beginning of a handshake message that is cut into several records.
    message: Vec<u8>,
    /// Tickets for a client: they leave with the first record there is to send, not as a segment of their own.
    pub(super) unsent: Vec<u8>,
    /// The peer asked for new keys: they come with the next data (RFC 8446 section 4.6.3), however often it asks until then.
    update_due: bool,
    /// Records in a row that brought no data.
    fruitless: u32,
    /// We sent close_notify.
    closed: bool,
}

/// How far [`Traffic::open`] came.
#[derive(Default)]
pub(super) struct Opened {
    /// Ciphertext used up, bytes.
    pub(super) used: usize,
    /// Plaintext at the front of the buffer, bytes; never more than `used`.
    pub(super) plain: usize,
    /// The peer sent close_notify.
    pub(super) closed: bool,
}

impl Traffic {
    /// Takes over from the handshake.
    ///
    /// # Errors
    /// A suite whose records are not known.
    pub(super) fn new(secrets: ExtractedSecrets, kernel: Kernel) -> Result<Self, Error> {
        let (version, suite, renegotiation) = match &kernel {
            Kernel::Server(kernel) => {
                (kernel.protocol_version(), kernel.negotiated_cipher_suite(), HandshakeType::ClientHello)
            }
            Kernel::Client(kernel) => {
                (kernel.protocol_version(), kernel.negotiated_cipher_suite(), HandshakeType::HelloRequest)
            }
        };
        let common = match suite {
            SupportedCipherSuite::Tls13(suite) => &suite.common,
            SupportedCipherSuite::Tls12(suite) => &suite.common,
        };
        Ok(Self {
            opening: RecordKey::new(secrets.rx, version)?,
            sealing: RecordKey::new(secrets.tx, version)?,
            records_per_key: common.confidentiality_limit,
            kernel: (version == ProtocolVersion::TLSv1_3).then_some(kernel),
            renegotiation: Some(renegotiation),
            message: Vec::new(),
            unsent: Vec::new(),
            update_due: false,
            fruitless: 0,
            closed: false,
        })
    }

    /// Decrypts every whole record in `tls`, gathering the plaintext at its front, up to the peer's close_notify. What must be
    /// answered goes to `reply`.
    ///
    /// # Errors
    /// The connection is over; `opened` says what was good before.
    pub(super) fn open(&mut self, tls: &mut [u8], reply: &mut Outgoing, opened: &mut Opened) -> Result<(), Error> {
        while !opened.closed
            && let Some(length) = self.opening.record_length(&tls[opened.used..])?
        {
            let record = opened.used..opened.used + length;
            let (kind, plain) = self.opening.open(&mut tls[record.clone()])?;
            opened.used = record.end;
            let plain = record.start + plain.start..record.start + plain.end;
            if kind != ContentType::ApplicationData || !self.message.is_empty() {
                opened.closed = self.other(kind, &tls[plain], reply)?;
            } else if plain.is_empty() {
                self.fruitless(PeerMisbehaved::TooManyEmptyFragments)?;
            } else {
                self.fruitless = 0;
                let length = plain.len();
                tls.copy_within(plain, opened.plain);
                opened.plain += length;
            }
        }
        Ok(())
    }

    /// A peer may send what brings us nothing, but not for ever.
    fn fruitless(&mut self, misbehaved: PeerMisbehaved) -> Result<(), Error> {
        self.fruitless += 1;
        if self.fruitless > TLS_FRUITLESS_RECORDS { Err(misbehaved.into()) } else { Ok(()) }
    }

    /// A record that is no application data; true when it is a close_notify.
    fn other(&mut self, kind: ContentType, payload: &[u8], reply: &mut Outgoing) -> Result<bool, Error> {
        match kind {
            ContentType::Handshake => self.handshake(payload, reply).map(|()| false),
            // RFC 8446 section 5.1
            _ if !self.message.is_empty() => Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into()),
            ContentType::Alert => self.alert(payload),
            other => Err(unexpected(other)),
        }
    }

    fn alert(&mut self, payload: &[u8]) -> Result<bool, Error> {
        let &[level, description] = payload else {
            return Err(InvalidMessage::MissingData("AlertMessagePayload").into());
        };
        match AlertDescription::from(description) {
            AlertDescription::CloseNotify => return Ok(true),
            // All others are fatal in TLS 1.3, whatever their level (RFC 8446 section 6).
            AlertDescription::UserCanceled => {}
            _ if level == WARNING && !self.opening.is_tls13() => {}
            description => return Err(Error::AlertReceived(description)),
        }
        self.fruitless(PeerMisbehaved::TooManyWarningAlertsReceived).map(|()| false)
    }

    /// Handshake messages behind the handshake, in whatever pieces.
    fn handshake(&mut self, payload: &[u8], reply: &mut Outgoing) -> Result<(), Error> {
        if payload.is_empty() {
            return Err(InvalidMessage::InvalidEmptyPayload.into());
        }
        let mut messages = std::mem::take(&mut self.message);
        messages.extend_from_slice(payload);
        let mut rest = &messages[..];
        while let [kind, high, middle, low, body @ ..] = rest {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if length > TLS_MESSAGE_BYTES {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((body, more)) = body.split_at_checked(length) else { break };
            rest = more;
            self.message(HandshakeType::from(*kind), body, rest.is_empty(), reply)?;
        }
        if !rest.is_empty() {
            messages.drain(..messages.len() - rest.len());
            self.message = messages;
        }
        Ok(())
    }

    /// A whole message; `last`: nothing follows it in its record.
    fn message(&mut self, kind: HandshakeType, body: &[u8], last: bool, reply: &mut Outgoing) -> Result<(), Error> {
        match (kind, &mut self.kernel) {
            // New keys begin with a new record.
            (HandshakeType::KeyUpdate, Some(_)) if !last => Err(PeerMisbehaved::KeyEpochWithPendingFragment.into()),
            (HandshakeType::KeyUpdate, Some(kernel)) => {
                let &[asked @ (0 | 1)] = body else { return Err(InvalidMessage::InvalidKeyUpdate.into()) };
                self.opening = RecordKey::new(kernel.next_opening_key()?, ProtocolVersion::TLSv1_3)?;
                self.update_due |= asked == 1;
                self.fruitless(PeerMisbehaved::TooManyKeyUpdateRequests)
            }
            (HandshakeType::NewSessionTicket, Some(Kernel::Client(kernel))) => kernel.handle_new_session_ticket(body),
            (kind, None) if Some(kind) == self.renegotiation && !self.closed => {
                self.renegotiation = None;
                self.send_alert(WARNING, AlertDescription::NoRenegotiation, reply)
            }
            (got_type, _) => {
                Err(Error::InappropriateHandshakeMessage { expect_types: vec![HandshakeType::KeyUpdate], got_type })
            }
        }
    }

    /// Appends `plain` as records to `out`; before them new keys, where it is time for some.
    ///
    /// # Errors
    /// `EncryptError`: the key is used up, and TLS 1.2 has no other.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Outgoing) -> Result<(), Error> {
        for piece in plain.chunks(PLAIN) {
            // The last record of a key is the one that says so.
            if self.update_due || self.sealing.sequence().saturating_add(1) >= self.records_per_key {
                self.update_sealing_key(out)?;
            }
            self.write(ContentType::ApplicationData, piece, out)?;
        }
        Ok(())
    }

    /// Says that new keys follow, under the old ones.
    fn update_sealing_key(&mut self, out: &mut Outgoing) -> Result<(), Error> {
        if self.kernel.is_some() {
            self.write(ContentType::Handshake, &KEY_UPDATE, out)?;
        }
        self.take_next_sealing_key()
    }

    pub(super) fn take_next_sealing_key(&mut self) -> Result<(), Error> {
        let Some(kernel) = &mut self.kernel else { return Err(Error::EncryptError) };
        self.sealing = RecordKey::new(kernel.next_sealing_key()?, ProtocolVersion::TLSv1_3)?;
        self.update_due = false;
        Ok(())
    }

    pub(super) fn write(&mut self, kind: ContentType, plain: &[u8], out: &mut Outgoing) -> Result<(), Error> {
        if !self.unsent.is_empty() {
            out.push(&std::mem::take(&mut self.unsent));
        }
        self.sealing.seal(kind, plain, out)
    }

    /// Records sealed under the present key.
    #[cfg(test)]
    pub(super) fn sealed(&self) -> u64 {
        self.sealing.sequence()
    }

    /// The side that issues tickets behind the handshake.
    pub(super) fn is_server_tls13(&self) -> bool {
        matches!(self.kernel, Some(Kernel::Server(_)))
    }

    /// True once [`Traffic::close`] was called.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Appends a close_notify, once.
    pub(super) fn close(&mut self, out: &mut Outgoing) {
        if !std::mem::replace(&mut self.closed, true) {
            // An alert is never too long.
            let _ = self.send_alert(WARNING, AlertDescription::CloseNotify, out);
        }
    }

    /// Appends the alert that tells the peer why this is the end, unless it was the peer who said so, or we have ended before.
    pub(super) fn fail(&mut self, why: &Error, out: &mut Outgoing) {
        let description = match why {
            _ if self.closed => return,
            Error::AlertReceived(_) => return,
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. } => AlertDescription::UnexpectedMessage,
            _ => AlertDescription::InternalError,
        };
        let _ = self.send_alert(FATAL, description, out);
    }

    fn send_alert(&mut self, level: u8, description: AlertDescription, out: &mut Outgoing) -> Result<(), Error> {
        self.write(ContentType::Alert, &[level, u8::from(description)], out)
    }
}

impl Kernel {
    fn next_opening_key(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_rx_secret(),
            Self::Client(kernel) => kernel.update_rx_secret(),
        }
    }

    fn next_sealing_key(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_tx_secret(),
            Self::Client(kernel) => kernel.update_tx_secret(),
        }
    }
}
