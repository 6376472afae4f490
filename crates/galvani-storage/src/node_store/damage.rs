//! Damaged rows: the list of those not yet mended, and rows written anew.
//!
//! A damaged row stays where it is and is never served; its name stays on the list until a row
//! written anew is committed. It decides nothing about what the row should say:
//! `galvani-protocol/src/sync/damage.rs` does. Next to read: `mod.rs`.

use super::{NodeStore, parse, store_error};
use crate::engine::{Engine, EngineError, Table};
use crate::format::{RowError, keys, rows};
use bytes::Bytes;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::{Damage, Listed, Rewrite, Slice, Store, StoreError};
use galvani_model::version::{Dot, Object, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// Damaged rows that are listed; what is beyond them is counted, and listed when there is room.
const LISTED_MAX: usize = 10_000;

/// Damaged rows of one lane.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    /// Met and not yet mended.
    pub(super) rows: BTreeSet<Damage>,
    /// How often that has changed.
    pub(super) changes: u64,
    /// Written anew by this tick.
    staged: Vec<Damage>,
    /// Rows met since the store was opened.
    pub(super) met: u64,
    /// Of those, rows that were written anew.
    pub(super) mended: u64,
}

impl Damaged {
    /// What the tick wrote anew is on the disk.
    pub(super) fn committed(&mut self) {
        self.mended += self.staged.drain(..).count() as u64;
    }

    /// It is not.
    pub(super) fn roll_back(&mut self) {
        self.changes += u64::from(!self.staged.is_empty());
        self.rows.extend(self.staged.drain(..));
    }

    /// A row is written anew by this tick, or goes for good.
    pub(super) fn stage(&mut self, row: Damage) {
        if self.rows.remove(&row) {
            self.changes += 1;
            self.staged.push(row);
        }
    }

    /// Nothing of a shard is here any more.
    pub(super) fn forget(&mut self, shard: Shard) {
        self.changes += 1;
        self.rows.retain(|row| row.shard() != shard);
    }
}

impl<E: Engine> NodeStore<E> {
    /// Damaged rows that were written anew since the store was opened.
    pub fn mended(&self) -> u64 {
        self.damaged.mended
    }

    /// Lists and reports a damaged row, the first time that it is met.
    pub(super) fn damage(&mut self, row: Damage, error: &RowError) -> StoreError {
        let (shard, what) = match &row {
            Damage::Record(shard, dot) => (shard, format!("record {dot}")),
            Damage::Object(shard, key) => (shard, format!("object {key}")),
            Damage::Request(shard, write) => (shard, format!("request {write}")),
        };
        let what = format!("{shard} {what}");
        let listed = self.damaged.rows.contains(&row);
        if !listed && self.damaged.rows.len() < LISTED_MAX {
            self.damaged.changes += 1;
            self.damaged.rows.insert(row);
        }
        if listed {
            return StoreError::Corrupt { what: format!("{what}: {error}") };
        }
        self.quarantine(what, error)
    }

    /// A row as the engine has it; one that the engine cannot read is damaged like any other.
    pub(super) fn row(
        &mut self,
        table: Table,
        key: &[u8],
        name: impl FnOnce() -> Damage,
    ) -> Result<Option<Bytes>, StoreError> {
        match self.engine.get(table, key) {
            Err(EngineError::Corrupt { what, .. }) => {
                Err(self.damage(name(), &RowError::Unreadable { why: what }))
            }
            row => row.map_err(store_error),
        }
    }

    /// An object as the engine has it.
    pub(super) fn read_object(&mut self, shard: Shard, key: &Key) -> Result<Object, StoreError> {
        let row_key = keys::object(shard, key);
        let name = || Damage::Object(shard, key.clone());
        match self.row(Table::Objects, &row_key, name)? {
            None => Ok(Object::absent()),
            Some(row) => rows::get(&row_key, &row).map_err(|error| self.damage(name(), &error)),
        }
    }

    /// A record as the engine has it.
    pub(super) fn read_record(
        &mut self,
        shard: Shard,
        dot: Dot,
    ) -> Result<Option<Record>, StoreError> {
        if self.trimmed.has(shard, dot) {
            return Ok(None);
        }
        let key = keys::log(shard, dot);
        let name = || Damage::Record(shard, dot);
        match self.row(Table::Log, &key, name)? {
            Some(row) => {
                rows::get_record(&key, &row).map(Some).map_err(|error| self.damage(name(), &error))
            }
            None => {
                let state = self.replica(shard)?;
                // Nothing but trimming takes records out of the log.
                match state.clock.contains(dot) && !state.is_trimmed(dot) {
                    true => Err(self.damage(name(), &RowError::Gone)),
                    false => Ok(None),
                }
            }
        }
    }

    /// See [`Store::rewrite`].
    pub(super) fn stage_rewrite(&mut self, shard: Shard, row: Rewrite) -> Result<(), StoreError> {
        self.accepts()?;
        self.replica(shard)?;
        match row {
            Rewrite::Record(record) => {
                let dot = record.head.dot;
                let state = &self.states[&shard];
                assert!(state.clock.contains(dot), "{shard}: {dot} is news, and must be applied");
                let key = keys::log(shard, dot);
                self.batch.put_with(Table::Log, &key, |out| rows::put_record(&key, &record, out));
                self.records.insert((shard, dot), *record);
                self.trimmed.records.remove(&(shard, dot));
                tracing::warn!(event = "row_mended", shard = %shard, record = %dot);
                self.damaged.stage(Damage::Record(shard, dot));
            }
            Rewrite::Object(key, object, policy) => {
                self.stage_rebuilt(shard, &key, object, policy)?;
                tracing::warn!(event = "row_mended", shard = %shard, object = %key);
                self.damaged.stage(Damage::Object(shard, key));
            }
            Rewrite::Request(write, entry) => {
                self.forget_trimmed(shard)?;
                let key = keys::request(shard, write);
                match entry {
                    Some(entry) => {
                        let put = |out: &mut Vec<u8>| rows::put(&key, &entry, out);
                        self.batch.put_with(Table::RequestIds, &key, put);
                        let issued = self.requests.get(&(shard, write)).and_then(|known| known.1);
                        self.requests.insert((shard, write), (entry, issued));
                    }
                    None => {
                        self.batch.delete(Table::RequestIds, &key);
                        self.requests.remove(&(shard, write));
                        self.swept.push((shard, write));
                    }
                }
                tracing::warn!(event = "row_mended", shard = %shard, request = %write);
                self.damaged.stage(Damage::Request(shard, write));
            }
            Rewrite::Digest(digest) => {
                let state = self.states.get_mut(&shard).expect("loaded above");
                state.digest = digest;
                self.dirty.insert(shard);
            }
        }
        Ok(())
    }

    /// See [`Store::slice`].
    pub(super) fn slice_of(
        &mut self,
        shard: Shard,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Slice, StoreError> {
        let prefix = keys::shard(shard);
        let end = keys::after_prefix(&prefix);
        let start = after.map_or(prefix.to_vec(), |after| {
            // The smallest row key above it: itself and one zero byte.
            let mut start = keys::object(shard, after);
            start.push(0);
            start
        });
        let mut found: BTreeMap<Key, Object> = BTreeMap::new();
        let (mut seen, mut last, mut bad) = (0, None, Vec::new());
        let mut look = |row_key: &[u8], row: &[u8]| {
            seen += 1;
            let Ok(key) = parse::object_key(row_key) else {
                return ControlFlow::Continue(());
            };
            match rows::get(row_key, row) {
                Ok(object) => drop(found.insert(key.clone(), object)),
                Err(error) => bad.push((key.clone(), error)),
            }
            last = Some(key);
            ControlFlow::Continue(())
        };
        self.engine
            .scan(Table::Objects, &start, end.as_deref(), limit, &mut look)
            .map_err(store_error)?;
        let last = last.filter(|_| seen >= limit);
        let damaged = bad.len();
        for (key, error) in bad {
            if !self.objects.contains_key(&(shard, key.clone())) {
                self.damage(Damage::Object(shard, key), &error);
            }
        }
        // What this tick staged is not in the engine yet.
        for ((of, key), object) in &self.objects {
            let inside = *of == shard
                && after.is_none_or(|after| key > after)
                && last.as_ref().is_none_or(|last| key <= last);
            if inside {
                found.insert(key.clone(), object.clone());
            }
        }
        let rows = found.into_iter().filter(|(_, object)| !object.is_absent());
        let objects = rows.map(|(key, object)| Listed { key, object }).collect();
        Ok(Slice { objects, last, damaged })
    }
}
