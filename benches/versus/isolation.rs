//! A network namespace of its own for each run.
//!
//! Connections that end leave TIME_WAIT sockets for a minute, and the kernel's search for a free local port walks past them:
//! without this a run makes the next one dearer.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use nix::sched::{CloneFlags, unshare};

use crate::host;

/// What a namespace may not change: settings of the kernel that are each namespace's own and shape the figures.
const SETTINGS: [&str; 9] = [
    "ipv4/tcp_rmem",
    "ipv4/tcp_wmem",
    "ipv4/tcp_congestion_control",
    "ipv4/ip_local_port_range",
    "ipv4/tcp_max_tw_buckets",
    "ipv4/tcp_tw_reuse",
    "ipv4/tcp_max_syn_backlog",
    "ipv4/tcp_notsent_lowat",
    "core/somaxconn",
];

/// How runs are kept apart.
pub struct Isolation {
    /// The host's [`SETTINGS`].
    settings: Vec<(&'static str, String)>,
    /// Why there is none.
    refused: Option<String>,
}

impl Isolation {
    /// Tries it once.
    pub fn prepare() -> Self {
        let settings = SETTINGS.iter().filter_map(|name| Some((*name, read(name)?))).collect();
        let mut isolation = Self { settings, refused: None };
        isolation.refused = isolation.run(|| Ok(())).err();
        isolation
    }

    /// Runs something on a thread in a namespace of its own, or, where that cannot be, on a thread.
    pub fn run<T: Send>(&self, run: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
        let isolated = || if self.refused.is_some() { run() } else { self.enter().and_then(|()| run()) };
        thread::scope(|scope| scope.spawn(isolated).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A namespace, its loopback up and its settings the host's. It is gone when the thread and what it started are.
    fn enter(&self) -> Result<(), String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("unshare: {error}"))?;
        let ip = host::find_program("ip").ok_or("no program `ip`")?;
        let up = Command::new(ip).args(["link", "set", "lo", "up"]).stdin(Stdio::null()).status();
        if !up.map_err(|error| error.to_string())?.success() {
            return Err("loopback did not come up".into());
        }
        for (name, value) in &self.settings {
            if read(name).as_ref() != Some(value) {
                fs::write(path(name), value).map_err(|error| format!("{name} = {value}: {error}"))?;
            }
        }
        Ok(())
    }

    /// For the report.
    pub fn facts(&self) -> Vec<(String, String)> {
        let how = match &self.refused {
            None => "each run in a network namespace of its own".into(),
            Some(why) => {
                format!("none ({why}): runs leave their TIME_WAIT sockets to the next ones; root has it better")
            }
        };
        let settings = self.settings.iter().map(|(name, value)| (name.rsplit('/').next().unwrap_or(name), value));
        let told: Vec<_> = settings.map(|(name, value)| format!("{name} {value}")).collect();
        [("isolation".into(), how), ("net settings of a run".into(), told.join("; "))].into()
    }
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

fn read(name: &str) -> Option<String> {
    Some(fs::read_to_string(path(name)).ok()?.trim().replace('\t', " "))
}
