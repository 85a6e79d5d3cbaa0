//! What this host gives: descriptors, queues, ports.

use std::{fs, str::FromStr};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    config::{Config, lint::HostLimits},
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

/// The limits that a configuration is held against by `-t`. What cannot be read (no /proc) is the kernel's default.
pub fn limits() -> HostLimits {
    HostLimits {
        nofile_hard: getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard),
        somaxconn: sysctl("net/core/somaxconn").and_then(|text| numbers(&text).next()).unwrap_or(4_096),
        local_ports: sysctl("net/ipv4/ip_local_port_range")
            .and_then(|text| port_range(&text))
            .unwrap_or((32_768, 60_999)),
    }
}

fn sysctl(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok()
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut ports = numbers(text);
    Some((ports.next()?, ports.next()?))
}

fn numbers<T: FromStr>(text: &str) -> impl Iterator<Item = T> {
    text.split_ascii_whitespace().map_while(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, LoadOptions, Source};

    fn needed(text: &str) -> Option<u64> {
        let text = format!("{text} http {{ server {{ listen 80; return 204; }} }}");
        let file = Source::Text { name: "test".to_owned(), text };
        let options = LoadOptions { file, prefix: "/".into(), globals: None, conf_error_log: None };
        nofile_needed(&config::load(&options).config.unwrap())
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
    fn sysctls_are_read_as_the_kernel_writes_them() {
        assert_eq!(port_range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(port_range("32768\n"), None);
        assert_eq!(numbers::<u32>("4096\n").next(), Some(4_096));
        let limits = limits();
        assert!(limits.nofile_hard > 0 && limits.local_ports.0 < limits.local_ports.1);
    }
}
