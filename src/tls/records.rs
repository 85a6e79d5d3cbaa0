//! Records through rustls' unbuffered API, for either side of a connection.
//!
//! What rustls 0.23 does with the buffer it is given, which all of this rests on: records are decrypted in place, an
//! application record's plaintext is copied out into the connection, and the record then counts as discarded. A handshake
//! message cut into several records stays in the buffer, undiscarded, until it is whole; until then the same bytes must be at
//! the front of every buffer rustls gets, also when there is only something to encrypt (`seen` below), or it panics.

use rustls::{
    CommonState, Error,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus},
};

/// Bytes of a record's head: type, version, length.
const RECORD_HEAD: usize = 5;
/// Most a record carries, bytes of plaintext (RFC 8446 section 5.1). Smaller first records, so that a browser can begin to
/// decrypt before 16 KiB have arrived, would be cut in [`seal`].
const RECORD_PLAIN: usize = 16 << 10;
/// Most a record adds to its plaintext in any of our suites, bytes: head, TLS 1.2's explicit nonce, tag.
const RECORD_OVERHEAD: usize = RECORD_HEAD + 8 + 16;

/// rustls' two connection types have the same methods but no trait in common.
pub(super) trait Endpoint {
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

/// What rustls wants after a call.
enum Step {
    /// To be called again.
    Again,
    /// Plaintext waits inside the connection: see [`take_plain`].
    Plain,
    /// The peer sent close_notify (said once).
    PeerClosed,
    /// More bytes.
    Idle,
}

/// One call into rustls; what it has to send goes to `out`. The number: bytes at the front of `tls` it is done with.
fn step<E: Endpoint>(connection: &mut E, tls: &mut [u8], out: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { discard, state } = connection.records(tls);
    let step = state.and_then(|state| match state {
        // Dropped unread: the plaintext stays in the connection, and `tls` is free to be written to.
        ConnectionState::ReadTraffic(_) => Ok(Step::Plain),
        ConnectionState::EncodeTlsData(data) => encode(data, out).map(|()| Step::Again),
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::PeerClosed => Ok(Step::PeerClosed),
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed => {
            Ok(Step::Idle)
        }
        other => Err(Error::General(format!("unexpected state {other:?}"))),
    });
    (discard, step)
}

/// The handshake, as far as the bytes in `pending` carry it. rustls is shown one record more at a time, so that what lies
/// behind the handshake stays ciphertext. True when it is finished.
pub(super) fn shake<E: Endpoint>(
    connection: &mut E,
    pending: &mut Vec<u8>,
    seen: &mut usize,
    out: &mut Vec<u8>,
) -> Result<bool, Error> {
    let mut used = 0;
    let finished = loop {
        let (done, next) = step(connection, &mut pending[used..*seen], out);
        used += done;
        match next? {
            Step::Again => continue,
            Step::Plain | Step::PeerClosed => return Err(Error::HandshakeNotComplete),
            Step::Idle => {}
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

/// How far [`open`] came.
#[derive(Default)]
pub(super) struct Opened {
    /// Ciphertext used up, bytes.
    pub(super) used: usize,
    /// Plaintext at the front of the buffer, bytes; never more than `used`.
    pub(super) plain: usize,
    /// The peer sent close_notify.
    pub(super) closed: bool,
}

/// Decrypts every whole record in `tls`, gathering the plaintext at its front.
pub(super) fn open<E: Endpoint>(
    connection: &mut E,
    tls: &mut [u8],
    reply: &mut Vec<u8>,
    opened: &mut Opened,
) -> Result<(), Error> {
    loop {
        let (done, next) = step(connection, &mut tls[opened.used..], reply);
        opened.used += done;
        match next? {
            Step::Again => {}
            Step::Plain => take_plain(connection, &mut tls[..opened.used], &mut opened.plain)?,
            Step::PeerClosed => opened.closed = true,
            Step::Idle => return Ok(()),
        }
    }
}

/// Moves the plaintext waiting in the connection to `room[*plain..]`: room is what its records took, and they were longer.
fn take_plain<E: Endpoint>(connection: &mut E, room: &mut [u8], plain: &mut usize) -> Result<(), Error> {
    if let ConnectionState::ReadTraffic(mut traffic) = connection.records(&mut []).state? {
        while let Some(record) = traffic.next_record() {
            let payload = record?.payload;
            let end = *plain + payload.len();
            let place =
                room.get_mut(*plain..end).ok_or_else(|| Error::General("plaintext outgrew its record".into()))?;
            place.copy_from_slice(payload);
            *plain = end;
        }
    }
    Ok(())
}

/// Encrypts `plain` behind whatever else must be sent first (a key update).
pub(super) fn seal<E: Endpoint>(
    connection: &mut E,
    seen: &mut [u8],
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    loop {
        match connection.records(seen).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let room = plain.len() + plain.len().div_ceil(RECORD_PLAIN) * RECORD_OVERHEAD;
                return append(out, room, |space| traffic.encrypt(plain, space).map_err(encrypt_room));
            }
            ConnectionState::EncodeTlsData(data) => encode(data, out)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

/// Appends a close_notify.
pub(super) fn notify<E: Endpoint>(connection: &mut E, seen: &mut [u8], out: &mut Vec<u8>) -> Result<(), Error> {
    loop {
        match connection.records(seen).state? {
            ConnectionState::WriteTraffic(mut traffic) => {
                return append(out, 2 + RECORD_OVERHEAD, |space| {
                    traffic.queue_close_notify(space).map_err(encrypt_room)
                });
            }
            ConnectionState::EncodeTlsData(data) => encode(data, out)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::PeerClosed => {}
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

/// What rustls has queued goes to `out`; after an error that is the alert. rustls must not get to read records again, hence
/// the question before each call.
pub(super) fn flush<E: Endpoint>(connection: &mut E, out: &mut Vec<u8>) -> Result<(), Error> {
    while connection.common().wants_write() {
        match connection.records(&mut []).state? {
            ConnectionState::EncodeTlsData(data) => encode(data, out)?,
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
    Ok(())
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), Error> {
    append(out, 0, |space| {
        data.encode(space).map_err(|e| match e {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    })
}

fn encrypt_room(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(size) => Some(size.required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Lets `write` write behind `out`, into `room` bytes; when it says how many it needs instead, into those.
fn append(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return Ok(());
            }
            Err(Some(needed)) if needed > room => room = needed,
            Err(_) => {
                out.truncate(start);
                return Err(Error::EncryptError);
            }
        }
    }
}

/// Length of the whole record at the front of `bytes`, its head included; None while it is not whole.
pub(super) fn record_length(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = bytes.first_chunk::<RECORD_HEAD>()?;
    let length = RECORD_HEAD + usize::from(u16::from_be_bytes([high, low]));
    (bytes.len() >= length).then_some(length)
}
