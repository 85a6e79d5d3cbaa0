//! Whole files, from text to [`Config`].

mod errors;
mod files;
mod limits;
mod lints;
mod meaning;
mod oracle;
mod seeds;

use std::path::{Path, PathBuf};

use super::{Config, LoadOptions, Loaded, Location, Server, Source, load};
use crate::variables::{Part, Template};

/// Loads a text with `prefix` as its directory.
fn load_text(text: &str, prefix: &Path) -> Loaded {
    load(&LoadOptions {
        file: Source::Text { name: "nginx.conf".into(), text: text.into() },
        prefix: prefix.into(),
        globals: None,
        conf_error_log: None,
    })
}

fn load_file(path: PathBuf, prefix: &Path) -> Loaded {
    load(&LoadOptions { file: Source::File(path), prefix: prefix.into(), globals: None, conf_error_log: None })
}

/// The configuration of a text that must be right.
fn config(text: &str) -> Config {
    let loaded = load_text(text, Path::new("/nowhere"));
    let report = loaded.report.render(false, false);
    loaded.config.unwrap_or_else(|| panic!("{report}"))
}

/// The configuration of the inside of one server.
fn server(inner: &str) -> Config {
    config(&format!("server {{ listen 127.0.0.1:8080; {inner} }}"))
}

/// The report of a text, notes included.
fn report(text: &str) -> String {
    load_text(text, Path::new("/nowhere")).report.render(false, true)
}

/// The report of a text that must be wrong.
fn errors(text: &str) -> String {
    let loaded = load_text(text, Path::new("/nowhere"));
    assert!(loaded.config.is_none(), "no error in {text}");
    loaded.report.render(false, false)
}

/// The location of the first server that a path gets.
fn location<'a>(config: &'a Config, path: &str) -> &'a Location {
    let server = &config.servers[0];
    &server.locations[found(server, path)]
}

fn found(server: &Server, path: &str) -> usize {
    server.routes.find(path.as_bytes()).unwrap_or_else(|| panic!("no location for {path}")).location
}

/// A template as it could have been written.
fn written(template: &Template) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Part::Variable(variable) => format!("<{variable:?}>"),
    };
    template.parts.iter().map(part).collect()
}

/// A directory with a certificate: `server.crt`, `server.key`.
fn with_certificate() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(["ws.example.com".to_owned()]).expect("a certificate");
    std::fs::write(directory.path().join("server.crt"), made.cert.pem()).expect("written");
    std::fs::write(directory.path().join("server.key"), made.signing_key.serialize_pem()).expect("written");
    directory
}
