//! What longsplice is meant to reach, and whether it did.

use std::fmt::Write;

use crate::{
    metric::{Metric, show_ratio},
    peers::{HAPROXY_SPLICE, SUBJECT},
    report::{Report, line},
    results::Results,
};

/// What a figure is held against.
#[derive(Clone, Copy)]
enum Against {
    Nginx,
    BestPeer,
    /// HAProxy moves bulk through pipes, too, if it is told to: the best of the others.
    BestCopyingPeer,
    /// The bound itself, in the figure's own unit.
    Nothing,
}

/// A bound for one figure of some rows.
pub struct Goal {
    /// The rows, as `--only` takes them.
    rows: &'static str,
    metric: Metric,
    at_most: f64,
    against: Against,
}

const fn goal(rows: &'static str, metric: Metric, at_most: f64, against: Against) -> Goal {
    Goal { rows, metric, at_most, against }
}

/// All of them.
pub const GOALS: &[Goal] = &[
    goal("echo-ws-64B-x1", Metric::TimeP50, 1.0, Against::Nginx),
    goal("echo-ws-64B-x100", Metric::CpuPerMessage, 0.90, Against::Nginx),
    goal("echo-ws-64B-x1000", Metric::CpuPerMessage, 0.60, Against::Nginx),
    goal("echo-ws-64B-x5000", Metric::CpuPerMessage, 0.70, Against::Nginx),
    goal("rate-ws-64B-x1000", Metric::CpuPerMessage, 0.70, Against::Nginx),
    goal("echo-ws-16K-x100", Metric::CpuPerMessage, 0.80, Against::BestPeer),
    goal("bulk-ws+256K", Metric::CpuPerGib, 0.33, Against::BestPeer),
    goal("bulk-ws+256K", Metric::CpuPerGib, 0.33, Against::BestCopyingPeer),
    goal("bulk-ws+1M", Metric::CpuPerGib, 0.33, Against::BestPeer),
    goal("bulk-ws+1M", Metric::CpuPerGib, 0.33, Against::BestCopyingPeer),
    goal("bulk-ws+16K-x50", Metric::CpuPerGib, 0.60, Against::BestPeer),
    goal("bulk-ws+16K-x50", Metric::CpuPerGib, 0.60, Against::BestCopyingPeer),
    goal("echo-wss-64B-x100", Metric::CpuPerMessage, 0.85, Against::BestPeer),
    goal("bulk-wss", Metric::CpuPerGib, 0.70, Against::BestPeer),
    goal("handshake-ws", Metric::CpuPerHandshake, 0.80, Against::Nginx),
    goal("handshake-wss-ecdsa-full", Metric::CpuPerHandshake, 0.60, Against::Nginx),
    goal("handshake-wss-ecdsa-resumed", Metric::CpuPerHandshake, 0.55, Against::Nginx),
    goal("idle-ws", Metric::UserMemory, 300.0, Against::Nothing),
    goal("idle-wss", Metric::UserMemory, 4000.0, Against::Nothing),
    goal("echo", Metric::TimeP99, 1.0, Against::Nginx),
    goal("workers", Metric::Unevenness, 1.05, Against::Nothing),
    goal("workers", Metric::UnevennessAfter, 1.05, Against::Nothing),
];

/// A goal's figure in one row.
struct Reached {
    row: usize,
    median: f64,
    told: String,
}

/// The table of all goals. Of several rows the worst one counts, and is shown.
pub fn table(report: &Report, page: &mut String) {
    line(page, ["goal", "at most", "reached (least to greatest)", "in its worst row", "met"].map(String::from));
    line(page, ["---", "---:", "---:", "---", "---"].map(String::from));
    for goal in GOALS {
        let reached: Vec<Reached> = (0..report.rows.len()).filter_map(|row| goal.reached(report, row)).collect();
        let met = reached.iter().filter(|reached| reached.median <= goal.at_most).count();
        let verdict = match (met, reached.len()) {
            (_, 0) => "not measured".into(),
            (met, all) if met == all => "yes".into(),
            (0, _) => "**no**".into(),
            (met, all) => format!("**in {met} of {all} rows**"),
        };
        let worst = reached.iter().max_by(|a, b| a.median.total_cmp(&b.median));
        let (told, row) = worst.map_or(("-".into(), "-".into()), |worst| {
            (worst.told.clone(), format!("`{}`", report.rows[worst.row].name))
        });
        line(page, [goal.title(), goal.bound(), told, row, verdict]);
    }
}

impl Goal {
    fn title(&self) -> String {
        let mut title = format!("`{}`, {}", self.rows, self.metric.title());
        let _ = match self.against {
            Against::Nginx => write!(title, ", over nginx'"),
            Against::BestPeer => write!(title, ", over the best peer's"),
            Against::BestCopyingPeer => write!(title, ", over that of the best peer but {HAPROXY_SPLICE}"),
            Against::Nothing => Ok(()),
        };
        title
    }

    fn bound(&self) -> String {
        self.show(self.at_most)
    }

    fn show(&self, value: f64) -> String {
        match self.against {
            Against::Nothing => self.metric.show(value),
            Against::Nginx | Against::BestPeer | Against::BestCopyingPeer => show_ratio(value),
        }
    }

    /// None: the row is another goal's, or there is nothing to compare. A row that failed has not reached it.
    fn reached(&self, report: &Report, row: usize) -> Option<Reached> {
        if !report.rows[row].is_named(self.rows) {
            return None;
        }
        let results = report.results;
        if results.troubles(row, results.peer(SUBJECT)?).is_empty() {
            self.figure(results, row)
        } else {
            Some(Reached { row, median: f64::INFINITY, told: "failed (!)".into() })
        }
    }

    fn figure(&self, results: &Results, row: usize) -> Option<Reached> {
        let (spread, of) = match self.against {
            Against::Nginx => (results.to_reference(row, self.metric)?, ""),
            Against::BestPeer => results.to_best(row, self.metric, &[])?,
            Against::BestCopyingPeer => results.to_best(row, self.metric, &[HAPROXY_SPLICE])?,
            Against::Nothing => (results.figure(row, results.peer(SUBJECT)?, self.metric)?, ""),
        };
        let mut told = spread.show(|value| self.show(value));
        if !of.is_empty() {
            let _ = write!(told, " of {of}");
        }
        Some(Reached { row, median: spread.median, told })
    }
}
