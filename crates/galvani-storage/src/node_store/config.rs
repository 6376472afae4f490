//! How a store is set up.
//!
//! Nothing here is part of the format on disk: any store opens what one with other settings wrote.
//! Next to read: `mod.rs`.

use galvani_model::ids::LaneIndex;

/// Which shards a store serves, and how it starts.
#[derive(Clone, Copy, Debug)]
pub struct StoreConfig {
    /// The lane it belongs to.
    pub lane: LaneIndex,
    /// How many lanes the node has; a partition belongs to `partition % lanes`.
    pub lanes: u16,
    /// Whether origins may be used again: only after a stop known to be clean.
    pub keep_origins: bool,
    /// How much of its committed rows it remembers.
    pub memory: MemoryConfig,
    /// A shard's clock row is written after so many records, and arrival rows tell the rest. 1: with
    /// each.
    pub checkpoint_every: u64,
}

impl StoreConfig {
    /// One of a node's lanes, with the defaults for all else.
    pub fn of_lane(lane: LaneIndex, lanes: u16, keep_origins: bool) -> StoreConfig {
        let memory = MemoryConfig::of_lane(lanes);
        StoreConfig { lane, lanes, keep_origins, memory, checkpoint_every: CHECKPOINT_EVERY }
    }
}

/// Few enough that the arrivals of a shard are read through in well under a millisecond when it is
/// opened.
const CHECKPOINT_EVERY: u64 = 64;

/// How much a store remembers of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes of objects. 0: none.
    pub object_bytes: u64,
    /// Bytes of records that were read, those with large values left out. 0: none.
    pub record_bytes: u64,
    /// Request rows, some 150 bytes each. 0: none.
    pub requests: usize,
}

impl MemoryConfig {
    /// The default of a node, shared out over its lanes: 16 MiB of objects, as
    /// much of records, and 32,768 request rows.
    pub fn of_lane(lanes: u16) -> MemoryConfig {
        let lanes = lanes.max(1);
        MemoryConfig {
            object_bytes: (16 << 20) / u64::from(lanes),
            record_bytes: (16 << 20) / u64::from(lanes),
            requests: 32_768 / usize::from(lanes),
        }
    }

    /// Nothing is remembered: every read is the engine's.
    pub const NONE: MemoryConfig = MemoryConfig { object_bytes: 0, record_bytes: 0, requests: 0 };
}
