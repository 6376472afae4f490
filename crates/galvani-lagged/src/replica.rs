//! The lagged replica: records come in to the journal, and go on to the base when they are due.
//!
//! A record waits for the whole lag from when it came here, whatever time it bears: one that was
//! stuck somewhere for hours is protected like any other. The waiting is counted on a clock of the
//! replica's own that only runs while the replica does, so neither a jump of the wall clock nor a stop
//! makes it shorter. Records go to the base in order of arrival. A kill between the base's commit and
//! the journal's leaves a record in both, which is one record: the base knows its dot.
//! Next to read: `journal.rs`, `steer.rs`, `as_of.rs`.

use crate::config::{
    LAG_MS_MAX, LaggedConfig, STEP_BYTES_MAX, STEP_RECORDS_MAX, SWEEP_ROWS, TICK_NOTED_MS,
};
use crate::dir::{OpenDir, OpenError};
use crate::error::LaggedError;
use crate::growth::Growth;
use crate::journal::Journal;
use crate::keys::At;
use crate::state::{Hole, ShardState};
use galvani_model::bucket::{BucketName, ConflictPolicy};
use galvani_model::feed::Cursor;
use galvani_model::ids::{LaneIndex, Shard};
use galvani_model::version::{PartitionClock, Record};
use galvani_protocol::{Now, lagged};
use galvani_storage::engine::{Durability, Engine, FjallEngine};
use galvani_storage::{NodeStore, StoreConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A replica that follows a cluster at a chosen delay.
///
/// The contract: hand in what the feed brings with [`Lagged::arrive`], go on from
/// [`Lagged::positions`], and call [`Lagged::step`] as often as it asks for. Every call that takes a
/// [`Now`] takes readings of one clock. After [`LaggedError::InDoubt`] it must be opened again.
pub struct Lagged<E> {
    pub(crate) journal: Journal<E>,
    pub(crate) base: NodeStore<E>,
    pub(crate) partitions: u16,
    pub(crate) clock: OwnClock,
    pub(crate) feed_keep_ms: u64,
    pub(crate) growth: Growth,
    /// Held until the replica is dropped; `None` over engines in memory.
    _dir: Option<OpenDir>,
}

/// What one page of the feed brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arrivals {
    /// The records, in the order in which they came.
    pub records: Vec<(Shard, Record)>,
    /// How far the feed is after them. A position may be left out; then the records still count.
    pub positions: BTreeMap<Shard, Cursor>,
    /// Writes that no node has any more.
    pub gone: BTreeMap<Shard, PartitionClock>,
}

/// What became of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Records that were new here.
    pub new: u64,
    /// Records that had come before.
    pub duplicates: u64,
}

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stepped {
    /// Records that went from the journal to the base.
    pub applied: u64,
    /// In how many milliseconds the next one is due; 0: now. `None`: nothing waits, or a pause stands.
    pub due_in_ms: Option<u64>,
}

impl Lagged<FjallEngine> {
    /// Opens the replica in the directory `dir`, which is made if there is none; it holds the
    /// directory until it is dropped.
    pub fn open(dir: &Path, config: LaggedConfig) -> Result<Lagged<FjallEngine>, OpenError> {
        let (held, journal, base) = OpenDir::open(dir, &config)?;
        let mut replica = Lagged::over(Arc::new(journal), Arc::new(base), config)?;
        replica._dir = Some(held);
        Ok(replica)
    }
}

impl<E: Engine> Lagged<E> {
    /// The replica over two engines that hold nothing else.
    pub fn over(
        journal: Arc<E>,
        base: Arc<E>,
        config: LaggedConfig,
    ) -> Result<Lagged<E>, LaggedError> {
        check_lag(config.lag_ms)?;
        let journal = Journal::open(journal, config.lag_ms)?;
        let store = StoreConfig::of_lane(LaneIndex(0), 1, false);
        let base = NodeStore::open(base, store).map_err(LaggedError::base)?.store;
        let clock = OwnClock::from(journal.state().tick_ms);
        let LaggedConfig { partitions, feed_keep_ms, .. } = config;
        let growth = Growth::default();
        Ok(Lagged { journal, base, partitions, clock, feed_keep_ms, growth, _dir: None })
    }

    /// Takes in one page of the feed, all of it or nothing; it is durable when this returns. Records
    /// that came before change nothing. A position that speaks of more than was handed in is refused.
    /// The caller keeps a page below 64 MiB.
    pub fn arrive(&mut self, page: Arrivals, now: Now) -> Result<Stored, LaggedError> {
        let mut state = self.journal.state().clone();
        state.tick_ms = self.clock.read(now);
        let wall_ms = now.unix_ms.max(state.last_wall_ms);
        let mut shards = Touched { journal: &self.journal, shards: BTreeMap::new() };
        let (mut stored, mut new) = (Stored::default(), Vec::new());
        for (shard, record) in page.records {
            let dot = record.head.dot;
            if !record.is_intact() || record.head.key.check().is_err() || dot.counter == 0 {
                return Err(LaggedError::NotIntact { shard, dot });
            }
            if !shards.of(shard).taken.insert(dot) {
                stored.duplicates += 1;
                continue;
            }
            let at = At { number: state.next, wall_ms, tick_ms: state.tick_ms, shard };
            state.next += 1;
            state.last_wall_ms = wall_ms;
            stored.new += 1;
            new.push((at, record));
        }
        for (shard, gone) in &page.gone {
            let of = shards.of(*shard);
            let unknown: u64 =
                of.done().missing_from(gone).iter().map(|it| it.last - it.first + 1).sum();
            of.gone.union(gone);
            state.gone += unknown;
            if let (1.., Some(seeded_ms)) = (unknown, state.seeded_ms) {
                // What they were, and when they were there, cannot be shown. Moments before stay.
                let hole = Hole { from_ms: seeded_ms.max(state.complete_ms), until_ms: wall_ms };
                state.note_hole(hole, seeded_ms.max(state.applied_wall_ms));
            }
        }
        for (shard, position) in &page.positions {
            let of = shards.of(*shard);
            let missing = of.done().missing_from(position.delivered());
            if !missing.is_empty() {
                let missing = missing.into_iter().collect();
                return Err(LaggedError::Ahead { shard: *shard, missing });
            }
            let mut joined = of.position();
            joined.join(position);
            (of.resets, of.owed) = (joined.resets, joined.owed().clone());
        }
        let shards = shards.shards;
        self.journal.append(&new, shards, state)?;
        Ok(stored)
    }

    /// Notes that the feed says: every write acknowledged before `complete_ms` (milliseconds since
    /// 1970; 0: not known) was delivered, and `behind` writes wait to be. The replica has caught up
    /// when that is so for the first time; moments from then on can be shown.
    pub fn heard(&mut self, complete_ms: u64, behind: u64, now: Now) -> Result<(), LaggedError> {
        self.journal.note_complete(complete_ms);
        if behind == 0 && complete_ms > 0 && self.journal.state().seeded_ms.is_none() {
            let mut state = self.journal.state().clone();
            state.seeded_ms = Some(complete_ms);
            state.tick_ms = self.clock.read(now);
            self.journal.write(state, Durability::Fsync)?;
        }
        Ok(())
    }

    /// Writes down what was only noted in memory, before the replica is closed: nothing is lost without,
    /// but the next one knows less of what is whole, and waits a little longer.
    pub fn rest(&mut self, now: Now) -> Result<(), LaggedError> {
        let mut state = self.journal.state().clone();
        state.tick_ms = self.clock.read(now);
        self.journal.write(state, Durability::Fsync)
    }

    /// Says what becomes of concurrent writes in a bucket: to be called before its first record is
    /// handed in. A bucket of which nothing was said keeps siblings.
    pub fn learn_bucket(
        &mut self,
        bucket: &BucketName,
        policy: ConflictPolicy,
    ) -> Result<(), LaggedError> {
        self.journal.note_policy(bucket, policy)
    }

    /// Refuses a bucket of which nothing was said: to one that there is not every key is absent.
    pub fn check_bucket(&self, bucket: &BucketName) -> Result<(), LaggedError> {
        if self.journal.buckets().any(|known| known == bucket) {
            return Ok(());
        }
        let known: Vec<&str> = self.journal.buckets().map(BucketName::as_str).collect();
        let known = if known.is_empty() { "none yet".to_owned() } else { known.join(", ") };
        Err(LaggedError::NoBucket { bucket: bucket.clone(), known })
    }

    /// Applies some of what is due, oldest arrival first. Call it again when it says.
    pub fn step(&mut self, now: Now) -> Result<Stepped, LaggedError> {
        let tick_ms = self.clock.read(now);
        if self.growth.is_due(tick_ms) {
            self.growth.note(tick_ms, self.disk_bytes());
        }
        let state = self.journal.state().clone();
        let is_due = |at: &At| {
            let aged = at.tick_ms.saturating_add(state.lag_ms) <= tick_ms;
            at.number < state.advance || (aged && state.paused_ms.is_none())
        };
        let due = self.journal.oldest(STEP_RECORDS_MAX, STEP_BYTES_MAX, is_due)?;
        let mut after = state.clone();
        after.tick_ms = tick_ms;
        if !due.is_empty() {
            self.base.try_disk_again();
            for waiting in &due {
                let (shard, record) = (waiting.at.shard, waiting.record.clone());
                let policy = self.journal.policy(record.head.key.bucket());
                lagged::take_in(&mut self.base, shard, record, policy, now)
                    .map_err(LaggedError::base)?;
            }
            self.base.forget_requests(now.unix_ms, SWEEP_ROWS).map_err(LaggedError::base)?;
            self.base.commit(true).map_err(LaggedError::base)?;
            self.journal.remove(&due, after)?;
        } else if tick_ms >= state.tick_ms.saturating_add(TICK_NOTED_MS) {
            self.journal.write(after, Durability::Os)?;
        }
        Ok(Stepped { applied: due.len() as u64, due_in_ms: self.due_in(tick_ms)? })
    }

    /// Where to go on in the feed, shard by shard: after exactly the writes that are in the journal or
    /// in the base, and those that are gone. A shard of which nothing came is not named.
    pub fn positions(&self) -> BTreeMap<Shard, Cursor> {
        let shards = self.journal.shards().iter();
        shards.map(|(shard, of)| (*shard, of.position())).collect()
    }

    /// Bytes on disk, journal and base.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.journal.engine().stats().disk_bytes + self.base.engine().stats().disk_bytes
    }

    /// When the record that waits longest is due, from a reading of the own clock.
    fn due_in(&self, tick_ms: u64) -> Result<Option<u64>, LaggedError> {
        let state = self.journal.state();
        if state.waiting() == 0 {
            return Ok(None);
        }
        if state.first < state.advance {
            return Ok(Some(0));
        }
        if state.paused_ms.is_some() {
            return Ok(None);
        }
        let oldest = self.journal.place_from(state.first)?;
        Ok(oldest.map(|at| at.tick_ms.saturating_add(state.lag_ms).saturating_sub(tick_ms)))
    }
}

/// Refuses a lag that is longer than any.
pub(crate) fn check_lag(lag_ms: u64) -> Result<(), LaggedError> {
    match lag_ms <= LAG_MS_MAX {
        true => Ok(()),
        false => Err(LaggedError::LagRange { lag_ms, max_ms: LAG_MS_MAX }),
    }
}

/// Shards as a page changes them, before it is committed.
struct Touched<'a, E> {
    journal: &'a Journal<E>,
    shards: BTreeMap<Shard, ShardState>,
}

impl<E: Engine> Touched<'_, E> {
    fn of(&mut self, shard: Shard) -> &mut ShardState {
        let stored = || self.journal.shards().get(&shard).cloned().unwrap_or_default();
        self.shards.entry(shard).or_insert_with(stored)
    }
}

/// A clock that goes on from where it was last written down, and runs while the replica does.
pub(crate) struct OwnClock {
    start_ms: u64,
    /// The caller's reading when this one began.
    began_micros: Option<u64>,
    last_ms: u64,
}

impl OwnClock {
    pub(crate) fn from(start_ms: u64) -> OwnClock {
        OwnClock { start_ms, began_micros: None, last_ms: start_ms }
    }

    /// Milliseconds on this clock; never less than before.
    pub(crate) fn read(&mut self, now: Now) -> u64 {
        let began = *self.began_micros.get_or_insert(now.micros);
        let ms = self.start_ms + now.micros.saturating_sub(began) / 1000;
        self.last_ms = self.last_ms.max(ms);
        self.last_ms
    }
}
