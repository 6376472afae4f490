//! Arguments of `repair`.

use crate::args::line::Line;
use clap::Args;

/// Arguments of `repair`.
#[derive(Debug, Args)]
#[command(
    before_help = "  galvani repair                    every node reads all it holds, mends, compares\n  \
                   galvani repair --node n2          one node\n  \
                   galvani repair --partition 17 --no-wait\n  \
                   galvani repair --state            only look how far it is",
    after_help = "Every row's checksum is read. A damaged row is written anew: a record from another owner, the\n\
                  rest from the node's own log. Then each shard is compared with its other owners. Without\n\
                  --partition the data files are read whole, too. Nodes go one after the other, so that the\n\
                  others have their disks for clients; with --no-wait all begin at once. Ctrl-C leaves it running\n\
                  on the node whose turn it is; asked for again it is joined.\n\
                  Exit 0: all is whole, or mended. 7: damage is left, or a node did not answer; what and who is\n\
                  named. 8: no server answered at all."
)]
pub(crate) struct Repair {
    /// Only this node. [default: all]
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// Only this partition. [default: all]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) partition: Option<u16>,
    /// Only start it, on all nodes at once.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Only look how far the nodes are with the one that was asked for last; start nothing.
    #[arg(long, conflicts_with_all = ["partition", "no_wait"])]
    pub(crate) state: bool,
}

impl Repair {
    /// The command that was typed.
    pub(crate) fn line(&self) -> Line {
        let line = Line::new("repair").given("--node", self.node.as_ref());
        let line = line.given("--partition", self.partition).flag("--no-wait", self.no_wait);
        line.flag("--state", self.state)
    }

    /// What only looks how far it is.
    pub(crate) fn look_line(&self) -> Line {
        Line::new("repair").given("--node", self.node.as_ref()).flag("--state", true)
    }
}
