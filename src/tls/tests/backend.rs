//! Our client side.

use super::*;

fn build(options: &BackendTlsOptions) -> BackendTls {
    BackendTls::build(options).expect("usable")
}

fn verifying(identity: &Identity) -> BackendTlsOptions {
    BackendTlsOptions {
        verify: true,
        trusted: Some(identity.certificate()),
        send_server_name: true,
        ..backend_options()
    }
}

#[test]
fn by_default_any_certificate_is_taken_and_no_name_is_sent() {
    let identity = Identity::new("whatever.example");
    for version in VERSIONS {
        let (mut ours, mut theirs) =
            connected_backend(&build(&backend_options()), identity.backend(&[version]), "backend.example");
        let Connection::Server(connection) = &theirs.connection else { unreachable!() };
        assert_eq!(connection.server_name(), None);
        for size in [0, 1, 100_000] {
            ours.send(&payload(size));
            theirs.receive(&ours.taken()).expect("good");
            let bytes = theirs.send(&payload(size));
            bytes.chunks(1000).for_each(|piece| ours.receive(piece).expect("good"));
        }
        assert!(theirs.plain == ours.plain && ours.plain.len() == 100_001);
        assert_ne!(ours.facts().cipher, "");
        assert_eq!(ours.facts().server_name, None);
    }
}

#[test]
fn server_name_is_sent_where_asked_for_without_its_port() {
    let identity = Identity::new("a.example");
    let options = BackendTlsOptions { send_server_name: true, ..backend_options() };
    let (_, theirs) = connected_backend(&build(&options), identity.backend(&VERSIONS), "a.example:8443");
    let Connection::Server(connection) = &theirs.connection else { unreachable!() };
    assert_eq!(connection.server_name(), Some("a.example"));
}

#[test]
fn verification_takes_the_right_certificate_and_name_only() {
    let (right, wrong) = (Identity::new("a.example"), Identity::new("a.example"));
    let tls = build(&verifying(&right));
    connected_backend(&tls, right.backend(&VERSIONS), "a.example");
    for (server, name) in [(&wrong, "a.example"), (&right, "b.example")] {
        let (mut ours, mut theirs) = (Ours::client(&tls, name), Theirs::server(server.backend(&VERSIONS)));
        ours.receive(&[]).expect("a hello");
        let error = exchange(&mut ours, &mut theirs, usize::MAX).expect_err("refused");
        assert_eq!(error.reason, "tls_certificate");
        assert!(matches!(theirs.receive(&ours.taken()), Err(rustls::Error::AlertReceived(_))));
    }
}

#[test]
fn names_that_are_none_are_refused_only_where_they_matter() {
    let identity = Identity::new("a.example");
    for name in ["", "unix:/run/x.sock", "a b"] {
        assert!(Session::client(&build(&backend_options()), name).is_ok(), "{name}");
        let error = Session::client(&build(&verifying(&identity)), name).expect_err("no name");
        assert!(error.detail.contains("proxy_ssl_name"));
    }
    for name in ["127.0.0.1", "127.0.0.1:443", "[::1]:443", "::1", "my_backend", "a.example:1"] {
        assert!(Session::client(&build(&verifying(&identity)), name).is_ok(), "{name}");
    }
}

#[test]
fn sessions_with_a_backend_are_resumed() {
    let identity = Identity::new("a.example");
    for version in VERSIONS {
        let tls = build(&backend_options());
        let mut config = identity.backend(&[version]);
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("tickets");
        let (mut ours, mut theirs) = connected_backend(&tls, config.clone(), "a.example");
        ours.receive(&theirs.send(b"x")).expect("tickets and data");
        assert!(!ours.facts().resumed);
        let (ours, _) = connected_backend(&tls, config, "a.example");
        assert!(ours.facts().resumed);
    }
}

#[test]
fn tickets_cut_into_many_records_do_not_disturb_what_we_send_meanwhile() {
    let identity = Identity::new("a.example");
    let mut config = identity.backend(&[&TLS13]);
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("tickets");
    config.max_fragment_size = Some(40);
    let tls = build(&backend_options());
    let (mut ours, mut theirs) = (Ours::client(&tls, "a.example"), Theirs::server(config));
    ours.receive(&[]).expect("a hello");
    while !ours.is_open() {
        theirs.receive(&ours.taken()).expect("good");
        for piece in theirs.taken().chunks(31) {
            ours.receive(piece).expect("good");
        }
    }
    theirs.receive(&ours.taken()).expect("finished");
    let mut bytes = theirs.taken();
    assert!(bytes.len() > 200, "tickets in pieces");
    bytes.extend(theirs.send(b"data"));
    for byte in bytes {
        ours.receive(&[byte]).expect("good");
        ours.send(b"m");
    }
    theirs.receive(&ours.taken()).expect("good");
    assert_eq!(ours.plain, b"data");
    assert!(!theirs.plain.is_empty() && !ours.session.has_partial());
}

#[test]
fn buffers_too_short_for_a_record_end_the_session_without_a_panic() {
    let identity = Identity::new("a.example");
    for (length, short_later) in [(1, 1), (21, 21), (40, 40), (50, 49), (50, 3)] {
        let (mut ours, mut theirs) =
            connected_backend(&build(&backend_options()), identity.backend(&[&TLS13]), "a.example");
        let record = theirs.send(&[b'x'; 80]);
        let (mut buffer, mut reply) = (vec![0; length], Outgoing::default());
        buffer.copy_from_slice(&record[..length]);
        let mut filled = length;
        let error = loop {
            if let Err(error) = ours.session.decrypt(&mut buffer, filled, &mut reply) {
                break error;
            }
            buffer.truncate(short_later);
            filled = ours.session.resume(&mut buffer);
        };
        assert!(["tls_protocol", "tls_closed"].contains(&error.reason), "buffer of {length}: {error:?}");
    }
}

#[test]
fn clear_text_before_the_handshake_ends_is_refused() {
    for injected in [&b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..], b"\x17\x03\x03\x00\x05hello"] {
        let mut ours = Ours::client(&build(&backend_options()), "a.example");
        ours.receive(&[]).expect("a hello");
        ours.receive(injected).expect_err("refused");
        assert!(ours.plain.is_empty());
    }
}

#[test]
fn our_certificate_is_shown_where_the_backend_asks() {
    let (identity, ours_id) = (Identity::new("a.example"), Identity::new("client.example"));
    let mut roots = RootCertStore::empty();
    roots.add(ours_id.der.clone()).expect("root");
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider(ciphers::all()))
            .build()
            .expect("verifier");
    let config = ServerConfig::builder_with_provider(provider(ciphers::all()))
        .with_protocol_versions(&VERSIONS)
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.der.clone()], PrivateKeyDer::try_from(identity.key.clone()).expect("key"))
        .expect("config");
    let options = BackendTlsOptions { certificate: Some(ours_id.files()), ..backend_options() };
    let (_, theirs) = connected_backend(&build(&options), config, "a.example");
    assert_eq!(theirs.connection.peer_certificates().and_then(<[_]>::first), Some(&ours_id.der));
}

#[test]
fn unusable_files_and_options_are_all_named() {
    let options = BackendTlsOptions {
        verify: true,
        trusted: Some("/nonexistent/ca.pem".into()),
        certificate: Some(("/nonexistent/c.pem".into(), "/nonexistent/k.pem".into())),
        ..BackendTlsOptions::default()
    };
    let errors = BackendTls::build(&options).expect_err("unusable");
    let directives: Vec<_> = errors.iter().map(|error| error.directive).collect();
    assert_eq!(
        directives,
        ["proxy_ssl_protocols", "proxy_ssl_trusted_certificate", "proxy_ssl_certificate", "proxy_ssl_certificate_key"]
    );
}
