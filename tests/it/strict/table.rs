//! docs/strictness.md: what longsplice, nginx and HAProxy make of every case.
//!
//! `BLESS=1 cargo test --test it -- strictness_table` starts all three with files that say the same, sends each the bytes of each
//! case and writes down what came of it. Without BLESS longsplice alone is asked, and must do what its column says.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use super::{
    Case, answer, body, fields, first_frame, path,
    peers::{self, Peer},
    request_line, upgrade,
};
use crate::util::{beyond_nginx, external};

/// The parts of the table and their cases.
fn sections() -> [(&'static str, Vec<Case>); 7] {
    [
        ("Request line and size of a head", request_line::cases()),
        ("Fields of a request", fields::cases()),
        ("Paths", path::cases()),
        ("Bodies of requests", body::cases()),
        ("Upgrade", upgrade::cases()),
        ("Answers of backends", answer::cases()),
        ("First frame of a tunnel", first_frame::cases()),
    ]
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/strictness.md")
}

/// What every peer made of every case: a row of texts for each, in the order of [`sections`].
fn measured(peers: Vec<Peer>) -> Vec<Vec<String>> {
    let columns: Vec<Vec<String>> = thread::scope(|scope| {
        let asked = |peer: Peer| {
            move || -> Vec<String> {
                sections().iter().flat_map(|(_, cases)| cases).map(|case| peer.judge(case)).collect()
            }
        };
        let threads: Vec<_> = peers.into_iter().map(|peer| scope.spawn(asked(peer))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a peer's column")).collect()
    });
    let rows = columns.first().map_or(0, Vec::len);
    (0..rows).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect()
}

#[test]
fn strictness_table() {
    beyond_nginx!();
    if env::var_os("BLESS").is_some() {
        let (Some(nginx), Some(haproxy)) = (external("nginx"), external("haproxy")) else { return };
        let rows = measured(vec![peers::longsplice(), peers::nginx(), peers::haproxy(&haproxy)]);
        fs::write(file(), written(&rows, &[version(&nginx, "nginx/"), version(&haproxy, "version ")]))
            .expect("written");
    }
    let committed = fs::read_to_string(file()).expect("docs/strictness.md");
    let rows: Vec<&str> = committed.lines().filter(|line| line.starts_with("| ")).collect();
    let ours = measured(vec![peers::longsplice()]);
    let cases = sections().into_iter().flat_map(|(_, cases)| cases);
    let wrong: Vec<String> = cases
        .zip(ours)
        .map(|(case, ours)| format!("| {} | {} |", cell(&case.name), ours[0]))
        .filter(|begin| !rows.iter().any(|row| row.starts_with(begin)))
        .collect();
    assert!(
        wrong.is_empty(),
        "rows that docs/strictness.md does not have (BLESS=1 measures anew):\n{}",
        wrong.join("\n")
    );
}

/// What a program says behind `word` when it is asked for its version.
fn version(program: &Path, word: &str) -> String {
    let output = Command::new(program).arg("-v").output().expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let version = said.split(word).nth(1).and_then(|rest| rest.split([' ', '-', '\n']).next());
    version.unwrap_or_default().to_owned()
}

const INTRODUCTION: &str = "\
# Strictness

What longsplice makes of messages that somebody may read in two ways, beside nginx and HAProxy. Every row is also a test: the same
bytes over ws and wss, cut at every byte, and behind a good request on the same connection
([tests/it/strict/](../tests/it/strict/)). This file is written by `BLESS=1 cargo test --test it -- strictness_table`, which asks the
programs that are installed; nginx and longsplice read the same file, HAProxy one that says the same.

`forwarded` means that the backend got it, and where it was changed how; `nothing forwarded` that it got no byte. `passed on` means
that the client got the answer, and nothing of what stood behind it unless the row says so. Not all that others let through is a hole:
most of it becomes one where the next reader reads it another way, and that one nobody knows.
";

fn written(rows: &[Vec<String>], versions: &[String; 2]) -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut rows = rows.iter();
    text += &summary(rows.as_slice());
    for (section, cases) in sections() {
        let _ = write!(text, "\n## {section}\n");
        let mut rule = "";
        for case in cases {
            if case.rule != rule {
                rule = case.rule;
                let _ = write!(
                    text,
                    "\n### {}\n\n| sent | longsplice | nginx {} | HAProxy {} |\n|---|---|---|---|\n",
                    title(rule),
                    versions[0],
                    versions[1]
                );
            }
            let row: Vec<String> = rows.next().expect("a row").iter().map(|text| cell(text)).collect();
            let _ = writeln!(text, "| {} | {} |", cell(&case.name), row.join(" | "));
        }
    }
    text
}

/// A rule's name as a sentence.
fn title(rule: &str) -> String {
    const SPELT: [(&str, &str); 9] = [
        ("1_1_or_1_0", "1.1 or 1.0"),
        ("in_1_0", "in 1.0"),
        ("content_length", "Content-Length"),
        ("transfer_encoding", "Transfer-Encoding"),
        ("connect_and_trace", "CONNECT and TRACE"),
        ("crlf", "CRLF"),
        ("_lf_", " LF "),
        ("_get_", " GET "),
        ("_host", " Host"),
    ];
    let title = SPELT.iter().fold(rule.to_owned(), |title, (name, spelt)| title.replace(name, spelt)).replace('_', " ");
    let (first, rest) = title.split_at(1);
    first.to_ascii_uppercase() + rest
}

/// How many of the messages that longsplice lets nobody have the others let through.
fn summary(rows: &[Vec<String>]) -> String {
    let refused: Vec<&Vec<String>> = rows.iter().filter(|row| !peers::lets_through(&row[0])).collect();
    let through = |column: usize| refused.iter().filter(|row| peers::lets_through(&row[column])).count();
    let words: BTreeMap<&str, usize> = [("nginx", through(1)), ("HAProxy", through(2))].into();
    format!(
        "\nOf {} messages, longsplice refuses {}. Of these nginx lets {} through and HAProxy {}.\n",
        rows.len(),
        refused.len(),
        words["nginx"],
        words["HAProxy"]
    )
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
