//! Tunnels whose ends speak TLS: our sessions on the table's side, rustls' ordinary connections on the far ones.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use rustls::{
    ClientConnection, Connection, ServerConnection, SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use super::*;
use crate::{
    limits::SCRATCH_BYTES,
    tls::{
        BackendTls, Outgoing, Session,
        tests::{Identity, backend_options},
    },
};

/// Which ends speak TLS: client, upstream.
const CASES: [[bool; 2]; 3] = [[true, false], [false, true], [true, true]];

/// The table's end of a connection.
pub(super) type Near = (OwnedFd, Option<Box<Session>>);

/// A far end, with or without TLS.
pub(super) struct Far {
    pub(super) socket: TcpStream,
    pub(super) tls: Option<Connection>,
}

impl Far {
    fn plain(socket: &TcpStream) -> Self {
        Self { socket: socket.try_clone().unwrap(), tls: None }
    }

    fn connection(&mut self) -> &mut Connection {
        self.tls.as_mut().unwrap()
    }

    fn flush(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        while tls.wants_write() {
            tls.write_tls(&mut self.socket).unwrap();
        }
    }

    /// Records of this plaintext, not sent.
    pub(super) fn records(&mut self, plain: &[u8]) -> Vec<u8> {
        let (tls, mut records) = (self.connection(), Vec::new());
        tls.writer().write_all(plain).unwrap();
        while tls.wants_write() {
            tls.write_tls(&mut records).unwrap();
        }
        records
    }

    fn write_all(&mut self, bytes: &[u8]) {
        match &mut self.tls {
            None => self.socket.write_all(bytes).unwrap(),
            Some(tls) => {
                tls.set_buffer_limit(None);
                tls.writer().write_all(bytes).unwrap();
                self.flush();
            }
        }
    }

    /// As read(2): 0 is a clean end, `UnexpectedEof` a truncation.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(into) };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            tls.read_tls(&mut self.socket)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    pub(super) fn read_exact(&mut self, length: usize) -> Vec<u8> {
        let (mut read, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while read.len() < length {
            let most = buffer.len().min(length - read.len());
            let count = self.read(&mut buffer[..most]).unwrap();
            assert!(count > 0, "it ended after {} of {length} bytes", read.len());
            read.extend_from_slice(&buffer[..count]);
        }
        read
    }

    /// Everything up to the end, and how that came.
    fn read_to_end(&mut self) -> (Vec<u8>, Result<(), io::ErrorKind>) {
        let (mut read, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return (read, Ok(())),
                Ok(count) => read.extend_from_slice(&buffer[..count]),
                Err(error) => return (read, Err(error.kind())),
            }
        }
    }

    /// Ends its direction as its protocol wants it.
    fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush();
        self.socket.shutdown(Shutdown::Write).unwrap();
    }
}

fn identity() -> &'static Identity {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    IDENTITY.get_or_init(|| Identity::new("localhost"))
}

fn far_connection(side: Side, version: &'static SupportedProtocolVersion) -> Connection {
    match side {
        Side::Client => {
            let name = ServerName::try_from("localhost").unwrap();
            ClientConnection::new(Arc::new(identity().client(&[version])), name).unwrap().into()
        }
        Side::Upstream => ServerConnection::new(Arc::new(identity().backend(&[version]))).unwrap().into(),
    }
}

fn session(side: Side) -> Session {
    match side {
        Side::Client => Session::server(&identity().server()).unwrap(),
        Side::Upstream => Session::client(&BackendTls::build(&backend_options()).unwrap(), "localhost").unwrap(),
    }
}

/// Our side of a handshake over a blocking socket.
fn shake(near: &mut TcpStream, session: &mut Session) {
    let (mut out, mut buffer) = (Outgoing::default(), vec![0; 1 << 16]);
    let mut received = 0;
    while session.handshake(&buffer[..received], &mut out).unwrap().is_none() {
        near.write_all(&out).unwrap();
        out.clear();
        received = near.read(&mut buffer).unwrap();
    }
    near.write_all(&out).unwrap();
}

/// A connection with TLS, its handshake done.
pub(super) fn tls_connection(side: Side, version: &'static SupportedProtocolVersion) -> (Far, Near) {
    let (socket, near) = connection();
    let mut near = TcpStream::from(near);
    near.set_nonblocking(false).unwrap();
    let mut far = Far { socket, tls: Some(far_connection(side, version)) };
    let shaking = std::thread::spawn(move || {
        let tls = far.tls.as_mut().unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut far.socket).unwrap();
        }
        far.flush();
        far
    });
    let mut session = session(side);
    shake(&mut near, &mut session);
    near.set_nonblocking(true).unwrap();
    (shaking.join().unwrap(), (near.into(), Some(Box::new(session))))
}

pub(super) fn plain_connection() -> (Far, Near) {
    let (socket, near) = connection();
    (Far { socket, tls: None }, (near, None))
}

impl Bench {
    pub(super) fn tls(ends: [bool; 2], version: &'static SupportedProtocolVersion) -> (Self, Far, Far) {
        let end = |side: Side| if ends[side as usize] { tls_connection(side, version) } else { plain_connection() };
        Self::between(end(Side::Client), end(Side::Upstream))
    }

    fn between((client, near_client): (Far, Near), (backend, near_backend): (Far, Near)) -> (Self, Far, Far) {
        let sockets = [client.socket.try_clone().unwrap(), backend.socket.try_clone().unwrap()];
        let bench = Self::over(sockets, [near_client, near_backend], Some(0), Terms::default(), b"", b"");
        (bench, client, backend)
    }

    /// Serves events while a far end does something.
    pub(super) fn beside<T: Send + 'static>(&mut self, action: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(action);
        self.until(|_| thread.is_finished());
        thread.join().unwrap()
    }

    /// One sends, the other receives the same.
    fn carry_across(&mut self, mut sender: Far, mut receiver: Far, bytes: Vec<u8>, piece: usize) -> (Far, Far) {
        let sent = bytes.clone();
        let writing = std::thread::spawn(move || {
            sent.chunks(piece).for_each(|piece| sender.write_all(piece));
            sender
        });
        let receiver = self.beside(move || {
            assert!(receiver.read_exact(bytes.len()) == bytes, "bytes were altered");
            receiver
        });
        (writing.join().unwrap(), receiver)
    }
}

#[test]
fn frames_of_every_size_pass_unaltered_both_ways_over_tls() {
    for (ends, version) in CASES.into_iter().flat_map(|ends| [(ends, &TLS12), (ends, &TLS13)]) {
        let (mut bench, mut client, mut backend) = Bench::tls(ends, version);
        for length in [0, 1, 125, 126, 16_384, 65_536, 3 << 20] {
            (client, backend) = bench.carry_across(client, backend, frame(Side::Client, length), 100_003);
            (backend, client) = bench.carry_across(backend, client, frame(Side::Upstream, length), 100_003);
        }
        assert!(bench.table.tunnels[0].half(Side::Client).frames.at_boundary());
        assert_eq!(bench.table.pipes.idle(), 0, "ciphertext was spliced");
    }
}

#[test]
fn a_clean_end_over_tls_is_passed_on_as_one_and_late_data_arrives() {
    for (ends, version) in CASES.into_iter().flat_map(|ends| [(ends, &TLS12), (ends, &TLS13)]) {
        for first in [Side::Client, Side::Upstream] {
            let (mut bench, client, backend) = Bench::tls(ends, version);
            let (mut early, mut late) = if first == Side::Client { (client, backend) } else { (backend, client) };
            early.write_all(&frame(first, 70_000));
            early.finish();
            let (read, end, mut late) = bench.beside(move || {
                let (read, end) = late.read_to_end();
                (read, end, late)
            });
            assert!(read == frame(first, 70_000) && end == Ok(()), "{ends:?} {first:?}: {} bytes, {end:?}", read.len());
            let last = frame(first.other(), 400_000);
            let expected = last.clone();
            let (read, end) = bench.beside(move || {
                let writing = std::thread::spawn(move || {
                    late.write_all(&last);
                    late.finish();
                });
                let end = early.read_to_end();
                writing.join().unwrap();
                end
            });
            assert!(read == expected && end == Ok(()), "{ends:?} {first:?}: {} bytes, {end:?}", read.len());
            let reason = if first == Side::Client { Reason::ClientClosed } else { Reason::UpstreamClosed };
            assert_eq!(bench.outcome().reason, reason);
        }
    }
}

#[test]
fn a_truncation_is_passed_on_as_one() {
    for first in [Side::Client, Side::Upstream] {
        let (mut bench, client, backend) = Bench::tls([true, true], &TLS13);
        let (mut early, mut late) = if first == Side::Client { (client, backend) } else { (backend, client) };
        early.write_all(&frame(first, 10));
        early.socket.shutdown(Shutdown::Write).unwrap();
        let read = bench.beside(move || late.read_to_end());
        assert_eq!(read, (frame(first, 10), Err(io::ErrorKind::UnexpectedEof)));
        let reason = if first == Side::Client { Reason::ClientTruncated } else { Reason::UpstreamTruncated };
        assert_eq!(bench.outcome().reason, reason);
    }
}

#[test]
fn a_reset_is_not_passed_on_as_a_clean_end() {
    for first in [Side::Client, Side::Upstream] {
        let (mut bench, client, backend) = Bench::tls([true, true], &TLS13);
        let (early, mut late) = if first == Side::Client { (client, backend) } else { (backend, client) };
        (bench.client, bench.backend) = (late.socket.try_clone().unwrap(), late.socket.try_clone().unwrap());
        sys::reset_on_close(&early.socket);
        drop(early);
        assert_eq!(bench.beside(move || late.read_to_end()).1, Err(io::ErrorKind::ConnectionReset));
        let reason = if first == Side::Client { Reason::ClientReset } else { Reason::UpstreamReset };
        assert_eq!(bench.outcome().reason, reason);
    }
}

#[test]
fn what_came_whole_before_a_bad_record_arrives_and_the_end_is_not_clean() {
    let (mut bench, mut client, mut backend) = Bench::tls([true, true], &TLS13);
    let mut records = client.records(&frame(Side::Client, 1000));
    records.extend([23, 3, 3, 0, 32]);
    records.extend([0xaa; 32]);
    client.socket.write_all(&records).unwrap();
    let (read, end) = bench.beside(move || backend.read_to_end());
    assert!(read == frame(Side::Client, 1000), "{} bytes", read.len());
    assert!(end.is_err(), "close_notify although something is missing");
    let error = bench.beside(move || client.read(&mut [0; 1]).unwrap_err());
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    bench.until(|bench| !bench.table.finished.is_empty());
    let finished = bench.table.finished().next().unwrap();
    assert_eq!(finished.outcome.reason, Reason::TlsError);
    assert!(finished.detail.unwrap().starts_with("client "));
}

#[test]
fn records_arrive_byte_by_byte() {
    let (mut bench, mut client, mut backend) = Bench::tls([true, true], &TLS13);
    let sent = [frame(Side::Client, 100), frame(Side::Client, 200)].concat();
    let records: Vec<u8> = sent.chunks(150).flat_map(|piece| client.records(piece)).collect();
    for byte in records {
        client.socket.write_all(&[byte]).unwrap();
        let seen = Instant::now() + Duration::from_micros(200);
        bench.until(|_| Instant::now() > seen);
    }
    assert!(bench.beside(move || backend.read_exact(sent.len()) == sent), "bytes were altered");
    let session = bench.table.tunnels[0].tls(Side::Client).unwrap();
    assert!(!session.has_partial(), "an idle session keeps bytes");
}

#[test]
fn a_reader_that_stops_stops_its_writer_over_tls() {
    const FRAMES: usize = 32;
    for ends in CASES {
        let (mut bench, mut client, mut backend) = Bench::tls(ends, &TLS13);
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let writing = std::thread::spawn(move || {
            for _ in 0..FRAMES {
                backend.write_all(&frame(Side::Upstream, 1 << 20));
                counter.fetch_add(1, Relaxed);
            }
        });
        let (mut last, mut quiet_since) = (0, Instant::now());
        bench.until(|_| {
            let now = sent.load(Relaxed);
            if now != last {
                (last, quiet_since) = (now, Instant::now());
            }
            quiet_since.elapsed() > Duration::from_millis(500)
        });
        assert!(last < FRAMES, "{ends:?}: everything went into a tunnel nobody reads");
        match bench.table.tunnels[0].waiting(Side::Upstream) {
            Some(Waiting::Bytes(rest)) => assert!(rest.bytes.len() < 2 * SCRATCH_BYTES),
            other => panic!("{ends:?}: {other:?}"),
        }
        let expected = frame(Side::Upstream, 1 << 20);
        bench.beside(move || (0..FRAMES).for_each(|_| assert!(client.read_exact(expected.len()) == expected)));
        writing.join().unwrap();
    }
}

#[test]
fn keys_are_updated_under_way() {
    let (mut bench, mut client, mut backend) = Bench::tls([true, true], &TLS13);
    for _ in 0..5 {
        client.connection().refresh_traffic_keys().unwrap();
        (client, backend) = bench.carry_across(client, backend, frame(Side::Client, 50_000), usize::MAX);
        (backend, client) = bench.carry_across(backend, client, frame(Side::Upstream, 50_000), usize::MAX);
    }
}

#[test]
fn a_close_notify_read_before_the_tunnel_is_an_end() {
    let (mut backend, (fd, tls)) = tls_connection(Side::Upstream, &TLS13);
    backend.connection().send_close_notify();
    backend.flush();
    // The session's task reads it together with the 101.
    let mut near = TcpStream::from(fd);
    near.set_nonblocking(false).unwrap();
    let (mut tls, mut buffer) = (tls.unwrap(), vec![0; SCRATCH_BYTES]);
    while !tls.peer_has_closed() {
        let kept = tls.resume(&mut buffer);
        let received = near.read(&mut buffer[kept..]).unwrap();
        tls.decrypt(&mut buffer, kept + received, &mut Outgoing::default()).unwrap();
    }
    near.set_nonblocking(true).unwrap();
    let (mut bench, mut client, mut backend) = Bench::between(plain_connection(), (backend, (near.into(), Some(tls))));
    let mut reading = Far::plain(&client.socket);
    assert_eq!(bench.beside(move || reading.read_to_end()), (Vec::new(), Ok(())));
    client.write_all(&frame(Side::Client, 5));
    client.finish();
    assert_eq!(bench.beside(move || backend.read_to_end()), (frame(Side::Client, 5), Ok(())));
    assert_eq!(bench.outcome().reason, Reason::UpstreamClosed);
}
