//! Why a request was not served: status, a reason for log and counter, and the page the client gets.

use std::borrow::Cow;

/// A request (or a backend's answer) that is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status of the answer. 444 and 499 are nginx's: nothing is sent.
    pub status: u16,
    /// Snake case label for logs and counters: `bare_cr`, `two_hosts`, `upgrade_with_body` ...
    pub reason: &'static str,
    /// What a person should know beyond the label.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal whose detail is fixed.
    pub const fn new(status: u16, reason: &'static str, detail: &'static str) -> Self {
        Self { status, reason, detail: Cow::Borrowed(detail) }
    }
}

/// The reason phrase of a status (RFC 9110 section 15, and nginx's own 444, 494 to 499).
pub fn phrase(_status: u16) -> &'static str {
    unimplemented!()
}

/// The small HTML page of an error status; as nginx, the name without the version when `server_tokens off`.
pub fn page(_status: u16) -> Vec<u8> {
    unimplemented!()
}
