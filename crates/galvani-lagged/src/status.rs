//! How a lagged replica stands: what people and alerts look at.
//!
//! All figures are of this replica alone; how far its cluster is ahead of it, the feed knows.
//! Next to read: `as_of.rs`.

use crate::error::LaggedError;
use crate::replica::Lagged;
use galvani_protocol::Now;
use galvani_storage::engine::Engine;
use serde::{Deserialize, Serialize};

/// How a lagged replica stands. Moments are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How long a write waits before it reaches the base, in milliseconds.
    pub lag_target_ms: u64,
    /// How long the oldest write that waits has been here, in milliseconds; `None`: none waits. Above
    /// the target during a pause, and as long as applying is behind.
    pub lag_actual_ms: Option<u64>,
    /// Writes that wait.
    pub journal_records: u64,
    /// Their bytes.
    pub journal_bytes: u64,
    /// How far back from now a moment can be shown, in seconds; 0 until it has caught up.
    pub window_seconds: u64,
    /// The earliest moment that can be shown exactly; `None`: it has not caught up yet.
    pub protected_since_ms: Option<u64>,
    /// Every write acknowledged before this moment is here; moments after it may still change. `None`:
    /// not known.
    pub complete_through_ms: Option<u64>,
    /// Writes that reached the base since the directory was made.
    pub applied: u64,
    /// When the last write came.
    pub last_arrival_ms: Option<u64>,
    /// Since when nothing is applied; `None`: it is not paused.
    pub paused_since_ms: Option<u64>,
    /// Writes that no node had any more when they were asked for: should be 0.
    pub gone: u64,
    /// Rows that were found damaged in the base since it was opened: should be 0.
    pub damaged: u64,
    /// Bytes on disk, journal and base.
    pub disk_bytes: u64,
    /// Bytes free on the file system of the journal.
    pub disk_free_bytes: u64,
}

impl<E: Engine> Lagged<E> {
    /// How it stands.
    pub fn status(&mut self, now: Now) -> Result<Status, LaggedError> {
        let tick_ms = self.clock.read(now);
        let state = self.journal.state();
        let oldest = match state.waiting() {
            0 => None,
            _ => self.journal.place_from(state.first)?,
        };
        let known = |ms: u64| (ms > 0).then_some(ms);
        let since = self.earliest_ms();
        let journal = self.journal.engine().stats();
        Ok(Status {
            lag_target_ms: state.lag_ms,
            lag_actual_ms: oldest.map(|at| tick_ms.saturating_sub(at.tick_ms)),
            journal_records: state.waiting(),
            journal_bytes: state.bytes,
            window_seconds: since.map_or(0, |since| now.unix_ms.saturating_sub(since) / 1000),
            protected_since_ms: since,
            complete_through_ms: known(state.complete_ms),
            applied: state.first - 1,
            last_arrival_ms: known(state.last_wall_ms),
            paused_since_ms: state.paused_ms,
            gone: state.gone,
            damaged: self.base.quarantined(),
            disk_bytes: journal.disk_bytes + self.base.engine().stats().disk_bytes,
            disk_free_bytes: journal.free_bytes,
        })
    }

    /// The earliest moment that can be asked for, in milliseconds since 1970: nothing that came after it
    /// is in the base, and before it caught up the replica may lack something. `None` before that.
    pub fn earliest_ms(&self) -> Option<u64> {
        let seeded = self.journal.state().seeded_ms?;
        Some(self.journal.state().applied_wall_ms.max(seeded))
    }
}
