//! Arguments of `bench`.
//!
//! What they mean together is checked in `commands/bench.rs`. Next to read: that.

use crate::args::data::{Copies, InBucket, ReadQuorum, WriteQuorum};
use crate::args::value;
use clap::{Args, ValueEnum};
use std::num::NonZeroU64;
use std::time::Duration;

/// What a bench does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Writes, each after the last one of its key.
    Put,
    /// Reads.
    Get,
    /// Both, see --reads.
    Mix,
}

impl Workload {
    /// Percent of operations that are reads, if `mixed` of a mix are.
    pub(crate) fn reads(self, mixed: u8) -> u8 {
        match self {
            Workload::Put => 0,
            Workload::Get => 100,
            Workload::Mix => mixed,
        }
    }
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani bench put -c 64 --value 1KiB -w 2\n  \
                         galvani bench get -c 64 -r 2 --count 200k\n  \
                         galvani bench mix -c 16 --reads 90 --duration 30s -o json\n  \
                         galvani bench mix --rate 2k         2,000 requests a second, come what may\n  \
                         galvani bench mix --overload        0.5 to 4 times what the cluster can do")]
#[command(
    after_help = "Closed loop: a worker sends its next request when the last one is answered, \
                        so tail latencies are optimistic. --rate and --overload are open loops: requests \
                        start on schedule, their latency counts from when they were due, and \
                        none is tried again. Keys bench/00000000.. are made if absent and stay.\n\
                        Exit 1: requests failed; with --rate what was refused, late or not sent is \
                        counted, and no failure; with --overload nothing is. 130: Ctrl-C, no figures."
)]
pub(crate) struct Bench {
    /// What to do.
    #[arg(default_value = "mix")]
    pub(crate) workload: Workload,
    /// Workers: requests under way at once. With --rate the most that may be; what comes beyond it
    /// is not sent, and counted. [default: 16; with --rate or --overload as many as there are keys]
    #[arg(short, long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) concurrency: Option<u32>,
    /// Requests a second, on schedule whether or not earlier ones were answered, without retries.
    #[arg(long, value_name = "R", value_parser = value::count, conflicts_with = "count")]
    pub(crate) rate: Option<NonZeroU64>,
    /// Find what the cluster can do, then offer 0.5, 1, 2 and 4 times as much.
    #[arg(long, conflicts_with_all = ["count", "rate"])]
    pub(crate) overload: bool,
    /// Keys; at least one for each worker.
    #[arg(long, value_name = "N", default_value = "10k", value_parser = value::count)]
    pub(crate) keys: NonZeroU64,
    /// Bytes of each value.
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = value::size)]
    pub(crate) value: u64,
    /// Stop after this many operations.
    #[arg(long, value_name = "N", value_parser = value::count, conflicts_with = "duration")]
    pub(crate) count: Option<NonZeroU64>,
    /// Stop after this time. [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) duration: Option<Duration>,
    /// Run this long before measuring.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = value::duration)]
    pub(crate) warmup: Duration,
    /// Percent of operations that are reads, of workload mix.
    #[arg(long, value_name = "PERCENT", default_value = "50",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) reads: u8,
    #[command(flatten)]
    pub(crate) write: WriteQuorum,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}
