//! Tunnels that are told to end, and what is put between the frames of others.

use super::*;
use crate::{tunnel::life::Farewell, websocket::frames::Frames};

const DRAIN: Farewell = Farewell { reason: Reason::Drain, code: 1012, patience: Duration::from_secs(10) };
const CLOSE_1012: [u8; 9] = [0x88, 7, 0x03, 0xf4, b'd', b'r', b'a', b'i', b'n'];

impl Bench {
    fn part(&mut self, farewell: Farewell) {
        self.table.part(0, &farewell, &mut self.scratch);
    }

    /// Serves for so long.
    fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.until(|_| Instant::now() > end);
    }

    /// Everything a far end gets until FIN, while the table runs.
    fn rest(&mut self, of: Side) -> Vec<u8> {
        let mut far = self.far(of);
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            far.read_to_end(&mut read).unwrap();
            read
        });
        self.until(|_| reader.is_finished());
        reader.join().unwrap()
    }

    fn far(&self, side: Side) -> TcpStream {
        match side {
            Side::Client => self.client.try_clone().unwrap(),
            Side::Upstream => self.backend.try_clone().unwrap(),
        }
    }

    /// Reads what one far end sent at the other.
    fn expect(&mut self, at: Side, bytes: &[u8]) {
        let (mut far, length) = (self.far(at), bytes.len());
        let reader = std::thread::spawn(move || {
            let mut read = vec![0; length];
            far.read_exact(&mut read).unwrap();
            read
        });
        self.until(|_| reader.is_finished());
        assert!(reader.join().unwrap() == bytes, "something else arrived");
    }

    /// As a client and a backend end a connection once the client has heard of it.
    fn answer(&mut self) {
        let answer = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4];
        self.client.write_all(&answer).unwrap();
        self.expect(Side::Upstream, &answer);
        self.backend.write_all(&[0x88, 2, 0x03, 0xf4]).unwrap();
        self.backend.shutdown(Shutdown::Write).unwrap();
        assert_eq!(self.rest(Side::Client), b"", "something follows our close frame");
        self.client.shutdown(Shutdown::Write).unwrap();
    }
}

#[test]
fn a_client_is_told_and_its_answer_ends_the_backend() {
    let mut bench = Bench::new(Some(0));
    bench.pass(Side::Upstream, &frame(Side::Upstream, 100), usize::MAX);
    bench.part(DRAIN);
    bench.expect(Side::Client, &CLOSE_1012);
    // What it sent before it heard of it is not lost.
    bench.pass(Side::Client, &frame(Side::Client, 300_000), usize::MAX);
    bench.answer();
    assert_eq!(bench.outcome().reason, Reason::Drain);
}

#[test]
fn a_frame_under_way_comes_to_its_end_first() {
    for (length, splices) in [(1000, false), (3 << 20, true)] {
        for stop in [1, 3, 9, 500, length / 2] {
            let mut bench = Bench::new(Some(0));
            let frame = frame(Side::Upstream, length);
            bench.pass(Side::Upstream, &frame[..stop], usize::MAX);
            assert_eq!(bench.table.pipes.idle() > 0, splices && stop > 500, "length {length}, stop {stop}");
            bench.part(DRAIN);
            bench.run(Duration::from_millis(30));
            bench.pass(Side::Upstream, &frame[stop..], 100_003);
            bench.expect(Side::Client, &CLOSE_1012);
            bench.answer();
            let outcome = bench.outcome();
            assert_eq!((outcome.reason, outcome.frames_from_upstream), (Reason::Drain, 1));
            assert_eq!(outcome.from_upstream, frame.len() as u64);
        }
    }
}

#[test]
fn a_backend_that_never_pauses_is_cut_between_two_frames() {
    for length in [10, 1000, 16 << 10, 100_000, 2 << 20] {
        let mut bench = Bench::new(Some(0));
        let mut backend = bench.far(Side::Upstream);
        let frame = frame(Side::Upstream, length);
        let frames = (32 << 20) / frame.len();
        let writer = std::thread::spawn(move || {
            let piece = frame.repeat(1 + (1 << 20) / frame.len());
            while backend.write_all(&piece).is_ok() {}
        });
        let mut client = bench.far(Side::Client);
        let (told, is_told) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let (mut place, mut buffer, mut seen) = (Frames::default(), vec![0; 1 << 18], 0);
            let mut last = Vec::new();
            while !place.has_closed() {
                let count = client.read(&mut buffer).unwrap();
                assert!(count > 0, "it ended without a close frame");
                seen += place.advance(&buffer[..count], crate::websocket::frames::Sender::Server, 0).unwrap();
                last.extend_from_slice(&buffer[..count]);
                last.drain(..last.len().saturating_sub(CLOSE_1012.len()));
                if seen as usize > frames / 8 {
                    let _ = told.send(());
                }
            }
            assert!(place.at_boundary(), "something follows the close frame");
            assert_eq!(last, CLOSE_1012);
        });
        bench.until(|_| is_told.try_recv().is_ok());
        bench.part(DRAIN);
        bench.until(|_| reader.is_finished());
        reader.join().unwrap();
        bench.client.shutdown(Shutdown::Both).unwrap();
        bench.backend.shutdown(Shutdown::Both).unwrap();
        writer.join().unwrap();
        assert_eq!(bench.outcome().reason, Reason::Drain);
    }
}

#[test]
fn a_client_that_does_not_answer_is_closed_and_its_backend_told() {
    let mut bench = Bench::new(Some(0));
    bench.part(Farewell { patience: Duration::from_millis(300), ..DRAIN });
    bench.expect(Side::Client, &CLOSE_1012);
    let said = bench.rest(Side::Upstream);
    assert_eq!(said[..2], [0x88, 0x80 | 7], "a masked close frame");
    let code: Vec<u8> = said[6..8].iter().zip(&said[2..]).map(|(byte, key)| byte ^ key).collect();
    assert_eq!(code, [0x03, 0xe9], "1001: the client goes away");
    bench.until(|bench| !bench.table.finished.is_empty());
    assert_eq!(bench.table.finished[0].detail.as_deref(), Some("a close frame was not answered"));
    assert_eq!(bench.outcome().reason, Reason::Drain);
}

#[test]
fn a_frame_that_does_not_end_is_waited_for_within_bounds() {
    let mut bench = Bench::new(Some(0));
    let half = &frame(Side::Upstream, 1000)[..500];
    bench.pass(Side::Upstream, half, usize::MAX);
    bench.part(Farewell { patience: Duration::from_millis(300), ..DRAIN });
    assert_eq!(bench.rest(Side::Client), b"", "nothing is put into a frame");
    bench.until(|bench| !bench.table.finished.is_empty());
    assert_eq!(bench.table.finished[0].detail.as_deref(), Some("a frame did not come to its end"));
    assert_eq!(bench.outcome().reason, Reason::Drain);
}

#[test]
fn a_shorter_patience_holds_and_a_longer_one_does_not() {
    let mut bench = Bench::new(Some(0));
    bench.part(DRAIN);
    bench.part(Farewell { reason: Reason::Shutdown, code: 1001, patience: Duration::from_millis(200) });
    bench.part(DRAIN);
    bench.expect(Side::Client, &CLOSE_1012);
    let start = Instant::now();
    assert_eq!(bench.outcome().reason, Reason::Drain, "the first word holds");
    assert!(start.elapsed() < Duration::from_secs(3));
}

#[test]
fn an_end_that_is_no_websocket_just_ends() {
    let mut bench = Bench::new(None);
    bench.pass(Side::Upstream, b"some bytes", usize::MAX);
    bench.part(DRAIN);
    assert_eq!(bench.outcome().reason, Reason::Drain);
    assert_eq!((bench.rest(Side::Client), bench.rest(Side::Upstream)), (Vec::new(), Vec::new()));
}

#[test]
fn a_backend_that_has_closed_is_not_spoken_over() {
    let mut bench = Bench::new(Some(0));
    let close = [0x88, 2, 0x03, 0xe8];
    bench.pass(Side::Upstream, &close, usize::MAX);
    bench.part(DRAIN);
    bench.run(Duration::from_millis(30));
    bench.backend.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.rest(Side::Client), b"", "a second close frame");
    bench.client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.outcome().reason, Reason::UpstreamClosed);
}

#[test]
fn a_lifetime_ends_a_busy_tunnel() {
    let terms = Terms { lifetime: Duration::from_millis(500), ..Terms::default() };
    let mut bench = Bench::with(Some(0), terms, b"", b"");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(350) {
        bench.pass(Side::Upstream, &frame(Side::Upstream, 3), usize::MAX);
    }
    bench.expect(Side::Client, &[&[0x88, 14, 0x03, 0xe9][..], b"max_lifetime"].concat());
    assert!(start.elapsed() >= Duration::from_millis(450), "{:?}", start.elapsed());
    bench.answer();
    assert_eq!(bench.outcome().reason, Reason::MaxLifetime);
}

#[test]
fn a_ping_comes_when_it_is_quiet_and_never_within_a_frame() {
    let terms = Terms { ping: Duration::from_millis(300), ..Terms::default() };
    for length in [1000, 3 << 20] {
        let mut bench = Bench::with(Some(0), terms, b"", b"");
        let frame = frame(Side::Upstream, length);
        let start = Instant::now();
        // As long as one side says something there is none.
        while start.elapsed() < Duration::from_millis(700) {
            bench.pass(Side::Client, &super::frame(Side::Client, 3), usize::MAX);
            bench.run(Duration::from_millis(50));
        }
        bench.pass(Side::Upstream, &frame[..length / 2], usize::MAX);
        bench.run(Duration::from_millis(700));
        bench.pass(Side::Upstream, &frame[length / 2..], usize::MAX);
        bench.expect(Side::Client, &[0x89, 0]);
        bench.expect(Side::Client, &[0x89, 0]);
        assert_eq!(bench.table.len(), 1);
    }
}

#[test]
fn a_ping_keeps_nobody_alive_but_a_pong_does() {
    let terms = Terms { ping: Duration::from_millis(200), idle: Duration::from_millis(700), ..Terms::default() };
    let mut bench = Bench::with(Some(0), terms, b"", b"");
    let pong = [0x8a, 0x80, 1, 2, 3, 4];
    for _ in 0..5 {
        bench.expect(Side::Client, &[0x89, 0]);
        bench.pass(Side::Client, &pong, usize::MAX);
    }
    let start = Instant::now();
    assert_eq!(bench.outcome().reason, Reason::IdleTimeout);
    assert!(start.elapsed() < Duration::from_secs(2), "pings are no activity: {:?}", start.elapsed());
}

#[test]
fn a_tunnel_is_told_of_as_often_as_asked_and_lives_on() {
    let terms = Terms { report: Duration::from_millis(300), ..Terms::default() };
    let mut bench = Bench::with(Some(0), terms, b"", b"");
    for _ in 0..3 {
        let start = Instant::now();
        let told = loop {
            match bench.table.reports().as_slice() {
                [] => bench.run(Duration::from_millis(10)),
                told => break told.to_vec(),
            }
            assert!(start.elapsed() < Duration::from_secs(5));
        };
        assert_eq!(told.len(), 1);
        assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
        assert_eq!(bench.table.look(told[0]).map(|look| look.from_client), Some(0));
    }
    let mut quiet = Bench::with(Some(0), Terms::default(), b"", b"");
    quiet.run(Duration::from_millis(400));
    assert!(quiet.table.reports().is_empty() && bench.table.len() == 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Wherever a tunnel stands when it is told to end: whole frames, our close frame, and nothing behind it.
    #[test]
    fn whole_frames_and_then_the_close(lengths in prop::collection::vec(0usize..100_000, 1..8), told in any::<prop::sample::Index>(), piece in 1usize..50_000) {
        let mut bench = Bench::new(Some(0));
        let stream: Vec<u8> = lengths.iter().flat_map(|length| frame(Side::Upstream, *length)).collect();
        let told = told.index(stream.len());
        bench.pass(Side::Upstream, &stream[..told], piece.max(stream.len() / 500 + 1));
        bench.part(DRAIN);
        let mut backend = bench.far(Side::Upstream);
        backend.write_all(&stream[told..]).unwrap();
        backend.shutdown(Shutdown::Write).unwrap();
        let rest = bench.rest(Side::Client);
        let whole = [&stream[..told], &rest].concat();
        let mut place = Frames::default();
        place.advance(&whole, crate::websocket::frames::Sender::Server, 0).unwrap();
        prop_assert!(place.at_boundary() && whole.ends_with(&CLOSE_1012));
        prop_assert!(stream.starts_with(&whole[..whole.len() - CLOSE_1012.len()]));
    }
}

/// It is sent when nothing waits, but the socket may have no room left all the same: exactly what it took has filled it.
#[test]
fn a_ping_to_a_client_that_takes_nothing_comes_later() {
    let mut bench = Bench::new(Some(0));
    let near = bench.table.tunnels.get(0).unwrap().fd(Side::Client);
    let mut filled = 0;
    while let Ok(count) = sys::send(near, &[0; 4096]) {
        filled += count;
    }
    let Bench { table, scratch, .. } = &mut bench;
    table.with(0, scratch, |tunnel, tools| tunnel.ping(tools).map(|()| None));
    bench.expect(Side::Client, &vec![0; filled]);
    bench.expect(Side::Client, &[0x89, 0]);
    assert_eq!(bench.table.held(), 0);
}
