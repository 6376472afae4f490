//! A repair on demand: every lane reads what it holds, and the node says how far all of them are.
//!
//! The lanes do the work at their own pace (`galvani-protocol/src/sync/run.rs`) and publish how far
//! they are with their other figures; nobody waits for a lane. The engine's files, which have no
//! lane, are read on a thread. Next to read: `lane_loop.rs`.

use crate::figures;
use crate::shared::{Control, Shared};
use galvani_model::ids::Shard;
use galvani_protocol::{Lane, PeerLane, RepairProgress};
use galvani_storage::engine::{Engine, EngineError};
use galvani_wire::repair::RepairState;
use galvani_wire::view::{Counters, DAMAGED_NAMED_MAX, UnequalShard};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

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
/// Dropped, it stops that thread and waits for its end: then nobody has the engine open because of it.
#[derive(Debug, Default)]
pub(crate) struct FileCheck {
    found: Arc<Mutex<FilesFound>>,
    /// Whether the node stops.
    stopping: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct FilesFound {
    running: bool,
    damaged: Vec<String>,
    /// Whether `damaged` are files, and not why they could not be read.
    are_files: bool,
}

impl FileCheck {
    /// Starts it; one that is under way is joined.
    pub(crate) fn start<E: Engine>(&self, engine: &Arc<E>) {
        if self.stopping.load(Ordering::SeqCst)
            || core::mem::replace(&mut self.found.lock().running, true)
        {
            return;
        }
        let (engine, stopping) = (engine.clone(), self.stopping.clone());
        let mut end = FileCheckEnd { found: self.found.clone(), damaged: None, are_files: false };
        let body = move || {
            let files = engine.damaged_files(&|| !stopping.load(Ordering::SeqCst));
            // Whoever hears that it is over may want to be the last one to have the engine.
            drop(engine);
            end.tell(files);
        };
        match thread::Builder::new().name("file-check".to_owned()).spawn(body) {
            // The one before is over, or it would have been joined.
            Ok(thread) => drop(self.thread.lock().replace(thread)),
            // What was to run on it is dropped, and has said so.
            Err(error) => tracing::error!(event = "files_not_checked", error = %error),
        }
    }

    /// Lets it end soon, and begin no more.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether it is at work.
    pub(crate) fn is_running(&self) -> bool {
        self.found.lock().running
    }

    /// Whether it is over and has found damaged files.
    pub(crate) fn has_found(&self) -> bool {
        let found = self.found.lock();
        !found.running && found.are_files
    }

    /// The first of the damaged files that it found last.
    pub(crate) fn damaged(&self) -> Vec<String> {
        self.found.lock().damaged.iter().take(DAMAGED_NAMED_MAX).cloned().collect()
    }
}

impl Drop for FileCheck {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.lock().take() {
            // A panic was told when it happened.
            let _ = thread.join();
        }
    }
}

/// Says that the check is over, however it ended.
struct FileCheckEnd {
    found: Arc<Mutex<FilesFound>>,
    /// `None`: it did not come to its end.
    damaged: Option<Vec<String>>,
    are_files: bool,
}

impl FileCheckEnd {
    fn tell(&mut self, files: Result<Vec<PathBuf>, EngineError>) {
        self.are_files = files.as_ref().is_ok_and(|files| !files.is_empty());
        self.damaged = Some(match files {
            Ok(files) => files.iter().map(|file| file.display().to_string()).collect(),
            Err(error) => vec![format!("not all could be read: {error}")],
        });
    }
}

impl Drop for FileCheckEnd {
    fn drop(&mut self) {
        let unfinished = || vec!["not all were read: the check failed, see the node's log".into()];
        let damaged = self.damaged.take().unwrap_or_else(unfinished);
        for file in &damaged {
            tracing::error!(event = "file_damaged", file = %file);
        }
        *self.found.lock() = FilesFound { running: false, damaged, are_files: self.are_files };
    }
}

/// Writes down that a shard was found unequal to another owner's, or that it is mended.
pub(crate) fn log_unequal(peer: PeerLane, shard: Shard, mended: bool) {
    let (partition, n, node) = (shard.partition.0, shard.n, peer.node);
    match mended {
        false => tracing::error!(event = "replica_unequal", partition, n, peer = %node),
        true => tracing::info!(event = "replica_mended", partition, n, peer = %node),
    }
}

/// Other nodes know of writes of this one that its disk has not: all lanes hear of it.
pub(crate) fn on_went_back<E: Engine>(shared: &Shared<E>, name: u128) {
    let what =
        "others know of writes of this node that are not on its disk: it is filled again first";
    tracing::warn!(event = "disk_went_back", message = what);
    shared.tell_all(&Control::WentBack(name));
}

/// Shards that a lane finds unequal now.
pub(crate) fn unequal(lane: &Lane) -> impl Iterator<Item = UnequalShard> {
    lane.unequal().map(|(peer, shard)| UnequalShard { shard, peer: peer.node })
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
    if shared.files.has_found() && lanes.iter().any(|lane| lane.engine_fails) {
        give_up(&mut state);
    }
    state
}

/// A node whose engine fails at a damaged file again and again comes to no end by itself: whoever waits is to
/// hear of the file now, and what to do about it.
fn give_up(state: &mut RepairState) {
    state.running = false;
    state.shards_unread = state.shards - state.shards_read;
    state.shards_comparing = 0;
}

#[cfg(test)]
mod tests;
