//! The state machines of one lane: put, get, delete, replicate, forward, list, deadlines.
//!
//! Values only: no clock, no randomness, no sockets, no files, no threads. The contract is on
//! [`Lane`]: hand it one [`Input`], drain its effects, commit what it staged, and only then let the
//! effects out. The simulator and the node are its only callers. Read `effect.rs`, then `lane.rs`
//! (which only routes), then `put.rs`, `get.rs`, and `replica.rs`, the one place that changes a record.

pub mod admission;
mod buckets;
pub mod budget;
mod durable_clocks;
pub mod effect;
mod expired;
mod expiries;
mod explain;
mod feed;
mod forward;
mod get;
mod handoff;
mod known;
pub mod lagged;
mod lane;
mod layout;
mod list;
mod membership;
mod ops;
mod origins;
mod put;
mod read_repair;
mod reap;
mod refuse;
mod replica;
mod retried;
mod route;
mod serve;
mod share;
mod stand_ins;
mod sync;
mod table;
pub mod topology;
mod trim;
mod unsay;

pub use effect::{Effect, Input, Now, PeerLane, ReplyTo};
pub use lane::{LINGERING_PER_INFLIGHT, Lane, LaneConfig};
pub use layout::refill::{LOSS as LOSS_FACT, facts_of_a_loss};
pub use membership::swim::Standing;
pub use ops::ASKS_PER_OP;
pub use sync::run::RepairProgress;
pub use topology::Topology;
