//! A relayed message, system calls included: client to backend through the table, on one thread. It allocates nothing.

mod allocations;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use longsplice::{
    reactor::Reactor,
    scratch::Scratch,
    tunnel::{End, Pair, Table, Terms},
};

/// Tunnels and the far ends of their sockets.
struct Bench {
    reactor: Rc<Reactor>,
    table: Table<()>,
    scratch: Scratch,
    events: Vec<longsplice::reactor::Event>,
    far: Vec<(TcpStream, TcpStream)>,
}

fn connection() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let far = TcpStream::connect(listener.local_addr().expect("its address")).expect("connected");
    let (near, _) = listener.accept().expect("accepted");
    near.set_nonblocking(true).expect("a socket");
    far.set_nodelay(true).expect("a socket");
    far.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
    (far, near.into())
}

impl Bench {
    fn new(tunnels: usize) -> Self {
        let reactor = Reactor::new().expect("epoll");
        let mut table = Table::new(reactor.clone(), Arc::default());
        let mut scratch = Scratch::default();
        let end = |fd| End { fd: reactor.watch(fd).expect("watched").release(), tls: None };
        let far = (0..tunnels)
            .map(|_| {
                let ((client, near_client), (backend, near_backend)) = (connection(), connection());
                let pair = Pair {
                    client: end(near_client),
                    upstream: end(near_backend),
                    from_client: Vec::new(),
                    from_upstream: Vec::new(),
                    frames: Some(0),
                    terms: Terms { idle: Duration::from_secs(3600), ..Terms::default() },
                    record: (),
                };
                table.carry(pair, &mut scratch).expect("carried");
                (client, backend)
            })
            .collect();
        Self { reactor, table, scratch, events: Vec::new(), far }
    }

    /// One frame through one tunnel; loopback has delivered it when the write returns.
    fn relay(&mut self, tunnel: usize, frame: &[u8], received: &mut [u8]) {
        self.far[tunnel].0.write_all(frame).expect("sent");
        self.events.clear();
        self.reactor.turn(&mut self.events).expect("events");
        self.table.note(&self.events);
        self.table.resume(&mut self.scratch);
        self.far[tunnel].1.read_exact(received).expect("relayed");
    }
}

fn relay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tunnel/relay");
    // A client's frame of 64 bytes: binary, masked.
    let frame = [&[0x82, 0x80 | 64, 1, 2, 3, 4][..], &[0x55; 64]].concat();
    group.throughput(Throughput::Elements(1));
    for tunnels in [1, 1000] {
        let mut bench = Bench::new(tunnels);
        let mut received = vec![0; frame.len()];
        let mut turn = 0;
        // The first brings the tables to size.
        bench.relay(0, &frame, &mut received);
        let allocated = allocations::of(|| bench.relay(0, &frame, &mut received));
        println!("tunnel/relay/{tunnels}: {allocated} a message");
        assert_eq!(allocated.count, 0);
        group.bench_function(BenchmarkId::from_parameter(tunnels), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % tunnels;
                bench.relay(turn, &frame, &mut received);
            });
        });
        assert_eq!(received, frame);
    }
}

criterion_group!(benches, relay);
criterion_main!(benches);
