//! What stands on the screen: the same figures as on the status page, as lines of text.

mod tables;

use std::cmp::Reverse;

use super::{
    history::{History, Sample},
    lines::{Line, Style, nearness, sparkline},
    units::{count, millis, percent, rate, span, speed},
};
use crate::{
    host::finding::grouped,
    observe::status::{State, Used, Zone},
};

pub(super) use self::tables::Kind;

/// Where the figures of the summary begin, and where its sparklines do.
const FIGURES: usize = 12;
const SPARKLINES: usize = 24;
/// Of what a reload failed by: what is wrong, and where. The rest is in the log.
const ERROR_LINES: usize = 2;
/// Of what there may be many of: more than the widest terminal has room for.
const MOST_IN_A_LINE: usize = 16;
/// What stands behind a sparkline.
const BESIDE: usize = 36;
const NARROWEST_SPARKLINE: usize = 8;
const WIDEST_SPARKLINE: usize = 80;

/// Whose figures, and whether all is well.
pub(super) fn heading(history: &History) -> Vec<Line> {
    let now = &history.now;
    let (state, style) = match now.state {
        State::Serving => ("serving", Style::Good),
        State::Draining => ("draining", Style::Warn),
        State::Stopping => ("stopping", Style::Bad),
    };
    let first = Line::new(Style::Strong, format!("longsplice {}", now.version))
        .and(Style::Plain, format!("  {}  pid {}  up {}", now.hostname, now.pid, span(now.uptime_s as f64)))
        .and(Style::Plain, format!("  configuration {}  ", now.config.generation))
        .and(style, state);
    let mut lines = vec![first];
    if let Some(error) = &now.config.last_error {
        let mut said = error.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.push(Line::new(Style::Bad, format!("The last reload failed: {}", said.next().unwrap_or_default())));
        lines.extend(said.take(ERROR_LINES - 1).map(|line| Line::new(Style::Bad, format!("  {line}"))));
    }
    lines
}

/// Whether the summary has sparklines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plots {
    Yes,
    No,
}

/// The figures that are plots on the page.
pub(super) fn summary(history: &History, width: usize, plots: Plots) -> Vec<Line> {
    let last = history.last();
    let now = &history.now;
    let room = match plots {
        Plots::Yes => width.saturating_sub(SPARKLINES + BESIDE).min(WIDEST_SPARKLINE),
        Plots::No => 0,
    };
    let mut lines = vec![
        plotted("Tunnels", grouped(now.tunnels.open), history, |sample| sample.tunnels, room)
            .and(Style::Soft, format!("{} opened, {} closed", rate(last.opened), rate(last.closed))),
        plotted("Messages", rate(last.frames()), history, Sample::frames, room)
            .and(Style::Soft, format!("{} in, {} out", rate(last.frames_in), rate(last.frames_out))),
        plotted("Traffic", speed(last.bytes()), history, Sample::bytes, room)
            .and(Style::Soft, format!("{} in, {} out", speed(last.bytes_in), speed(last.bytes_out))),
        plotted("Handshakes", rate(last.handshakes()), history, Sample::handshakes, room)
            .and(Style::Soft, format!("{} pending, ", grouped(now.handshakes.pending)))
            .and(Style::Soft, format!("{} refused, {} failed", rate(last.refused), rate(last.failed))),
    ];
    lines.push(times(history));
    lines.push(workers(history));
    lines.push(limits(history));
    lines.push(ports(history));
    lines.extend(zones(history));
    lines.into_iter().map(|line| line.cut(width)).collect()
}

fn labelled(label: &str) -> Line {
    Line::new(Style::Strong, label).until(FIGURES)
}

/// A figure and, in `room` columns, how it came to be.
fn plotted(label: &str, figure: String, history: &History, pick: fn(&Sample) -> Option<f64>, room: usize) -> Line {
    let line = labelled(label).and(Style::Plain, figure).until(SPARKLINES);
    if room < NARROWEST_SPARKLINE {
        return line;
    }
    line.and(Style::Good, sparkline(history.all(pick), room)).and(Style::Plain, "  ")
}

fn times(history: &History) -> Line {
    let (latency, tls) = (&history.now.handshake_ms, &history.now.tls);
    labelled("Handshake")
        .and(Style::Plain, format!("p50 {}, p90 {}, ", millis(latency.p50), millis(latency.p90)))
        .and(Style::Plain, format!("p99 {}", millis(latency.p99)))
        .and(Style::Soft, format!("  TLS 1.3 {}, 1.2 {}, ", count(tls.v1_3 as f64), count(tls.v1_2 as f64)))
        .and(Style::Soft, format!("resumed {}, failed {}", count(tls.resumed as f64), count(tls.failed as f64)))
}

/// How even the workers are, and how busy.
fn workers(history: &History) -> Line {
    let workers = &history.now.workers;
    let busy: Vec<f64> = workers.iter().map(|worker| worker.busy).collect();
    let tunnels: Vec<f64> = workers.iter().map(|worker| worker.tunnels as f64).collect();
    let (mean, highest) = mean_and_highest(&tunnels);
    let spread = if mean > 0.0 { format!("{:.2}", highest / mean) } else { "-".to_owned() };
    let (mean_busy, highest_busy) = mean_and_highest(&busy);
    labelled("Workers")
        .and(Style::Plain, format!("{}, tunnels max/mean {spread}, busy ", workers.len()))
        .and(nearness(highest_busy), format!("{} mean, {} max ", percent(mean_busy), percent(highest_busy)))
}

fn limits(history: &History) -> Line {
    let Used { used, max } = history.now.limits.descriptors;
    let line = labelled("Limits").and(Style::Plain, "descriptors ").and(near(used, max), of(used, max));
    match history.now.log.lost {
        0 => line,
        lost => line.and(Style::Bad, format!(", {} log lines lost", grouped(lost))),
    }
}

/// Local ports by backend address, those of which the most are used first: as many as the line has room for.
fn ports(history: &History) -> Line {
    let ports = &history.now.limits.ports;
    let line = labelled("Ports");
    if ports.pairs.is_empty() {
        return line.and(near(ports.used, ports.max), of(ports.used, ports.max));
    }
    ports.pairs.iter().take(MOST_IN_A_LINE).fold(line, |line, pair| {
        let from = pair.source.as_deref().map(|source| format!(" from {source}")).unwrap_or_default();
        line.and(near(pair.used, pair.max), of(pair.used, pair.max))
            .and(Style::Soft, format!(" to {}{from}  ", pair.address))
    })
}

/// What `limit_conn` and `limit_req` do, where the file has any: the zones that kept out or held up the most first.
fn zones(history: &History) -> Option<Line> {
    let mut zones: Vec<&Zone> = history.now.zones.iter().collect();
    zones.sort_by_key(|zone| Reverse(zone.rejected.saturating_add(zone.delayed)));
    let line = zones.iter().take(MOST_IN_A_LINE).fold(labelled("Zones"), |line, zone| {
        line.and(Style::Plain, format!("{} ", zone.name))
            .and(near(zone.keys, zone.keys_max), of(zone.keys, zone.keys_max))
            .and(Style::Plain, " keys")
            .and(Style::Soft, format!(", {} rejected, {} delayed  ", grouped(zone.rejected), grouped(zone.delayed)))
    });
    (!zones.is_empty()).then_some(line)
}

/// How near a limit is.
fn near(used: u64, max: u64) -> Style {
    nearness(if max > 0 { used as f64 / max as f64 } else { 0.0 })
}

fn of(used: u64, max: u64) -> String {
    format!("{}/{}", grouped(used), grouped(max))
}

fn mean_and_highest(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    (mean, values.iter().copied().fold(0.0, f64::max))
}

/// Everything once, for a pipe or a file: without sparklines, since a single snapshot has no past.
pub(super) fn snapshot(history: &History, width: usize) -> Vec<Line> {
    let mut lines = heading(history);
    lines.extend(summary(history, width, Plots::No));
    for kind in Kind::ALL {
        let table = kind.table(history);
        if !table.rows.is_empty() {
            lines.push(Line::default());
            lines.push(Line::new(Style::Strong, kind.title()));
            lines.extend(table.lines(width, None));
        }
    }
    lines
}

#[cfg(test)]
pub(in crate::top) mod tests;
