//! One end of a tunnel: says its script and holds what it hears against the other's, both at once.

use std::{
    io::ErrorKind,
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::script::{Check, Random, Script};
use crate::util::{Wire, frames};

/// Longest time in which nothing moves.
const STUCK: Duration = Duration::from_secs(30);

/// What both ends of a tunnel do. It travels in the request's target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    /// Bytes that the client says, about.
    pub up: u64,
    /// Bytes that the backend says.
    pub down: u64,
    /// The client resets the tunnel when it has said so many, if it says so many;
    pub client_cut: Option<u64>,
    /// and the backend.
    pub backend_cut: Option<u64>,
    /// Each rests for so long at some places, milliseconds.
    pub rest_ms: u64,
    /// The client reads slowly.
    pub slow: bool,
}

impl Plan {
    pub fn random(random: &mut Random) -> Self {
        let total = |random: &mut Random| if random.percent(10) { random.size(16 << 20) } else { random.size(1 << 20) };
        let (up, down) = (total(random), total(random));
        let mut cut = |of: u64| random.percent(15).then(|| random.below(of.max(1)));
        let (client_cut, backend_cut) = (cut(up), cut(down));
        let rest_ms = if random.percent(30) { random.below(3000) } else { 0 };
        Self { seed: random.next(), up, down, client_cut, backend_cut, rest_ms, slow: random.percent(10) }
    }

    /// The query of its request.
    pub fn query(&self) -> String {
        let cut = |cut: Option<u64>| cut.map_or(-1, |bytes| bytes as i64);
        let Self { seed, up, down, rest_ms, .. } = self;
        let (client, backend, slow) = (cut(self.client_cut), cut(self.backend_cut), u8::from(self.slow));
        format!("{seed},{up},{down},{client},{backend},{rest_ms},{slow}")
    }

    /// The plan in a request's target.
    pub fn of(target: &str) -> Option<Self> {
        let (_, query) = target.split_once('?')?;
        let numbers: Vec<i64> = query.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
        let [seed, up, down, client, backend, rest_ms, slow] = numbers[..] else { return None };
        Some(Self {
            seed: seed as u64,
            up: up as u64,
            down: down as u64,
            client_cut: u64::try_from(client).ok(),
            backend_cut: u64::try_from(backend).ok(),
            rest_ms: rest_ms as u64,
            slow: slow == 1,
        })
    }

    /// Nobody cuts it.
    pub fn is_whole(&self) -> bool {
        self.client_cut.is_none() && self.backend_cut.is_none()
    }

    pub fn client(&self) -> (Script, Check, Manner) {
        let manner =
            Manner { cut: self.client_cut, rest_ms: self.rest_ms, slow: self.slow, masked: true, seed: self.seed ^ 2 };
        (self.says_up(), Check::new(self.says_down()), manner)
    }

    pub fn backend(&self) -> (Script, Check, Manner) {
        let manner =
            Manner { cut: self.backend_cut, rest_ms: self.rest_ms, slow: false, masked: false, seed: self.seed ^ 3 };
        (self.says_down(), Check::new(self.says_up()), manner)
    }

    fn says_up(&self) -> Script {
        Script::new(self.seed, self.up, true)
    }

    fn says_down(&self) -> Script {
        Script::new(self.seed ^ 1, self.down, false)
    }
}

/// How an end does it.
pub struct Manner {
    cut: Option<u64>,
    rest_ms: u64,
    slow: bool,
    masked: bool,
    seed: u64,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other side said all, and FIN behind it.
    Whole,
    /// It was told to go before that, or went because the other was: a close frame in good order.
    Parted,
    /// It said FIN before that,
    Short,
    /// or RST.
    Reset,
    /// We cut it.
    Cut,
}

/// What who is told to go away is told (RFC 6455 section 7.4.1), and answers.
const GOING_AWAY: u16 = 1001;

impl Check {
    /// How it went, where nothing more comes.
    fn end(&self, otherwise: End) -> End {
        if self.parted().is_some() { End::Parted } else { otherwise }
    }
}

/// Says and hears everything; also how many bytes were said and heard.
///
/// # Errors
/// A wrong byte; nothing moves any more.
pub fn run(mut wire: Wire, (mut script, mut check, manner): (Script, Check, Manner)) -> Result<(End, u64), String> {
    wire.tcp().set_nonblocking(true).map_err(|error| error.to_string())?;
    let mut random = Random::new(manner.seed);
    let (mut frame, mut at, mut said) = (Vec::new(), 0, 0);
    let (mut finished, mut flushed, mut heard_all, mut answered) = (false, false, false, false);
    let mut moved = Instant::now();
    let mut buffer = vec![0; if manner.slow { 4096 } else { 128 << 10 }];
    loop {
        let mut is_full = false;
        if !finished {
            if at == frame.len() {
                at = 0;
                frame = match check.parted() {
                    None => script.next_frame().unwrap_or_default(),
                    Some(code) if !answered => {
                        answered = true;
                        frames::raw(0x80 | frames::CLOSE, manner.masked, code.to_be_bytes())
                    }
                    Some(_) => Vec::new(),
                };
                if frame.is_empty() {
                    wire.finish();
                    finished = true;
                } else if manner.rest_ms > 0 && random.percent(10) {
                    thread::sleep(Duration::from_millis(random.below(manner.rest_ms)));
                }
            }
            // Now and then in pieces that have nothing to do with frames.
            let most = if random.percent(10) { 1 + random.size(4096) as usize } else { frame.len() };
            let piece = &frame[at..frame.len().min(at + most)];
            match wire.write_some(piece) {
                Ok(length) => {
                    (at, said) = (at + length, said + length as u64);
                    is_full = length == 0 && !finished;
                    moved = if length > 0 { Instant::now() } else { moved };
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => is_full = true,
                // It has gone; what it said before may still be there.
                Err(_) => finished = true,
            }
            if manner.cut.is_some_and(|cut| said > cut) {
                wire.reset();
                return Ok((End::Cut, check.received + said));
            }
        }
        if finished && !flushed {
            flushed = wire.try_flush();
        }
        match if heard_all { Err(ErrorKind::TimedOut.into()) } else { wire.read_some(&mut buffer) } {
            Ok(0) if check.is_complete() => heard_all = true,
            Ok(0) if check.parted().is_some() => heard_all = true,
            Ok(0) => return Ok((End::Short, check.received + said)),
            Ok(length) => {
                check.take(&buffer[..length])?;
                if check.parted().is_some_and(|code| code != GOING_AWAY) {
                    return Err(format!("closed with {:?}", check.parted()));
                }
                moved = Instant::now();
                if manner.slow {
                    thread::sleep(Duration::from_micros(random.below(1000)));
                }
                continue;
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => {}
            Err(_) => return Ok((check.end(End::Reset), check.received + said)),
        }
        if finished && flushed && heard_all {
            return Ok((check.end(End::Whole), check.received + said));
        }
        if moved.elapsed() > STUCK {
            return Err(format!("nothing moves: {said} bytes said, {} heard", check.received));
        }
        if finished || is_full {
            let wanted = [(finished && flushed, PollFlags::POLLOUT), (heard_all, PollFlags::POLLIN)];
            let wanted = wanted.iter().filter(|(done, _)| !done).map(|(_, flags)| *flags).collect();
            let _ = poll(&mut [PollFd::new(wire.tcp().as_fd(), wanted)], PollTimeout::from(10u8));
        }
    }
}
