//! What is told of the running program: one value, gathered once for an answer, and the texts made of it.
//!
//! As JSON it is an interface: names and units stay, and what comes is added. `serde` reads it too, for `longsplice top`.

mod counts;
mod host;
mod prometheus;
mod rows;
mod stub;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    counts::{BothWays, Bucket, Connections, Errors, Handshakes, Latency, Log, Tls, Tunnels},
    host::{Limits, PortPair, Ports, Process, Used},
    prometheus::{Exposition, metrics},
    rows::{Generation, Generations, Server, Tunnel, Upstream, UpstreamServer, UpstreamState, Worker, Zone},
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
}
