//! Files, includes, `-g`, `-e`, and what is main and what is http.

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::config::{ErrorLog, Level, LogTarget};

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    }
    directory
}

#[test]
fn includes_are_relative_to_the_file_and_sorted() {
    let directory = directory(&[
        ("conf/nginx.conf", "events {} http { include sites/*.conf; include one.conf; include none/*.conf; }"),
        ("conf/sites/b.conf", "server { listen 127.0.0.1:2; }"),
        ("conf/sites/a.conf", "server { listen 127.0.0.1:1; include loc.inc; }"),
        ("conf/sites/.hidden.conf", "gadget;"),
        ("conf/loc.inc", "location / { return 204; }"),
        ("conf/one.conf", "server { listen 127.0.0.1:3; }"),
    ]);
    let loaded = load_file(directory.path().join("conf/nginx.conf"), Path::new("/nowhere"));
    let config = loaded.config.unwrap_or_else(|| panic!("{}", loaded.report.render(false, false)));
    let ports: Vec<_> = config.listeners.iter().map(|listener| format!("{:?}", listener.address)).collect();
    assert_eq!(ports, ["Tcp(127.0.0.1:1)", "Tcp(127.0.0.1:2)", "Tcp(127.0.0.1:3)"]);
    let names: Vec<_> = loaded.files.iter().map(|(path, _)| path.file_name().expect("a name").to_owned()).collect();
    assert_eq!(names, ["nginx.conf", "a.conf", "loc.inc", "b.conf", "one.conf"]);
}

#[test]
fn an_error_in_an_included_file_has_its_own_name() {
    let directory = directory(&[("x.conf", "include y.conf;"), ("y.conf", "\nserver { listn 1; }")]);
    let text = load_file(directory.path().join("x.conf"), Path::new("/")).report.render(false, false);
    assert!(text.contains("y.conf:2:10"), "{text}");
}

#[test]
fn a_missing_include_is_named_with_its_reason() {
    let directory = directory(&[("x.conf", "server {} include gone.conf;")]);
    let text = load_file(directory.path().join("x.conf"), Path::new("/")).report.render(false, false);
    assert!(text.contains("gone.conf\" failed (2: No such file or directory)"), "{text}");
    assert!(text.contains("x.conf:1:19"), "{text}");
    let text = load_file(directory.path().join("none.conf"), Path::new("/")).report.render(false, false);
    assert!(text.contains("none.conf\" failed (2: No such file or directory)"), "{text}");
}

#[test]
fn a_file_that_includes_itself_is_an_error_and_not_a_hang() {
    let directory = directory(&[("x.conf", "include x.conf;")]);
    let text = load_file(directory.path().join("x.conf"), Path::new("/")).report.render(false, false);
    assert!(text.contains("does a file include itself?"), "{text}");
}

#[test]
fn blocks_of_including_files_count() {
    let deep = "server { location / { location / { location / { location / { location / { include x.conf; } } } } } }";
    let directory = directory(&[("x.conf", deep)]);
    let text = load_file(directory.path().join("x.conf"), Path::new("/")).report.render(false, false);
    assert!(text.contains("nested deeper than"), "{text}");
}

#[test]
fn bytes_that_are_not_utf_8_matter_in_words_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.conf");
    fs::write(&path, b"# caf\xe9\nserver { listen 127.0.0.1:1; }").expect("written");
    assert!(load_file(path.clone(), Path::new("/")).config.is_some());
    fs::write(&path, b"server { server_name caf\xe9; }").expect("written");
    assert!(load_file(path, Path::new("/")).report.render(false, false).contains("not UTF-8"));
}

#[test]
fn main_directives_may_stand_beside_http_ones_in_a_fragment() {
    let config = config("worker_processes 3; error_log stderr info; server { listen 127.0.0.1:1; }");
    assert_eq!(config.main.workers, 3);
    assert_eq!(config.main.error_logs, [ErrorLog { target: LogTarget::Stderr, level: Level::Info }]);
}

#[test]
fn a_whole_file_keeps_its_contexts_apart() {
    let text = errors("events {} http { server { listen 127.0.0.1:1; } } server { listen 127.0.0.1:2; }");
    assert!(text.contains("\"server\" directive is not allowed here"), "{text}");
    assert!(text.contains("put it into the `http { ... }` block"), "{text}");
    let text = errors("location /ws/ { proxy_pass http://127.0.0.1:1; }");
    assert!(text.contains("put it into a `server"), "{text}");
}

#[test]
fn a_file_without_server_is_an_error() {
    assert!(errors("events {}").contains("no server is configured"));
    assert!(errors("").contains("no server is configured"));
}

#[test]
fn global_directives_and_the_error_log_come_from_the_command_line() {
    let options = |globals: &str, text: &str| LoadOptions {
        file: Source::Text { name: "x".into(), text: text.into() },
        prefix: "/p".into(),
        globals: Some(globals.into()),
        conf_error_log: Some("logs/e.log".into()),
    };
    let server = "server { listen 127.0.0.1:1; }";
    let config = load(&options("worker_processes 2; pid run/x.pid;", server)).config.expect("right");
    assert_eq!(config.main.workers, 2);
    assert_eq!(config.main.pid, Some("/p/run/x.pid".into()));
    assert_eq!(
        config.main.error_logs,
        [ErrorLog { target: LogTarget::File("/p/logs/e.log".into()), level: Level::Error }]
    );
    let text = load(&options("pid a;", &format!("pid b; {server}"))).report.render(false, false);
    assert!(text.contains("\"pid\" directive is duplicate") && text.contains("command line:1:1"), "{text}");
    let text = load(&options("gadget on;", server)).report.render(false, false);
    assert!(text.contains("command line:1:1"), "{text}");
}

/// Words that mean something, so that nonsense gets far.
const WORDS: [&str; 48] = [
    "{",
    "}",
    ";",
    ";",
    ";",
    "{",
    "}",
    ";",
    "server",
    "location",
    "/a",
    "~",
    "^/(a)$",
    "@n",
    "if",
    "($host",
    "=",
    "x)",
    "upstream",
    "u",
    "map",
    "$host",
    "$m",
    "default",
    "1",
    "proxy_pass",
    "http://u",
    "https://[::1]:1/$uri",
    "unix:/x:",
    "proxy_set_header",
    "return",
    "200",
    "rewrite",
    "set",
    "$x",
    "listen",
    "127.0.0.1:81",
    "ssl",
    "server_name",
    "*.a",
    "error_page",
    "=404",
    "access_log",
    "off",
    "try_files",
    "proxy_redirect",
    "types",
    "http",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_words_end_without_panic(words in proptest::collection::vec(proptest::sample::select(&WORDS[..]), 0..40)) {
        let loaded = load_text(&words.join(" "), Path::new("/nowhere"));
        prop_assert_eq!(loaded.config.is_none(), loaded.report.errors() > 0);
        loaded.report.render(true, true);
    }
}
