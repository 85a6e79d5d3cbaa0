//! Limits of the control group a process is in, version 2 or 1 (cgroups(7)).

use super::settings::Seen;

/// A limit: its controller, and its file in both versions.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    controller: &'static str,
    file: &'static str,
    old_file: &'static str,
}

/// Bytes, the kernel's for these processes included.
pub const MEMORY: Limit = Limit { controller: "memory", file: "memory.max", old_file: "memory.limit_in_bytes" };
/// Processes and threads.
pub const PIDS: Limit = Limit { controller: "pids", file: "pids.max", old_file: "pids.max" };

/// Version 1 writes "no limit" as the largest multiple of a page that fits.
const UNLIMITED: u64 = 1 << 62;

/// The smallest of a limit in the group of the process and those around it; none: no limit, or none to be seen.
pub fn limit(seen: &Seen<'_>, limit: Limit) -> Option<u64> {
    let groups = seen.files.text(&format!("{}/cgroup", seen.process))?;
    groups.lines().filter_map(|line| of_line(seen, line, limit)).min()
}

/// `0::/path` is version 2, `4:memory:/path` version 1.
fn of_line(seen: &Seen<'_>, line: &str, limit: Limit) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup".to_owned(), limit.file),
        _ if controllers.split(',').any(|name| name == limit.controller) => {
            (format!("sys/fs/cgroup/{controllers}"), limit.old_file)
        }
        _ => return None,
    };
    // A container sees its own group at the mount, whatever the path says: the way up ends there.
    let around = path.match_indices('/').map(|(end, _)| &path[..end]).chain([path]);
    let values = around.filter_map(|group| seen.files.text(&format!("{mount}{group}/{file}")));
    values.filter_map(|text| text.parse().ok()).filter(|value| *value < UNLIMITED).min()
}
