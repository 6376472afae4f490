//! One node: lane loops that drive the machines over the disk and the network.
//!
//! Nothing here decides a quorum or a version: `galvani-protocol` does. This crate reads the clock,
//! owns the threads, moves frames between sockets and lanes, commits ticks, and starts and stops
//! cleanly. Read `node.rs` (start and stop), then `lane_loop.rs` (the tick), then `links.rs`.

mod client_rates;
mod clock;
pub mod cluster_file;
pub mod config;
mod faults;
mod figures;
pub mod hosted;
pub mod join;
mod lane_loop;
mod links;
pub mod local;
mod node;
mod permission;
pub mod provision;
mod renewal;
mod repair;
mod shared;

pub use galvani_model::store::StoreError;
pub use galvani_storage::engine::EngineError;
pub use node::{NodeError, run};
