//! The command line: nginx's options, a proxy in one line, and a demo when nothing is said.

mod doctor;
mod order;
#[cfg(test)]
mod pages;
mod quick;
mod top;
mod version;

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand, error::ErrorKind};

use self::{doctor::Doctor, order::Order, quick::Quick, top::Top};
use crate::{
    config::{self, Config, LoadOptions, Loaded, Source},
    demo, host,
    server::{self, Program},
};

/// Prefix (`-p`) and file (`-c`) when other options of nginx are given without them.
const DEFAULT_PREFIX: &str = "/etc/longsplice/";
const DEFAULT_FILE: &str = "/etc/longsplice/longsplice.conf";
/// What the configuration of `--listen` and `--to` is called in messages.
const QUICK_NAME: &str = "--listen/--to";

const USAGE: &str = "longsplice                              a demo: chat through the proxy in your browser
       longsplice -c FILE                      serve what an nginx file says
       longsplice -c FILE -t                   test the file
       longsplice --listen ADDR --to ADDR      serve without a file
       longsplice doctor [-c FILE]             what of this host will bite, and how to mend it
       longsplice top [URL | -c FILE]          watch a running one";

const EXAMPLES: &str = "Examples:
  longsplice -t -c /etc/nginx/conf.d/websocket.conf
          is my nginx file right, and what will surprise me?
  longsplice -c nginx.conf -g 'worker_processes 2;'
          run it with two workers, in the foreground
  longsplice -s quit -c nginx.conf
          end it once the last tunnel has closed
  longsplice -s upgrade -c nginx.conf
          go on with the program that was installed meanwhile, and lose nobody
  longsplice --listen 0.0.0.0:8080 --to 127.0.0.1:3000
          ws:// on port 8080, in front of an application on port 3000
  longsplice --listen 443 --tls-cert site.crt --tls-key site.key --to app1:3000 --to app2:3000
          wss:// in front of two, in turn
  longsplice --listen 8080 --to 3000 -T > nginx.conf
          the same as a file, to go on from
  longsplice doctor -c nginx.conf --connections 100000
          is this host ready for so many tunnels?
  longsplice top -c nginx.conf
          what the running one does, as its `status` location tells it

Exit status: 0, or 1 for any error.";

#[derive(Debug, Default, Parser)]
#[command(
    name = "longsplice",
    about = concat!("longsplice ", env!("CARGO_PKG_VERSION"), ": a WebSocket (ws/wss) edge proxy that runs your nginx file"),
    override_usage = USAGE,
    after_help = EXAMPLES,
    disable_help_flag = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    subcommand_help_heading = "Commands",
    max_term_width = 100,
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Configuration file, or a conf.d fragment [/etc/longsplice/longsplice.conf]
    #[arg(short, value_name = "FILE", overrides_with = "config", help_heading = "nginx's options")]
    config: Option<PathBuf>,
    /// What log and pid files are relative to [the file's directory]
    #[arg(short, value_name = "PREFIX", overrides_with = "prefix", help_heading = "nginx's options")]
    prefix: Option<PathBuf>,
    /// Directives of the main context, before those of the file
    #[arg(short = 'g', value_name = "DIRECTIVES", overrides_with = "globals", help_heading = "nginx's options")]
    globals: Option<String>,
    /// Error log where the file names none [stderr]
    #[arg(short, value_name = "FILE", overrides_with = "error_log", help_heading = "nginx's options")]
    error_log: Option<PathBuf>,
    /// Test the configuration: errors, warnings, and what has no effect here
    #[arg(short, overrides_with = "test", help_heading = "nginx's options")]
    test: bool,
    /// The same, and print every file that was read
    #[arg(short = 'T', overrides_with = "dump", help_heading = "nginx's options")]
    dump: bool,
    /// Say nothing but errors
    #[arg(short, overrides_with = "quiet", help_heading = "nginx's options")]
    quiet: bool,
    /// Signal the running process: stop, quit (after the last tunnel), reload, reopen, upgrade
    #[arg(
        short,
        value_name = "SIGNAL",
        hide_possible_values = true,
        overrides_with = "signal",
        help_heading = "nginx's options"
    )]
    signal: Option<Order>,

    /// PORT, ADDRESS:PORT or unix:PATH; may be given several times
    #[arg(long, value_name = "ADDR", requires = "to", conflicts_with_all = ["config", "signal"], help_heading = "Without a file")]
    listen: Vec<String>,
    /// Backend: PORT, NAME:PORT, https://NAME or unix:PATH; several take turns
    #[arg(long, value_name = "ADDR", requires = "listen", help_heading = "Without a file")]
    to: Vec<String>,
    /// Certificate chain (PEM): clients then speak wss:// and https://
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "listen", help_heading = "Without a file")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", requires = "listen", help_heading = "Without a file")]
    tls_key: Option<PathBuf>,
    /// Close a tunnel that was silent for so long: 90s, 10m [1h]
    #[arg(long, value_name = "TIME", requires = "listen", help_heading = "Without a file")]
    idle_timeout: Option<String>,

    /// Print the version
    #[arg(short = 'v', overrides_with = "version", help_heading = "Help")]
    version: bool,
    /// Print the version, how it was built, and what this host gives it
    #[arg(short = 'V', overrides_with = "build", help_heading = "Help")]
    build: bool,
    /// Print this help
    #[arg(short = 'h', long, short_alias = '?', action = clap::ArgAction::Help, help_heading = "Help")]
    help: Option<bool>,
}

/// What is no option of nginx: words in front, each with options of its own.
#[derive(Debug, Subcommand)]
enum Command {
    Doctor(Doctor),
    Top(Top),
}

/// Runs the program that the arguments (its own name first) describe. Exit codes are nginx's: 0 and 1.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() <= 1 {
        return demo::run();
    }
    let failure = if arguments[1] == "doctor" { doctor::CANNOT_TELL.into() } else { ExitCode::FAILURE };
    match Arguments::try_parse_from(arguments) {
        Ok(Arguments { command: Some(Command::Doctor(doctor)), .. }) => doctor.run(),
        Ok(Arguments { command: Some(Command::Top(top)), .. }) => top.run(),
        Ok(arguments) => arguments.run(),
        Err(error) => {
            // Nobody may be reading; the exit code says it too.
            let _ = error.print();
            if error.kind() == ErrorKind::DisplayHelp { ExitCode::SUCCESS } else { failure }
        }
    }
}

impl Arguments {
    fn run(&self) -> ExitCode {
        if self.build || self.version {
            say(&if self.build { version::long() } else { version::short() });
            if !self.test && !self.dump {
                return ExitCode::SUCCESS;
            }
        }
        let result = match self.signal {
            _ if self.test || self.dump => return self.run_test(),
            Some(order) => self.give(order),
            None => self.load().map(|config| self.serve(config)),
        };
        result.unwrap_or_else(|error| {
            say(&format!("longsplice: {error}"));
            ExitCode::FAILURE
        })
    }

    /// `-t` and `-T`, in nginx's words.
    fn run_test(&self) -> ExitCode {
        let failed = |name: &str| {
            say(&format!("longsplice: configuration file {name} test failed{}", self.cure_of_no_file()));
            ExitCode::FAILURE
        };
        let options = match self.load_options() {
            Ok(options) => options,
            Err(error) => {
                say(&format!("longsplice: {error}"));
                return failed(QUICK_NAME);
            }
        };
        let name = name_of(&options.file);
        let Loaded { config, mut report, files } = config::load(&options);
        let of_host = config.as_ref().map(host::lint);
        of_host.into_iter().flatten().for_each(|finding| report.push(finding));
        let findings = report.render(has_colour(), true);
        let Some(config) = config else {
            say(&findings);
            return failed(&name);
        };
        if !self.quiet {
            say(&findings);
            say(&format!("longsplice: the configuration file {name} syntax is ok"));
        }
        let errors = server::check(&config);
        for error in &errors {
            say(&format!("longsplice: [emerg] {error}"));
        }
        if !errors.is_empty() {
            return failed(&name);
        }
        if !self.quiet {
            say(&format!("longsplice: configuration file {name} test is successful"));
        }
        if self.dump { dump(&options.file, &files) } else { ExitCode::SUCCESS }
    }

    fn give(&self, order: Order) -> Result<ExitCode, String> {
        let config = self.load()?;
        let said =
            order.give(&config, &name_of(&self.load_options()?.file)).map_err(|error| format!("[error] {error}"))?;
        if let Some(said) = said.filter(|_| !self.quiet) {
            say(&format!("longsplice: {said}"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn serve(&self, config: Config) -> ExitCode {
        let hangup_ends = !self.listen.is_empty();
        let program = Program::started_as(std::env::args_os().collect()).ok();
        let source = self.load_options().ok().filter(|_| !hangup_ends);
        server::serve(config, server::Options { hangup_ends, program, source, ..server::Options::default() })
    }

    /// The configuration; its errors are told where they are found, so the text here is only the rest.
    fn load(&self) -> Result<Config, String> {
        let options = self.load_options()?;
        let Loaded { config, report, .. } = config::load(&options);
        let name = name_of(&options.file);
        let Some(config) = config else {
            say(&report.render(has_colour(), false));
            return Err(format!("[emerg] {name} cannot be used, nothing was done{}", self.cure_of_no_file()));
        };
        if report.warnings() > 0 && !self.quiet && self.signal.is_none() && self.listen.is_empty() {
            say(&format!("longsplice: [warn] warnings in {name}: {}; -t shows them", report.warnings()));
        }
        Ok(config)
    }

    fn cure_of_no_file(&self) -> &'static str {
        let default_missing = self.config.is_none() && self.listen.is_empty() && !Path::new(DEFAULT_FILE).exists();
        if default_missing { "; -c names another file, --help lists the ways to do without" } else { "" }
    }

    fn load_options(&self) -> Result<LoadOptions, String> {
        let file = if self.listen.is_empty() { Source::File(self.file()) } else { self.quick()? };
        let prefix = match (&self.prefix, &file) {
            (Some(prefix), _) => prefix,
            (None, Source::File(file)) => file.parent().unwrap_or(Path::new(DEFAULT_PREFIX)),
            (None, Source::Text { .. }) => Path::new("."),
        };
        let absolute = |path: &Path| std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()));
        Ok(LoadOptions {
            prefix: absolute(if prefix.as_os_str().is_empty() { Path::new(".") } else { prefix })?,
            file,
            globals: self.globals.clone(),
            conf_error_log: self.error_log.clone(),
        })
    }

    /// A relative `-c` is relative to `-p`, as in nginx; without `-p` to where the program is started, unlike nginx, whose
    /// compiled-in prefix surprises everybody.
    fn file(&self) -> PathBuf {
        let file = self.config.as_deref();
        match (&self.prefix, file) {
            (Some(prefix), file) => prefix.join(file.unwrap_or(Path::new("nginx.conf"))),
            (None, Some(file)) => file.to_owned(),
            (None, None) => PathBuf::from(DEFAULT_FILE),
        }
    }

    fn quick(&self) -> Result<Source, String> {
        let text = quick::configuration(&Quick {
            listen: &self.listen,
            to: &self.to,
            tls: self.tls_cert.as_deref().zip(self.tls_key.as_deref()),
            idle_timeout: self.idle_timeout.as_deref(),
        })?;
        Ok(Source::Text { name: QUICK_NAME.to_owned(), text })
    }
}

/// `-T`: every file under a line with its name; what was no file first.
fn dump(source: &Source, files: &[(PathBuf, String)]) -> ExitCode {
    let mut stdout = io::stdout().lock();
    let own = match source {
        Source::File(_) => None,
        Source::Text { name, text } => Some((Path::new(name), text)),
    };
    let mut all = own.into_iter().chain(files.iter().map(|(path, text)| (path.as_path(), text)));
    let written = all.try_for_each(|(path, text)| {
        writeln!(stdout, "# configuration file {}:", path.display())?;
        writeln!(stdout, "{text}")
    });
    match written.and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// A message on stderr; there is nowhere to complain when it is closed.
fn say(text: &str) {
    let text = text.trim_end();
    if !text.is_empty() {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

fn name_of(file: &Source) -> String {
    match file {
        Source::File(path) => path.display().to_string(),
        Source::Text { name, .. } => name.clone(),
    }
}

/// Colours are for people: none in a file or a pipe, and none for whoever set NO_COLOR (no-color.org).
fn has_colour() -> bool {
    has_colour_on(&io::stderr())
}

fn has_colour_on(output: &impl IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["longsplice"], arguments].concat())
    }

    #[test]
    fn nginx_forms_of_options_are_taken() {
        for form in [&["-tqc", "x.conf"][..], &["-t", "-q", "-cx.conf"], &["-c", "y", "-t", "-t", "-q", "-c", "x.conf"]]
        {
            let arguments = parse(form).unwrap();
            assert!(arguments.test && arguments.quiet);
            assert_eq!(arguments.config.as_deref(), Some(Path::new("x.conf")));
        }
        assert_eq!(parse(&["-s", "quit"]).unwrap().signal, Some(Order::Quit));
        assert!(parse(&["-s", "nonsense"]).is_err());
        assert!(parse(&["-Z"]).is_err());
        assert!(parse(&["stray"]).is_err());
        let top = parse(&["top", "-c", "x.conf", "--once"]).unwrap();
        assert!(matches!(top.command, Some(Command::Top(_))));
        for wrong in [&["top", "-c", "x", "http://y/"][..], &["top", "--once", "--json"], &["top", "-d", "0"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse(&["top", "--help"]).unwrap_err().kind(), ErrorKind::DisplayHelp);
        for help in ["-h", "-?", "--help"] {
            assert_eq!(parse(&[help]).unwrap_err().kind(), ErrorKind::DisplayHelp);
        }
    }

    #[test]
    fn what_belongs_together_is_asked_for_together() {
        assert!(parse(&["--listen", "80"]).is_err());
        assert!(parse(&["--to", "80"]).is_err());
        assert!(parse(&["--listen", "80", "--to", "81", "--tls-cert", "x"]).is_err());
        assert!(parse(&["--listen", "80", "--to", "81", "-c", "x"]).is_err());
        let arguments = parse(&["--listen", "80", "--listen", "81", "--to", "1", "--to", "2"]).unwrap();
        assert_eq!((arguments.listen.len(), arguments.to.len()), (2, 2));
    }

    #[test]
    fn files_and_prefixes_are_found_as_the_help_says() {
        let options = |arguments: &[&str]| {
            let options = parse(arguments).unwrap().load_options().unwrap();
            (name_of(&options.file), options.prefix)
        };
        let here = std::env::current_dir().unwrap();
        assert_eq!(options(&["-t"]), (DEFAULT_FILE.to_owned(), "/etc/longsplice".into()));
        assert_eq!(options(&["-c", "x.conf"]), ("x.conf".to_owned(), here.clone()));
        assert_eq!(options(&["-c", "/a/x.conf"]), ("/a/x.conf".to_owned(), "/a".into()));
        assert_eq!(options(&["-p", "/p", "-c", "x.conf"]), ("/p/x.conf".to_owned(), "/p".into()));
        assert_eq!(options(&["-p", "/p", "-c", "/a/x.conf"]), ("/a/x.conf".to_owned(), "/p".into()));
        assert_eq!(options(&["-p", "/p/"]), ("/p/nginx.conf".to_owned(), "/p/".into()));
        assert_eq!(options(&["--listen", "80", "--to", "81"]), (QUICK_NAME.to_owned(), here));
    }

    #[test]
    fn the_text_of_listen_and_to_can_be_loaded() {
        for more in [&["--idle-timeout", "1h30m"][..], &["--to", "[::1]:82"], &["--listen", "[::]:83"]] {
            let arguments = parse(&[&["--listen", "80", "--to", "localhost:81"], more].concat()).unwrap();
            let loaded = config::load(&arguments.load_options().unwrap());
            assert!(loaded.config.is_some(), "{}", loaded.report.render(false, false));
        }
    }

    #[test]
    fn the_help_has_its_groups_and_ends_with_examples() {
        let help = parse(&["-h"]).unwrap_err().to_string();
        let places: Vec<_> = ["Usage:", "nginx's options:", "Without a file:", "Help:", "Examples:", "Exit status:"]
            .map(|word| help.find(word))
            .into();
        assert!(places.is_sorted() && !places.contains(&None), "{help}");
        assert!(help.lines().all(|line| line.len() <= 110), "{help}");
    }
}
