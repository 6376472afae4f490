//! Arguments of `tour`.
//!
//! What it shows is in `commands/tour/`.

use clap::Args;

/// Arguments of `tour`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani tour            step by step, Enter goes on\n  \
                         galvani tour --yes      without stops\n  \
                         galvani tour -o json    every command and what it said, for scripts")]
pub(crate) struct Tour {
    /// Do not stop between steps; so it is without a terminal too.
    #[arg(long)]
    pub(crate) yes: bool,
}
