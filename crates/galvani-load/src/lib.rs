//! What a load consists of, what is recorded of it, and how it is judged: the computing half of
//! `galvani bench`.
//!
//! No clock, no network, no files: times come in as arguments, and the same seed makes the same
//! operations. The half that drives a cluster is in `crates/galvani/src/commands/bench.rs`. Read
//! `workload.rs` (which operations on which keys), `ledger.rs` (what must be found at the end),
//! `recorder.rs` (latencies), `run.rs` (what is saved), `phases.rs` (between faults), then `compare.rs` and
//! `merge.rs` (several runs).

pub mod compare;
pub mod hdr;
pub mod html;
pub mod ledger;
pub mod merge;
pub mod phases;
pub mod random;
pub mod recorder;
pub mod run;
pub mod search;
pub mod stats;
pub mod workload;
pub mod ycsb;
pub mod zipf;
