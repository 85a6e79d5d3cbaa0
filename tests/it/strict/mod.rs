//! The rules of a hostile world, each a test of its name: what a client or a backend may not send is refused, and nothing of it
//! gets any further; what it may send arrives as it was sent.
//!
//! A rule is a list of cases. [`exchange::hold`] takes each through a running proxy: over ws and wss, in one piece and cut in two
//! (ws: at every byte; wss: at a few, since each is a handshake), and behind a good request on the same connection.
//! [`table`] sends the same bytes through nginx and HAProxy and writes down who does what: docs/strictness.md.

mod answer;
mod body;
mod exchange;
mod fields;
mod first_frame;
mod path;
mod peers;
mod request_line;
mod settings;
mod site;
mod table;
mod tunnel;
mod upgrade;

/// One message that keeps to a rule or breaks it.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its rule: the name of its test.
    pub rule: &'static str,
    /// What is sent, in a few words.
    pub name: String,
    /// What the client sends.
    pub sent: Vec<u8>,
    /// What the backend answers, where it is the one that is judged.
    pub lie: Option<Lie>,
    /// What the client sends once its tunnel is open.
    pub frame: Option<Vec<u8>>,
    pub expected: Expected,
}

/// What a backend of a hostile world answers.
#[derive(Debug, Clone)]
pub struct Lie {
    pub answer: Vec<u8>,
    /// It closes behind that.
    pub closes: bool,
}

/// What must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The client gets this status and the backend nothing (or, where the backend is judged, the client nothing of its answer).
    Refused { status: u16, reason: &'static str },
    /// The backend gets exactly this: a head, and the body without its framing.
    Forwarded(String),
    /// The client gets this status, and the backend the beginning of a request that never comes to its end.
    Unfinished { status: u16, reason: &'static str },
    /// The client gets exactly this, and where its connection is kept, the next answer on it is by another backend connection
    /// unless `kept`.
    Passed { received: String, kept: bool },
    /// The client gets this much of an answer and then no clean end.
    Cut { received: String, reason: &'static str },
    /// The tunnel ends, and nothing of the frame gets to the backend.
    Ended,
}

fn case(name: impl Into<String>, sent: impl Into<Vec<u8>>, expected: Expected) -> Case {
    Case { rule: "", name: name.into(), sent: sent.into(), lie: None, frame: None, expected }
}

/// A request that is refused.
fn refused(name: impl Into<String>, sent: impl Into<Vec<u8>>, status: u16, reason: &'static str) -> Case {
    case(name, sent, Expected::Refused { status, reason })
}

/// A request that reaches the backend as `arrives`.
fn forwarded(name: impl Into<String>, sent: impl Into<Vec<u8>>, arrives: impl Into<String>) -> Case {
    case(name, sent, Expected::Forwarded(arrives.into()))
}

/// A request with this line, Host and `fields`.
fn request(line: &str, fields: &str) -> String {
    format!("{line}\r\nHost: x\r\n{fields}\r\n")
}

/// A GET with these field lines.
fn get(fields: &str) -> String {
    request("GET / HTTP/1.1", fields)
}

/// A plain request as the backend gets it: `framing` and `fields` are lines.
fn arrives(line: &str, framing: &str, fields: &str) -> String {
    format!("{line}\r\nHost: x\r\nConnection: close\r\n{framing}X-Real-IP: 127.0.0.1\r\n{fields}\r\n")
}

/// Makes each rule a test, on both drivers, and all of them the list of a file's cases.
macro_rules! rules {
    ($($rule:ident),* $(,)?) => {
        /// Every case of this file.
        pub fn cases() -> Vec<$crate::strict::Case> {
            let rules = [$((stringify!($rule), $rule())),*];
            rules.into_iter().flat_map(|(rule, cases)| $crate::strict::of_rule(rule, cases)).collect()
        }
        mod epoll {
            $(#[test] fn $rule() {
                let cases = $crate::strict::of_rule(stringify!($rule), super::$rule()).collect();
                $crate::strict::exchange::hold(cases, $crate::util::Driver::Epoll);
            })*
        }
        #[test]
        fn io_uring_holds_them_too() {
            $crate::strict::exchange::hold(cases(), $crate::util::Driver::IoUring);
        }
    };
}
use rules;

fn of_rule(rule: &'static str, cases: Vec<Case>) -> impl Iterator<Item = Case> {
    cases.into_iter().map(move |case| Case { rule, ..case })
}
