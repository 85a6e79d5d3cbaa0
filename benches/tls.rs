//! TLS sessions without sockets: handshakes, and records there and back.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longsplice::{
    limits::SCRATCH_BYTES,
    tls::{BackendTls, BackendTlsOptions, Outgoing, ServerTls, ServerTlsOptions, Session},
};

/// Both sides' settings.
struct Identity {
    server: ServerTls,
    client: BackendTls,
}

impl Identity {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).expect("a certificate");
        let files = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&files.0, made.cert.pem()).expect("written");
        std::fs::write(&files.1, made.signing_key.serialize_pem()).expect("written");
        let server = ServerTlsOptions {
            certificates: vec![files],
            tls13: true,
            tickets: true,
            session_timeout: Duration::from_secs(300),
            ..ServerTlsOptions::default()
        };
        let client = BackendTlsOptions { tls13: true, send_server_name: true, ..BackendTlsOptions::default() };
        Self {
            server: ServerTls::build(&server).expect("usable").0,
            client: BackendTls::build(&client).expect("usable"),
        }
    }

    /// A client's and a server's session, their handshake done.
    fn connect(&self) -> (Session, Session) {
        let mut client = Session::client(&self.client, "localhost").expect("a session");
        let mut server = Session::server(&self.server).expect("a session");
        let (mut up, mut down) = (Outgoing::default(), Outgoing::default());
        client.handshake(&[], &mut up).expect("begun");
        let (mut open, mut accepted) = (false, false);
        while !(open && accepted) {
            accepted = server.handshake(&std::mem::take(&mut up), &mut down).expect("a step").is_some();
            if !open {
                open = client.handshake(&std::mem::take(&mut down), &mut up).expect("a step").is_some();
            }
        }
        (client, server)
    }
}

fn handshake(criterion: &mut Criterion) {
    let identity = Identity::new();
    criterion.bench_function("tls/handshake, both sides, ECDSA P-256", |bencher| bencher.iter(|| identity.connect()));
}

/// What a tunnel does with a message: encrypts it, or decrypts it in place.
fn records(criterion: &mut Criterion) {
    let identity = Identity::new();
    let mut group = criterion.benchmark_group("tls/encrypt and decrypt");
    for size in [64, 16 << 10, 256 << 10] {
        let (mut client, mut server) = identity.connect();
        let plain = vec![0x55; size];
        let (mut cipher, mut reply) = (Outgoing::default(), Outgoing::default());
        let mut buffer = vec![0; SCRATCH_BYTES * 2];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                cipher.clear();
                client.encrypt(black_box(&plain), &mut cipher).expect("encrypted");
                let kept = server.resume(&mut buffer);
                buffer[kept..kept + cipher.len()].copy_from_slice(&cipher);
                let decrypted = server.decrypt(&mut buffer, kept + cipher.len(), &mut reply).expect("decrypted");
                assert_eq!(decrypted.plain, size);
            });
        });
    }
}

criterion_group!(benches, handshake, records);
criterion_main!(benches);
