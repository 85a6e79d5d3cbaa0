//! A certificate for the demo, made at its start and gone with it.

use std::{
    fs::{OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{CertificateParams, DnType, KeyPair};
use tempfile::TempDir;

/// Certificate and key in a directory that only this user may enter; it is removed when dropped.
#[derive(Debug)]
pub(super) struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Makes a self-signed one for `localhost` and 127.0.0.1, good for 30 days.
    ///
    /// # Errors
    /// The temporary directory cannot be written, or the key cannot be made.
    pub(super) fn make() -> io::Result<Self> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = parameters().and_then(|parameters| parameters.self_signed(&key)).map_err(io::Error::other)?;
        let made = Self { directory: private_directory()? };
        write(&made.certificate(), &certificate.pem(), 0o644)?;
        write(&made.key(), &key.serialize_pem(), 0o600)?;
        Ok(made)
    }

    /// The certificate's file.
    pub(super) fn certificate(&self) -> PathBuf {
        self.directory.path().join("demo.crt")
    }

    /// The key's file.
    pub(super) fn key(&self) -> PathBuf {
        self.directory.path().join("demo.key")
    }
}

fn private_directory() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("longsplice-demo-").permissions(Permissions::from_mode(0o700)).tempdir()
}

fn parameters() -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    parameters.distinguished_name.push(DnType::CommonName, "longsplice demo");
    // A day's grace for clocks that differ.
    let ((year, month, day), (last_year, last_month, last_day)) = (date(-1), date(30));
    parameters.not_before = rcgen::date_time_ymd(year, month, day);
    parameters.not_after = rcgen::date_time_ymd(last_year, last_month, last_day);
    Ok(parameters)
}

/// Year, month and day so many days from now.
fn date(from_now: i64) -> (i32, u8, u8) {
    let date = (Timestamp::now() + SignedDuration::from_hours(24 * from_now)).to_zoned(TimeZone::UTC);
    (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_private_and_go_with_the_demo() {
        let certificate = Certificate::make().unwrap();
        let (file, key) = (certificate.certificate(), certificate.key());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(key.parent().unwrap()), mode(&key)), (0o700, 0o600));
        let pem = std::fs::read(&file).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert!(parsed.validity().is_valid());
        let names = parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        assert_eq!(names, 2);
        drop(certificate);
        assert!(!file.parent().unwrap().exists());
    }
}
