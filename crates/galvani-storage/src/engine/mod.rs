//! The engine: ordered tables of bytes, changed only by whole batches.
//!
//! [`Engine`] is the contract, [`FjallEngine`] keeps it on disk, [`MemoryEngine`] keeps it in
//! memory with crashes and faults the caller orders. An engine never knows what a row means, never
//! retries a failed write and never changes anything outside [`Engine::commit`].
//! Next to read: `batch.rs`, `error.rs`, then `fjall/mod.rs`.

mod batch;
mod error;
mod fjall;
mod memory;

#[cfg(test)]
mod conformance;

use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;

pub use batch::{Batch, KEY_BYTES_MAX, Op, VALUE_BYTES_MAX};
pub(crate) use error::store_error;
pub use error::{EngineError, IoStep};
pub use fjall::{EngineConfig, FjallEngine, JournalCut, OpenReport, PowerHistory, STALL_MAX};
pub use memory::{Corruption, CrashKeep, FailKind, MemoryEngine, UNSYNCED_MAX};

/// One of the engine's tables. The numbers are part of the disk format and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Key to its live versions: small rows, read before every write.
    Objects = 0,
    /// Dot to record: the only table with large values.
    Log = 1,
    /// Arrival number to dot: written in order, scanned in order, never looked up.
    Arrivals = 2,
    /// Request id to dot: mostly looked up in vain.
    RequestIds = 3,
    /// One row of counters per replica.
    Clocks = 4,
    /// Facts about the store itself.
    Meta = 5,
    /// Records held for owners that were away: written once, scanned per target, deleted.
    Hints = 6,
    /// Dots of live tombstones to their keys: written by a delete, gone when it is collected.
    Tombstones = 7,
    /// Dots of live values that expire to their keys, by expiry: gone when collected or replaced.
    Expiring = 8,
}

impl Table {
    /// Every table, in number order.
    pub const ALL: [Table; Table::COUNT] = [
        Table::Objects,
        Table::Log,
        Table::Arrivals,
        Table::RequestIds,
        Table::Clocks,
        Table::Meta,
        Table::Hints,
        Table::Tombstones,
        Table::Expiring,
    ];

    /// How many tables there are.
    pub const COUNT: usize = 9;

    /// The table's number, below [`Table::COUNT`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The table's name on disk and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Objects => "objects",
            Table::Log => "log",
            Table::Arrivals => "arrivals",
            Table::RequestIds => "request_ids",
            Table::Clocks => "clocks",
            Table::Meta => "meta",
            Table::Hints => "hints",
            Table::Tombstones => "tombstones",
            Table::Expiring => "expiring",
        }
    }
}

/// How safe a batch is when [`Engine::commit`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// The operating system has it: it survives the death of this process, not of the machine.
    Os,
    /// The disk has it: it survives power loss.
    Fsync,
}

/// What an engine can say of itself. Counters start at zero when the engine is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Bytes allocated on disk, journals included.
    pub disk_bytes: u64,
    /// Bytes free on the file system for this process; `u64::MAX` where there is no disk.
    pub free_bytes: u64,
    /// Bytes of rows held in memory until they are written to tables.
    pub memtable_bytes: u64,
    /// Bytes the block cache holds.
    pub cache_bytes: u64,
    /// Journal files on disk.
    pub journals: u64,
    /// Batches committed.
    pub commits: u64,
    /// Syncs done; less than the `Fsync` commits when commits share one.
    pub syncs: u64,
    /// Commits refused because of free space.
    pub refused_full: u64,
    /// True after a failed write: reads only.
    pub read_only: bool,
}

/// What a scan shows its rows, key and value, until it breaks.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An ordered key-value engine with a fixed set of tables and atomic batches.
///
/// Laws, checked on every implementation by one suite (`conformance.rs`):
/// a batch is whole or absent, over all tables, whatever stops the process; a committed batch is
/// visible to every later `get` and `scan`; of several operations on one key in one batch the last
/// one counts; keys are ordered as bytes; a read never changes anything.
///
/// Batches that touch the same keys must come from one thread at a time: the engine orders
/// concurrent commits, and does not say how. A `get` concurrent with a commit may see one row of
/// that batch and not yet another.
pub trait Engine: Send + Sync + 'static {
    /// The value under `key`, or `None`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// Shows `visit` at most `limit` rows with `start <= key < end` in ascending order, from one
    /// point in time, until it breaks. No `end` means to the end of the table. `visit` must not
    /// call back into the engine's commands.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError>;

    /// Makes `batch` part of the tables, all of it or nothing, as safe as `durability` says. An
    /// empty batch writes nothing; with [`Durability::Fsync`] it still waits for earlier ones.
    /// The batch is left as it is: the caller clears it and uses its memory again.
    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError>;

    /// Returns once everything committed so far survives power loss.
    fn sync(&self) -> Result<(), EngineError>;

    /// Closes the engine and opens it again: the way back after [`EngineError::ReadOnly`].
    /// A batch whose commit failed in doubt is afterwards either whole or absent, so the caller
    /// must read again whatever it keeps in memory. While this runs other calls wait.
    /// After a failed sync it is refused with [`EngineError::Lost`], for whoever shares the engine.
    fn reopen(&self) -> Result<(), EngineError>;

    /// Whether a sync failed, whoever asked for it: then nothing is written any more.
    fn is_lost(&self) -> bool;

    /// Reads every file of the tables whole, at a moderate pace, and returns those that are not what
    /// was written. Holds none of them back from being replaced, and names none that was. Soon
    /// after `go_on` says false it returns what it has found so far. Journals are read at every open.
    fn damaged_files(&self, _go_on: &dyn Fn() -> bool) -> Result<Vec<PathBuf>, EngineError> {
        Ok(Vec::new())
    }

    /// Times a read met a part of a file that is not what was written, since the engine was made.
    /// A row that is written anew is read again; the file stays as it is.
    fn unreadable(&self) -> u64 {
        0
    }

    /// Figures for people and metrics; may read the file system.
    fn stats(&self) -> EngineStats;
}
