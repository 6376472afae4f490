//! Arguments of `lagged`: running a lagged replica, and asking one that runs.
//!
//! Without a verb it runs one; with a verb it asks the one that runs in the directory. Moments are a
//! time, how long ago, or just before a write. Next to read: `commands/lagged.rs`.

use crate::args::data::InBucket;
use crate::args::value;
use crate::args::when::When;
use bytes::Bytes;
use clap::{Args, Subcommand};
use galvani_client::{Dot, NodeId, RequestId};
use galvani_model::ids::Origin;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Arguments of `lagged`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = false,
    before_help = "  galvani lagged --dir /var/lib/lagged --lag 1h         follow the cluster, an hour behind\n  \
                   galvani lagged pause --dir /var/lib/lagged            the first thing after an accident\n  \
                   galvani lagged ls cart/ --at 20m --dir ..             the keys of 20 minutes ago\n  \
                   galvani lagged get cart/42 --before DOT --dir ..      just before that write",
    after_help = "It is in no quorum: it makes no write slower, and losing it loses no data. Running one needs the\n\
                  role admin; asking one needs the account that runs it.\n\
                  see also: docs/recipes/lagged.md, galvani explain KEY -o json (names of writes)"
)]
pub(crate) struct Lagged {
    /// Its directory; made if there is none. To ask the one of a local cluster it may be left out.
    #[arg(long, global = true, value_name = "DIR", env = "GALVANI_LAGGED_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// How long a write waits before it is applied, 0s to 90 days. [default: what it was last set to;
    /// 1h for a new directory]
    #[arg(long, value_name = "TIME", value_parser = lag)]
    pub(crate) lag: Option<Duration>,
    /// What the nodes have as limits.feed_keep_ms: how long they keep what nothing needs any more.
    /// They do not tell; it is for seconds_to_truncation of the status. 0s: for ever. [default: 1day]
    #[arg(long, value_name = "TIME", value_parser = keep)]
    pub(crate) feed_keep: Option<Duration>,
    /// Leave the session of the terminal; used by `galvani dev`.
    #[arg(long, hide = true)]
    pub(crate) own_session: bool,
    /// What to ask of the one that runs. Without: run it, until it is stopped.
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// What is asked of a lagged replica that runs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// How far it is, how far back it can show, and whether all is well.
    Status,
    /// Apply nothing any more; writes still come in and wait.
    Pause,
    /// End a pause; what is due is applied at once.
    Resume,
    /// Change the lag. A shorter one takes moments from the window: it asks, or says --yes.
    SetLag(SetLag),
    /// Apply up to a point, whatever the lag says. There is no way back: it asks, or says --yes.
    Advance(Advance),
    /// Read a key as it was.
    Get(Get),
    /// List keys as they were.
    Ls(Ls),
    /// Compare keys as they were with the cluster as it is.
    Diff(Diff),
    /// Compare all that came with the cluster now, and read all files: done once a day anyway. Exit 7:
    /// something is wrong. 6: keys could not be read in the cluster.
    Verify,
    /// Bring keys back as they were. Shows what it would do; does it with --yes.
    Restore(Box<Restore>),
    /// Take a restore back, from its report. Shows what it would do; does it with --yes.
    Undo(Undo),
}

/// Arguments of `lagged set-lag`.
#[derive(Debug, Args)]
pub(crate) struct SetLag {
    /// How long a write waits, 0s to 90 days. A shorter one makes writes due at once.
    #[arg(value_name = "TIME", value_parser = lag)]
    pub(crate) lag: Duration,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Arguments of `lagged advance`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("point").required(true)))]
#[group(skip)]
pub(crate) struct Advance {
    /// All that came by this time (2026-11-21T05:31:07Z, or 20m: so long ago).
    #[arg(long, value_name = "WHEN", group = "point")]
    pub(crate) to: Option<When>,
    /// All that came before this write: its name, or as much of it as is unambiguous.
    #[arg(long, value_name = "DOT", group = "point")]
    pub(crate) before: Option<DotName>,
    /// All that came before the first write of this request.
    #[arg(long, value_name = "ID", group = "point")]
    pub(crate) before_request: Option<RequestId>,
    /// Do not ask.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Arguments of `lagged get`.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The key.
    #[arg(value_parser = value::key_parser())]
    pub(crate) key: Bytes,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
    #[command(flatten)]
    pub(crate) moment: MomentArgs,
}

/// Arguments of `lagged ls`.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only keys that start with this.
    #[arg(default_value = "", hide_default_value = true, value_parser = value::prefix_parser())]
    pub(crate) prefix: Bytes,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
    #[command(flatten)]
    pub(crate) moment: MomentArgs,
    /// End after so many keys.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

/// Arguments of `lagged diff`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit 7: writes came to the replica that the cluster does not show, and nothing known replaces them."
)]
pub(crate) struct Diff {
    /// Only keys that start with this.
    #[arg(default_value = "", hide_default_value = true, value_parser = value::prefix_parser())]
    pub(crate) prefix: Bytes,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
    #[command(flatten)]
    pub(crate) moment: MomentArgs,
}

/// Arguments of `lagged restore`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani lagged restore --prefix cart/ --at 20m            what it would do\n  \
                   galvani lagged restore --prefix cart/ --at 20m --yes      do it\n  \
                   galvani lagged restore --resume restore-5f01ab.jsonl --yes",
    after_help = "Pause first. A key is changed only if what is live now was there then, was replaced since, or is one\n\
                  of the bad writes: those that --without-.. names, else deletions. Anything else is a conflict,\n\
                  left alone and named. What is written back is written after a read, under its context: a write\n\
                  that comes in between stays as a sibling.\n\
                  Exit 4: conflicts are left. 6: a write failed, or a key could not be read; resume it."
)]
#[group(id = "selected", required = true, multiple = false, args = ["key", "prefix", "all", "resume"])]
pub(crate) struct Restore {
    /// This key.
    #[arg(long, value_name = "KEY", value_parser = value::key_parser())]
    pub(crate) key: Option<Bytes>,
    /// Keys that start with this.
    #[arg(long, value_name = "PREFIX", value_parser = value::prefix_parser())]
    pub(crate) prefix: Option<Bytes>,
    /// All keys of the bucket.
    #[arg(long)]
    pub(crate) all: bool,
    /// Go on with the job of this report.
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) bucket: InBucket,
    #[command(flatten)]
    pub(crate) moment: MomentArgs,
    /// Also delete keys that had no value then, where all they have now is bad.
    #[arg(long)]
    pub(crate) delete_newer: bool,
    /// Where the report goes. [default: restore-JOB.jsonl]
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub(crate) report: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

/// Arguments of `lagged undo`.
#[derive(Debug, Args)]
#[command(
    after_help = "A key that still shows exactly what the job wrote gets back what it had. Exit codes as of restore."
)]
pub(crate) struct Undo {
    /// The report of the restore.
    pub(crate) report: PathBuf,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

/// How keys are written back.
#[derive(Debug, Args)]
pub(crate) struct Manner {
    /// Do it. Without, it is only shown.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
    /// Only show what would be done: the default.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Keys a second at most.
    #[arg(long, value_name = "N", default_value = "2k", value_parser = value::count)]
    pub(crate) rate: NonZeroU64,
}

/// Which moment, and what to leave out.
#[derive(Debug, Args)]
pub(crate) struct MomentArgs {
    /// As of this time (2026-11-21T05:31:07Z), or so long ago (20m). [default: all that came]
    #[arg(long, value_name = "WHEN", group = "moment")]
    pub(crate) at: Option<When>,
    /// Just before this write: its name, or as much of it as is unambiguous (9f3c01:12).
    #[arg(long, value_name = "DOT", group = "moment")]
    pub(crate) before: Option<DotName>,
    /// Just before the first write of this request.
    #[arg(long, value_name = "ID", group = "moment")]
    pub(crate) before_request: Option<RequestId>,
    /// As if writes of this request had not been; may be said again.
    #[arg(long, value_name = "ID", help_heading = "Leaving out (what is said must all hold)")]
    pub(crate) without_request: Vec<RequestId>,
    /// As if writes that this node (its id) named had not been; may be said again.
    #[arg(long, value_name = "NODE_ID", help_heading = "Leaving out (what is said must all hold)")]
    pub(crate) without_author: Vec<NodeId>,
    /// As if writes from this time on had not been.
    #[arg(long, value_name = "WHEN", help_heading = "Leaving out (what is said must all hold)")]
    pub(crate) without_from: Option<When>,
    /// As if writes up to this time had not been.
    #[arg(long, value_name = "WHEN", help_heading = "Leaving out (what is said must all hold)")]
    pub(crate) without_until: Option<When>,
    /// As if deletions had not been.
    #[arg(long, help_heading = "Leaving out (what is said must all hold)")]
    pub(crate) without_deletes: bool,
}

/// The name of a write, whole or shortened as people are shown it: `9f3c01:12`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DotName {
    /// The first digits of its origin, at least one.
    pub(crate) origin: String,
    /// Its counter.
    pub(crate) counter: u64,
}

impl DotName {
    /// The write, if the name is whole.
    pub(crate) fn whole(&self) -> Option<Dot> {
        Some(Dot::new(self.origin.parse::<Origin>().ok()?, self.counter))
    }
}

impl FromStr for DotName {
    type Err = String;

    fn from_str(text: &str) -> Result<DotName, String> {
        let bad = || format!("{text:?} is not the name of a write, such as 9f3c01:12");
        let (origin, counter) = text.split_once([':', '.']).ok_or_else(bad)?;
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let counter: u64 = counter.parse().map_err(|_| bad())?;
        match (1..=32).contains(&origin.len()) && is_hex(origin) && counter > 0 {
            true => Ok(DotName { origin: origin.to_ascii_lowercase(), counter }),
            false => Err(bad()),
        }
    }
}

/// A lag: 0 to 90 days.
pub(crate) fn lag(text: &str) -> Result<Duration, String> {
    let lag = humantime::parse_duration(text).map_err(|error| format!("{error}, such as 1h"))?;
    let most = Duration::from_millis(galvani_lagged::config::LAG_MS_MAX);
    match lag <= most {
        true => Ok(lag),
        false => {
            let days = most.as_secs() / (24 * 3600);
            Err(format!(
                "a lag is at most {days} days ({days}d): the journal holds all that is written in it"
            ))
        }
    }
}

/// How long nodes keep what they have: 0 to 365 days, as in their configuration.
fn keep(text: &str) -> Result<Duration, String> {
    let keep = humantime::parse_duration(text).map_err(|error| format!("{error}, such as 1day"))?;
    match keep <= Duration::from_secs(365 * 24 * 3600) {
        true => Ok(keep),
        false => Err("limits.feed_keep_ms is at most 365 days (365d)".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{DotName, When};
    use crate::args::{Cli, Command};
    use clap::Parser;
    use std::time::{Duration, UNIX_EPOCH};

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn moments_are_times_spans_or_writes() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!("20s".parse::<When>().map(|when| when.unix_ms(now)), Ok(980_000));
        assert_eq!("1970-01-01T00:00:07Z".parse::<When>().map(|it| it.unix_ms(now)), Ok(7_000));
        assert!("yesterday".parse::<When>().is_err());
        let name: DotName = "9F3c01:12".parse().expect("short");
        assert_eq!((name.origin.as_str(), name.counter, name.whole()), ("9f3c01", 12, None));
        let whole = format!("{}.7", "0".repeat(31) + "a").parse::<DotName>().expect("whole");
        assert!(whole.whole().is_some());
        for bad in ["", "12", "x:1", "a:0", "a:", ":1", "a:b"] {
            assert!(bad.parse::<DotName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_verb_is_optional_and_the_directory_stands_anywhere() {
        let cli = Cli::try_parse_from("galvani lagged --lag 10m --dir d".split(' ')).expect("ok");
        let Command::Lagged(lagged) = cli.command else { panic!("lagged") };
        assert!(lagged.verb.is_none() && lagged.lag == Some(Duration::from_secs(600)));
        assert!(parses("galvani lagged --dir d status"));
        assert!(parses("galvani lagged status --dir d"));
        assert!(parses("galvani lagged verify --dir d"));
        assert!(parses("galvani lagged get k --before ab:1 --without-deletes --dir d"));
        assert!(parses("galvani lagged restore --prefix p --at 1m --yes --dir d"));
        assert!(parses("galvani lagged restore --resume f --yes --rate 10"));
        assert!(parses("galvani lagged advance --to 1m --yes"));
        assert!(parses("galvani lagged set-lag 90d --yes"));
        let long = Cli::try_parse_from("galvani lagged --lag 91d".split(' ')).map(drop);
        let said = long.expect_err("too long").to_string();
        assert!(said.contains("at most 90 days (90d)"), "{said}");
        for bad in [
            "galvani lagged --lag 91days",
            "galvani lagged advance",
            "galvani lagged advance --yes",
            "galvani lagged --feed-keep 366d",
            "galvani lagged advance --to 1m --before ab:1",
            "galvani lagged get k --at 1m --before ab:1",
            "galvani lagged get",
            "galvani lagged set-lag",
            "galvani lagged restore --at 1m",
            "galvani lagged restore --key k --prefix p",
            "galvani lagged restore --all --yes --dry-run",
            "galvani lagged undo",
        ] {
            assert!(!parses(bad), "{bad}");
        }
    }
}
