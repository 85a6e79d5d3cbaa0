//! What is done in a row, and which figures it gives.

use crate::{
    load::Work,
    measure::OTHER_TUNNELS,
    metric::Metric::{self, *},
};

/// Descriptors of the load besides its connections.
const OTHER_DESCRIPTORS: u64 = 100;

/// The work of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Job {
    /// Closed loop: each tunnel has one message under way.
    Echo { payload: usize, tunnels: usize },
    /// Messages at a fixed rate over all tunnels: the load cannot become the bottleneck of a faster proxy.
    Paced { payload: usize, tunnels: usize, per_second: u32 },
    /// One direction, as fast as it goes; one write a frame.
    Bulk { direction: Work, frame: usize, tunnels: usize },
    /// Tunnels that have carried one message each way, and now nothing.
    Idle { tunnels: usize },
    /// Connect, upgrade, close; `resumed`: with a TLS session to go on from.
    Handshakes { slots: usize, resumed: bool },
    /// Plain HTTP over kept connections.
    Requests { body: usize, clients: usize },
    /// All clients go at once, and as many come.
    Storm { clients: usize },
    /// How evenly several workers share the tunnels, at first and after one has lost all of its own.
    Even { workers: usize, tunnels: usize },
}

impl Job {
    /// What it does, in words.
    pub fn about(&self) -> String {
        match *self {
            Self::Echo { payload, tunnels } => {
                format!("{} there and back, tunnels: {tunnels}, one message each under way", size(payload))
            }
            Self::Paced { payload, tunnels, per_second } => format!(
                "{} there and back, {per_second} messages/s over {tunnels} tunnels; times count from when a message was due",
                size(payload)
            ),
            Self::Bulk { direction, frame, tunnels } => {
                let direction = if direction == Work::Up { "client to backend" } else { "backend to client" };
                format!("{direction}, one frame of {} a write, tunnels: {tunnels}", size(frame))
            }
            Self::Idle { tunnels } => format!("{tunnels} tunnels that carried one message each way"),
            Self::Handshakes { slots, resumed: false } => format!("connect, upgrade, close; {slots} at once"),
            Self::Handshakes { slots, resumed: true } => {
                format!("connect with the ticket of an earlier session, upgrade, close; {slots} at once")
            }
            Self::Requests { body, clients } => {
                format!("plain GET, answers of {}, {clients} clients that keep their connections", size(body))
            }
            Self::Storm { clients } => format!("{clients} clients go at once, and {clients} come at once"),
            Self::Even { workers, tunnels } => format!(
                "{tunnels} tunnels over {workers} workers; then all clients of one worker go, and as many come anew"
            ),
        }
    }

    /// Bytes of payload in each frame.
    pub fn payload(&self) -> usize {
        match *self {
            Self::Echo { payload, .. } | Self::Paced { payload, .. } => payload,
            Self::Bulk { frame, .. } => frame,
            Self::Requests { body, .. } => body,
            Self::Idle { .. } | Self::Handshakes { .. } | Self::Storm { .. } | Self::Even { .. } => 64,
        }
    }

    /// Workers of the proxy.
    pub fn workers(&self) -> usize {
        if let Self::Even { workers, .. } = *self { workers } else { 1 }
    }

    /// Descriptors the load needs at once; a proxy needs no more.
    pub fn descriptors(&self) -> u64 {
        let tunnels = match *self {
            Self::Echo { tunnels, .. } | Self::Paced { tunnels, .. } | Self::Bulk { tunnels, .. } => tunnels,
            Self::Idle { tunnels } => tunnels + OTHER_TUNNELS,
            Self::Handshakes { slots, .. } => 4 * slots,
            Self::Requests { clients, .. } => clients,
            Self::Storm { clients } => 2 * clients,
            Self::Even { tunnels, .. } => tunnels,
        };
        2 * tunnels as u64 + OTHER_DESCRIPTORS
    }

    /// The figures of the summary, the one that decides first.
    pub fn headline(&self) -> &'static [Metric] {
        match self {
            Self::Echo { .. } | Self::Paced { .. } => &[CpuPerMessage, TimeP50, TimeP99],
            Self::Bulk { .. } => &[CpuPerGib, GibPerSecond],
            Self::Idle { .. } => &[UserMemory, KernelMemory],
            Self::Handshakes { .. } => &[CpuPerHandshake, HandshakesPerSecond],
            Self::Requests { .. } => &[CpuPerRequest, RequestsPerSecond],
            Self::Storm { .. } => &[CpuPerHandshake, AllOpen, TimeP99],
            Self::Even { .. } => &[Unevenness, UnevennessAfter],
        }
    }

    /// All figures.
    pub fn metrics(&self) -> &'static [Metric] {
        match self {
            Self::Echo { .. } | Self::Paced { .. } => {
                &[CpuPerMessage, MessagesPerSecond, TimeP50, TimeP99, TimeP999, Waited, LoadBusy]
            }
            Self::Bulk { .. } => &[CpuPerGib, GibPerSecond, Waited, LoadBusy],
            Self::Idle { .. } => &[UserMemory, KernelMemory],
            Self::Handshakes { .. } => &[CpuPerHandshake, HandshakesPerSecond, TimeP50, TimeP99, Waited, LoadBusy],
            Self::Requests { .. } => &[CpuPerRequest, RequestsPerSecond, TimeP50, TimeP99, TimeP999, Waited, LoadBusy],
            Self::Storm { .. } => &[CpuPerHandshake, AllOpen, TimeP50, TimeP99, Waited, LoadBusy],
            Self::Even { .. } => &[Unevenness, UnevennessAfter],
        }
    }

    /// The same job, small: for a test of the harness.
    pub fn shrunk(mut self) -> Self {
        match &mut self {
            Self::Echo { tunnels, .. } | Self::Bulk { tunnels, .. } | Self::Idle { tunnels } => {
                *tunnels = 20.min(*tunnels);
            }
            Self::Requests { clients, .. } | Self::Storm { clients } => *clients = 20,
            Self::Paced { tunnels, per_second, .. } => (*tunnels, *per_second) = (20, 1000),
            Self::Handshakes { slots, .. } => *slots = 4,
            Self::Even { workers, tunnels } => (*workers, *tunnels) = (2, 20),
        }
        self
    }
}

/// Bytes as row names have them.
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..0x10_0000 => format!("{}K", bytes >> 10),
        _ => format!("{}M", bytes >> 20),
    }
}
