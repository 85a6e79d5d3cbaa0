//! TLS clients and servers of the tests, and certificates made on the spot.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{Arc, LazyLock},
};

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::{PATIENCE, Wire};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    Ecdsa,
    Rsa,
}

fn key_pair(key: Key) -> KeyPair {
    // Making an RSA key takes a second in a bad case: one does for all.
    static RSA: LazyLock<String> = LazyLock::new(|| {
        KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("an RSA key").serialize_pem()
    });
    match key {
        Key::Ecdsa => KeyPair::generate().expect("a key"),
        Key::Rsa => KeyPair::from_pem(&RSA).expect("our own key"),
    }
}

/// Writes `NAME.crt` and `NAME.key`: self-signed, for these host names.
pub fn write_certificate(dir: &Path, name: &str, hosts: &[&str], key: Key) {
    let pair = key_pair(key);
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let certificate =
        CertificateParams::new(hosts).and_then(|params| params.self_signed(&pair)).expect("a certificate");
    fs::write(dir.join(name).with_extension("crt"), certificate.pem()).expect("a file");
    fs::write(dir.join(name).with_extension("key"), pair.serialize_pem()).expect("a file");
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// Takes any certificate: what is tested is the server, not its certificate's chain.
#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// A TLS client; its connections share one session store.
#[derive(Clone)]
pub struct Client {
    pub config: Arc<ClientConfig>,
}

impl Default for Client {
    fn default() -> Self {
        Self::offering(&[&rustls::version::TLS13, &rustls::version::TLS12], None)
    }
}

impl Client {
    /// Offers these versions and, if given, verifies only signatures of one kind of key.
    pub fn offering(versions: &[&'static SupportedProtocolVersion], key: Option<Key>) -> Self {
        let schemes = provider()
            .signature_verification_algorithms
            .supported_schemes()
            .into_iter()
            .filter(|scheme| {
                let ecdsa = format!("{scheme:?}").starts_with("ECDSA");
                key.is_none_or(|key| ecdsa == (key == Key::Ecdsa))
            })
            .collect();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions the provider has")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate { schemes }))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(32);
        Self { config: Arc::new(config) }
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }
}

/// What a handshake led to.
pub struct Handshake {
    pub version: ProtocolVersion,
    pub resumed: bool,
    pub alpn: Option<String>,
    /// The server's own certificate, DER.
    pub certificate: Vec<u8>,
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Handshake {
    pub fn wire(self) -> Wire {
        Wire::over(self.stream)
    }
}

/// A handshake with `name` as SNI (none for an IP address).
///
/// # Errors
/// What the handshake failed with.
pub fn handshake(address: SocketAddr, name: &str, client: &Client) -> std::io::Result<Handshake> {
    handshake_behind(b"", address, name, client)
}

/// As [`handshake`], with the ClientHello in one write behind some other bytes: a PROXY protocol header.
///
/// # Errors
/// What the handshake failed with.
pub fn handshake_behind(front: &[u8], address: SocketAddr, name: &str, client: &Client) -> std::io::Result<Handshake> {
    handshake_over(TcpStream::connect_timeout(&address, PATIENCE)?, front, name, client)
}

/// As [`handshake_behind`], over a connection that is there.
///
/// # Errors
/// What the handshake failed with.
pub fn handshake_over(mut socket: TcpStream, front: &[u8], name: &str, client: &Client) -> std::io::Result<Handshake> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).expect("a host name");
    let mut connection = ClientConnection::new(client.config.clone(), name).expect("a valid client");
    let mut first = front.to_vec();
    connection.write_tls(&mut first)?;
    socket.write_all(&first)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(Handshake {
        version: connection.protocol_version().expect("after the handshake"),
        resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        certificate: connection
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|c| c.to_vec())
            .unwrap_or_default(),
        stream: StreamOwned::new(connection, socket),
    })
}

pub fn connect(address: SocketAddr, name: &str, client: &Client) -> Wire {
    handshake(address, name, client).unwrap_or_else(|e| panic!("TLS with {address}: {e}")).wire()
}

/// The names in a certificate, to tell which of several was presented.
pub fn names(certificate: &[u8]) -> String {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    let names = certificate.subject_alternative_name().expect("well-formed").expect("names");
    names.value.general_names.iter().map(|name| format!("{name}")).collect::<Vec<_>>().join(" ")
}

/// The TLS side of a backend of ours.
pub struct Server {
    config: Arc<ServerConfig>,
    /// Its certificate, which is also its own authority, in PEM.
    pub certificate: String,
}

impl Server {
    pub fn new(hosts: &[&str]) -> Self {
        let pair = key_pair(Key::Ecdsa);
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let certificate =
            CertificateParams::new(hosts).and_then(|params| params.self_signed(&pair)).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(pair.serialize_pem().as_bytes()).expect("our key");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate and its key");
        Self { config: Arc::new(config), certificate: certificate.pem() }
    }

    /// Takes a TCP connection through the handshake; also the name the client asked for.
    ///
    /// # Errors
    /// What the handshake failed with.
    pub fn accept(&self, mut socket: TcpStream) -> std::io::Result<(Wire, Option<String>)> {
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut connection = ServerConnection::new(self.config.clone()).expect("a valid server");
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let name = connection.server_name().map(str::to_owned);
        Ok((Wire::over(StreamOwned::new(connection, socket)), name))
    }
}
