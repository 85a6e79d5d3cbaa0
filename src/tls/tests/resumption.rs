//! Sessions that come back.

use super::*;

/// Connects twice and says whether the second was resumed, as both see it.
fn resumes(first: &ServerTls, second: &ServerTls, config: ClientConfig, names: [&str; 2]) -> bool {
    let config = Arc::new(config);
    let (mut ours, mut theirs) = connected_of(first, &config, names[0]);
    assert!(!ours.facts().resumed);
    ours.send(b"x");
    theirs.receive(&ours.taken()).expect("data");
    let (mut ours, mut theirs) = connected_of(second, &config, names[1]);
    ours.receive(&theirs.send(b"hello again")).expect("data");
    assert_eq!(ours.plain, b"hello again");
    let resumed = ours.facts().resumed;
    assert_eq!(theirs.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed), resumed);
    resumed
}

#[test]
fn tickets_and_cache_resume_both_protocols() {
    let identity = Identity::new("a.example");
    for version in VERSIONS {
        for (tickets, session_cache) in [(true, 0), (false, 100), (true, 100)] {
            let tls = server(&ServerTlsOptions { tickets, session_cache, ..identity.options() });
            let same = ["a.example"; 2];
            assert!(resumes(&tls, &tls, identity.client(&[version]), same), "{version:?} {tickets} {session_cache}");
        }
    }
}

#[test]
fn with_both_off_nothing_resumes_and_no_ticket_is_sent() {
    let identity = Identity::new("a.example");
    for version in VERSIONS {
        let tls = server(&ServerTlsOptions { tickets: false, ..identity.options() });
        assert!(!resumes(&tls, &tls, identity.client(&[version]), ["a.example"; 2]));
    }
}

#[test]
fn a_ticket_opens_no_other_virtual_host() {
    // One certificate for both names, as a wildcard would be; each server block has its own keys.
    let params = rcgen::CertificateParams::new(["a.example".to_owned(), "b.example".to_owned()]).expect("params");
    let identity = Identity::with(params, &rcgen::PKCS_ECDSA_P256_SHA256);
    for version in VERSIONS {
        for (tickets, session_cache) in [(true, 0), (false, 100)] {
            let options = ServerTlsOptions { tickets, session_cache, ..identity.options() };
            let (a, b) = (server(&options), server(&options));
            assert!(!resumes(&a, &b, identity.client(&[version]), ["a.example"; 2]), "another block's ticket");
        }
    }
}

#[test]
fn a_ticket_is_bound_to_its_name_within_one_server_block() {
    let params = rcgen::CertificateParams::new(["a.example".to_owned(), "b.example".to_owned()]).expect("params");
    let identity = Identity::with(params, &rcgen::PKCS_ECDSA_P256_SHA256);
    let tls = identity.server();
    for version in VERSIONS {
        let config = Arc::new(identity.client(&[version]));
        // A client that keeps its sessions under one key whatever the name.
        let mut blind = (*config).clone();
        blind.resumption =
            rustls::client::Resumption::store(Arc::new(OneShelf(rustls::client::ClientSessionMemoryCache::new(8))));
        assert!(!resumes(&tls, &tls, blind, ["a.example", "b.example"]));
    }
}

/// Stores sessions of all servers under one name.
#[derive(Debug)]
struct OneShelf(rustls::client::ClientSessionMemoryCache);

impl OneShelf {
    fn name() -> ServerName<'static> {
        ServerName::try_from("shelf.example").expect("name")
    }
}

impl rustls::client::ClientSessionStore for OneShelf {
    fn set_kx_hint(&self, _: ServerName<'static>, group: rustls::NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<rustls::NamedGroup> {
        self.0.kx_hint(&Self::name())
    }
    fn set_tls12_session(&self, _: ServerName<'static>, value: rustls::client::Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<rustls::client::Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }
    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: rustls::client::Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<rustls::client::Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}
