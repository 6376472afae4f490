//! Durable partition replicas over an embedded engine.
//!
//! Three floors. [`engine`] is an ordered key-value engine with a fixed set of tables and atomic
//! batches: on disk ([`engine::FjallEngine`]) or in memory with honest crashes
//! ([`engine::MemoryEngine`]). [`dir`] is the data directory around it: who it belongs to, who holds
//! it, and whether the last stop may be trusted. Neither knows what a row means.
//! [`node_store`] gives the rows their meaning (with [`format`](mod@format) for their bytes).
//! Next to read: `engine/mod.rs`, then `dir/mod.rs`.

pub mod dir;
pub mod engine;
pub mod format;
pub mod node_store;

pub use node_store::{
    MemoryConfig, NodeStore, Opened, StateError, StoreConfig, TrimmedRow, stored_state, write_facts,
};
