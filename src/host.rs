//! What this host gives: descriptors, queues, ports, memory. The table of what to set, and who reads it.

mod cgroup;
pub mod doctor;
pub mod files;
pub mod finding;
#[cfg(test)]
mod guide;
pub mod needs;
pub mod settings;
mod sources;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::{
    files::Files,
    finding::Mark,
    needs::Needs,
    settings::{CHAPTERS, Seen},
};
use crate::{
    config::{
        Config,
        diagnostic::{Diagnostic, Severity},
    },
    limits::{NOFILE_RESERVE, PIPES_POOLED},
    observe::os_error,
};

/// Raises the limit of open descriptors (RLIMIT_NOFILE) to what a configuration needs, as far as the host lets us.
///
/// # Errors
/// It stays too small: what will happen and what to do. Serving is possible all the same.
pub fn raise_nofile(config: &Config) -> Result<(), String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| format!("getrlimit(RLIMIT_NOFILE) failed ({})", os_error(&errno.into())))?;
    let needed = nofile_needed(config).unwrap_or(hard);
    if needed <= soft {
        return Ok(());
    }
    // Beyond the hard limit only CAP_SYS_RESOURCE helps, and only up to /proc/sys/fs/nr_open.
    if setrlimit(Resource::RLIMIT_NOFILE, needed, needed.max(hard)).is_ok() {
        return Ok(());
    }
    let reached = needed.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, reached, hard)
        .map_err(|errno| format!("setrlimit(RLIMIT_NOFILE, {reached}) failed ({})", os_error(&errno.into())))?;
    if reached >= needed {
        return Ok(());
    }
    Err(format!(
        "the limit of open descriptors is {reached}, and this configuration asks for {needed}: about {} tunnels fit, then \
         new connections wait; set LimitNOFILE={needed} in the systemd unit (or `ulimit -Hn {needed}`, `docker run \
         --ulimit nofile={needed}`)",
        reached.saturating_sub(NOFILE_RESERVE) / 2
    ))
}

/// Descriptors a configuration asks for; none: as many as there are.
pub fn nofile_needed(config: &Config) -> Option<u64> {
    if let Some(nofile) = config.main.nofile {
        return Some(nofile);
    }
    let listeners = config.listeners.len();
    // As in nginx, `worker_connections` counts both sides: a tunnel takes two.
    let per_worker = config.main.worker_connections?.saturating_add(listeners).saturating_add(2 * PIPES_POOLED);
    Some(NOFILE_RESERVE.saturating_add((config.main.workers as u64).saturating_mul(per_worker as u64)))
}

/// Settings that a file by itself can be too large for: `-t` speaks of these, `doctor` of all.
const LINTED: [&str; 4] = ["LimitNOFILE", "net.core.somaxconn", "net.ipv4.ip_local_port_range", SANDBOX];
/// Of which also what does not bite is said: somebody relies on it.
const SANDBOX: &str = "sandbox";

/// What of this host is too small for what a file asks for: for `-t`.
pub fn lint(config: &Config) -> Vec<Diagnostic> {
    let mut found = lint_on(&Files::default(), config);
    found.extend(sources::lint(config));
    found
}

fn lint_on(files: &Files, config: &Config) -> Vec<Diagnostic> {
    // A file without limits asks for what there is.
    let needs = Needs::of_config(needs::tunnels_of(config).unwrap_or(1), config);
    let seen = Seen { files, process: "proc/self", running: false, needs: &needs, config: Some(config) };
    let settings = CHAPTERS.iter().flat_map(|chapter| chapter.settings).filter(|setting| LINTED.contains(&setting.key));
    let findings = settings.filter_map(|setting| Some((setting.key, (setting.judge)(&seen)?)));
    findings
        .filter(|(key, finding)| finding.mark == Mark::Bad || *key == SANDBOX && finding.mark == Mark::Warn)
        .map(|(key, finding)| {
            let message = format!("{key} is {}, this file needs {}: {}", finding.found, finding.wanted, finding.says);
            let now = if finding.now.is_empty() { String::new() } else { format!("`{}`; ", finding.now) };
            Diagnostic::new(Severity::Warning, message).help(format!("{now}to keep it: {}", finding.keep))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, LoadOptions, Source};

    pub(super) fn config(text: &str) -> Config {
        let file = Source::Text { name: "test".to_owned(), text: text.to_owned() };
        let options = LoadOptions { file, prefix: "/".into(), globals: None, conf_error_log: None };
        let loaded = config::load(&options);
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.render(false, false)))
    }

    fn needed(text: &str) -> Option<u64> {
        nofile_needed(&config(&format!("{text} http {{ server {{ listen 80; return 204; }} }}")))
    }

    #[test]
    fn descriptors_are_asked_for_as_the_file_says() {
        assert_eq!(needed("events {}"), None);
        assert_eq!(needed("worker_rlimit_nofile 12345; events { worker_connections 10; }"), Some(12_345));
        let pipes = 2 * PIPES_POOLED as u64;
        assert_eq!(
            needed("worker_processes 3; events { worker_connections 1000; }"),
            Some(NOFILE_RESERVE + 3 * (1_000 + 1 + pipes))
        );
    }

    #[test]
    fn a_file_that_is_too_large_for_this_host_is_warned_about() {
        let config = config(
            "worker_processes 2; events { worker_connections 60000; } \
             http { server { listen 127.0.0.1:1; location / { proxy_pass http://127.0.0.1:2; } } }",
        );
        let host = doctor::tests::Host::with(&[
            ("proc/self/limits", "Max open files            1024                 100000               files"),
            ("proc/sys/net/core/somaxconn", "128"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
        ]);
        let found = lint_on(host.files(), &config);
        let text: String = found.iter().map(|found| found.message.as_str()).collect();
        assert_eq!(found.len(), 3, "{text}");
        for words in ["LimitNOFILE is 100,000", "needs at least 120,", "somaxconn is 128", "28,232 fit"] {
            assert!(text.contains(words), "{words} in {text}");
        }
        let large = doctor::tests::Host::with(&[
            ("proc/self/limits", "Max open files            1024                 1000000              files"),
            ("proc/sys/net/core/somaxconn", "6000"),
            ("proc/sys/net/ipv4/ip_local_port_range", "1024\t65535"),
        ]);
        assert_eq!(lint_on(large.files(), &config), []);
    }

    #[test]
    fn a_file_without_limits_is_as_large_as_the_host() {
        let config = config("events {} http { server { listen 80; location / { proxy_pass http://127.0.0.1:2; } } }");
        let tiny = [("proc/self/limits", "Max open files            1024                 1024                 files")];
        assert_eq!(lint_on(doctor::tests::Host::with(&tiny).files(), &config), []);
    }

    #[test]
    fn every_linted_setting_is_in_the_table() {
        let is_there = |key| CHAPTERS.iter().flat_map(|chapter| chapter.settings).any(|setting| setting.key == key);
        assert!(LINTED.into_iter().all(is_there));
    }
}
