//! Certificate and key files: read, matched with each other, and their faults named with a cure.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::{CertifiedKey, SigningKey},
};
use x509_parser::certificate::X509Certificate;

use super::TlsConfigError;
use crate::limits::PEM_FILE_BYTES;

/// A note is made when a certificate has no more than this left, days.
const EXPIRY_NOTICE_DAYS: i64 = 14;

/// Which directives name the two files, and which of several pairs it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named {
    pub(super) certificate: &'static str,
    pub(super) key: &'static str,
    pub(super) index: usize,
}

impl Named {
    fn error(self, directive: &'static str, message: String) -> TlsConfigError {
        TlsConfigError { directive, index: self.index, message }
    }
}

/// Reads a certificate chain and its key. The second value: notes for `-t`.
///
/// # Errors
/// Each file that cannot be used; a key of another certificate.
pub(super) fn load(
    certificate: &Path,
    key: &Path,
    named: Named,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, Vec<String>), Vec<TlsConfigError>> {
    let chain = chain(certificate).map_err(|message| named.error(named.certificate, message));
    let signing_key = private_key(key, provider).map_err(|message| named.error(named.key, message));
    let (chain, signing_key) = match (chain, signing_key) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => return Err(chain.err().into_iter().chain(key.err()).collect()),
    };
    let leaf = parsed(&chain[0]).map_err(|why| {
        vec![named.error(named.certificate, format!("{} is no X.509 certificate: {why}", quoted(certificate)))]
    })?;
    matching(&chain, &*signing_key, certificate, key).map_err(|message| vec![named.error(named.key, message)])?;
    let notes = validity_note(&leaf, certificate).into_iter().collect();
    Ok((CertifiedKey::new(chain.clone(), signing_key), notes))
}

/// All certificates of a PEM file, at least one; the first is the server's own.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{} is damaged: {}", quoted(path), pem_fault(&error)))?;
    if !chain.is_empty() {
        return Ok(chain);
    }
    let cause = if PrivateKeyDer::from_pem_slice(&bytes).is_ok() {
        "it holds a private key: certificate and key files seem to be exchanged"
    } else if bytes.starts_with(&[0x30]) {
        "it looks like DER; convert it with `openssl x509 -inform der -in FILE -out FILE.pem`"
    } else {
        "there is no `-----BEGIN CERTIFICATE-----` in it"
    };
    Err(format!("{} has no certificate: {cause}", quoted(path)))
}

/// When the first certificate of a PEM file ends, seconds since 1970.
///
/// # Errors
/// A file that cannot be read, or has no certificate.
pub fn certificate_end(path: &Path) -> Result<i64, String> {
    let chain = chain(path)?;
    let leaf = parsed(&chain[0]).map_err(|why| format!("{} is no X.509 certificate: {why}", quoted(path)))?;
    Ok(leaf.validity().not_after.timestamp())
}

fn private_key(path: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, String> {
    let bytes = read(path)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| no_key(&bytes, path, &error))?;
    let encrypted = contains(&bytes, b"Proc-Type: 4,ENCRYPTED");
    provider.key_provider.load_private_key(key).map_err(|error| match encrypted {
        true => encrypted_key(path),
        false => format!(
            "cannot use the private key in {}: {error}; RSA from 2048 bits, ECDSA P-256, P-384, P-521 and Ed25519 are supported",
            quoted(path)
        ),
    })
}

fn no_key(bytes: &[u8], path: &Path, error: &pem::Error) -> String {
    if contains(bytes, b"ENCRYPTED") {
        return encrypted_key(path);
    }
    let cause = match error {
        pem::Error::NoItemsFound if contains(bytes, b"BEGIN CERTIFICATE") => {
            "it holds a certificate: certificate and key files seem to be exchanged".into()
        }
        pem::Error::NoItemsFound if bytes.starts_with(&[0x30]) => {
            "it looks like DER; convert it with `openssl pkey -inform der -in FILE -out FILE.pem`".into()
        }
        pem::Error::NoItemsFound => "there is no `-----BEGIN PRIVATE KEY-----` in it".into(),
        damaged => pem_fault(damaged),
    };
    format!("{} has no usable private key: {cause}", quoted(path))
}

fn encrypted_key(path: &Path) -> String {
    format!(
        "the private key in {0} is encrypted; write it without a passphrase: `openssl pkey -in {1} -out {1}.plain`",
        quoted(path),
        path.display()
    )
}

/// The key must belong to the chain's first certificate: the most frequent fault is a chain in the wrong order.
fn matching(
    chain: &[CertificateDer<'_>],
    key: &dyn SigningKey,
    certificate: &Path,
    key_path: &Path,
) -> Result<(), String> {
    let Some(public) = key.public_key() else { return Ok(()) };
    let belongs = |der: &CertificateDer<'_>| parsed(der).is_ok_and(|cert| cert.public_key().raw == public.as_ref());
    match chain.iter().position(belongs) {
        Some(0) => Ok(()),
        Some(other) => Err(format!(
            "the key in {} matches certificate {} of {}: the server's own certificate must come first, its issuers after it",
            quoted(key_path),
            other + 1,
            quoted(certificate)
        )),
        None => {
            Err(format!("the key in {} does not match the certificate in {}", quoted(key_path), quoted(certificate)))
        }
    }
}

fn validity_note(leaf: &X509Certificate<'_>, path: &Path) -> Option<String> {
    let (validity, now) = (leaf.validity(), x509_parser::time::ASN1Time::now());
    let days_left = (validity.not_after.timestamp() - now.timestamp()) / 86_400;
    if now < validity.not_before {
        Some(format!("the certificate in {} is not valid before {}", quoted(path), validity.not_before))
    } else if now > validity.not_after {
        Some(format!("the certificate in {} expired on {}: clients will refuse it", quoted(path), validity.not_after))
    } else if days_left <= EXPIRY_NOTICE_DAYS {
        Some(format!("the certificate in {} expires on {}, in {days_left} days", quoted(path), validity.not_after))
    } else {
        None
    }
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    x509_parser::parse_x509_certificate(der).map(|(_, certificate)| certificate).map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path);
    file.and_then(|file| file.take(PEM_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(|error| {
        let cure = match error.kind() {
            io::ErrorKind::PermissionDenied => "; it must be readable by the user that starts the program",
            _ => "",
        };
        format!("cannot open {}: {error}{cure}", quoted(path))
    })?;
    if bytes.len() as u64 > PEM_FILE_BYTES {
        return Err(format!("{} is larger than {PEM_FILE_BYTES} bytes: no certificate or key is", quoted(path)));
    }
    Ok(bytes)
}

fn pem_fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a `-----END ...-----` line is missing".into(),
        pem::Error::IllegalSectionStart { .. } => "a `-----BEGIN ...-----` line is malformed".into(),
        pem::Error::Base64Decode(_) => "its text is not base64".into(),
        other => other.to_string(),
    }
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    memchr::memmem::find(bytes, text).is_some()
}
