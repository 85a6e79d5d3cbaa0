//! What there is one of for each worker, backend, tunnel ...

use serde::{Deserialize, Serialize};

/// The configurations in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generations {
    /// Number of the present one, from 1.
    pub generation: u64,
    /// When it was loaded.
    pub loaded_ms: u64,
    /// Reloads that took.
    pub reloads: u64,
    /// Reloads whose file was refused; the one before went on.
    pub reloads_failed: u64,
    /// Why the last of these was.
    pub last_error: Option<String>,
    /// Those that something is still served by, the present one last.
    pub alive: Vec<Generation>,
}

/// A configuration in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generation {
    /// Its number.
    pub generation: u64,
    /// Tunnels that were opened under it.
    pub tunnels: u64,
    /// Size of its text, bytes.
    pub bytes: u64,
    /// When it was loaded.
    pub loaded_ms: u64,
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// 0, 1, ...
    pub id: usize,
    /// The core it is pinned to; none: not to one.
    pub cpu: Option<usize>,
    /// Connections it has, tunnels included.
    pub connections: u64,
    /// Tunnels it has.
    pub tunnels: u64,
    /// Tunnels it ever opened.
    pub opened: u64,
    /// Connections it accepted.
    pub accepted: u64,
    /// Requests it answered.
    pub requests: u64,
    /// See [`Status::bytes`](super::Status::bytes).
    pub bytes_from_client: u64,
    /// See [`Status::bytes`](super::Status::bytes).
    pub bytes_from_upstream: u64,
    /// See [`Status::frames`](super::Status::frames).
    pub frames_from_client: u64,
    /// See [`Status::frames`](super::Status::frames).
    pub frames_from_upstream: u64,
    /// Pipes of bulk transfers, those in use and those kept for the next.
    pub pipes: u64,
    /// Of these, those in use.
    pub pipes_in_use: u64,
    /// Bytes of memory that hold what readers of its tunnels have not taken, pipes and socket buffers left out.
    pub held_bytes: u64,
    /// Deadlines on its wheel.
    pub timers: u64,
    /// Entries of its table of tunnels: as many as `tunnels`, which is reckoned from what came and went.
    pub tunnel_slots: u64,
    /// Upgrade requests under way.
    pub handshakes_pending: u64,
    /// Sockets and the like that its tasks wait for, those of tunnels not counted.
    pub sockets: u64,
    /// Connections to backends that wait for another request.
    pub upstream_idle: u64,
    /// Its connections as the other workers count them, those on their way to it included.
    pub load: u64,
    /// Time it ran, a part of all time, 0 to 1: since the last answer that is at least a second old.
    pub busy: f64,
    /// CPU time, seconds.
    pub cpu_s: f64,
    /// Connections it accepted and handed to another.
    pub handed_over: u64,
    /// Connections another accepted and handed to it.
    pub taken_over: u64,
}

/// A server block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// Its first name; its first address where it has none. Blocks of one name are counted together.
    pub name: String,
    /// `file:line`.
    pub place: String,
    /// Tunnels open.
    pub tunnels_open: u64,
    /// Tunnels ever opened.
    pub tunnels: u64,
    /// Requests answered, those that became a tunnel not included.
    pub requests: u64,
}

/// A group of backends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Each address of each of its servers.
    pub servers: Vec<UpstreamServer>,
}

/// One address of a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpstreamServer {
    /// As the file names it.
    pub name: String,
    /// What that means.
    pub address: String,
    /// May it be asked?
    pub state: UpstreamState,
    /// `backup`
    pub backup: bool,
    /// `weight=`
    pub weight: u64,
    /// Requests and tunnels that are at it.
    pub connections: u64,
    /// `max_conns=`; 0: no limit.
    pub max_conns: u64,
    /// Tunnels open.
    pub tunnels_open: u64,
    /// Tunnels ever opened.
    pub tunnels: u64,
    /// Requests it was asked, those that became a tunnel included.
    pub requests: u64,
    /// Requests it failed (`max_fails` counts these).
    pub fails: u64,
    /// Of these, connections that came to nothing.
    pub connect_errors: u64,
    /// Time to connect, TLS included: the moving average, milliseconds; none while none was made.
    pub connect_ms: Option<f64>,
    /// Connections made.
    pub connects: u64,
    /// Time all of these took, seconds.
    pub connect_s: f64,
}

/// May a backend be asked?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamState {
    /// Yes.
    #[default]
    Up,
    /// No: the file says `down`.
    Down,
    /// No: it is being drained.
    Drain,
    /// No: it failed `max_fails` times, and its `fail_timeout` is not over.
    Failed,
}

/// A zone of `limit_conn` or `limit_req`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Keys it holds.
    pub keys: u64,
    /// Keys it can hold.
    pub keys_max: u64,
    /// Of `limit_conn`: requests and tunnels that have a place in it.
    pub connections: Option<u64>,
    /// Requests let through at once; another zone may have refused them.
    pub passed: u64,
    /// Requests refused.
    pub rejected: u64,
    /// Requests that had to wait.
    pub delayed: u64,
    /// Requests that would have been refused.
    pub rejected_dry_run: u64,
    /// Requests that would have had to wait.
    pub delayed_dry_run: u64,
}

/// A tunnel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tunnel {
    /// `$connection`
    pub id: u64,
    /// Its worker.
    pub worker: usize,
    /// The client's address.
    pub client: String,
    /// Name of its server block.
    pub server: String,
    /// Its location, as written.
    pub location: String,
    /// The backend's address.
    pub upstream: String,
    /// Since its 101, seconds.
    pub age_s: f64,
    /// Since its last byte, seconds.
    pub idle_s: f64,
    /// Bytes from the client.
    pub bytes_from_client: u64,
    /// Bytes from the backend.
    pub bytes_from_upstream: u64,
    /// Frames from the client.
    pub frames_from_client: u64,
    /// Frames from the backend.
    pub frames_from_upstream: u64,
    /// The client speaks TLS.
    pub tls: bool,
    /// The configuration it was opened under.
    pub generation: u64,
}
