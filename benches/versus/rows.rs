//! The rows of the comparison.

use std::collections::BTreeSet;

use crate::{
    certificate::Key,
    job::{Job, size},
    load::Work,
    measure::OTHER_TUNNELS,
};

/// Clients that connect, upgrade and close at once.
const CHURN_SLOTS: usize = 32;
/// Clients of the plain HTTP rows.
const HTTP_CLIENTS: usize = 100;
/// Clients of a storm: as many as fit the queues of the listeners (4,096).
const STORM_CLIENTS: usize = 4000;
/// Tunnels of the memory and worker rows, if there are descriptors for them.
const MANY_TUNNELS: usize = 10_000;

/// Descriptors a proxy may need besides its tunnels': HAProxy sets a thousand aside.
const PROXY_DESCRIPTORS: u64 = 1200;

/// One row.
pub struct Row {
    /// Parts that [`select`] knows, with dashes between them.
    pub name: String,
    /// The proxy's key where clients speak TLS.
    pub tls: Option<Key>,
    pub job: Job,
    /// Part of a run that names no rows.
    pub is_core: bool,
}

/// All rows, as large as this many descriptors allow; `idle_tunnels` are those of the memory rows, if not as many as possible.
pub fn all(descriptors: u64, idle_tunnels: Option<usize>) -> Vec<Row> {
    let possible = (descriptors.saturating_sub(PROXY_DESCRIPTORS) / 2) as usize;
    let idle = possible.saturating_sub(OTHER_TUNNELS).clamp(1, MANY_TUNNELS);
    let mut rows = Vec::new();
    messages(&mut rows);
    bulk(&mut rows);
    arrivals(&mut rows);
    for tls in [None, Some(Key::Ecdsa)] {
        rows.push(Row::new(tls, Job::Idle { tunnels: idle_tunnels.unwrap_or(idle) }));
    }
    for workers in [2, 4, 8] {
        rows.push(Row::new(None, Job::Even { workers, tunnels: possible.clamp(1, MANY_TUNNELS) }));
    }
    rows
}

fn messages(rows: &mut Vec<Row>) {
    for tls in [None, Some(Key::Ecdsa)] {
        for payload in [64, 1 << 10, 16 << 10] {
            for tunnels in [1, 100, 1000, 5000] {
                rows.push(Row::new(tls, Job::Echo { payload, tunnels }));
            }
        }
    }
    for (payload, tunnels, per_second) in [(64, 100, 20_000), (64, 1000, 40_000), (16 << 10, 100, 10_000)] {
        rows.push(Row::new(None, Job::Paced { payload, tunnels, per_second }));
    }
}

fn bulk(rows: &mut Vec<Row>) {
    for tls in [None, Some(Key::Ecdsa)] {
        for direction in [Work::Down, Work::Up] {
            for frame in [16 << 10, 256 << 10, 1 << 20] {
                for tunnels in [1, 50] {
                    rows.push(Row::new(tls, Job::Bulk { direction, frame, tunnels }));
                }
            }
        }
    }
}

fn arrivals(rows: &mut Vec<Row>) {
    rows.push(Row::new(None, Job::Handshakes { slots: CHURN_SLOTS, resumed: false }));
    for key in [Key::Ecdsa, Key::Rsa] {
        for resumed in [false, true] {
            rows.push(Row::new(Some(key), Job::Handshakes { slots: CHURN_SLOTS, resumed }));
        }
    }
    let schemes = [None, Some(Key::Ecdsa)];
    rows.extend(schemes.map(|tls| Row::new(tls, Job::Storm { clients: STORM_CLIENTS })));
    rows.extend(schemes.map(|tls| Row::new(tls, Job::Requests { body: 1 << 10, clients: HTTP_CLIENTS })));
}

/// The core rows; or, with words, the rows that one of them names. A word is one part of a name or several (`echo`, `wss`,
/// `64B-x100`); joined with `+`, all must be in it (`bulk+wss+x50`). `all` is every row. An error tells of a word that names
/// nothing.
pub fn select(rows: Vec<Row>, words: &[String]) -> Result<Vec<Row>, String> {
    if let Some(word) = words.iter().find(|word| !rows.iter().any(|row| row.is_named(word))) {
        let parts: BTreeSet<&str> = rows.iter().flat_map(|row| row.name.split('-')).collect();
        let parts: Vec<&str> = parts.into_iter().collect();
        return Err(format!("no row has {word:?} in its name; their parts are: {}", parts.join(", ")));
    }
    let wanted = |row: &Row| if words.is_empty() { row.is_core } else { words.iter().any(|word| row.is_named(word)) };
    Ok(rows.into_iter().filter(wanted).collect())
}

impl Row {
    fn new(tls: Option<Key>, job: Job) -> Self {
        let name = name(tls, &job);
        Self { is_core: is_core(tls, &job), name, tls, job }
    }

    /// Whether a word of [`select`] names it.
    pub fn is_named(&self, word: &str) -> bool {
        let name = format!("-{}-", self.name);
        word == "all" || word.split('+').all(|part| name.contains(&format!("-{part}-")))
    }

    /// What it says, in words.
    pub fn about(&self) -> String {
        match (self.tls, self.job) {
            (Some(Key::Rsa), _) => format!("{}; TLS 1.3, RSA 2048, X25519", self.job.about()),
            (Some(Key::Ecdsa), _) => format!("{}; TLS 1.3, ECDSA P-256, X25519", self.job.about()),
            (None, _) => self.job.about(),
        }
    }

    /// The same, small.
    pub fn shrunk(mut self) -> Self {
        self.job = self.job.shrunk();
        self
    }
}

fn name(tls: Option<Key>, job: &Job) -> String {
    let scheme = if tls.is_some() { "wss" } else { "ws" };
    match *job {
        Job::Echo { payload, tunnels } => format!("echo-{scheme}-{}-x{tunnels}", size(payload)),
        Job::Paced { payload, tunnels, per_second } => {
            format!("rate-{scheme}-{}-x{tunnels}-{per_second}", size(payload))
        }
        Job::Bulk { direction, frame, tunnels } => {
            let direction = if direction == Work::Up { "up" } else { "down" };
            format!("bulk-{scheme}-{direction}-{}-x{tunnels}", size(frame))
        }
        Job::Idle { .. } => format!("idle-{scheme}"),
        Job::Handshakes { resumed, .. } => {
            let session = if resumed { "resumed" } else { "full" };
            match tls {
                None => format!("handshake-{scheme}"),
                Some(Key::Ecdsa) => format!("handshake-{scheme}-ecdsa-{session}"),
                Some(Key::Rsa) => format!("handshake-{scheme}-rsa-{session}"),
            }
        }
        Job::Requests { body, clients } => {
            format!("{}-{}-x{clients}", if tls.is_some() { "https" } else { "http" }, size(body))
        }
        Job::Storm { clients } => format!("storm-{scheme}-x{clients}"),
        Job::Even { workers, .. } => format!("workers-{workers}"),
    }
}

/// The rows that a run without words has: every goal's, and enough of the rest to show that they are no exceptions.
fn is_core(tls: Option<Key>, job: &Job) -> bool {
    let is_tls = tls.is_some();
    match *job {
        Job::Echo { payload: 64, tunnels } => !is_tls || tunnels == 100 || tunnels == 1000,
        Job::Echo { payload, tunnels } => tunnels == 100 && (!is_tls || payload > 1024),
        Job::Bulk { frame, tunnels, direction } => match (is_tls, frame >> 10) {
            (true, 256) => tunnels == 50,
            (true, _) => false,
            (false, 16) => tunnels == 50,
            (false, _) => tunnels == 50 || direction == Work::Down,
        },
        Job::Handshakes { resumed, .. } => !(tls == Some(Key::Rsa) && resumed),
        Job::Requests { .. } => !is_tls,
        Job::Even { workers, .. } => workers > 2,
        Job::Paced { .. } | Job::Idle { .. } | Job::Storm { .. } => true,
    }
}
