//! The proxies under comparison: how each is found, told what to do, and started.

mod caddy;
mod envoy;
mod haproxy;
mod nginx;
mod sozu;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{certificate::Certificate, host, job::Job, load::BACKENDS, process, rows::Row};

/// Where a proxy listens and what it serves.
pub struct Site<'a> {
    /// Its own directory.
    pub dir: &'a Path,
    /// Loopback port for ws.
    pub plain: u16,
    /// Loopback port for wss.
    pub tls: u16,
    /// The backend's port, on each of its addresses.
    pub backend: u16,
    pub certificate: &'a Certificate,
    /// The core to run on.
    pub core: usize,
    /// Threads or processes that share the connections.
    pub workers: usize,
    /// Descriptors a process may have.
    pub descriptors: u64,
}

impl Site<'_> {
    /// The backend's addresses.
    pub fn backends(&self) -> impl Iterator<Item = String> {
        (1..=BACKENDS).map(|last| format!("127.0.0.{last}:{}", self.backend))
    }
}

/// A proxy in one of its settings.
pub struct Peer {
    pub name: &'static str,
    /// How it is set up, for the report.
    pub about: &'static str,
    program: fn() -> Option<PathBuf>,
    version_argument: &'static str,
    /// Rows in which it has something to show.
    suits: fn(&Row) -> bool,
    /// Name of its file.
    file: &'static str,
    config: fn(&Site) -> String,
    arguments: fn(&Path, &Site) -> Vec<String>,
    environment: &'static [(&'static str, &'static str)],
}

/// The subject of the whole comparison.
pub const SUBJECT: &str = "longsplice";
/// The peer everyone knows.
pub const REFERENCE: &str = "nginx";
/// The only peer that moves bulk as longsplice does.
pub const HAPROXY_SPLICE: &str = "haproxy-splice";

/// Every row.
const EVERYTHING: fn(&Row) -> bool = |_| true;

/// All, in the order of the tables.
pub const PEERS: &[Peer] = &[
    Peer {
        name: REFERENCE,
        about: "default buffers (proxy_buffer_size 4k)",
        program: || host::find_program("nginx"),
        version_argument: "-v",
        suits: EVERYTHING,
        file: "nginx.conf",
        config: |site| nginx::config(site, ""),
        arguments: nginx::arguments,
        environment: &[],
    },
    Peer {
        name: "nginx-64k",
        about: "proxy_buffer_size 64k",
        program: || host::find_program("nginx"),
        version_argument: "-v",
        suits: |row| !matches!(row.job, Job::Even { .. }),
        file: "nginx.conf",
        config: |site| nginx::config(site, nginx::BUFFERS_64K),
        arguments: nginx::arguments,
        environment: &[],
    },
    Peer {
        name: "haproxy",
        about: "default buffers (tune.bufsize 16384)",
        program: || host::find_program("haproxy"),
        version_argument: "-v",
        suits: EVERYTHING,
        file: "haproxy.cfg",
        config: |site| haproxy::config(site, ["", ""]),
        arguments: haproxy::arguments,
        environment: &[],
    },
    Peer {
        name: HAPROXY_SPLICE,
        about: "option splice-request and splice-response, 1 MiB pipes: for rows in which bytes flow and none is TLS",
        program: || host::find_program("haproxy"),
        version_argument: "-v",
        suits: |row| row.tls.is_none() && matches!(row.job, Job::Bulk { .. }),
        file: "haproxy.cfg",
        config: |site| haproxy::config(site, haproxy::SPLICE),
        arguments: haproxy::arguments,
        environment: &[],
    },
    Peer {
        name: "caddy",
        about: "GOMAXPROCS=1, HTTP/1.1",
        program: || host::find_program("caddy"),
        version_argument: "version",
        // Go hands connections to whichever thread is free: there is nothing to be uneven.
        suits: |row| !matches!(row.job, Job::Even { .. }),
        file: "Caddyfile",
        config: caddy::config,
        arguments: caddy::arguments,
        environment: caddy::ENVIRONMENT,
    },
    Peer {
        name: "envoy",
        about: "--concurrency 1, limits raised",
        program: || host::find_program("envoy"),
        version_argument: "--version",
        suits: EVERYTHING,
        file: "envoy.yaml",
        config: envoy::config,
        arguments: envoy::arguments,
        environment: &[],
    },
    Peer {
        name: "sozu",
        about: "one worker: the other one that uses rustls, so for TLS handshakes",
        program: || host::find_program("sozu"),
        version_argument: "--version",
        suits: |row| row.tls.is_some() && matches!(row.job, Job::Handshakes { .. }),
        file: "sozu.toml",
        config: sozu::config,
        arguments: sozu::arguments,
        environment: &[],
    },
    Peer {
        name: SUBJECT,
        about: "nginx's own file of the first column",
        program: longsplice,
        version_argument: "-v",
        suits: EVERYTHING,
        file: "nginx.conf",
        config: |site| nginx::config(site, ""),
        arguments: nginx::arguments,
        environment: &[],
    },
];

/// A peer that is there.
pub struct Installed {
    pub peer: &'static Peer,
    pub program: PathBuf,
    pub version: String,
}

impl Peer {
    /// None: it is not installed.
    pub fn installed(&'static self) -> Option<Installed> {
        let program = (self.program)()?;
        let version = process::version(&program, self.version_argument).ok()?;
        Some(Installed { peer: self, program, version })
    }
}

impl Installed {
    /// Whether it takes part in a row.
    pub fn suits(&self, row: &Row) -> bool {
        (self.peer.suits)(row)
    }

    /// Starts it on a site and waits until it listens.
    pub fn start(&self, site: &Site) -> Result<process::Process, String> {
        let file = site.dir.join(self.peer.file);
        fs::write(&file, (self.peer.config)(site)).map_err(|error| format!("{}: {error}", file.display()))?;
        let arguments = (self.peer.arguments)(&file, site);
        process::Process::start(&self.program, &arguments, self.peer.environment, site)
    }
}

/// `LONGSPLICE_BIN`, or the binary cargo has just built.
fn longsplice() -> Option<PathBuf> {
    let program =
        std::env::var_os("LONGSPLICE_BIN").map_or_else(|| env!("CARGO_BIN_EXE_longsplice").into(), PathBuf::from);
    program.is_file().then_some(program)
}
