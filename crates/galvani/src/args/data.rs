//! Arguments of the commands on keys: put, get, del, update, ls, import, export.
//!
//! Quorum options are the same everywhere; a command takes those that mean something for it.

use crate::args::value;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use galvani_model::bucket::BucketName;
use galvani_model::request::Quorum;
use galvani_model::topic::Topic;
use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

/// Which bucket.
#[derive(Clone, Debug, Args)]
pub(crate) struct InBucket {
    /// Bucket of the keys.
    #[arg(
        short,
        long,
        value_name = "BUCKET",
        env = "GALVANI_BUCKET",
        default_value = "default",
        value_parser = value::bucket
    )]
    pub(crate) bucket: BucketName,
}

/// What a read asks for.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ReadQuorum {
    /// Replicas that must answer: 1..7, one, majority, all. [default: the bucket's]
    #[arg(short, long, value_name = "N", env = "GALVANI_R", value_parser = value::quorum)]
    pub(crate) r: Option<Quorum>,
    /// Of those, how many must be owners (not stand-ins).
    #[arg(long, value_name = "N", value_parser = value::quorum)]
    pub(crate) pr: Option<Quorum>,
}

/// What a write asks for.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct WriteQuorum {
    /// Replicas that must store it: 1..7, one, majority, all. [default: the bucket's]
    #[arg(short, long, value_name = "N", env = "GALVANI_W", value_parser = value::quorum)]
    pub(crate) w: Option<Quorum>,
    /// Of those, how many must be owners (not stand-ins).
    #[arg(long, value_name = "N", value_parser = value::quorum)]
    pub(crate) pw: Option<Quorum>,
    /// Of those, how many must have it on disk (fsync) first.
    #[arg(long, value_name = "N", value_parser = value::quorum)]
    pub(crate) dw: Option<Quorum>,
}

/// What reads and writes ask for.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Copies {
    /// Count only the first N replicas of the preference list.
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=7))]
    pub(crate) n: Option<u8>,
    /// Owners only, no stand-ins; refuse before writing if too few are up.
    #[arg(long)]
    pub(crate) strict: bool,
}

/// Arguments of `put`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani put user/7 '{\"n\":\"Ada\"}'                    \
                         replace what is there, majority acks\n  \
                         galvani put user/7 @ada.json -w all --strict        \
                         all owners, or fail\n  \
                         galvani put user/7 - --context user7.ctx < ada.json \
                         replace only what that read saw\n  \
                         galvani put session/9 @token --ttl 30m              \
                         gone half an hour from now\n  \
                         galvani put order/7 @o.json --emit orders --payload @e.json  \
                         an event for the feed, with the write")]
#[command(after_help = "Without --context or --blind, put replaces what a read at r sees.\n\
                        see also: galvani help quorums, galvani help exit-codes")]
pub(crate) struct Put {
    /// The key.
    #[arg(value_parser = value::key_parser())]
    pub(crate) key: Bytes,
    /// The value: text, - for stdin, or @FILE (@@ for a value that starts with @).
    #[arg(value_name = "VALUE|-|@FILE", required_unless_present_any = ["take", "emit_only"])]
    pub(crate) value: Option<OsString>,
    /// Store an event of the application with the write, atomically: its topic. Once for each event.
    #[arg(long, value_name = "TOPIC", value_parser = crate::args::feed::topic)]
    pub(crate) emit: Vec<Topic>,
    /// What the event says: text, - for stdin, or @FILE; one for each --emit, in their order.
    #[arg(long, value_name = "TEXT|-|@FILE", requires = "emit")]
    pub(crate) payload: Vec<OsString>,
    /// The application's key of the events.
    #[arg(long, value_name = "TEXT", requires = "emit")]
    pub(crate) emit_key: Option<String>,
    /// Only the events, no value: the key says where they are kept.
    #[arg(long, requires = "emit",
          conflicts_with_all = ["value", "take", "context", "blind", "ttl", "context_out"])]
    pub(crate) emit_only: bool,
    /// Replace only what this context saw: its text, or a file that holds it.
    #[arg(long, value_name = "FILE|TEXT", conflicts_with_all = ["blind", "take"])]
    pub(crate) context: Option<String>,
    /// Replace nothing: a sibling of whatever is there.
    #[arg(long, conflicts_with = "take")]
    pub(crate) blind: bool,
    /// Pick sibling N, as numbered by get, in place of all of them.
    #[arg(long, value_name = "N", conflicts_with = "value")]
    pub(crate) take: Option<usize>,
    /// Write the new context to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) context_out: Option<PathBuf>,
    /// How long the value lives: 1s to ten years, or none. [default: the bucket's]
    #[arg(long, value_name = "TIME", value_parser = value::ttl)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) write: WriteQuorum,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}

/// How siblings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SiblingsAs {
    /// One line each, numbered.
    Table,
    /// JSON with values, nodes, times and the context.
    Json,
}

/// Arguments of `get`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani get user/7                        \
                         the value and a newline; majority answers\n  \
                         galvani get user/7 -r all -o raw > f      exact bytes\n  \
                         galvani get user/7 --context-out f.ctx    \
                         keep what was seen, to write after it")]
#[command(after_help = "Exit 3: no value. Exit 4: siblings; -o json prints them all, \
                        --siblings makes that exit 0.\n\
                        see also: galvani help quorums, galvani help exit-codes")]
pub(crate) struct Get {
    /// The key.
    #[arg(value_parser = value::key_parser())]
    pub(crate) key: Bytes,
    /// Show all siblings, and do not call them an error.
    #[arg(long, value_name = "AS")]
    pub(crate) siblings: Option<SiblingsAs>,
    /// Write the context to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) context_out: Option<PathBuf>,
    /// When replicas that lack what is found get it.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = RepairWhen::Background)]
    pub(crate) repair: RepairWhen,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}

/// When a read repairs replicas that lack what it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RepairWhen {
    /// After the answer.
    Background,
    /// Before it: r replicas hold what is shown, so no later majority read shows less.
    Blocking,
}

/// Arguments of `del`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani del user/7                 delete what a read at r sees\n  \
                         galvani del a b c -w all           several keys\n  \
                         galvani del --prefix tmp/ --yes    every key that starts with tmp/")]
pub(crate) struct Del {
    /// The keys.
    #[arg(
        required_unless_present = "prefix",
        conflicts_with = "prefix",
        value_parser = value::key_parser()
    )]
    pub(crate) keys: Vec<Bytes>,
    /// Delete every key that starts with this.
    #[arg(long, value_name = "PREFIX",
          value_parser = value::prefix_parser())]
    pub(crate) prefix: Option<Bytes>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Delete only what this context saw: its text, or a file that holds it. One key only.
    #[arg(long, value_name = "FILE|TEXT", conflicts_with = "prefix")]
    pub(crate) context: Option<String>,
    #[command(flatten)]
    pub(crate) write: WriteQuorum,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}

/// Arguments of `update`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani update cart/42 -- jq -rs '[.[].value|split(\",\")[]]|unique|join(\",\")'\n  \
                         galvani update hits -- sh -c 'jq -rs \"([.[].value|tonumber]|max // 0) + 1\"'\n  \
                         galvani update k --exact -- cat new.bin\n  \
                         galvani update session/9 --ttl 30m -- jq -rj .value"
)]
#[command(
    after_help = "The command gets one JSON line per value on stdin ({\"value\" or \"value_b64\", \
                        \"node\", \"written_at\"}; nothing if the key is absent) and prints the \
                        merged value. If it fails, nothing is written. If others wrote at the same \
                        time, it is run again. --timeout is for all rounds together, without the \
                        time the command itself takes."
)]
pub(crate) struct Update {
    /// The key.
    #[arg(value_parser = value::key_parser())]
    pub(crate) key: Bytes,
    /// Keep a newline at the end of what the command prints (else one is taken off).
    #[arg(long)]
    pub(crate) exact: bool,
    /// How long what it writes lives: 1s to ten years, or none. [default: the bucket's]
    #[arg(long, value_name = "TIME", value_parser = value::ttl)]
    pub(crate) ttl: Option<Duration>,
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) write: WriteQuorum,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}

/// Arguments of `ls`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani ls                  every key of bucket default\n  \
                         galvani ls cart/ --conflicts       keys with siblings\n  \
                         galvani ls -o jsonl --limit 10     for scripts")]
#[command(after_help = "Keys are spread by hash: they come in no order. Keys written or deleted \
                        meanwhile may or may not be listed.")]
pub(crate) struct Ls {
    /// Only keys that start with this.
    #[arg(default_value = "", hide_default_value = true,
          value_parser = value::prefix_parser())]
    pub(crate) prefix: Bytes,
    /// Only keys with siblings.
    #[arg(long)]
    pub(crate) conflicts: bool,
    /// At most this many.
    #[arg(long, value_name = "N", value_parser = value::count)]
    pub(crate) limit: Option<NonZeroU64>,
    /// Only the keys, one a line.
    #[arg(long)]
    pub(crate) keys_only: bool,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    /// Owners only, no stand-ins.
    #[arg(long)]
    pub(crate) strict: bool,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani import pkgs.jsonl -w 2       load a file\n  \
                         zcat a.jsonl.gz | galvani import -   load stdin\n  \
                         galvani import a.jsonl --failed b.jsonl; galvani import b.jsonl")]
#[command(after_help = "One record a line: {\"key\" or \"key_b64\", \"value\" or \"value_b64\"}; \
                        several values: {\"key\", \"siblings\":[{\"value\"},..]}. A value with \
                        \"expires_at\" (2026-11-21T05:31:07.120Z) ends then, one with null never, \
                        others as the bucket says; what has ended, or has less than a second left, \
                        is left out and counted. Other fields are ignored. A record that is there \
                        already is not written again, so an import that was cut short is simply \
                        started again (--skip saves time); values that differ are replaced.")]
pub(crate) struct Import {
    /// The file, or - for stdin.
    #[arg(value_name = "FILE.jsonl|-")]
    pub(crate) file: PathBuf,
    /// Records under way at once.
    #[arg(short, long, value_name = "N", default_value = "64",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// Write without reading first: faster; values that are there stay as siblings.
    #[arg(long)]
    pub(crate) blind: bool,
    /// Skip this many lines of the file.
    #[arg(long, value_name = "LINES", default_value = "0")]
    pub(crate) skip: u64,
    /// Write the records that failed to this file, to be imported again.
    #[arg(long, value_name = "FILE")]
    pub(crate) failed: Option<PathBuf>,
    /// How long to wait for a cluster that answers nothing, or for one record, before giving up.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = value::duration)]
    pub(crate) patience: Duration,
    /// Give up after this many failures.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = value::count)]
    pub(crate) max_failures: NonZeroU64,
    #[command(flatten)]
    pub(crate) write: WriteQuorum,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani export all.jsonl -r 2      every record of bucket default\n  \
                         galvani export - --prefix cart/    some, to stdout\n  \
                         galvani export all.jsonl -b shop   of another bucket")]
#[command(after_help = "The file appears under its name when it is whole; until then it is \
                        FILE.part, which goes if the export fails or is interrupted: start it \
                        again. Records have the form that import reads, in no order.")]
pub(crate) struct Export {
    /// The file, or - for stdout.
    #[arg(value_name = "FILE.jsonl|-")]
    pub(crate) file: PathBuf,
    /// Only keys that start with this.
    #[arg(long, default_value = "", hide_default_value = true,
          value_parser = value::prefix_parser())]
    pub(crate) prefix: Bytes,
    /// Records under way at once.
    #[arg(short, long, value_name = "N", default_value = "64",
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) concurrency: u16,
    /// How long to wait for a cluster that answers nothing, or for one record, before giving up.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = value::duration)]
    pub(crate) patience: Duration,
    #[command(flatten)]
    pub(crate) read: ReadQuorum,
    #[command(flatten)]
    pub(crate) copies: Copies,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
}
