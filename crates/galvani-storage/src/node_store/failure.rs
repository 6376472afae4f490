//! What a store does after its disk has failed: what it forgets, when it tries again, when it ends.
//!
//! A commit that fails leaves nothing staged, and new incarnations of what it touched. A full disk, and an
//! engine that cannot be opened, are tried again now and then, as the driver says; a failed sync never is.
//! An engine that fails again and again soon after it was opened is opened more and more seldom: a damaged
//! file fails it each time it is tidied up, opening takes a second, and who does nothing else is silent.
//! Next to read: `commit` in `mod.rs`, and the engine's `EngineError`.

use super::NodeStore;
use crate::engine::{Batch, Durability, Engine, EngineError, IoStep, Table, store_error};
use crate::format::{keys, rows};
use galvani_model::store::{Store, StoreError};

/// What the next commit does about an engine that could not be opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shut {
    /// Nothing, until the driver has asked so often: the disk has just failed, and lanes tick thousands of
    /// times a second.
    Rests(u32),
    /// It tries once more.
    Due,
}

/// How often an engine was opened again lately, counted by how often the driver asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reopens {
    /// Since it was opened last.
    since: u32,
    /// How long the next one rests if it comes too soon.
    rest: u32,
    /// Whether the next one need not rest: it has.
    rested: bool,
}

impl Reopens {
    /// None yet.
    pub(super) fn none() -> Reopens {
        Reopens { since: CALM, rest: 1, rested: false }
    }

    /// Whether the engine may be opened now; else how long it rests.
    fn take(&mut self) -> Result<(), u32> {
        if self.since >= CALM {
            self.rest = 1;
        } else if !self.rested {
            let rest = self.rest;
            self.rest = (2 * rest).min(REST_MAX);
            return Err(rest);
        }
        (self.since, self.rested) = (0, false);
        Ok(())
    }

    /// Whether the last one came too soon after the one before it, and is not long ago.
    fn are_frequent(&self) -> bool {
        self.rest > 1 && self.since < CALM
    }
}

/// An engine that has not failed for so long is opened at once, in asks of the driver: ten seconds of a node.
const CALM: u32 = 50;
/// The longest rest, in asks of the driver: six seconds of a node.
const REST_MAX: u32 = 32;

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

    /// Whether the engine fails again and again soon after it was opened: at a damaged file, most likely.
    pub fn fails_again(&self) -> bool {
        self.reopens.are_frequent()
    }

    /// Lets the next write find out whether a full disk has room again, and the next commit whether an
    /// engine can be opened that could not. The driver calls it now and then, so that an idle node
    /// recovers, too.
    pub fn try_disk_again(&mut self) {
        self.full_for = self.full_for.map(|_| FULL_PROBE_COMMITS);
        self.reopens.since = self.reopens.since.saturating_add(1);
        self.shut = self.shut.map(|shut| match shut {
            Shut::Rests(left @ 2..) => Shut::Rests(left - 1),
            Shut::Rests(_) | Shut::Due => Shut::Due,
        });
    }

    /// Whether writes are staged: not while the disk is known to be full or the engine to be shut. Whoever
    /// brings one hears of it at once, and the reads of the same tick are not lost with it.
    pub(super) fn accepts(&self) -> Result<(), StoreError> {
        self.is_open()?;
        match self.full_for {
            Some(..FULL_PROBE_COMMITS) => Err(StoreError::Full),
            Some(_) | None => Ok(()),
        }
    }

    /// As [`Self::accepts`], for what may use the room that is kept on a full disk.
    pub(super) fn is_open(&self) -> Result<(), StoreError> {
        match self.shut {
            Some(_) => Err(store_error(EngineError::Closed)),
            None => Ok(()),
        }
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
        let rests = matches!(self.shut, Some(Shut::Rests(_)));
        if self.is_lost() || rests || !(error.is_in_doubt() || stuck) {
            return;
        }
        self.forget_reads();
        self.reopens.rested |= self.shut == Some(Shut::Due);
        match self.reopens.take() {
            Ok(()) => self.open_again(),
            Err(rest) => self.shut = Some(Shut::Rests(rest)),
        }
    }

    /// Makes the next commit take origins off the disk that must not be used again.
    pub(super) fn write_off_renewed(&mut self) {
        for shard in self.renewed.clone() {
            // A state that cannot be read names no origin that a later start could read either.
            if self.replica(shard).is_ok() {
                self.dirty.insert(shard);
            }
        }
    }

    /// The same on a disk that was full a while ago: in a batch of their own, so that nothing else fails
    /// with them. Shards that this tick touches go with it.
    pub(super) fn probe_with_renewed(&mut self) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        let mut shards = Vec::new();
        for shard in self.renewed.clone() {
            let busy = self.touched.contains(&shard) || self.dirty.contains(&shard);
            if !busy && !self.emptied.contains(&shard) && self.replica(shard).is_ok() {
                let (key, state) = (keys::shard(shard), &self.states[&shard]);
                batch.put_with(Table::Clocks, &key, |out| rows::put(&key, state, out));
                shards.push(shard);
            }
        }
        if shards.is_empty() {
            self.write_off_renewed();
            return Ok(());
        }
        match self.engine.commit(&batch, Durability::Os) {
            Ok(()) => {
                self.full_for = None;
                self.unsynced = true;
                for shard in shards {
                    self.renewed.remove(&shard);
                    self.checkpoints.insert(shard, self.states[&shard].arrivals);
                }
                self.write_off_renewed();
                Ok(())
            }
            Err(EngineError::Full { in_doubt: false, .. }) => {
                self.full_for = Some(0);
                Ok(())
            }
            // An engine that takes nothing is opened again, as after any commit.
            Err(error) => {
                self.roll_back(&error);
                Err(store_error(error))
            }
        }
    }

    /// Whether the engine could not be opened again, or rests, and no other lane has opened it since.
    pub(super) fn stays_shut(&mut self) -> bool {
        if self.shut == Some(Shut::Due) && self.count_hints().is_ok() {
            (self.shut, self.reopens.rested) = (None, true);
        }
        self.shut.is_some()
    }

    /// What was read while the engine was shut may be otherwise since another lane opened it: it is read
    /// anew. So is what the tick that found it open has read before, whether its commit succeeded or not.
    pub(super) fn forget_reads(&mut self) {
        self.states.clear();
        self.memory.clear();
    }

    fn open_again(&mut self) {
        self.shut = None;
        if let Err(error) = self.engine.reopen() {
            tracing::error!(event = "engine_reopen_failed", error = %error);
            self.shut = Some(Shut::Rests(1));
            return;
        }
        // Whether the batch's hints are there is not known either.
        if let Err(error) = self.count_hints() {
            tracing::error!(event = "hints_not_counted", error = %error);
        }
    }
}
