//! The side of a server block: certificates, protocols, suites and sessions, as one `rustls::ServerConfig` of its own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;

use rustls::{
    ServerConfig, SignatureAlgorithm,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{
    ServerTlsOptions, TlsConfigError,
    certificates::{self, Named},
    ciphers, provider,
    resumption::{SessionCache, TicketKeys, Tickets},
    versions,
};

/// Protocols offered by ALPN: nginx's.
const ALPN: [&[u8]; 2] = [b"http/1.1", b"http/1.0"];

/// What a server block presents and accepts, ready to use.
#[derive(Debug, Default, Clone)]
pub struct ServerTls {
    /// None: `ssl_reject_handshake`.
    pub(super) config: Option<Arc<ServerConfig>>,
    options: ServerTlsOptions,
    certificates: Arc<Certificates>,
    ticket_keys: TicketKeys,
}

impl ServerTls {
    /// Reads certificates and keys and makes the server side. The second value: notes for `-t`
    /// (cipher names that have no equal here, an expired certificate ...).
    ///
    /// # Errors
    /// Each certificate, key or option that cannot be used.
    pub fn build(options: &ServerTlsOptions) -> Result<(Self, Vec<String>), Vec<TlsConfigError>> {
        if options.reject {
            let options = options.clone();
            return Ok((Self { config: None, options, ..Self::default() }, Vec::new()));
        }
        let mut notes = Vec::new();
        let mut errors = Vec::new();
        let versions = versions(options.tls12, options.tls13, "ssl_protocols").map_err(|e| errors.push(e)).ok();
        let suites = suites(options, &mut notes).map_err(|e| errors.push(e)).ok();
        let certificates = Certificates::load(options, &mut notes).map_err(|e| errors.extend(e)).ok();
        let ticket_keys = TicketKeys::read(&options.ticket_keys).map_err(|e| errors.push(e)).ok();
        let (Some(versions), Some(suites), Some(certificates), Some(ticket_keys)) =
            (versions, suites, certificates, ticket_keys)
        else {
            return Err(errors);
        };
        let certificates = Arc::new(certificates);
        notes.extend(certificates.unusable_note(&suites, options));

        let rustls_error = |error: rustls::Error| {
            vec![TlsConfigError { directive: "ssl_certificate", index: 0, message: error.to_string() }]
        };
        let mut config = ServerConfig::builder_with_provider(provider(suites))
            .with_protocol_versions(&versions)
            .map_err(rustls_error)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificates) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        config.ignore_client_order = options.prefer_server_ciphers;
        config.enable_secret_extraction = true;
        set_resumption(&mut config, options, &ticket_keys).map_err(rustls_error)?;
        let options = options.clone();
        Ok((Self { config: Some(Arc::new(config)), options, certificates, ticket_keys }, notes))
    }

    /// True when there is no difference between the two but the sessions they have made: options, certificates and ticket keys are
    /// the same.
    pub fn is_as(&self, other: &Self) -> bool {
        self.options == other.options
            && self.ticket_keys == other.ticket_keys
            && self.certificates.are(&other.certificates.now.load())
    }

    /// Goes on with the ticket keys and the session cache that the same virtual host had before, as far as the file says the same of
    /// them: a client's session outlives a reload.
    pub fn resume(&mut self, before: &Self) {
        let (Some(config), Some(known)) = (&mut self.config, &before.config) else { return };
        let (new, old) = (&self.options, &before.options);
        if new.session_timeout != old.session_timeout {
            return;
        }
        let config = Arc::make_mut(config);
        if new.session_cache == old.session_cache {
            config.session_storage = Arc::clone(&known.session_storage);
        }
        if new.tickets == old.tickets && self.ticket_keys == before.ticket_keys {
            config.ticketer = Arc::clone(&known.ticketer);
        }
    }

    /// The files of its certificates and keys, in pairs.
    pub fn files(&self) -> &[(PathBuf, PathBuf)] {
        if self.config.is_some() { &self.options.certificates } else { &[] }
    }

    /// `ssl_certificate_watch`: the files to look after; none where it is off.
    pub fn watched(&self) -> impl Iterator<Item = &Path> {
        let pairs = if self.options.watch { self.files() } else { &[] };
        pairs.iter().flat_map(|(certificate, key)| [certificate, key]).map(PathBuf::as_path)
    }

    /// Reads certificates and keys again, and presents them from now on. False: they are as they were.
    ///
    /// # Errors
    /// Each that cannot be used; those of before are presented on.
    pub fn read_again(&self) -> Result<bool, Vec<TlsConfigError>> {
        let read = Certificates::load(&self.options, &mut Vec::new())?;
        let changed = !self.certificates.are(&read.now.load());
        if changed {
            self.certificates.now.store(read.now.load_full());
        }
        Ok(changed)
    }
}

/// The suites of `ssl_ciphers`, which has a say in TLS 1.2 only.
fn suites(
    options: &ServerTlsOptions,
    notes: &mut Vec<String>,
) -> Result<Vec<rustls::SupportedCipherSuite>, TlsConfigError> {
    if options.ciphers.is_empty() || !options.tls12 {
        return Ok(ciphers::all());
    }
    let (suites, note) = ciphers::choose(&options.ciphers).map_err(|message| TlsConfigError {
        directive: "ssl_ciphers",
        index: 0,
        message,
    })?;
    notes.extend(note);
    Ok(suites)
}

/// Tickets and the cache, whichever are on.
fn set_resumption(
    config: &mut ServerConfig,
    options: &ServerTlsOptions,
    keys: &TicketKeys,
) -> Result<(), rustls::Error> {
    config.session_storage = match options.session_cache {
        0 => Arc::new(NoServerSessionStorage {}),
        sessions => Arc::new(SessionCache::new(sessions, options.session_timeout)),
    };
    if options.tickets {
        config.ticketer = Arc::new(Tickets::new(options.session_timeout, keys)?);
    }
    // One, where OpenSSL and rustls send two: the second is for a client that opens connections in parallel, and a WebSocket
    // client comes back with one. It saves a key derivation, a seal and some 230 bytes in every full handshake.
    config.send_tls13_tickets = usize::from(options.tickets || options.session_cache > 0);
    Ok(())
}

/// The certificates of a server block: ECDSA before RSA, since it signs some twenty times as fast.
#[derive(Debug, Default)]
struct Certificates {
    /// Others may take their place while handshakes are made.
    now: ArcSwap<Vec<Arc<CertifiedKey>>>,
}

impl Certificates {
    fn load(options: &ServerTlsOptions, notes: &mut Vec<String>) -> Result<Self, Vec<TlsConfigError>> {
        if options.certificates.is_empty() {
            let message = "no \"ssl_certificate\" is defined for a server that listens with \"ssl\"".into();
            return Err(vec![TlsConfigError { directive: "ssl_certificate", index: 0, message }]);
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let (mut loaded, mut errors) = (Vec::new(), Vec::new());
        for (index, (certificate, key)) in options.certificates.iter().enumerate() {
            let named = Named { certificate: "ssl_certificate", key: "ssl_certificate_key", index };
            match certificates::load(certificate, key, named, &provider) {
                Ok((certified, more)) => {
                    loaded.push(Arc::new(certified));
                    notes.extend(more);
                }
                Err(more) => errors.extend(more),
            }
        }
        loaded.sort_by_key(|certified| certified.key.algorithm() == SignatureAlgorithm::RSA);
        if errors.is_empty() { Ok(Self { now: ArcSwap::from_pointee(loaded) }) } else { Err(errors) }
    }

    /// A key belongs to its certificate: where the chains are the same, so are the keys.
    fn are(&self, others: &[Arc<CertifiedKey>]) -> bool {
        self.now.load().iter().map(|certified| &certified.cert).eq(others.iter().map(|certified| &certified.cert))
    }

    /// Suites of `ssl_ciphers` that no certificate can sign for leave TLS 1.2 clients with nothing.
    fn unusable_note(&self, suites: &[rustls::SupportedCipherSuite], options: &ServerTlsOptions) -> Option<String> {
        let fits = |suite: &rustls::SupportedCipherSuite| {
            self.now.load().iter().any(|certified| suite.usable_for_signature_algorithm(certified.key.algorithm()))
        };
        (options.tls12 && !suites.iter().filter(|suite| suite.tls13().is_none()).any(fits)).then(|| {
            "no cipher of \"ssl_ciphers\" fits the certificate: TLSv1.2 clients will be refused \
             (ECDSA certificates need ECDHE-ECDSA-..., RSA ones ECDHE-RSA-...)"
                .into()
        })
    }
}

impl ResolvesServerCert for Certificates {
    /// The first that can sign as the client wishes; the first of all where none can, so that the client gets the alert of a
    /// failed negotiation.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello.signature_schemes();
        let signs = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(offered).is_some();
        let all = self.now.load();
        all.iter().find(signs).or(all.first()).cloned()
    }
}
