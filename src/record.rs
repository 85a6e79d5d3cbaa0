//! What a tunnel keeps of its request until its last line in the logs.

use std::{
    fmt, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::TunnelEvent,
    generation::Generation,
    observe::{
        access_log::{self, Sealed},
        tally::PeerTally,
    },
    request::{Address, Attempt, ClientConnection, Request, Traffic},
    route::{location::LocationId, server_name::ServerId},
    upstream::Leg,
    zone::Place,
};

/// A request's remains.
pub enum Record {
    /// The rule.
    Small(Small),
    /// Where the access log asks at the end for what only the whole request knows, or the file does not name the backend.
    Whole(Whole),
}

/// A whole request.
pub struct Whole {
    request: Box<Request>,
    generation: Arc<Generation>,
    leg: Leg,
    opened: Instant,
}

const TENTH_MS: u128 = 100;

// One in every tunnel.
const _: () = assert!(size_of::<Record>() <= 80);
// One in a tunnel that has lines in an access log, or a place in a zone, which is 24 bytes more.
const _: () = assert!(size_of::<Lines>() <= 80);

/// Who was connected with whom, for the error log; nothing but pointers to what many tunnels share, and no memory of its own while there
/// is no access log.
pub struct Small {
    generation: Arc<Generation>,
    remote: Address,
    serial: u64,
    leg: Leg,
    server: u32,
    location: u32,
    /// Tenths of a second from the start of the process.
    opened: u32,
    tls: bool,
    lines: Option<Box<Lines>>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("generation", &self.generation().number).finish_non_exhaustive()
    }
}

/// The access log's lines as far as they are known, and what their rest is made of; and what only some tunnels have.
struct Lines {
    sealed: Sealed,
    started: Instant,
    /// From accept to the request.
    waited_ms: u32,
    received: u32,
    sent: u32,
    to_upstream: u32,
    from_upstream: u32,
    attempt_began_ms: u32,
    _places: Box<[Place]>,
}

impl Record {
    /// Keeps what is needed of a request whose 101 has been sent, and what its tunnel counts in.
    pub fn of(mut request: Box<Request>, generation: Arc<Generation>, leg: Leg) -> Self {
        let opened = Instant::now();
        let (Some(location), Some(_)) = (request.location, leg.tally()) else {
            return Self::Whole(Whole { request, generation, leg, opened });
        };
        // A line may tell of every backend that was tried.
        let sealed = access_log::seal(&mut request).filter(|sealed| sealed.is_empty() || request.attempts.len() == 1);
        let Some(sealed) = sealed else { return Self::Whole(Whole { request, generation, leg, opened }) };
        let attempt = request.attempts.pop().unwrap_or_default();
        let since_start = opened.saturating_duration_since(generation.board.started());
        Self::Small(Small {
            lines: (!sealed.is_empty() || !request.places.is_empty())
                .then(|| Box::new(Lines::of(sealed, &mut request, &attempt))),
            remote: request.remote().clone(),
            serial: request.client.serial,
            leg,
            server: request.server as u32,
            location: location as u32,
            // Enough for 13 years.
            opened: u32::try_from(since_start.as_millis() / TENTH_MS).unwrap_or(u32::MAX),
            tls: request.client.tls.is_some(),
            generation,
        })
    }

    /// What it was served by.
    pub fn generation(&self) -> &Arc<Generation> {
        match self {
            Self::Whole(Whole { generation, .. }) | Self::Small(Small { generation, .. }) => generation,
        }
    }

    /// `$connection`
    pub fn serial(&self) -> u64 {
        match self {
            Self::Whole(whole) => whole.request.client.serial,
            Self::Small(small) => small.serial,
        }
    }

    /// Server and location, as its generation counts them; none without a location.
    pub fn route(&self) -> Option<(ServerId, LocationId)> {
        Some((self.server(), self.location()?))
    }

    /// Index of its server block.
    pub fn server(&self) -> usize {
        match self {
            Self::Whole(whole) => whole.request.server,
            Self::Small(small) => small.server as usize,
        }
    }

    /// Index of its location.
    pub fn location(&self) -> Option<usize> {
        match self {
            Self::Whole(whole) => whole.request.location,
            Self::Small(small) => Some(small.location as usize),
        }
    }

    /// The client's address.
    pub fn client(&self) -> &Address {
        match self {
            Self::Whole(whole) => whole.request.remote(),
            Self::Small(small) => &small.remote,
        }
    }

    /// The client speaks TLS.
    pub fn is_tls(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.request.client.tls.is_some(),
            Self::Small(small) => small.tls,
        }
    }

    /// What is counted of the backend; nothing of an address that variables came to.
    pub fn tally(&self) -> Option<&Arc<PeerTally>> {
        match self {
            Self::Whole(Whole { leg, .. }) | Self::Small(Small { leg, .. }) => leg.tally(),
        }
    }

    /// The backend's address.
    pub fn upstream(&self) -> Arc<str> {
        match self {
            Self::Whole(whole) => {
                whole.request.attempts.last().map(|attempt| Arc::clone(&attempt.address)).unwrap_or_default()
            }
            Self::Small(small) => small.address(),
        }
    }

    /// How long ago its 101 was sent.
    pub fn age(&self, now: Instant) -> Duration {
        let opened = match self {
            Self::Whole(whole) => whole.opened,
            Self::Small(small) => {
                let since_start = Duration::from_millis(u64::from(small.opened) * TENTH_MS as u64);
                small.generation.board.started() + since_start
            }
        };
        now.saturating_duration_since(opened)
    }

    /// The request again, as far as it was kept, and its sealed lines. `now` stands for times that nothing asks for.
    pub fn into_request(self, now: Instant) -> (Box<Request>, Option<Sealed>) {
        match self {
            Self::Whole(whole) => (whole.request, None),
            Self::Small(mut small) => {
                let lines = small.lines.take().map_or_else(|| Lines::none(now), |lines| *lines);
                (Box::new(small.request(&lines)), Some(lines.sealed))
            }
        }
    }

    /// Writes the lines of a moment in an open tunnel's life.
    pub fn write_lines(&mut self, event: TunnelEvent, traffic: Traffic, now: Instant) {
        match self {
            Self::Whole(Whole { request, generation, .. }) => {
                request.tunnel(event, traffic, now);
                access_log::record(&generation.logs, request);
            }
            Self::Small(small) => {
                let Some(lines) = &small.lines else { return };
                let mut request = small.request(lines);
                request.tunnel(event, traffic, now);
                access_log::record_sealed(&small.generation.logs, &lines.sealed, &mut request);
            }
        }
    }
}

impl Small {
    fn address(&self) -> Arc<str> {
        self.leg.tally().map(|tally| Arc::clone(&tally.address)).unwrap_or_default()
    }

    /// The request, as far as it was kept.
    fn request(&self, lines: &Lines) -> Request {
        let client = ClientConnection {
            serial: self.serial,
            remote: self.remote.clone(),
            local: Address::Unix("".into()),
            proxied: None,
            tls: None,
            accepted: lines.started.checked_sub(Duration::from_millis(lines.waited_ms.into())).unwrap_or(lines.started),
        };
        let server = self.server as usize;
        let config = Arc::clone(&self.generation.config);
        let mut request = Request::refused(config, Arc::new(client), 1, server, Vec::new(), lines.started);
        request.location = Some(self.location as usize);
        request.received = u64::from(lines.received);
        request.bytes_sent = u64::from(lines.sent);
        request.status = 101;
        request.attempts = vec![Attempt {
            address: self.address(),
            status: 101,
            began: Duration::from_millis(u64::from(lines.attempt_began_ms)),
            bytes_sent: u64::from(lines.to_upstream),
            bytes_received: u64::from(lines.from_upstream),
            ..Attempt::default()
        }];
        request
    }
}

impl Lines {
    fn of(sealed: Sealed, request: &mut Request, attempt: &Attempt) -> Self {
        // A head of 4 GiB cannot be: `large_client_header_buffers` and `proxy_buffer_size` are kept far below.
        let short = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            sealed,
            started: request.started,
            waited_ms: short(millis(request.started.saturating_duration_since(request.client.accepted))),
            received: short(request.received),
            sent: short(request.bytes_sent),
            to_upstream: short(attempt.bytes_sent),
            from_upstream: short(attempt.bytes_received),
            attempt_began_ms: short(millis(attempt.began)),
            _places: mem::take(&mut request.places).into_boxed_slice(),
        }
    }

    fn none(started: Instant) -> Self {
        Self {
            sealed: Sealed::default(),
            started,
            waited_ms: 0,
            received: 0,
            sent: 0,
            to_upstream: 0,
            from_upstream: 0,
            attempt_began_ms: 0,
            _places: Box::default(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{AccessLog, Escape, LogFormat, LogTarget, TunnelEvents},
        generation::tests::generation,
        request::tests::{config, head, location, request, server, settings, upstream},
        upstream::{Tried, open::tests::leg},
        variables::{Known, Part, Template, Variable},
    };

    const ADDRESSES: [&str; 2] = ["10.0.0.1:80", "10.0.0.2:80"];

    /// A request that got its 101 from the second of two backends.
    fn upgraded(logged: Option<&str>) -> Box<Request> {
        let mut settings = settings();
        settings.access_logs.extend(logged.map(|variable| AccessLog {
            target: LogTarget::Stderr,
            format: Arc::new(LogFormat {
                name: "x".into(),
                escape: Escape::Default,
                template: Template { parts: vec![Part::Variable(Variable::Known(Known::named(variable).unwrap()))] },
            }),
            condition: None,
            buffer: None,
            events: TunnelEvents::CLOSE,
        }));
        let location = crate::config::Location { settings: Arc::new(settings), ..location("/") };
        let server = crate::config::Server { locations: vec![location], ..server("a.example") };
        let mut config = config(vec![server], Vec::new());
        config.upstreams.push(upstream(&ADDRESSES));
        let mut request = request(config, head("/", &[]));
        request.location = Some(0);
        request.received = 300;
        request.attempts = ADDRESSES.map(|address| Attempt { address: address.into(), ..Attempt::default() }).into();
        Box::new(request)
    }

    fn sealed(request: Box<Request>) -> Record {
        let generation = generation(Arc::clone(&request.config));
        let (group, mut tried) = (&generation.upstreams.groups[0], Tried::default());
        let second = [(); 2].map(|()| group.choose(&mut tried, Instant::now())).into_iter().flatten().last().unwrap();
        let leg = group.leg(second, generation.tallies.peer(1), None);
        Record::of(request, generation, leg)
    }

    #[test]
    fn without_an_access_log_only_the_ends_are_kept() {
        let request = upgraded(None);
        let remote = request.client.remote.clone();
        let record = sealed(request);
        assert!(matches!(&record, Record::Small(small) if small.lines.is_none()));
        assert_eq!((record.serial(), record.server(), record.location()), (7, 0, Some(0)));
        let tally = Arc::clone(record.tally().unwrap());
        assert_eq!((&*tally.address, tally.tunnels.now()), (ADDRESSES[1], 1));
        assert_eq!((&*record.upstream(), record.client(), record.is_tls()), (ADDRESSES[1], &remote, false));
        assert!(record.age(Instant::now()) < Duration::from_secs(10));
        let (request, sealed) = record.into_request(Instant::now());
        assert_eq!(request.client.remote, remote);
        assert_eq!(request.server().name.as_ref(), "a.example");
        assert_eq!(request.attempts.last().map(|attempt| &*attempt.address), Some("10.0.0.2:80"));
        assert!(sealed.is_some_and(|sealed| sealed.is_empty()));
        assert_eq!((tally.tunnels.opened(), tally.tunnels.now()), (1, 0));
    }

    #[test]
    fn an_address_that_is_not_in_the_file_is_kept_with_its_request() {
        let request = upgraded(None);
        let record = Record::of(request, generation(Arc::new(config(Vec::new(), Vec::new()))), leg());
        assert!(matches!(&record, Record::Whole(_)));
        assert_eq!((&*record.upstream(), record.tally().is_none()), (ADDRESSES[1], true));
    }

    #[test]
    fn a_line_of_one_attempt_keeps_what_its_rest_is_made_of() {
        let mut request = upgraded(Some("request_length"));
        request.attempts.truncate(1);
        let (request, sealed) = sealed(request).into_request(Instant::now());
        assert_eq!(request.received, 300);
        assert!(sealed.is_some_and(|sealed| !sealed.is_empty()));
    }

    #[test]
    fn a_line_that_may_tell_of_several_attempts_keeps_all() {
        let (request, sealed) = sealed(upgraded(Some("upstream_response_time"))).into_request(Instant::now());
        assert_eq!(request.attempts.len(), 2);
        assert!(sealed.is_none());
    }
}
