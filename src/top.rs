//! `longsplice top`: the status page in a terminal, over the same JSON. A client of a server that may run elsewhere: nothing of
//! the server's own is used here.

mod dashboard;
mod find;
mod history;
mod lines;
mod place;
mod source;
mod terminal;
mod units;
mod view;

use std::{
    io::{self, IsTerminal, Write},
    thread,
    time::Duration,
};

use self::{history::History, source::Source};
use crate::{config::Config, observe::status::Status};

/// What `top` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Status location: http://HOST:PORT/PATH, https://…, or unix:SOCKET:/PATH [http://127.0.0.1/status, or the first of -c FILE]
    pub url: Option<String>,
    /// Print one snapshot as text (also when the output is no terminal); its rates are those of one delay
    #[arg(long, conflicts_with = "json")]
    pub once: bool,
    /// Print the JSON as the server sends it
    #[arg(long)]
    pub json: bool,
    /// Take any certificate (https)
    #[arg(long)]
    pub insecure: bool,
    /// Seconds between two answers
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1.0, value_parser = delay)]
    pub delay: f64,
}

fn delay(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=60.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.1 to 60".to_owned()) }
}

/// Shows the status until somebody quits, or prints it.
///
/// # Errors
/// Nobody answers, or what answers is no status location; the terminal's own.
pub fn run(options: &Options, config: Option<&Config>) -> Result<(), String> {
    let place = match (&options.url, config) {
        (Some(url), _) => url.parse()?,
        (None, Some(config)) => find::find(config)?,
        (None, None) => place::DEFAULT.parse()?,
    };
    let source = Source::new(place, options.insecure)?;
    if options.json {
        let json = source.get()?;
        read(&json)?;
        return print(&json);
    }
    let delay = Duration::from_secs_f64(options.delay);
    let first = ask(&source)?;
    if options.once || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return once(&source, first, delay);
    }
    terminal::run(source, first, delay).map_err(|error| format!("the terminal cannot be used ({error})"))
}

fn ask(source: &Source) -> Result<Status, String> {
    read(&source.get()?)
}

/// Reads the JSON. What an older server does not say is zero or empty, but it says who it is.
fn read(json: &[u8]) -> Result<Status, String> {
    let status: Status = serde_json::from_slice(json).map_err(|error| format!("no status JSON: {error}"))?;
    if status.version.is_empty() || status.pid == 0 {
        return Err("JSON, but not of a status location".to_owned());
    }
    Ok(status)
}

/// One snapshot. Rates need two answers.
fn once(source: &Source, first: Status, delay: Duration) -> Result<(), String> {
    let mut history = History::default();
    history.add(first);
    thread::sleep(delay);
    history.add(ask(source)?);
    // In a file or a pipe nothing is cut: whoever reads it has a pager.
    let width = match crossterm::terminal::size() {
        Ok((width, _)) if io::stdout().is_terminal() => width.into(),
        _ => usize::MAX,
    };
    let text: String = view::snapshot(&history, width).iter().map(|line| line.text() + "\n").collect();
    print(text.as_bytes())
}

/// To stdout. Whoever closed the pipe has read enough.
fn print(bytes: &[u8]) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot be printed ({error})")),
        _ => Ok(()),
    }
}
