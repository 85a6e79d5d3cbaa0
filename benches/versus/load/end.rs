//! One end of a tunnel: a client, or the backend's side.

use std::{
    io::{self, ErrorKind},
    time::Instant,
};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::{
    Common, Work,
    exchange::{self, Answer, Exchange},
    frame::{Flow, Inbound, Outbound, Side},
    socket::Socket,
    upgrade,
};

/// Bytes one sender sends before the others' turn (but at least one frame).
const TURN_BYTES: usize = 64 << 10;
/// Longest head that is waited for.
const HEAD_BYTES: usize = 16 << 10;

/// How far a connection is.
pub enum Stage {
    Connecting,
    /// What has come of the other side's HTTP head.
    Head(Vec<u8>),
    Open(Inbound, Outbound),
    /// A client of plain HTTP.
    Plain(Exchange),
}

/// A connection of the load.
pub struct End {
    pub side: Side,
    /// Known from the start at a client, from the request head at a backend.
    pub tunnel: u32,
    pub socket: Socket,
    pub stage: Stage,
    /// What epoll was asked for.
    pub interest: EpollFlags,
    /// When it was dialled; later, when its last message was sent.
    pub since: Instant,
}

/// Why an end is over.
pub enum Gone {
    /// As it should be.
    Done,
    /// An error to show.
    Wrong(String),
}

impl From<io::Error> for Gone {
    fn from(error: io::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

impl End {
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open(..) | Stage::Plain(_))
    }

    /// Does what its socket is ready for.
    pub fn step(&mut self, ready: EpollFlags, common: &mut Common) -> Result<(), Gone> {
        if matches!(self.stage, Stage::Connecting) {
            return self.connected(common);
        }
        if ready.contains(EpollFlags::EPOLLOUT) {
            self.pump(common)?;
        }
        if ready.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            self.receive(common)?;
        }
        Ok(())
    }

    /// Asks epoll for what the end now waits for.
    pub fn wait(&mut self, epoll: &Epoll, key: usize) -> Result<(), Gone> {
        let sends = match &self.stage {
            Stage::Connecting => true,
            Stage::Head(_) | Stage::Plain(_) => self.socket.is_pending(),
            Stage::Open(_, outbound) => outbound.owed > 0 || self.socket.is_pending(),
        };
        let interest = if sends { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        if interest != self.interest {
            epoll.modify(&self.socket, &mut EpollEvent::new(interest, key as u64)).map_err(io::Error::from)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// Sends what is owed, as far as the socket takes it and the others' turn allows.
    pub fn pump(&mut self, common: &Common) -> Result<(), Gone> {
        let Stage::Open(_, outbound) = &mut self.stage else { return Ok(self.socket.flush()?) };
        let mut turn = 0;
        while outbound.owed > 0 && turn < TURN_BYTES {
            match self.socket.send(outbound.rest(&common.pattern)) {
                Ok(0) => break,
                Ok(sent) => {
                    outbound.sent(sent);
                    turn += sent;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.socket.flush()?)
    }

    fn connected(&mut self, common: &Common) -> Result<(), Gone> {
        if let Some(error) = self.socket.stream().take_error()? {
            return Err(error.into());
        }
        if common.work == Work::Requests {
            let exchange = Exchange::new(self.flow(Side::Backend, common));
            self.stage = Stage::Plain(exchange);
            return self.ask();
        }
        self.send_head(&upgrade::request(self.tunnel))?;
        self.stage = Stage::Head(Vec::new());
        Ok(())
    }

    /// Sends a client's next plain request.
    fn ask(&mut self) -> Result<(), Gone> {
        let Stage::Plain(exchange) = &self.stage else { return Ok(()) };
        let request = exchange.request();
        self.since = Instant::now();
        self.send_head(&request)
    }

    fn flow(&self, from: Side, common: &Common) -> Flow {
        Flow { from, tunnel: self.tunnel, payload: common.payload }
    }

    /// A head fits the buffer of a socket on which nothing is under way.
    fn send_head(&mut self, head: &[u8]) -> Result<(), Gone> {
        match self.socket.send([&[], head])? {
            sent if sent == head.len() => Ok(()),
            sent => Err(Gone::Wrong(format!("a socket took {sent} bytes of a head"))),
        }
    }

    fn receive(&mut self, common: &mut Common) -> Result<(), Gone> {
        let mut scratch = std::mem::take(&mut common.scratch);
        let outcome = match self.socket.receive(&mut scratch) {
            Ok(0) => Err(self.ended(common)),
            Ok(count) => self.take(&scratch[..count], common),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(match self.ended(common) {
                Gone::Done => Gone::Done,
                Gone::Wrong(_) => error.into(),
            }),
        };
        common.scratch = scratch;
        outcome
    }

    fn ended(&self, common: &Common) -> Gone {
        match (&self.stage, self.side, common.work) {
            (Stage::Open(..), Side::Backend, work) if work.clients_leave() => Gone::Done,
            (Stage::Open(..), ..) => Gone::Wrong("the tunnel was closed".into()),
            // A proxy may connect in vain when its client has left, and drops kept connections as it likes: no loss to anyone.
            (_, Side::Backend, _) => Gone::Done,
            _ => Gone::Wrong("closed without an answer".into()),
        }
    }

    fn take(&mut self, bytes: &[u8], common: &mut Common) -> Result<(), Gone> {
        match &mut self.stage {
            Stage::Connecting => Ok(()),
            Stage::Head(head) => {
                head.extend_from_slice(bytes);
                let head = std::mem::take(head);
                self.take_head(head, common)
            }
            Stage::Open(..) => self.take_frames(bytes, common),
            Stage::Plain(exchange) => {
                if exchange.take(bytes, &common.pattern).map_err(Gone::Wrong)? {
                    common.tally.came_back(self.since.elapsed());
                    self.ask()?;
                }
                Ok(())
            }
        }
    }

    fn take_head(&mut self, head: Vec<u8>, common: &mut Common) -> Result<(), Gone> {
        let length = match self.side {
            Side::Client => upgrade::judge(&head, self.tunnel).map_err(Gone::Wrong)?,
            Side::Backend => match upgrade::answer(&head).map_err(Gone::Wrong)? {
                None => None,
                Some((length, upgrade::Asked::Tunnel(tunnel, answer))) => {
                    self.tunnel = tunnel;
                    self.send_head(&answer)?;
                    Some(length)
                }
                Some((_, upgrade::Asked::Plain(question))) => return self.answer(&question, common),
            },
        };
        let Some(length) = length else {
            if head.len() > HEAD_BYTES {
                return Err(Gone::Wrong("an endless head".into()));
            }
            self.stage = Stage::Head(head);
            return Ok(());
        };
        self.open(common);
        match (self.side, common.work) {
            (Side::Client, Work::Churn { resumed: true }) if !self.socket.is_resumed() => {
                Err(Gone::Wrong("a full handshake where a session was to be resumed".into()))
            }
            (Side::Client, Work::Churn { .. }) => Err(Gone::Done),
            _ => self.take_frames(&head[length..], common),
        }
    }

    /// A backend's answer to a plain request, and the end where the proxy wants no other.
    fn answer(&mut self, question: &exchange::Question, common: &Common) -> Result<(), Gone> {
        let Answer { bytes, closes } = question.answer(common.payload, &common.pattern);
        self.send_head(&bytes)?;
        self.stage = Stage::Head(Vec::new());
        if closes { Err(Gone::Done) } else { Ok(()) }
    }

    fn open(&mut self, common: &mut Common) {
        let (here, there) = match self.side {
            Side::Client => (Side::Client, Side::Backend),
            Side::Backend => (Side::Backend, Side::Client),
        };
        self.stage = Stage::Open(Inbound::new(self.flow(there, common)), Outbound::new(self.flow(here, common)));
        if self.side == Side::Client {
            common.tally.opened += 1;
            common.tally.time(self.since.elapsed());
        }
    }

    fn take_frames(&mut self, bytes: &[u8], common: &mut Common) -> Result<(), Gone> {
        let Stage::Open(inbound, outbound) = &mut self.stage else { return Ok(()) };
        let first = inbound.sequence();
        let frames = inbound.check(bytes, &common.pattern).map_err(Gone::Wrong)?;
        common.tally.bytes += bytes.len() as u64;
        if frames == 0 {
            return Ok(());
        }
        match (self.side, common.work) {
            (_, Work::Idle | Work::Up | Work::Down | Work::Churn { .. } | Work::Storm | Work::Requests) => {
                return Ok(());
            }
            (Side::Backend, _) => outbound.owed += u64::from(frames),
            (Side::Client, Work::PingPong) => {
                common.tally.came_back(self.since.elapsed());
                self.since = Instant::now();
                outbound.owed += 1;
            }
            (Side::Client, Work::Paced(pace)) => {
                for sequence in first..first + frames {
                    let due = pace.due(u64::from(sequence) * u64::from(pace.tunnels) + u64::from(self.tunnel));
                    common.tally.came_back(due.elapsed());
                }
                return Ok(());
            }
        }
        self.pump(common)
    }
}
