//! Keys of a bucket in order: what is stored, and what the tick has staged over it.
//!
//! It reads the engine, never what is remembered: a listing goes past each key once.
//! Next to read: `mod.rs`, `../format/keys.rs`.

use super::{NodeStore, parse, store_error};
use crate::engine::{Engine, Table};
use crate::format::keys;
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::{Listed, StoreError};
use galvani_model::version::Object;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

impl<E: Engine> NodeStore<E> {
    /// See [`galvani_model::store::Store::list`].
    pub(super) fn list_keys(
        &mut self,
        shard: Shard,
        bucket: &BucketName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let range = keys::object_prefix(shard, bucket, prefix);
        let end = keys::after_prefix(&range);
        let start = match after {
            Some(after) if after >= prefix => {
                // The smallest key above `after`: itself and one zero byte.
                let mut start = keys::object_prefix(shard, bucket, after);
                start.push(0);
                start
            }
            Some(_) | None => range,
        };
        let mut found = self.scan_objects(shard, bucket, &start, end.as_deref(), limit)?;
        // What this tick staged is not in the engine yet.
        for ((of, key), object) in &self.objects {
            let row_key = keys::object(*of, key);
            let inside =
                *of == shard && row_key >= start && end.as_ref().is_none_or(|end| row_key < *end);
            if inside {
                found.insert(key.bytes().clone(), (key.clone(), object.clone()));
            }
        }
        let rows = found.into_values().filter(|(_, object)| !object.is_absent());
        Ok(rows.take(limit).map(|(key, object)| Listed { key, object }).collect())
    }

    /// Up to `limit` stored objects of a bucket in `start..end`, and as many more as this tick has
    /// made absent, by key.
    fn scan_objects(
        &mut self,
        shard: Shard,
        bucket: &BucketName,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<BTreeMap<Bytes, (Key, Object)>, StoreError> {
        let mut found = BTreeMap::new();
        let mut damaged = None;
        let gone = self.objects.values().filter(|object| object.is_absent()).count();
        let mut take = |row_key: &[u8], row: &[u8]| match parse::object(row_key, row) {
            Ok((key, object)) => {
                found.insert(key.bytes().clone(), (key, object));
                ControlFlow::Continue(())
            }
            Err(error) => {
                damaged = Some(error);
                ControlFlow::Break(())
            }
        };
        self.engine
            .scan(Table::Objects, start, end, limit.saturating_add(gone), &mut take)
            .map_err(store_error)?;
        match damaged {
            None => Ok(found),
            Some(error) => Err(self.quarantine(format!("{shard} objects of {bucket}"), &error)),
        }
    }
}
