//! The certificates of wss, made for one run, and clients that trust them.

use std::{
    collections::VecDeque,
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    crypto::{
        CryptoProvider,
        aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider, kx_group::X25519},
    },
    pki_types::ServerName,
};

/// What the proxy signs handshakes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// P-256.
    Ecdsa,
    /// 2048 bits.
    Rsa,
}

/// A certificate of each kind of key.
pub struct Certificates {
    ecdsa: Certificate,
    rsa: Certificate,
}

/// Files of one certificate, and the client's side.
pub struct Certificate {
    pub chain: PathBuf,
    pub key: PathBuf,
    /// Chain and key in one file, as HAProxy wants them.
    pub both: PathBuf,
    client: ClientConfig,
}

impl Certificates {
    /// Makes them in `dir`.
    pub fn make(dir: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            ecdsa: Certificate::make(dir, "ecdsa", &KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?,
            rsa: Certificate::make(dir, "rsa", &KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?)?,
        })
    }

    pub fn of(&self, key: Key) -> &Certificate {
        match key {
            Key::Ecdsa => &self.ecdsa,
            Key::Rsa => &self.rsa,
        }
    }
}

impl Certificate {
    fn make(dir: &Path, name: &str, pair: &KeyPair) -> Result<Self, Box<dyn Error>> {
        let made = rcgen::CertificateParams::new(["localhost".to_string()])?.self_signed(pair)?;
        let [chain, key, both] = ["chain", "key", "both"].map(|part| dir.join(format!("{name}-{part}.pem")));
        let (chain_pem, key_pem) = (made.pem(), pair.serialize_pem());
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
        roots.add(made.der().clone())?;
        let client = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { chain, key, both, client })
    }

    /// A client that has met no server yet. Without `resumes` it keeps no session: every handshake is a full one.
    pub fn client(&self, resumes: bool) -> Arc<ClientConfig> {
        let mut client = self.client.clone();
        client.resumption =
            if resumes { Resumption::store(Arc::new(Tickets::default())) } else { Resumption::disabled() };
        client.into()
    }
}

/// The tickets of all connections, each used once, the newest first: a server may keep the sessions itself, and only so
/// many. The store of rustls keeps eight tickets of a server: too few for many clients that share one name.
#[derive(Debug, Default)]
struct Tickets(Mutex<VecDeque<Tls13ClientSessionValue>>);

impl Tickets {
    const KEPT: usize = 1024;
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.push_back(ticket);
        if tickets.len() > Self::KEPT {
            tickets.pop_front();
        }
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_back()
    }
}
