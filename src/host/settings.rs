//! The table of what a host must be set to: one row a setting, with its reason, its cost, and how it is judged.
//!
//! `tuning/90-longsplice.conf` and the settings of `tuning/README.md` are made of it, and `doctor` reads it.

mod descriptors;
mod memory;
mod network;
mod platform;
mod ports;
mod queues;
mod tracking;

use super::{
    files::Files,
    finding::{Finding, Mark, grouped},
    needs::Needs,
};
use crate::config::Config;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// As sysctl(8) writes it, else what it is called: `LimitNOFILE`, `memory.max`.
    pub key: &'static str,
    /// What it should be, in words.
    pub wanted: &'static str,
    /// Its part of the sysctl file.
    pub line: Line,
    /// The first Linux that has it; empty: all that are in use.
    pub since: &'static str,
    /// What it does to tunnels.
    pub why: &'static str,
    /// Whom it concerns.
    pub when: &'static str,
    /// What it costs.
    pub cost: &'static str,
    /// How to see that it took, and whether it bites.
    pub see: &'static str,
    /// Its effect as measured, with how often; empty: not measured.
    pub measured: &'static str,
    /// Judges it. None: it does not concern this file.
    pub judge: fn(&Seen<'_>) -> Option<Finding>,
}

/// What the sysctl file says of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Nothing: another file or command sets it, or it is best left alone.
    None,
    /// Set: keys and values under a comment.
    Set(&'static str, &'static [(&'static str, &'static str)]),
    /// The same as comments, for whom the first words describe.
    Offered(&'static str, &'static [(&'static str, &'static str)]),
}

/// A chapter of the guide.
#[derive(Debug)]
pub struct Chapter {
    /// Its heading.
    pub title: &'static str,
    /// Its settings, the most important first.
    pub settings: &'static [Setting],
}

/// The table.
pub const CHAPTERS: &[Chapter] = &[
    Chapter { title: "Descriptors", settings: descriptors::SETTINGS },
    Chapter { title: "Accept queues", settings: queues::SETTINGS },
    Chapter { title: "Local ports", settings: ports::SETTINGS },
    Chapter { title: "Memory", settings: memory::SETTINGS },
    Chapter { title: "Connection tracking", settings: tracking::SETTINGS },
    Chapter { title: "Network", settings: network::SETTINGS },
    Chapter { title: "Platform", settings: platform::SETTINGS },
];

/// What a setting is judged by.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The host.
    pub files: &'a Files,
    /// The directory of /proc that has the limits: of the running process, else of this one.
    pub process: &'a str,
    /// True when that is the process of the file's `pid`.
    pub running: bool,
    /// What is asked of it.
    pub needs: &'a Needs,
    /// The file, if one was given.
    pub config: Option<&'a Config>,
}

impl Seen<'_> {
    /// A sysctl that should be at least `wanted`; else `says` with what it is.
    fn at_least(&self, key: &str, wanted: u64, short: Mark, says: impl FnOnce(u64) -> String) -> Finding {
        let words = format!("at least {}", grouped(wanted));
        match self.files.sysctl_number(key) {
            None => Finding::unseen(words),
            Some(found) if found >= wanted => Finding::ok(grouped(found), words),
            Some(found) => {
                let value = wanted.next_power_of_two();
                Finding::ok(grouped(found), words).marked(short, says(found)).set(key, value)
            }
        }
    }

    /// A sysctl that should be one of `wanted`, the first of them preferred.
    fn one_of(&self, key: &str, wanted: &[u64], other: Mark, says: &str) -> Finding {
        let words = wanted.iter().map(u64::to_string).collect::<Vec<_>>().join(" or ");
        match self.files.sysctl_number(key) {
            None => Finding::unseen(words),
            Some(found) if wanted.contains(&found) => Finding::ok(found.to_string(), words),
            Some(found) => Finding::ok(found.to_string(), words).marked(other, says).set(key, wanted[0]),
        }
    }
}

/// A value that is fine whatever it is, shown because people look for it.
fn as_it_is(seen: &Seen<'_>, key: &str, says: &str) -> Finding {
    match seen.files.sysctl(key) {
        None => Finding::unseen("any"),
        Some(found) => Finding::ok(found.split_ascii_whitespace().collect::<Vec<_>>().join(" "), "any").saying(says),
    }
}
