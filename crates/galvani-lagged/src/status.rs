//! How a lagged replica stands: what people and alerts look at.
//!
//! All figures are of this replica alone; how far its cluster is ahead of it, the feed knows.
//! Next to read: `as_of.rs`.

use crate::error::LaggedError;
use crate::replica::Lagged;
use crate::state::Hole;
use crate::verify::Verified;
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
    /// When those were written, as far as the window reaches: moments of that time are refused.
    pub holes: Vec<Hole>,
    /// Rows that were found damaged in the base since it was opened: should be 0.
    pub damaged: u64,
    /// Bytes on disk, journal and base.
    pub disk_bytes: u64,
    /// Bytes free on the file system of the journal.
    pub disk_free_bytes: u64,
    /// How long the free bytes last at the rate at which the files grew in the last hour, in seconds;
    /// `None`: not known yet, or they do not grow.
    pub disk_seconds_left: Option<u64>,
    /// How long nodes keep what nothing needs any more, in milliseconds, as the replica was told; 0:
    /// for ever.
    pub feed_keep_ms: u64,
    /// How long until the nodes may drop a write that has not come here, should nothing come any more
    /// from now on, in seconds; `None`: never, or not known. What was acknowledged before
    /// [`Status::complete_through_ms`] is here; what was written after it stays at the nodes for
    /// [`Status::feed_keep_ms`] at least, by their clocks.
    pub seconds_to_truncation: Option<u64>,
    /// When the last comparison with the cluster was through; `None`: there was none yet.
    pub verified_at_ms: Option<u64>,
    /// What it found.
    pub verified: Option<Box<Verified>>,
}

impl Status {
    /// What somebody should look at, one line each: first what is wrong, then bounds that are near.
    pub fn warnings(&self, now_ms: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(found) = self.verified.as_ref().filter(|found| !found.is_well()) {
            let files = found.damaged_files.len();
            let counts = [
                (found.lost, "keys with writes that are here and the cluster does not show"),
                (found.missing, "keys with writes that are in the cluster and did not come here"),
                (
                    found.damaged,
                    "keys, or lists of them, that cannot be read here: seed a new directory",
                ),
                (files as u64, "damaged files here: seed a new directory"),
            ];
            let counts = counts.iter().filter(|(count, _)| *count > 0);
            lines.extend(counts.map(|(count, what)| format!("{what}: {count}")));
        }
        let late_ms = now_ms.saturating_sub(self.complete_through_ms.unwrap_or(now_ms));
        if late_ms > COMPLETE_LATE_MS {
            lines.push(format!("nothing is known to be whole since {}", span(late_ms / 1000)));
        }
        let waits_ms = self.lag_actual_ms.unwrap_or(0);
        if self.paused_since_ms.is_none() && waits_ms > self.lag_target_ms + APPLY_LATE_MS {
            let late = (waits_ms - self.lag_target_ms) / 1000;
            lines.push(format!("what is due waits to be applied, the oldest for {}", span(late)));
        }
        if let Some(left) = self.disk_seconds_left.filter(|&left| left < self.disk_seconds_near()) {
            lines.push(format!("the disk is full in {}, at the rate of the last hour", span(left)));
        }
        let near = |left: &u64| left.saturating_mul(4_000) < self.feed_keep_ms;
        if let Some(left) = self.seconds_to_truncation.filter(near) {
            lines.push(format!(
                "the nodes may drop what has not come here in {}: see that it can follow",
                span(left)
            ));
        }
        let verified_ms = self.verified_at_ms.or(self.protected_since_ms);
        let since_ms = now_ms.saturating_sub(verified_ms.unwrap_or(now_ms));
        if since_ms > VERIFY_LATE_MS {
            lines.push("it was not compared with the cluster for two days".to_owned());
        }
        lines
    }

    /// Below how many seconds of disk somebody should look: a day, and the lag, which it must hold.
    fn disk_seconds_near(&self) -> u64 {
        (self.lag_target_ms / 1000).max(24 * 3600)
    }
}

/// A time for people, rounded down.
fn span(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// How long the replica may know of nothing that is whole, in milliseconds.
const COMPLETE_LATE_MS: u64 = 60_000;

/// How long a write that is due may wait, in milliseconds.
const APPLY_LATE_MS: u64 = 60_000;

/// How long after a comparison the next one is late, in milliseconds: they are made every day.
const VERIFY_LATE_MS: u64 = 2 * 24 * 3_600_000;

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
        let free = self.journal.engine().stats().free_bytes;
        let keep = (self.feed_keep_ms > 0).then_some(self.feed_keep_ms);
        let lost_from_ms = known(state.complete_ms).zip(keep).map(|(at, keep)| at + keep);
        let verified = self.journal.verified();
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
            holes: state
                .holes
                .iter()
                .filter(|hole| since.is_some_and(|since| hole.until_ms > since))
                .copied()
                .collect(),
            damaged: self.base.quarantined(),
            disk_bytes: self.disk_bytes(),
            disk_free_bytes: free,
            disk_seconds_left: self.growth.seconds_left(free),
            feed_keep_ms: self.feed_keep_ms,
            seconds_to_truncation: lost_from_ms.map(|at| at.saturating_sub(now.unix_ms) / 1000),
            verified_at_ms: verified.map(|found| found.ended_ms),
            verified: verified.cloned().map(Box::new),
        })
    }

    /// The earliest moment that can be asked for, in milliseconds since 1970: nothing that came after it
    /// is in the base, and before it caught up the replica may lack something. `None` before that.
    pub fn earliest_ms(&self) -> Option<u64> {
        let seeded = self.journal.state().seeded_ms?;
        Some(self.journal.state().applied_wall_ms.max(seeded))
    }
}
