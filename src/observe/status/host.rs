//! What the host gives, and how much of it is used.

use serde::{Deserialize, Serialize};

/// What is there, and what is used of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// File descriptors.
    pub descriptors: Used,
    /// Local ports towards the backend address that has the most connections.
    pub ports: Ports,
    /// `worker_connections` of all workers; none: the descriptors decide.
    pub worker_connections: Option<Used>,
}

/// How much of something is used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Used {
    /// In use.
    pub used: u64,
    /// There are.
    pub max: u64,
}

/// Local ports towards backends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ports {
    /// Connections between the two addresses that have the most.
    pub used: u64,
    /// Local ports there are for any two (`net.ipv4.ip_local_port_range` less `net.ipv4.ip_local_reserved_ports`).
    pub max: u64,
    /// The backend's address of the two; none without connections.
    pub busiest: Option<String>,
    /// Ours; none: the kernel takes one.
    pub source: Option<String>,
    /// Every two, those with the most connections first.
    pub pairs: Vec<PortPair>,
}

/// Local ports between one address of ours and one of a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortPair {
    /// An address of `proxy_bind`; none: the kernel takes one.
    pub source: Option<String>,
    /// The backend's.
    pub address: String,
    /// Connections open.
    pub used: u64,
    /// Local ports there are for them.
    pub max: u64,
}

/// The process as the kernel sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// CPU time of all threads, seconds.
    pub cpu_s: f64,
    /// Memory in RAM, bytes.
    pub resident_bytes: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
}
