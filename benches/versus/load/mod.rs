//! The load: websocket clients and their backend, on one thread and one epoll instance, on the core the proxy is not on.

mod end;
mod exchange;
mod frame;
mod socket;
mod tally;
mod upgrade;

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rustls::ClientConfig;
use slab::Slab;

use self::{
    end::{End, Gone, Stage},
    frame::Side,
    socket::Socket,
};
pub use self::{frame::Pattern, tally::Tally};

/// Longest frame a row may ask for, bytes of payload.
pub const LONGEST_FRAME: usize = 1 << 20;
/// The backend's addresses, 127.0.0.1 and on, all with one port: a proxy that opens and closes connections by the thousand runs
/// out of local ports to one of them (ip(7), `ip_local_port_range`: 28,232).
pub const BACKENDS: u8 = 8;
/// Clients come from so many addresses, 127.0.1.1 and on, for the same reason.
const SOURCES: usize = 64;
/// Connections on their way at once, but in a storm; a listener's queue holds more.
const DIALS_AT_ONCE: usize = 64;
const EVENTS: usize = 512;
const ACCEPTS_PER_TURN: usize = 64;
/// One read of a bulk receiver, bytes.
const READ_BYTES: usize = 256 << 10;
/// Events of the listeners have the keys from here on.
const LISTENERS: u64 = 1 << 32;
const NO_CONNECTION: usize = usize::MAX;

/// What the tunnels do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Work {
    /// Nothing: whatever comes is checked all the same.
    Idle,
    /// A client sends its next message when the last one is back.
    PingPong,
    /// A client sends when [`Load::send`] says so; the time counts from when the message was due.
    Paced(Pace),
    /// Backends send as fast as they can, one write a frame.
    Down,
    /// Clients do.
    Up,
    /// A client that has its 101 closes and makes room for a new one. With `resumed`, each must have had a TLS session to go on
    /// from.
    Churn { resumed: bool },
    /// Clients have gone, and come anew.
    Storm,
    /// Clients send plain HTTP requests, the next when the last one is answered.
    Requests,
}

impl Work {
    /// Backends lose connections, and nothing is wrong.
    fn clients_leave(self) -> bool {
        matches!(self, Self::Churn { .. } | Self::Storm)
    }
}

/// Messages at even distances, the tunnels in turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    pub start: Instant,
    pub gap: Duration,
    pub tunnels: u32,
}

impl Pace {
    /// When message number `count` of all is due.
    pub fn due(&self, count: u64) -> Instant {
        self.start + Duration::from_nanos(self.gap.as_nanos() as u64 * count)
    }
}

/// How clients speak TLS, if they do.
pub type Tls = Option<Arc<ClientConfig>>;

/// Where the clients connect to.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Tls,
}

/// What all ends share.
struct Common {
    pattern: Arc<Pattern>,
    scratch: Box<[u8]>,
    payload: usize,
    work: Work,
    tally: Tally,
}

/// Clients and backend.
pub struct Load {
    epoll: Epoll,
    events: Vec<EpollEvent>,
    listeners: Vec<TcpListener>,
    target: Option<Target>,
    ends: Slab<End>,
    /// Client and backend end of each tunnel.
    tunnels: Vec<[usize; 2]>,
    /// Clients that are not open yet.
    dialling: usize,
    common: Common,
}

impl Load {
    /// A backend that listens on a loopback port of its own; `payload` is the size of every frame, bytes.
    pub fn new(payload: usize, pattern: &Arc<Pattern>) -> io::Result<Self> {
        let port = crate::host::free_port()?;
        let listeners = (1..=BACKENDS).map(|last| listen((Ipv4Addr::new(127, 0, 0, last), port).into()));
        let listeners: Vec<_> = listeners.collect::<io::Result<_>>()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (key, listener) in (LISTENERS..).zip(&listeners) {
            epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
        }
        Ok(Self {
            epoll,
            events: vec![EpollEvent::empty(); EVENTS],
            listeners,
            target: None,
            ends: Slab::new(),
            tunnels: Vec::new(),
            dialling: 0,
            common: Common {
                pattern: pattern.clone(),
                scratch: vec![0; READ_BYTES].into(),
                payload,
                work: Work::Idle,
                tally: Tally::default(),
            },
        })
    }

    /// The backend's first address.
    pub fn backend(&self) -> io::Result<SocketAddr> {
        self.listeners[0].local_addr()
    }

    /// Where clients connect from now on.
    pub fn aim(&mut self, target: Target) {
        self.target = Some(target);
    }

    pub fn tally(&mut self) -> &mut Tally {
        &mut self.common.tally
    }

    /// Tunnels opened so far.
    pub fn tunnels(&self) -> usize {
        self.tunnels.len()
    }

    /// Opens more tunnels, all of them or an error.
    pub fn open(&mut self, count: usize, until: Instant) -> Result<(), String> {
        self.open_some(count, DIALS_AT_ONCE, until)
    }

    /// The same, all at once.
    pub fn open_at_once(&mut self, count: usize, until: Instant) -> Result<(), String> {
        self.open_some(count, count, until)
    }

    fn open_some(&mut self, count: usize, at_once: usize, until: Instant) -> Result<(), String> {
        let goal = self.tunnels.len() + count;
        while self.tunnels.len() < goal || self.dialling > 0 {
            while self.tunnels.len() < goal && self.dialling < at_once {
                self.dial().map_err(|error| format!("connect: {error}"))?;
            }
            self.turn(Duration::from_millis(10)).map_err(|error| error.to_string())?;
            if let Some(error) = self.common.tally.errors.keys().next() {
                return Err(format!("tunnel {} of {goal}: {error}", self.tunnels.len() - self.dialling));
            }
            if Instant::now() > until {
                return Err(format!(
                    "{} of {goal} tunnels open when the time was over",
                    self.tunnels.len() - self.dialling
                ));
            }
        }
        Ok(())
    }

    /// Sets the tunnels to work.
    pub fn start(&mut self, work: Work) {
        self.common.work = work;
        let (side, owed) = match work {
            Work::Idle | Work::Paced(_) | Work::Churn { .. } | Work::Storm | Work::Requests => return,
            Work::PingPong | Work::Up => (Side::Client, if work == Work::Up { u64::MAX } else { 1 }),
            Work::Down => (Side::Backend, u64::MAX),
        };
        for tunnel in 0..self.tunnels.len() {
            self.owe(tunnel, side, owed);
        }
    }

    /// Keeps `slots` clients connecting, upgrading and closing.
    pub fn churn(&mut self, slots: usize, resumed: bool) -> io::Result<()> {
        self.common.work = Work::Churn { resumed };
        (0..slots).try_for_each(|_| self.dial())
    }

    /// The clients of these tunnels go, all at once.
    pub fn hang_up(&mut self, tunnels: impl IntoIterator<Item = usize>) {
        self.common.work = Work::Storm;
        for tunnel in tunnels {
            let [client, _] = std::mem::replace(&mut self.tunnels[tunnel], [NO_CONNECTION; 2]);
            if let Some(mut end) = self.ends.try_remove(client) {
                end.socket.close();
            }
        }
    }

    /// Connections of either side.
    pub fn connections(&self) -> usize {
        self.ends.len()
    }

    /// The address each client that is there has connected from, with its tunnel.
    pub fn clients(&self) -> impl Iterator<Item = (SocketAddr, usize)> {
        let ends = self.ends.iter().filter(|(_, end)| end.side == Side::Client);
        ends.filter_map(|(_, end)| Some((end.socket.stream().local_addr().ok()?, end.tunnel as usize)))
    }

    /// A client sends one message more.
    pub fn send(&mut self, tunnel: usize) {
        self.owe(tunnel, Side::Client, 1);
    }

    fn owe(&mut self, tunnel: usize, side: Side, frames: u64) {
        let key = self.tunnels[tunnel][side as usize];
        let Some(end) = self.ends.get_mut(key) else { return };
        if let Stage::Open(_, outbound) = &mut end.stage {
            outbound.owed = outbound.owed.saturating_add(frames);
            end.since = Instant::now();
            let outcome = end.pump(&self.common).and_then(|()| end.wait(&self.epoll, key));
            self.settle(key, outcome);
        }
    }

    /// Waits for events, at most so long, and handles one batch.
    pub fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let timeout = EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO);
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            outcome => outcome?,
        };
        for index in 0..count {
            let event = self.events[index];
            match event.data() {
                key if key >= LISTENERS => self.accept((key - LISTENERS) as usize)?,
                key => self.serve(key as usize, event.events())?,
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listeners[listener].accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    self.adopt(Socket::Plain(stream), Side::Backend, 0, Stage::Head(Vec::new()))?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn dial(&mut self) -> io::Result<()> {
        let Some(target) = self.target.clone() else { return Err(io::Error::other("no target")) };
        let tunnel = self.tunnels.len();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM.nonblocking(), None)?;
        let source = Ipv4Addr::new(127, 0, 1, (1 + tunnel % SOURCES) as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        match socket.connect(&target.address.into()) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::EINPROGRESS as i32) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from(socket);
        let socket = match &target.tls {
            Some(config) => Socket::tls(stream, config)?,
            None => Socket::Plain(stream),
        };
        let key = self.adopt(socket, Side::Client, tunnel as u32, Stage::Connecting)?;
        self.tunnels.push([key, NO_CONNECTION]);
        self.dialling += 1;
        Ok(())
    }

    fn adopt(&mut self, socket: Socket, side: Side, tunnel: u32, stage: Stage) -> io::Result<usize> {
        socket.stream().set_nodelay(true)?;
        let interest = if side == Side::Client { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        let end = End { side, tunnel, socket, stage, interest, since: Instant::now() };
        let key = self.ends.insert(end);
        self.epoll.add(&self.ends[key].socket, EpollEvent::new(interest, key as u64))?;
        Ok(key)
    }

    fn serve(&mut self, key: usize, ready: EpollFlags) -> io::Result<()> {
        let Some(end) = self.ends.get_mut(key) else { return Ok(()) };
        let (side, was_open) = (end.side, end.is_open());
        let outcome = end.step(ready, &mut self.common).and_then(|()| end.wait(&self.epoll, key));
        if !was_open && end.is_open() {
            match (side, self.tunnels.get_mut(end.tunnel as usize)) {
                (Side::Backend, Some(ends)) => ends[Side::Backend as usize] = key,
                (Side::Client, _) => self.dialling -= 1,
                _ => {}
            }
        }
        let gone = outcome.is_err();
        self.settle(key, outcome);
        if gone && side == Side::Client && matches!(self.common.work, Work::Churn { .. }) {
            self.dial()
        } else {
            Ok(())
        }
    }

    /// Lets an end go that is over.
    fn settle(&mut self, key: usize, outcome: Result<(), Gone>) {
        let Err(gone) = outcome else { return };
        let mut end = self.ends.remove(key);
        if end.side == Side::Client && !end.is_open() {
            self.dialling -= 1;
        }
        match gone {
            Gone::Done => end.socket.close(),
            Gone::Wrong(why) => self.common.tally.error(format!("{:?}: {why}", end.side).to_lowercase()),
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM.nonblocking(), None)?;
    listener.set_reuse_address(true)?;
    listener.bind(&address.into())?;
    listener.listen(4096)?;
    Ok(listener.into())
}
