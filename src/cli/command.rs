//! What the program does instead of serving.

use clap::{ArgAction, Args, Subcommand};

use crate::top;

#[derive(Debug, Subcommand)]
#[command(subcommand_help_heading = "Commands", disable_help_subcommand = true)]
pub(super) enum Command {
    /// Watch a running longsplice in the terminal
    Top(Top),
}

#[derive(Debug, Args)]
#[command(after_help = "Keys: q quit, Tab or 1 to 8 another table, s sort, r reverse, p pause, h help.")]
pub(super) struct Top {
    #[command(flatten)]
    pub options: top::Options,
    /// Print this help
    #[arg(short = 'h', long, action = ArgAction::Help)]
    help: Option<bool>,
}
