//! What the indexes of tombstones and of expiring values have in common: pages, and rows that go
//! because no object bears them out.
//!
//! The batch that changes an object keeps both indexes in step with it, but one that writes an object
//! anew does not know what the row before it said, so rows of it may be left over. Whoever pages meets
//! them, and says so. Next to read: `tombstones.rs`, `expiring.rs`.

use super::{NodeStore, store_error};
use crate::engine::{Engine, Table};
use crate::format::{keys, rows};
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::{IndexPage, Indexed, Store, StoreError};
use galvani_model::version::{Dot, Object};
use std::ops::ControlFlow;

impl<E: Engine> NodeStore<E> {
    /// Up to `limit` rows of an index in a range of its keys. A damaged row is counted; the log names
    /// its key as well.
    pub(super) fn page_of<At: Copy>(
        &mut self,
        index: Table,
        shard: Shard,
        (start, end): (&[u8], Option<Vec<u8>>),
        limit: usize,
        parse: impl Fn(&[u8]) -> Option<At>,
        dot_of: impl Fn(&At) -> Dot,
    ) -> Result<IndexPage<At>, StoreError> {
        let (mut looked, mut found) = (0, Vec::new());
        let mut take = |row_key: &[u8], row: &[u8]| {
            looked += 1;
            if let Some(at) = parse(row_key) {
                found.push((at, rows::get::<Key>(row_key, row)));
            }
            ControlFlow::Continue(())
        };
        self.engine.scan(index, start, end.as_deref(), limit, &mut take).map_err(store_error)?;
        let last = found.last().map(|(at, _)| *at);
        let mut page = IndexPage { rows: Vec::with_capacity(found.len()), last, looked };
        for (at, key) in found {
            match key {
                Ok(key) => page.rows.push((at, key)),
                Err(error) => {
                    let dot = dot_of(&at);
                    self.quarantine(format!("{shard} {} of {dot}", index.name()), &error);
                    // Without its log record either it stays where it is.
                    if let Ok(Some(record)) = self.record(shard, dot) {
                        page.rows.push((at, record.head.key));
                    }
                }
            }
        }
        Ok(page)
    }

    /// See [`Store::unindex`].
    pub(super) fn drop_orphan(
        &mut self,
        shard: Shard,
        key: &Key,
        row: Indexed,
    ) -> Result<(), StoreError> {
        // What this tick has staged of the object has staged its rows as well.
        if row.is_of(&self.object(shard, key)?) || row.is_of(&self.committed(shard, key)?) {
            return Ok(());
        }
        self.accepts()?;
        let (index, row_key) = match row {
            Indexed::Tombstone(dot) => (Table::Tombstones, keys::log(shard, dot).to_vec()),
            Indexed::Expiring(expires_ms, dot) => {
                (Table::Expiring, keys::expiring(shard, expires_ms, dot).to_vec())
            }
        };
        self.replica(shard)?;
        if self.get(index, &row_key)?.is_none() || !self.orphans.insert((shard, row)) {
            return Ok(());
        }
        tracing::warn!(event = "row_mended", shard = %shard, index = index.name(), of = %key);
        self.batch.delete(index, &row_key);
        let state = self.states.get_mut(&shard).expect("loaded above");
        let rows = match row {
            Indexed::Tombstone(_) => &mut state.tombstones,
            Indexed::Expiring(..) => &mut state.expiring,
        };
        *rows = rows.saturating_sub(1);
        self.dirty.insert(shard);
        Ok(())
    }

    /// The object as the disk has it.
    fn committed(&mut self, shard: Shard, key: &Key) -> Result<Object, StoreError> {
        let row_key = keys::object(shard, key);
        match self.get(Table::Objects, &row_key)? {
            None => Ok(Object::absent()),
            Some(row) => {
                let error = |error| StoreError::Corrupt { what: format!("{shard} {key}: {error}") };
                rows::get(&row_key, &row).map_err(error)
            }
        }
    }

    /// How many rows an index has of a shard.
    pub(super) fn count_rows(&self, index: Table, shard: Shard) -> Result<u64, StoreError> {
        let prefix = keys::shard(shard);
        let end = keys::after_prefix(&prefix);
        let mut rows = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            rows += 1;
            ControlFlow::Continue(())
        };
        self.engine
            .scan(index, &prefix, end.as_deref(), usize::MAX, &mut count)
            .map_err(store_error)?;
        Ok(rows)
    }
}
