//! The table over real sockets, driven by the reactor alone: no runtime, no HTTP.

mod ends;
mod model;
mod moving;
mod parting;
mod tls;

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    ops::{Index, IndexMut},
    os::fd::OwnedFd,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

/// A tunnel between two TCP connections whose far ends the test holds.
struct Bench {
    reactor: Rc<Reactor>,
    table: Table<&'static str>,
    scratch: Scratch,
    client: TcpStream,
    backend: TcpStream,
}

fn connection() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let near = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    (far, near.into())
}

impl Bench {
    fn new(frames: Option<u8>) -> Self {
        Self::with(frames, Terms::default(), b"", b"")
    }

    fn with(frames: Option<u8>, terms: Terms, from_client: &[u8], from_upstream: &[u8]) -> Self {
        let ((client, near_client), (backend, near_backend)) = (connection(), connection());
        let near = [(near_client, None), (near_backend, None)];
        Self::over([client, backend], near, frames, terms, from_client, from_upstream)
    }

    fn over(
        [client, backend]: [TcpStream; 2],
        near: [(OwnedFd, Option<Box<crate::tls::Session>>); 2],
        frames: Option<u8>,
        terms: Terms,
        from_client: &[u8],
        from_upstream: &[u8],
    ) -> Self {
        let reactor = Reactor::new().unwrap();
        let [near_client, near_backend] = near.map(|(fd, tls)| End { fd: reactor.watch(fd).unwrap().release(), tls });
        let pair = Pair {
            client: near_client,
            upstream: near_backend,
            from_client: from_client.to_vec(),
            from_upstream: from_upstream.to_vec(),
            frames,
            terms,
            record: "the record",
        };
        let mut bench = Self {
            table: Table::new(Rc::clone(&reactor), Arc::default()),
            reactor,
            scratch: Scratch::default(),
            client,
            backend,
        };
        bench.table.carry(pair, &mut bench.scratch).unwrap();
        bench
    }

    /// Serves events until `done`, or fails after ten seconds.
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut events = Vec::new();
        let mut expired = Vec::new();
        while !done(self) {
            assert!(Instant::now() < deadline, "nothing came of it in ten seconds");
            if self.reactor.turn(&mut events).unwrap() == 0 && !self.table.has_ready() {
                std::thread::sleep(Duration::from_millis(1));
            }
            self.table.note(&events);
            events.clear();
            self.table.resume(&mut self.scratch);
            self.reactor.advance(&mut expired).unwrap();
            expired.drain(..).for_each(|number| self.table.expire(number, &mut self.scratch));
        }
    }

    fn outcome(&mut self) -> Outcome {
        self.until(|bench| !bench.table.finished.is_empty());
        assert!(self.table.is_empty());
        assert_eq!(self.table.pipes.in_use(), 0, "a pipe was left behind");
        let finished = self.table.finished().next().unwrap();
        assert_eq!(finished.record, "the record");
        finished.outcome
    }

    /// Sends `bytes` from one far end in pieces and reads them at the other, while the table runs.
    fn pass(&mut self, from: Side, bytes: &[u8], piece: usize) {
        let (mut sender, mut receiver) = match from {
            Side::Client => (self.client.try_clone().unwrap(), self.backend.try_clone().unwrap()),
            Side::Upstream => (self.backend.try_clone().unwrap(), self.client.try_clone().unwrap()),
        };
        let sent = bytes.to_vec();
        let writer = std::thread::spawn(move || sent.chunks(piece).for_each(|piece| sender.write_all(piece).unwrap()));
        let expected = bytes.to_vec();
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; expected.len()];
            receiver.read_exact(&mut read).unwrap();
            assert!(read == expected, "bytes were altered");
        });
        self.until(|_| reader.is_finished());
        writer.join().unwrap();
        reader.join().unwrap();
    }
}

impl<R> Index<u32> for Places<Tunnel, Cold<R>> {
    type Output = Tunnel;
    fn index(&self, number: u32) -> &Tunnel {
        self.get(number).expect("a tunnel")
    }
}

impl<R> IndexMut<u32> for Places<Tunnel, Cold<R>> {
    fn index_mut(&mut self, number: u32) -> &mut Tunnel {
        self.get_mut(number).expect("a tunnel")
    }
}

/// A masked client frame, or an unmasked server frame, of `length` bytes.
fn frame(from: Side, length: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    let mask = if from == Side::Client { 0x80 } else { 0 };
    match length {
        0..=125 => frame.push(mask | length as u8),
        126..=65535 => {
            frame.push(mask | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if from == Side::Client {
        frame.extend([1, 2, 3, 4]);
    }
    frame.extend((0..length).map(|index| (index * 31 % 251) as u8));
    frame
}

#[test]
fn frames_of_every_size_pass_unaltered_both_ways() {
    let mut bench = Bench::new(Some(0));
    for length in [0, 1, 125, 126, 65_535, 65_536, 300_000, 5 << 20] {
        for from in [Side::Client, Side::Upstream] {
            bench.pass(from, &frame(from, length), 100_003);
        }
    }
}

#[test]
fn a_large_frame_is_spliced_and_those_after_it_arrive() {
    let mut bench = Bench::new(Some(0));
    let mut stream = frame(Side::Upstream, 8 << 20);
    (0..200).for_each(|_| stream.extend(frame(Side::Upstream, 100)));
    stream.extend(frame(Side::Upstream, 3 << 20));
    bench.pass(Side::Upstream, &stream, usize::MAX);
    assert_eq!(bench.table.tunnels[0].half(Side::Upstream).moved.bytes(), stream.len() as u64);
    assert!(bench.table.tunnels[0].half(Side::Upstream).frames.at_boundary());
    assert!(bench.table.pipes.idle() > 0, "no pipe was used");
}

#[test]
fn frames_of_16_kib_that_come_one_by_one_are_copied() {
    let mut bench = Bench::new(Some(0));
    for _ in 0..50 {
        bench.pass(Side::Upstream, &frame(Side::Upstream, 16 << 10), usize::MAX);
    }
    assert_eq!(bench.table.pipes.idle(), 0, "a pipe was used");
}

#[test]
fn short_frames_are_copied_however_many_wait() {
    let mut bench = Bench::new(Some(0));
    let stream: Vec<u8> = (0..4000).flat_map(|_| frame(Side::Upstream, 2 << 10)).collect();
    bench.pass(Side::Upstream, &stream, usize::MAX);
    assert_eq!(bench.table.pipes.idle(), 0, "a pipe was used");
}

#[test]
fn a_backlog_of_frames_is_spliced_and_they_are_followed() {
    for from in [Side::Client, Side::Upstream] {
        let mut bench = Bench::new(Some(0));
        // All kinds of lengths around the borders of pipes, segments and the copying buffer.
        let lengths = [16 << 10, 125, 9_000, 65_535, 65_536, 300_000, 1_048_562, 1_048_576, 0, 20_000];
        let stream: Vec<u8> = (0..6).flat_map(|_| lengths).flat_map(|length| frame(from, length)).collect();
        bench.pass(from, &stream, usize::MAX);
        bench.pass(from, &(0..300).flat_map(|_| frame(from, 16 << 10)).collect::<Vec<_>>(), usize::MAX);
        assert!(bench.table.pipes.idle() > 0, "nothing was spliced");
        assert!(bench.table.tunnels[0].half(from).frames.at_boundary(), "the place was lost");
        // And it still is: what is no frame ends nothing, but is noticed.
        bench.pass(from, &[0xff; 20], usize::MAX);
        assert!(bench.table.tunnels[0].half(from).frames.is_lost());
    }
}

#[test]
fn an_opaque_tunnel_passes_anything() {
    let mut bench = Bench::new(None);
    bench.pass(Side::Client, &vec![0xff; 3 << 20], 70_001);
    bench.pass(Side::Upstream, b"SSH-2.0-x\r\n", 3);
    assert_eq!(bench.table.counters.frames_from_client.load(Relaxed), 0);
}

#[test]
fn bytes_and_frames_are_counted_as_they_move_copied_or_spliced() {
    let early = frame(Side::Client, 10);
    let mut bench = Bench::with(Some(0), Terms::default(), &early, b"");
    let mut moved = [early.len(), 0];
    let mut frames = [1, 0];
    for from in [Side::Client, Side::Upstream] {
        let lengths = [0, 125, 300_000, 65_536, 9_000, 3 << 20, 1, 2, 3];
        let stream: Vec<u8> = lengths.into_iter().flat_map(|length| frame(from, length)).collect();
        moved[from as usize] += stream.len();
        frames[from as usize] += lengths.len();
        if from == Side::Client {
            bench.backend.read_exact(&mut vec![0; early.len()]).unwrap();
        }
        bench.pass(from, &stream, usize::MAX);
    }
    assert!(bench.table.pipes.idle() > 0, "nothing was spliced");
    let counters = &bench.table.counters;
    let bytes = [&counters.bytes_from_client, &counters.bytes_from_upstream].map(|sum| sum.load(Relaxed) as usize);
    assert_eq!(bytes, moved, "before the tunnel's end");
    let counted = [&counters.frames_from_client, &counters.frames_from_upstream].map(|sum| sum.load(Relaxed) as usize);
    assert_eq!(counted, frames);
    bench.table.close_all(Reason::Shutdown, &mut bench.scratch);
    let outcome = bench.outcome();
    assert_eq!([outcome.from_client, outcome.from_upstream].map(|bytes| bytes as usize), moved);
    assert_eq!([outcome.frames_from_client, outcome.frames_from_upstream].map(|count| count as usize), frames);
}

#[test]
fn what_moved_is_counted_up_to_its_bounds_and_stays_there() {
    let mut moved = half::Moved::default();
    moved.add((1 << 40) + 7, u32::MAX - 1);
    assert_eq!((moved.bytes(), moved.frames()), ((1 << 40) + 7, u32::MAX - 1));
    moved.add(u64::MAX, 3);
    assert_eq!((moved.bytes(), moved.frames()), ((1 << 48) - 1, u32::MAX));
}

#[test]
fn early_bytes_go_first() {
    let first = frame(Side::Client, 10);
    let greeting = frame(Side::Upstream, 20);
    let mut bench = Bench::with(Some(0), Terms::default(), &first, &greeting);
    let mut read = vec![0; first.len()];
    bench.backend.read_exact(&mut read).unwrap();
    assert_eq!(read, first);
    let mut read = vec![0; greeting.len()];
    bench.client.read_exact(&mut read).unwrap();
    assert_eq!(read, greeting);
    bench.pass(Side::Client, &frame(Side::Client, 5), 1);
}

#[test]
fn a_first_client_frame_without_mask_ends_the_tunnel() {
    let mut bench = Bench::new(Some(0));
    bench.client.write_all(&frame(Side::Upstream, 5)).unwrap();
    assert_eq!(bench.outcome().reason, Reason::ProtocolError);
    let mut read = Vec::new();
    let _ = bench.backend.read_to_end(&mut read);
    assert_eq!(read, b"", "nothing of it reached the backend");
}

#[test]
fn a_first_byte_waits_for_the_second_that_judges_it() {
    let good = frame(Side::Client, 5);
    let mut bench = Bench::new(Some(0));
    bench.pass(Side::Client, &good, 1);
    let mut early = Bench::with(Some(0), Terms::default(), &good[..1], &[]);
    early.client.write_all(&good[1..]).unwrap();
    let (mut backend, mut read) = (early.backend.try_clone().unwrap(), vec![0; good.len()]);
    let reader = std::thread::spawn(move || backend.read_exact(&mut read).map(|()| read).unwrap());
    early.until(|_| reader.is_finished());
    assert_eq!(reader.join().unwrap(), good);
}

#[test]
fn a_later_frame_that_breaks_the_rules_is_passed_on() {
    let mut bench = Bench::new(Some(0));
    bench.pass(Side::Client, &frame(Side::Client, 5), usize::MAX);
    bench.pass(Side::Client, &[0xff; 100], usize::MAX);
}

#[test]
fn late_data_arrives_after_a_half_close() {
    for first in [Side::Client, Side::Upstream] {
        let mut bench = Bench::new(Some(0));
        let (early, late) = match first {
            Side::Client => (bench.client.try_clone().unwrap(), bench.backend.try_clone().unwrap()),
            Side::Upstream => (bench.backend.try_clone().unwrap(), bench.client.try_clone().unwrap()),
        };
        early.shutdown(Shutdown::Write).unwrap();
        let mut reader = late.try_clone().unwrap();
        let end = std::thread::spawn(move || reader.read(&mut [0; 1]).unwrap());
        bench.until(|_| end.is_finished());
        assert_eq!(end.join().unwrap(), 0, "FIN was not passed on");
        let last_words = frame(first.other(), 400_000);
        bench.pass(first.other(), &last_words, 1000);
        late.shutdown(Shutdown::Write).unwrap();
        let outcome = bench.outcome();
        let expected = if first == Side::Client { Reason::ClientClosed } else { Reason::UpstreamClosed };
        assert_eq!(outcome.reason, expected);
        assert_eq!(outcome.from_client + outcome.from_upstream, last_words.len() as u64);
    }
}

#[test]
fn a_reset_is_passed_on_as_one() {
    for from in [Side::Client, Side::Upstream] {
        let mut bench = Bench::new(Some(0));
        bench.pass(Side::Client, &frame(Side::Client, 5), usize::MAX);
        let (gone, mut other) = match from {
            Side::Client => (&bench.client, bench.backend.try_clone().unwrap()),
            Side::Upstream => (&bench.backend, bench.client.try_clone().unwrap()),
        };
        sys::reset_on_close(gone);
        match from {
            Side::Client => bench.client = bench.backend.try_clone().unwrap(),
            Side::Upstream => bench.backend = bench.client.try_clone().unwrap(),
        }
        let expected = if from == Side::Client { Reason::ClientReset } else { Reason::UpstreamReset };
        assert_eq!(bench.outcome().reason, expected);
        assert_eq!(other.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn an_idle_tunnel_ends_and_a_byte_of_either_side_keeps_it() {
    let mut bench = Bench::with(Some(0), Terms { idle: Duration::from_millis(600), ..Terms::default() }, b"", b"");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        let from = if start.elapsed().as_millis().is_multiple_of(2) { Side::Client } else { Side::Upstream };
        bench.pass(from, &frame(from, 3), usize::MAX);
        let pause = Instant::now() + Duration::from_millis(150);
        bench.until(|_| Instant::now() > pause);
    }
    assert_eq!(bench.table.len(), 1, "it was closed although it was in use");
    assert_eq!(bench.outcome().reason, Reason::IdleTimeout);
}

#[test]
fn a_reader_that_stops_stops_its_writer() {
    let mut bench = Bench::new(Some(0));
    let mut sender = bench.backend.try_clone().unwrap();
    sender.set_nonblocking(true).unwrap();
    let piece = frame(Side::Upstream, 1 << 20);
    let (mut sent, mut quiet_since) = (0, Instant::now());
    // The client reads nothing: within the socket buffers and one scratch the sender must come to a stop.
    bench.until(|_| {
        match sender.write(&piece) {
            Ok(count) => {
                sent += count;
                quiet_since = Instant::now();
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        quiet_since.elapsed() > Duration::from_millis(300)
    });
    assert!(sent < 64 << 20, "{sent} bytes went into a tunnel nobody reads");
    // And go on when it reads again.
    let mut client = bench.client.try_clone().unwrap();
    let reader = std::thread::spawn(move || client.read_exact(&mut vec![0; sent]).unwrap());
    bench.until(|_| reader.is_finished());
    reader.join().unwrap();
}

#[test]
fn a_reset_is_noticed_while_the_other_side_takes_nothing() {
    let mut bench = Bench::new(Some(0));
    let mut sender = bench.client.try_clone().unwrap();
    sender.set_nonblocking(true).unwrap();
    let piece = frame(Side::Client, 1 << 20);
    let mut quiet_since = Instant::now();
    bench.until(|_| {
        if sender.write(&piece).is_ok() {
            quiet_since = Instant::now();
        }
        quiet_since.elapsed() > Duration::from_millis(200)
    });
    sys::reset_on_close(&sender);
    drop(sender);
    bench.client = bench.backend.try_clone().unwrap();
    assert_eq!(bench.outcome().reason, Reason::ClientReset);
}

#[test]
fn an_idle_tunnel_is_small() {
    /// As the slab keeps it: no byte to tell an empty place from a taken one.
    enum Place {
        _Empty(usize),
        _Taken(Tunnel),
    }
    assert_eq!(size_of::<Place>(), 64);
    assert_eq!(size_of::<Option<Cold<Box<()>>>>(), 24);
}

#[test]
fn a_tunnel_whose_ends_keep_up_again_is_small_again() {
    let mut bench = Bench::new(Some(0));
    let mut sender = bench.backend.try_clone().unwrap();
    let piece = frame(Side::Upstream, 32 << 20);
    let expected = piece.len();
    let writer = std::thread::spawn(move || sender.write_all(&piece).unwrap());
    bench.until(|bench| bench.table.tunnels[0].is_waiting(Side::Upstream));
    let mut client = bench.client.try_clone().unwrap();
    let reader = std::thread::spawn(move || client.read_exact(&mut vec![0; expected]).unwrap());
    bench.until(|_| reader.is_finished());
    writer.join().unwrap();
    reader.join().unwrap();
    assert!(bench.table.tunnels[0].extra.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any sequence of frames in any pieces comes out as it went in.
    #[test]
    fn any_frames_in_any_pieces(lengths in prop::collection::vec(0usize..200_000, 1..12), piece in 1usize..300_000, client in any::<bool>()) {
        let from = if client { Side::Client } else { Side::Upstream };
        let stream: Vec<u8> = lengths.iter().flat_map(|length| frame(from, *length)).collect();
        let mut bench = Bench::new(Some(0));
        bench.pass(from, &stream, piece.max(stream.len() / 2000 + 1));
        prop_assert!(bench.table.tunnels[0].half(from).frames.at_boundary());
    }
}
