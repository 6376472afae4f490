//! How a process that runs a node greets the others, and how they tell it of its twin.
//!
//! A twin is another process under the same node id: a copy of the node's data directory with its
//! identity, started elsewhere. Only the nodes that both of them greet can know. What becomes of
//! it is decided in `galvani-node/src/lane_loop/twins.rs`.

use core::net::SocketAddr;
use galvani_model::ids::BootId;
use serde::{Deserialize, Serialize};

/// One process, as it greets a node on a link that it has just dialed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Which process: drawn at its start.
    pub boot: BootId,
    /// How long it runs, in milliseconds.
    pub up_ms: u64,
    /// When it was started, by its own clock, in milliseconds since 1970.
    pub since_ms: u64,
    /// Where its lane 0 listens, as its own layout says.
    pub address: SocketAddr,
}

/// What a node says to a process that greeted it, on the same link, when another one under the same
/// node id did so too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Twin {
    /// Greet again: only that proves that you run.
    Asked,
    /// The other one runs: it has greeted again, or was asked for with its own greeting.
    Runs(Greeting),
}
