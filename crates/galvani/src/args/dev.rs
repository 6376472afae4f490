//! Arguments of `dev`.
//!
//! Only shapes and bounds: what a flag does is in `dev/`. Next to read: `dev/mod.rs`.

use crate::args::cluster::Durability;
use crate::args::faults::{Cut, Lossy, Slow};
use crate::args::lagged::lag;
use crate::args::line::Line;
use clap::{Args, Subcommand, ValueEnum};
use galvani_model::limits::LANES_MAX;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Arguments of `dev`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani dev -d                three nodes in the background; data is kept\n  \
                   galvani dev kill n3           a real SIGKILL\n  \
                   galvani dev start n3          back, with its data and its port\n  \
                   galvani dev cut 'n1|n2,n3'    a partition; galvani dev heal mends it\n  \
                   galvani dev add               a fourth node; galvani dev rm n4 takes it out\n  \
                   galvani dev --lagged 10m      with a lagged replica beside it",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Dev {
    #[command(subcommand)]
    pub(crate) command: Option<DevCommand>,
    #[command(flatten)]
    pub(crate) up: Up,
}

/// Which local cluster.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Which {
    /// The cluster's name, and its context's. [default: dev]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where its files are. [default: the state directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl Which {
    /// A command on the same local cluster.
    pub(crate) fn line(&self, command: &'static str) -> Line {
        let line = Line::new(command).given("--name", self.name.as_ref());
        match &self.dir {
            Some(dir) => line.with_path("--dir", dir),
            None => line,
        }
    }
}

impl Up {
    /// The command that was typed.
    pub(crate) fn line(&self) -> Line {
        let ports = self.ports.map(|ports| match ports {
            Ports::Auto => "auto".to_owned(),
            Ports::From(base) => base.to_string(),
        });
        let durability = self.durability.and_then(|mode| mode.to_possible_value());
        self.which
            .line("dev")
            .given("-n", self.n)
            .flag("-d", self.detach)
            .given("--zones", (!self.zones.is_empty()).then(|| self.zones.join(",")))
            .flag("--ephemeral", self.ephemeral)
            .given("--ports", ports)
            .given("--lanes", self.lanes)
            .given("--durability", durability.map(|value| value.get_name().to_owned()))
            .given(
                "--lagged",
                self.lagged.map(|lag| humantime::format_duration(lag).to_string().replace(' ', "")),
            )
    }
}

/// Arguments of `dev` itself: make the cluster if there is none, start it.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Nodes of a new cluster. [default: 3]
    #[arg(short, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) n: Option<u8>,
    /// Go to the background when it is ready.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Zones of a new cluster's nodes, in turn. [default: a,b,c,..]
    #[arg(long, value_name = "ZONES", value_delimiter = ',')]
    pub(crate) zones: Vec<String>,
    /// Remove the data when the cluster stops.
    #[arg(long)]
    pub(crate) ephemeral: bool,
    /// First UDP port of a new cluster, or auto: any free ones. [default: 7070]
    #[arg(long, value_name = "BASE|auto")]
    pub(crate) ports: Option<Ports>,
    /// Lanes of each node of a new cluster. [default: cores / nodes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=LANES_MAX as i64))]
    pub(crate) lanes: Option<u16>,
    /// When a write counts as stored by a node of a new cluster. [default: os]
    #[arg(long, value_name = "MODE")]
    pub(crate) durability: Option<Durability>,
    /// Run a lagged replica beside it, so far behind: galvani lagged finds it by itself.
    #[arg(long, value_name = "LAG", value_parser = lag)]
    pub(crate) lagged: Option<Duration>,
    #[command(flatten)]
    pub(crate) which: Which,
}

/// Where nodes listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Any free ones.
    Auto,
    /// From here on, in steps.
    From(u16),
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        match text {
            "auto" => Ok(Ports::Auto),
            _ => match text.parse() {
                Ok(base @ 1..) => Ok(Ports::From(base)),
                Ok(0) | Err(_) => Err(format!("{text:?} is not a port or auto")),
            },
        }
    }
}

/// What to do with a local cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum DevCommand {
    /// Which processes run.
    Status(Which),
    /// Stop all nodes gracefully; data and ports stay.
    Stop(OneOrAll),
    /// Start all nodes that do not run, or one.
    Start(OneOrAll),
    /// Stop a node gracefully and start it again, or all of them one by one while the others serve.
    Restart(Restart),
    /// Print a node's log.
    Logs {
        /// Go on printing what is added.
        #[arg(short, long)]
        follow: bool,
        /// Last lines to print.
        #[arg(long, value_name = "N", default_value_t = 200)]
        tail: usize,
        #[command(flatten)]
        one: One,
    },
    /// New nodes join, and take their share of the data.
    Add(Add),
    /// Nodes hand over what they hold, leave, and are removed with their files.
    Rm(Rm),
    /// SIGKILL a node.
    Kill(One),
    /// SIGSTOP a node: it keeps its connections and answers nobody.
    Pause(One),
    /// SIGCONT a node.
    Resume(One),
    /// Cut nodes off from each other: 'n1|n2,n3'.
    Cut(Cut),
    /// Let what a node sends to others leave later.
    Slow(Slow),
    /// Lose a share of what a node and the others send each other.
    Lossy(Lossy),
    /// Undo cut, slow and lossy on all nodes.
    Heal(Which),
    /// Kill all nodes and remove their data.
    Destroy {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        which: Which,
    },
}

/// Arguments of `dev add`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani dev add               one more node\n  \
                         galvani dev add -n 2          two\n  \
                         galvani dev add n7 --zones b  of this name, in this zone\n  \
                         galvani dev add --replace n3  a new one in place of n3, which was killed",
    after_help = "The nodes are made and started, then planned and applied as galvani cluster plan add and \
                  apply --wait do. Asked again after Ctrl-C it goes on where it was."
)]
pub(crate) struct Add {
    /// Names of the new nodes. [default: the next ones]
    #[arg(value_name = "NAME", conflicts_with = "count")]
    pub(crate) nodes: Vec<String>,
    /// How many. [default: 1]
    #[arg(short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) count: Option<u8>,
    /// Their zones, in turn. [default: as the nodes there are]
    #[arg(long, value_name = "ZONES", value_delimiter = ',')]
    pub(crate) zones: Vec<String>,
    /// One new node takes the place of this one, which may be dead: in its zone, with all it owns.
    #[arg(long, value_name = "NODE", conflicts_with_all = ["count", "zones"])]
    pub(crate) replace: Option<String>,
    #[command(flatten)]
    pub(crate) which: Which,
}

impl Add {
    /// The command that was typed.
    pub(crate) fn line(&self) -> Line {
        let line = self.which.line("dev add").given("-n", self.count);
        let line = self.nodes.iter().fold(line, |line, node| line.place(node));
        line.given("--zones", (!self.zones.is_empty()).then(|| self.zones.join(",")))
            .given("--replace", self.replace.as_ref())
    }

    /// The same, with the names that came of it.
    pub(crate) fn line_of(&self, names: &[String]) -> Line {
        let line = self.which.line("dev add").given("--replace", self.replace.as_ref());
        names.iter().fold(line, |line, name| line.place(name))
    }
}

/// Arguments of `dev rm`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani dev rm n4            waits until the others have all it held\n  \
                         galvani dev rm n4 n5\n  \
                         galvani dev rm n4 --yes      also if it is down and a member no more"
)]
pub(crate) struct Rm {
    /// Names of nodes.
    #[arg(value_name = "NODE", required = true)]
    pub(crate) nodes: Vec<String>,
    /// Remove the files of a node that is down and a member no more, whatever is in them.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) which: Which,
}

impl Rm {
    /// The command that was typed.
    pub(crate) fn line(&self) -> Line {
        let line = self.which.line("dev rm").flag("--yes", self.yes);
        self.nodes.iter().fold(line, |line, node| line.place(node))
    }

    /// The same, whatever is in the files.
    pub(crate) fn line_with_yes(&self) -> Line {
        self.line().flag("--yes", true)
    }
}

/// Arguments of `dev restart`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani dev restart n2            stops it gracefully, starts it, waits until it has met the others\n  \
                         galvani dev restart --rolling     every node, one after the other",
    after_help = "Nodes are started as this program: run by a newer one, it upgrades them. Before the next node is \
                  stopped, the one before has met all the others and lacks nothing that it knows of, so requests \
                  with w=2 and r=2 go on all the while. It stops at the first node that does not come back."
)]
pub(crate) struct Restart {
    /// The node's name.
    #[arg(value_name = "NODE", required_unless_present = "rolling")]
    pub(crate) node: Option<String>,
    /// All nodes, one after the other.
    #[arg(long, conflicts_with = "node")]
    pub(crate) rolling: bool,
    #[command(flatten)]
    pub(crate) which: Which,
}

impl Restart {
    /// The command that was typed.
    pub(crate) fn line(&self) -> Line {
        let line = self.which.line("dev restart").flag("--rolling", self.rolling);
        self.node.iter().fold(line, |line, node| line.place(node))
    }
}

/// A node of a local cluster.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// The node's name, or lagged.
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) which: Which,
}

/// A node of a local cluster, or all.
#[derive(Debug, Args)]
pub(crate) struct OneOrAll {
    /// The node's name, or lagged. [default: all]
    pub(crate) node: Option<String>,
    #[command(flatten)]
    pub(crate) which: Which,
}
