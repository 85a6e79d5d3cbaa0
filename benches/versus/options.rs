//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// longsplice beside nginx and other proxies
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench versus --")]
pub struct Options {
    /// Rows with one of these in their name: a part (echo, wss, x100), several parts (bulk-ws-down), or parts that must all be
    /// there (bulk+wss+x50); all: every row. Without it: the rows that matter most
    #[arg(long, value_delimiter = ',', value_name = "WORD")]
    pub only: Vec<String>,
    /// Only these (nginx, nginx-64k, haproxy, haproxy-splice, longsplice; direct: no proxy at all)
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub peers: Vec<String>,
    /// Rounds: each row with each peer so often
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Length of one measurement, seconds (0.05 to 60)
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub secs: f64,
    /// Tunnels of the memory rows; as many as the descriptor limit allows, at most 10,000, if not given
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    idle_tunnels: Option<u32>,
    /// Where the tables go
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/results"), value_name = "DIR")]
    pub out: PathBuf,
    /// Print the rows and end
    #[arg(long)]
    pub list: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Reads the command line; a wrong one ends the program with a message.
    pub fn read() -> Self {
        Self::parse()
    }

    /// Length of one measurement.
    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(self.secs)
    }

    /// Tunnels of the memory rows.
    pub fn idle_tunnels(&self) -> Option<usize> {
        self.idle_tunnels.map(|count| count as usize)
    }

    /// A file of the results. A selection of rows or peers has files of its own, so that it never replaces the whole.
    pub fn file(&self, ending: &str) -> PathBuf {
        let is_whole = (self.only.is_empty() || self.only == ["all"]) && self.peers.is_empty();
        self.out.join(format!("{}{ending}", if is_whole { "versus" } else { "partial" }))
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(secs) if (0.05..=60.0).contains(&secs) => Ok(secs),
        _ => Err("0.05 to 60".into()),
    }
}
