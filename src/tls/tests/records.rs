//! Records after the handshake.

use proptest::prelude::*;

use super::*;

const SIZES: [usize; 9] = [0, 1, 125, 16_383, 16_384, 16_385, 65_536, 100_000, 1 << 20];

fn pair(version: &'static SupportedProtocolVersion) -> (Ours, Theirs) {
    let identity = Identity::new("a.example");
    connected(&identity.server(), identity.client(&[version]), "a.example")
}

/// A client that offers nothing but this suite.
fn client_with(identity: &Identity, suite: rustls::SupportedCipherSuite) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(identity.der.clone()).expect("root");
    ClientConfig::builder_with_provider(provider(vec![suite]))
        .with_protocol_versions(&[suite.version()])
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

#[test]
fn payloads_of_all_sizes_pass_both_ways_with_every_suite() {
    let identity = Identity::new("a.example");
    let tls = identity.server();
    // The certificate's key decides between ECDSA and RSA; records are the same with both.
    let usable = |suite: &rustls::SupportedCipherSuite| !format!("{suite:?}").contains("_RSA_");
    let suites: Vec<_> = ciphers::all().into_iter().filter(usable).collect();
    assert_eq!(suites.len(), 6);
    for suite in suites {
        let (mut ours, mut theirs) = connected(&tls, client_with(&identity, suite), "a.example");
        assert_eq!(ours.facts().cipher, ciphers::openssl_name(suite.suite()));
        for size in SIZES {
            let plain = payload(size);
            for piece in theirs.send(&plain).chunks(100_000) {
                ours.receive(piece).expect("good records");
            }
            assert!(std::mem::take(&mut ours.plain) == plain, "{size} bytes in");
            ours.send(&plain);
            theirs.receive(&ours.taken()).expect("good records");
            assert!(std::mem::take(&mut theirs.plain) == plain, "{size} bytes out");
            assert!(!ours.session.has_partial());
        }
    }
}

#[test]
fn records_may_be_cut_at_every_byte() {
    for version in VERSIONS {
        let (mut ours, mut theirs) = pair(version);
        let mut cut = 0;
        loop {
            let pieces =
                [theirs.send(b"three records "), theirs.send(b"in one stream "), theirs.send(b"cut somewhere!")];
            let (length, bytes) = (pieces[0].len(), pieces.concat());
            let (a, b) = bytes.split_at(cut);
            ours.receive(a).expect("good");
            assert_eq!(ours.session.has_partial(), cut % length != 0, "cut at {cut}");
            ours.receive(b).expect("good");
            assert_eq!(std::mem::take(&mut ours.plain), b"three records in one stream cut somewhere!");
            assert!(!ours.session.has_partial());
            if cut == bytes.len() {
                break;
            }
            cut += 1;
        }
    }
}

#[test]
fn nothing_received_changes_nothing() {
    let (mut ours, mut theirs) = pair(&TLS13);
    let bytes = theirs.send(b"hello");
    ours.receive(&bytes[..9]).expect("partial");
    ours.receive(&[]).expect("a wakeup for nothing");
    assert!(ours.session.has_partial());
    ours.receive(&bytes[9..]).expect("the rest");
    assert_eq!(ours.plain, b"hello");
}

#[test]
fn key_updates_are_followed_and_answered() {
    let (mut ours, mut theirs) = pair(&TLS13);
    for round in 0..5 {
        theirs.connection.refresh_traffic_keys().expect("TLS 1.3");
        let bytes = theirs.send(b"ping");
        for byte in bytes {
            ours.receive(&[byte]).expect("key update and data");
        }
        ours.send(b"pong");
        theirs.receive(&ours.taken()).expect("answered under new keys");
        assert_eq!((ours.plain.len(), theirs.plain.len()), (4 * (round + 1), 4 * (round + 1)));
        assert!(!ours.session.has_partial());
    }
}

#[test]
fn close_notify_is_a_clean_end_and_leaves_our_half_open() {
    for version in VERSIONS {
        let (mut ours, mut theirs) = pair(version);
        let mut bytes = theirs.send(b"last words");
        theirs.connection.send_close_notify();
        bytes.extend(theirs.taken());
        bytes.extend(b"ignored");
        ours.receive(&bytes).expect("closed cleanly");
        assert_eq!(ours.plain, b"last words");
        assert!(ours.closed && !ours.session.has_partial());
        ours.receive(&[]).expect("closed");
        ours.send(b"late answer");
        ours.session.close(&mut ours.sent);
        ours.session.close(&mut ours.sent);
        theirs.receive(&ours.taken()).expect("answer and close_notify");
        assert_eq!(theirs.plain, b"late answer");
        assert!(theirs.closed);
        assert_eq!(ours.session.encrypt(b"x", &mut Outgoing::default()).expect_err("closed").reason, "tls_closed");
    }
}

#[test]
fn after_our_close_notify_the_peers_late_data_still_arrives() {
    let (mut ours, mut theirs) = pair(&TLS13);
    ours.session.close(&mut ours.sent);
    let late = theirs.send(&payload(50_000));
    ours.receive(&late).expect("late data");
    assert_eq!(ours.plain, payload(50_000));
    theirs.connection.send_close_notify();
    ours.receive(&theirs.taken()).expect("their close");
    assert!(ours.closed);
}

#[test]
fn an_end_within_a_record_shows_as_partial() {
    let (mut ours, mut theirs) = pair(&TLS13);
    let bytes = theirs.send(&payload(20_000));
    ours.receive(&bytes[..bytes.len() - 1]).expect("so far");
    assert_eq!(ours.plain.len(), 16_384);
    assert!(ours.session.has_partial() && !ours.closed);
}

#[test]
fn a_damaged_record_fails_after_the_good_ones_with_an_alert() {
    for version in VERSIONS {
        let (mut ours, mut theirs) = pair(version);
        let good = theirs.send(b"good");
        let mut bad = theirs.send(b"bad");
        *bad.last_mut().expect("a tag") ^= 1;
        let error = ours.receive(&[good, bad].concat()).expect_err("damaged");
        assert_eq!(error.reason, "tls_decrypt");
        assert_eq!((error.plain, &ours.plain[..]), (4, &b"good"[..]));
        assert!(matches!(
            theirs.receive(&ours.taken()),
            Err(rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac))
        ));
        assert_eq!(ours.receive(b"").expect_err("over").reason, "tls_closed");
        assert_eq!(ours.session.encrypt(b"x", &mut Outgoing::default()).expect_err("over").reason, "tls_closed");
        ours.session.close(&mut ours.sent);
        assert!(ours.sent.is_empty(), "no close_notify after a fatal alert");
    }
}

#[test]
fn clear_text_in_the_middle_of_a_connection_is_refused() {
    let (mut ours, _) = pair(&TLS13);
    assert_eq!(ours.receive(b"GET / HTTP/1.1\r\n").expect_err("no record").reason, "tls_protocol");
    let (mut ours, _) = pair(&TLS13);
    assert_eq!(ours.receive(b"\x17\x03\x03\x00\x05hello").expect_err("not encrypted").reason, "tls_decrypt");
}

#[test]
fn the_output_is_appended_and_exactly_as_long_as_its_records() {
    let (mut ours, mut theirs) = pair(&TLS12);
    let mut out = Outgoing::default();
    out.push(b"before");
    ours.session.encrypt(&payload(40_000), &mut out).expect("encrypted");
    assert_eq!(&out[..6], b"before");
    assert_eq!(out.len(), 6 + 40_000 + 3 * 29);
    theirs.receive(&out[6..]).expect("good");
    assert_eq!(theirs.plain, payload(40_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_writes_cut_anyhow_arrive_whole(
        writes in prop::collection::vec(0usize..40_000, 1..8),
        cuts in prop::collection::vec(1usize..50_000, 1..30),
        tls13 in any::<bool>(),
    ) {
        let (mut ours, mut theirs) = pair(if tls13 { &TLS13 } else { &TLS12 });
        let (mut wire, mut sent) = (Vec::new(), Vec::new());
        for size in writes {
            let plain = payload(size);
            wire.extend(theirs.send(&plain));
            sent.extend(plain);
        }
        let mut rest = &wire[..];
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            ours.receive(piece).expect("good records");
            ours.send(b"meanwhile");
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(ours.plain == sent);
        prop_assert!(!ours.session.has_partial());
        theirs.receive(&ours.taken()).expect("good records");
    }

    #[test]
    fn flipped_bytes_never_pass(at in any::<prop::sample::Index>(), flip in 1u8.., size in 1usize..2000) {
        let (mut ours, mut theirs) = pair(&TLS13);
        let mut wire = theirs.send(&payload(size));
        let at = at.index(wire.len());
        wire[at] ^= flip;
        let passed = ours.receive(&wire);
        // The version in a record's head is not authenticated and means nothing (RFC 8446 section 5.1).
        prop_assert!(passed.is_err() || ours.plain.is_empty() || (1..3).contains(&at));
    }
}
