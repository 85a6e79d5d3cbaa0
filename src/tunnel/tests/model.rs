//! The tunnel against a model: whatever its ends do and whenever it is looked after, each must have got what the other sent.
//!
//! One thread does everything, in an order that proptest chooses and can shorten. `PROPTEST_CASES=5000` looks longer.

use rustls::version::{TLS12, TLS13};
use socket2::SockRef;

use super::{
    tls::{Far, Near, plain_connection, tls_connection},
    *,
};
use crate::{
    tunnel::{life::Farewell, relay::sender},
    websocket::{
        close::{PING, close_frame},
        frames::{Frames, Sender},
    },
};

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A far end writes so much of its stream, or what its socket takes.
    Write(Side, usize),
    /// A far end writes until nobody takes anything: what is on its way fills every buffer.
    Flood(Side),
    /// A far end reads at most so much.
    Read(Side, usize),
    /// A far end sends FIN (behind close_notify, if it speaks TLS).
    Finish(Side),
    /// A far end sends RST.
    Reset(Side),
    /// The worker takes so many turns.
    Turns(u8),
    /// An event comes that has nothing to tell.
    Spurious(Side),
    /// A far end that speaks TLS 1.3 changes its key, and wants the other's changed: an answer to what may have been read in between.
    Rekey(Side),
    /// The client is due a ping.
    Ping,
    /// The tunnel is told to end.
    Part,
    /// The tunnel goes over to another worker.
    Move,
    /// Both ends read whatever comes until everything has come.
    Settle,
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Upstream)]
}

/// As likely short as long.
fn amount(most_bits: u32) -> impl Strategy<Value = usize> {
    (0..=most_bits, any::<u32>()).prop_map(|(bits, number)| 1 + number as usize % (1 << bits))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (side(), amount(20)).prop_map(|(side, bytes)| Step::Write(side, bytes)),
        10 => (side(), amount(20)).prop_map(|(side, bytes)| Step::Read(side, bytes)),
        3 => side().prop_map(Step::Flood),
        12 => (1u8..4).prop_map(Step::Turns),
        2 => side().prop_map(Step::Finish),
        1 => side().prop_map(Step::Reset),
        2 => side().prop_map(Step::Spurious),
        2 => side().prop_map(Step::Rekey),
        2 => Just(Step::Ping),
        1 => Just(Step::Part),
        2 => Just(Step::Move),
        2 => Just(Step::Settle),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    /// Who speaks TLS: client, upstream.
    tls: [bool; 2],
    /// Socket buffers, bytes; None: the kernel's own.
    buffers: Option<usize>,
    /// Lengths of the frames that each sends.
    lengths: [Vec<usize>; 2],
    /// How much of them came before the tunnel was one.
    early: [usize; 2],
    steps: Vec<Step>,
}

fn case(tls: bool) -> impl Strategy<Value = Case> {
    let ends =
        if tls { [any::<bool>().boxed(), any::<bool>().boxed()] } else { [Just(false).boxed(), Just(false).boxed()] };
    let lengths =
        || prop::collection::vec(prop_oneof![amount(19).prop_map(|length| length - 1), 0usize..400_000], 1..16);
    let buffers = prop_oneof![1 => Just(None), 2 => Just(Some(8 << 10)), 2 => Just(Some(64 << 10))];
    let early = || prop_oneof![2 => Just(0), 1 => amount(16)];
    (ends, buffers, [lengths(), lengths()], [early(), early()], prop::collection::vec(step(), 1..80))
        .prop_map(|(tls, buffers, lengths, early, steps)| Case { tls, buffers, lengths, early, steps })
}

/// How what an end receives has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Clean,
    Truncated,
    Reset,
}

/// A far end, whose socket never makes it wait.
struct End {
    /// None once it was reset.
    far: Option<Far>,
    /// All it has to say.
    stream: Vec<u8>,
    /// How much of that it has said.
    sent: usize,
    received: Vec<u8>,
    ending: Option<Ending>,
    finished: bool,
    /// FIN was sent: not before all of TLS.
    shut: bool,
    reset: bool,
    /// Writing has told of RST already: reading will not tell again.
    heard: bool,
}

impl End {
    fn new(mut far: Far, stream: Vec<u8>, sent: usize, buffers: Option<usize>) -> Self {
        far.socket.set_nonblocking(true).unwrap();
        small(&SockRef::from(&far.socket), buffers);
        if let Some(tls) = &mut far.tls {
            tls.set_buffer_limit(Some(64 << 10));
        }
        let (far, received) = (Some(far), Vec::new());
        Self { far, stream, sent, received, ending: None, finished: false, shut: false, reset: false, heard: false }
    }

    fn said(&self) -> &[u8] {
        &self.stream[..self.sent]
    }

    /// What of a client's words must arrive: a single byte does not tell yet whether it is a frame's.
    fn passing(&self) -> usize {
        if self.sent == 1 { 0 } else { self.sent }
    }

    fn write(&mut self, most: usize) {
        let Some(far) = self.far.as_mut().filter(|_| !self.finished) else { return };
        let bytes = &self.stream[self.sent..][..most.min(self.stream.len() - self.sent)];
        let written = match &mut far.tls {
            None => far.socket.write(bytes),
            Some(tls) => Ok(tls.writer().write(bytes).unwrap()),
        };
        match written {
            Ok(count) => self.sent += count,
            Err(error) => self.heard |= error.kind() == io::ErrorKind::ConnectionReset,
        }
        self.flush();
    }

    fn flush(&mut self) {
        let Some(far) = &mut self.far else { return };
        if let Some(tls) = &mut far.tls {
            while tls.wants_write() {
                if let Err(error) = tls.write_tls(&mut far.socket) {
                    self.heard |= error.kind() == io::ErrorKind::ConnectionReset;
                    return;
                }
            }
        }
        if self.finished && !self.shut {
            self.shut = true;
            let _ = far.socket.shutdown(Shutdown::Write);
        }
    }

    fn finish(&mut self) {
        if !self.finished {
            self.finished = true;
            if let Some(tls) = self.far.as_mut().and_then(|far| far.tls.as_mut()) {
                tls.send_close_notify();
            }
            self.flush();
        }
    }

    fn rekey(&mut self) {
        if let Some(tls) = self.far.as_mut().filter(|_| !self.finished).and_then(|far| far.tls.as_mut()) {
            // TLS 1.2 has none.
            let _ = tls.refresh_traffic_keys();
            self.flush();
        }
    }

    fn reset(&mut self) {
        if let Some(far) = self.far.take() {
            sys::reset_on_close(&far.socket);
            self.reset = true;
        }
    }

    /// Reads at most so much; true where there was something, or the end.
    fn read(&mut self, most: usize) -> bool {
        let Some(far) = self.far.as_mut().filter(|_| self.ending.is_none()) else { return false };
        let mut buffer = vec![0; most.min(1 << 18)];
        match far.read(&mut buffer) {
            Ok(0) => self.ending = Some(if self.heard { Ending::Reset } else { Ending::Clean }),
            Ok(count) => self.received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.ending = Some(if self.heard { Ending::Reset } else { Ending::Truncated });
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
                self.ending = Some(Ending::Reset);
            }
        }
        true
    }
}

fn small(socket: &SockRef<'_>, buffers: Option<usize>) {
    if let Some(bytes) = buffers {
        socket.set_send_buffer_size(bytes).unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
    }
}

struct Model {
    bench: Bench,
    ends: [End; 2],
    pings: usize,
    parted: bool,
    /// Whose FIN the tunnel had before the other's, where that is certain.
    first: Option<Side>,
}

impl Model {
    fn new(case: &Case) -> Self {
        let version = if case.steps.len().is_multiple_of(2) { &TLS13 } else { &TLS12 };
        let end = |side: Side| -> (Far, Near) {
            let (far, near) = if case.tls[side as usize] { tls_connection(side, version) } else { plain_connection() };
            small(&SockRef::from(&near.0), case.buffers);
            (far, near)
        };
        let [(client, near_client), (backend, near_backend)] = [end(Side::Client), end(Side::Upstream)];
        // The bench has hands of its own on both far ends; here they must be the only ones.
        let idle = [connection().0, connection().0];
        let streams = [Side::Client, Side::Upstream].map(|side| {
            let frames = case.lengths[side as usize].iter().enumerate();
            frames.flat_map(|(number, length)| numbered(side, number, *length)).collect::<Vec<u8>>()
        });
        let early = [0, 1].map(|side| &streams[side][..case.early[side].min(streams[side].len())]);
        let bench = Bench::over(idle, [near_client, near_backend], Some(0), Terms::default(), early[0], early[1]);
        let sent = early.map(<[u8]>::len);
        let [of_client, of_backend] = streams;
        let ends =
            [End::new(client, of_client, sent[0], case.buffers), End::new(backend, of_backend, sent[1], case.buffers)];
        Self { bench, ends, pings: 0, parted: false, first: None }
    }

    fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// The tunnel's number in its table, while there is one.
    fn number(&self) -> Option<u32> {
        self.bench.table.tunnels.numbers().first().copied()
    }

    fn turn(&mut self) {
        let Bench { reactor, table, scratch, .. } = &mut self.bench;
        let (mut events, mut expired) = (Vec::new(), Vec::new());
        reactor.turn(&mut events).unwrap();
        table.note(&events);
        table.resume(scratch);
        reactor.advance(&mut expired).unwrap();
        expired.drain(..).for_each(|number| table.expire(number, scratch));
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write(side, bytes) => self.end(side).write(bytes),
            Step::Flood(side) => self.flood(side),
            Step::Read(side, bytes) => drop(self.end(side).read(bytes)),
            Step::Finish(side) => {
                self.end(side).finish();
            }
            Step::Reset(side) => self.end(side).reset(),
            Step::Turns(turns) => (0..turns).for_each(|_| self.turn()),
            Step::Spurious(side) => {
                let Some(number) = self.number() else { return };
                self.bench.table.note(&[Event { token: token(number, side), flags: EpollFlags::EPOLLIN }]);
            }
            Step::Rekey(side) => self.end(side).rekey(),
            Step::Ping => {
                let Some(number) = self.number() else { return };
                self.pings += 1;
                let Bench { table, scratch, .. } = &mut self.bench;
                table.with(number, scratch, |tunnel, tools| tunnel.ping(tools).map(|()| None));
            }
            Step::Part => {
                let Some(number) = self.number() else { return };
                self.parted = true;
                let farewell = Farewell { reason: Reason::Drain, code: 1012, patience: Duration::from_secs(60) };
                self.bench.table.part(number, &farewell, &mut self.bench.scratch);
            }
            Step::Move => self.bench.moves(),
            Step::Settle => self.settle(),
        }
    }

    fn flood(&mut self, side: Side) {
        let mut quiet = 0;
        while quiet < 3 {
            let sent = self.end(side).sent;
            self.end(side).write(1 << 18);
            self.turn();
            quiet = if self.end(side).sent > sent { 0 } else { quiet + 1 };
        }
    }

    /// Nothing may be left on its way while somebody reads: whatever is, was forgotten.
    fn settle(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.is_settled() {
            assert!(Instant::now() < deadline, "stuck: {}", self.tell());
            self.turn();
            self.ends.iter_mut().for_each(End::flush);
            let read = self.ends.iter_mut().filter_map(|end| end.read(1 << 18).then_some(())).count();
            if read == 0 && !self.bench.table.has_ready() {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        if let (None, [true, false] | [false, true]) = (self.first, [0, 1].map(|side| self.ends[side].finished)) {
            self.first = Some(if self.ends[0].finished { Side::Client } else { Side::Upstream });
        }
    }

    fn is_settled(&self) -> bool {
        let over = |end: &End| end.reset || end.ending.is_some_and(|ending| ending != Ending::Clean);
        if self.ends.iter().any(over) || self.bench.table.is_empty() {
            return true;
        }
        let [client, backend] = &self.ends;
        let told = |from: &End, to: &End| !from.finished || to.ending.is_some();
        // What was put in between only adds to what has come.
        let all = |words: Words| words.closed || words.theirs.len() == backend.sent;
        backend.received.len() == client.passing()
            && (client.received.len() >= backend.sent || self.parted)
            && all(words(&client.received))
            && told(client, backend)
            && told(backend, client)
    }

    fn tell(&self) -> String {
        let end = |end: &End| {
            let End { sent, received, ending, finished, reset, .. } = end;
            format!("sent {sent} received {} {ending:?} finished {finished} reset {reset}", received.len())
        };
        format!("{:?}; {}; {}", self.bench.table.tunnels.get(0), end(&self.ends[0]), end(&self.ends[1]))
    }
}

impl Model {
    /// Both ends say that they have finished, and read: that is the end of every tunnel.
    fn end_all(mut self) -> (Outcome, Self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        self.ends.iter_mut().for_each(End::finish);
        while self.bench.table.finished.is_empty() || self.ends.iter().any(|end| end.ending.is_none() && !end.reset) {
            assert!(Instant::now() < deadline, "no end: {}", self.tell());
            self.turn();
            self.ends.iter_mut().for_each(End::flush);
            if self.ends.iter_mut().filter_map(|end| end.read(1 << 18).then_some(())).count() == 0 {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        (self.bench.outcome(), self)
    }

    /// The table's count of what waits is that of its tunnels.
    fn count_held(&self) {
        let table = &self.bench.table;
        let held = self.number().and_then(|number| table.tunnels.get(number)).map_or(0, Tunnel::held);
        assert_eq!(table.held(), held, "{}", self.tell());
    }

    /// What every tunnel must have come to.
    fn judge(&self, outcome: &Outcome) {
        let [client, backend] = &self.ends;
        let words = words(&client.received);
        assert!(client.said().starts_with(&backend.received), "the backend got something else: {}", self.tell());
        assert!(backend.said().starts_with(&words.theirs), "the client got something else: {}", self.tell());
        assert!((self.parted || !words.closed) && words.pings <= self.pings);
        assert_eq!((self.bench.table.held(), self.bench.table.pipes_in_use()), (0, 0), "something is left behind");
        match [client.reset, backend.reset] {
            [false, false] => self.judge_clean_end(outcome, &words),
            [true, false] => self.judge_reset(outcome, Side::Client),
            [false, true] => self.judge_reset(outcome, Side::Upstream),
            [true, true] => assert!(is_of_the_ends(outcome.reason), "{outcome:?}"),
        }
    }

    /// Nothing is lost, and each hears that the other has finished.
    fn judge_clean_end(&self, outcome: &Outcome, words: &Words) {
        let [client, backend] = &self.ends;
        assert_eq!(backend.received.len(), client.passing(), "{}", self.tell());
        assert!(words.closed || words.theirs.len() == backend.sent, "{}", self.tell());
        assert_eq!([client.ending, backend.ending], [Some(Ending::Clean); 2]);
        let lengths = [client.sent, words.theirs.len()].map(|length| length as u64);
        assert_eq!([outcome.from_client, outcome.from_upstream], lengths);
        let frames = [(Side::Client, client.said()), (Side::Upstream, &words.theirs)]
            .map(|(from, bytes)| Frames::default().advance(bytes, sender(from), 0).unwrap());
        assert_eq!([outcome.frames_from_client, outcome.frames_from_upstream], frames);
        match self.first {
            _ if words.closed => assert_eq!(outcome.reason, Reason::Drain),
            Some(Side::Client) => assert_eq!(outcome.reason, Reason::ClientClosed),
            Some(Side::Upstream) => assert_eq!(outcome.reason, Reason::UpstreamClosed),
            None => assert!(matches!(outcome.reason, Reason::ClientClosed | Reason::UpstreamClosed), "{outcome:?}"),
        }
    }

    /// RST becomes RST, unless there was a FIN before it.
    fn judge_reset(&self, outcome: &Outcome, by: Side) {
        let (gone, other) = (&self.ends[by as usize], &self.ends[by.other() as usize]);
        if gone.shut {
            return assert!(is_of_the_ends(outcome.reason), "{outcome:?}");
        }
        let reason = if by == Side::Client { Reason::ClientReset } else { Reason::UpstreamReset };
        assert!(
            outcome.reason == reason || self.parted && outcome.reason == Reason::Drain,
            "{outcome:?}: {}",
            self.tell()
        );
        assert_eq!(other.ending, Some(Ending::Reset), "{}", self.tell());
    }
}

fn is_of_the_ends(reason: Reason) -> bool {
    use Reason::{ClientClosed, ClientReset, Drain, UpstreamClosed, UpstreamReset};
    matches!(reason, ClientClosed | ClientReset | Drain | UpstreamClosed | UpstreamReset)
}

/// A frame that is like no other of its stream.
fn numbered(from: Side, number: usize, length: usize) -> Vec<u8> {
    let mut frame = frame(from, length);
    let payload = frame.len() - length;
    if let Some(first) = frame.get_mut(payload) {
        *first = number as u8;
    }
    frame
}

/// What a client was told, and by whom.
struct Words {
    /// The backend's own words.
    theirs: Vec<u8>,
    pings: usize,
    closed: bool,
}

/// Takes out what was put between the backend's frames, of which none is a ping or a close.
fn words(received: &[u8]) -> Words {
    let close = close_frame(Sender::Server, 1012, "drain");
    let mut words = Words { theirs: Vec::with_capacity(received.len()), pings: 0, closed: false };
    let mut rest = received;
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(&PING) {
            words.pings += 1;
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix(&close[..]) {
            assert!(behind.is_empty(), "something follows our close frame");
            words.closed = true;
            rest = behind;
        } else if PING.starts_with(rest) || close.starts_with(rest) {
            // The rest of it has not come.
            rest = &[];
        } else {
            let (mut place, head) = (Frames::default(), rest.len().min(10));
            let whole = (1..=head).find(|head| {
                place = Frames::default();
                place.advance(&rest[..*head], Sender::Server, 0) == Ok(1)
            });
            let frame = whole.map_or(rest.len(), |head| rest.len().min(head + place.payload_left() as usize));
            words.theirs.extend_from_slice(&rest[..frame]);
            rest = &rest[frame..];
        }
    }
    words
}

fn run(case: &Case) {
    let mut model = Model::new(case);
    for step in &case.steps {
        model.take(*step);
        model.count_held();
    }
    let (outcome, model) = model.end_all();
    model.judge(&outcome);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_tunnel_is_what_its_ends_say(case in case(false)) {
        run(&case);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_tunnel_over_tls_is_what_its_ends_say(case in case(true)) {
        run(&case);
    }
}
