//! Arguments of server, cluster, ctx, completions and help.
//!
//! Only shapes and bounds: what a flag means is carried out in `commands/`.

use crate::args::line::Line;
use crate::args::plan::Plan;
use crate::args::value;
use clap::{Args, Subcommand, ValueEnum};
use clap_complete::Shell;
use galvani_model::limits::{LANES_MAX, PARTITIONS_DEFAULT};
use galvani_model::placement::{WEIGHT_MAX, WEIGHT_NORMAL};
use galvani_node::config::DurabilityMode;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Arguments of `server`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani server --config galvani.toml\n  \
                         galvani server --config galvani.toml --check-config\n  \
                         galvani server --join @token --dir n4           a node that was invited",
    after_help = "With --join the node makes its key in DIR, asks whoever invited it for a certificate and the cluster \
                  file, writes DIR/galvani.toml, and starts: it tells the members who it is, and owns nothing \
                  before a plan says so. A DIR that has a galvani.toml is started as it is, and the token is not \
                  looked at: the same words start the node the next time."
)]
pub(crate) struct Server {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE", env = "GALVANI_CONFIG", required_unless_present = "join")]
    pub(crate) config: Option<PathBuf>,
    /// The token of galvani cluster invite --serve, or @FILE to read it from.
    #[arg(
        long,
        value_name = "TOKEN|@FILE",
        env = "GALVANI_JOIN",
        hide_env_values = true,
        requires = "dir",
        conflicts_with = "check_config"
    )]
    pub(crate) join: Option<String>,
    /// The node's directory, with --join.
    #[arg(long, value_name = "DIR", requires = "join")]
    pub(crate) dir: Option<PathBuf>,
    /// Check the file, print what it means, and stop.
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Leave the session of the terminal; used by `galvani dev`.
    #[arg(long, hide = true)]
    pub(crate) own_session: bool,
    /// What to log: error, warn, info, debug, trace, or a filter such as galvani_node=debug.
    #[arg(long, value_name = "FILTER", env = "GALVANI_LOG", default_value = "info")]
    pub(crate) log: String,
}

/// What to do with clusters.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// Make certificates, layout and a directory for each node, to be copied to its host.
    Create(Create),
    /// Make the identity of a client, with a role.
    Client(ClusterClient),
    /// Work out what a change of the nodes would move, and keep it. Changes nothing.
    #[command(subcommand)]
    Plan(Plan),
    /// Carry out a plan while the cluster serves.
    Apply(Apply),
    /// Let the copying of the change that is under way rest; reads and writes go on.
    Pause(Paced),
    /// Let it go on.
    Resume(Paced),
    /// Give up the change that is under way, before new owners answer reads.
    Abort(Abort),
    /// Invite a node that is to join: a token it comes with, or a directory for its host.
    Invite(Invite),
    /// Issue certificates anew, for nodes and clients that have some.
    Renew(Renew),
    /// Make a new root, to follow the one there is.
    Root(Root),
}

/// Arguments of `cluster renew`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani cluster renew --ca prod/ca prod/n1/identity           then copy it to n1's host\n  \
                         galvani cluster renew --ca prod/ca prod/client\n  \
                         galvani cluster renew --ca prod/ca2 --trust prod/ca prod/*/identity",
    after_help = "A new key and a new certificate for whom the old one names, written over the old files. A node \
                  that runs takes what is copied into its identity directory within seconds, or at once after \
                  SIGHUP; its links stay up. Nodes are valid for two years, clients for one; galvani status \
                  and a node's log warn thirty days before."
)]
pub(crate) struct Renew {
    /// Identity directories: ca.pem, cert.pem and key.pem each.
    #[arg(value_name = "DIR", required = true)]
    pub(crate) dirs: Vec<PathBuf>,
    /// The cluster's `ca` directory, whose key signs.
    #[arg(long, value_name = "DIR")]
    pub(crate) ca: PathBuf,
    /// Another root that is to be believed too, while roots change: its `ca` directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) trust: Vec<PathBuf>,
}

/// Arguments of `cluster root`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani cluster root --ca prod/ca --out prod/ca2",
    after_help = "How all nodes and clients go over to it while they run: docs/recipes/membership.md."
)]
pub(crate) struct Root {
    /// The `ca` directory of the root there is.
    #[arg(long, value_name = "DIR")]
    pub(crate) ca: PathBuf,
    /// Where the new one is made; must not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// Arguments of `cluster invite`.
#[derive(Clone, Debug, Args)]
#[command(
    before_help = "  galvani cluster invite --ca prod/ca --cluster prod/cluster.json \\\n      \
                         --node n4=10.0.0.8:7070,zone=a --serve 10.0.0.2:7900       prints a token, and waits\n  \
                         galvani server --join TOKEN --dir n4             on 10.0.0.8; then it applies\n  \
                         galvani cluster plan add n4                      and then apply the plan",
    after_help = "With --serve this command signs, since it has the root's key: it prints a token and waits until the \
                  node has come for its certificate, once, or the token has expired. Send the token as you would \
                  send a password. Asked to serve again, it also says what became of earlier tokens.\n\
                  With --out it makes a directory instead, with the node's certificate and key, the cluster's root \
                  and the cluster file with its secret: send it as you would send a key.\n\
                  Nothing in the cluster changes. With a server that answers, the node gets the layout there is \
                  now, else that of the cluster file. Exit 7: nobody came in time."
)]
pub(crate) struct Invite {
    /// The node: `NAME=IP:PORT[,zone=Z][,lanes=L][,weight=W]`. Lane i listens on PORT + i.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: NodeArg,
    /// The cluster's `ca` directory, whose key signs.
    #[arg(long, value_name = "DIR")]
    pub(crate) ca: PathBuf,
    /// The cluster's file.
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster: PathBuf,
    /// Where the node's directory is made; must not exist.
    #[arg(long, value_name = "DIR", required_unless_present = "serve")]
    pub(crate) out: Option<PathBuf>,
    /// Print a token, and answer at this address of this machine, which the node must reach (UDP).
    #[arg(long, value_name = "IP:PORT", conflicts_with = "out")]
    pub(crate) serve: Option<SocketAddr>,
    /// How long the token is good. [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = value::duration, requires = "serve")]
    pub(crate) ttl: Option<Duration>,
    /// When a write counts as stored by it.
    #[arg(long, value_name = "MODE", default_value = "os")]
    pub(crate) durability: Durability,
}

/// Arguments of `cluster apply`.
#[derive(Clone, Debug, Args)]
#[command(
    before_help = "  galvani cluster apply 7f3a --wait             until the data has moved\n  \
                         galvani cluster apply 7f3a                    starts it; galvani status shows it\n  \
                         galvani cluster apply 7f3a --wait -o json",
    after_help = "The members decide which layout comes next; the change then goes on by itself, whoever \
                  started it. Applying a plan again tells how far it is.\n\
                  Exit 10: the layout is not the one the plan was made on, or another change is under way: \
                  plan again. 7: not done in time; it goes on."
)]
pub(crate) struct Apply {
    /// The plan's id, or its beginning.
    pub(crate) id: String,
    /// Wait until every node has what it owns, and has given up what it owns no more.
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long. [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = value::duration, requires = "wait")]
    pub(crate) wait_timeout: Option<Duration>,
    /// Bytes a second that each node copies at most, such as 20MiB/s. It is kept with the change: applied
    /// again with another rate, the change goes on with that. [default: as many as it can]
    #[arg(long, value_name = "BYTES", value_parser = value::byte_rate)]
    pub(crate) max_rate: Option<NonZeroU64>,
}

impl Apply {
    /// The command that was typed.
    pub(crate) fn line(&self) -> Line {
        let time = self.wait_timeout.map(humantime::format_duration);
        Line::new("cluster apply")
            .place(&self.id)
            .flag("--wait", self.wait)
            .given("--wait-timeout", time.map(|time| time.to_string().replace(' ', "")))
            .given("--max-rate", self.max_rate)
    }
}

/// Arguments of `cluster pause` and `cluster resume`.
#[derive(Clone, Debug, Args)]
#[command(
    before_help = "  galvani cluster pause                         whatever is copying rests, also over restarts\n  \
                         galvani cluster resume                        and goes on\n  \
                         galvani cluster apply 7f3a --max-rate 20MiB/s another rate, for each node",
    after_help = "Members decide on it as on the change itself. While it rests writes need the old owners and \
                  the new ones, as before.\n\
                  Exit 5: nothing is copying. 10: another change is under way."
)]
pub(crate) struct Paced {
    /// The plan whose change is meant, or the beginning of its id.
    pub(crate) id: Option<String>,
}

impl Paced {
    /// The command that was typed.
    pub(crate) fn line(&self, command: &'static str) -> Line {
        self.id.iter().fold(Line::new(command), |line, id| line.place(id))
    }
}

/// Arguments of `cluster abort`.
#[derive(Clone, Debug, Args)]
#[command(
    before_help = "  galvani cluster abort                         the change under way, whichever it is\n  \
                         galvani cluster abort 7f3a                    only the change of this plan",
    after_help = "It may be given up while it is copying. No other change is given up than the one that was \
                  under way when the command began.\n\
                  Exit 5: it cannot be given up any more. 10: another change is under way."
)]
pub(crate) struct Abort {
    /// The plan whose change is meant, or the beginning of its id.
    pub(crate) id: Option<String>,
}

impl Abort {
    /// The command that was typed.
    pub(crate) fn line(&self) -> Line {
        let line = Line::new("cluster abort");
        self.id.iter().fold(line, |line, id| line.place(id))
    }
}

/// Arguments of `cluster client`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani cluster client reports --role read-only --ca prod/ca --out reports\n  \
                         galvani get k --server 10.0.0.5:7070 --identity reports"
)]
#[command(
    after_help = "A local cluster keeps its ca directory in the directory that `galvani dev` \
                        names."
)]
pub(crate) struct ClusterClient {
    /// The client's name: 1 to 63 of a-z, 0-9 and, inside, -.
    pub(crate) name: String,
    /// What it may do.
    #[arg(long, value_name = "ROLE")]
    pub(crate) role: ClientRole,
    /// The cluster's `ca` directory, whose key signs.
    #[arg(long, value_name = "DIR")]
    pub(crate) ca: PathBuf,
    /// Where the identity is written; must not exist.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// What a client may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientRole {
    /// Everything, buckets included.
    Admin,
    /// Reads and writes.
    ReadWrite,
    /// Reads.
    ReadOnly,
}

/// Arguments of `cluster create`.
#[derive(Debug, Args)]
#[command(before_help = "  galvani cluster create --name prod --dir prod \\\n      \
                         --node n1=10.0.0.5:7070,zone=a --node n2=10.0.0.6:7070,zone=b \\\n      \
                         --node n3=10.0.0.7:7070,zone=c")]
#[command(after_help = "Then copy DIR/NAME to each host and run `galvani server --config \
                        NAME/galvani.toml` there. DIR/ca holds the key that signs certificates: \
                        keep it off the nodes.")]
pub(crate) struct Create {
    /// The cluster's name.
    #[arg(long)]
    pub(crate) name: String,
    /// Where to write; must not hold a cluster.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// A node: `NAME=IP:PORT[,zone=Z][,lanes=L][,weight=W]`. Lane i listens on PORT + i.
    #[arg(long = "node", value_name = "NODE", required = true)]
    pub(crate) nodes: Vec<NodeArg>,
    /// Copies of each key in bucket default. [default: 3, or the number of nodes if less]
    #[arg(short, value_name = "N",
          value_parser = clap::value_parser!(u8).range(1..=7))]
    pub(crate) n: Option<u8>,
    /// Partitions, a power of two, for the cluster's life.
    #[arg(long, value_name = "Q", default_value_t = PARTITIONS_DEFAULT)]
    pub(crate) partitions: u16,
    /// When a write counts as stored by a node.
    #[arg(long, value_name = "MODE", default_value = "os")]
    pub(crate) durability: Durability,
    /// Do not make this cluster the selected context.
    #[arg(long)]
    pub(crate) no_context: bool,
}

/// When a write counts as stored by a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// When the operating system has it: survives SIGKILL.
    Os,
    /// When the disk has it: survives power loss.
    Fsync,
}

impl From<Durability> for DurabilityMode {
    fn from(durability: Durability) -> DurabilityMode {
        match durability {
            Durability::Os => DurabilityMode::Os,
            Durability::Fsync => DurabilityMode::Fsync,
        }
    }
}

/// A node as `--node` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeArg {
    pub(crate) name: String,
    pub(crate) first_lane: SocketAddr,
    pub(crate) zone: String,
    pub(crate) lanes: u16,
    pub(crate) weight: u32,
}

impl NodeArg {
    /// Where each lane listens.
    pub(crate) fn lanes(&self) -> Vec<SocketAddr> {
        let at = |lane| SocketAddr::new(self.first_lane.ip(), self.first_lane.port() + lane);
        (0..self.lanes).map(at).collect()
    }
}

impl fmt::Display for NodeArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NodeArg { name, first_lane, zone, lanes, weight } = self;
        write!(f, "{name}={first_lane},zone={zone},lanes={lanes},weight={weight}")
    }
}

impl FromStr for NodeArg {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeArg, String> {
        let (name, rest) = text.split_once('=').ok_or("say NAME=IP:PORT[,zone=Z][,lanes=L]")?;
        let mut parts = rest.split(',');
        let address = parts.next().unwrap_or_default();
        let first_lane: SocketAddr =
            address.parse().map_err(|_| format!("{address:?} is not IP:PORT"))?;
        let mut node = NodeArg {
            name: name.to_owned(),
            first_lane,
            zone: "default".to_owned(),
            lanes: 1,
            weight: WEIGHT_NORMAL,
        };
        for part in parts {
            match part.split_once('=') {
                Some(("zone", zone)) => node.zone = zone.to_owned(),
                Some(("lanes", lanes)) => {
                    let number = lanes.parse().ok().filter(|lanes| (1..=LANES_MAX).contains(lanes));
                    node.lanes = number.ok_or_else(|| format!("lanes is 1 to {LANES_MAX}"))?;
                }
                Some(("weight", weight)) => {
                    let number = weight.parse().ok().filter(|w| (1..=WEIGHT_MAX).contains(w));
                    node.weight = number.ok_or_else(|| format!("weight is 1 to {WEIGHT_MAX}"))?;
                }
                Some(_) | None => return Err(format!("{part:?} is not zone=, lanes= or weight=")),
            }
        }
        match first_lane.port().checked_add(node.lanes - 1) {
            Some(_) if first_lane.port() != 0 => Ok(node),
            Some(_) | None => Err(format!("{address:?} has no room for {} lanes", node.lanes)),
        }
    }
}

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub(crate) enum Ctx {
    /// The clusters this machine knows; * is the selected one.
    Ls,
    /// Select a cluster.
    Use {
        /// Its context's name.
        name: String,
    },
    /// Add a cluster: its servers and the identity to use.
    Add {
        /// A name for it.
        name: String,
        /// Servers, HOST:PORT each.
        #[arg(long = "seed", value_name = "ADDR", required = true, value_delimiter = ',')]
        seeds: Vec<String>,
        /// Directory with ca.pem, cert.pem and key.pem.
        #[arg(long = "with", value_name = "DIR")]
        identity_dir: PathBuf,
    },
    /// Forget a cluster; nothing in it changes.
    Rm {
        /// Its context's name.
        name: String,
    },
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// For which shell.
    pub(crate) shell: Shell,
}

/// Arguments of `help`.
#[derive(Debug, Args)]
pub(crate) struct Help {
    /// quorums, exit-codes, errors, or a command.
    pub(crate) topic: Vec<String>,
}
