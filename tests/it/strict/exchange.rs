//! One case through a running proxy, in every way it can arrive.

use std::time::{Duration, Instant};

use super::{
    Case, Expected, Lie, arrives, get,
    site::{Channel, Site},
};
use crate::util::{Driver, Ending, PATIENCE, Wire, beyond_nginx, frames};

/// Connections that are open at once.
const AT_ONCE: usize = 100;
/// What a longer message is cut at: every byte near its ends, and every so many bytes between them.
const EVERY_BYTE: usize = 600;
const SPARSE: usize = 509;
const NEAR: usize = 64;
/// Cuts over TLS, each a handshake.
const TLS_CUTS: usize = 4;

const GOOD: &str = "GET /good HTTP/1.1\r\nHost: x\r\n\r\n";
/// Behind a message that must be refused: no answer, and not to the backend.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// How the bytes of a case arrive.
#[derive(Debug, Clone, Copy)]
enum Way<'a> {
    /// On a connection for each place, cut there; 0 is in one piece.
    Cut(&'a [usize]),
    /// Behind a good request, in one write with it.
    Behind,
}

impl Way<'_> {
    fn cuts(&self) -> &[usize] {
        match self {
            Self::Cut(cuts) => cuts,
            Self::Behind => &[0],
        }
    }

    /// For what leads up to the message that is cut.
    fn whole(self) -> Self {
        match self {
            Self::Cut(cuts) => Self::Cut(&[0; AT_ONCE][..cuts.len()]),
            Self::Behind => Self::Behind,
        }
    }
}

/// Holds the program to cases.
pub fn hold(cases: Vec<Case>, driver: Driver) {
    beyond_nginx!();
    let site = Site::start(driver);
    for case in cases {
        for channel in [Channel::Plain, Channel::Tls] {
            let run = |way: Way| {
                // The last one is the one that failed.
                eprintln!("{}: {}: {channel:?}, {way:?}", case.rule, case.name);
                attempt(&site, &case, channel, way);
            };
            run(Way::Cut(&[0]));
            run(Way::Behind);
            if driver == Driver::Epoll {
                cuts(&case, channel).chunks(AT_ONCE).for_each(|cuts| run(Way::Cut(cuts)));
            }
        }
    }
}

/// The message that is judged.
fn judged(case: &Case) -> &[u8] {
    match case {
        Case { lie: Some(lie), .. } => &lie.answer,
        Case { frame: Some(frame), .. } => frame,
        case => &case.sent,
    }
}

fn cuts(case: &Case, channel: Channel) -> Vec<usize> {
    let length = judged(case).len();
    match channel {
        Channel::Plain => (1..length)
            .filter(|at| length <= EVERY_BYTE || *at < NEAR || length - at < NEAR || at % SPARSE == 0)
            .collect(),
        Channel::Tls => (1..=TLS_CUTS).map(|part| part * length / (TLS_CUTS + 1)).filter(|at| *at > 0).collect(),
    }
}

fn attempt(site: &Site, case: &Case, channel: Channel, way: Way) {
    let mark = mark(&case.expected);
    site.new_lines();
    match case {
        Case { lie: Some(lie), .. } => lied_to(site, case, lie, channel, way),
        Case { frame: Some(frame), .. } => framed(site, case, frame, channel, way),
        case => asked(site, case, channel, way),
    }
    if let Some((reason, mark)) = mark {
        let count = way.cuts().len();
        assert_eq!(site.rose(reason), count as u64, "the counter of {reason}");
        expect_lines(site, &mark, count);
    }
}

/// The reason that is logged and counted, and how its line says it.
fn mark(expected: &Expected) -> Option<(&'static str, String)> {
    match expected {
        Expected::Refused { status, reason } | Expected::Unfinished { status, reason } => {
            Some((reason, format!("({status} {reason})")))
        }
        Expected::Cut { reason, .. } => Some((reason, format!("({reason})"))),
        Expected::Ended => Some(("protocol_error", "(protocol_error)".to_owned())),
        Expected::Forwarded(_) | Expected::Passed { .. } => None,
    }
}

/// The log gets one line about each attempt, and no other.
fn expect_lines(site: &Site, mark: &str, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut lines = Vec::new();
    while lines.len() < count && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
        // That it is ready may be said after it listens.
        let others = |line: &String| !line.contains("tunnel closed (") && !line.contains(" ready: ");
        lines.extend(site.new_lines().into_iter().filter(others));
    }
    assert_eq!(lines.len(), count, "lines of the log:\n{}", lines.join("\n"));
    assert!(lines.iter().all(|line| line.contains(mark)), "not every line has {mark}:\n{}", lines.join("\n"));
}

/// Connects a client for each cut and has it send `sent`, cut there; waits in between until the proxy has seen the first part.
fn clients(site: &Site, channel: Channel, way: Way, sent: &[u8]) -> Vec<Wire> {
    let mut clients: Vec<Wire> = way.cuts().iter().map(|_| site.connect(channel)).collect();
    if let Way::Behind = way {
        clients[0].send([GOOD.as_bytes(), sent].concat());
        let mut backend = site.accept();
        assert_eq!(read_request(&mut backend).0, arrives("GET /good HTTP/1.1", "", ""), "the good request");
        backend.send(OK);
        assert_eq!(clients[0].response().text(), "ok", "the answer to the good request");
        return clients;
    }
    in_two(site, &mut clients, way, sent);
    clients
}

/// Has every wire send `bytes`, cut at its place.
fn in_two(site: &Site, wires: &mut [Wire], way: Way, bytes: &[u8]) {
    for (wire, cut) in wires.iter_mut().zip(way.cuts()) {
        wire.send(&bytes[..*cut]);
    }
    if way.cuts().iter().any(|cut| *cut > 0) {
        site.probe();
    }
    for (wire, cut) in wires.iter_mut().zip(way.cuts()) {
        // Who was refused at the first part may be gone.
        let _ = wire.try_send(&bytes[*cut..]);
    }
}

/// A case about what the client sends.
fn asked(site: &Site, case: &Case, channel: Channel, way: Way) {
    match &case.expected {
        Expected::Refused { status, .. } => {
            let closes = *status != 403;
            let sent = if closes { [&case.sent, SMUGGLED.as_bytes()].concat() } else { case.sent.clone() };
            for client in &mut clients(site, channel, way, &sent) {
                expect_refusal(client, *status, closes);
            }
            assert!(site.is_quiet(), "something got to the backend");
        }
        Expected::Forwarded(arrives) => {
            let mut clients = clients(site, channel, way, &case.sent);
            let mut backends: Vec<Wire> = clients.iter().map(|_| site.accept()).collect();
            for backend in &mut backends {
                let (head, upgrade) = read_request(backend);
                assert_eq!(head, *arrives);
                backend.send(if upgrade { switching() } else { OK.to_owned() });
            }
            for mut client in clients.drain(..) {
                assert!(matches!(client.head().status(), 200 | 101));
            }
            for backend in &mut backends {
                assert_eq!(String::from_utf8_lossy(&backend.ending().0), "", "more than the request");
            }
        }
        Expected::Unfinished { status, .. } => {
            let sent = [&case.sent, SMUGGLED.as_bytes()].concat();
            let mut clients = clients(site, channel, way, &sent);
            for client in &mut clients {
                expect_refusal(client, *status, true);
                let (got, ending) = site.accept().ending();
                assert_ne!(ending, Ending::Open, "the backend's side");
                assert!(!got.ends_with(b"\r\n0\r\n\r\n"), "the backend got an end: {}", got.escape_ascii());
            }
            assert!(site.is_quiet(), "something else got to the backend");
        }
        other => panic!("{other:?} of a request"),
    }
}

/// A request as it reached the backend, the framing of its body undone, and whether it asks for an upgrade.
pub fn read_request(backend: &mut Wire) -> (String, bool) {
    let head = backend.head();
    let body = backend.body(&head);
    (head.raw.clone() + &String::from_utf8_lossy(&body), head.get("upgrade").is_some())
}

/// The 101 to the key that all cases have.
pub fn switching() -> String {
    let accept = frames::ACCEPT;
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

fn expect_refusal(client: &mut Wire, status: u16, closes: bool) {
    let mut head = client.try_head().expect("an answer");
    while head.status() < 200 {
        head = client.head();
    }
    assert_eq!(head.status(), status, "{}", head.raw);
    let length = head.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    client.exactly(length);
    let says_so = head.get("connection").is_some_and(|connection| connection.contains("close"));
    assert!(says_so || !closes, "{}", head.raw);
    if says_so {
        client.expect_gone();
    }
}

/// A case about what the backend answers.
fn lied_to(site: &Site, case: &Case, lie: &Lie, channel: Channel, way: Way) {
    let mut clients = clients(site, channel, way.whole(), &case.sent);
    let mut backends: Vec<Wire> = clients.iter().map(|_| site.accept()).collect();
    for backend in &mut backends {
        read_request(backend);
    }
    in_two(site, &mut backends, way, &lie.answer);
    if lie.closes {
        backends.clear();
    }
    for client in &mut clients {
        match &case.expected {
            Expected::Refused { status, .. } => expect_refusal(client, *status, false),
            Expected::Cut { received, .. } => expect_cut(client, received),
            Expected::Passed { received, kept } => {
                assert_eq!(read_answer(client, case.sent.starts_with(b"HEAD")), *received);
                if !kept {
                    expect_fresh_answer(site, client);
                }
            }
            other => panic!("{other:?} of an answer"),
        }
    }
}

/// An answer as it came, interim ones included, the framing of its body undone.
fn read_answer(client: &mut Wire, to_head: bool) -> String {
    let mut heads = String::new();
    loop {
        let head = client.head();
        heads += &head.raw;
        match head.status() {
            101 | 204 | 304 => return heads,
            100..=199 => {}
            _ if to_head => return heads,
            _ => return heads + &String::from_utf8_lossy(&client.body(&head)),
        }
    }
}

/// What the client's connection brings next is the answer to its next request, and by another connection to the backend.
fn expect_fresh_answer(site: &Site, client: &mut Wire) {
    client.send(get("").replace("GET /", "GET /kept"));
    let mut backend = site.accept();
    read_request(&mut backend);
    backend.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh");
    assert_eq!(client.response().text(), "fresh");
}

/// An answer that broke off looks like one: never like a whole one.
fn expect_cut(client: &mut Wire, most: &str) {
    let (got, ending) = client.ending();
    let got = String::from_utf8_lossy(&got);
    assert!(most.starts_with(&*got), "{got:?} is not the beginning of {most:?}");
    assert!(matches!(ending, Ending::Reset | Ending::Truncated), "{ending:?} behind {got:?}");
}

/// A case about the first frame of a tunnel.
fn framed(site: &Site, case: &Case, frame: &[u8], channel: Channel, way: Way) {
    let mut clients = clients(site, channel, way.whole(), &case.sent);
    let mut backends: Vec<Wire> = clients.iter().map(|_| site.accept()).collect();
    for backend in &mut backends {
        read_request(backend);
        backend.send(switching());
    }
    for client in &mut clients {
        assert_eq!(client.head().status(), 101);
    }
    in_two(site, &mut clients, way, frame);
    for client in &mut clients {
        assert_ne!(client.ending().1, Ending::Open, "the client's side");
    }
    for backend in &mut backends {
        let (bytes, ending) = backend.ending();
        assert_ne!(ending, Ending::Open, "the backend's side");
        assert!(bytes.is_empty(), "the backend got {bytes:?}");
    }
}
