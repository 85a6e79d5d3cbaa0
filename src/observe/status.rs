//! What is told of the running program: one value, gathered once for an answer, and the texts made of it.
//!
//! As JSON it is an interface: names and units stay, and what comes is added. `serde` reads it too, for `longsplice top`.

mod prometheus;
mod stub;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    prometheus::{Exposition, metrics},
    stub::stub,
};

/// Everything. Times of day are Unix times in milliseconds; counts are from the process's start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The process's number.
    pub pid: u32,
    /// This machine's name.
    pub hostname: String,
    /// Now.
    pub now_ms: u64,
    /// When the process started.
    pub started_ms: u64,
    /// How long ago that was, seconds.
    pub uptime_s: u64,
    /// Serving, or on its way to its end.
    pub state: State,
    /// What the process has given up (`sandbox`), and what this host does not have; in words.
    pub sandbox: String,
    /// Whoever asked may close tunnels and drain backends here.
    pub admin: bool,
    /// The file.
    pub config: Generations,
    /// Clients' connections.
    pub connections: Connections,
    /// Requests answered, those that became a tunnel not included.
    pub requests: u64,
    /// Tunnels.
    pub tunnels: Tunnels,
    /// Upgrade requests by what became of them.
    pub handshakes: Handshakes,
    /// How long those took that became a tunnel: from their first byte to the 101.
    pub handshake_ms: Latency,
    /// Payload of tunnels, TLS left out.
    pub bytes: BothWays,
    /// WebSocket frames of tunnels.
    pub frames: BothWays,
    /// Tunnels that ended, by reason.
    pub closes: BTreeMap<String, u64>,
    /// Requests refused, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// TLS handshakes with clients.
    pub tls: Tls,
    /// What went wrong on our side.
    pub errors: Errors,
    /// Each worker that runs.
    pub workers: Vec<Worker>,
    /// Each server block.
    pub servers: Vec<Server>,
    /// Each group of backends.
    pub upstreams: Vec<Upstream>,
    /// Each zone of `limit_conn` and `limit_req`.
    pub zones: Vec<Zone>,
    /// The oldest tunnels.
    pub longest: Vec<Tunnel>,
    /// Those that moved the most bytes.
    pub busiest: Vec<Tunnel>,
    /// What is there, and what is used of it.
    pub limits: Limits,
    /// Log lines.
    pub log: Log,
    /// The process as the kernel sees it.
    pub process: Process,
}

/// What the process is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It accepts connections.
    #[default]
    Serving,
    /// It accepts none, and ends when the last tunnel has gone.
    Draining,
    /// It ends.
    Stopping,
}

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

/// Clients' connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connections {
    /// Accepted.
    pub accepted: u64,
    /// Open now, tunnels included.
    pub open: u64,
    /// Of these, no tunnels.
    pub sessions: u64,
    /// Sessions whose request head is being read, or their TLS handshake made.
    pub reading: u64,
    /// Sessions whose request is being answered.
    pub writing: u64,
    /// Sessions that wait for a request.
    pub waiting: u64,
}

/// Tunnels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tunnels {
    /// Now.
    pub open: u64,
    /// Ever.
    pub opened: u64,
    /// Ended.
    pub closed: u64,
}

/// Upgrade requests by what became of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Handshakes {
    /// A tunnel.
    pub upgraded: u64,
    /// The backend answered otherwise than with 101.
    pub declined: u64,
    /// A refusal by us: it breaks a rule, or comes from where it must not.
    pub refused: u64,
    /// No backend answered, or the client left.
    pub failed: u64,
    /// Nothing yet: under way now.
    pub pending: u64,
}

/// A distribution of times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Latency {
    /// The upper bound of the bucket that holds the median, milliseconds; none without any. The largest bound stands for more.
    pub p50: Option<f64>,
    /// The same of 90 of 100.
    pub p90: Option<f64>,
    /// The same of 99 of 100.
    pub p99: Option<f64>,
    /// Sum of all, milliseconds.
    pub sum: f64,
    /// How many.
    pub count: u64,
    /// How many by time, each in one bucket only.
    pub buckets: Vec<Bucket>,
}

/// A part of a distribution.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Its upper bound, milliseconds; none: no bound.
    pub le: Option<f64>,
    /// How many.
    pub count: u64,
}

/// A count for each direction.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BothWays {
    /// From clients to backends.
    pub from_client: u64,
    /// From backends to clients.
    pub from_upstream: u64,
}

/// TLS handshakes with clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// TLS 1.2.
    pub v1_2: u64,
    /// TLS 1.3.
    pub v1_3: u64,
    /// Of both, resumed sessions.
    pub resumed: u64,
    /// Those that failed.
    pub failed: u64,
}

/// What went wrong on our side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Errors {
    /// accept4(2) failed: no descriptor, no memory.
    pub accept: u64,
    /// Calls that failed because the host had no descriptor or memory.
    pub shortages: u64,
    /// Sessions that ended in a panic.
    pub panics: u64,
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
    /// See [`Status::bytes`].
    pub bytes_from_client: u64,
    /// See [`Status::bytes`].
    pub bytes_from_upstream: u64,
    /// See [`Status::frames`].
    pub frames_from_client: u64,
    /// See [`Status::frames`].
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

/// Log lines.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// Written.
    pub written: u64,
    /// Lost: the disk was full, or too slow.
    pub lost: u64,
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

impl Latency {
    /// With the quantiles that these buckets give.
    pub fn of(buckets: Vec<Bucket>, sum: f64) -> Self {
        let count: u64 = buckets.iter().map(|bucket| bucket.count).sum();
        let largest = buckets.iter().rev().find_map(|bucket| bucket.le);
        let quantile = |percent: u64| -> Option<f64> {
            let wanted = (count * percent).div_ceil(100);
            let mut seen = 0;
            let holds = |bucket: &&Bucket| {
                seen += bucket.count;
                seen >= wanted
            };
            buckets.iter().find(holds).filter(|_| count > 0).and_then(|bucket| bucket.le.or(largest))
        };
        let (p50, p90, p99) = (quantile(50), quantile(90), quantile(99));
        Self { p50, p90, p99, sum, count, buckets }
    }
}

/// The JSON of a status.
pub fn json(status: &Status) -> Vec<u8> {
    // Strings, numbers and lists: nothing of it can fail.
    serde_json::to_vec(status).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_what_is_missing_is_nothing() {
        let status = Status {
            state: State::Draining,
            closes: [("client_closed".to_owned(), 3)].into(),
            upstreams: vec![Upstream {
                name: "app".into(),
                servers: vec![UpstreamServer { state: UpstreamState::Failed, ..UpstreamServer::default() }],
            }],
            ..Status::default()
        };
        assert_eq!(serde_json::from_slice::<Status>(&json(&status)).unwrap(), status);
        let text = String::from_utf8(json(&status)).unwrap();
        assert!(text.contains(r#""state":"draining""#) && text.contains(r#""state":"failed""#), "{text}");
        assert_eq!(serde_json::from_str::<Status>("{\"a_later_field\":1}").unwrap(), Status::default());
    }

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let bucket = |le, count| Bucket { le, count };
        let latency = Latency::of(vec![bucket(Some(1.0), 98), bucket(Some(5.0), 1), bucket(None, 1)], 200.0);
        assert_eq!((latency.p50, latency.p90, latency.p99, latency.count), (Some(1.0), Some(1.0), Some(5.0), 100));
        let slow = Latency::of(vec![bucket(Some(1.0), 0), bucket(None, 1)], 9.0);
        assert_eq!(slow.p50, Some(1.0), "the largest bound there is");
        assert_eq!(Latency::of(vec![bucket(Some(1.0), 0)], 0.0).p50, None);
    }
}
