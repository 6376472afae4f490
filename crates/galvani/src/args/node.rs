//! Arguments of `node`: taking a node out of the cluster, whether it is up or lost.
//!
//! Only shapes and bounds: what is done is in `commands/node.rs`.

use crate::args::line::Line;
use crate::args::value;
use clap::{Args, Subcommand};
use std::time::Duration;

/// What to do with a node.
#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// A node hands over all it holds, and leaves. It runs on, and may be stopped then.
    #[command(
        before_help = "  galvani node drain n4                    plans, applies, and waits until n4 is empty\n  \
                             galvani node drain n4 --wait-timeout 10m\n  \
                             galvani node drain n4 -o json"
    )]
    Drain(Leave),
    /// A node that is lost leaves: the others make up for its copies. Says what may be lost with it.
    #[command(
        before_help = "  galvani node forget n4                   what may be lost with it; asks for --yes\n  \
                             galvani node forget n4 --yes\n  \
                             galvani cluster plan replace n4 n9       instead: another one takes its place"
    )]
    Forget(Forget),
}

/// A node that leaves.
#[derive(Clone, Debug, Args)]
pub(crate) struct Leave {
    /// The node's name.
    pub(crate) node: String,
    /// How long to wait. [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) wait_timeout: Option<Duration>,
}

/// A node that is lost.
#[derive(Clone, Debug, Args)]
pub(crate) struct Forget {
    #[command(flatten)]
    pub(crate) leave: Leave,
    /// It is gone: what only it holds is lost unless it returns.
    #[arg(long)]
    pub(crate) yes: bool,
}

impl Leave {
    /// The command that was typed.
    pub(crate) fn line(&self, command: &'static str) -> Line {
        let time = self.wait_timeout.map(humantime::format_duration);
        Line::new(command)
            .place(&self.node)
            .given("--wait-timeout", time.map(|time| time.to_string().replace(' ', "")))
    }
}
