//! The record layer, with a peer that may send anything under the right keys.

use proptest::prelude::*;
use rustls::{AlertDescription, ContentType, Error, PeerMisbehaved};

use super::{
    super::{
        session::Stage,
        traffic::{Opened, Traffic},
    },
    *,
};

/// A server's and a client's, of one connection; both ours.
fn pair(version: &'static SupportedProtocolVersion) -> [Traffic; 2] {
    let identity = Identity::new("a.example");
    let tls13 = version == &TLS13;
    let server = server(&ServerTlsOptions { tls12: !tls13, tls13, ..identity.options() });
    let client = BackendTls::build(&backend_options()).expect("usable");
    let (mut server, mut client) = (Ours::server(&server), Ours::client(&client, "a.example"));
    client.receive(&[]).expect("a hello");
    while !(server.is_open() && client.is_open()) {
        server.receive(&client.taken()).expect("a step");
        client.receive(&server.taken()).expect("a step");
    }
    [server, client].map(|ours| match ours.session.stage {
        Stage::Traffic(traffic) => traffic,
        _ => unreachable!("the handshake is finished"),
    })
}

/// One record of this type.
fn record(from: &mut Traffic, kind: ContentType, payload: &[u8]) -> Vec<u8> {
    let mut out = Outgoing::default();
    from.write(kind, payload, &mut out).expect("sealed");
    out.to_vec()
}

fn data(from: &mut Traffic, plain: &[u8]) -> Vec<u8> {
    let mut out = Outgoing::default();
    from.seal(plain, &mut out).expect("sealed");
    out.to_vec()
}

/// The plaintext, and what is to be answered.
fn open(at: &mut Traffic, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let (mut bytes, mut reply, mut opened) = (bytes.to_vec(), Outgoing::default(), Opened::default());
    at.open(&mut bytes, &mut reply, &mut opened)?;
    assert_eq!(opened.used, bytes.len());
    bytes.truncate(opened.plain);
    Ok((bytes, reply.to_vec()))
}

#[track_caller]
fn misbehaves(result: Result<(Vec<u8>, Vec<u8>), Error>, how: PeerMisbehaved) {
    assert_eq!(result.expect_err("refused"), Error::PeerMisbehaved(how));
}

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUEST: [u8; 5] = [24, 0, 0, 1, 1];

/// What a peer does when it sends a KeyUpdate.
fn update(from: &mut Traffic, message: &[u8; 5]) -> Vec<u8> {
    let bytes = record(from, ContentType::Handshake, message);
    from.take_next_sealing_key().expect("TLS 1.3");
    bytes
}

#[test]
fn a_key_that_is_used_up_is_replaced_in_tls_13_and_ends_a_session_of_tls_12() {
    let [mut server, mut client] = pair(&TLS13);
    server.records_per_key = 4;
    for round in 0..40usize {
        let plain = payload(round * 1000);
        assert!(open(&mut client, &data(&mut server, &plain)).expect("followed").0 == plain, "round {round}");
        assert!(server.sealed() < 4, "{} records under one key", server.sealed());
    }
    let [mut server, mut client] = pair(&TLS12);
    let sealed = server.sealed();
    server.records_per_key = sealed + 4;
    for _ in 0..3 {
        assert_eq!(open(&mut client, &data(&mut server, b"x")).expect("good").0, b"x");
    }
    assert_eq!(server.seal(b"x", &mut Outgoing::default()), Err(Error::EncryptError));
    // The peer is told even so.
    let mut out = Outgoing::default();
    server.close(&mut out);
    let (mut bytes, mut opened) = (out.to_vec(), Opened::default());
    client.open(&mut bytes, &mut Outgoing::default(), &mut opened).expect("close_notify");
    assert!(opened.closed);
}

#[test]
fn however_often_new_keys_are_asked_for_they_come_once_and_with_the_next_data() {
    let [mut server, mut client] = pair(&TLS13);
    open(&mut client, &data(&mut server, b"x")).expect("a ticket and data");
    for _ in 0..10 {
        let asked = update(&mut client, &KEY_UPDATE_REQUEST);
        assert_eq!(open(&mut server, &asked).expect("followed"), (vec![], vec![]));
    }
    let answer = data(&mut server, b"answer");
    assert_eq!((server.sealed(), answer.len()), (1, 5 + 5 + 17 + 5 + 6 + 17));
    assert_eq!(open(&mut client, &answer).expect("followed").0, b"answer");
    // One that asks for nothing changes nothing.
    let told = update(&mut client, &KEY_UPDATE);
    open(&mut server, &told).expect("followed");
    assert_eq!(data(&mut server, b"x").len(), 5 + 1 + 17);
}

#[test]
fn a_peer_that_sends_nothing_of_use_is_given_up_after_a_while() {
    let limit = limits::TLS_FRUITLESS_RECORDS;
    let [mut server, mut client] = pair(&TLS13);
    for _ in 0..limit {
        open(&mut server, &record(&mut client, ContentType::ApplicationData, b"")).expect("borne");
    }
    // Data makes good for it.
    open(&mut server, &data(&mut client, b"x")).expect("data");
    for _ in 0..limit {
        let bytes = update(&mut client, &KEY_UPDATE);
        open(&mut server, &bytes).expect("borne");
    }
    let bytes = update(&mut client, &KEY_UPDATE);
    misbehaves(open(&mut server, &bytes), PeerMisbehaved::TooManyKeyUpdateRequests);

    let [mut server, mut client] = pair(&TLS12);
    let warning = [1, 90];
    for _ in 0..limit {
        open(&mut server, &record(&mut client, ContentType::Alert, &warning)).expect("borne");
    }
    let bytes = record(&mut client, ContentType::Alert, &warning);
    misbehaves(open(&mut server, &bytes), PeerMisbehaved::TooManyWarningAlertsReceived);
    let [mut server, mut client] = pair(&TLS12);
    for _ in 0..limit {
        open(&mut server, &record(&mut client, ContentType::ApplicationData, b"")).expect("borne");
    }
    let bytes = record(&mut client, ContentType::ApplicationData, b"");
    misbehaves(open(&mut server, &bytes), PeerMisbehaved::TooManyEmptyFragments);
}

#[test]
fn alerts_end_the_connection_as_their_version_wants() {
    let received = |version, alert: &[u8]| {
        let [mut server, mut client] = pair(version);
        open(&mut server, &record(&mut client, ContentType::Alert, alert)).map(|_| ())
    };
    let internal_error = Err(Error::AlertReceived(AlertDescription::InternalError));
    for version in VERSIONS {
        assert_eq!(received(version, &[2, 80]), internal_error);
        assert_eq!(received(version, &[1, 90]), Ok(()), "user_canceled");
        for malformed in [&[][..], &[1], &[1, 0, 0]] {
            assert!(matches!(received(version, malformed), Err(Error::InvalidMessage(_))));
        }
    }
    assert_eq!(received(&TLS12, &[1, 80]), Ok(()), "a warning");
    assert_eq!(received(&TLS13, &[1, 80]), internal_error, "there are no warnings");
}

#[test]
fn renegotiation_is_declined_once() {
    let client_hello = [1, 0, 0, 2, 3, 3];
    let hello_request = [0, 0, 0, 0];
    for (asker, message) in [(1, &client_hello[..]), (0, &hello_request)] {
        let mut pair = pair(&TLS12);
        let [server, client] = &mut pair;
        let (from, to) = if asker == 1 { (client, server) } else { (server, client) };
        let (plain, reply) = open(to, &record(from, ContentType::Handshake, message)).expect("declined");
        assert!(plain.is_empty() && !reply.is_empty());
        // no_renegotiation is a warning: the connection lives on.
        open(from, &reply).expect("a warning");
        assert_eq!(open(to, &data(from, b"on we go")).expect("data").0, b"on we go");
        let again = open(to, &record(from, ContentType::Handshake, message));
        assert!(matches!(again, Err(Error::InappropriateHandshakeMessage { .. })), "{again:?}");
        // Of the other side it would be nonsense from the beginning.
        let wrong = open(from, &record(to, ContentType::Handshake, message));
        assert!(matches!(wrong, Err(Error::InappropriateHandshakeMessage { .. })), "{wrong:?}");
    }
}

#[test]
fn messages_that_have_no_place_behind_the_handshake_are_refused() {
    let refused = |version, kind, payload: &[u8]| {
        let [mut server, mut client] = pair(version);
        open(&mut server, &record(&mut client, kind, payload)).expect_err("refused")
    };
    for version in VERSIONS {
        let got_finished = refused(version, ContentType::Handshake, &[20, 0, 0, 1, 1]);
        assert!(matches!(got_finished, Error::InappropriateHandshakeMessage { .. }));
        assert!(matches!(refused(version, ContentType::Handshake, b""), Error::InvalidMessage(_)));
        assert!(matches!(refused(version, ContentType::Heartbeat, b"x"), Error::InappropriateMessage { .. }));
    }
    // A ticket is the server's to give, new keys are TLS 1.3's.
    let got_ticket = refused(&TLS13, ContentType::Handshake, &[4, 0, 0, 1, 1]);
    assert!(matches!(got_ticket, Error::InappropriateHandshakeMessage { .. }));
    let got_update = refused(&TLS12, ContentType::Handshake, &KEY_UPDATE);
    assert!(matches!(got_update, Error::InappropriateHandshakeMessage { .. }));
    for malformed in [&[24, 0, 0, 1, 2][..], &[24, 0, 0, 0], &[24, 0, 0, 2, 0, 0]] {
        assert!(matches!(refused(&TLS13, ContentType::Handshake, malformed), Error::InvalidMessage(_)));
    }
    let followed = [KEY_UPDATE, KEY_UPDATE].concat();
    let error = refused(&TLS13, ContentType::Handshake, &followed);
    assert_eq!(error, Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment));
    // Longer than any ticket: refused before it has come.
    assert!(matches!(refused(&TLS13, ContentType::Handshake, &[4, 1, 0, 1]), Error::InvalidMessage(_)));
}

#[test]
fn a_message_cut_into_records_is_put_together_and_nothing_may_come_between() {
    let [mut server, mut client] = pair(&TLS13);
    for byte in KEY_UPDATE {
        open(&mut server, &record(&mut client, ContentType::Handshake, &[byte])).expect("a part");
    }
    client.take_next_sealing_key().expect("TLS 1.3");
    assert_eq!(open(&mut server, &data(&mut client, b"new keys")).expect("data").0, b"new keys");
    for kind in [ContentType::ApplicationData, ContentType::Alert] {
        let [mut server, mut client] = pair(&TLS13);
        open(&mut server, &record(&mut client, ContentType::Handshake, &KEY_UPDATE[..3])).expect("a part");
        let between = record(&mut client, kind, &[1, 0]);
        misbehaves(open(&mut server, &between), PeerMisbehaved::MessageInterleavedWithHandshakeMessage);
    }
}

#[test]
fn padding_is_taken_off_and_nothing_but_padding_is_refused() {
    let [mut server, mut client] = pair(&TLS13);
    // What is sealed as the type comes to lie behind the padding: zeros, as it is one.
    let padded = record(&mut client, ContentType::from(0), b"plain\x17\0\0\0");
    assert_eq!(open(&mut server, &padded).expect("padded").0, b"plain");
    let empty = record(&mut client, ContentType::from(0), b"\0\0");
    misbehaves(open(&mut server, &empty), PeerMisbehaved::IllegalTlsInnerPlaintext);
}

#[test]
fn a_record_may_be_full_and_no_fuller() {
    for version in VERSIONS {
        let [mut server, mut client] = pair(version);
        let full = payload(1 << 14);
        let bytes = record(&mut client, ContentType::ApplicationData, &full);
        assert!(open(&mut server, &bytes).expect("full").0 == full);
        let bytes = record(&mut client, ContentType::ApplicationData, &payload((1 << 14) + 1));
        assert_eq!(open(&mut server, &bytes), Err(Error::PeerSentOversizedRecord));
        // Its head says so, and the rest is not waited for.
        let [mut server, _] = pair(version);
        let refused = server.open(&mut [23, 3, 3, 0x48, 0x01], &mut Outgoing::default(), &mut Opened::default());
        assert_eq!(refused, Err(Error::PeerSentOversizedRecord));
    }
}

#[test]
fn tickets_leave_with_the_first_record() {
    let identity = Identity::new("a.example");
    let (mut ours, mut theirs) =
        (Ours::server(&identity.server()), Theirs::client(identity.client(&[&TLS13]), "a.example"));
    ours.receive(&theirs.taken()).expect("hello");
    theirs.receive(&ours.taken()).expect("flight");
    ours.receive(&theirs.taken()).expect("finished");
    assert!(ours.is_open() && ours.sent.is_empty());
    ours.send(b"x");
    let first = ours.taken();
    assert!(first.len() > 150, "no ticket in {} bytes", first.len());
    theirs.receive(&first).expect("a ticket and data");
    ours.send(b"y");
    let second = ours.taken();
    assert_eq!(second.len(), 5 + 1 + 17);
    theirs.receive(&second).expect("data");
    assert_eq!(theirs.plain, b"xy");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_hostile_peer_with_the_right_keys_causes_no_panic(
        records in prop::collection::vec((20u8..25, prop::collection::vec(any::<u8>(), 0..40)), 1..8),
        tls13 in any::<bool>(),
        from_server in any::<bool>(),
    ) {
        let [mut server, mut client] = pair(if tls13 { &TLS13 } else { &TLS12 });
        let (from, to) = if from_server { (&mut server, &mut client) } else { (&mut client, &mut server) };
        for (kind, payload) in records {
            let mut bytes = record(from, ContentType::from(kind), &payload);
            let mut opened = Opened::default();
            if to.open(&mut bytes, &mut Outgoing::default(), &mut opened).is_err() {
                break;
            }
            prop_assert!(opened.plain <= opened.used);
        }
    }
}
