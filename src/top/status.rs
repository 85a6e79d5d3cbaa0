//! The status JSON as `observe::status` writes it. What an older server does not say is zero or empty here: its figures are
//! still worth showing.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub version: String,
    pub pid: u32,
    pub hostname: String,
    pub now_ms: f64,
    pub started_ms: f64,
    pub uptime_s: f64,
    pub state: String,
    pub config: Configuration,
    pub connections: Connections,
    pub tunnels: Tunnels,
    pub handshakes: Handshakes,
    pub handshake_ms: Latency,
    pub bytes: BothWays,
    pub frames: BothWays,
    pub closes: BTreeMap<String, u64>,
    pub refusals: BTreeMap<String, u64>,
    pub tls: Tls,
    pub workers: Vec<Worker>,
    pub servers: Vec<Server>,
    pub upstreams: Vec<Upstream>,
    pub longest: Vec<Tunnel>,
    pub busiest: Vec<Tunnel>,
    pub limits: Limits,
    pub log: Log,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Configuration {
    pub generation: u64,
    pub reloads: u64,
    pub reloads_failed: u64,
    pub last_error: Option<String>,
    pub alive: Vec<Generation>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Generation {
    pub generation: u64,
    pub tunnels: u64,
    pub bytes: u64,
    pub loaded_ms: f64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Connections {
    pub accepted: u64,
    pub open: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tunnels {
    pub open: u64,
    pub opened: u64,
    pub closed: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Handshakes {
    pub upgraded: u64,
    pub declined: u64,
    pub refused: u64,
    pub failed: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Latency {
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
}

/// Counters of both directions.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct BothWays {
    pub from_client: u64,
    pub from_upstream: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tls {
    pub v1_2: u64,
    pub v1_3: u64,
    pub resumed: u64,
    pub failed: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Worker {
    pub id: u64,
    pub cpu: Option<u64>,
    pub connections: u64,
    pub tunnels: u64,
    pub bytes_from_client: u64,
    pub bytes_from_upstream: u64,
    pub frames_from_client: u64,
    pub frames_from_upstream: u64,
    /// Part of its time, 0 to 1.
    pub busy: Option<f64>,
    pub handed_over: u64,
    pub taken_over: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Server {
    pub name: String,
    pub place: String,
    pub tunnels_open: u64,
    pub tunnels: u64,
    pub requests: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Upstream {
    pub name: String,
    pub servers: Vec<UpstreamServer>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct UpstreamServer {
    pub name: String,
    pub address: String,
    pub state: String,
    pub backup: bool,
    pub weight: u64,
    pub tunnels_open: u64,
    pub tunnels: u64,
    pub requests: u64,
    pub fails: u64,
    pub connect_ms: Option<f64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tunnel {
    pub id: u64,
    pub worker: u64,
    pub client: String,
    pub server: String,
    pub location: String,
    pub upstream: String,
    pub age_s: f64,
    pub idle_s: f64,
    pub bytes_from_client: u64,
    pub bytes_from_upstream: u64,
    pub frames_from_client: u64,
    pub frames_from_upstream: u64,
    pub generation: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Limits {
    pub descriptors: Used,
    pub ports: Ports,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Used {
    pub used: u64,
    pub max: u64,
}

/// Local ports towards the backend that most connections go to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ports {
    pub used: u64,
    pub max: u64,
    pub busiest: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    pub lost: u64,
}

impl Tunnel {
    pub fn bytes(&self) -> u64 {
        self.bytes_from_client.saturating_add(self.bytes_from_upstream)
    }
}

impl Worker {
    pub fn bytes(&self) -> u64 {
        self.bytes_from_client.saturating_add(self.bytes_from_upstream)
    }

    pub fn frames(&self) -> u64 {
        self.frames_from_client.saturating_add(self.frames_from_upstream)
    }
}

impl Status {
    /// Reads the JSON.
    ///
    /// # Errors
    /// What stands at the place is something else.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let status: Self = serde_json::from_slice(json).map_err(|error| format!("no status JSON: {error}"))?;
        if status.version.is_empty() || status.pid == 0 {
            return Err("JSON, but not of a status location".to_owned());
        }
        Ok(status)
    }
}
