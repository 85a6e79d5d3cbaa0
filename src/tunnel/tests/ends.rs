//! How tunnels end when their ends do not agree on it, and whose turn it is.

use super::*;
use crate::limits::BYTES_PER_TURN;

/// Waits until loopback has delivered what was done last.
fn settle() {
    std::thread::sleep(Duration::from_millis(50));
}

impl Bench {
    /// Serves one direction alone, as if only its event had come.
    fn serve(&mut self, side: Side) {
        self.table.note(&[Event { token: token(0, side), flags: EpollFlags::EPOLLIN }]);
        self.table.resume(&mut self.scratch);
    }
}

#[test]
fn a_half_closed_end_that_resets_ends_the_tunnel() {
    let mut bench = Bench::new(Some(0));
    bench.client.shutdown(Shutdown::Write).unwrap();
    let pause = Instant::now() + Duration::from_millis(50);
    bench.until(|_| Instant::now() > pause);
    assert_eq!(bench.table.len(), 1, "a half-closed tunnel lives");
    sys::reset_on_close(&bench.client);
    bench.client = bench.backend.try_clone().unwrap();
    assert_eq!(bench.outcome().reason, Reason::ClientClosed);
}

#[test]
fn the_last_words_of_a_backend_that_closes_on_a_sender_arrive() {
    let mut bench = Bench::new(Some(0));
    let last = frame(Side::Upstream, 50_000);
    bench.backend.write_all(&last).unwrap();
    bench.backend = bench.client.try_clone().unwrap();
    let mut client = bench.client.try_clone().unwrap();
    // The first frame meets the closed socket and is answered by RST, the second finds it.
    for _ in 0..2 {
        client.write_all(&frame(Side::Client, 5)).unwrap();
        settle();
        bench.serve(Side::Client);
        settle();
    }
    let outcome = bench.outcome();
    assert_eq!((outcome.reason, outcome.from_upstream), (Reason::UpstreamClosed, last.len() as u64));
    let mut read = Vec::new();
    client.read_to_end(&mut read).unwrap();
    assert!(read == last, "something else arrived");
}

#[test]
fn the_last_words_of_a_backend_that_resets_a_sender_arrive() {
    let mut bench = Bench::new(Some(0));
    let mut client = bench.client.try_clone().unwrap();
    client.write_all(&frame(Side::Client, 5)).unwrap();
    settle();
    bench.serve(Side::Client);
    settle();
    // With that frame unread its close sends RST behind what it has said.
    let last = frame(Side::Upstream, 100);
    bench.backend.write_all(&last).unwrap();
    bench.backend = client.try_clone().unwrap();
    settle();
    client.write_all(&frame(Side::Client, 5)).unwrap();
    settle();
    bench.serve(Side::Client);
    let outcome = bench.outcome();
    assert_eq!((outcome.reason, outcome.from_upstream), (Reason::UpstreamReset, last.len() as u64));
    let mut read = vec![0; last.len()];
    client.read_exact(&mut read).unwrap();
    assert_eq!(read, last);
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_direction_waits_for_its_turn_once() {
    let mut bench = Bench::new(Some(0));
    for _ in 0..100 {
        for side in [Side::Client, Side::Upstream] {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
            bench.table.note(&[Event { token: token(0, side), flags }]);
        }
    }
    assert_eq!(bench.table.ready.len(), 2);
    bench.table.resume(&mut bench.scratch);
    assert!(!bench.table.has_ready());
}

#[test]
fn a_busy_tunnel_leaves_the_others_their_turn() {
    let mut bench = Bench::new(None);
    let (mut sender, mut receiver) = (bench.client.try_clone().unwrap(), bench.backend.try_clone().unwrap());
    let writer = std::thread::spawn(move || while sender.write_all(&[7; 1 << 18]).is_ok() {});
    let reader = std::thread::spawn(move || while receiver.read(&mut [0; 1 << 18]).is_ok_and(|count| count > 0) {});
    let start = Instant::now();
    let mut events = Vec::new();
    while start.elapsed() < Duration::from_millis(300) {
        bench.reactor.turn(&mut events).unwrap();
        bench.table.note(&events);
        events.clear();
        let before = bench.table.tunnels[0].half(Side::Client).moved.bytes();
        bench.table.resume(&mut bench.scratch);
        let moved = bench.table.tunnels[0].half(Side::Client).moved.bytes() - before;
        assert!(moved < 2 * BYTES_PER_TURN as u64, "{moved} bytes in one turn");
    }
    bench.table.close_all(Reason::Shutdown, &mut bench.scratch);
    (bench.client, bench.backend) = (connection().0, connection().0);
    writer.join().unwrap();
    reader.join().unwrap();
}

#[test]
fn a_few_bytes_behind_an_opaque_burst_do_not_wait_for_more() {
    let mut bench = Bench::new(None);
    // A machine that is busy makes some rounds slow; a held segment makes all of them wait for 200 ms.
    let mut least = Duration::MAX;
    for _ in 0..4 {
        bench.pass(Side::Upstream, &vec![7; 5 << 20], usize::MAX);
        assert!(bench.table.tunnels[0].half(Side::Upstream).is(Marks::SPLICING), "the burst was copied");
        let start = Instant::now();
        bench.pass(Side::Upstream, b"a few bytes", usize::MAX);
        least = least.min(start.elapsed());
    }
    assert!(least < Duration::from_millis(100), "{least:?}");
}

#[test]
fn a_panic_costs_only_its_tunnel() {
    let mut bench = Bench::new(Some(0));
    bench.table.with(0, &mut bench.scratch, |_, _| panic!("a defect"));
    assert_eq!(bench.outcome().reason, Reason::InternalError);
}

const IDLE: Duration = Duration::from_millis(300);

impl Bench {
    fn with_idle_time() -> Self {
        Self::with(Some(0), Terms { idle: IDLE, ..Terms::default() }, b"", b"")
    }

    /// The process is stopped for longer than the idle time. Then the deadline is looked at first: the events of what has come meanwhile
    /// are not fetched yet.
    fn stop_and_go_on(&mut self) {
        std::thread::sleep(2 * IDLE);
        let _ = self.reactor.turn(&mut Vec::new()).unwrap();
        let mut expired = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(10);
        while expired.is_empty() && Instant::now() < deadline {
            self.reactor.advance(&mut expired).unwrap();
            let _ = self.reactor.turn(&mut Vec::new()).unwrap();
        }
        expired.into_iter().for_each(|number| self.table.expire(number, &mut self.scratch));
    }

    /// Sends from the backend until nothing goes any more; how much went.
    fn fill(&mut self) -> usize {
        self.backend.set_nonblocking(true).unwrap();
        let (piece, mut sent, mut full) = (vec![0; 1 << 20], 0, 0);
        self.until(|bench| {
            match bench.backend.write(&piece) {
                Ok(count) => (sent, full) = (sent + count, 0),
                Err(_) => full += 1,
            }
            full > 50
        });
        sent
    }
}

#[test]
fn what_came_while_the_process_was_stopped_keeps_its_tunnel() {
    for side in [Side::Client, Side::Upstream] {
        let mut bench = Bench::with_idle_time();
        let sent = frame(side, 5);
        match side {
            Side::Client => bench.client.write_all(&sent).unwrap(),
            Side::Upstream => bench.backend.write_all(&sent).unwrap(),
        }
        bench.stop_and_go_on();
        assert_eq!(bench.table.len(), 1, "closed as idle with bytes of {side:?} waiting");
        bench.serve(side);
        let mut read = vec![0; sent.len()];
        match side {
            Side::Client => bench.backend.read_exact(&mut read).unwrap(),
            Side::Upstream => bench.client.read_exact(&mut read).unwrap(),
        }
        assert_eq!(read, sent);
        assert_eq!(bench.outcome().reason, Reason::IdleTimeout, "and it is idle later");
    }
}

#[test]
fn a_tunnel_of_which_nothing_came_while_the_process_was_stopped_is_idle() {
    let mut bench = Bench::with_idle_time();
    bench.stop_and_go_on();
    assert_eq!(bench.outcome().reason, Reason::IdleTimeout);
}

#[test]
fn a_reader_that_takes_nothing_is_idle_however_much_waits_for_it() {
    let mut bench = Bench::with_idle_time();
    bench.fill();
    bench.stop_and_go_on();
    assert!(bench.table.is_empty(), "bytes for a reader that does not read are no sign of life");
}

#[test]
fn a_reader_that_read_on_while_the_process_was_stopped_keeps_its_tunnel() {
    let mut bench = Bench::with_idle_time();
    let sent = bench.fill();
    let mut read = vec![0; sent];
    let mut client = bench.client.try_clone().unwrap();
    client.set_nonblocking(true).unwrap();
    let mut length = 0;
    while let Ok(count @ 1..) = client.read(&mut read[length..]) {
        length += count;
    }
    assert!(length < sent);
    bench.stop_and_go_on();
    assert_eq!(bench.table.len(), 1, "closed as idle though its reader takes again");
}

#[test]
fn two_ends_that_reset_at_once_are_no_clean_end() {
    let mut bench = Bench::new(None);
    bench.fill();
    std::mem::swap(&mut bench.client, &mut bench.backend);
    bench.fill();
    for end in [&bench.client, &bench.backend] {
        sys::reset_on_close(end);
    }
    let ((client, _), (backend, _)) = (connection(), connection());
    (bench.client, bench.backend) = (client, backend);
    settle();
    let reason = bench.outcome().reason;
    assert!(matches!(reason, Reason::ClientReset | Reason::UpstreamReset), "{reason}");
}

#[test]
fn in_a_crowd_of_readers_that_stopped_each_holds_little() {
    let base = crate::limits::HELD_BYTES + 1;
    let mut bench = Bench::new(Some(0));
    bench.table.held = base;
    let sent = bench.fill();
    let held = bench.table.tunnels[0].held();
    assert!((1..=crate::limits::CROWDED_READ_BYTES).contains(&held), "{held} bytes");
    assert_eq!(bench.table.held, base + held);
    let mut client = bench.client.try_clone().unwrap();
    let reader = std::thread::spawn(move || client.read_exact(&mut vec![0; sent]).unwrap());
    bench.until(|_| reader.is_finished());
    assert_eq!(bench.table.held, base, "what is read is held no more");
}

#[test]
fn what_a_tunnel_holds_goes_with_it() {
    let mut bench = Bench::new(None);
    bench.fill();
    bench.table.close_all(Reason::Shutdown, &mut bench.scratch);
    assert_eq!(bench.table.held, 0);
}
