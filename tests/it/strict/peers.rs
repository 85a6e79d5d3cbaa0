//! Three programs before backends of one kind, and in few words what each makes of a case.

use std::{
    any::Any,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use regex::bytes::Regex;
use tempfile::TempDir;

use super::{Case, Expected, Lie, exchange::switching, get, site::FILE};
use crate::util::{Backend, Driver, Ending, Program, Proxy, Wire, eventually, ports, process::Running};

/// What longsplice and nginx are told besides: to give up on what does not come to its end.
const IN_HTTP: &str = "client_header_timeout 2s;";

const HAPROXY: &str = "
defaults
    mode http
    timeout connect 2s
    timeout client 2s
    timeout server 2s
    timeout http-request 2s
frontend site
    bind FRONT
    http-request deny if { path_beg /closed/ }
    http-request set-path %[path,regsub(^/app/,/)] if { path_beg /app/ }
    http-request set-header X-Real-IP %[src]
    default_backend app
backend app
    server app BACKEND
";

/// Silence after which nothing more is to be expected of a program that says all it has to say at once; and of others.
const AT_ONCE: Duration = Duration::from_millis(10);
const LATER: Duration = Duration::from_millis(200);
/// Longest wait for a first byte.
const ANSWER: Duration = Duration::from_millis(2500);
/// In the answers of our backend that are no lies: the others are the proxy's own. (HAProxy writes names in lower case.)
const MARK: &str = "x-backend: 1\r\n";

/// A program before a backend.
pub struct Peer {
    front: SocketAddr,
    backend: Backend,
    /// What the backend answers next.
    script: Arc<Mutex<Option<Lie>>>,
    /// Silence after which nothing more is expected.
    silence: Duration,
    /// Ends with it.
    _program: Box<dyn Any + Send>,
}

struct Haproxy {
    running: Option<Running>,
    _dir: TempDir,
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        self.running.take().into_iter().for_each(Running::kill);
    }
}

pub fn longsplice() -> Peer {
    reader_of_our_file(Program::Longsplice, AT_ONCE)
}

pub fn nginx() -> Peer {
    reader_of_our_file(Program::Nginx, LATER)
}

fn reader_of_our_file(program: Program, silence: Duration) -> Peer {
    let (backend, script) = backend();
    let proxy = Proxy::config(&format!("{IN_HTTP}{FILE}"))
        .set("backend", backend.address())
        .certificate("site", &["x"])
        .by(program)
        .on(Driver::Epoll)
        .start();
    Peer { front: proxy.http(), backend, script, silence, _program: Box::new(proxy) }
}

pub fn haproxy(program: &Path) -> Peer {
    let (backend, script) = backend();
    let dir = TempDir::with_prefix("longsplice-").expect("a directory");
    let front = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let file = dir.path().join("haproxy.cfg");
    let text = HAPROXY.replace("FRONT", &front.to_string()).replace("BACKEND", &backend.address().to_string());
    fs::write(&file, text).expect("a file");
    let running = Running::spawn(Command::new(program).arg("-db").arg("-f").arg(file));
    assert!(eventually(|| ports::listened_on(front.port())), "{}", running.said());
    let haproxy = Haproxy { running: Some(running), _dir: dir };
    Peer { front, backend, script, silence: LATER, _program: Box::new(haproxy) }
}

/// A backend that takes whatever it is sent: where it is no request, so much the better to know.
fn backend() -> (Backend, Arc<Mutex<Option<Lie>>>) {
    let script = Arc::<Mutex<Option<Lie>>>::default();
    let answers = script.clone();
    let backend = Backend::serve(move |mut wire, _| {
        wire.patience(Duration::from_secs(30));
        let mut received = Vec::new();
        while let Some(head) = whole_request(&mut wire, &mut received) {
            let lie = answers.lock().unwrap().take();
            let usual = || {
                let switch = head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n");
                let plain = format!("HTTP/1.1 200 OK\r\n{MARK}Content-Length: 2\r\n\r\nok");
                Lie { answer: if switch { switching() } else { plain }.into(), closes: false }
            };
            let Lie { answer, closes } = lie.unwrap_or_else(usual);
            if wire.try_send(answer).is_err() || closes {
                return;
            }
        }
    });
    (backend, script)
}

/// The head of the next request, once its body has come as well.
fn whole_request(wire: &mut Wire, received: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(length) = whole(received) {
            let request: Vec<u8> = received.drain(..length).collect();
            return Some(String::from_utf8_lossy(&request).into_owned());
        }
        let mut piece = [0; 4096];
        match wire.read_some(&mut piece) {
            Ok(length) if length > 0 => received.extend(&piece[..length]),
            _ => return None,
        }
    }
}

/// The length of the message at the front, once it is all there.
fn whole(message: &[u8]) -> Option<usize> {
    static LENGTH: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)\r\ncontent-length: *(\d+)\r\n").expect("a pattern"));
    static CHUNKED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?i)\r\ntransfer-encoding: *chunked\r\n").expect("a pattern"));
    let head = find(message, b"\r\n\r\n")? + 4;
    let (fields, body) = message.split_at(head);
    if CHUNKED.is_match(fields) {
        let end = if body.starts_with(b"0\r\n\r\n") { 0 } else { find(body, b"\r\n0\r\n\r\n")? + 2 };
        return Some(head + end + 5);
    }
    let length = LENGTH.captures(fields).and_then(|found| str::from_utf8(&found[1]).ok()?.parse().ok());
    let end = head + length.unwrap_or(0);
    (message.len() >= end).then_some(end)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// A text of [`Peer::judge`] that says that a message got to the other side.
pub fn lets_through(text: &str) -> bool {
    text.starts_with("forwarded") || text.starts_with("passed on")
}

impl Peer {
    /// What becomes of a case.
    pub fn judge(&self, case: &Case) -> String {
        let before: Vec<usize> = (0..self.backend.connections()).map(|at| self.backend.received(at).len()).collect();
        (*self.script.lock().unwrap()).clone_from(&case.lie);
        let mut client = Wire::connect(self.front);
        let _ = client.try_send(&case.sent);
        let heard = self.hear(&mut client);
        match case {
            Case { lie: Some(_), .. } => self.of_an_answer(case, client, heard),
            Case { frame: Some(frame), .. } => {
                let _ = client.try_send(frame);
                let (_, ending) = self.hear(&mut client);
                of_a_frame(&self.arrived(&before), ending)
            }
            Case { expected: Expected::Unfinished { .. }, .. } => {
                // What was begun shows up at the backend whenever it gets round to it.
                eventually(|| self.silence > AT_ONCE || !self.arrived(&before).is_empty());
                of_a_request(&case.sent, &self.arrived(&before), heard)
            }
            _ => of_a_request(&case.sent, &self.arrived(&before), heard),
        }
    }

    /// All that comes until the end, or until a silence.
    fn hear(&self, client: &mut Wire) -> (Vec<u8>, Ending) {
        let mut first = vec![0; 64 << 10];
        match client.patience(ANSWER).read_some(&mut first) {
            Ok(0) => (Vec::new(), Ending::Closed),
            Ok(length) => {
                first.truncate(length);
                let (rest, ending) = client.patience(self.silence).ending();
                first.extend(rest);
                (first, ending)
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => (Vec::new(), Ending::Open),
            Err(_) => (Vec::new(), Ending::Reset),
        }
    }

    /// What the backend has received since it had received `before`.
    fn arrived(&self, before: &[usize]) -> Vec<u8> {
        let new = |at| self.backend.received(at).split_off(before.get(at).copied().unwrap_or(0));
        (0..self.backend.connections()).flat_map(new).collect()
    }

    fn of_an_answer(&self, case: &Case, mut client: Wire, (heard, ending): (Vec<u8>, Ending)) -> String {
        let statuses = statuses(&heard);
        let Some((status, at)) = statuses.iter().copied().find(|(status, _)| *status >= 200 || *status == 101) else {
            return match (heard.is_empty(), ending) {
                (false, _) => "passed on without a head",
                (true, Ending::Open) => "waits",
                (true, _) => "closed silently",
            }
            .to_owned();
        };
        if status >= 500 {
            return status.to_string();
        }
        if status == 101 {
            return "passed on, a tunnel".to_owned();
        }
        let to_head = case.sent.starts_with(b"HEAD") || matches!(status, 204 | 304);
        let answer = &heard[at..];
        let length = if to_head { find(answer, b"\r\n\r\n").map(|end| end + 4) } else { whole(answer) };
        let Some(length) = length else { return format!("{status}, cut short") };
        let mut text = format!("passed on as {}", list(&statuses));
        if length < answer.len() {
            text += ", and what is behind it";
        } else if matches!(case.expected, Expected::Passed { kept: false, .. }) && ending == Ending::Open {
            let _ = client.try_send(get("").replace("GET /", "GET /kept"));
            let next = self.hear(&mut client).0;
            text += if find(&next, MARK.as_bytes()).is_some() {
                ""
            } else {
                ", and it is not the next answer that follows"
            };
        }
        text
    }
}

/// Statuses of the answers in a stream, and where each begins.
fn statuses(heard: &[u8]) -> Vec<(u16, usize)> {
    static LINE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"HTTP/1\.[01] +(\d{3})").expect("a pattern"));
    let status = |line: regex::bytes::Captures<'_>| {
        let at = line.get(0).map_or(0, |line| line.start());
        str::from_utf8(&line[1]).ok()?.parse().ok().map(|status| (status, at))
    };
    LINE.captures_iter(heard).filter_map(status).collect()
}

/// `100, 103, 200`, those that repeat counted.
fn list(statuses: &[(u16, usize)]) -> String {
    let runs = statuses.chunk_by(|one, other| one.0 == other.0);
    let texts = runs.map(|run| match run {
        [(status, _)] => status.to_string(),
        run => format!("{} times {}", run.len(), run[0].0),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn of_a_frame(arrived: &[u8], ending: Ending) -> String {
    let frame = find(arrived, b"\r\n\r\n").map_or(0, |end| arrived.len() - end - 4);
    match (frame, ending) {
        (0, Ending::Open) => "waits",
        (0, _) => "the tunnel ends, nothing forwarded",
        _ => "forwarded",
    }
    .to_owned()
}

fn of_a_request(sent: &[u8], arrived: &[u8], (heard, ending): (Vec<u8>, Ending)) -> String {
    let statuses = statuses(&heard);
    let ends = statuses.iter().map(|(_, at)| *at).skip(1).chain([heard.len()]);
    let answers: Vec<(u16, bool)> = statuses
        .iter()
        .zip(ends)
        .map(|((status, at), end)| (*status, *status == 101 || find(&heard[*at..end], MARK.as_bytes()).is_some()))
        .collect();
    let own = answers.iter().find(|(_, of_backend)| !of_backend).map(|(status, _)| *status);
    let said = match own {
        Some(status) => status.to_string(),
        None if !heard.is_empty() => "an answer without a head".to_owned(),
        None if ending == Ending::Open => "waits".to_owned(),
        None => "closed silently".to_owned(),
    };
    if arrived.is_empty() {
        return format!("{said}, nothing forwarded");
    }
    if whole(arrived).is_none() {
        return format!("{said}, forwarded without its end");
    }
    let then = own.map_or(String::new(), |status| format!(", then {status}"));
    format!("forwarded{}{then}", changes(sent, arrived))
}

/// How what arrived differs from what was sent, `Connection` aside.
fn changes(sent: &[u8], arrived: &[u8]) -> String {
    const NAMED: usize = 3;
    let (sent, arrived) = (lines(sent), lines(arrived));
    let target = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut texts = Vec::new();
    if let ([line, ..], [new, ..]) = (&sent[..], &arrived[..])
        && target(line) != target(new)
    {
        texts.push(format!("as `{}`", target(new)));
    }
    let mut differ = 0;
    for field in sent.iter().skip(1).filter_map(|line| field(line)) {
        let new: Vec<_> =
            arrived.iter().filter_map(|line| self::field(line)).filter(|(name, _)| *name == field.0).collect();
        if field.0 == "connection" || new.contains(&field) {
            continue;
        }
        differ += 1;
        if differ <= NAMED {
            let text = match new.first() {
                Some((name, value)) => format!("with `{name}: {value}`"),
                None => format!("without `{}`", field.0),
            };
            texts.push(text);
        }
    }
    texts.dedup();
    texts.iter().map(|text| format!(" {text}")).collect::<Vec<_>>().join(" and")
}

/// The lines of the head at the front, what cannot be printed escaped.
fn lines(message: &[u8]) -> Vec<String> {
    let skipped = message.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let text = message[skipped..].split(|byte| *byte == b'\n');
    let lines = text.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).take_while(|line| !line.is_empty());
    lines.map(|line| line.escape_ascii().to_string()).collect()
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    (!name.starts_with(' ')).then(|| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}
