//! Arguments of `cluster plan`: who joins, leaves, is replaced, weighed or moved.
//!
//! Only shapes and bounds: whether a node is known, and what comes of it, is found in
//! `commands/cluster/plan.rs`. Each request can be written back as the line it was.

use crate::args::line::Line;
use clap::{Args, Subcommand};
use galvani_model::ids::NodeId;
use galvani_model::placement::WEIGHT_MAX;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// What to do with plans.
#[derive(Debug, Subcommand)]
pub(crate) enum Plan {
    /// Nodes join.
    #[command(
        before_help = "  galvani cluster plan add n4                   as it says of itself: galvani status\n  \
                             galvani cluster plan add n4 n5\n  \
                             galvani cluster plan add 'n4@b*200'           in this zone, with this weight\n  \
                             galvani cluster plan add n4@b=0f3e...@10.0.0.8:7070,10.0.0.8:7071",
        after_help = "A node that runs and is no member yet tells the members who and where it is (see galvani \
                      help cluster invite): then its name is enough. Else ID is the new node's id, \"node\" in \
                      the galvani.json of its data directory, with one address for each lane, in lane order."
    )]
    Add {
        /// `NAME[@ZONE][*WEIGHT][=ID@ADDR[,ADDR..]]`, once for each node.
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<NewNode>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Nodes leave.
    #[command(before_help = "  galvani cluster plan remove n4\n  \
                             galvani cluster plan remove n4 n5\n  \
                             galvani cluster plan remove n4 -o json")]
    Remove {
        /// Names of nodes.
        #[arg(value_name = "NODE", required = true)]
        nodes: Vec<String>,
        #[command(flatten)]
        shown: Shown,
    },
    /// A node takes the place of another, all it owns and nothing else.
    #[command(before_help = "  galvani cluster plan replace n3 n9\n  \
                             galvani cluster plan replace n3 n3=0f3e...@10.0.0.9:7070\n  \
                             galvani cluster plan replace n3 n9=0f3e...@10.0.0.9:7070 -o json")]
    Replace {
        /// The node that leaves.
        old: String,
        /// The node in its place, `NAME[=ID@ADDR[,ADDR..]]`: in the same zone, with the same weight.
        new: NewNode,
        #[command(flatten)]
        shown: Shown,
    },
    /// Nodes get other shares of the data.
    #[command(before_help = "  galvani cluster plan reweigh n3=200\n  \
                             galvani cluster plan reweigh n3=50 n4=50\n  \
                             galvani cluster plan reweigh n3=200 -o json")]
    Reweigh {
        /// `NAME=WEIGHT`; 100 is normal.
        #[arg(value_name = "NODE=WEIGHT", required = true)]
        weights: Vec<NewWeight>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Nodes stand in other zones.
    #[command(before_help = "  galvani cluster plan zone n3=b\n  \
                             galvani cluster plan zone n1=a n2=b n3=c\n  \
                             galvani cluster plan zone n3=b -o json")]
    Zone {
        /// `NAME=ZONE`.
        #[arg(value_name = "NODE=ZONE", required = true)]
        zones: Vec<NewZone>,
        #[command(flatten)]
        shown: Shown,
    },
    /// A plan that was made before. Asks no server.
    Show {
        /// The plan's id, or its beginning.
        id: String,
        #[command(flatten)]
        shown: Shown,
    },
    /// Plans that were made before. Asks no server.
    List,
    /// Forget a plan. Nothing in the cluster changes.
    Drop {
        /// The plan's id, or its beginning.
        id: String,
    },
}

/// How much is shown.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Shown {
    /// Every node, however many there are.
    #[arg(long)]
    pub(crate) all: bool,
}

impl Plan {
    /// The line it came from; a request alone, without how to show it.
    pub(crate) fn line(&self) -> Line {
        fn places<T: fmt::Display>(command: &'static str, places: &[T]) -> Line {
            let line = Line::new(command);
            places.iter().fold(line, |line, place| line.place(place.to_string()))
        }
        match self {
            Plan::Add { nodes, .. } => places("cluster plan add", nodes),
            Plan::Remove { nodes, .. } => places("cluster plan remove", nodes),
            Plan::Replace { old, new, .. } => {
                Line::new("cluster plan replace").place(old).place(new.to_string())
            }
            Plan::Reweigh { weights, .. } => places("cluster plan reweigh", weights),
            Plan::Zone { zones, .. } => places("cluster plan zone", zones),
            Plan::Show { id, .. } => Line::new("cluster plan show").place(id),
            Plan::List => Line::new("cluster plan list"),
            Plan::Drop { id } => Line::new("cluster plan drop").place(id),
        }
    }
}

/// A node that is not in the layout yet: `NAME[@ZONE][*WEIGHT][=ID@ADDR[,ADDR..]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewNode {
    pub(crate) name: String,
    pub(crate) zone: Option<String>,
    pub(crate) weight: Option<u32>,
    /// Its id, and where its lanes listen.
    pub(crate) place: Option<(NodeId, Vec<SocketAddr>)>,
}

impl fmt::Display for NewNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(zone) = &self.zone {
            write!(f, "@{zone}")?;
        }
        if let Some(weight) = self.weight {
            write!(f, "*{weight}")?;
        }
        let Some((id, lanes)) = &self.place else { return Ok(()) };
        let lanes: Vec<String> = lanes.iter().map(SocketAddr::to_string).collect();
        write!(f, "={id}@{}", lanes.join(","))
    }
}

impl FromStr for NewNode {
    type Err = String;

    fn from_str(text: &str) -> Result<NewNode, String> {
        let (who, place) = match text.split_once('=') {
            Some((who, place)) => (who, Some(place)),
            None => (text, None),
        };
        let (who, weight) = match who.split_once('*') {
            Some((who, weight)) => (who, Some(self::weight(weight)?)),
            None => (who, None),
        };
        let (name, zone) = match who.split_once('@') {
            Some((name, zone)) => (name, Some(word(zone, "zone")?)),
            None => (who, None),
        };
        let place = place.map(self::place).transpose()?;
        Ok(NewNode { name: word(name, "node")?, zone, weight, place })
    }
}

/// `ID@ADDR[,ADDR..]`.
fn place(text: &str) -> Result<(NodeId, Vec<SocketAddr>), String> {
    let shape = "say NAME=ID@IP:PORT[,IP:PORT..]";
    let (id, lanes) = text.split_once('@').ok_or_else(|| format!("no node id: {shape}"))?;
    let id = id.parse().map_err(|error| format!("{id:?} is {error}: {shape}"))?;
    let lane = |lane: &str| lane.parse().map_err(|_| format!("{lane:?} is not IP:PORT"));
    Ok((id, lanes.split(',').map(lane).collect::<Result<Vec<SocketAddr>, String>>()?))
}

fn word(text: &str, what: &str) -> Result<String, String> {
    match text.is_empty() {
        true => Err(format!("no {what} is named")),
        false => Ok(text.to_owned()),
    }
}

fn weight(text: &str) -> Result<u32, String> {
    let weight = text.parse().ok().filter(|weight| (1..=WEIGHT_MAX).contains(weight));
    weight.ok_or_else(|| format!("{text:?} is not a weight: 1 to {WEIGHT_MAX}"))
}

/// `NAME=WEIGHT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewWeight {
    pub(crate) node: String,
    pub(crate) weight: u32,
}

impl fmt::Display for NewWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.node, self.weight)
    }
}

impl FromStr for NewWeight {
    type Err = String;

    fn from_str(text: &str) -> Result<NewWeight, String> {
        let (node, weight) = text.split_once('=').ok_or("say NAME=WEIGHT")?;
        Ok(NewWeight { node: word(node, "node")?, weight: self::weight(weight)? })
    }
}

/// `NAME=ZONE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewZone {
    pub(crate) node: String,
    pub(crate) zone: String,
}

impl fmt::Display for NewZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.node, self.zone)
    }
}

impl FromStr for NewZone {
    type Err = String;

    fn from_str(text: &str) -> Result<NewZone, String> {
        let (node, zone) = text.split_once('=').ok_or("say NAME=ZONE")?;
        Ok(NewZone { node: word(node, "node")?, zone: word(zone, "zone")? })
    }
}

#[cfg(test)]
mod tests {
    use super::{NewNode, NewWeight, NewZone, Plan};
    use crate::args::cluster::Cluster;
    use crate::args::{Cli, Command};
    use clap::Parser;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    fn parse(line: &str) -> Result<Plan, clap::Error> {
        let cli = Cli::try_parse_from(line.split_whitespace())?;
        let Command::Cluster(Cluster::Plan(plan)) = cli.command else { panic!("a plan: {line}") };
        Ok(plan)
    }

    #[test]
    fn a_request_is_the_line_it_came_from() {
        for line in [
            format!("galvani cluster plan add n4={ID}@10.0.0.8:7070"),
            format!("galvani cluster plan add n4@b={ID}@10.0.0.8:7070,10.0.0.8:7071 n5@c"),
            "galvani cluster plan remove n4 n5".to_owned(),
            format!("galvani cluster plan replace n3 n9={ID}@10.0.0.9:7070"),
            "galvani cluster plan reweigh n3=200 n4=1".to_owned(),
            "galvani cluster plan zone n3=b".to_owned(),
            "galvani cluster plan show 7f3a".to_owned(),
            "galvani cluster plan list".to_owned(),
            "galvani cluster plan drop 7f3a".to_owned(),
        ] {
            assert_eq!(parse(&line).expect(&line).line().to_string(), line);
        }
        // The star means something to a shell.
        let heavy = parse(&format!("galvani cluster plan add n4@b*50={ID}@10.0.0.8:7070"));
        let text = format!("galvani cluster plan add 'n4@b*50={ID}@10.0.0.8:7070'");
        assert_eq!(heavy.expect("valid").line().to_string(), text);
    }

    #[test]
    fn a_new_node_is_read_part_by_part() {
        let node: NewNode =
            format!("n4@b*250={ID}@10.0.0.8:7070,10.0.0.8:7071").parse().expect("valid");
        assert_eq!((node.name.as_str(), node.zone.as_deref()), ("n4", Some("b")));
        assert_eq!(node.weight, Some(250));
        let (id, lanes) = node.place.expect("given");
        assert_eq!((id.to_string().as_str(), lanes.len()), (ID, 2));
        let bare: NewNode = "n4".parse().expect("valid");
        assert_eq!((bare.zone, bare.weight, bare.place), (None, None, None));
    }

    #[test]
    fn what_makes_no_sense_says_what_does() {
        let refused = |text: &str| text.parse::<NewNode>().expect_err(text);
        assert_eq!(refused("n4=10.0.0.8:7070"), "no node id: say NAME=ID@IP:PORT[,IP:PORT..]");
        assert!(refused("n4=12@10.0.0.8:7070").contains("32 hexadecimal digits"));
        assert!(refused(&format!("n4={ID}@host:1")).contains("not IP:PORT"));
        assert!(refused(&format!("n4={ID}@")).contains("not IP:PORT"));
        assert!(refused("n4*0").contains("1 to 1000"));
        assert!(refused("@b").contains("no node is named"));
        assert!(refused("n4@").contains("no zone is named"));
        for text in ["n3", "n3=", "n3=0", "n3=1001", "=5"] {
            assert!(text.parse::<NewWeight>().is_err(), "{text}");
        }
        for text in ["n3", "n3=", "=b"] {
            assert!(text.parse::<NewZone>().is_err(), "{text}");
        }
        for line in [
            "galvani cluster plan",
            "galvani cluster plan add",
            "galvani cluster plan remove",
            "galvani cluster plan replace n3",
            "galvani cluster plan show",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
