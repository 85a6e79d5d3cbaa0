//! What this host gives: descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    config::Config,
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
