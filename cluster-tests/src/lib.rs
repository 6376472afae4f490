//! Tests with the real binary, real processes and real faults: what they share.
//!
//! A test starts a [`Cluster`] of node processes, puts a [`Load`] on it whose writes go into a
//! [`History`], breaks something, and asks the history whether anything acked was lost. Nothing here
//! reaches into a node: all goes through the command line, the client, signals and files.
//! Read `cluster.rs` first, then `history.rs`; the cases are in `tests/`.

pub mod binary;
pub mod broker;
pub mod chaos;
pub mod cluster;
pub mod command;
pub mod crowd;
pub mod feed_cost;
pub mod feed_group;
pub mod flips;
pub mod flood;
pub mod golden;
pub mod history;
pub mod load;
pub mod memnet;
pub mod power;
pub mod processes;
pub mod raw;
pub mod reads;
pub mod shim;
pub mod small_disk;
pub mod wait;

pub use cluster::Cluster;
pub use command::Ran;
pub use history::{Fate, History};
pub use load::{Load, Tally};
pub use wait::until;
