//! A repair on demand: every lane reads what it holds, and the node says how far all of them are.
//!
//! The lanes do the work at their own pace (`galvani-protocol/src/sync/run.rs`) and publish how far
//! they are with their other figures; nobody waits for a lane. Next to read: `lane_loop.rs`.

use crate::figures;
use crate::shared::Shared;
use galvani_protocol::RepairProgress;
use galvani_storage::engine::Engine;
use galvani_wire::repair::RepairState;
use galvani_wire::view::{Counters, DAMAGED_NAMED_MAX};
use parking_lot::Mutex;
use std::sync::Arc;
use std::thread;

/// What a lane remembers of the repair that was asked for last.
#[derive(Debug, Default)]
pub(crate) struct LaneRepair {
    /// Repairs that were asked for when it last heard of one.
    heard: u64,
    /// The lane's own number of the one that `since` belongs to.
    number: u64,
    /// What the lane had counted when that began.
    since: Counters,
}

/// How far a lane is.
#[derive(Clone, Debug, Default)]
pub(crate) struct RepairFigures {
    heard: u64,
    progress: RepairProgress,
    rows_read: u64,
    rows_found: u64,
    rows_mended: u64,
    readopted: u64,
    digests_corrected: u64,
    records_pulled: u64,
}

impl LaneRepair {
    /// The lane was asked; `counters` are those of now.
    pub(crate) fn on_asked(&mut self, asked: u64, progress: RepairProgress, counters: &Counters) {
        self.heard = asked;
        if self.number != progress.number {
            self.number = progress.number;
            self.since = counters.clone();
        }
    }

    /// What is to be published.
    pub(crate) fn figures(&self, progress: RepairProgress, counters: &Counters) -> RepairFigures {
        if self.heard == 0 {
            return RepairFigures::default();
        }
        let since = |figure: fn(&Counters) -> u64| figure(counters) - figure(&self.since);
        RepairFigures {
            heard: self.heard,
            progress,
            rows_read: since(|all| all.rows_verified),
            rows_found: since(|all| all.quarantined),
            rows_mended: since(|all| all.rows_mended),
            readopted: since(|all| all.readopted),
            digests_corrected: since(|all| all.digests_corrected),
            records_pulled: since(|all| all.records_pulled),
        }
    }
}

/// Reads all files of the node's engine whole, on a thread of its own, and keeps what it found.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileCheck {
    found: Arc<Mutex<FilesFound>>,
}

#[derive(Debug, Default)]
struct FilesFound {
    running: bool,
    damaged: Vec<String>,
}

impl FileCheck {
    /// Starts it; one that is under way is joined.
    pub(crate) fn start<E: Engine>(&self, engine: &Arc<E>) {
        if core::mem::replace(&mut self.found.lock().running, true) {
            return;
        }
        let (engine, found) = (engine.clone(), self.found.clone());
        let body = move || {
            let damaged = match engine.damaged_files() {
                Ok(files) => files.iter().map(|file| file.display().to_string()).collect(),
                Err(error) => vec![format!("none could be read: {error}")],
            };
            for file in &damaged {
                tracing::error!(event = "file_damaged", file = %file);
            }
            *found.lock() = FilesFound { running: false, damaged };
        };
        let spawned = thread::Builder::new().name("file-check".to_owned()).spawn(body);
        if let Err(error) = spawned {
            tracing::error!(event = "files_not_checked", error = %error);
            self.found.lock().running = false;
        }
    }

    /// Whether it is at work.
    pub(crate) fn is_running(&self) -> bool {
        self.found.lock().running
    }

    /// The first of the damaged files that it found last.
    pub(crate) fn damaged(&self) -> Vec<String> {
        self.found.lock().damaged.iter().take(DAMAGED_NAMED_MAX).cloned().collect()
    }
}

/// How far all lanes are together. One that has not heard of the last one yet is still at work.
pub(crate) fn state<E: Engine>(shared: &Shared<E>) -> RepairState {
    let lanes = shared.figures();
    let asked = shared.repairs_asked();
    let mut state = RepairState {
        asked,
        named: figures::damaged(&lanes),
        running: shared.files.is_running(),
        damaged_files: shared.files.damaged(),
        unreadable: shared.engine.unreadable(),
        data: shared.data.display().to_string(),
        ..RepairState::of(shared.topology().node)
    };
    for lane in &lanes {
        let repair = &lane.repair;
        state.running |= repair.progress.running || repair.heard < asked;
        state.shards += repair.progress.shards;
        state.shards_read += repair.progress.read;
        state.shards_unread += repair.progress.unread;
        state.shards_comparing += repair.progress.comparing;
        state.rows_read += repair.rows_read;
        state.rows_found += repair.rows_found;
        state.rows_mended += repair.rows_mended;
        state.readopted += repair.readopted;
        state.digests_corrected += repair.digests_corrected;
        state.records_pulled += repair.records_pulled;
        state.rows_damaged += lane.counters.rows_damaged;
        state.shards_behind += lane.shards_behind;
    }
    state
}
