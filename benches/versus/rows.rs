//! The rows of the comparison.

use std::collections::BTreeSet;

use crate::{
    load::Work,
    metric::Metric::{self, *},
};

/// Clients that connect, upgrade and close at once.
const CHURN_SLOTS: usize = 32;
/// Descriptors of the load besides its connections.
const OTHER_DESCRIPTORS: u64 = 100;

/// One row.
pub struct Row {
    /// As `--only` knows it.
    pub name: String,
    pub tls: bool,
    pub job: Job,
}

/// What is done in it.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// Closed loop: each tunnel has one message under way.
    Echo { payload: usize, tunnels: usize },
    /// Messages at a fixed rate over all tunnels: the load cannot become the bottleneck of a faster proxy.
    Paced { payload: usize, tunnels: usize, per_second: u32 },
    /// One direction, as fast as it goes; one write a frame.
    Bulk { direction: Work, frame: usize, tunnels: usize },
    /// Tunnels that have carried one message each way, and now nothing.
    Idle { tunnels: usize },
    /// Connect, upgrade, close.
    Handshakes { slots: usize },
}

/// All rows; `idle_tunnels` is for the memory rows.
pub fn all(idle_tunnels: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for tunnels in [1, 100, 1000] {
        rows.push(Row::new(false, Job::Echo { payload: 64, tunnels }));
    }
    rows.push(Row::new(true, Job::Echo { payload: 64, tunnels: 100 }));
    rows.push(Row::new(false, Job::Paced { payload: 64, tunnels: 1000, per_second: 40_000 }));
    for direction in [Work::Down, Work::Up] {
        for frame in [16 << 10, 256 << 10, 1 << 20] {
            for tunnels in [1, 50] {
                rows.push(Row::new(false, Job::Bulk { direction, frame, tunnels }));
            }
        }
    }
    for tls in [false, true] {
        rows.push(Row::new(tls, Job::Idle { tunnels: idle_tunnels }));
    }
    for tls in [false, true] {
        rows.push(Row::new(tls, Job::Handshakes { slots: CHURN_SLOTS }));
    }
    rows
}

/// The rows whose name is one of `words` or, where no row is called so, has it in it; all without any word. An error names
/// a word that no row has.
pub fn select(rows: Vec<Row>, words: &[String]) -> Result<Vec<Row>, String> {
    if let Some(word) = words.iter().find(|word| !rows.iter().any(|row| row.name.contains(*word))) {
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        return Err(format!("no row has {word:?} in its name; there are: {}", names.join(", ")));
    }
    let exact: Vec<bool> = words.iter().map(|word| rows.iter().any(|row| row.name == *word)).collect();
    let matches =
        |row: &Row, word: &String, exact: bool| if exact { row.name == *word } else { row.name.contains(word) };
    let wanted =
        |row: &Row| words.is_empty() || words.iter().zip(&exact).any(|(word, exact)| matches(row, word, *exact));
    Ok(rows.into_iter().filter(wanted).collect())
}

impl Row {
    fn new(tls: bool, job: Job) -> Self {
        let scheme = if tls { "wss" } else { "ws" };
        let name = match job {
            Job::Echo { payload, tunnels } => format!("echo-{scheme}-{}-x{tunnels}", size(payload)),
            Job::Paced { payload, tunnels, per_second } => {
                format!("rate-{scheme}-{}-x{tunnels}-{per_second}", size(payload))
            }
            Job::Bulk { direction, frame, tunnels } => {
                let direction = if direction == Work::Up { "up" } else { "down" };
                format!("bulk-{scheme}-{direction}-{}-x{tunnels}", size(frame))
            }
            Job::Idle { .. } => format!("idle-{scheme}"),
            Job::Handshakes { .. } if tls => format!("handshake-{scheme}-ecdsa-full"),
            Job::Handshakes { .. } => format!("handshake-{scheme}"),
        };
        Self { name, tls, job }
    }

    /// What it says, in words.
    pub fn about(&self) -> String {
        match self.job {
            Job::Echo { payload, tunnels } => {
                format!("{payload} B there and back, tunnels: {tunnels}, one message each under way")
            }
            Job::Paced { payload, tunnels, per_second } => {
                format!(
                    "{payload} B there and back, {per_second} messages/s over {tunnels} tunnels; times count from when a message was due"
                )
            }
            Job::Bulk { direction, frame, tunnels } => {
                let direction = if direction == Work::Up { "client to backend" } else { "backend to client" };
                format!("{direction}, one frame of {} a write, tunnels: {tunnels}", size(frame))
            }
            Job::Idle { tunnels } => format!("{tunnels} tunnels that carried one message each way"),
            Job::Handshakes { slots } if self.tls => {
                format!("connect, full TLS 1.3 handshake (ECDSA P-256, X25519), upgrade, close; {slots} at once")
            }
            Job::Handshakes { slots } => format!("connect, upgrade, close; {slots} at once"),
        }
    }

    /// Bytes of payload in each frame.
    pub fn payload(&self) -> usize {
        match self.job {
            Job::Echo { payload, .. } | Job::Paced { payload, .. } => payload,
            Job::Bulk { frame, .. } => frame,
            Job::Idle { .. } | Job::Handshakes { .. } => 64,
        }
    }

    /// Descriptors the load needs at once; a proxy needs as many.
    pub fn descriptors(&self) -> u64 {
        let tunnels = match self.job {
            Job::Echo { tunnels, .. } | Job::Paced { tunnels, .. } | Job::Bulk { tunnels, .. } => tunnels,
            Job::Idle { tunnels } => tunnels + crate::measure::WARM_TUNNELS,
            Job::Handshakes { slots } => 4 * slots,
        };
        2 * tunnels as u64 + OTHER_DESCRIPTORS
    }

    /// The figures of the summary, the one that decides first.
    pub fn headline(&self) -> &'static [Metric] {
        match self.job {
            Job::Echo { .. } | Job::Paced { .. } => &[CpuPerMessage, TimeP50, TimeP99],
            Job::Bulk { .. } => &[CpuPerGib, GibPerSecond],
            Job::Idle { .. } => &[MemoryPerTunnel],
            Job::Handshakes { .. } => &[CpuPerHandshake, HandshakesPerSecond],
        }
    }

    /// All figures.
    pub fn metrics(&self) -> &'static [Metric] {
        match self.job {
            Job::Echo { .. } | Job::Paced { .. } => {
                &[CpuPerMessage, MessagesPerSecond, TimeP50, TimeP99, TimeP999, Waited, LoadBusy]
            }
            Job::Bulk { .. } => &[CpuPerGib, GibPerSecond, Waited, LoadBusy],
            Job::Idle { .. } => &[MemoryPerTunnel],
            Job::Handshakes { .. } => &[CpuPerHandshake, HandshakesPerSecond, TimeP50, TimeP99, Waited, LoadBusy],
        }
    }

    /// The same job, small: for a test of the harness.
    pub fn shrunk(mut self) -> Self {
        match &mut self.job {
            Job::Echo { tunnels, .. } | Job::Bulk { tunnels, .. } | Job::Idle { tunnels } => {
                *tunnels = 20.min(*tunnels)
            }
            Job::Paced { tunnels, per_second, .. } => (*tunnels, *per_second) = (20, 1000),
            Job::Handshakes { slots } => *slots = 4,
        }
        self
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{}K", bytes >> 10),
        _ => format!("{}M", bytes >> 20),
    }
}
