//! `longsplice top`: arguments and exit status.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Arguments, say};
use crate::top;

const AFTER: &str = "Keys: q quit, Tab or 1 to 8 another table, s sort, r reverse, p pause, h help.

Examples:
  longsplice top -c nginx.conf
          the longsplice that runs this file, at its first `status` location
  longsplice top https://edge-7.example.com/status
          another machine's
  longsplice top --once unix:/run/longsplice/status.sock:/status
          one snapshot, to read or to mail

Exit status: 0, or 1 for any error.";

/// Watch a running longsplice in the terminal
#[derive(Debug, Args)]
#[command(after_help = AFTER, override_usage = "longsplice top [URL | -c FILE] [--once | --json]")]
pub(super) struct Top {
    #[command(flatten)]
    options: top::Options,
    /// Configuration file of the one to watch: its first `status` location is asked
    #[arg(short, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// Print this help
    #[arg(short = 'h', long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

impl Top {
    pub(super) fn run(&self) -> ExitCode {
        match self.watch() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("longsplice: [error] {error}"));
                ExitCode::FAILURE
            }
        }
    }

    fn watch(&self) -> Result<(), String> {
        let file = self.config.as_ref().map(|file| Arguments {
            config: Some(file.clone()),
            quiet: true,
            ..Arguments::default()
        });
        let config = file.map(|arguments| arguments.load()).transpose()?;
        top::run(&self.options, config.as_ref())
    }
}
