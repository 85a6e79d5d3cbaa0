//! `ssl_certificate_watch`: files that change on disk are read again without a signal.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{Config, Level},
    limits::CERTIFICATE_WATCH_SECS,
    tls::ServerTls,
};

/// What is known of a file without reading it: device, inode, length, and when it or its mode was changed. None: it is not there.
type Stamp = Option<[i64; 7]>;

/// The certificates of a configuration that are looked after.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    sides: Vec<Side>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Side {
    tls: Arc<ServerTls>,
    /// Its files when they were last looked at,
    seen: Vec<Stamp>,
    /// and as they were when they were last read.
    read: Option<Vec<Stamp>>,
}

/// A line for the log.
pub(super) type Line = (Level, String);

impl Certificates {
    /// Those of a configuration that is in use from now on.
    pub(super) fn of(config: &Config) -> Self {
        let mut sides: Vec<Side> = Vec::new();
        for tls in config.servers.iter().filter_map(|server| server.tls.as_ref()) {
            let is_new = sides.iter().all(|side| !Arc::ptr_eq(&side.tls, tls));
            if is_new && tls.watched().next().is_some() {
                sides.push(Side { tls: Arc::clone(tls), seen: Vec::new(), read: None });
            }
        }
        Self { sides, looked: None }
    }

    /// Looks at the files, unless it has just done so.
    pub(super) fn look(&mut self, now: Instant) -> Vec<Line> {
        let pause = Duration::from_secs(CERTIFICATE_WATCH_SECS);
        if self.sides.is_empty() || self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < pause) {
            return Vec::new();
        }
        self.looked = Some(now);
        self.sides.iter_mut().flat_map(Side::look).collect()
    }
}

impl Side {
    /// Reads the files once they are others than those that were read, and have been left alone since the last look: a certificate and
    /// its key are two files, and neither is written at once.
    fn look(&mut self) -> Vec<Line> {
        let stamps: Vec<Stamp> = self.tls.watched().map(stamp).collect();
        let settled = stamps == self.seen;
        self.seen = stamps;
        if !settled || self.read.as_ref() == Some(&self.seen) {
            return Vec::new();
        }
        self.read = Some(self.seen.clone());
        match self.tls.read_again() {
            Ok(false) => Vec::new(),
            Ok(true) => {
                let files: Vec<_> = self.tls.watched().map(|path| path.display().to_string()).collect();
                vec![(Level::Notice, format!("certificates read again: {}", files.join(", ")))]
            }
            Err(errors) => {
                let line =
                    |error| format!("{error}; the certificate of before is presented on, until the files change again");
                errors.into_iter().map(|error| (Level::Error, line(error))).collect()
            }
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    let (inode, device) = (file.ino().cast_signed(), file.dev().cast_signed());
    Some([device, inode, file.size().cast_signed(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()])
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;
    use crate::tls::ServerTlsOptions;

    /// Writes a certificate and its key, or only one of them.
    fn write(directory: &Path, which: &[&str]) {
        let made = generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        for name in which {
            let text = if *name == "x.crt" { made.cert.pem() } else { made.signing_key.serialize_pem() };
            fs::write(directory.join(name), text).unwrap();
        }
    }

    fn watch(directory: &Path) -> Certificates {
        let options = ServerTlsOptions {
            certificates: vec![(directory.join("x.crt"), directory.join("x.key"))],
            tls12: true,
            tls13: true,
            watch: true,
            ..ServerTlsOptions::default()
        };
        let (tls, _) = ServerTls::build(&options).unwrap();
        Certificates { sides: vec![Side { tls: Arc::new(tls), seen: Vec::new(), read: None }], looked: None }
    }

    /// Looks twice: the second time the files have been left alone.
    fn look(watch: &mut Certificates, now: &mut Instant) -> Vec<Line> {
        let mut lines = Vec::new();
        for _ in 0..2 {
            *now += Duration::from_secs(CERTIFICATE_WATCH_SECS);
            lines.extend(watch.look(*now));
        }
        lines
    }

    #[test]
    fn what_changes_is_read_once_and_only_when_it_has_settled() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &["x.crt", "x.key"]);
        let (mut watch, mut now) = (watch(directory.path()), Instant::now());
        assert_eq!(look(&mut watch, &mut now), [], "nothing has changed");
        write(directory.path(), &["x.crt", "x.key"]);
        assert_eq!(watch.look(now), [], "it has just looked");
        now += Duration::from_secs(CERTIFICATE_WATCH_SECS);
        assert_eq!(watch.look(now), [], "it may be written still");
        let lines = look(&mut watch, &mut now);
        assert!(matches!(&lines[..], [(Level::Notice, line)] if line.contains("x.crt")), "{lines:?}");
        assert_eq!(look(&mut watch, &mut now), []);
    }

    #[test]
    fn files_that_do_not_fit_yet_leave_what_was_and_are_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &["x.crt", "x.key"]);
        let (mut watch, mut now) = (watch(directory.path()), Instant::now());
        look(&mut watch, &mut now);
        write(directory.path(), &["x.crt"]);
        let lines = look(&mut watch, &mut now);
        assert!(matches!(&lines[..], [(Level::Error, line)] if line.contains("does not match")), "{lines:?}");
        assert_eq!(look(&mut watch, &mut now), [], "once is enough");
        fs::remove_file(directory.path().join("x.key")).unwrap();
        assert_eq!(look(&mut watch, &mut now).len(), 1);
        write(directory.path(), &["x.crt", "x.key"]);
        let lines = look(&mut watch, &mut now);
        assert!(matches!(&lines[..], [(Level::Notice, _)]), "{lines:?}");
    }
}
