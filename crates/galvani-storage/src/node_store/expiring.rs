//! The index of values that expire, by expiry.
//!
//! Each dot of a live value with an end has a row here, in the batch that changes its object, so that
//! whoever collects what has expired reads nothing else. Values of `lww` buckets have none: they are
//! not collected. It reads no clock. Next to read: `tombstones.rs`, `galvani-protocol/src/reap.rs`.

use super::NodeStore;
use crate::engine::{Engine, Table};
use crate::format::{keys, rows};
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::{IndexPage, Indexed, StoreError};
use galvani_model::version::Dot;

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
            let goes = self.orphans.remove(&(shard, Indexed::Expiring(expires_ms, dot)));
            if goes || self.get(Table::Expiring, &row_key)?.is_none() {
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

    /// See [`Store::expiring`].
    pub(super) fn page_of_expiring(
        &mut self,
        shard: Shard,
        after: Option<(u64, Dot)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<IndexPage<(u64, Dot)>, StoreError> {
        let start = after.map_or(keys::shard(shard).to_vec(), |(expires_ms, dot)| {
            let mut start = keys::expiring(shard, expires_ms, dot).to_vec();
            start.push(0);
            start
        });
        let end = match until_ms.checked_add(1) {
            Some(end_ms) => Some(keys::expiring_from(shard, end_ms).to_vec()),
            None => keys::after_prefix(&keys::shard(shard)),
        };
        let dot = |&(_, dot): &(u64, Dot)| dot;
        self.page_of(Table::Expiring, shard, (&start, end), limit, keys::split_expiring, dot)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::{Corruption, FailKind, MemoryEngine, Table};
    use crate::format::keys;
    use crate::{MemoryConfig, NodeStore, StoreConfig};
    use bytes::Bytes;
    use galvani_model::bucket::{BucketName, ConflictPolicy};
    use galvani_model::hlc::Hlc;
    use galvani_model::ids::{LaneIndex, NodeId, Origin, Partition, RequestId, Shard};
    use galvani_model::key::Key;
    use galvani_model::store::{Change, Indexed, RequestEntry, Rewrite, Store};
    use galvani_model::version::{Digest, Dot, DotSet, Kind, Record, RecordHead, value_hash};
    use std::sync::Arc;

    const SHARD: Shard = Shard { partition: Partition(0), n: 3 };

    fn open(engine: &Arc<MemoryEngine>) -> NodeStore<MemoryEngine> {
        let config = StoreConfig {
            lane: LaneIndex(0),
            lanes: 1,
            keep_origins: true,
            memory: MemoryConfig::of_lane(1),
            checkpoint_every: 2,
        };
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
            supersedes: Default::default(),
            concurrent: Default::default(),
            emits: Vec::new(),
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
        let page = store.expiring(SHARD, after, until_ms, limit).expect("readable");
        assert!(page.rows.iter().all(|(_, of)| *of == key()));
        page.rows.into_iter().map(|((expires_ms, dot), _)| (expires_ms, dot.counter)).collect()
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

    #[test]
    fn a_row_that_an_object_written_anew_left_over_goes_and_no_other() {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine);
        for (counter, expires_ms) in [(1, 900), (2, 800), (3, 700)] {
            stage(&mut store, counter, expires_ms, &[], ConflictPolicy::Siblings);
        }
        store.commit(false).expect("room");
        // The row is written anew without the first.
        let object = store.object(SHARD, &key()).expect("readable");
        let object = object.without_ended(|version| version.expires_ms == 900);
        let anew = Rewrite::Object(key(), object, ConflictPolicy::Siblings);
        store.rewrite(SHARD, anew).expect("room");
        store.commit(false).expect("room");
        assert_eq!(page(&mut store, None, u64::MAX, 9), [(700, 3), (800, 2), (900, 1)]);
        // Another goes in the usual way meanwhile: its row is taken away once.
        stage(&mut store, 4, 0, &[2], ConflictPolicy::Siblings);
        for _ in 0..2 {
            for (expires_ms, counter) in [(700, 3), (800, 2), (900, 1), (950, 1)] {
                let row = Indexed::Expiring(expires_ms, dot(counter));
                store.unindex(SHARD, &key(), row).expect("room");
            }
        }
        store.commit(false).expect("room");
        assert_eq!(page(&mut store, None, u64::MAX, 9), [(700, 3)]);
        let state = store.replica(SHARD).expect("loaded").clone();
        assert_eq!(state.expiring, 1);
        assert_eq!(store.derive_state(SHARD).expect("readable").expiring, 1);
    }

    #[test]
    fn a_row_of_which_nobody_knows_the_key_shortens_no_page() {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine);
        for counter in 1..=3 {
            stage(&mut store, counter, 100 * counter, &[], ConflictPolicy::Siblings);
        }
        store.commit(false).expect("room");
        for counter in [1, 2] {
            let row = keys::expiring(SHARD, 100 * counter, dot(counter));
            assert!(engine.corrupt(Table::Expiring, &row, Corruption::FlipBit(9)));
            let row = keys::log(SHARD, dot(counter));
            assert!(engine.corrupt(Table::Log, &row, Corruption::Unreadable));
        }
        let first = store.expiring(SHARD, None, u64::MAX, 2).expect("readable");
        assert_eq!((first.rows.len(), first.looked, first.last), (0, 2, Some((200, dot(2)))));
        assert_eq!(page(&mut store, Some((200, 2)), u64::MAX, 2), [(300, 3)]);
    }
}
