//! `longsplice doctor`: what of this host will bite at so many tunnels, and how to mend it. It reads, and changes nothing.

mod file;
mod report;
#[cfg(test)]
pub(super) mod tests;

pub use self::report::WIDTH;

use std::path::Path;

use super::{
    files::Files,
    finding::{Finding, Mark},
    needs::{self, Needs},
    settings::{CHAPTERS, Seen},
};
use crate::config::Config;

/// Tunnels that are asked for where neither the command nor the file says a number.
const DEFAULT_TUNNELS: u64 = 10_000;

/// What is examined.
#[derive(Debug, Default)]
pub struct Patient<'a> {
    /// The host.
    pub files: Files,
    /// The file and its name, if there is one.
    pub config: Option<(&'a Path, &'a Config)>,
    /// `--connections`
    pub tunnels: Option<u64>,
    /// Cores this process may use: workers where there is no file.
    pub cpus: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Examination {
    /// The file's name.
    pub file: Option<String>,
    /// Linux' release.
    pub kernel: Option<String>,
    /// What the tunnels take.
    pub needs: Needs,
    /// Where the number of tunnels is from.
    pub number_from: &'static str,
    /// The process whose limits count, when it runs.
    pub pid: Option<u32>,
    /// Each setting in the order of the table, then what is of the file alone.
    pub findings: Vec<(String, Finding)>,
}

/// Examines a host.
pub fn examine(patient: &Patient<'_>) -> Examination {
    let config = patient.config.map(|(_, config)| config);
    let (tunnels, number_from) = match (patient.tunnels, config.and_then(needs::tunnels_of)) {
        (Some(tunnels), _) => (tunnels, "--connections"),
        (None, Some(tunnels)) => (tunnels, "the file's limits"),
        (None, None) => (DEFAULT_TUNNELS, "the default"),
    };
    let needs = match config {
        Some(config) => Needs::of_config(tunnels, config),
        None => Needs::of_tunnels(tunnels, patient.cpus),
    };
    let pid = config.and_then(|config| running(&patient.files, config.main.pid.as_deref()?));
    let process = pid.map_or("proc/self".to_owned(), |pid| format!("proc/{pid}"));
    let seen = Seen { files: &patient.files, process: &process, running: pid.is_some(), needs: &needs, config };
    let mut findings: Vec<_> = CHAPTERS
        .iter()
        .flat_map(|chapter| chapter.settings)
        .filter_map(|setting| Some((setting.key.to_owned(), (setting.judge)(&seen)?)))
        .collect();
    findings.extend(config.into_iter().flat_map(file::findings));
    let file = patient.config.map(|(name, _)| name.display().to_string());
    let kernel = patient.files.sysctl("kernel.osrelease");
    Examination { file, kernel, needs, number_from, pid, findings }
}

impl Examination {
    /// True when no sysctl is visible: whatever else was found tells nothing.
    pub fn is_blind(&self) -> bool {
        self.kernel.is_none()
    }

    /// True when something will bite.
    pub fn bites(&self) -> bool {
        self.mark() == Mark::Bad
    }

    /// The worst of all findings.
    fn mark(&self) -> Mark {
        self.findings.iter().map(|(_, finding)| finding.mark).max().unwrap_or(Mark::Ok)
    }
}

/// The process of a pid file, if it runs and is one of ours.
fn running(files: &Files, pid_file: &Path) -> Option<u32> {
    let path = pid_file.strip_prefix("/").ok()?.to_str()?;
    let pid = files.text(path)?.parse().ok()?;
    let name = files.text(&format!("proc/{pid}/comm"))?;
    (name == env!("CARGO_PKG_NAME")).then_some(pid)
}
