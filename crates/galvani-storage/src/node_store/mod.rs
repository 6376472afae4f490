//! The rows of one lane's shards, over a shared engine.
//!
//! What a tick stages goes into one batch and an overlay: later operations of the tick see it, the
//! disk has it after [`NodeStore::commit`], all of it or nothing. When a commit fails, everything
//! staged is gone and the shards it touched mint under new incarnations, because what the engine
//! really kept is in doubt. It decides nothing about versions: `galvani-protocol` does.
//! Next to read: `state.rs`, `../format/`.

mod config;
#[cfg(test)]
mod crash_tests;
mod damage;
mod expiring;
mod failure;
#[cfg(test)]
mod failure_tests;
#[cfg(test)]
mod gap_tests;
mod gaps;
#[cfg(test)]
mod hint_tests;
mod hints;
mod holdings;
mod index;
mod listing;
mod memory;
#[cfg(test)]
mod memory_tests;
mod parse;
mod stage;
mod state;
#[cfg(test)]
mod state_tests;
mod sweep;
#[cfg(test)]
mod tests;
mod tombstones;
mod trim;
#[cfg(test)]
mod trim_tests;

use crate::engine::{Batch, Durability, Engine, EngineError, Table, store_error};
use crate::format::{RowError, keys, rows};
use bytes::Bytes;
pub use config::{MemoryConfig, StoreConfig};
use damage::Damaged;
use failure::{Reopens, Shut};
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, NodeId, Origin, Partition, Shard, WriteId};
use galvani_model::key::Key;
use galvani_model::store::{
    Change, Damage, HintFigures, HintPage, IndexPage, Indexed, Listed, LogPage, OwnOrigin,
    ReplicaState, RequestEntry, Rewrite, Slice, Store, StoreError,
};
use galvani_model::version::{Dot, Object, PartitionClock, Record};
use hints::Hints;
use holdings::StagedFacts;
pub use holdings::write_facts;
use memory::Memory;
pub use state::{StateError, stored_state};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
pub use trim::TrimmedRow;

/// An opened store.
pub struct Opened<E> {
    /// The store.
    pub store: NodeStore<E>,
    /// The origins that were kept, for the lane to confirm with other owners.
    pub kept: Vec<(Shard, OwnOrigin)>,
}

/// The rows of one lane's shards.
pub struct NodeStore<E> {
    engine: Arc<E>,
    config: StoreConfig,
    batch: Batch,
    states: BTreeMap<Shard, ReplicaState>,
    /// Shards that this tick changes.
    touched: BTreeSet<Shard>,
    /// Shards whose clock row must be written by the next commit.
    dirty: BTreeSet<Shard>,
    /// How many arrivals the stored clock rows know of.
    checkpoints: BTreeMap<Shard, u64>,
    /// Shards whose origin may not be used again although a clock row still names it.
    renewed: BTreeSet<Shard>,
    /// Committed objects and request rows.
    memory: Memory,
    /// This tick's staged objects, records, and request rows with the times their writes were issued,
    /// where those are known.
    objects: BTreeMap<(Shard, Key), Object>,
    records: BTreeMap<(Shard, Dot), Record>,
    requests: BTreeMap<(Shard, WriteId), (RequestEntry, Option<Hlc>)>,
    /// Request rows that this tick takes away.
    swept: Vec<(Shard, WriteId)>,
    /// This tick's rows of indexes that go because their object knows nothing of them.
    orphans: BTreeSet<(Shard, Indexed)>,
    /// Records that this tick takes out of the log, and shards of which it changes what is trimmed.
    trimmed: trim::Trimmed,
    /// Damaged rows that were met.
    damaged: Damaged,
    /// While the disk is full: commits since it was found so.
    full_for: Option<u32>,
    /// Whether a batch in doubt may be there without ever having been synced.
    owes_sync: bool,
    /// Whether this lane wrote anything since its last sync. Of what an earlier process left nothing
    /// is known.
    unsynced: bool,
    /// Whether a sync failed: nothing acked as durable may be said any more.
    lost: bool,
    /// Since the engine could not be opened again, or was opened too often.
    shut: Option<Shut>,
    reopens: Reopens,
    /// Where the sweep of request rows goes on.
    sweep_from: Vec<u8>,
    /// Records held for owners that are away.
    hints: Hints,
    /// Facts that this tick changes.
    facts: StagedFacts,
    /// Shards whose last rows go with this tick.
    emptied: BTreeSet<Shard>,
}

impl<E: Engine> NodeStore<E> {
    /// Opens the store of one lane.
    pub fn open(engine: Arc<E>, config: StoreConfig) -> Result<Opened<E>, StoreError> {
        let mut store = NodeStore {
            engine,
            config,
            batch: Batch::new(),
            states: BTreeMap::new(),
            touched: BTreeSet::new(),
            dirty: BTreeSet::new(),
            checkpoints: BTreeMap::new(),
            renewed: BTreeSet::new(),
            memory: Memory::new(config.memory),
            objects: BTreeMap::new(),
            records: BTreeMap::new(),
            requests: BTreeMap::new(),
            swept: Vec::new(),
            orphans: BTreeSet::new(),
            trimmed: trim::Trimmed::default(),
            damaged: Damaged::default(),
            full_for: None,
            owes_sync: false,
            unsynced: true,
            lost: false,
            shut: None,
            reopens: Reopens::none(),
            sweep_from: vec![0],
            hints: Hints::default(),
            facts: StagedFacts::new(),
            emptied: BTreeSet::new(),
        };
        store.count_hints()?;
        let mut kept = Vec::new();
        for shard in store.shards()? {
            match store.stored_origin(shard)? {
                Some(own) if config.keep_origins && store.is_newest(shard, own)? => {
                    kept.push((shard, own));
                }
                // Must be taken off the disk, too: a later clean stop would vouch for it.
                Some(_) => drop(store.renewed.insert(shard)),
                None => {}
            }
        }
        Ok(Opened { store, kept })
    }

    /// Makes everything staged durable, as one batch. On error nothing of it is kept, and the
    /// shards it touched start new incarnations. With `fsync` it returns only when this and all
    /// earlier commits survive power loss, also if nothing is staged; where they do already, it costs
    /// nothing. While the engine is shut one that has nothing to write or to sync succeeds: reads are in
    /// such ticks. After a failed sync, this lane's or another's, every commit is refused, also an empty
    /// one.
    pub fn commit(&mut self, fsync: bool) -> Result<(), StoreError> {
        let was_shut = self.shut.is_some();
        let committed = self.commit_tick(fsync);
        if was_shut && self.shut.is_none() {
            self.forget_reads();
        }
        committed
    }

    fn commit_tick(&mut self, fsync: bool) -> Result<(), StoreError> {
        if self.is_lost() {
            self.roll_back(&EngineError::Lost);
            return Err(store_error(EngineError::Lost));
        }
        if self.stays_shut() {
            let loses = self.has_staged() || (fsync && self.unsynced);
            self.roll_back(&EngineError::Closed);
            return if loses { Err(store_error(EngineError::Closed)) } else { Ok(()) };
        }
        self.full_for = self.full_for.map(|commits| commits.saturating_add(1));
        if self.accepts().is_ok() {
            match self.full_for {
                None => self.write_off_renewed(),
                Some(_) => self.probe_with_renewed()?,
            }
        }
        let fsync = fsync || self.owes_sync;
        let to_do = self.has_staged() || (fsync && self.unsynced);
        if !to_do {
            self.forget_tick();
            return Ok(());
        }
        self.dirty.retain(|shard| !self.emptied.contains(shard));
        for shard in &self.dirty {
            let key = keys::shard(*shard);
            let state = &self.states[shard];
            self.batch.put_with(Table::Clocks, &key, |out| rows::put(&key, state, out));
        }
        self.stage_trimmed_again();
        let durability = if fsync { Durability::Fsync } else { Durability::Os };
        let committed = self.engine.commit(&self.batch, durability);
        match committed {
            Ok(()) => {
                self.owes_sync &= !fsync;
                self.unsynced = !fsync;
                let wrote = !self.touched.is_empty() || !self.dirty.is_empty();
                // What may use the reserve does not show that there is room again.
                if wrote && self.full_for.is_some() && !self.batch.is_vital() {
                    self.full_for = None;
                }
                self.touched.clear();
                for shard in core::mem::take(&mut self.dirty) {
                    self.renewed.remove(&shard);
                    self.checkpoints.insert(shard, self.states[&shard].arrivals);
                }
                self.hints.committed();
                self.damaged.committed();
                self.remember_tick();
                self.forget_tick();
                Ok(())
            }
            Err(error) => {
                if matches!(error, EngineError::Full { .. }) {
                    self.full_for = Some(0);
                }
                tracing::error!(event = "commit_failed", error = %error);
                self.roll_back(&error);
                Err(match error.is_in_doubt() {
                    true => StoreError::InDoubt { what: error.to_string() },
                    false => store_error(error),
                })
            }
        }
    }

    /// The last commit before a clean stop: fsynced, whatever is known of the disk. Only after it
    /// succeeded may the stop be called clean.
    pub fn close(&mut self) -> Result<(), StoreError> {
        self.full_for = None;
        self.unsynced = true;
        self.commit(true)?;
        match self.renewed.first() {
            None => Ok(()),
            Some(shard) => {
                let what = format!("{shard}: its origin could not be taken off the disk");
                Err(StoreError::Failed { what })
            }
        }
    }

    /// Bytes staged so far: what a driver bounds its ticks by.
    pub fn staged_bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Whether anything is staged that a commit would write.
    pub fn has_staged(&self) -> bool {
        let renewed = !self.renewed.is_empty() && self.accepts().is_ok();
        !self.batch.is_empty() || !self.dirty.is_empty() || renewed || self.owes_sync
    }

    /// The shards of this lane that hold anything, ascending.
    pub fn shards(&self) -> Result<Vec<Shard>, StoreError> {
        let mut shards = Vec::new();
        let mut visit = |key: &[u8], _: &[u8]| {
            shards.extend(keys::shard_of(key));
            ControlFlow::Continue(())
        };
        self.engine.scan(Table::Clocks, &[0], None, usize::MAX, &mut visit).map_err(store_error)?;
        let mine =
            |shard: &Shard| LaneIndex::of(shard.partition, self.config.lanes) == self.config.lane;
        shards.retain(mine);
        Ok(shards)
    }

    /// Damaged rows met since the store was opened.
    pub fn quarantined(&self) -> u64 {
        self.damaged.met
    }

    /// The engine below.
    pub fn engine(&self) -> &Arc<E> {
        &self.engine
    }

    /// What was staged is committed.
    fn remember_tick(&mut self) {
        for (at, object) in core::mem::take(&mut self.objects) {
            self.memory.keep_object(at, object);
        }
        for ((shard, write), (entry, issued)) in core::mem::take(&mut self.requests) {
            self.memory.keep_request(shard, write, issued, entry);
        }
        for (shard, write) in self.swept.drain(..) {
            self.memory.drop_request(shard, write);
        }
        for &(shard, dot) in &self.trimmed.records {
            self.memory.drop_record(shard, dot);
        }
    }

    fn forget_tick(&mut self) {
        self.batch.clear();
        self.objects.clear();
        self.records.clear();
        self.requests.clear();
        self.swept.clear();
        self.orphans.clear();
        self.trimmed.clear();
        self.hints.forget_tick();
        self.facts.clear();
        // Whoever looked at one in the same tick saw what the disk had before.
        for shard in core::mem::take(&mut self.emptied) {
            self.states.remove(&shard);
            self.memory.forget(shard);
        }
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.engine.get(table, key).map_err(store_error)
    }

    /// Counts and reports a damaged row; it stays where it is, and is never served.
    fn quarantine(&mut self, what: String, error: &RowError) -> StoreError {
        self.damaged.met += 1;
        tracing::error!(event = "row_quarantined", row = %what, error = %error);
        StoreError::Corrupt { what: format!("{what}: {error}") }
    }
}

impl<E: Engine> Store for NodeStore<E> {
    fn object(&mut self, shard: Shard, key: &Key) -> Result<Object, StoreError> {
        let at = (shard, key.clone());
        if let Some(object) = self.objects.get(&at).or_else(|| self.memory.object(&at)) {
            return Ok(object.clone());
        }
        let object = self.read_object(shard, key)?;
        self.memory.keep_object(at, object.clone());
        Ok(object)
    }

    fn record(&mut self, shard: Shard, dot: Dot) -> Result<Option<Record>, StoreError> {
        let known = self.records.get(&(shard, dot)).or_else(|| self.memory.record(shard, dot));
        if let Some(record) = known.filter(|_| !self.trimmed.has(shard, dot)) {
            return Ok(Some(record.clone()));
        }
        let record = self.read_record(shard, dot)?;
        if let Some(record) = &record {
            self.memory.keep_record(shard, record);
        }
        Ok(record)
    }

    fn record_on_disk(&mut self, shard: Shard, dot: Dot) -> Result<Option<Record>, StoreError> {
        match self.records.get(&(shard, dot)) {
            Some(staged) => Ok(Some(staged.clone())),
            None => self.read_record(shard, dot),
        }
    }

    fn object_on_disk(&mut self, shard: Shard, key: &Key) -> Result<Object, StoreError> {
        let at = (shard, key.clone());
        if let Some(staged) = self.objects.get(&at) {
            return Ok(staged.clone());
        }
        let object = self.read_object(shard, key)?;
        // Whoever mends what the disk has lost must not be told that it is there.
        if self.memory.object(&at).is_some_and(|known| *known != object) {
            self.memory.keep_object(at, object.clone());
        }
        Ok(object)
    }

    fn request(
        &mut self,
        shard: Shard,
        write: WriteId,
        issued: Option<Hlc>,
    ) -> Result<Option<RequestEntry>, StoreError> {
        if let Some((entry, _)) = self.requests.get(&(shard, write)) {
            return Ok(Some(entry.clone()));
        }
        if let Some(known) = self.memory.request(shard, write, issued) {
            return Ok(known.cloned());
        }
        let key = keys::request(shard, write);
        let name = || Damage::Request(shard, write);
        let Some(row) = self.row(Table::RequestIds, &key, name)? else { return Ok(None) };
        rows::get(&key, &row).map(Some).map_err(|error| self.damage(name(), &error))
    }

    fn replica(&mut self, shard: Shard) -> Result<&ReplicaState, StoreError> {
        if !self.states.contains_key(&shard) {
            let state = self.load_state(shard)?;
            self.memory.loaded(shard, state.latest);
            self.states.insert(shard, state);
        }
        Ok(&self.states[&shard])
    }

    fn stage(&mut self, change: Change) -> Result<(), StoreError> {
        self.stage_change(change)
    }

    fn tombstones(
        &mut self,
        shard: Shard,
        after: Option<Dot>,
        limit: usize,
    ) -> Result<IndexPage<Dot>, StoreError> {
        self.page_of_tombstones(shard, after, limit)
    }

    fn expiring(
        &mut self,
        shard: Shard,
        after: Option<(u64, Dot)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<IndexPage<(u64, Dot)>, StoreError> {
        self.page_of_expiring(shard, after, until_ms, limit)
    }

    fn unindex(&mut self, shard: Shard, key: &Key, row: Indexed) -> Result<(), StoreError> {
        self.drop_orphan(shard, key, row)
    }

    fn stage_collected(
        &mut self,
        shard: Shard,
        key: &Key,
        object: Object,
    ) -> Result<(), StoreError> {
        self.take_collected(shard, key, object)
    }

    fn rewrite(&mut self, shard: Shard, row: Rewrite) -> Result<(), StoreError> {
        self.stage_rewrite(shard, row)
    }

    fn logged(&mut self, shard: Shard, from: Dot, limit: usize) -> Result<Vec<Dot>, StoreError> {
        self.dots_of_log(shard, from, limit)
    }

    fn log_page(&mut self, shard: Shard, from: Dot, limit: usize) -> Result<LogPage, StoreError> {
        self.page_of_log(shard, from, limit)
    }

    fn trim(&mut self, shard: Shard, dots: &[Dot], until: Hlc) -> Result<(), StoreError> {
        self.stage_trim(shard, dots, until)
    }

    fn adopt_trimmed(
        &mut self,
        shard: Shard,
        dots: &PartitionClock,
        until: Hlc,
    ) -> Result<(), StoreError> {
        self.stage_adopted(shard, dots, until)
    }

    fn trim_arrivals(
        &mut self,
        shard: Shard,
        from: u64,
        limit: usize,
    ) -> Result<Option<u64>, StoreError> {
        self.stage_trim_arrivals(shard, from, limit)
    }

    fn lost(&mut self, shard: Shard, dot: Dot) -> StoreError {
        self.damage(Damage::Record(shard, dot), &RowError::Gone)
    }

    fn damaged(&self) -> &BTreeSet<Damage> {
        &self.damaged.rows
    }

    fn damage_changes(&self) -> u64 {
        self.damaged.changes
    }

    fn slice(
        &mut self,
        shard: Shard,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Slice, StoreError> {
        self.slice_of(shard, after, limit)
    }

    fn forget_origin(&mut self, shard: Shard) -> Result<(), StoreError> {
        self.replica(shard)?;
        let state = self.states.get_mut(&shard).expect("loaded by the line above");
        if state.own.take().is_some() {
            self.dirty.insert(shard);
        }
        Ok(())
    }

    fn hold(&mut self, target: NodeId, shard: Shard, record: &Record) -> Result<(), StoreError> {
        self.hold_hint(target, shard, record)
    }

    fn hints(
        &mut self,
        target: NodeId,
        after: Option<(Shard, Dot)>,
        partitions: &[Partition],
        credit: usize,
        limit: usize,
    ) -> Result<HintPage, StoreError> {
        self.page_of_hints(target, after, partitions, credit, limit)
    }

    fn release(&mut self, target: NodeId, shard: Shard, dot: Dot) -> Result<(), StoreError> {
        self.release_hint(target, shard, dot)
    }

    fn hint_bytes(&self, target: NodeId) -> (u64, u64) {
        self.bytes_of_hints(target)
    }

    fn hinted(&mut self, shard: Shard, origin: Origin) -> Result<u64, StoreError> {
        self.last_hinted(shard, origin)
    }

    fn hint_figures(&self) -> &BTreeMap<NodeId, HintFigures> {
        &self.hints.figures
    }

    fn list(
        &mut self,
        shard: Shard,
        bucket: &BucketName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.list_keys(shard, bucket, prefix, after, limit)
    }
}
