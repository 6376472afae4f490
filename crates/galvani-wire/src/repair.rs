//! A repair on demand: what a client asks of a node, and how far the node is.
//!
//! A node reads all it holds of the shards asked for, mends what is damaged, and compares each with
//! the other owners. Asking costs nothing while one is under way: it is joined. Next to read:
//! `view.rs`, `galvani-protocol/src/sync/run.rs`.

use crate::codec::DecodeError;
use galvani_model::ids::{NodeId, Partition};
use galvani_model::store::Damage;
use serde::{Deserialize, Serialize};

/// Asks a node to repair what it holds, or how far it is with that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repair {
    /// Whether to start; false only asks for the state.
    pub start: bool,
    /// Only shards of this partition; `None`: all.
    pub partition: Option<Partition>,
}

/// How far a node is with the repair that was asked for last. Figures are since that began, all
/// lanes; of rows that are damaged still and of what it lacks they are as of now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairState {
    /// Which node.
    pub node: NodeId,
    /// How often it was asked to start one since it runs; 0: never.
    pub asked: u64,
    /// Whether one is still at work.
    pub running: bool,
    /// Shards that it reads.
    pub shards: u32,
    /// Shards that are read through.
    pub shards_read: u32,
    /// Shards that could not be read through, however often that was tried.
    pub shards_unread: u32,
    /// Shards that are read and are still to be compared with another owner.
    pub shards_comparing: u32,
    /// Rows read.
    pub rows_read: u64,
    /// Damaged rows found.
    pub rows_found: u64,
    /// Damaged rows written anew.
    pub rows_mended: u64,
    /// Values that were lost without a trace and are held again.
    pub readopted: u64,
    /// Digests that the data did not bear out, put right.
    pub digests_corrected: u64,
    /// Records that it lacked and that anti-entropy brought.
    pub records_pulled: u64,
    /// Damaged rows that are not written anew.
    pub rows_damaged: u64,
    /// Some of them by name, at most [`crate::view::DAMAGED_NAMED_MAX`].
    pub named: Vec<Damage>,
    /// Shards of which it is known to lack something.
    pub shards_behind: u32,
    /// Times its engine met a part of a data file that it could not read, since the node started.
    pub unreadable: u64,
    /// Data files that are not what was written, at most [`crate::view::DAMAGED_NAMED_MAX`] of them.
    pub damaged_files: Vec<String>,
    /// Where its data is, on its host.
    pub data: String,
}

impl RepairState {
    /// Of a node that has never been asked.
    pub fn of(node: NodeId) -> RepairState {
        RepairState {
            node,
            asked: 0,
            running: false,
            shards: 0,
            shards_read: 0,
            shards_unread: 0,
            shards_comparing: 0,
            rows_read: 0,
            rows_found: 0,
            rows_mended: 0,
            readopted: 0,
            digests_corrected: 0,
            records_pulled: 0,
            rows_damaged: 0,
            named: Vec::new(),
            shards_behind: 0,
            unreadable: 0,
            damaged_files: Vec::new(),
            data: String::new(),
        }
    }
}

/// Keys in the names of rows must be keys.
pub(crate) fn check_named(named: &[Damage]) -> Result<(), DecodeError> {
    for row in named {
        match row {
            Damage::Object(_, key) => key.check()?,
            Damage::Record(..) | Damage::Request(..) => {}
        }
    }
    Ok(())
}
