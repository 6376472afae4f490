//! Waiting until the engine has room for a batch, without waiting for ever.
//!
//! fjall's own commit waits in a loop while flushes or compactions are behind, and does not see
//! that the worker it waits for has died. So a commit waits here first, a little earlier, with an
//! eye on the poison flag and the clock; fjall's own limits are then not reached.
//! Next to read: `mod.rs`.

use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace, PersistMode};

use super::Open;
use crate::engine::{Batch, EngineError, Op};

/// How long a commit waits for background work before it gives up with nothing written.
pub const STALL_MAX: Duration = Duration::from_secs(5);

/// Returns once every table that `batch` writes has room.
pub(super) fn wait_for_room(open: &Open, batch: &Batch) -> Result<(), EngineError> {
    let mut touched = [false; crate::engine::Table::COUNT];
    for op in batch.iter() {
        match op {
            Op::Put { table, .. } | Op::Delete { table, .. } => touched[table.index()] = true,
        }
    }
    let tables = || open.tables.iter().zip(touched).filter_map(|(tree, hit)| hit.then_some(tree));
    if tables().all(has_room) {
        return Ok(());
    }
    let began = Instant::now();
    while !tables().all(has_room) {
        // With nothing buffered this only asks whether a worker failed.
        if open.database.persist(PersistMode::Buffer).is_err() {
            return Err(EngineError::ReadOnly);
        }
        let waited = began.elapsed();
        if waited >= STALL_MAX {
            return Err(EngineError::Stalled { waited_ms: waited.as_millis() as u64 });
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
