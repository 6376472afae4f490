//! Whether what the replica holds is what the cluster holds, and whether its own files are whole.
//!
//! Here is what one look at everything found, and the reading of the files; going through the keys and
//! reading the cluster is the work of whoever runs the replica. The last result is kept in the journal.
//! Next to read: `compare.rs`, which says how one key differs, and `status.rs`.

use crate::error::LaggedError;
use crate::replica::Lagged;
use galvani_protocol::Now;
use galvani_storage::engine::{Durability, Engine};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a comparison of everything found. Moments are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When it began.
    pub began_ms: u64,
    /// When it was through.
    pub ended_ms: u64,
    /// Keys that were compared, of the replica and of the cluster.
    pub keys: u64,
    /// Keys of which writes came here that the cluster does not show and nothing known replaces, looked
    /// at twice: the cluster has lost something. Should be 0.
    pub lost: u64,
    /// Keys of which the cluster shows writes that should have come here and did not, looked at twice.
    /// Should be 0.
    pub missing: u64,
    /// Keys of which it could not be told, because they were written all the while.
    pub unclear: u64,
    /// Keys that could not be read in the cluster.
    pub unread: u64,
    /// Keys and lists of keys that could not be read here, because a row is damaged. Should be 0.
    pub damaged: u64,
    /// Files of the replica that are not what was written. Should be none.
    pub damaged_files: Vec<String>,
    /// The first of the keys and lists that are counted above, each with what is wrong, for people.
    pub named: Vec<String>,
}

impl Verified {
    /// Whether nothing was found that should not be.
    pub fn is_well(&self) -> bool {
        self.lost + self.missing + self.damaged == 0 && self.damaged_files.is_empty()
    }

    /// Adds something to the names, as long as there is room.
    pub fn name(&mut self, what: impl FnOnce() -> String) {
        if self.named.len() < NAMED_MAX {
            self.named.push(what());
        }
    }
}

/// Names that are kept.
const NAMED_MAX: usize = 20;

/// The files of a replica, to be read while it runs, from another thread.
pub struct Files<E> {
    engines: [Arc<E>; 2],
}

impl<E: Engine> Files<E> {
    /// Reads every file of the journal's and the base's tables whole, and returns those that are not
    /// what was written. Ends early, with what was found so far, soon after `go_on` says false.
    pub fn damaged(&self, go_on: &dyn Fn() -> bool) -> Result<Vec<String>, LaggedError> {
        let mut found = Vec::new();
        for engine in &self.engines {
            let damaged = engine.damaged_files(go_on).map_err(LaggedError::journal)?;
            found.extend(damaged.iter().map(|path| path.display().to_string()));
        }
        Ok(found)
    }
}

impl<E: Engine> Lagged<E> {
    /// Its files.
    pub fn files(&self) -> Files<E> {
        Files { engines: [self.journal.engine(), self.base.engine()].map(Arc::clone) }
    }

    /// Keeps what a comparison found, in place of the one before.
    pub fn note_verified(&mut self, verified: Verified, now: Now) -> Result<(), LaggedError> {
        let mut state = self.journal.state().clone();
        state.tick_ms = self.clock.read(now);
        self.journal.note_verified(verified, state, Durability::Fsync)
    }

    /// What the last comparison found; `None`: there was none yet.
    pub fn verified(&self) -> Option<&Verified> {
        self.journal.verified()
    }
}
