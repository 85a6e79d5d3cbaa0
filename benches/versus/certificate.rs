//! The certificate of wss, made for one run, and a client that trusts it.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider, kx_group::X25519},
    },
};

/// Files of one certificate (ECDSA P-256), and the client's side.
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Chain and key in one file, as HAProxy wants them.
    pub both: PathBuf,
    /// Full handshakes only: no session is kept.
    pub client: Arc<ClientConfig>,
}

impl Certificate {
    /// Makes it in `dir`.
    pub fn make(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_string()])?;
        let [chain, key, both] = ["chain.pem", "key.pem", "both.pem"].map(|name| dir.join(name));
        let (chain_pem, key_pem) = (cert.pem(), signing_key.serialize_pem());
        fs::write(&chain, &chain_pem)?;
        fs::write(&key, &key_pem)?;
        fs::write(&both, chain_pem + &key_pem)?;

        // One suite and one group, so that no proxy is measured with a dearer one than another.
        let provider = CryptoProvider {
            cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![X25519],
            ..default_provider()
        };
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone())?;
        let mut client = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.resumption = Resumption::disabled();
        Ok(Self { chain, key, both, client: client.into() })
    }
}
