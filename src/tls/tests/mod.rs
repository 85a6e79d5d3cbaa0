//! Our sessions against rustls' ordinary buffered connections.

mod backend;
mod configuration;
mod handshake;
mod hello;
mod memory;
mod records;
mod resumption;
mod traffic;

use std::{
    fs,
    io::{Cursor, Read, Write},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

use super::*;
use crate::limits;

pub(super) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate and key in files of their own.
pub(crate) struct Identity {
    pub dir: TempDir,
    pub der: CertificateDer<'static>,
    pub key: Vec<u8>,
}

impl Identity {
    pub fn new(host: &str) -> Self {
        Self::of(host, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub fn of(host: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        Self::with(rcgen::CertificateParams::new([host.to_owned()]).expect("params"), algorithm)
    }

    pub fn with(params: rcgen::CertificateParams, algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("key");
        let certificate = params.self_signed(&key).expect("certificate");
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("cert.pem"), certificate.pem()).expect("written");
        fs::write(dir.path().join("key.pem"), key.serialize_pem()).expect("written");
        Self { dir, der: certificate.der().clone(), key: key.serialize_der() }
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    pub fn files(&self) -> (PathBuf, PathBuf) {
        (self.certificate(), self.key())
    }

    pub fn options(&self) -> ServerTlsOptions {
        ServerTlsOptions {
            certificates: vec![self.files()],
            tls12: true,
            tls13: true,
            session_timeout: Duration::from_secs(300),
            tickets: true,
            ..ServerTlsOptions::default()
        }
    }

    pub fn server(&self) -> ServerTls {
        server(&self.options())
    }

    /// A client that trusts only this certificate.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("root");
        ClientConfig::builder_with_provider(provider(ciphers::all()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// An ordinary server with this certificate.
    pub fn backend(&self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.clone()).expect("key");
        ServerConfig::builder_with_provider(provider(ciphers::all()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![self.der.clone()], key)
            .expect("config")
    }
}

pub(super) fn server(options: &ServerTlsOptions) -> ServerTls {
    ServerTls::build(options).expect("a usable configuration").0
}

pub(crate) fn backend_options() -> BackendTlsOptions {
    BackendTlsOptions { tls12: true, tls13: true, ..BackendTlsOptions::default() }
}

/// A session of ours, the bytes it wants sent, and what came out of it.
pub(super) struct Ours {
    pub session: Session,
    pub sent: Outgoing,
    pub plain: Vec<u8>,
    /// The handshake is finished.
    pub facts: Option<TlsFacts>,
    pub closed: bool,
    buffer: Vec<u8>,
}

impl Ours {
    pub fn new(session: Session) -> Self {
        let buffer = vec![0; limits::SCRATCH_BYTES];
        Self { session, sent: Outgoing::default(), plain: Vec::new(), facts: None, closed: false, buffer }
    }

    pub fn server(tls: &ServerTls) -> Self {
        Self::new(Session::server(tls).expect("session"))
    }

    pub fn client(tls: &BackendTls, name: &str) -> Self {
        Self::new(Session::client(tls, name).expect("session"))
    }

    /// As a reader of a socket does: handshake, then decrypt.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        if !self.is_open() {
            self.facts = self.session.handshake(bytes, &mut self.sent)?;
            return if self.is_open() && self.session.has_partial() { self.decrypt(&[]) } else { Ok(()) };
        }
        self.decrypt(bytes)
    }

    pub fn is_open(&self) -> bool {
        self.facts.is_some()
    }

    pub fn facts(&self) -> &TlsFacts {
        self.facts.as_ref().expect("a finished handshake")
    }

    pub fn decrypt(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        let kept = self.session.resume(&mut self.buffer);
        let filled = kept + bytes.len();
        self.buffer[kept..filled].copy_from_slice(bytes);
        match self.session.decrypt(&mut self.buffer, filled, &mut self.sent) {
            Ok(decrypted) => {
                self.plain.extend_from_slice(&self.buffer[..decrypted.plain]);
                self.closed |= decrypted.closed;
                Ok(())
            }
            Err(error) => {
                self.plain.extend_from_slice(&self.buffer[..error.plain]);
                Err(error)
            }
        }
    }

    pub fn send(&mut self, plain: &[u8]) {
        self.session.encrypt(plain, &mut self.sent).expect("encrypted");
    }

    pub fn taken(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.sent).to_vec()
    }
}

/// The other side.
pub(super) struct Theirs {
    pub connection: Connection,
    pub plain: Vec<u8>,
    pub closed: bool,
}

impl Theirs {
    pub fn client(config: ClientConfig, name: &str) -> Self {
        Self::client_of(&Arc::new(config), name)
    }

    pub fn client_of(config: &Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("name");
        Self::new(Connection::Client(ClientConnection::new(config.clone(), name).expect("client")))
    }

    pub fn server(config: ServerConfig) -> Self {
        Self::new(Connection::Server(ServerConnection::new(Arc::new(config)).expect("server")))
    }

    fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(None);
        Self { connection, plain: Vec::new(), closed: false }
    }

    pub fn taken(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).expect("a vector takes all");
        }
        bytes
    }

    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), rustls::Error> {
        let mut bytes = Cursor::new(bytes);
        while bytes.position() < bytes.get_ref().len() as u64 {
            let n = self.connection.read_tls(&mut bytes).expect("room");
            let state = self.connection.process_new_packets()?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            self.connection.reader().read_exact(&mut plain).expect("plaintext");
            self.plain.extend(plain);
            self.closed |= state.peer_has_closed();
            if n == 0 {
                break;
            }
        }
        Ok(())
    }

    pub fn send(&mut self, plain: &[u8]) -> Vec<u8> {
        self.connection.writer().write_all(plain).expect("written");
        self.taken()
    }
}

/// Lets both talk until neither has anything to say; what ours receives comes in pieces of `piece` bytes.
pub(super) fn exchange(ours: &mut Ours, theirs: &mut Theirs, piece: usize) -> Result<(), TlsError> {
    loop {
        let (to_theirs, to_ours) = (ours.taken(), theirs.taken());
        if to_theirs.is_empty() && to_ours.is_empty() {
            return Ok(());
        }
        let refused = theirs.receive(&to_theirs);
        for bytes in to_ours.chunks(piece) {
            ours.receive(bytes)?;
        }
        if refused.is_err() {
            ours.receive(&theirs.taken())?;
            return Ok(());
        }
    }
}

/// A finished handshake of a client with our server side.
pub(super) fn connected(tls: &ServerTls, config: ClientConfig, name: &str) -> (Ours, Theirs) {
    connected_of(tls, &Arc::new(config), name)
}

pub(super) fn connected_of(tls: &ServerTls, config: &Arc<ClientConfig>, name: &str) -> (Ours, Theirs) {
    let (mut ours, mut theirs) = (Ours::server(tls), Theirs::client_of(config, name));
    exchange(&mut ours, &mut theirs, usize::MAX).expect("a handshake");
    assert!(ours.is_open() && !theirs.connection.is_handshaking());
    (ours, theirs)
}

/// A finished handshake of our client side with a server; begins it too.
pub(super) fn connected_backend(tls: &BackendTls, config: ServerConfig, name: &str) -> (Ours, Theirs) {
    let (mut ours, mut theirs) = (Ours::client(tls, name), Theirs::server(config));
    ours.receive(&[]).expect("a hello");
    exchange(&mut ours, &mut theirs, usize::MAX).expect("a handshake");
    assert!(ours.is_open() && !theirs.connection.is_handshaking());
    (ours, theirs)
}

/// Bytes that differ everywhere.
pub(super) fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}
