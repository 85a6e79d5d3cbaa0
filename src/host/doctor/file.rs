//! What is of the file alone: certificates and keys, and where its logs go.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::statvfs::statvfs;

use crate::{
    config::{Config, LogTarget},
    host::finding::{Finding, Mark, bytes},
    tls,
};

/// Days of a certificate before its end at which it is time to renew it: certbot does at 30.
const RENEW_DAYS: i64 = 21;
/// Free space of a log's file system below which it is time to look, bytes.
const LOG_ROOM_BYTES: u64 = 1_000_000_000;
const DAY_SECS: i64 = 86_400;

pub(super) fn findings(config: &Config) -> Vec<(String, Finding)> {
    let files: BTreeSet<_> =
        config.servers.iter().filter_map(|server| server.tls.as_ref()).flat_map(|tls| tls.files()).collect();
    let certificates = files.iter().map(|(certificate, _)| named("certificate", certificate, certificate_age));
    let keys = files.iter().map(|(_, key)| named("key", key, key_mode));
    let logs = log_directories(config).into_iter().map(|directory| named("logs", directory, log_room));
    certificates.chain(keys).chain(logs).collect()
}

fn named(what: &str, path: &Path, judge: fn(&Path) -> Finding) -> (String, Finding) {
    (format!("{what} {}", path.display()), judge(path))
}

fn certificate_age(path: &Path) -> Finding {
    let words = format!("{RENEW_DAYS} days left");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    match tls::certificate_end(path) {
        Err(error) => Finding::unseen(words).saying(error),
        Ok(end) => judge_age((end - now).div_euclid(DAY_SECS), words),
    }
}

fn judge_age(days: i64, words: String) -> Finding {
    let renew = |finding: Finding| finding.mended("", "renew it; a reload takes the new one");
    match days {
        ..0 => renew(Finding::ok("expired", words).marked(Mark::Bad, "clients refuse it")),
        0..RENEW_DAYS => renew(Finding::ok(format!("{days} days left"), words).marked(Mark::Warn, "it ends soon")),
        _ => Finding::ok(format!("{days} days left"), words),
    }
}

fn key_mode(path: &Path) -> Finding {
    let words = "not readable by everybody";
    let Ok(about) = fs::metadata(path) else { return Finding::unseen(words) };
    let mode = about.permissions().mode() & 0o777;
    let finding = Finding::ok(format!("mode {mode:04o}"), words);
    if mode & 0o007 == 0 {
        return finding;
    }
    let says = "every user of this host can take the server's place";
    finding.marked(Mark::Warn, says).mended(format!("chmod o= {}", path.display()), "that keeps it")
}

/// Where the file's logs are.
fn log_directories(config: &Config) -> BTreeSet<&Path> {
    let locations = config.servers.iter().flat_map(|server| &server.locations).map(|location| &location.settings);
    let settings = || locations.clone().chain(config.servers.iter().map(|server| &server.settings));
    let access = settings().flat_map(|settings| &settings.access_logs).map(|log| &log.target);
    let errors =
        settings().flat_map(|settings| &settings.error_logs).chain(&config.main.error_logs).map(|log| &log.target);
    let files = access.chain(errors).filter_map(|target| match target {
        LogTarget::File(path) => path.parent(),
        _ => None,
    });
    // Devices are full of nothing.
    files.filter(|directory| !directory.starts_with("/dev")).collect()
}

fn log_room(directory: &Path) -> Finding {
    let words = format!("{} free", bytes(LOG_ROOM_BYTES));
    let Ok(about) = statvfs(directory) else { return Finding::unseen(words) };
    let free = about.blocks_available() * about.fragment_size();
    let finding = Finding::ok(format!("{} free", bytes(free)), words);
    if free >= LOG_ROOM_BYTES {
        return finding;
    }
    finding.marked(Mark::Warn, "a full disk loses log lines, and no tunnel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_judged_by_their_days() {
        let mark = |days| judge_age(days, String::new()).mark;
        assert_eq!([-1, 0, 20, 21, 90].map(mark), [Mark::Bad, Mark::Warn, Mark::Warn, Mark::Ok, Mark::Ok]);
    }

    #[test]
    fn a_key_for_everybody_is_named_with_its_cure() {
        let key = tempfile::NamedTempFile::new().unwrap();
        let with = |mode| {
            fs::set_permissions(key.path(), fs::Permissions::from_mode(mode)).unwrap();
            key_mode(key.path())
        };
        assert_eq!(with(0o640).mark, Mark::Ok);
        assert!(with(0o644).mark == Mark::Warn && with(0o644).now.starts_with("chmod o= /"));
    }
}
