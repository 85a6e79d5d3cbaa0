//! The manual pages and the shells' completions, written from the options and the table of directives. What is committed is held
//! equal to them here, as `docs/directives.md` is; a program that could print them would carry them about.

use std::{fs, path::Path};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use regex::Regex;

use super::{Arguments, DEFAULT_FILE, EXAMPLES, USAGE};
use crate::config::directives::{self, Class, Definition};

/// Of the last change to what is written here, and not in the options or the table.
const DATE: &str = "2026-11-22";
const SOURCE: &str = concat!("longsplice ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "System administration";
const ABOUT: &str = "WebSocket (ws/wss) edge proxy that runs an nginx file";

const DESCRIPTION: &[&str] = &[
    "longsplice reads a configuration in nginx's language, listens where it says, and passes WebSocket connections on to \
     backends, with and without TLS, beside plain HTTP requests on the same servers. It is one process with one thread a core, \
     stays in the foreground unless the file says `daemon on`, and runs a demo when it is started without any argument.",
    "The language of the file, with everything that is understood, accepted or refused, is in longsplice.conf(5). \
     `longsplice -t -c FILE` says what becomes of a file, and what in it will surprise.",
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "TERM, INT; -s stop",
        "Stop now: every tunnel gets a close frame where it is between two frames, and half a second to answer.",
    ),
    (
        "QUIT; -s quit",
        "Drain, then end: tunnels get their close frames spread over `drain_timeout`, and whoever is left after \
         `worker_shutdown_timeout` is closed.",
    ),
    (
        "HUP; -s reload",
        "Read the file again and go on with it. One that cannot be used changes nothing, and the error log says why.",
    ),
    ("USR1; -s reopen", "Open the log files anew, after they were rotated."),
    ("USR2", "Start the program anew beside this one, on the same listening sockets."),
    (
        "-s upgrade",
        "USR2, wait until the new process is ready, then QUIT to the old one. Exit status 1, and the old one serving on, when it fails.",
    ),
    ("WINCH", "While a new process serves beside this one: accept nothing more, and stay."),
];

const FILES: &[(&str, &str)] = &[
    (DEFAULT_FILE, "The file that is read where -c names none."),
    ("/run/longsplice/longsplice.pid", "The process that -s signals, as the packaged file has it in `pid`."),
    ("/usr/share/doc/longsplice/examples/", "A file to start from, and sysctl settings for hosts with many tunnels."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("MONOIO_FORCE_LEGACY_DRIVER", "Set to 1: epoll, also where the file says `use io_uring`."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS", "Set by systemd: see sd_notify(3), sd_listen_fds(3)."),
    ("NO_COLOR", "Set to anything: messages without colours, also on a terminal."),
];

const CONF_DESCRIPTION: &[&str] = &[
    "The file is nginx's: directives end with `;`, blocks stand in braces, `#` begins a comment, `include` takes other files in, \
     and a fragment of conf.d can be given as it is. A name that is not on this page is an unknown directive, and an error.",
    "A value that is inherited holds in inner blocks that do not set it; a list that is inherited holds in inner blocks that set \
     none of it. A `*` in a name stands for the rest of it. \"Let through\" are values that ask for nothing, with which a directive \
     that is refused is accepted.",
];

/// One page of the manual, from its title on.
struct Page(Roff);

impl Page {
    fn paragraphs(&mut self, texts: &[&str]) -> &mut Self {
        for (index, text) in texts.iter().enumerate() {
            if index > 0 {
                self.0.control("PP", []);
            }
            self.0.text([roman(*text)]);
        }
        self
    }

    fn section(&mut self, title: &str) -> &mut Self {
        self.0.control("SH", [title]);
        self
    }

    fn entry(&mut self, name: &str, text: &str) -> &mut Self {
        self.0.control("TP", []).text([bold(name)]).text([roman(text)]);
        self
    }

    fn entries(&mut self, entries: &[(&str, &str)]) -> &mut Self {
        for (name, text) in entries {
            self.entry(name, text);
        }
        self
    }
}

/// What stands between backquotes in the one line that help, reference and manual share is bold in the manual.
fn code_is_bold(page: &str) -> String {
    Regex::new("`([^`\n]+)`").expect("a pattern").replace_all(page, r"\fB$1\fR").into_owned()
}

fn command() -> Command {
    Arguments::command()
}

/// A page as clap's definitions give it, but for what `more` says in place of the help's last part.
fn page_of(command: Command, more: Roff) -> String {
    let man = Man::new(command.after_help(None::<&str>)).section("8").date(DATE).source(SOURCE).manual(MANUAL);
    let title = man.get_filename().trim_end_matches(".8").to_uppercase();
    let man = man.title(title);
    let mut page = Vec::new();
    man.render(&mut page).expect("memory takes it");
    code_is_bold(&(String::from_utf8(page).expect("text") + &more.to_roff()))
}

/// `longsplice(8)`
fn program() -> String {
    let mut more = Page(Roff::new());
    more.section("SIGNALS").entries(SIGNALS).section("FILES").entries(FILES);
    more.section("ENVIRONMENT").entries(ENVIRONMENT).section("EXAMPLES");
    let mut lines = EXAMPLES.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(example) = line.strip_prefix("  ") else { continue };
        more.entry(
            example.trim_start(),
            lines.next_if(|next| next.starts_with("   ")).unwrap_or_default().trim_start(),
        );
    }
    more.section("EXIT STATUS").paragraphs(&["0, or 1 for any error."]);
    more.section("SEE ALSO").paragraphs(&["longsplice.conf(5), nginx(8), systemctl(1)"]);
    let description = DESCRIPTION.join("\n\n");
    // Without what the help says beside each.
    let usage: Vec<_> = USAGE.lines().map(|line| line.trim().split("   ").next().unwrap_or_default()).collect();
    page_of(command().about(ABOUT).long_about(description).override_usage(usage.join("\n")), more.0)
}

/// `longsplice-NAME(8)`, of every command that has options of its own.
fn commands() -> Vec<(String, String)> {
    let mut command = command().disable_help_subcommand(true);
    command.build();
    let commands = command.get_subcommands().cloned();
    commands
        .map(|command| {
            let mut more = Page(Roff::new());
            if let Some(notes) = command.get_after_help().map(ToString::to_string) {
                more.section("NOTES").paragraphs(&notes.split("\n\n").collect::<Vec<_>>());
            }
            more.section("SEE ALSO").paragraphs(&["longsplice(8), longsplice.conf(5)"]);
            let name = format!("longsplice-{}", command.get_name());
            (format!("docs/man/{name}.8"), page_of(command.display_name(name), more.0))
        })
        .collect()
}

/// `longsplice.conf(5)`
fn file() -> String {
    let mut page = Page(Roff::new());
    page.0.control("TH", ["LONGSPLICE.CONF", "5", DATE, SOURCE, "File formats"]);
    page.section("NAME").paragraphs(&["longsplice.conf - configuration of longsplice(8), in nginx's language"]);
    page.section("DESCRIPTION").paragraphs(CONF_DESCRIPTION);
    page.section("DIRECTIVES");
    for directive in sorted(|class| matches!(class, Class::Understood)) {
        understood(&mut page, directive);
    }
    others(&mut page, "ACCEPTED WITHOUT EFFECT", |class| matches!(class, Class::Accepted(_)));
    others(&mut page, "ACCEPTED WITH A WARNING", |class| matches!(class, Class::Surprising(_)));
    others(&mut page, "NOT SUPPORTED YET", |class| matches!(class, Class::NotYet(..)));
    others(&mut page, "REFUSED", |class| matches!(class, Class::Refused(..)));
    page.section("FILES").entry(DEFAULT_FILE, "The file that longsplice(8) reads where -c names none.");
    page.section("SEE ALSO").paragraphs(&["longsplice(8), https://nginx.org/en/docs/dirindex.html"]);
    code_is_bold(&page.0.render())
}

fn others(page: &mut Page, title: &str, wanted: fn(Class) -> bool) {
    let rows = sorted(wanted);
    if !rows.is_empty() {
        page.section(title);
    }
    rows.into_iter().for_each(|directive| other(page, directive));
}

fn sorted(wanted: fn(Class) -> bool) -> Vec<&'static Definition> {
    let mut rows: Vec<_> = directives::all().iter().filter(|directive| wanted(directive.class)).collect();
    rows.sort_by_key(|directive| directive.name);
    rows
}

fn understood(page: &mut Page, directive: &Definition) {
    let Definition { name, contexts, form, merge, default, doc, .. } = directive;
    let default = if default.is_empty() { String::new() } else { format!("; default: `{default}`") };
    page.entry(name, doc);
    page.0.control("IP", []);
    page.paragraphs(&[&format!("Arguments: {}{default}. In {contexts}; {merge}.", directives::describe(*form))]);
}

fn other(page: &mut Page, directive: &Definition) {
    match directive.class {
        Class::Understood => {}
        Class::Accepted(why) | Class::Surprising(why) => {
            page.entry(directive.name, &directives::capitalised(why));
        }
        Class::Refused(instead, harmless) | Class::NotYet(instead, harmless) => {
            let harmless: Vec<_> = harmless.iter().map(|value| format!("`{value}`")).collect();
            let harmless =
                if harmless.is_empty() { String::new() } else { format!(" (let through: {})", harmless.join(", ")) };
            page.entry(directive.name, &format!("{}{harmless}", directives::capitalised(instead)));
        }
    }
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "longsplice", &mut script);
    String::from_utf8(script).expect("text")
}

/// Every committed file that is written here.
fn pages() -> Vec<(String, String)> {
    let mut pages = commands();
    pages.extend([
        ("docs/man/longsplice.8".to_owned(), program()),
        ("docs/man/longsplice.conf.5".to_owned(), file()),
        ("tuning/completions/longsplice.bash".to_owned(), completions(Shell::Bash)),
        ("tuning/completions/_longsplice".to_owned(), completions(Shell::Zsh)),
        ("tuning/completions/longsplice.fish".to_owned(), completions(Shell::Fish)),
    ]);
    pages
}

#[test]
fn the_committed_reference_pages_are_the_options_and_the_table() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, text) in pages() {
        let path = package.join(&name);
        if std::env::var_os("BLESS").is_some() {
            fs::create_dir_all(path.parent().expect("a directory")).unwrap();
            fs::write(&path, &text).unwrap();
        }
        assert!(
            fs::read_to_string(&path).is_ok_and(|committed| committed == text),
            "{name} is old: `BLESS=1 cargo test --lib the_committed_reference` writes it anew"
        );
    }
}

#[test]
fn every_option_and_every_directive_has_its_entry() {
    let (program, file) = (program(), file());
    for option in command().get_arguments().filter(|option| !option.is_hide_set()) {
        let named = match (option.get_long(), option.get_short()) {
            (Some(long), _) => format!("\\-\\-{}", long.replace('-', "\\-")),
            (None, Some(short)) => format!("\\fB\\-{short}\\fR"),
            (None, None) => continue,
        };
        assert!(program.contains(&named), "{named} is not in longsplice(8)");
    }
    for directive in directives::all() {
        let entry = format!(".TP\n\\fB{}\\fR\n", directive.name);
        assert!(file.contains(&entry), "{} is not in longsplice.conf(5)", directive.name);
    }
    assert!(program.contains(".SH SIGNALS\n") && program.contains("\\-s quit") && !program.contains('`'), "{program}");
    assert!(!file.contains('`'), "a backquote without its other half");
}
