//! What the logs say at the end: every tunnel has ended for a reason that what was done with it explains.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use super::{clients::is_mortal, ends::Plan};

/// A line of this for each request and tunnel.
pub const FORMAT: &str = "$request_uri $status $close_reason";

/// What is said of lines that a full disk has cost.
const LOST: &str = "were lost: write() failed (27: File too large)";
/// What is said while there are no descriptors.
const SHORTAGE: &str = "(24: Too many open files)";

/// The logs of all processes that served one after the other.
pub struct Logs {
    errors: String,
    /// Why the tunnel of a target has ended.
    reasons: HashMap<String, String>,
}

impl Logs {
    pub fn read(errors: &Path, acts: &Path) -> Self {
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("a log")).into_owned();
        let tunnel = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
            [target, "101", reason] => Some((target.to_owned(), reason.to_owned())),
            _ => None,
        };
        Self { errors: read(errors), reasons: read(acts).lines().filter_map(tunnel).collect() }
    }

    /// Lines that are not to be there, of errors and of tunnels.
    pub fn complaints(&self) -> Vec<String> {
        let is_bad = |line: &&str| ["[alert]", "[emerg]", "[crit]"].iter().any(|level| line.contains(level));
        let is_explained = |line: &&str| line.contains(LOST) || line.contains(SHORTAGE);
        let errors = self.errors.lines().filter(is_bad).filter(|line| !is_explained(line)).map(str::to_owned);
        let tunnels = self.reasons.iter().filter(|(target, reason)| !explains(target, reason));
        errors.chain(tunnels.map(|(target, reason)| format!("{reason} of {target}"))).collect()
    }

    /// Lines of tunnels and requests that a full disk has cost, as the log of errors says.
    fn lost(&self) -> usize {
        let acts = self.errors.lines().filter(|line| line.contains(LOST) && line.contains("acts.log"));
        acts.filter_map(|line| {
            line.split("[alert] ").nth(1)?.split_once(": ")?.1.split(' ').next()?.parse::<usize>().ok()
        })
        .sum()
    }

    /// Those of these targets whose tunnels nobody asked to end. What has no line is excused as far as lines were lost.
    pub fn unexplained(&self, cut_short: &[String]) -> Vec<String> {
        let reason = |target: &str| self.reasons.get(target).map(String::as_str);
        let lineless = cut_short.iter().filter(|target| reason(target).is_none()).count();
        let is_explained = |target: &&String| match reason(target) {
            Some(reason) => reason == "drain",
            None => lineless <= self.lost(),
        };
        cut_short
            .iter()
            .filter(|target| !is_explained(target))
            .map(|target| format!("{:?} of {target}", reason(target)))
            .collect()
    }

    /// How many tunnels, and why they ended.
    pub fn summary(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        self.reasons.values().for_each(|reason| *counts.entry(reason).or_default() += 1);
        let reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        format!("{} tunnels: {}; {} lines lost to a full disk", self.reasons.len(), reasons.join(", "), self.lost())
    }
}

/// What was to happen in a tunnel explains that it ended like this.
fn explains(target: &str, reason: &str) -> bool {
    let Some(plan) = Plan::of(target) else { return false };
    // Whoever misbehaves.
    let is_odd = plan.client_cut == Some(0);
    match reason {
        "client_closed" | "upstream_closed" | "drain" => true,
        "client_reset" => plan.client_cut.is_some(),
        "upstream_reset" => plan.backend_cut.is_some() || is_mortal(target) || is_odd,
        "upstream_truncated" => is_mortal(target),
        "protocol_error" | "client_truncated" | "tls_error" => is_odd,
        _ => false,
    }
}
