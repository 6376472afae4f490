//! `peers`: the same load on Galvani and on stores it is compared with.
//!
//! `load` speaks a peer's own protocol, `galvani` runs `galvani bench`; both append one line of JSON
//! per run to a file, and `table` makes the table of it. Starting and stopping servers is for the
//! scripts beside this crate. Next to read: `load.rs`, then the peers' files.

mod error;
mod etcd;
mod galvani;
mod http1;
mod k2v;
mod load;
mod processes;
mod redis;
mod resp;
mod result;
mod sigv4;
mod table;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(about = "Load on Galvani and its peers, side by side", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Load on a peer that runs.
    Load(load::Args),
    /// The same load on a Galvani cluster that runs, by `galvani bench`.
    Galvani(galvani::Args),
    /// A table of the runs in a file, with ratios.
    Table {
        /// What `load` and `galvani` wrote.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Load(args) => load::run(&args),
        Command::Galvani(args) => galvani::run(&args),
        Command::Table { file } => result::read(&file).map(|runs| print!("{}", table::of(&runs))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}
