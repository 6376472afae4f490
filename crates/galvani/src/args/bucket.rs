//! Arguments of `bucket`.
//!
//! What is not said is as in a new cluster's bucket `default`.

use crate::args::value;
use clap::{Args, Subcommand, ValueEnum};
use galvani_model::bucket::{BucketName, ConflictPolicy, FeedMode};
use galvani_model::request::Quorum;
use std::time::Duration;

/// Arguments of `bucket`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani bucket list\n  \
                         galvani bucket create logs -n 5 -w 2 --policy lww\n  \
                         galvani bucket create sessions --ttl 1h --feed off\n  \
                         galvani bucket show logs")]
pub(crate) struct Bucket {
    #[command(subcommand)]
    pub(crate) command: BucketCommand,
}

/// What to do with buckets.
#[derive(Debug, Subcommand)]
pub(crate) enum BucketCommand {
    /// Make a bucket. Making it again with the same properties changes nothing.
    Create(Create),
    /// All buckets and their properties.
    List,
    /// One bucket's properties.
    Show {
        /// Its name.
        #[arg(value_parser = value::bucket)]
        name: BucketName,
    },
}

/// Arguments of `bucket create`. What is not said is as in a new cluster's bucket `default`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name: 1 to 64 of a-z 0-9 . _ -
    #[arg(value_parser = value::bucket)]
    pub(crate) name: BucketName,
    /// Copies of each key, for the bucket's life. [default: bucket default's]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    pub(crate) n: Option<u8>,
    /// Answers a read needs unless it says otherwise.
    #[arg(short, value_name = "N", default_value = "majority", value_parser = value::quorum)]
    pub(crate) r: Quorum,
    /// Acks a write needs unless it says otherwise.
    #[arg(short, value_name = "N", default_value = "majority", value_parser = value::quorum)]
    pub(crate) w: Quorum,
    /// What becomes of concurrent writes, for the bucket's life.
    #[arg(long, value_name = "POLICY", default_value = "siblings")]
    pub(crate) policy: Policy,
    /// Largest value, such as 64KiB or 4MiB; at most 16MiB.
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = value::size)]
    pub(crate) max_value: u64,
    /// How long values live unless a put says otherwise, for the bucket's life: 1s to ten years, or
    /// none.
    #[arg(long, value_name = "TIME", default_value = "none", value_parser = value::ttl)]
    pub(crate) ttl: Duration,
    /// What the change feed shows of its writes, for the bucket's life.
    #[arg(long, value_name = "WHAT", default_value = "new")]
    pub(crate) feed: Shown,
}

/// What the change feed shows of a bucket's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Shown {
    /// Nothing.
    Off,
    /// That a key was written, and by which write.
    Keys,
    /// The same, with the new value.
    New,
    /// The same, with the values it replaced, as long as they are kept.
    NewAndOld,
}

impl From<Shown> for FeedMode {
    fn from(shown: Shown) -> FeedMode {
        match shown {
            Shown::Off => FeedMode::Off,
            Shown::Keys => FeedMode::Keys,
            Shown::New => FeedMode::New,
            Shown::NewAndOld => FeedMode::NewAndOld,
        }
    }
}

/// What becomes of concurrent writes to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// All are kept, until a write that saw them replaces them.
    Siblings,
    /// The latest by hybrid clock wins; the others are dropped and counted.
    Lww,
}

impl From<Policy> for ConflictPolicy {
    fn from(policy: Policy) -> ConflictPolicy {
        match policy {
            Policy::Siblings => ConflictPolicy::Siblings,
            Policy::Lww => ConflictPolicy::Lww,
        }
    }
}
