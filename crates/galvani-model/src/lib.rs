//! Values and laws of the store: ids, hashing, versions and clocks, placement, quorums, limits.
//!
//! Everything here is a value. No clock, no randomness, no sockets, no files, no threads, and no
//! hash-map order that leaks: the same inputs give the same outputs on every machine, for ever.
//! Read `version/` first (dots, clocks, objects), then `placement/` (who owns a key), then
//! `quorum.rs` (when an operation is done). The `Store` trait in `store.rs` is the one door
//! through which the machines of `galvani-protocol` see a disk.

pub mod bucket;
pub mod feed;
pub mod hash;
pub mod hlc;
pub mod ids;
pub mod key;
pub mod limits;
pub mod placement;
pub mod quantile;
pub mod quorum;
pub mod quorum_promise;
pub mod request;
pub mod span;
pub mod store;
pub mod topic;
mod varint;
pub mod version;
