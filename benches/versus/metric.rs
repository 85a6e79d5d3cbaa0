//! What is measured, and the figures made of several rounds.

/// A figure of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    CpuPerMessage,
    MessagesPerSecond,
    TimeP50,
    TimeP99,
    TimeP999,
    CpuPerGib,
    GibPerSecond,
    UserMemory,
    KernelMemory,
    CpuPerHandshake,
    HandshakesPerSecond,
    CpuPerRequest,
    RequestsPerSecond,
    /// From the first client of a storm to the last one's 101.
    AllOpen,
    /// Tunnels of the fullest worker over the mean.
    Unevenness,
    UnevennessAfter,
    /// Share of the window in which the proxy wanted a core and another process had it: above a few percent the
    /// machine was not ours.
    Waited,
    /// Share of the window in which the load was on its core: near 100 the load is what limits a closed loop.
    LoadBusy,
}

impl Metric {
    /// Column title, with its unit.
    pub fn title(self) -> &'static str {
        match self {
            Self::CpuPerMessage => "CPU, µs/message",
            Self::MessagesPerSecond => "messages/s",
            Self::TimeP50 => "p50, µs",
            Self::TimeP99 => "p99, µs",
            Self::TimeP999 => "p99.9, µs",
            Self::CpuPerGib => "CPU, s/GiB",
            Self::GibPerSecond => "GiB/s",
            Self::UserMemory => "user memory, B/tunnel",
            Self::KernelMemory => "kernel memory, B/tunnel",
            Self::CpuPerHandshake => "CPU, µs/handshake",
            Self::HandshakesPerSecond => "handshakes/s",
            Self::CpuPerRequest => "CPU, µs/request",
            Self::RequestsPerSecond => "requests/s",
            Self::AllOpen => "all open, ms",
            Self::Unevenness => "fullest worker / mean",
            Self::UnevennessAfter => "the same, one worker's gone and come anew",
            Self::Waited => "waited, %",
            Self::LoadBusy => "load busy, %",
        }
    }

    /// Less is better.
    pub fn is_cost(self) -> bool {
        !matches!(
            self,
            Self::MessagesPerSecond | Self::GibPerSecond | Self::HandshakesPerSecond | Self::RequestsPerSecond
        )
    }

    /// A value with as many digits as mean something.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::CpuPerMessage | Self::CpuPerHandshake | Self::CpuPerRequest | Self::Waited => format!("{value:.1}"),
            Self::CpuPerGib => format!("{value:.3}"),
            Self::GibPerSecond | Self::Unevenness | Self::UnevennessAfter => format!("{value:.2}"),
            Self::LoadBusy => format!("{value:.0}"),
            _ => thousands(value),
        }
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value <= -0.5 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure of several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Spread {
    /// Of some values; None without any.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, greatest) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, least, greatest })
    }

    /// As the tables have it; of one round there is no spread.
    pub fn show(&self, show: impl Fn(f64) -> String) -> String {
        if self.least == self.greatest {
            return show(self.median);
        }
        format!("{} ({} to {})", show(self.median), show(self.least), show(self.greatest))
    }
}

/// A ratio with as many digits as mean something.
pub fn show_ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}
