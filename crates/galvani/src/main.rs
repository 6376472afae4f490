//! The `galvani` binary: server, command line, local cluster and load generator in one.
//!
//! A command is parsed by `args/`, done by `commands/` (or `dev/`), and ends with one of the codes
//! of `exit.rs`. Failures are blocks made in `report/`. It reaches clusters only through
//! `galvani-client`, and runs nodes only through `galvani-node`. Read `commands/mod.rs` next.

mod args;
mod commands;
mod connect;
mod context;
mod dev;
mod exit;
mod names;
mod output;
mod record;
mod report;

use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// A node frees on one thread what it made on another (memtables, above all) and makes small things
/// all the time: both cost the system's allocator more. Figures: docs/performance.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    match args::Cli::try_parse_from(&words) {
        Ok(cli) => commands::run(cli).into(),
        // Wrong usage, --help and --version: codes 2, 0 and 0.
        Err(error) => {
            let error = report::usage::clearer(&words).unwrap_or(error);
            report::usage::tell(&error, &words).into()
        }
    }
}
