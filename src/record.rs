//! What a tunnel keeps of its request until its last line in the log.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::Config,
    observe::access_log::{self, Sealed},
    request::{Address, Attempt, ClientConnection, Request},
};

/// A request's remains: around a hundred bytes, and the access log's lines as far as they are known.
pub enum Record {
    /// The rule.
    Small(Box<Small>),
    /// Where the log asks at the end for what only the whole request knows, or several backends were tried.
    Whole(Box<Request>),
}

/// See [`Record`].
pub struct Small {
    config: Arc<Config>,
    lines: Option<Box<Sealed>>,
    remote: Address,
    serial: u64,
    started: Instant,
    /// The backend's address, for the error log.
    upstream: Box<str>,
    /// From accept to the request.
    waited_ms: u32,
    received: u32,
    sent: u32,
    to_upstream: u32,
    from_upstream: u32,
    attempt_began_ms: u32,
    server: u32,
    location: u32,
}

impl Record {
    /// Keeps what is needed of a request whose 101 has been sent.
    pub fn of(mut request: Box<Request>) -> Self {
        let Some(location) = request.location else { return Self::Whole(request) };
        if request.attempts.len() != 1 {
            return Self::Whole(request);
        }
        let Some(lines) = access_log::seal(&mut request) else { return Self::Whole(request) };
        let attempt = request.attempts.pop().unwrap_or_default();
        // A head of 4 GiB cannot be: `large_client_header_buffers` and `proxy_buffer_size` are kept far below.
        let short = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self::Small(Box::new(Small {
            config: Arc::clone(&request.config),
            lines: (!lines.is_empty()).then(|| Box::new(lines)),
            remote: request.client.remote.clone(),
            serial: request.client.serial,
            started: request.started,
            upstream: attempt.address,
            waited_ms: short(millis(request.started.saturating_duration_since(request.client.accepted))),
            received: short(request.received),
            sent: short(request.bytes_sent),
            to_upstream: short(attempt.bytes_sent),
            from_upstream: short(attempt.bytes_received),
            attempt_began_ms: short(millis(attempt.began)),
            server: request.server as u32,
            location: location as u32,
        }))
    }

    /// The request again, as far as it was kept, and its sealed lines.
    pub fn into_request(self) -> (Box<Request>, Option<Box<Sealed>>) {
        let small = match self {
            Self::Whole(request) => return (request, None),
            Self::Small(small) => small,
        };
        let client = ClientConnection {
            serial: small.serial,
            remote: small.remote,
            local: Address::Unix("".into()),
            tls: None,
            accepted: small.started.checked_sub(Duration::from_millis(small.waited_ms.into())).unwrap_or(small.started),
        };
        let server = small.server as usize;
        let mut request = Request::refused(small.config, Rc::new(client), 1, server, Vec::new(), small.started);
        request.location = Some(small.location as usize);
        request.received = u64::from(small.received);
        request.bytes_sent = u64::from(small.sent);
        request.status = 101;
        request.attempts = vec![Attempt {
            address: small.upstream,
            status: 101,
            began: Duration::from_millis(u64::from(small.attempt_began_ms)),
            bytes_sent: u64::from(small.to_upstream),
            bytes_received: u64::from(small.from_upstream),
            ..Attempt::default()
        }];
        (Box::new(request), Some(small.lines.unwrap_or_default()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
