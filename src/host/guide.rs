//! What of `tuning/` is made of the table: held equal by a test, written anew with `BLESS=1`.

use std::{fmt::Write, fs};

use super::{
    finding::{bytes, grouped},
    needs::Needs,
    settings::{CHAPTERS, Line, Setting},
};

const SYSCTL_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/90-longsplice.conf");
const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tuning/README.md");
const BEGIN: &str =
    "<!-- Generated from src/host/settings: `BLESS=1 cargo test --lib the_committed_tuning` writes it anew. -->\n";
const END: &str = "<!-- End of what is generated. -->\n";

const COLUMNS: usize = 130;
const CONF_HEAD: &str = "\
# /etc/sysctl.d/90-longsplice.conf: a host that holds many WebSocket tunnels. `sysctl --system` applies it.
# Generated from src/host/settings, as are the chapters of README.md beside it that say why, when and at what cost.
# Take what you need; `longsplice doctor` says what this host needs for so many tunnels.
";

/// `90-longsplice.conf`.
fn sysctl_file() -> String {
    let mut text = String::from(CONF_HEAD);
    for setting in CHAPTERS.iter().flat_map(|chapter| chapter.settings) {
        let (intro, why, values, mark) = match setting.line {
            Line::None => continue,
            Line::Set(why, values) => ("", why, values, ""),
            Line::Offered(why, values) => ("Only ", why, values, "#"),
        };
        text.push('\n');
        let stop = if why.ends_with('.') { "" } else { "." };
        paragraph(&mut text, "# ", &format!("{intro}{why}{stop}"));
        for (key, value) in values {
            let _ = writeln!(text, "{mark}{key} = {value}");
        }
    }
    text
}

/// Lines of at most [`COLUMNS`], each with `lead` in front.
fn paragraph(text: &mut String, lead: &str, words: &str) {
    let mut line = String::new();
    for word in words.split(' ') {
        if !line.is_empty() && lead.len() + line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(text, "{lead}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(text, "{lead}{line}");
}

/// The chapters of the guide, and the arithmetic.
fn chapters() -> String {
    let mut text = String::from(BEGIN);
    arithmetic(&mut text);
    for chapter in CHAPTERS {
        let _ = write!(text, "\n## {}\n", chapter.title);
        chapter.settings.iter().for_each(|setting| section(&mut text, setting));
    }
    text.push('\n');
    text.push_str(END);
    text
}

fn section(text: &mut String, setting: &Setting) {
    let Setting { key, wanted, since, why, when, cost, see, measured, .. } = setting;
    let since = if since.is_empty() { String::new() } else { format!(" (Linux {since})") };
    let _ = write!(text, "\n### `{key}`{since}\n\n");
    paragraph(text, "", &format!("**Wanted:** {wanted}."));
    for (name, words) in [("Why", why), ("When", when), ("Cost", cost), ("See", see), ("Measured", measured)] {
        if !words.is_empty() {
            text.push('\n');
            paragraph(text, "", &format!("**{name}.** {words}"));
        }
    }
}

type Row = (&'static str, fn(&Needs) -> String);

const ARITHMETIC: &[Row] = &[
    ("descriptors", |needs| grouped(needs.descriptors())),
    ("local ports, one backend address", |needs| grouped(needs.ports().unwrap_or(0))),
    ("backend addresses with 28,232 ports each (default)", |needs| grouped(needs.tunnels.div_ceil(28_232))),
    ("the same with 55,296 (10240 to 65535)", |needs| grouped(needs.tunnels.div_ceil(55_296))),
    ("the program, ws", |needs| bytes(Needs { tls: false, ..needs.clone() }.user_bytes())),
    ("the program, wss", |needs| bytes(needs.user_bytes())),
    ("kernel, all at rest", |needs| bytes(needs.kernel_bytes())),
    ("all, wss, one socket of ten busy", |needs| bytes(needs.bytes())),
    ("`tcp_mem` pressure, pages", |needs| grouped(needs.buffer_pages())),
    ("epoll watches", |needs| grouped(needs.watches())),
    ("tracked connections, if tracked", |needs| {
        format!("{}, {}", grouped(needs.tracked()), bytes(needs.tracked_bytes()))
    }),
    ("backlog of each listening socket", |needs| grouped(needs.backlog())),
];

fn arithmetic(text: &mut String) {
    text.push_str("\n## The arithmetic\n\nWhat `longsplice doctor --connections N` reckons, here for 8 workers and one listener.\n\n");
    let needs = [10_000, 100_000, 1_000_000].map(|tunnels| Needs::of_tunnels(tunnels, 8));
    let _ = writeln!(text, "| tunnels | {} |", needs.each_ref().map(|needs| grouped(needs.tunnels)).join(" | "));
    text.push_str("|---|---:|---:|---:|\n");
    for (name, of) in ARITHMETIC {
        let _ = writeln!(text, "| {name} | {} |", needs.each_ref().map(of).join(" | "));
    }
}

/// The guide with its generated part written anew.
fn guide(committed: &str) -> Option<String> {
    let (before, rest) = committed.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{}{after}", chapters()))
}

#[test]
fn the_committed_tuning_is_the_table() {
    let committed = fs::read_to_string(GUIDE).unwrap();
    let wanted = guide(&committed).expect("tuning/README.md has the two lines between which it is generated");
    if std::env::var_os("BLESS").is_some() {
        fs::write(GUIDE, &wanted).unwrap();
        fs::write(SYSCTL_FILE, sysctl_file()).unwrap();
    }
    let of_table = "`BLESS=1 cargo test --lib the_committed_tuning` writes it anew";
    assert!(fs::read_to_string(GUIDE).unwrap() == wanted, "{GUIDE} is old: {of_table}");
    assert!(fs::read_to_string(SYSCTL_FILE).unwrap() == sysctl_file(), "{SYSCTL_FILE} is old: {of_table}");
}

#[test]
fn every_setting_has_its_reason_its_cost_and_a_way_to_see_it() {
    let mut keys = Vec::new();
    for Setting { key, wanted, why, when, cost, see, line, .. } in CHAPTERS.iter().flat_map(|chapter| chapter.settings)
    {
        for words in [wanted, why, when, cost, see] {
            assert!(!words.is_empty(), "{key}");
            assert!(!words.contains("  ") && !words.contains('\n'), "{key}: {words:?}");
        }
        let values = match line {
            Line::None => &[][..],
            Line::Set(_, values) | Line::Offered(_, values) => values,
        };
        assert!(values.iter().all(|(name, value)| name.contains('.') && !value.is_empty()), "{key}");
        keys.push(key);
    }
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "a key stands in the table twice");
}
