//! Arguments of `dev cut`, `slow`, `lossy` and `heal`: groups of nodes, delays, shares.
//!
//! Only shapes and bounds: whether the nodes exist is known in `dev/faults.rs`.

use crate::args::dev::{One, Which};
use crate::args::line::Line;
use crate::args::value;
use clap::Args;
use galvani_client::{LinkDelay, LinkFaults};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Arguments of `dev cut`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani dev cut 'n1|n2,n3'             n1 on one side, n2 and n3 on the other\n  \
                   galvani dev cut 'n1|n2' --one-way      n2 hears nothing of n1, n1 hears n2\n  \
                   galvani dev heal                       all nodes hear each other again",
    after_help = "Nodes in neither group are not affected, nor are clients: only what nodes send each \
                  other.\nCuts add up. A node that is started again starts without faults of its own."
)]
pub(crate) struct Cut {
    /// Two groups of nodes with a bar between them, in quotes: 'n1|n2,n3'.
    #[arg(value_name = "NODES|NODES")]
    pub(crate) groups: Groups,
    /// Only what the left sends to the right is lost.
    #[arg(long)]
    pub(crate) one_way: bool,
    #[command(flatten)]
    pub(crate) which: Which,
}

/// Arguments of `dev slow`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani dev slow n3 50ms               what n3 sends to other nodes leaves 50 ms later\n  \
                   galvani dev slow n3 50ms --jitter 20ms  30 to 70 ms later; also: 50ms±20\n  \
                   galvani dev slow n3 0ms                no longer",
    after_help = "Datagrams keep their order: under load, delays come near to the longest one. Clients \
                  are not affected.\nA node that is started again starts without faults."
)]
pub(crate) struct Slow {
    #[command(flatten)]
    pub(crate) one: One,
    /// How much later, at most 10s; with ±TIME behind it, how far that varies.
    #[arg(value_name = "TIME")]
    pub(crate) delay: Delay,
    /// How far it varies, either way; at most the time itself.
    #[arg(long, value_name = "TIME", value_parser = value::duration)]
    pub(crate) jitter: Option<Duration>,
}

/// Arguments of `dev lossy`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani dev lossy n3 5%                 one datagram in twenty is lost, each way\n  \
                   galvani dev lossy n3 0%                none any more",
    after_help = "Between the node and every other node. Clients are not affected. A node that is \
                  started again starts without faults."
)]
pub(crate) struct Lossy {
    #[command(flatten)]
    pub(crate) one: One,
    /// The share of datagrams that is lost, 0% to 100%.
    #[arg(value_name = "PERCENT")]
    pub(crate) loss: Loss,
}

impl Cut {
    pub(crate) fn line(&self) -> Line {
        let line = self.which.line("dev cut").place(self.groups.to_string());
        line.flag("--one-way", self.one_way)
    }
}

impl Slow {
    pub(crate) fn line(&self) -> Line {
        let delay = humantime::format_duration(self.delay.time).to_string().replace(' ', "");
        let jitter = self.jitter.or(self.delay.jitter);
        let jitter =
            jitter.map(|jitter| humantime::format_duration(jitter).to_string().replace(' ', ""));
        let line = self.one.which.line("dev slow").place(&self.one.node).place(delay);
        line.given("--jitter", jitter)
    }

    /// The delay as the nodes take it.
    pub(crate) fn link_delay(&self) -> Result<LinkDelay, String> {
        let Delay { time, jitter } = self.delay;
        let jitter = match (jitter, self.jitter) {
            (Some(_), Some(_)) => return Err("the jitter is given twice".to_owned()),
            (one, other) => one.or(other).unwrap_or_default(),
        };
        if jitter > time {
            return Err("the jitter is larger than the delay: nothing arrives early".to_owned());
        }
        // Both are at most ten seconds: checked when they were parsed.
        let micros = |time: Duration| time.as_micros() as u32;
        Ok(LinkDelay { micros: micros(time), jitter_micros: micros(jitter) })
    }
}

impl Lossy {
    pub(crate) fn line(&self) -> Line {
        let percent = format!("{}%", f64::from(self.loss.ppm) / PPM_OF_PERCENT);
        self.one.which.line("dev lossy").place(&self.one.node).place(percent)
    }
}

/// Nodes on the two sides of a cut; neither is empty, and no node is on both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    pub(crate) left: Vec<String>,
    pub(crate) right: Vec<String>,
}

impl FromStr for Groups {
    type Err = String;

    fn from_str(text: &str) -> Result<Groups, String> {
        let Some((left, right)) = text.split_once('|') else {
            return Err(
                "there is no bar between two groups: write it in quotes, as 'n1|n2,n3'".to_owned()
            );
        };
        if right.contains('|') {
            return Err("there are more than two groups: cut twice, cuts add up".to_owned());
        }
        let (left, right) = (names(left)?, names(right)?);
        match left.iter().find(|name| right.contains(name)) {
            Some(name) => Err(format!("{name} is on both sides: no node is cut off from itself")),
            None => Ok(Groups { left, right }),
        }
    }
}

fn names(group: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for name in group.split(',').map(str::trim) {
        if name.is_empty() {
            return Err("a group lacks a name: write them as 'n1|n2,n3'".to_owned());
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.left.join(","), self.right.join(","))
    }
}

/// `50ms`, `50ms±20ms` or `50ms±20`: without a unit the variation has milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    time: Duration,
    jitter: Option<Duration>,
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Delay, String> {
        let (time, jitter) = match text.split_once('±') {
            None => (text, None),
            Some((time, jitter)) => (time, Some(jitter)),
        };
        let bounded = |time: Duration| match time {
            time if time.as_micros() <= u128::from(LinkFaults::DELAY_MICROS_MAX) => Ok(time),
            _ => Err(format!("{text:?} is over 10s, longer than any link lives in silence")),
        };
        let time = bounded(value::duration(time)?)?;
        let jitter = jitter.map(|jitter| match jitter.parse() {
            Ok(ms) => Ok(Duration::from_millis(ms)),
            Err(_) => value::duration(jitter),
        });
        Ok(Delay { time, jitter: jitter.transpose()?.map(bounded).transpose()? })
    }
}

/// A share in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) ppm: u32,
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Loss, String> {
        let percent: Option<f64> = text.strip_suffix('%').unwrap_or(text).parse().ok();
        match percent {
            Some(percent) if (0.0..=100.0).contains(&percent) => {
                Ok(Loss { ppm: (percent * PPM_OF_PERCENT).round() as u32 })
            }
            Some(_) | None => Err(format!("{text:?} is not a share from 0% to 100%")),
        }
    }
}

const PPM_OF_PERCENT: f64 = 10_000.0;

#[cfg(test)]
mod tests {
    use super::{Groups, Loss};
    use crate::args::dev::DevCommand;
    use crate::args::{Cli, Command};
    use clap::Parser;
    use galvani_client::LinkDelay;

    fn dev(words: &[&str]) -> Result<DevCommand, clap::Error> {
        let all = ["galvani", "dev"].iter().chain(words);
        match Cli::try_parse_from(all)?.command {
            Command::Dev(dev) => Ok(dev.command.expect("a command")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn groups_have_one_bar_and_share_no_node() {
        let groups: Groups = "n1 | n2, n3,n2".parse().expect("valid");
        assert_eq!(
            (groups.left, groups.right),
            (vec!["n1".into()], vec!["n2".into(), "n3".into()])
        );
        for (text, why) in [
            ("n1", "no bar"),
            ("n1|n2|n3", "more than two"),
            ("|n2", "lacks a name"),
            ("n1|", "lacks a name"),
            ("n1|n2,,n3", "lacks a name"),
            ("n1,n2|n3,n1", "n1 is on both sides"),
        ] {
            let error = text.parse::<Groups>().expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn delays_take_their_jitter_behind_them_or_as_an_option() {
        let delay = |words: &[&str]| match dev(words) {
            Ok(DevCommand::Slow(slow)) => slow.link_delay(),
            other => Err(format!("{other:?}")),
        };
        let both = LinkDelay { micros: 50_000, jitter_micros: 20_000 };
        assert_eq!(delay(&["slow", "n3", "50ms±20"]), Ok(both));
        assert_eq!(delay(&["slow", "n3", "50ms±20ms"]), Ok(both));
        assert_eq!(delay(&["slow", "n3", "50ms", "--jitter", "20ms"]), Ok(both));
        let plain = LinkDelay { micros: 1_500_000, jitter_micros: 0 };
        assert_eq!(delay(&["slow", "n3", "1500ms"]), Ok(plain));
        for words in [
            &["slow", "n3", "50ms±20", "--jitter", "20ms"][..],
            &["slow", "n3", "50ms±60"],
            &["slow", "n3", "11s"],
            &["slow", "n3", "50"],
            &["slow", "n3"],
        ] {
            assert!(delay(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn shares_are_percent() {
        for (text, ppm) in [("5%", 50_000), ("0.5", 5_000), ("100%", 1_000_000), ("0%", 0)] {
            assert_eq!(text.parse(), Ok(Loss { ppm }), "{text}");
        }
        for text in ["101%", "-1%", "five", "NaN", "%"] {
            assert!(text.parse::<Loss>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_lines_that_are_suggested_mean_what_was_typed() {
        for (words, expected) in [
            (&["cut", "n1|n2,n3", "--one-way"][..], "galvani dev cut 'n1|n2,n3' --one-way"),
            (&["cut", "n1|n2", "--dir", "d"], "galvani dev cut 'n1|n2' --dir d"),
            (&["slow", "n3", "1500ms±20"], "galvani dev slow n3 1s500ms --jitter 20ms"),
            (&["lossy", "n3", "0.5", "--name", "x"], "galvani dev lossy n3 0.5% --name x"),
        ] {
            let line = match dev(words).expect("valid") {
                DevCommand::Cut(cut) => cut.line(),
                DevCommand::Slow(slow) => slow.line(),
                DevCommand::Lossy(lossy) => lossy.line(),
                other => panic!("{other:?}"),
            };
            assert_eq!(line.to_string(), expected);
        }
    }
}
