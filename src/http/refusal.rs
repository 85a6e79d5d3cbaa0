//! Why a request was not served: status, a reason for log and counter, and the page the client gets.

use std::{borrow::Cow, fmt};

/// A request (or a backend's answer) that is not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status of the answer. 444 and 499 are nginx's: nothing is sent.
    pub status: u16,
    /// Snake case label for logs and counters: `bare_cr`, `two_hosts`, `upgrade_with_body` ...
    pub reason: &'static str,
    /// What a person should know beyond the label. The client of a 4xx is told a fixed sentence; a text made at run time is for the
    /// log alone, so that nothing of the backend, of the file or of what was sent can come to stand in a page.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal whose detail is fixed.
    pub const fn new(status: u16, reason: &'static str, detail: &'static str) -> Self {
        Self { status, reason, detail: Cow::Borrowed(detail) }
    }

    /// A refusal whose detail is for the log alone.
    pub fn private(status: u16, reason: &'static str, detail: impl Into<String>) -> Self {
        Self { status, reason, detail: Cow::Owned(detail.into()) }
    }

    /// The page the client gets: what it did wrong is said, what went wrong behind us is not.
    pub fn page(&self) -> Vec<u8> {
        match self.detail {
            Cow::Borrowed(detail) if (400..500).contains(&self.status) => page(self.status, Some(detail)),
            _ => page(self.status, None),
        }
    }

    /// Fields its answer needs beyond those of every answer: a 426 names the version we speak
    /// (RFC 6455 section 4.4) and the protocol (RFC 9110 section 15.5.22).
    pub const fn fields(&self) -> &'static [(&'static str, &'static [u8])] {
        match self.status {
            426 => &[("Upgrade", b"websocket"), ("Sec-WebSocket-Version", b"13")],
            _ => &[],
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.reason, self.detail)
    }
}

impl std::error::Error for Refusal {}

/// What is wrong with a message, before it is known whose it is: the client's is a 400, the backend's a 502.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) reason: &'static str,
    pub(crate) detail: &'static str,
}

impl Flaw {
    pub(crate) const fn new(reason: &'static str, detail: &'static str) -> Self {
        Self { reason, detail }
    }

    pub(crate) const fn refuse(self, status: u16) -> Refusal {
        Refusal::new(status, self.reason, self.detail)
    }
}

/// The reason phrase of a status (RFC 9110 section 15, and nginx's own 444, 494 to 499). Empty for one that has none.
pub fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        444 => "Connection Closed Without Response",
        451 => "Unavailable For Legal Reasons",
        494 => "Request Header Or Cookie Too Large",
        495 => "SSL Certificate Error",
        496 => "SSL Certificate Required",
        497 => "HTTP Request Sent To HTTPS Port",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}

/// nginx's own 494 to 497 tell an `error_page` what happened; a client is told 400.
pub fn status_sent(status: u16) -> u16 {
    if matches!(status, 494..=497) { 400 } else { status }
}

/// The small HTML page of a status, and why. It never names our version, so that it is right with `server_tokens off` too.
pub fn page(status: u16, why: Option<&'static str>) -> Vec<u8> {
    let status = status_sent(status);
    let phrase = phrase(status);
    let title = if phrase.is_empty() { status.to_string() } else { format!("{status} {phrase}") };
    let why = why.map_or_else(String::new, |why| format!("<center>{why}</center>\n"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><title>{title}</title></head>\n<body>\n\
         <center><h1>{title}</h1></center>\n{why}<hr><center>longsplice</center>\n</body>\n</html>\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_the_proxy_answers_with_has_a_phrase() {
        for status in [400, 403, 404, 405, 408, 411, 413, 414, 426, 431, 444, 494, 495, 496, 497, 499] {
            assert_ne!(phrase(status), "", "{status}");
        }
        for status in [101, 301, 302, 303, 307, 308, 500, 501, 502, 503, 504, 505] {
            assert_ne!(phrase(status), "", "{status}");
        }
    }

    #[test]
    fn a_page_names_its_status_and_the_program_without_a_version() {
        let page = String::from_utf8(page(502, None)).expect("ASCII");
        assert!(page.contains("<title>502 Bad Gateway</title>"), "{page}");
        assert!(page.contains("<center>longsplice</center>"), "{page}");
        assert!(!page.contains(env!("CARGO_PKG_VERSION")), "{page}");
        assert!(String::from_utf8(super::page(599, None)).expect("ASCII").contains("<title>599</title>"));
    }

    #[test]
    fn a_page_says_what_the_client_did_wrong_and_nothing_else() {
        let page = |refusal: Refusal| String::from_utf8(refusal.page()).expect("ASCII");
        assert!(page(Refusal::new(400, "x", "a fixed sentence")).contains("a fixed sentence"));
        assert!(!page(Refusal::private(404, "x", "of the file")).contains("of the file"));
        assert!(!page(Refusal::new(502, "x", "a fixed sentence")).contains("a fixed sentence"));
        let https = page(Refusal::new(497, "x", "sent to HTTPS port"));
        assert!(https.contains("<title>400 Bad Request</title>") && https.contains("sent to HTTPS port"), "{https}");
    }

    #[test]
    fn a_refusal_reads_as_one_line_of_a_log() {
        let refusal = Refusal::new(400, "two_hosts", "more than one Host field");
        assert_eq!(refusal.to_string(), "400 two_hosts: more than one Host field");
    }

    #[test]
    fn a_426_names_the_version_we_speak() {
        assert!(Refusal::new(426, "x", "").fields().contains(&("Sec-WebSocket-Version", b"13")));
        assert!(Refusal::new(400, "x", "").fields().is_empty());
    }
}
