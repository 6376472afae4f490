//! Whole shards: which there are, and how one goes; and the few facts that a lane keeps.
//!
//! A shard goes page by page, its clock row last: until then a new start finds it and goes on. Nobody
//! serves it meanwhile, so nothing of it is staged. Next to read: `galvani-protocol/src/layout/`, which
//! decides when a shard may go.

use super::{NodeStore, store_error};
use crate::engine::{Batch, Durability, Engine, EngineError, Table};
use crate::format::{keys, rows};
use bytes::Bytes;
use galvani_model::ids::Shard;
use galvani_model::store::{Holdings, StoreError};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Tables whose rows of a shard go before its clock row.
const ROWS_FIRST: [Table; 6] = [
    Table::Objects,
    Table::RequestIds,
    Table::Arrivals,
    Table::Tombstones,
    Table::Expiring,
    Table::Log,
];

/// Facts that this tick changes.
pub(super) type StagedFacts = BTreeMap<Vec<u8>, Option<Bytes>>;

impl<E: Engine> Holdings for NodeStore<E> {
    fn held_shards(&mut self) -> Result<Vec<Shard>, StoreError> {
        self.shards()
    }

    fn empty(&mut self, shard: Shard, limit: usize) -> Result<bool, StoreError> {
        self.is_open()?;
        let prefix = keys::shard(shard);
        let end = keys::after_prefix(&prefix);
        let mut left = limit;
        for table in ROWS_FIRST {
            let (batch, limit) = (&mut self.batch, left);
            let mut drop_row = |key: &[u8], _: &[u8]| {
                batch.delete(table, key);
                left -= 1;
                ControlFlow::Continue(())
            };
            let scanned = self.engine.scan(table, &prefix, end.as_deref(), limit, &mut drop_row);
            scanned.map_err(store_error)?;
            if left == 0 {
                return Ok(false);
            }
        }
        self.batch.delete(Table::Clocks, &prefix);
        self.batch.delete(Table::Meta, &keys::trimmed(shard));
        self.states.remove(&shard);
        self.checkpoints.remove(&shard);
        self.dirty.remove(&shard);
        self.renewed.remove(&shard);
        // Should the commit fail its origin is not used again.
        self.touched.insert(shard);
        self.emptied.insert(shard);
        self.memory.forget(shard);
        self.damaged.forget(shard);
        Ok(true)
    }

    fn fact(&mut self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let key = keys::fact(name);
        if let Some(staged) = self.facts.get(&key) {
            return Ok(staged.clone());
        }
        let Some(row) = self.get(Table::Meta, &key)? else { return Ok(None) };
        let bytes: Result<Vec<u8>, _> = rows::get(&key, &row);
        let named = || format!("fact {}", String::from_utf8_lossy(name));
        bytes.map(|bytes| Some(bytes.into())).map_err(|error| self.quarantine(named(), &error))
    }

    fn set_fact(&mut self, name: &[u8], value: Option<Bytes>) -> Result<(), StoreError> {
        self.is_open()?;
        // Also on a full disk: facts are small, and there is room for them (see `Batch::is_vital`).
        let key = keys::fact(name);
        match &value {
            Some(value) => {
                let bytes = value.to_vec();
                self.batch.put_with(Table::Meta, &key, |out| rows::put(&key, &bytes, out));
            }
            None => self.batch.delete(Table::Meta, &key),
        }
        self.facts.insert(key, value);
        Ok(())
    }
}

/// Durably writes facts of a whole node, before any lane opens its store; `None`: it goes.
pub fn write_facts<E: Engine>(
    engine: &E,
    facts: &[(&[u8], Option<Bytes>)],
) -> Result<(), EngineError> {
    let mut batch = Batch::new();
    for (name, value) in facts {
        let key = keys::fact(name);
        match value {
            Some(value) => {
                let bytes = value.to_vec();
                batch.put_with(Table::Meta, &key, |out| rows::put(&key, &bytes, out));
            }
            None => batch.delete(Table::Meta, &key),
        }
    }
    engine.commit(&batch, Durability::Fsync)
}

#[cfg(test)]
mod tests;
