//! The index of values that expire, by expiry.
//!
//! Each dot of a live value with an end has a row here, in the batch that changes its object, so that
//! whoever collects what has expired reads nothing else. Values of `lww` buckets have none: they are
//! not collected. It reads no clock. Next to read: `tombstones.rs`, `galvani-protocol/src/reap.rs`.

use super::{NodeStore, store_error};
use crate::engine::{Engine, Table};
use crate::format::{keys, rows};
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::{Expiring, Store, StoreError};
use galvani_model::version::Dot;
use std::ops::ControlFlow;

impl<E: Engine> NodeStore<E> {
    /// Dots of values that expire, in the shards touched since the store was opened, as far as
    /// committed or staged.
    pub fn expiring_waiting(&self) -> u64 {
        self.states.values().map(|state| state.expiring).sum()
    }

    /// Stages the rows of a key's values that expire: those of `after` in place of those of `before`.
    pub(super) fn index_expiring(
        &mut self,
        shard: Shard,
        key: &Key,
        before: &[(u64, Dot)],
        after: &[(u64, Dot)],
    ) {
        if before == after {
            return;
        }
        for &(expires_ms, dot) in before.iter().filter(|row| !after.contains(row)) {
            self.batch.delete(Table::Expiring, &keys::expiring(shard, expires_ms, dot));
        }
        for &(expires_ms, dot) in after.iter().filter(|row| !before.contains(row)) {
            self.put_expiring(shard, key, expires_ms, dot);
        }
        let state = self.states.get_mut(&shard).expect("the tick read the state before it stages");
        state.expiring = (state.expiring + after.len() as u64).saturating_sub(before.len() as u64);
    }

    /// Stages the rows that are missing of an object that is written anew; rows that are there stay.
    /// The shard's state is loaded.
    pub(super) fn index_rebuilt(
        &mut self,
        shard: Shard,
        key: &Key,
        rows: &[(u64, Dot)],
    ) -> Result<(), StoreError> {
        for &(expires_ms, dot) in rows {
            let row_key = keys::expiring(shard, expires_ms, dot);
            if self.get(Table::Expiring, &row_key)?.is_none() {
                self.put_expiring(shard, key, expires_ms, dot);
                let state = self.states.get_mut(&shard).expect("the caller loaded it");
                state.expiring += 1;
            }
        }
        Ok(())
    }

    fn put_expiring(&mut self, shard: Shard, key: &Key, expires_ms: u64, dot: Dot) {
        let row_key = keys::expiring(shard, expires_ms, dot);
        self.batch.put_with(Table::Expiring, &row_key, |out| rows::put(&row_key, key, out));
    }

    /// See [`Store::expiring`]. A damaged row is counted; the log names its key as well.
    pub(super) fn page_of_expiring(
        &mut self,
        shard: Shard,
        after: Option<(u64, Dot)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<Expiring>, StoreError> {
        let start = after.map_or(keys::shard(shard).to_vec(), |(expires_ms, dot)| {
            let mut start = keys::expiring(shard, expires_ms, dot).to_vec();
            start.push(0);
            start
        });
        let end = match until_ms.checked_add(1) {
            Some(end_ms) => Some(keys::expiring_from(shard, end_ms).to_vec()),
            None => keys::after_prefix(&keys::shard(shard)),
        };
        let mut found = Vec::new();
        let mut take = |row_key: &[u8], row: &[u8]| {
            if let Some((expires_ms, dot)) = keys::split_expiring(row_key) {
                found.push((expires_ms, dot, rows::get::<Key>(row_key, row)));
            }
            ControlFlow::Continue(())
        };
        self.engine
            .scan(Table::Expiring, &start, end.as_deref(), limit, &mut take)
            .map_err(store_error)?;
        let mut page = Vec::with_capacity(found.len());
        for (expires_ms, dot, key) in found {
            match key {
                Ok(key) => page.push(Expiring { expires_ms, dot, key }),
                Err(error) => {
                    self.quarantine(format!("{shard} expiry of {dot}"), &error);
                    // Without its log record either it stays where it is.
                    if let Ok(Some(record)) = self.record(shard, dot) {
                        page.push(Expiring { expires_ms, dot, key: record.head.key });
                    }
                }
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::{Corruption, FailKind, MemoryEngine, Table};
    use crate::format::keys;
    use crate::{NodeStore, StoreConfig};
    use bytes::Bytes;
    use galvani_model::bucket::{BucketName, ConflictPolicy};
    use galvani_model::hlc::Hlc;
    use galvani_model::ids::{LaneIndex, NodeId, Origin, Partition, RequestId, Shard};
    use galvani_model::key::Key;
    use galvani_model::store::{Change, RequestEntry, Store};
    use galvani_model::version::{Digest, Dot, DotSet, Kind, Record, RecordHead, value_hash};
    use std::sync::Arc;

    const SHARD: Shard = Shard { partition: Partition(0), n: 3 };

    fn open(engine: &Arc<MemoryEngine>) -> NodeStore<MemoryEngine> {
        let config = StoreConfig { lane: LaneIndex(0), lanes: 1, keep_origins: true };
        NodeStore::open(engine.clone(), config).expect("readable").store
    }

    fn dot(counter: u64) -> Dot {
        Dot::new(Origin(1), counter)
    }

    fn stage(
        store: &mut NodeStore<MemoryEngine>,
        counter: u64,
        expires_ms: u64,
        past: &[u64],
        policy: ConflictPolicy,
    ) {
        let mut seen = DotSet::new();
        past.iter().for_each(|&counter| {
            seen.insert(dot(counter));
        });
        let head = RecordHead {
            dot: dot(counter),
            key: key(),
            past: seen,
            hlc: Hlc(counter),
            rid: RequestId(counter.into()),
            author: NodeId(1),
            kind: Kind::Put,
            value_len: 1,
            value_hash: value_hash(Kind::Put, b"v"),
            expires_ms,
        };
        let mut object = store.object(SHARD, &key()).expect("readable");
        object.apply(&head, false, policy);
        let request = RequestEntry { dots: [head.dot].into_iter().collect(), at_ms: 0 };
        let record = Record { head, value: Bytes::from_static(b"v") };
        let (own, digest) = (None, Digest::default());
        let change = Change { shard: SHARD, record, object, request, own, digest, policy };
        store.stage(change).expect("room");
    }

    fn key() -> Key {
        Key::new(BucketName::default_bucket(), "k").expect("a key")
    }

    fn page(
        store: &mut NodeStore<MemoryEngine>,
        after: Option<(u64, u64)>,
        until_ms: u64,
        limit: usize,
    ) -> Vec<(u64, u64)> {
        let after = after.map(|(ms, counter)| (ms, dot(counter)));
        let rows = store.expiring(SHARD, after, until_ms, limit).expect("readable");
        assert!(rows.iter().all(|row| row.key == key()));
        rows.into_iter().map(|row| (row.expires_ms, row.dot.counter)).collect()
    }

    #[test]
    fn the_index_follows_the_objects_in_every_batch_and_is_ordered_by_expiry() {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine);
        for (counter, expires_ms) in [(1, 900), (2, 0), (3, 70_000), (4, 300)] {
            stage(&mut store, counter, expires_ms, &[], ConflictPolicy::Siblings);
        }
        assert_eq!(page(&mut store, None, u64::MAX, 9), [], "only what is committed is collected");
        store.commit(false).expect("room");
        assert_eq!(page(&mut store, None, u64::MAX, 9), [(300, 4), (900, 1), (70_000, 3)]);
        assert_eq!(page(&mut store, None, 900, 9), [(300, 4), (900, 1)], "the bound is inclusive");
        assert_eq!(page(&mut store, None, 899, 9), [(300, 4)]);
        assert_eq!(page(&mut store, Some((300, 4)), u64::MAX, 1), [(900, 1)]);
        assert_eq!(store.replica(SHARD).expect("loaded").expiring, 3);
        // A write that saw one takes its row away; a failed batch changes nothing.
        stage(&mut store, 5, 0, &[4], ConflictPolicy::Siblings);
        engine.fail_next_commits([FailKind::IoLost]);
        store.commit(false).expect_err("it was told to fail");
        assert_eq!(store.replica(SHARD).expect("loaded").expiring, 3);
        stage(&mut store, 5, 0, &[4], ConflictPolicy::Siblings);
        let gone = store.object(SHARD, &key()).expect("readable");
        let gone = gone.without_ended(|version| !version.is_value_at(1_000));
        store.stage_collected(SHARD, &key(), gone).expect("room");
        store.commit(false).expect("room");
        assert_eq!(page(&mut store, None, u64::MAX, 9), [(70_000, 3)]);
        let state = store.replica(SHARD).expect("loaded").clone();
        assert_eq!(store.derive_state(SHARD).expect("readable").expiring, state.expiring);
        assert_eq!(open(&engine).replica(SHARD).expect("readable").expiring, 1);
    }

    #[test]
    fn an_lww_bucket_has_no_rows_and_a_damaged_row_is_known_from_the_log() {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine);
        stage(&mut store, 1, 900, &[], ConflictPolicy::Lww);
        store.commit(false).expect("room");
        assert_eq!(page(&mut store, None, u64::MAX, 9), []);
        assert_eq!(store.replica(SHARD).expect("loaded").expiring, 0);
        stage(&mut store, 2, 800, &[], ConflictPolicy::Siblings);
        store.commit(false).expect("room");
        let row = keys::expiring(SHARD, 800, dot(2));
        assert!(engine.corrupt(Table::Expiring, &row, Corruption::FlipBit(9)));
        assert_eq!(page(&mut store, None, u64::MAX, 9), [(800, 2)]);
        assert_eq!(store.quarantined(), 1);
    }
}
