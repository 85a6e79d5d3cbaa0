//! `longsplice doctor`: arguments, output, exit status.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use clap::{Args, value_parser};
use terminal_size::{Width, terminal_size_of};

use super::{Arguments, DEFAULT_FILE, has_colour_on, say};
use crate::{
    config::{self, Config},
    host::doctor::{self, Examination, Patient, WIDTH},
    limits::DOCTOR_TUNNELS,
};

/// Exit status where the question cannot be answered: bad usage, a file with errors, nobody who reads.
pub(super) const CANNOT_TELL: u8 = 2;
/// Exit status where something will bite.
const WILL_BITE: u8 = 1;

const AFTER: &str =
    "It reads, and changes nothing. Without -c the file is /etc/longsplice/longsplice.conf, if there is one.

Exit status: 0 nothing will bite, 1 something will, 2 it cannot tell.";

/// What of this host will bite at so many tunnels, and the command that mends it
#[derive(Debug, Args)]
#[command(after_help = AFTER, override_usage = "longsplice doctor [-c FILE] [--connections N] [--json]")]
pub(super) struct Doctor {
    /// Configuration file, or a conf.d fragment
    #[arg(short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What log and pid files are relative to [the file's directory]
    #[arg(short, value_name = "PREFIX")]
    prefix: Option<PathBuf>,
    /// Directives of the main context, before those of the file
    #[arg(short = 'g', value_name = "DIRECTIVES")]
    globals: Option<String>,
    /// Clients at once, each with a connection to a backend [what the file's limits allow, else 10000]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(1..=DOCTOR_TUNNELS))]
    connections: Option<u64>,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Print this help
    #[arg(short = 'h', long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Doctor {
    pub(super) fn run(&self) -> ExitCode {
        let file = match self.file() {
            Ok(file) => file,
            Err(error) => {
                say(&format!("longsplice: {error}"));
                return CANNOT_TELL.into();
            }
        };
        let examination = doctor::examine(&Patient {
            config: file.as_ref().map(|(name, config)| (name.as_path(), config)),
            tunnels: self.connections,
            cpus: thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            ..Patient::default()
        });
        if examination.is_blind() {
            say("longsplice: nothing of this host can be seen: no /proc/sys is mounted here");
            return CANNOT_TELL.into();
        }
        match self.print(&examination) {
            Ok(()) if examination.bites() => WILL_BITE.into(),
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => CANNOT_TELL.into(),
        }
    }

    /// The file that was named, or the default one if there is one.
    fn file(&self) -> Result<Option<(PathBuf, Config)>, String> {
        if self.config.is_none() && self.prefix.is_none() && !Path::new(DEFAULT_FILE).exists() {
            return match self.globals {
                Some(_) => Err("-g says nothing without a file: name one with -c".to_owned()),
                None => Ok(None),
            };
        }
        let arguments = Arguments {
            config: self.config.clone(),
            prefix: self.prefix.clone(),
            globals: self.globals.clone(),
            ..Arguments::default()
        };
        let loaded = config::load(&arguments.load_options()?);
        let name = arguments.file();
        match loaded.config {
            Some(config) => Ok(Some((name, config))),
            None => {
                say(&loaded.report.render(has_colour_on(&io::stderr()), false));
                Err(format!("{} cannot be used; without a file, the host alone is examined", name.display()))
            }
        }
    }

    fn print(&self, examination: &Examination) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut stdout, &examination.json())?;
            return writeln!(stdout);
        }
        let width = terminal_size_of(&stdout).map_or(WIDTH, |(Width(columns), _)| columns.into());
        let colour = has_colour_on(&stdout);
        stdout.write_all(examination.text(width, colour).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Arguments, Command};

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["longsplice", "doctor"], arguments].concat())
    }

    #[test]
    fn the_arguments_are_those_of_the_help() {
        let parsed = parse(&["-c", "x.conf", "--connections", "100000", "--json"]).unwrap();
        let Some(Command::Doctor(doctor)) = parsed.command else { panic!("no doctor") };
        assert_eq!((doctor.connections, doctor.json), (Some(100_000), true));
        for wrong in [&["--connections", "0"][..], &["--connections", "many"], &["-t"], &["stray"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(Arguments::try_parse_from(["longsplice", "-t", "doctor"]).is_err());
        let help = parse(&["--help"]).unwrap_err().to_string();
        assert!(help.contains("--connections") && help.contains("Exit status"), "{help}");
    }
}
