//! What a host does to a process of ours: limits that change while it runs, system calls that fail.

use std::{collections::BTreeSet, fs, process::Command, thread, time::Duration};

use super::{Proxy, eventually, external, proxy::Setup};

/// Which limit (getrlimit(2)), as prlimit(1) calls it.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    Descriptors,
    AddressSpace,
    FileSize,
}

impl Limit {
    fn option(self) -> &'static str {
        match self {
            Self::Descriptors => "nofile",
            Self::AddressSpace => "as",
            Self::FileSize => "fsize",
        }
    }
}

/// Sets a limit of the running process; none: the hard one.
pub fn set_limit(proxy: &Proxy, limit: Limit, value: Option<usize>) {
    let option = limit.option();
    let status = fs::read_to_string(format!("/proc/{}/limits", proxy.serving())).expect("the process lives");
    let name = match limit {
        Limit::Descriptors => "Max open files",
        Limit::AddressSpace => "Max address space",
        Limit::FileSize => "Max file size",
    };
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the limit");
    let hard = line.split_whitespace().nth(1).expect("its hard value");
    let soft = value.map_or_else(|| hard.to_owned(), |value| value.to_string());
    let done = Command::new("prlimit")
        .arg(format!("--pid={}", proxy.serving()))
        .arg(format!("--{option}={soft}:"))
        .output()
        .expect("prlimit(1) of util-linux");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The process may open so many descriptors more than it has: numbers count (RLIMIT_NOFILE), and it may have gaps.
pub fn leave_descriptors(proxy: &Proxy, more: usize) {
    let look = || -> BTreeSet<usize> {
        let entries = fs::read_dir(format!("/proc/{}/fd", proxy.serving())).expect("the process lives");
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    };
    // Connections of before are closed first.
    let mut numbers = look();
    let at_rest = eventually(|| {
        thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut numbers, look()) == numbers
    });
    assert!(at_rest, "descriptors come and go");
    let limit = (0..).filter(|number| !numbers.contains(number)).nth(more).expect("one");
    set_limit(proxy, Limit::Descriptors, Some(limit));
}

/// The program, with system calls that fail by `errno` from its first to its last moment: see `forbid.py`. None where there is no Python.
pub fn failing(setup: Setup, errno: &str, calls: &[&str]) -> Option<Setup> {
    let python = external("python3")?;
    let script = setup.file("forbid.py", include_str!("forbid.py"));
    let arguments = [&["%dir%/forbid.py", errno][..], calls, &["--"]].concat();
    Some(script.started_by(&python, &arguments))
}

/// How many lines of the error log have all of these words.
pub fn lines(proxy: &Proxy, words: &[&str]) -> usize {
    proxy.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}
