//! Arguments of `group`.
//!
//! A group is named first, then what is done with it. Next to read: `commands/group.rs`.

use crate::args::feed::Since;
use crate::args::line::Line;
use crate::args::retype::from;
use crate::args::value;
use bytes::Bytes;
use clap::{Args, Subcommand};
use galvani_model::bucket::BucketName;
use std::path::PathBuf;

/// Arguments of `group`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani group list\n  \
                         galvani group show billing        who works on what, and how far it is\n  \
                         galvani group dlq list billing    events that it gave up, and why\n  \
                         galvani group dlq retry billing   deliver them again")]
#[command(after_help = "A group is made by its first member: see docs/recipes/groups.md")]
pub(crate) struct Group {
    #[command(subcommand)]
    pub(crate) command: GroupCommand,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// All groups.
    List,
    /// Members of a group, their shards, and how far behind they are.
    Show(Show),
    /// Put a group somewhere else: everything from there on is delivered, also again.
    Reset(Reset),
    /// Take away a group that has no members, with its positions and dead letters.
    Delete(Delete),
    /// Dead letters: events that a group gave up.
    #[command(subcommand)]
    Dlq(Dlq),
}

/// Arguments of `group show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The group.
    pub(crate) group: String,
    /// Show every shard.
    #[arg(long)]
    pub(crate) shards: bool,
}

/// Arguments of `group reset`.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// The group.
    pub(crate) group: String,
    /// Where to: now, start, a time (2026-11-21T05:31:07Z), or how long ago (2h).
    #[arg(long, value_name = "WHEN", required_unless_present = "token")]
    pub(crate) to: Option<Since>,
    /// Where a feed of the same filter is, that keeps its position in this file.
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    pub(crate) token: Option<PathBuf>,
}

/// Arguments of `group delete`.
#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The group.
    pub(crate) group: String,
    /// Do it.
    #[arg(long)]
    pub(crate) yes: bool,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub(crate) enum Dlq {
    /// All dead letters of a group, in the order in which they are delivered again.
    List {
        /// The group.
        group: String,
    },
    /// Deliver dead letters again, before anything newer of their keys.
    Retry(Letters),
    /// Take dead letters away for good.
    Drop(Letters),
}

/// Which dead letters.
#[derive(Debug, Args)]
pub(crate) struct Letters {
    /// The group.
    pub(crate) group: String,
    /// The event of this id. Retried with it are all of its key.
    #[arg(value_name = "ID", required_unless_present_any = ["key", "all"])]
    pub(crate) id: Option<String>,
    /// All of this key.
    #[arg(long, value_name = "KEY", conflicts_with = "id", value_parser = value::key_parser())]
    pub(crate) key: Option<Bytes>,
    /// The key's bucket. [default: default]
    #[arg(short, long, value_name = "BUCKET", requires = "key", conflicts_with = "all",
          value_parser = value::bucket)]
    pub(crate) bucket: Option<BucketName>,
    /// All of the group.
    #[arg(long, conflicts_with_all = ["id", "key"])]
    pub(crate) all: bool,
}

impl GroupCommand {
    /// The line as it can be typed again.
    pub(crate) fn line(&self) -> Line {
        match self {
            GroupCommand::List => Line::new("group list"),
            GroupCommand::Show(show) => {
                Line::new("group show").place(&show.group).flag("--shards", show.shards)
            }
            GroupCommand::Reset(reset) => {
                let line = Line::new("group reset").place(&reset.group);
                let line = line.given("--to", reset.to.map(when));
                match &reset.token {
                    Some(token) => line.with_path("--token", token),
                    None => line,
                }
            }
            GroupCommand::Delete(delete) => {
                Line::new("group delete").place(&delete.group).flag("--yes", delete.yes)
            }
            GroupCommand::Dlq(Dlq::List { group }) => Line::new("group dlq list").place(group),
            GroupCommand::Dlq(Dlq::Retry(letters)) => letters.line("group dlq retry"),
            GroupCommand::Dlq(Dlq::Drop(letters)) => letters.line("group dlq drop"),
        }
    }

    /// The group it is about; empty for all.
    pub(crate) fn group(&self) -> &str {
        match self {
            GroupCommand::List => "",
            GroupCommand::Show(show) => &show.group,
            GroupCommand::Reset(reset) => &reset.group,
            GroupCommand::Delete(delete) => &delete.group,
            GroupCommand::Dlq(Dlq::List { group }) => group,
            GroupCommand::Dlq(Dlq::Retry(letters) | Dlq::Drop(letters)) => &letters.group,
        }
    }
}

fn when(to: Since) -> String {
    from(to).unwrap_or_else(|| "now".to_owned())
}

impl Letters {
    fn line(&self, command: &'static str) -> Line {
        let mut line = Line::new(command).place(&self.group);
        if let Some(id) = &self.id {
            line = line.place(id);
        }
        if let Some(key) = &self.key {
            line = line.with_bytes("--key", key);
            line = line.given("--bucket", self.bucket.as_ref());
        }
        line.flag("--all", self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::Dlq;
    use crate::args::{Cli, Command, group::GroupCommand};
    use clap::Parser;

    fn parse(line: &str) -> Result<GroupCommand, clap::Error> {
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        let Command::Group(group) = cli.command else { panic!("group") };
        Ok(group.command)
    }

    #[test]
    fn what_is_typed_can_be_typed_again() {
        for line in [
            "galvani group list",
            "galvani group show billing --shards",
            "galvani group reset billing --to start",
            "galvani group reset billing --to 2h",
            "galvani group reset billing --to 2026-11-21T05:31:07Z",
            "galvani group reset billing --token at.pos",
            "galvani group delete billing --yes",
            "galvani group dlq list billing",
            "galvani group dlq retry billing --all",
            "galvani group dlq retry billing --key k --bucket shop",
            "galvani group dlq drop billing 0123.4",
        ] {
            let command = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert_eq!(command.line().to_string(), line);
        }
    }

    #[test]
    fn which_letters_is_said_and_said_once() {
        for line in [
            "galvani group dlq drop billing",
            "galvani group dlq retry billing id --all",
            "galvani group dlq retry billing id --key k",
            "galvani group dlq drop billing --all --bucket shop",
            "galvani group reset billing",
            "galvani group reset billing --to now --token f",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        let command = parse("galvani group dlq drop billing --all").expect("valid");
        assert!(matches!(command, GroupCommand::Dlq(Dlq::Drop(letters)) if letters.all));
    }
}
