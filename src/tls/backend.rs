//! Our side of TLS to a backend (`proxy_ssl_*`).

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
};

use super::{
    BackendTlsOptions, TlsConfigError,
    certificates::{self, Named},
    ciphers, provider, versions,
};

/// Where distributions keep the authorities they trust: Debian and Alpine, RHEL and Fedora, SUSE, OpenSSL's own.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How a location speaks TLS to its backend, ready to use. Sessions with the backend are resumed, from a store of its own.
#[derive(Debug)]
pub struct BackendTls {
    pub(super) config: Arc<ClientConfig>,
    /// The name is only decoration: neither sent nor verified.
    pub(super) name_unused: bool,
}

impl BackendTls {
    /// Makes the client side.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn build(options: &BackendTlsOptions) -> Result<Self, Vec<TlsConfigError>> {
        let provider = provider(ciphers::all());
        let mut errors = Vec::new();
        let versions = versions(options.tls12, options.tls13, "proxy_ssl_protocols").map_err(|e| errors.push(e)).ok();
        let verifier = verifier(options).map_err(|e| errors.push(e)).ok();
        let certificate = match &options.certificate {
            None => Some(None),
            Some((certificate, key)) => {
                let named = Named { certificate: "proxy_ssl_certificate", key: "proxy_ssl_certificate_key", index: 0 };
                let loaded = certificates::load(certificate, key, named, &provider);
                loaded.map(|(certified, _)| Some(certified)).map_err(|e| errors.extend(e)).ok()
            }
        };
        let (Some(versions), Some(verifier), Some(certificate)) = (versions, verifier, certificate) else {
            return Err(errors);
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(|error| {
                vec![TlsConfigError { directive: "proxy_ssl_protocols", index: 0, message: error.to_string() }]
            })?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match certificate {
            Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = options.send_server_name;
        config.enable_secret_extraction = true;
        Ok(Self { config: Arc::new(config), name_unused: !options.verify && !options.send_server_name })
    }

    /// For a client of rustls' own kind, which blocks.
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }
}

fn verifier(options: &BackendTlsOptions) -> Result<Arc<dyn ServerCertVerifier>, TlsConfigError> {
    if !options.verify {
        return Ok(Arc::new(AnyCertificate));
    }
    let error = |message| TlsConfigError { directive: "proxy_ssl_trusted_certificate", index: 0, message };
    let roots = match &options.trusted {
        Some(path) => roots(path),
        None => SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()).map_or_else(
            || Err("proxy_ssl_verify is on, and this system has no bundle of authorities; name one".into()),
            roots,
        ),
    }
    .map_err(error)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider(ciphers::all())).build();
    verifier.map(|verifier| verifier as Arc<dyn ServerCertVerifier>).map_err(|e| error(e.to_string()))
}

/// The authorities of a PEM file; those that cannot be read are left out, as OpenSSL does, but one must remain.
fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates::chain(path)?);
    match added {
        0 => Err(format!("\"{}\" has no certificate that can be an authority", path.display())),
        _ => Ok(roots),
    }
}

/// `proxy_ssl_verify off`: takes whatever the backend shows, as nginx does. The signature of the handshake is not checked
/// either: it would only prove that an unverified certificate is the peer's own, and old X.509 v1 certificates, still found on
/// backends, could not be parsed for it.
#[derive(Debug)]
struct AnyCertificate;

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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
