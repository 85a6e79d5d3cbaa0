//! Which charts are drawn of the results.

use crate::{
    job::Job,
    metric::{Metric, show_ratio},
    peers::{REFERENCE, SUBJECT},
    report::Report,
    rows::Row,
    svg::{Bar, Chart, Group},
};

/// Ratios above it are cut.
const LONGEST_RATIO: f64 = 2.5;

/// A chart of ratios to nginx.
struct Ratios {
    name: &'static str,
    title: &'static str,
    metric: fn(&Job) -> Option<Metric>,
}

const RATIOS: &[Ratios] = &[
    Ratios {
        name: "messages",
        title: "CPU of the proxy for a message there and back",
        metric: |job| is_messages(job).then_some(Metric::CpuPerMessage),
    },
    Ratios {
        name: "latency",
        title: "99 of 100 messages are back within",
        metric: |job| is_messages(job).then_some(Metric::TimeP99),
    },
    Ratios {
        name: "bulk",
        title: "CPU of the proxy for a GiB",
        metric: |job| matches!(job, Job::Bulk { .. }).then_some(Metric::CpuPerGib),
    },
    Ratios {
        name: "arrivals",
        title: "CPU of the proxy for a new connection, or a plain request",
        metric: |job| match job {
            Job::Handshakes { .. } | Job::Storm { .. } => Some(Metric::CpuPerHandshake),
            Job::Requests { .. } => Some(Metric::CpuPerRequest),
            _ => None,
        },
    },
];

/// Every chart that has something to show, with its name.
pub fn all(report: &Report) -> Vec<(&'static str, String)> {
    let ratios = RATIOS.iter().map(|ratios| (ratios.name, ratios.chart(report)));
    let charts = ratios.chain([("memory", memory(report)), ("overview", overview(report))]);
    charts.filter(|(_, chart)| !chart.groups.is_empty()).map(|(name, chart)| (name, chart.svg())).collect()
}

fn is_messages(job: &Job) -> bool {
    matches!(job, Job::Echo { .. } | Job::Paced { .. })
}

impl Ratios {
    /// Each proxy's bar in each row.
    fn chart(&self, report: &Report) -> Chart {
        let groups = rows_with(report, self.metric).map(|(index, row, metric)| {
            let order = subject_first(report);
            let bars = order.filter_map(|peer| {
                let ratio = report.results.ratio(index, [peer, report.results.peer(REFERENCE)?], metric)?;
                Some(Bar { series: report.results.peers[peer], value: ratio.median, note: String::new() })
            });
            Group { label: label(row), bars: bars.collect() }
        });
        ratio_chart(self.title.into(), format!("relative to {REFERENCE}; less is better"), groups.collect())
    }
}

/// longsplice and the best of the others, in the figure that decides a row.
fn overview(report: &Report) -> Chart {
    let is_shown = |row: &Row| row.is_core && !matches!(row.job, Job::Even { .. });
    let groups = rows_with(report, |job| Some(job.headline()[0])).filter(|(_, row, _)| is_shown(row)).filter_map(
        |(index, row, metric)| {
            let results = report.results;
            let [subject, reference] = [results.peer(SUBJECT)?, results.peer(REFERENCE)?];
            let best = results.best(index, metric)?;
            let bar = |peer, series, note: &str| {
                let ratio = results.ratio(index, [peer, reference], metric)?;
                Some(Bar { series, value: ratio.median, note: note.into() })
            };
            let bars = vec![bar(subject, SUBJECT, "")?, bar(best, "best peer", results.peers[best])?];
            Some(Group { label: label(row), bars })
        },
    );
    let subtitle = format!("CPU, and memory of idle tunnels, relative to {REFERENCE}; less is better");
    ratio_chart(format!("{SUBJECT} and the best of its peers"), subtitle, groups.collect())
}

fn ratio_chart(title: String, subtitle: String, groups: Vec<Group>) -> Chart {
    let limit = greatest(&groups).clamp(1.0, LONGEST_RATIO);
    Chart { title, subtitle, groups, limit, reference: Some(1.0), show: show_ratio }
}

/// Bytes of an idle tunnel.
fn memory(report: &Report) -> Chart {
    let mut groups = Vec::new();
    for (kind, metric) in [("of the process", Metric::UserMemory), ("of the kernel", Metric::KernelMemory)] {
        let is_idle = |job: &Job| matches!(job, Job::Idle { .. });
        for (index, row) in report.rows.iter().enumerate().filter(|(_, row)| is_idle(&row.job)) {
            let bars = subject_first(report).filter_map(|peer| {
                let value = report.results.figure(index, peer, metric)?.median;
                Some(Bar { series: report.results.peers[peer], value, note: String::new() })
            });
            let scheme = if row.tls.is_some() { "wss" } else { "ws" };
            let bars: Vec<Bar> = bars.collect();
            if !bars.is_empty() {
                groups.push(Group { label: format!("{scheme}, {kind}"), bars });
            }
        }
    }
    Chart {
        title: "Memory of an idle tunnel".into(),
        subtitle: "bytes; less is better".into(),
        limit: greatest(&groups).max(1.0),
        groups,
        reference: None,
        show: |value| Metric::UserMemory.show(value),
    }
}

/// The rows that have such a figure.
fn rows_with<'a>(
    report: &'a Report,
    metric: impl Fn(&Job) -> Option<Metric> + 'a,
) -> impl Iterator<Item = (usize, &'a Row, Metric)> {
    let rows = report.rows.iter().enumerate();
    rows.filter_map(move |(index, row)| Some((index, row, metric(&row.job)?)))
        .filter(|(index, _, metric)| report.results.to_reference(*index, *metric).is_some())
}

fn subject_first(report: &Report) -> impl Iterator<Item = usize> {
    let subject = report.results.peer(SUBJECT);
    subject.into_iter().chain((0..report.results.peers.len()).filter(move |peer| Some(*peer) != subject))
}

fn greatest(groups: &[Group]) -> f64 {
    groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value).fold(0.0, f64::max)
}

fn label(row: &Row) -> String {
    let unit = if matches!(row.job, Job::Paced { .. }) { "/s" } else { "" };
    row.name.replace('-', " ").replace(" x", " × ") + unit
}
