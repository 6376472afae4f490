//! Arguments of `bench`.

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

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani bench put -c 64 --value 1KiB -w 2\n  \
                         galvani bench get -c 64 -r 2 --count 200k\n  \
                         galvani bench mix -c 16 --reads 90 --duration 30s -o json")]
#[command(
    after_help = "Closed loop: a worker sends its next request when the last one is answered, \
                        so tail latencies are optimistic. Keys bench/00000000.. are made if absent \
                        and stay."
)]
pub(crate) struct Bench {
    /// What to do.
    #[arg(default_value = "mix")]
    pub(crate) workload: Workload,
    /// Workers: requests under way at once.
    #[arg(short, long, value_name = "N", default_value = "16",
          value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) concurrency: u32,
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
