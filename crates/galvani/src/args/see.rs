//! Arguments of the commands that look: status, explain, quorum.

use crate::args::data::InBucket;
use crate::args::value;
use bytes::Bytes;
use clap::{Args, Subcommand};
use galvani_model::request::Quorum as Answers;
use std::time::Duration;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani status           once\n  \
                         galvani status -w        again and again\n  \
                         galvani status -o json   for scripts")]
pub(crate) struct Status {
    /// Show it again and again, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// How often, with --watch.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = value::duration)]
    pub(crate) every: Duration,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani explain cart/42\n  \
                         galvani explain cart/42 -b shop\n  \
                         galvani explain cart/42 -o json")]
pub(crate) struct Explain {
    /// The key.
    #[arg(value_parser = value::key_parser())]
    pub(crate) key: Bytes,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}

/// What to say about quorums.
#[derive(Debug, Subcommand)]
pub(crate) enum Quorum {
    /// What a choice of n, r and w promises, survives and may miss. Asks no server.
    Explain(QuorumExplain),
}

/// Arguments of `quorum explain`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani quorum explain                 n=3, majorities\n  \
                         galvani quorum explain -n 5 -r 2 -w 3  does not overlap, and says so\n  \
                         galvani quorum explain -n 3 -r 2 -w 2 --pw 2")]
pub(crate) struct QuorumExplain {
    /// Copies.
    #[arg(short, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=7))]
    pub(crate) n: u8,
    /// Answers a read needs: 1..7, one, majority, all.
    #[arg(short, value_name = "N", default_value = "majority", value_parser = value::quorum)]
    pub(crate) r: Answers,
    /// Acks a write needs: 1..7, one, majority, all.
    #[arg(short, value_name = "N", default_value = "majority", value_parser = value::quorum)]
    pub(crate) w: Answers,
    /// Of those, how many must be owners (not stand-ins).
    #[arg(long, value_name = "N", value_parser = value::quorum)]
    pub(crate) pw: Option<Answers>,
}
