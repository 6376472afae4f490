//! Object rows, and the indexes of tombstones and of expiring values that go with them.
//!
//! Whoever collects tombstones must find them without reading every object. So each dot of a live
//! tombstone has a row of its own, written and taken away in the batch that changes its object:
//! both are staged here and nowhere else. It never decides what may be collected.
//! Next to read: `expiring.rs`, `mod.rs`, `galvani-protocol/src/reap.rs`.

use super::NodeStore;
use crate::engine::{Engine, Table};
use crate::format::{keys, rows};
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::{IndexPage, Indexed, Store, StoreError};
use galvani_model::version::{Dot, Object};
use smallvec::SmallVec;

/// What the indexes have of one object.
pub(super) struct IndexRows {
    tombstones: SmallVec<[Dot; 1]>,
    expiring: SmallVec<[(u64, Dot); 1]>,
}

impl IndexRows {
    fn of(object: &Object) -> IndexRows {
        IndexRows { tombstones: object.tombstones(), expiring: object.expiring() }
    }
}

impl<E: Engine> NodeStore<E> {
    /// Dots of tombstones that wait for collection, in the shards touched since the store was
    /// opened, as far as committed or staged.
    pub fn tombstones_waiting(&self) -> u64 {
        self.states.values().map(|state| state.tombstones).sum()
    }

    /// What the indexes have of a key as this tick has it; `None` in an `lww` bucket, which has none.
    pub(super) fn indexed(
        &mut self,
        shard: Shard,
        key: &Key,
        policy: ConflictPolicy,
    ) -> Result<Option<IndexRows>, StoreError> {
        match policy {
            ConflictPolicy::Lww => Ok(None),
            ConflictPolicy::Siblings => Ok(Some(IndexRows::of(&self.object(shard, key)?))),
        }
    }

    /// Stages a key's object row, and the rows of the indexes in place of those `before`. The tick has
    /// read the shard's state.
    pub(super) fn stage_object(
        &mut self,
        shard: Shard,
        key: &Key,
        before: Option<IndexRows>,
        object: Object,
    ) {
        self.put_object(shard, key, &object);
        let after = IndexRows::of(&object);
        self.objects.insert((shard, key.clone()), object);
        let Some(before) = before else { return };
        self.index_expiring(shard, key, &before.expiring, &after.expiring);
        let (before, after) = (before.tombstones, after.tombstones);
        if before == after {
            return;
        }
        for &dot in before.iter().filter(|dot| !after.contains(dot)) {
            self.batch.delete(Table::Tombstones, &keys::log(shard, dot));
        }
        for &dot in after.iter().filter(|dot| !before.contains(dot)) {
            let row_key = keys::log(shard, dot);
            self.batch.put_with(Table::Tombstones, &row_key, |out| rows::put(&row_key, key, out));
        }
        let state = self.states.get_mut(&shard).expect("the tick read the state before it stages");
        state.tombstones =
            (state.tombstones + after.len() as u64).saturating_sub(before.len() as u64);
    }

    /// Stages an object row that is written anew, because it was damaged or had lost something: what
    /// the index has of it is not known from the old row, and rows that are there stay.
    pub(super) fn stage_rebuilt(
        &mut self,
        shard: Shard,
        key: &Key,
        object: Object,
        policy: ConflictPolicy,
    ) -> Result<(), StoreError> {
        self.replica(shard)?;
        self.put_object(shard, key, &object);
        if policy == ConflictPolicy::Siblings {
            self.index_rebuilt(shard, key, &object.expiring())?;
        }
        let mut added = 0;
        for dot in object.tombstones() {
            let row_key = keys::log(shard, dot);
            let goes = self.orphans.remove(&(shard, Indexed::Tombstone(dot)));
            let is_there = !goes && self.get(Table::Tombstones, &row_key)?.is_some();
            if policy == ConflictPolicy::Lww || is_there {
                continue;
            }
            added += 1;
            self.batch.put_with(Table::Tombstones, &row_key, |out| rows::put(&row_key, key, out));
        }
        self.objects.insert((shard, key.clone()), object);
        let state = self.states.get_mut(&shard).expect("loaded above");
        state.tombstones += added;
        self.dirty.insert(shard);
        Ok(())
    }

    fn put_object(&mut self, shard: Shard, key: &Key, object: &Object) {
        let row_key = keys::object(shard, key);
        if object.is_absent() {
            self.batch.delete(Table::Objects, &row_key);
        } else {
            self.batch.put_with(Table::Objects, &row_key, |out| rows::put(&row_key, object, out));
        }
    }

    /// See [`Store::stage_collected`].
    pub(super) fn take_collected(
        &mut self,
        shard: Shard,
        key: &Key,
        object: Object,
    ) -> Result<(), StoreError> {
        self.accepts()?;
        self.replica(shard)?;
        let before = self.indexed(shard, key, ConflictPolicy::Siblings)?;
        self.dirty.insert(shard);
        self.stage_object(shard, key, before, object);
        Ok(())
    }

    /// See [`Store::tombstones`].
    pub(super) fn page_of_tombstones(
        &mut self,
        shard: Shard,
        after: Option<Dot>,
        limit: usize,
    ) -> Result<IndexPage<Dot>, StoreError> {
        let prefix = keys::shard(shard);
        let end = keys::after_prefix(&prefix);
        let start = after.map_or(prefix.to_vec(), |dot| {
            let mut start = keys::log(shard, dot).to_vec();
            start.push(0);
            start
        });
        self.page_of(Table::Tombstones, shard, (&start, end), limit, keys::dot_of_log, |dot| *dot)
    }
}
