//! Making room for a batch in memory, and waiting for it without waiting for ever.
//!
//! Two things in fjall 3.1 must not be reached. Its commit asks the workers to seal a full
//! memtable by a message per commit until it is done; that can fill the queue, and a worker that
//! then has to queue the flush waits for itself: flushing stops and memory grows without bound.
//! So memtables are sealed here, by the committing thread. And its commit waits in a loop while
//! flushes are behind, without seeing that a worker has died: so the wait is here too, earlier.
//! Next to read: `mod.rs`.

use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace, PersistMode};

use super::Open;
use super::options::{EngineConfig, memtable_bytes};
use crate::engine::{Batch, EngineError, Op, Table};

/// How long a commit waits for background work before it gives up with nothing written.
pub const STALL_MAX: Duration = Duration::from_secs(2);

/// Why there is no room.
pub(super) enum NoRoom {
    /// The engine failed before, or a worker did.
    Failed(fjall::Error),
    /// The workers did not catch up in time.
    Stalled(EngineError),
}

/// Returns once every table that `batch` writes has room, with full memtables sealed.
pub(super) fn make_room(open: &Open, config: &EngineConfig, batch: &Batch) -> Result<(), NoRoom> {
    // One deadline for the whole commit: the thread that waits is a lane's.
    let began = Instant::now();
    let mut touched = [false; Table::COUNT];
    for op in batch.iter() {
        match op {
            Op::Put { table, .. } | Op::Delete { table, .. } => touched[table.index()] = true,
        }
    }
    for table in Table::ALL.into_iter().filter(|table| touched[table.index()]) {
        let tree = &open.tables[table.index()];
        wait_for_workers(open, tree, began)?;
        seal_if_full(open, tree, memtable_bytes(table, config))?;
    }
    Ok(())
}

fn seal_if_full(open: &Open, tree: &Keyspace, bytes_max: u64) -> Result<(), NoRoom> {
    let is_full = || tree.tree.active_memtable().size() >= bytes_max;
    if !is_full() {
        return Ok(());
    }
    // Lanes meet here: the second finds a new memtable and must not seal that too.
    let _one_at_a_time = open.sealing.lock();
    if is_full() {
        tree.rotate_memtable().map_err(NoRoom::Failed)?;
    }
    Ok(())
}

fn wait_for_workers(open: &Open, tree: &Keyspace, began: Instant) -> Result<(), NoRoom> {
    if has_room(tree) {
        return Ok(());
    }
    while !has_room(tree) {
        // With nothing buffered this only asks whether a worker failed.
        open.database.persist(PersistMode::Buffer).map_err(NoRoom::Failed)?;
        let waited = began.elapsed();
        if waited >= STALL_MAX {
            let waited_ms = waited.as_millis() as u64;
            return Err(NoRoom::Stalled(EngineError::Stalled { waited_ms }));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn has_room(tree: &Keyspace) -> bool {
    tree.sealed_memtable_count() < SEALED_MAX && tree.tree.l0_run_count() < L0_RUNS_MAX
}

const POLL: Duration = Duration::from_millis(1);

/// fjall stops at 4 memtables waiting to be flushed.
const SEALED_MAX: usize = 3;

/// fjall stops at 30 and slows down from 20.
const L0_RUNS_MAX: usize = 24;
