//! What a store does after its disk has failed: what it forgets, when it tries again, when it ends.
//!
//! A commit that fails leaves nothing staged, and new incarnations of what it touched. A full disk, and an
//! engine that cannot be opened, are tried again now and then, as the driver says; a failed sync never is.
//! Next to read: `commit` in `mod.rs`, and the engine's `EngineError`.

use super::NodeStore;
use crate::engine::{Engine, EngineError, IoStep};

/// What the next commit does about an engine that could not be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// Nothing: the disk has just failed, and lanes tick thousands of times a second.
    Rests,
    /// It tries once more.
    Due,
}

/// While the disk is full, writes are refused before they are staged, so that reads of the same tick
/// are not lost with them; every so many commits one tick may try whether there is room again.
const FULL_PROBE_COMMITS: u32 = 16;

impl<E: Engine> NodeStore<E> {
    /// Whether a sync failed, this lane's or another's. The node must stop without a clean mark: what
    /// the disk has of the last moments is not known, and only a new start, under new incarnations,
    /// is safe.
    pub fn is_lost(&self) -> bool {
        self.lost || self.engine.is_lost()
    }

    /// Lets the next write find out whether a full disk has room again, and the next commit whether an
    /// engine can be opened that could not. The driver calls it now and then, so that an idle node
    /// recovers, too.
    pub fn try_disk_again(&mut self) {
        self.full_for = self.full_for.map(|_| FULL_PROBE_COMMITS);
        self.shut = self.shut.map(|_| Shut::Due);
    }

    /// Whether writes are staged: not while the disk is known to be full.
    pub(super) fn takes_writes(&self) -> bool {
        self.full_for.is_none_or(|commits| commits >= FULL_PROBE_COMMITS)
    }

    /// Forgets everything staged. What the engine kept of a failed batch is in doubt until it is
    /// opened again, so that happens here and all cached state is read anew.
    pub(super) fn roll_back(&mut self, error: &EngineError) {
        self.renewed.append(&mut self.dirty);
        self.renewed.append(&mut self.touched);
        for shard in &self.renewed {
            self.states.remove(shard);
        }
        self.damaged.roll_back();
        self.forget_tick();
        self.owes_sync |= error.is_in_doubt();
        self.unsynced = true;
        // A failed sync is never tried again: the kernel may have dropped the pages and would say
        // that all is well. Whoever drives this store must end.
        let failed_sync = matches!(error, EngineError::Io { step: IoStep::Sync, .. });
        self.lost |= failed_sync || matches!(error, EngineError::Lost);
        let stuck = matches!(error, EngineError::ReadOnly | EngineError::Closed);
        let may_open = !self.is_lost() && self.shut != Some(Shut::Rests);
        if may_open && (error.is_in_doubt() || stuck) {
            self.open_again();
        }
    }

    /// Whether the engine could not be opened again, and no other lane has done so since.
    pub(super) fn stays_shut(&mut self) -> bool {
        if self.shut == Some(Shut::Due) && self.count_hints().is_ok() {
            self.shut = None;
        }
        self.shut.is_some()
    }

    fn open_again(&mut self) {
        self.states.clear();
        self.memory.clear();
        self.shut = None;
        if let Err(error) = self.engine.reopen() {
            tracing::error!(event = "engine_reopen_failed", error = %error);
            self.shut = Some(Shut::Rests);
            return;
        }
        // Whether the batch's hints are there is not known either.
        if let Err(error) = self.count_hints() {
            tracing::error!(event = "hints_not_counted", error = %error);
        }
    }
}
