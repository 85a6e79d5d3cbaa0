//! Handshakes with clients.

use proptest::prelude::*;

use super::*;

#[test]
fn both_protocols_connect_however_the_bytes_are_cut() {
    let identity = Identity::new("a.example");
    for version in VERSIONS {
        for piece in [1, 2, 5, 7, 100, 1000, usize::MAX] {
            let (mut ours, mut theirs) =
                (Ours::server(&identity.server()), Theirs::client(identity.client(&[version]), "a.example"));
            exchange(&mut ours, &mut theirs, piece).expect("a handshake");
            assert!(ours.is_open(), "{version:?} in pieces of {piece}");
            assert!(!ours.session.has_partial());
            assert!(!theirs.connection.is_handshaking());
        }
    }
}

#[test]
fn facts_are_spelt_as_openssl_spells_them() {
    let identity = Identity::new("a.example");
    let (ours, _) = connected(&identity.server(), identity.client(&[&TLS13]), "A.Example");
    assert_eq!(
        *ours.facts(),
        TlsFacts {
            protocol: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            curve: "X25519",
            server_name: Some("a.example".into()),
            resumed: false
        }
    );
    let (ours, _) = connected(&identity.server(), identity.client(&[&TLS12]), "a.example");
    let facts = ours.facts();
    assert_eq!((facts.protocol, facts.cipher), ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"));
}

#[test]
fn the_suite_follows_the_list_when_the_server_prefers_its_own() {
    let identity = Identity::new("a.example");
    let ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256";
    let options = ServerTlsOptions { ciphers: ciphers.into(), prefer_server_ciphers: true, ..identity.options() };
    let (ours, _) = connected(&server(&options), identity.client(&[&TLS12]), "a.example");
    assert_eq!(ours.facts().cipher, "ECDHE-ECDSA-CHACHA20-POLY1305");
    let options = ServerTlsOptions { prefer_server_ciphers: false, ..options };
    let (ours, _) = connected(&server(&options), identity.client(&[&TLS12]), "a.example");
    assert_eq!(ours.facts().cipher, "ECDHE-ECDSA-AES128-GCM-SHA256");
}

#[test]
fn the_certificate_suits_the_client_when_there_are_rsa_and_ecdsa() {
    let (rsa, ecdsa) = (Identity::of("a.example", &rcgen::PKCS_RSA_SHA256), Identity::new("a.example"));
    let options = ServerTlsOptions { certificates: vec![rsa.files(), ecdsa.files()], ..ecdsa.options() };
    let tls = server(&options);
    for (identity, cipher) in [(&ecdsa, "ECDHE-ECDSA-AES256-GCM-SHA384"), (&rsa, "ECDHE-RSA-AES256-GCM-SHA384")] {
        let mut suites = ciphers::all();
        suites.retain(|suite| ciphers::openssl_name(suite.suite()) == cipher);
        let mut roots = RootCertStore::empty();
        roots.add(identity.der.clone()).expect("root");
        let config = ClientConfig::builder_with_provider(provider(suites))
            .with_protocol_versions(&[&TLS12])
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (ours, theirs) = connected(&tls, config, "a.example");
        assert_eq!(ours.facts().cipher, cipher);
        assert_eq!(theirs.connection.peer_certificates().and_then(<[_]>::first), Some(&identity.der));
    }
    let (_, theirs) = connected(&tls, ecdsa.client(&[&TLS13]), "a.example");
    assert_eq!(theirs.connection.peer_certificates().and_then(<[_]>::first), Some(&ecdsa.der));
}

#[test]
fn alpn_chooses_http_1_and_refuses_a_client_that_wants_only_h2() {
    let identity = Identity::new("a.example");
    let offering = |protocols: &[&str]| {
        let mut config = identity.client(&[&TLS13]);
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    };
    let (_, theirs) = connected(&identity.server(), offering(&["h2", "http/1.1"]), "a.example");
    assert_eq!(theirs.connection.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (mut ours, mut theirs) = (Ours::server(&identity.server()), Theirs::client(offering(&["h2"]), "a.example"));
    let error = ours.receive(&theirs.taken()).expect_err("no protocol in common");
    assert_eq!(error.reason, "tls_alpn");
    assert!(matches!(
        theirs.receive(&ours.taken()),
        Err(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol))
    ));
}

#[test]
fn a_rejecting_server_says_unrecognized_name_and_needs_no_certificate() {
    let identity = Identity::new("a.example");
    let (tls, notes) =
        ServerTls::build(&ServerTlsOptions { reject: true, ..ServerTlsOptions::default() }).expect("built");
    assert!(notes.is_empty());
    let (mut ours, mut theirs) = (Ours::server(&tls), Theirs::client(identity.client(&VERSIONS), "a.example"));
    assert_eq!(ours.receive(&theirs.taken()).expect_err("rejected").reason, "tls_unrecognized_name");
    assert!(matches!(
        theirs.receive(&ours.taken()),
        Err(rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName))
    ));
    assert_eq!(ours.receive(b"more").expect_err("over").reason, "tls_closed");
}

#[test]
fn no_protocol_in_common_is_an_alert() {
    let identity = Identity::new("a.example");
    let tls = server(&ServerTlsOptions { tls12: false, ..identity.options() });
    let (mut ours, mut theirs) = (Ours::server(&tls), Theirs::client(identity.client(&[&TLS12]), "a.example"));
    let error = ours.receive(&theirs.taken()).expect_err("refused");
    assert_eq!(error.reason, "tls_handshake");
    assert!(matches!(theirs.receive(&ours.taken()), Err(rustls::Error::AlertReceived(_))));
}

#[test]
fn a_client_that_distrusts_us_is_reported_with_its_alert() {
    let (identity, other) = (Identity::new("a.example"), Identity::new("a.example"));
    let (mut ours, mut theirs) =
        (Ours::server(&identity.server()), Theirs::client(other.client(&[&TLS13]), "a.example"));
    let error = exchange(&mut ours, &mut theirs, usize::MAX).expect_err("distrusted");
    assert_eq!(error.reason, "tls_alert");
}

#[test]
fn requests_right_behind_the_finished_message_wait_for_decrypt() {
    let identity = Identity::new("a.example");
    for version in VERSIONS {
        let (mut ours, mut theirs) =
            (Ours::server(&identity.server()), Theirs::client(identity.client(&[version]), "a.example"));
        let request = payload(40_000);
        theirs.connection.writer().write_all(&request).expect("kept until it may be sent");
        exchange(&mut ours, &mut theirs, usize::MAX).expect("a handshake");
        assert_eq!(ours.plain, request);
        assert!(!ours.session.has_partial());
    }
}

#[test]
fn an_answer_may_be_encrypted_before_what_came_behind_the_handshake_is_read() {
    let identity = Identity::new("a.example");
    let (mut ours, mut theirs) =
        (Ours::server(&identity.server()), Theirs::client(identity.client(&[&TLS13]), "a.example"));
    ours.receive(&theirs.taken()).expect("hello");
    theirs.receive(&ours.taken()).expect("flight");
    let finished = [theirs.taken(), theirs.send(b"request")].concat();
    assert!(ours.session.handshake(&finished, &mut ours.sent).expect("good").is_some(), "finished");
    assert!(ours.session.has_partial());
    ours.send(b"answer");
    ours.decrypt(&[]).expect("request");
    theirs.receive(&ours.taken()).expect("answer");
    assert_eq!((&ours.plain[..], &theirs.plain[..]), (&b"request"[..], &b"answer"[..]));
}

#[test]
fn handshake_messages_cut_into_many_records_are_put_together() {
    let identity = Identity::new("a.example");
    for version in VERSIONS {
        for piece in [1, 50, usize::MAX] {
            let mut config = identity.client(&[version]);
            config.max_fragment_size = Some(32);
            let (mut ours, mut theirs) = (Ours::server(&identity.server()), Theirs::client(config, "a.example"));
            exchange(&mut ours, &mut theirs, piece).expect("a handshake");
            assert!(ours.is_open() && !ours.session.has_partial());
            assert_eq!(ours.facts().server_name.as_deref(), Some("a.example"));
        }
    }
}

#[test]
fn an_endless_handshake_message_is_bounded() {
    let identity = Identity::new("a.example");
    let mut ours = Ours::server(&identity.server());
    // A ClientHello of 64,000 bytes, one byte a record.
    let mut refused = None;
    let mut sent = 0;
    let hello = [&[1, 0, 0xfa, 0][..], &[3; 64_000]].concat();
    for byte in hello {
        sent += 6;
        if let Err(error) = ours.receive(&[22, 3, 1, 0, 1, byte]) {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused.expect("bounded").reason, "tls_handshake");
    assert!(sent <= limits::TLS_PENDING_BYTES + 6);
}

#[test]
fn plain_http_on_a_tls_port_fails_at_once() {
    let identity = Identity::new("a.example");
    let mut ours = Ours::server(&identity.server());
    let error = ours.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect_err("no TLS");
    assert_eq!(error.reason, "tls_handshake");
    assert!(!ours.session.has_partial());
    assert_eq!(ours.session.encrypt(b"x", &mut Outgoing::default()).expect_err("failed").reason, "tls_closed");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..600), cut in 0usize..600, flip in any::<u8>()) {
        let identity = Identity::new("a.example");
        let tls = identity.server();
        let mut ours = Ours::server(&tls);
        let _ = ours.receive(&garbage);
        ours.session.close(&mut Outgoing::default());

        let mut ours = Ours::server(&tls);
        let mut hello = Theirs::client(identity.client(&VERSIONS), "a.example").taken();
        let at = cut % hello.len();
        hello[at] ^= flip;
        for piece in hello.chunks(97) {
            if ours.receive(piece).is_err() {
                break;
            }
        }
    }
}
