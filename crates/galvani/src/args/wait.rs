//! Arguments of `wait`, and what may be waited for.
//!
//! Only words and their meaning here: what makes a condition true is in `commands/wait.rs`.

use crate::args::line::Line;
use crate::args::value;
use clap::Args;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani wait --for ready                  r and w of bucket default can be met\n  \
                   galvani wait --for hints=0                stand-ins have handed over everything\n  \
                   galvani wait --for settled --patience 5m  all up, no hints, nobody behind\n  \
                  galvani wait --for settled --but n3       the same, but n3 may lack anything",
    after_help = "What may be waited for:\n  \
                  ready       every partition has the owners that r and w of bucket default need\n  \
                  up=N        at least N nodes answer            node=n3:up  this node answers\n  \
                  hints=N     at most N hints are held           behind=N    at most N shards lack something\n  \
                  settled     all nodes answer and reach each other, the layout is not changing, no hints,\n              \
                  nothing behind, and that for three seconds: so long takes a replica to notice\n              \
                  what it lacks\n\
                  With --but NODE hints for that node, and what it lacks itself, do not count; hints that it\n\
                  holds for others do. Then what only it has is what nobody else has acked (w=1).\n\
                  Exit 7: not so in time; 8: no server answered at all; 2: it can never be so."
)]
pub(crate) struct Wait {
    /// What to wait for; all of them, if given several times.
    #[arg(long = "for", value_name = "WHAT", required = true)]
    pub(crate) conditions: Vec<Condition>,
    /// A node that may lack anything: whose files are damaged, say.
    #[arg(long, value_name = "NODE")]
    pub(crate) but: Option<String>,
    /// How long. [default: --timeout, else 60s]
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) patience: Option<Duration>,
}

impl Wait {
    /// The command that was typed.
    pub(crate) fn line(&self) -> Line {
        let line = Line::new("wait");
        let line = self.conditions.iter().fold(line, |line, one| line.another("--for", one));
        let line = line.given("--but", self.but.as_ref());
        let patience = self.patience.map(humantime::format_duration);
        line.given("--patience", patience.map(|time| time.to_string().replace(' ', "")))
    }
}

/// Something that may become true of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// r and w of bucket default can be met everywhere.
    Ready,
    /// All nodes answer and reach each other, the layout stays, no hints are held, nothing is lacking.
    Settled,
    /// So many nodes answer.
    Up(u32),
    /// This node answers.
    NodeUp(String),
    /// At most so many hints are held.
    Hints(u64),
    /// At most so many shards are known to lack something.
    Behind(u64),
}

impl Condition {
    /// Whether it asks what nodes lack.
    pub(crate) fn is_of_lacks(&self) -> bool {
        matches!(self, Condition::Settled | Condition::Hints(_) | Condition::Behind(_))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Ready => f.write_str("ready"),
            Condition::Settled => f.write_str("settled"),
            Condition::Up(nodes) => write!(f, "up={nodes}"),
            Condition::NodeUp(name) => write!(f, "node={name}:up"),
            Condition::Hints(most) => write!(f, "hints={most}"),
            Condition::Behind(most) => write!(f, "behind={most}"),
        }
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let unknown =
            || format!("{text:?} is none of ready, settled, up=N, node=NAME:up, hints=N, behind=N");
        match text.split_once('=') {
            None if text == "ready" => Ok(Condition::Ready),
            None if text == "settled" => Ok(Condition::Settled),
            None => Err(unknown()),
            Some(("up", nodes)) => nodes.parse().map(Condition::Up).map_err(|_| unknown()),
            Some(("hints", most)) => most.parse().map(Condition::Hints).map_err(|_| unknown()),
            Some(("behind", most)) => most.parse().map(Condition::Behind).map_err(|_| unknown()),
            Some(("node", node)) => match node.strip_suffix(":up") {
                Some(name) if !name.is_empty() => Ok(Condition::NodeUp(name.to_owned())),
                Some(_) | None => Err(unknown()),
            },
            Some(_) => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Condition;

    #[test]
    fn a_condition_is_read_as_it_is_written() {
        for text in ["ready", "settled", "up=3", "node=n3:up", "hints=0", "behind=12"] {
            let condition: Condition = text.parse().expect(text);
            assert_eq!(condition.to_string(), text);
        }
        for text in ["", "up", "up=", "up=-1", "hints=x", "node=:up", "node=n3", "healthy"] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
    }
}
