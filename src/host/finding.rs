//! What was found of one setting, and how numbers are written for people.

use std::fmt;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Fine for so many tunnels.
    Ok,
    /// Not visible here: another kernel, a container, a file that only root may read.
    Unseen,
    /// Works, and costs something or will be too small soon.
    Warn,
    /// Will bite.
    Bad,
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Ok => "ok",
            Self::Unseen => "-",
            Self::Warn => "warn",
            Self::Bad => "bad",
        })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it stands.
    pub mark: Mark,
    /// What this host has.
    pub found: String,
    /// What it should have.
    pub wanted: String,
    /// What will happen; empty: nothing worth a line.
    pub says: String,
    /// The command that mends it until the next start; empty: none does.
    pub now: String,
    /// What keeps it; empty: nothing to keep.
    pub keep: String,
}

impl Finding {
    /// As it should be.
    pub fn ok(found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self {
            mark: Mark::Ok,
            found: found.into(),
            wanted: wanted.into(),
            says: String::new(),
            now: String::new(),
            keep: String::new(),
        }
    }

    /// Not visible here.
    pub fn unseen(wanted: impl Into<String>) -> Self {
        Self { mark: Mark::Unseen, ..Self::ok("not visible here", wanted) }
    }

    /// It stands so, and that is what will happen.
    pub fn marked(mut self, mark: Mark, says: impl Into<String>) -> Self {
        (self.mark, self.says) = (mark, says.into());
        self
    }

    /// A word about what is fine.
    pub fn saying(self, says: impl Into<String>) -> Self {
        let mark = self.mark;
        self.marked(mark, says)
    }

    /// With a command that mends it now, and what keeps it so.
    pub fn mended(mut self, now: impl Into<String>, keep: impl Into<String>) -> Self {
        (self.now, self.keep) = (now.into(), keep.into());
        self
    }

    /// Mended by a sysctl.
    pub fn set(self, key: &str, value: impl fmt::Display) -> Self {
        let now = format!("sysctl -w {key}={}", quoted(&value.to_string()));
        self.mended(now, format!("{key} = {value} in {SYSCTL_FILE}"))
    }
}

/// Where sysctls are kept.
pub const SYSCTL_FILE: &str = "/etc/sysctl.d/90-longsplice.conf";

/// A value as a shell takes it.
fn quoted(value: &str) -> String {
    if value.contains(' ') { format!("'{value}'") } else { value.to_owned() }
}

/// `55296` as `55,296`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the unit people would use.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut scaled = number as f64;
    let mut unit = 0;
    while scaled >= 1_000.0 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && scaled < 10.0);
    format!("{scaled:.decimals$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 55_296, 1_048_576].map(grouped), ["0", "999", "1,000", "55,296", "1,048,576"]);
        assert_eq!([12, 8_600, 860_000_000, 26_000_000_000].map(bytes), ["12 B", "8.6 kB", "860 MB", "26 GB"]);
    }

    #[test]
    fn a_cure_can_be_pasted() {
        let cure = Finding::ok("", "").set("net.ipv4.ip_local_port_range", "10240 65535");
        assert_eq!(cure.now, "sysctl -w net.ipv4.ip_local_port_range='10240 65535'");
        assert_eq!(cure.keep, "net.ipv4.ip_local_port_range = 10240 65535 in /etc/sysctl.d/90-longsplice.conf");
    }
}
