//! Handshakes through rustls' unbuffered API, for either side of a connection.
//!
//! What rustls 0.23 does with the buffer it is given: a handshake message cut into several records stays in the buffer,
//! undiscarded, until it is whole; until then the same bytes must be at the front of every buffer rustls gets.

use rustls::{
    CommonState, Error, HandshakeKind, ProtocolVersion,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus},
};

use super::{
    Outgoing, TlsFacts, ciphers,
    traffic::{Kernel, Traffic},
};

/// A connection whose handshake is under way.
pub(super) enum Handshake {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Handshake {
    /// As far as the bytes in `pending` carry it; `seen`: how many of them rustls knows already. What must be sent goes to `out`.
    /// True when it is finished.
    ///
    /// # Errors
    /// rustls' own; [`Handshake::flush`] has the alert to send.
    pub(super) fn shake(&mut self, pending: &mut Vec<u8>, seen: &mut usize, out: &mut Outgoing) -> Result<bool, Error> {
        match self {
            Self::Server(connection) => shake(connection, pending, seen, out),
            Self::Client(connection) => shake(connection, pending, seen, out),
        }
    }

    /// What rustls has queued goes to `out`: after an error, the alert.
    pub(super) fn flush(&mut self, out: &mut Outgoing) {
        // There is nobody left to tell of another error.
        let _ = match self {
            Self::Server(connection) => flush(connection, out),
            Self::Client(connection) => flush(connection, out),
        };
    }

    /// Facts of the finished handshake.
    pub(super) fn facts(&self, server_name: Option<Box<str>>) -> TlsFacts {
        let common: &CommonState = match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        };
        TlsFacts {
            protocol: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                _ => "",
            },
            cipher: common.negotiated_cipher_suite().map_or("", |suite| ciphers::openssl_name(suite.suite())),
            curve: common.negotiated_key_exchange_group().map_or("", |group| ciphers::curve_name(group.name())),
            server_name,
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    /// The finished handshake's keys, and the end of rustls' connection.
    ///
    /// # Errors
    /// rustls' own, where it is not finished.
    pub(super) fn into_traffic(self) -> Result<Traffic, Error> {
        match self {
            Self::Server(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                Traffic::new(secrets, Kernel::Server(Box::new(kernel)))
            }
            Self::Client(connection) => {
                let (secrets, kernel) = connection.dangerous_into_kernel_connection()?;
                Traffic::new(secrets, Kernel::Client(Box::new(kernel)))
            }
        }
    }
}

/// rustls' two connection types have the same methods but no trait in common.
trait Endpoint {
    type Data;
    fn records<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
}

impl Endpoint for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn records<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

impl Endpoint for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn records<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
    fn common(&self) -> &CommonState {
        self
    }
}

/// One call into rustls; what it has to send goes to `out`. Bytes at the front of `tls` it is done with, and whether it is to be
/// called again before it gets more.
fn step<E: Endpoint>(connection: &mut E, tls: &mut [u8], out: &mut Outgoing) -> (usize, Result<bool, Error>) {
    let UnbufferedStatus { discard, state } = connection.records(tls);
    let again = state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(data) => encode(data, out).map(|()| true),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(true)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(false),
        // Data or an end, where neither may come yet.
        _ => Err(Error::HandshakeNotComplete),
    });
    (discard, again)
}

/// rustls is shown one record more at a time, so that what lies behind the handshake stays ciphertext.
fn shake<E: Endpoint>(
    connection: &mut E,
    pending: &mut Vec<u8>,
    seen: &mut usize,
    out: &mut Outgoing,
) -> Result<bool, Error> {
    let mut used = 0;
    let finished = loop {
        let (done, again) = step(connection, &mut pending[used..*seen], out);
        used += done;
        if again? {
            continue;
        }
        if !connection.common().is_handshaking() {
            break true;
        }
        match record_length(&pending[*seen..]) {
            Some(length) => *seen += length,
            None => {
                // Not a whole record, but its head may be no record's head at all.
                step(connection, &mut pending[used..], out).1?;
                break false;
            }
        }
    };
    pending.drain(..used);
    *seen -= used;
    if pending.is_empty() {
        *pending = Vec::new();
    }
    Ok(finished)
}

/// rustls must not get to read records again after an error, hence the question before each call.
fn flush<E: Endpoint>(connection: &mut E, out: &mut Outgoing) -> Result<(), Error> {
    while connection.common().wants_write() {
        match connection.records(&mut []).state? {
            ConnectionState::EncodeTlsData(data) => encode(data, out)?,
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
    Ok(())
}

/// Appends what rustls wants sent; it says how much that is when asked to write it into nothing.
fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Outgoing) -> Result<(), Error> {
    let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) else { return Err(Error::EncryptError) };
    // It writes exactly as much as it says.
    data.encode(out.room(size.required_size)).map(|_| ()).map_err(|_| Error::EncryptError)
}

/// Length of the whole record at the front of `bytes`, its head included; None while it is not whole.
fn record_length(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = bytes.first_chunk()?;
    let length = 5 + usize::from(u16::from_be_bytes([high, low]));
    (bytes.len() >= length).then_some(length)
}
