//! Records of one direction: their heads, and the AEAD under them.
//!
//! TLS 1.3: RFC 8446 section 5.2. TLS 1.2: RFC 5246 section 6.2.3.3 with RFC 5288 (AES-GCM) and RFC 7905 (ChaCha20-Poly1305).

use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, InvalidMessage, ProtocolVersion};

use super::Outgoing;

/// Bytes of a record's head: type, version, length.
const HEAD: usize = 5;
/// Most a record carries, bytes of plaintext (RFC 8446 section 5.1, RFC 5246 section 6.2.1).
pub(super) const PLAIN: usize = 1 << 14;
/// Most the body of a record may have, bytes: TLS 1.3 (RFC 8446 section 5.2), TLS 1.2 (RFC 5246 section 6.2.3).
const BODY_TLS13: usize = PLAIN + 256;
const BODY_TLS12: usize = PLAIN + 2048;
/// The tag of every suite there is.
const TAG: usize = MAX_TAG_LEN;
/// TLS 1.2's AES-GCM shows this part of the nonce in every record, behind the head.
const EXPLICIT_NONCE: usize = 8;

/// The key of one direction, and how many records it has seen.
pub(super) struct RecordKey {
    aead: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    form: Form,
}

/// What a record looks like between its head and its tag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Plaintext, its true type, padding.
    Tls13,
    /// A part of the nonce, plaintext.
    Tls12Gcm,
    /// Plaintext.
    Tls12ChaCha,
}

impl RecordKey {
    /// What the handshake or a key update agreed upon: the number of the next record, and the key.
    ///
    /// # Errors
    /// A suite this does not know.
    pub(super) fn new(
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
        version: ProtocolVersion,
    ) -> Result<Self, Error> {
        let (algorithm, key, iv, tls12) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv, Form::Tls12Gcm),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv, Form::Tls12Gcm),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv, Form::Tls12ChaCha),
            _ => return Err(unknown_suite()),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unknown_suite())?;
        Ok(Self {
            aead: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_| unknown_suite())?,
            sequence,
            form: if version == ProtocolVersion::TLSv1_3 { Form::Tls13 } else { tls12 },
        })
    }

    /// Records sealed or opened under this key so far.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn is_tls13(&self) -> bool {
        self.form == Form::Tls13
    }

    /// Appends `plain`, at most [`PLAIN`] bytes, as one record to `out`. It is encrypted from there to here, not copied first.
    ///
    /// # Errors
    /// None in practice: the AEAD refuses lengths that no record has.
    pub(super) fn seal(&mut self, kind: ContentType, plain: &[u8], out: &mut Outgoing) -> Result<(), Error> {
        let nonce = self.nonce();
        let (shown, hidden): (&[u8], &[u8]) = match self.form {
            Form::Tls13 => (&[], &[u8::from(kind)]),
            Form::Tls12Gcm => (&nonce[NONCE_LEN - EXPLICIT_NONCE..], &[]),
            Form::Tls12ChaCha => (&[], &[]),
        };
        let body = shown.len() + plain.len() + hidden.len() + TAG;
        let head = self.head(kind, body);
        out.push(&head);
        out.push(shown);
        let (sealed, tail) = out.room(plain.len() + hidden.len() + TAG).split_at_mut(plain.len());
        let associated = self.associated(head, plain.len());
        self.aead
            .seal_out_of_place_scatter(Nonce::assume_unique_for_key(nonce), associated, plain, sealed, hidden, tail)
            .map_err(|_| Error::EncryptError)?;
        self.sequence += 1;
        Ok(())
    }

    /// Decrypts a whole record in place: its type, and where in it the plaintext lies.
    ///
    /// # Errors
    /// It does not authenticate, or carries too much, or nothing that has a type.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(ContentType, Range<usize>), Error> {
        let (head, body) = record.split_first_chunk_mut::<HEAD>().ok_or(Error::DecryptError)?;
        let kind = ContentType::from(head[0]);
        let mut nonce = self.nonce();
        let mut shown = 0;
        if self.form == Form::Tls12Gcm {
            shown = EXPLICIT_NONCE;
            let explicit = body.get(..shown).ok_or(Error::DecryptError)?;
            nonce[NONCE_LEN - EXPLICIT_NONCE..].copy_from_slice(explicit);
        }
        let end = body.len().checked_sub(TAG).filter(|end| *end >= shown).ok_or(Error::DecryptError)?;
        let (sealed, tag) = body.split_at_mut(end);
        let associated = self.associated(*head, end - shown);
        let plain = self
            .aead
            .open_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), associated, tag, &mut sealed[shown..])
            .map_err(|_| Error::DecryptError)?;
        self.sequence += 1;
        let (kind, length) = if self.form == Form::Tls13 { inner(plain)? } else { (kind, plain.len()) };
        if length > PLAIN {
            return Err(Error::PeerSentOversizedRecord);
        }
        let start = HEAD + shown;
        Ok((kind, start..start + length))
    }

    /// Length of the record at the front of `bytes`, its head included; None while it is not whole.
    ///
    /// # Errors
    /// What is there is no record that may come now.
    pub(super) fn record_length(&self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let Some(&[kind, major, _, high, low]) = bytes.first_chunk::<HEAD>() else { return Ok(None) };
        let body = usize::from(u16::from_be_bytes([high, low]));
        match ContentType::from(kind) {
            ContentType::ApplicationData => {}
            ContentType::Alert | ContentType::Handshake if !self.is_tls13() => {}
            ContentType::Unknown(_) => return Err(InvalidMessage::InvalidContentType.into()),
            got_type => return Err(unexpected(got_type)),
        }
        if major != 3 {
            return Err(InvalidMessage::UnknownProtocolVersion.into());
        }
        if body > if self.is_tls13() { BODY_TLS13 } else { BODY_TLS12 } {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok((bytes.len() >= HEAD + body).then_some(HEAD + body))
    }

    /// RFC 8446 section 5.3, which is also what rustls and RFC 7905 do in TLS 1.2.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        let counter = nonce.iter_mut().skip(NONCE_LEN - size_of::<u64>());
        counter.zip(self.sequence.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        nonce
    }

    fn head(&self, kind: ContentType, body: usize) -> [u8; HEAD] {
        let kind = if self.is_tls13() { ContentType::ApplicationData } else { kind };
        let [.., high, low] = body.to_be_bytes();
        [u8::from(kind), 3, 3, high, low]
    }

    /// What is authenticated beside the plaintext of `length` bytes.
    fn associated(&self, head: [u8; HEAD], length: usize) -> Aad<Associated> {
        let mut bytes = [0; 13];
        if self.is_tls13() {
            bytes[..HEAD].copy_from_slice(&head);
            return Aad::from(Associated { bytes, length: HEAD });
        }
        bytes[..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..11].copy_from_slice(&head[..3]);
        bytes[11..].copy_from_slice(&(length as u16).to_be_bytes());
        Aad::from(Associated { bytes, length: 13 })
    }
}

struct Associated {
    bytes: [u8; 13],
    length: usize,
}

impl AsRef<[u8]> for Associated {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// TLSInnerPlaintext: the true type is the last byte that is not padding. The second value: length of what is before it.
fn inner(plain: &[u8]) -> Result<(ContentType, usize), Error> {
    let length = plain.iter().rposition(|byte| *byte != 0).ok_or(rustls::PeerMisbehaved::IllegalTlsInnerPlaintext)?;
    Ok((ContentType::from(plain[length]), length))
}

/// A record of a type that may not come now.
pub(super) fn unexpected(got_type: ContentType) -> Error {
    Error::InappropriateMessage { expect_types: vec![ContentType::ApplicationData, ContentType::Alert], got_type }
}

fn unknown_suite() -> Error {
    Error::General("the suite is none whose records are known".into())
}
