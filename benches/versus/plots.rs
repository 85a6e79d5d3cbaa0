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

/// A chart of figures as they are.
struct Absolutes {
    name: &'static str,
    title: &'static str,
    subtitle: &'static str,
    is_shown: fn(&Job) -> bool,
    /// In a unit of their own; what each is called.
    figures: &'static [(&'static str, Metric)],
}

/// The rows of the overview, as `--only` takes them.
const OVERVIEW: &[&str] = &[
    "echo-ws-64B",
    "echo-ws-16K-x100",
    "echo-wss-64B-x100",
    "rate-ws-64B-x1000",
    "rate-ws-16K",
    "bulk-ws-down+x50",
    "bulk-wss+256K-x50",
    "handshake-ws",
    "handshake-wss-ecdsa",
    "storm",
    "http",
    "idle",
];

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
    let absolutes = ABSOLUTES.iter().map(|absolutes| (absolutes.name, absolutes.chart(report)));
    let charts = ratios.chain(absolutes).chain([("overview", overview(report))]);
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
    let is_shown = |row: &Row| OVERVIEW.iter().any(|word| row.is_named(word));
    let groups = rows_with(report, |job| Some(job.headline()[0])).filter(|(_, row, _)| is_shown(row)).filter_map(
        |(index, row, metric)| {
            let results = report.results;
            let [subject, reference] = [results.peer(SUBJECT)?, results.peer(REFERENCE)?];
            let best = results.best(index, metric, &[])?;
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
    Chart { title, subtitle, groups, limit, reference: Some(1.0), show: Box::new(show_ratio) }
}

const ABSOLUTES: &[Absolutes] = &[
    Absolutes {
        name: "memory",
        title: "Memory of an idle tunnel",
        subtitle: "bytes; less is better",
        is_shown: |job| matches!(job, Job::Idle { .. }),
        figures: &[("process", Metric::UserMemory), ("kernel", Metric::KernelMemory)],
    },
    Absolutes {
        name: "workers",
        title: "Tunnels of the fullest worker over the mean",
        subtitle: "at first, and after the clients of one worker have gone and come anew; 1 is even",
        is_shown: |job| matches!(job, Job::Even { .. }),
        figures: &[("at first", Metric::Unevenness), ("anew", Metric::UnevennessAfter)],
    },
];

impl Absolutes {
    fn chart(&self, report: &Report) -> Chart {
        let mut groups = Vec::new();
        for &(kind, metric) in self.figures {
            for (index, row) in report.rows.iter().enumerate().filter(|(_, row)| (self.is_shown)(&row.job)) {
                let bars = subject_first(report).filter_map(|peer| {
                    let value = report.results.figure(index, peer, metric)?.median;
                    Some(Bar { series: report.results.peers[peer], value, note: String::new() })
                });
                groups.push(Group { label: format!("{}, {kind}", label(row)), bars: bars.collect() });
            }
        }
        groups.retain(|group| !group.bars.is_empty());
        let metric = self.figures[0].1;
        Chart {
            title: self.title.into(),
            subtitle: self.subtitle.into(),
            limit: greatest(&groups).max(1.0),
            groups,
            reference: None,
            show: Box::new(move |value| metric.show(value)),
        }
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
