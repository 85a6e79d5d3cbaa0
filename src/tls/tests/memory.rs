//! What an idle session costs. Prints; compare with DESIGN's table.

use super::*;

/// Bytes of memory this process has resident.
fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("statm");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

#[test]
#[ignore = "a measurement: run it alone with --ignored --nocapture"]
fn idle_server_sessions() {
    const SESSIONS: usize = 2000;
    let identity = Identity::new("a.example");
    // Kept to the end: memory given back to the allocator would hide what the next ones take.
    let mut kept = Vec::new();
    for version in VERSIONS {
        for exchanged in [0, 12_000] {
            let tls = identity.server();
            let config = Arc::new(identity.client(&[version]));
            let mut buffer = vec![0; limits::SCRATCH_BYTES];
            let mut make = || {
                let mut theirs = Theirs::client_of(&config, "a.example");
                let mut session = Box::new(Session::server(&tls).expect("session"));
                let mut sent = Outgoing::default();
                while session.handshake(&theirs.taken(), &mut sent).expect("handshake").is_none() {
                    theirs.receive(&std::mem::take(&mut sent)).expect("handshake");
                }
                theirs.receive(&std::mem::take(&mut sent)).expect("handshake");
                if exchanged > 0 {
                    let bytes = theirs.send(&payload(exchanged));
                    buffer[..bytes.len()].copy_from_slice(&bytes);
                    session.decrypt(&mut buffer, bytes.len(), &mut sent).expect("data");
                    session.encrypt(&payload(exchanged), &mut sent).expect("data");
                }
                session
            };
            kept.extend((0..100).map(|_| make())); // The client's store of tickets grows first.
            kept.reserve(SESSIONS);
            let before = resident_bytes();
            kept.extend((0..SESSIONS).map(|_| make()));
            let each = (resident_bytes() - before) / SESSIONS;
            println!("{version:?} after {exchanged} bytes each way: {each} bytes a session");
        }
    }
}
