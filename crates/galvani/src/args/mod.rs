//! The command line as types: one file per group of commands.
//!
//! Everything is checked here, before anything else happens: what comes out of this folder is
//! valid. Flags go before `GALVANI_*`, which go before the context's file, which goes before the
//! defaults. Next to read: `value.rs`, the parsers of single values.

pub(crate) mod bench;
pub(crate) mod bucket;
pub(crate) mod cluster;
pub(crate) mod data;
pub(crate) mod dev;
pub(crate) mod faults;
pub(crate) mod feed;
pub(crate) mod group;
pub(crate) mod lagged;
pub(crate) mod line;
pub(crate) mod node;
pub(crate) mod plan;
pub(crate) mod repair;
pub(crate) mod retype;
pub(crate) mod see;
pub(crate) mod tour;
pub(crate) mod value;
pub(crate) mod wait;
pub(crate) mod when;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// A leaderless, replicated key-value store: server, command line, local cluster and bench.
#[derive(Debug, Parser)]
#[command(
    name = "galvani",
    version,
    about,
    before_help = "  galvani dev -d                      a local cluster of three nodes\n  \
                   galvani put greeting hello -w 2     store, two replicas must ack\n  \
                   galvani get greeting -r 2           read, two replicas must answer",
    after_help = "see also: galvani help quorums, galvani help exit-codes, galvani help errors",
    disable_help_subcommand = true,
    infer_subcommands = false,
    max_term_width = 100
)]
pub(crate) struct Cli {
    /// Which cluster: the name of a context (see `galvani ctx ls`). After the command say --ctx.
    #[arg(long = "context", id = "cluster_context", value_name = "NAME")]
    pub(crate) context: Option<String>,
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Which cluster: the name of a context. The same as --context before the command.
    #[arg(long = "ctx", global = true, value_name = "NAME", env = "GALVANI_CONTEXT")]
    pub(crate) ctx: Option<String>,
    /// Servers to ask, instead of the context's; one that answers is enough.
    #[arg(long, global = true, value_name = "ADDR", env = "GALVANI_SERVER", value_delimiter = ',')]
    pub(crate) server: Vec<String>,
    /// Send requests on keys to this node alone (n1, ..): to see the cluster with its eyes.
    #[arg(long, global = true, value_name = "NODE")]
    pub(crate) via: Option<String>,
    /// Directory with ca.pem, cert.pem and key.pem, instead of the context's.
    #[arg(long, global = true, value_name = "DIR", env = "GALVANI_IDENTITY")]
    pub(crate) identity: Option<PathBuf>,
    /// Time a command on one key has, connecting and retries included: 1ms to 60s. Commands on many
    /// keys have it for each request. [default: 2s]
    #[arg(
        long,
        global = true,
        value_name = "TIME",
        env = "GALVANI_TIMEOUT",
        value_parser = value::timeout
    )]
    pub(crate) timeout: Option<Duration>,
    /// How data is written to stdout.
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        env = "GALVANI_OUTPUT",
        default_value = "table"
    )]
    pub(crate) output: Format,
    /// Say nothing but data and errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more: what each replica answered.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// Colours.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// One JSON document with a schema name.
    Json,
    /// One JSON document a line.
    Jsonl,
    /// Exact bytes, nothing added.
    Raw,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal.
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a cluster of real processes on this machine.
    Dev(Box<dev::Dev>),
    /// A partition, siblings and their merge in a minute, on a throw-away cluster.
    Tour(tour::Tour),
    /// Store a value.
    Put(data::Put),
    /// Read a value.
    Get(data::Get),
    /// Delete keys.
    Del(data::Del),
    /// Read, merge with a command, and write under the context read.
    Update(data::Update),
    /// List keys, over all partitions.
    Ls(data::Ls),
    /// The change feed: every write as it happens, or events of applications.
    Feed(Box<feed::Feed>),
    /// Groups of consumers: members, positions, dead letters.
    Group(group::Group),
    /// A replica that follows at a delay: run one, or look at what was there.
    Lagged(lagged::Lagged),
    /// Buckets: groups of keys that share n, default quorums and a conflict policy.
    Bucket(bucket::Bucket),
    /// Load records of a JSON lines file.
    Import(data::Import),
    /// Write all records to a JSON lines file.
    Export(data::Export),
    /// How the cluster is and what it can still lose.
    Status(see::Status),
    /// Wait until the cluster is ready, settled, free of hints, ...
    Wait(wait::Wait),
    /// Read all data, mend what is damaged, compare it with the other owners.
    Repair(repair::Repair),
    /// Where a key lives and what each replica holds of it.
    Explain(see::Explain),
    /// What n, r and w promise.
    #[command(subcommand)]
    Quorum(see::Quorum),
    /// Measure: open or closed loop, percentiles, CPU per operation; check what was written.
    Bench(Box<bench::Bench>),
    /// Run one node.
    Server(cluster::Server),
    /// Take a node out of the cluster: one that is up, or one that is lost.
    #[command(subcommand)]
    Node(node::Node),
    /// Make clusters of real hosts, and change which nodes they have.
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    /// Which clusters this machine knows.
    #[command(subcommand)]
    Ctx(cluster::Ctx),
    /// Print shell completions.
    Completions(cluster::Completions),
    /// Print the version.
    Version,
    /// Pages: quorums, exit-codes, errors; or the help of a command.
    Help(cluster::Help),
}

impl Command {
    /// Its name, as in the schemas of its JSON.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Command::Dev(_) => "dev",
            Command::Put(_) => "put",
            Command::Get(_) => "get",
            Command::Del(_) => "del",
            Command::Update(_) => "update",
            Command::Ls(_) => "ls",
            Command::Feed(_) => "feed",
            Command::Group(_) => "group",
            Command::Lagged(_) => "lagged",
            Command::Bucket(_) => "bucket",
            Command::Import(_) => "import",
            Command::Export(_) => "export",
            Command::Status(_) => "status",
            Command::Tour(_) => "tour",
            Command::Wait(_) => "wait",
            Command::Repair(_) => "repair",
            Command::Explain(_) => "explain",
            Command::Quorum(_) => "quorum",
            Command::Bench(_) => "bench",
            Command::Server(_) => "server",
            Command::Cluster(_) => "cluster",
            Command::Node(_) => "node",
            Command::Ctx(_) => "ctx",
            Command::Completions(_) => "completions",
            Command::Version => "version",
            Command::Help(_) => "help",
        }
    }
}

#[cfg(test)]
mod tests;
