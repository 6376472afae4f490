//! Arguments of `feed`.
//!
//! A beginning is a word, a time or a span of time. Next to read: `commands/feed.rs`.

use crate::args::value;
use crate::args::when::When;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use galvani_model::bucket::BucketName;
use galvani_model::topic::Topic;
use galvani_relay::Target;
use std::path::PathBuf;
use std::str::FromStr;

/// Arguments of `feed`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani feed cart/                              \
                         every write of keys that start with cart/, from now on\n  \
                         galvani feed --from start --until now -o jsonl  \
                         all that is kept, up to now\n  \
                         galvani feed --topic orders --token orders.pos  \
                         events of applications; goes on where it stopped\n  \
                         galvani feed --topic orders --token pos --to redis://127.0.0.1/orders  \
                         relay them; so does: -- ./index.sh")]
#[command(
    after_help = "Each write is shown once, whatever nodes it is read from. Writes of one key come in \
                  causal order; one that does not says late.\n\
                  -o jsonl: an event a line. -o raw: values and payloads as they are, with nothing \
                  between them.\n\
                  see also: galvani put --emit, galvani bucket create --feed"
)]
pub(crate) struct Feed {
    /// Only keys that start with this.
    #[arg(value_parser = value::prefix_parser())]
    pub(crate) prefix: Option<Bytes>,
    /// Only keys of this bucket; may be said again. [default: any]
    #[arg(short, long, value_name = "BUCKET", value_parser = value::bucket)]
    pub(crate) bucket: Vec<BucketName>,
    /// Only writes that this node coordinated; may be said again. [default: any]
    #[arg(long, value_name = "NODE")]
    pub(crate) author: Vec<String>,
    /// Events of applications with this topic, and no writes; may be said again.
    #[arg(long, value_name = "TOPIC", value_parser = topic)]
    pub(crate) topic: Vec<Topic>,
    /// Where to begin: now, start, a time (2026-11-21T05:31:07Z), or how long ago (2h).
    /// [default: now]
    #[arg(long, value_name = "WHEN")]
    pub(crate) from: Option<Since>,
    /// End when all that was written before this command is shown: now. [default: never]
    #[arg(long, value_name = "WHEN")]
    pub(crate) until: Option<Until>,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Keep the position in this file, and go on from it if there is one.
    #[arg(long, value_name = "FILE")]
    pub(crate) token: Option<PathBuf>,
    /// Share the events with the other members of this group, which keeps the position. The first to join
    /// makes it, with these options.
    #[arg(long, value_name = "GROUP",
          conflicts_with_all = ["token", "until", "on_gap", "checkpoints"])]
    pub(crate) group: Option<String>,
    /// No values.
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// From when on an event is shown. [default: any, and quorum with --topic]
    #[arg(long, value_name = "WHEN")]
    pub(crate) visibility: Option<Seen>,
    /// What to do when writes that were not shown are kept no more. [default: tell with --from, else
    /// fail]
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_gap: Option<Gaps>,
    /// Show also how far the feed is, every second.
    #[arg(long, conflicts_with_all = ["to", "command"])]
    pub(crate) checkpoints: bool,
    /// Deliver to this instead: file:PATH, http(s)://.., redis://HOST/STREAM, nats://HOST/PREFIX.
    #[arg(long, value_name = "TARGET", value_parser = target)]
    pub(crate) to: Option<Target>,
    /// File with the secret of the target: signs webhooks, is the password of Redis, the token of NATS.
    #[arg(long, value_name = "FILE", requires = "to")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Add to a file: target also if what is in it is not this command's.
    #[arg(long, requires = "to")]
    pub(crate) force: bool,
    /// How often one event is tried before this ends. [default: for ever; with CMD once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tries: Option<u32>,
    /// A command to run for each event: JSON on stdin, GALVANI_KEY, GALVANI_EVENT_ID, GALVANI_TOPIC.
    #[arg(last = true, value_name = "CMD", conflicts_with = "to")]
    pub(crate) command: Vec<String>,
}

fn target(text: &str) -> Result<Target, String> {
    text.parse().map_err(|error: galvani_relay::TargetError| error.to_string())
}

/// Where to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Since {
    /// With what is written from now on.
    #[default]
    Now,
    /// With all that is kept.
    Start,
    /// At a moment.
    From(When),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Since, String> {
        match text {
            "now" => Ok(Since::Now),
            "start" => Ok(Since::Start),
            _ => {
                text.parse().map(Since::From).map_err(|why: String| format!("{why}; or now, start"))
            }
        }
    }
}

/// When to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// When all that was written before the command began is shown.
    Now,
}

/// From when on an event is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Seen {
    /// As soon as one owner has it.
    Any,
    /// Once most owners have it.
    Quorum,
}

/// What to do when writes that were not shown are kept no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gaps {
    /// End with an error; the position stays before the gap.
    Fail,
    /// Say so and go on.
    Tell,
    /// Say so and show that shard anew from its beginning.
    Restart,
}

/// A topic.
pub(crate) fn topic(text: &str) -> Result<Topic, String> {
    text.parse().map_err(|error: galvani_model::topic::TopicError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::Since;
    use crate::args::when::When;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    #[test]
    fn a_beginning_is_a_word_a_time_or_a_span() {
        assert_eq!("now".parse(), Ok(Since::Now));
        assert_eq!("start".parse(), Ok(Since::Start));
        assert_eq!("2h".parse(), Ok(Since::From(When::Ago(Duration::from_secs(7_200)))));
        let at: SystemTime = UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!("1970-01-02T00:00:00Z".parse(), Ok(Since::From(When::At(at))));
        assert!("yesterday".parse::<Since>().is_err());
    }
}
