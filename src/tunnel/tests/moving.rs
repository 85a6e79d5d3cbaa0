//! Tunnels that change their table: as when a worker leaves.

use rustls::version::{TLS12, TLS13};

use super::*;

impl Bench {
    /// All tunnels go over to another table, on another reactor.
    pub(super) fn moves(&mut self) {
        let reactor = Reactor::new().unwrap();
        let mut table = Table::new(Rc::clone(&reactor), Arc::default());
        let loose = self.table.release_some(usize::MAX);
        assert!(loose.iter().all(|tunnel| *tunnel.record() == "the record"));
        assert!(self.table.is_empty() && self.table.pipes.in_use() == 0);
        assert_eq!(self.table.counters.tunnels_moved_out.load(Relaxed), loose.len() as u64);
        loose.into_iter().for_each(|tunnel| table.adopt(tunnel, &mut self.scratch));
        table.finished.append(&mut self.table.finished);
        (self.reactor, self.table) = (reactor, table);
    }
}

#[test]
fn nothing_is_lost_however_often_it_moves() {
    for (from, length) in [(Side::Client, 3 << 20), (Side::Upstream, 3 << 20), (Side::Client, 900)] {
        let stream: Vec<u8> = (0..(12 << 20) / length).flat_map(|_| frame(from, length)).collect();
        let mut bench = Bench::new(Some(0));
        let (mut sender, mut receiver) = (bench.client.try_clone().unwrap(), bench.backend.try_clone().unwrap());
        if from == Side::Upstream {
            std::mem::swap(&mut sender, &mut receiver);
        }
        let sent = stream.clone();
        let writer = std::thread::spawn(move || sender.write_all(&sent).unwrap());
        let reader = std::thread::spawn(move || {
            // Slow at first: what it does not take waits, copied or in a pipe, and moves too.
            std::thread::sleep(Duration::from_millis(100));
            let mut read = vec![0; stream.len()];
            receiver.read_exact(&mut read).unwrap();
            assert!(read == stream, "bytes were altered");
        });
        let mut turns = 0;
        bench.until(|bench| {
            turns += 1;
            if turns % 7 == 0 {
                bench.moves();
            }
            reader.is_finished()
        });
        writer.join().unwrap();
        reader.join().unwrap();
        assert!(turns > 14, "it moved");
        drop((bench.client.shutdown(Shutdown::Both), bench.backend.shutdown(Shutdown::Both)));
        let outcome = bench.outcome();
        assert!(outcome.from_client + outcome.from_upstream >= 12 << 20, "and is counted: {outcome:?}");
    }
}

#[test]
fn keys_and_half_received_records_move_too() {
    for version in [&TLS12, &TLS13] {
        let (mut bench, mut client, backend) = Bench::tls([true, true], version);
        let records = client.records(b"\x82\x85abcdhello");
        let (first, rest) = records.split_at(records.len() / 2);
        client.socket.write_all(first).unwrap();
        let deadline = Instant::now() + Duration::from_millis(50);
        bench.until(|_| Instant::now() > deadline);
        bench.moves();
        client.socket.write_all(rest).unwrap();
        let mut backend = backend;
        let read = bench.beside(move || backend.read_exact(11));
        assert_eq!(read, b"\x82\x85abcdhello");
    }
}

#[test]
fn its_time_goes_on() {
    let idle = Duration::from_millis(1500);
    let mut bench = Bench::with(Some(0), Terms { idle, ..Terms::default() }, b"", b"");
    let began = Instant::now();
    bench.until(|_| began.elapsed() > Duration::from_secs(1));
    bench.moves();
    assert_eq!(bench.outcome().reason, Reason::IdleTimeout);
    let lived = began.elapsed();
    assert!(lived >= idle && lived < idle + Duration::from_millis(700), "it lived {lived:?}");
}

#[test]
fn what_ended_on_the_way_is_noticed() {
    let mut bench = Bench::new(Some(0));
    let loose = bench.table.release_some(1);
    bench.client.write_all(&frame(Side::Client, 5)).unwrap();
    bench.client.shutdown(Shutdown::Both).unwrap();
    loose.into_iter().for_each(|tunnel| bench.table.adopt(tunnel, &mut bench.scratch));
    let mut read = vec![0; 11];
    let mut backend = bench.backend.try_clone().unwrap();
    let reader = std::thread::spawn(move || backend.read_exact(&mut read).map(|()| read));
    bench.until(|_| reader.is_finished());
    assert_eq!(reader.join().unwrap().unwrap(), frame(Side::Client, 5));
    bench.backend.shutdown(Shutdown::Both).unwrap();
    assert_eq!(bench.outcome().reason, Reason::ClientClosed);
}
