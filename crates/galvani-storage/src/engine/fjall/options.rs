//! How the database and its tables are set up, and why.
//!
//! Table options are fixed when a table is made: fjall keeps them with the table and a later
//! configuration does not change them. Database-wide settings apply at every open.
//! Next to read: `mod.rs`.

use std::path::Path;
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, KeyspaceCreateOptions, KvSeparationOptions};

use crate::engine::Table;

/// Settings of the engine on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Free bytes of the file system that commits may not use, so that the background work of
    /// the engine always finds room. Default 64 MiB. 0 turns the guard off.
    pub reserve_bytes: u64,
    /// Bytes of blocks and large values kept in memory. Default 32 MiB.
    pub cache_bytes: u64,
    /// Bytes of new rows kept in memory over all tables before they go to disk, at least 8 MiB.
    /// Default 32 MiB; up to three times as much while flushes are behind.
    pub memtable_bytes: u64,
    /// Bytes of journals after which rows are flushed to free them, at least 64 MiB. Default
    /// 128 MiB. Bounds the work of opening after a crash.
    pub journal_bytes: u64,
    /// Threads for flushing and compacting, at least 1. Default 1.
    pub worker_threads: usize,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            reserve_bytes: 64 * MIB,
            cache_bytes: 32 * MIB,
            memtable_bytes: 32 * MIB,
            journal_bytes: JOURNAL_BYTES_MIN * 2,
            worker_threads: 1,
        }
    }
}

pub(super) fn database(path: &Path, config: &EngineConfig) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(config.cache_bytes)
        .max_journaling_size(config.journal_bytes.max(JOURNAL_BYTES_MIN))
        .max_cached_files(Some(OPEN_FILES_MAX))
        .worker_threads(config.worker_threads.max(1))
        // `journal.rs` reads journals without decompressing.
        .journal_compression(CompressionType::None)
        .open()
}

pub(super) fn keyspace(table: Table) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::disabled())
        // `room.rs` seals memtables, long before the engine would.
        .max_memtable_size(u64::MAX);
    match table {
        // Looked up before every write, found or not: filters on all levels (the default).
        Table::Objects | Table::RequestIds => options.compaction_strategy(leveled(32 * MIB)),
        // A record is looked up only by someone who knows its dot, so filters on the last level
        // would only cost memory. Values stay out of the tree: compaction does not copy them.
        Table::Log => options.expect_point_read_hits(true).with_kv_separation(Some(
            KvSeparationOptions::default()
                .compression(CompressionType::None)
                .separation_threshold(SEPARATED_BYTES_MIN),
        )),
        // Scanned, never looked up: a hint's row is looked for once, before it is written.
        Table::Arrivals | Table::Hints | Table::Tombstones | Table::Expiring => {
            options.filter_policy(FilterPolicy::disabled()).compaction_strategy(leveled(32 * MIB))
        }
        Table::Clocks | Table::Meta => {
            options.expect_point_read_hits(true).compaction_strategy(leveled(8 * MIB))
        }
    }
}

/// How many bytes of new rows `table` keeps in memory before they are flushed.
pub(super) fn memtable_bytes(table: Table, config: &EngineConfig) -> u64 {
    config.memtable_bytes.max(MEMTABLE_BYTES_MIN) / memtable_share(table)
}

fn leveled(table_bytes: u64) -> Arc<Leveled> {
    Arc::new(Leveled::default().with_table_target_size(table_bytes))
}

/// A table's share of the memory for new rows is one part in this many.
const fn memtable_share(table: Table) -> u64 {
    match table {
        Table::Log => 2,
        Table::Objects => 4,
        Table::Arrivals | Table::RequestIds | Table::Clocks => 16,
        Table::Meta | Table::Hints | Table::Tombstones | Table::Expiring => 32,
    }
}

const MIB: u64 = 1 << 20;

/// The engine refuses less.
const JOURNAL_BYTES_MIN: u64 = 64 * MIB;

const MEMTABLE_BYTES_MIN: u64 = 8 * MIB;

/// Values from this size live beside the tree. Below it the pointer and its garbage cost more
/// than the copy.
const SEPARATED_BYTES_MIN: u32 = 512;

/// Open files the engine keeps for reads: enough for tens of GiB in 64 MiB files, and well under
/// the usual limit of 1,024 per process.
const OPEN_FILES_MAX: usize = 256;
