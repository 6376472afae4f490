//! The store over the memory engine: overlay, commit, roll-back, recovery, damage, listings.

use super::{MemoryConfig, NodeStore, StoreConfig};
use crate::engine::{Corruption, CrashKeep, Engine, FailKind, MemoryEngine, Table};
use crate::format::keys;
use bytes::Bytes;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, NodeId, Origin, Partition, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::limits::REQUEST_ID_RETENTION_MS;
use galvani_model::store::{Change, OwnOrigin, RequestEntry, Rewrite, Store, StoreError};
use galvani_model::version::{Dot, DotSet, Kind, Record, RecordHead, object_digest, value_hash};
use std::sync::Arc;

pub(super) const SHARD: Shard = Shard { partition: Partition(4), n: 3 };
pub(super) const ORIGIN: Origin = Origin(99);

pub(super) fn config(keep_origins: bool) -> StoreConfig {
    let of_lane = StoreConfig::of_lane(LaneIndex(0), 2, keep_origins);
    StoreConfig { checkpoint_every: 2, ..of_lane }
}

pub(super) fn open(engine: &Arc<MemoryEngine>, keep_origins: bool) -> NodeStore<MemoryEngine> {
    NodeStore::open(engine.clone(), config(keep_origins)).expect("readable").store
}

/// One whose every read is the engine's.
fn forgetful(engine: &Arc<MemoryEngine>) -> NodeStore<MemoryEngine> {
    let config = StoreConfig { memory: MemoryConfig::NONE, ..config(true) };
    NodeStore::open(engine.clone(), config).expect("readable").store
}

pub(super) fn key(name: &str) -> Key {
    Key::new("default".parse().expect("a name"), name.to_owned()).expect("a key")
}

pub(super) fn record(counter: u64, name: &str) -> Record {
    let value = Bytes::from(format!("value {counter}"));
    let head = RecordHead {
        dot: Dot::new(ORIGIN, counter),
        key: key(name),
        past: DotSet::new(),
        hlc: Hlc(counter),
        rid: RequestId(u128::from(counter)),
        author: NodeId(1),
        kind: Kind::Put,
        value_len: value.len() as u32,
        value_hash: value_hash(Kind::Put, &value),
        expires_ms: 0,
        supersedes: Default::default(),
        concurrent: Default::default(),
        emits: Vec::new(),
    };
    Record { head, value }
}

/// Stages `record` as the vnode's own write.
pub(super) fn stage(
    store: &mut NodeStore<MemoryEngine>,
    record: &Record,
) -> Result<(), StoreError> {
    let mut object = store.object(SHARD, &record.head.key)?;
    let before = object_digest(&record.head.key, &object);
    object.apply(&record.head, false, ConflictPolicy::Siblings);
    let mut digest = store.replica(SHARD)?.digest;
    digest.replace(before, object_digest(&record.head.key, &object));
    let own = Some(OwnOrigin { origin: ORIGIN, counter: record.head.dot.counter });
    let request = RequestEntry {
        dots: [record.head.dot].into_iter().collect(),
        at_ms: record.head.dot.counter,
    };
    let policy = ConflictPolicy::Siblings;
    let record = record.clone();
    store.stage(Change { shard: SHARD, record, object, request, own, digest, policy })
}

#[test]
fn a_tick_sees_what_it_staged_and_the_disk_has_it_after_the_commit() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    assert_eq!(store.object(SHARD, &key("a")).expect("readable").versions().len(), 1);
    assert!(open(&engine, true).object(SHARD, &key("a")).expect("readable").is_absent());
    store.commit(false).expect("room");
    let mut again = open(&engine, true);
    assert_eq!(again.object(SHARD, &key("a")).expect("readable").versions().len(), 1);
    assert_eq!(again.record(SHARD, Dot::new(ORIGIN, 1)).expect("readable"), Some(record(1, "a")));
    assert_eq!(again.replica(SHARD), store.replica(SHARD));
}

pub(super) fn tombstone(counter: u64, name: &str, past: &[u64]) -> Record {
    let mut record = record(counter, name);
    record.value = Bytes::new();
    record.head.kind = Kind::Delete;
    record.head.value_len = 0;
    record.head.value_hash = value_hash(Kind::Delete, &[]);
    for &counter in past {
        record.head.past.insert(Dot::new(ORIGIN, counter));
    }
    record
}

#[test]
fn the_index_of_tombstones_follows_the_objects_in_every_batch() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    let waiting = |store: &mut NodeStore<MemoryEngine>, after| {
        let page = store.tombstones(SHARD, after, 10).expect("readable");
        page.rows.into_iter().map(|(dot, key)| (dot.counter, key)).collect::<Vec<_>>()
    };
    stage(&mut store, &record(1, "a")).expect("staged");
    stage(&mut store, &tombstone(2, "a", &[1])).expect("staged");
    stage(&mut store, &tombstone(3, "b", &[])).expect("staged");
    assert_eq!(waiting(&mut store, None), [], "only what is committed is collected");
    store.commit(false).expect("room");
    assert_eq!(waiting(&mut store, None), [(2, key("a")), (3, key("b"))]);
    assert_eq!(waiting(&mut store, Some(Dot::new(ORIGIN, 2))), [(3, key("b"))]);
    // A value that saw the tombstone takes its row away, and so does its collection.
    let mut again = record(4, "a");
    again.head.past.insert(Dot::new(ORIGIN, 2));
    stage(&mut store, &again).expect("staged");
    let gone = store.object(SHARD, &key("b")).expect("readable").without_ended(|_| true);
    store.stage_collected(SHARD, &key("b"), gone).expect("staged");
    assert_eq!(store.replica(SHARD).expect("loaded").tombstones, 0);
    engine.fail_next_commits([FailKind::IoLost]);
    store.commit(false).expect_err("it was told to fail");
    assert_eq!(waiting(&mut store, None).len(), 2, "a failed batch changes nothing");
    assert_eq!(store.replica(SHARD).expect("loaded").tombstones, 2);
    let gone = store.object(SHARD, &key("b")).expect("readable").without_ended(|_| true);
    store.stage_collected(SHARD, &key("b"), gone).expect("staged");
    store.commit(false).expect("room");
    assert_eq!(waiting(&mut store, None), [(2, key("a"))]);
    assert!(store.object(SHARD, &key("b")).expect("readable").is_absent());
    let mut state = store.replica(SHARD).expect("loaded").clone();
    state.own = None;
    assert_eq!(store.derive_state(SHARD), Ok(state));
    // A row that is damaged is counted, and the log names its key.
    let row = keys::log(SHARD, Dot::new(ORIGIN, 2));
    assert!(engine.corrupt(Table::Tombstones, &row, Corruption::FlipBit(12)));
    assert_eq!(waiting(&mut store, None), [(2, key("a"))]);
    assert_eq!(store.quarantined(), 1);
}

#[test]
fn a_failed_commit_leaves_nothing_and_takes_a_new_incarnation() {
    for fail in [FailKind::IoKept, FailKind::IoLost] {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine, true);
        stage(&mut store, &record(1, "a")).expect("staged");
        store.commit(false).expect("room");
        engine.fail_next_commits([fail]);
        stage(&mut store, &record(2, "a")).expect("staged");
        let error = store.commit(false).expect_err("it was told to fail");
        assert!(matches!(error, StoreError::InDoubt { .. }), "{error}");
        let state = store.replica(SHARD).expect("readable").clone();
        assert_eq!(state.own, None, "{fail:?}");
        let kept = store.record(SHARD, Dot::new(ORIGIN, 2)).expect("readable").is_some();
        assert_eq!(state.clock.contains(Dot::new(ORIGIN, 2)), kept, "clock and log agree");
    }
}

#[test]
fn dot_reuse_origins_are_kept_only_where_they_may_be() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(true).expect("room");
    let own = OwnOrigin { origin: ORIGIN, counter: 1 };
    assert_eq!(open(&engine, true).replica(SHARD).expect("readable").own, Some(own));
    assert_eq!(open(&engine, false).replica(SHARD).expect("readable").own, None);
}

#[test]
fn an_origin_in_doubt_is_not_revived_by_a_clean_stop_later() {
    for full_at_first in [false, true] {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine, true);
        stage(&mut store, &record(1, "a")).expect("staged");
        store.commit(true).expect("room");
        // An unclean start that mints nothing, then a clean stop.
        let mut doubtful = open(&engine, false);
        engine.set_full(full_at_first);
        assert_eq!(doubtful.commit(false).is_err(), full_at_first);
        engine.set_full(false);
        doubtful.close().expect("room");
        assert_eq!(open(&engine, true).replica(SHARD).expect("readable").own, None);
    }
}

#[test]
fn a_power_cut_keeps_whole_ticks() {
    for unsynced in 0..=3 {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine, true);
        for counter in 1..=3 {
            stage(&mut store, &record(counter, "a")).expect("staged");
            store.commit(false).expect("room");
        }
        engine.crash(CrashKeep::Synced { unsynced });
        let mut again = open(&engine, false);
        let mut expected = again.replica(SHARD).expect("readable").clone();
        assert_eq!(expected.clock.len(), unsynced as u64);
        expected.own = None;
        assert_eq!(again.derive_state(SHARD), Ok(expected));
    }
}

#[test]
fn a_row_written_anew_leaves_the_list_when_it_is_committed() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = forgetful(&engine);
    stage(&mut store, &record(1, "a")).expect("staged");
    let object = store.object(SHARD, &key("a")).expect("readable");
    store.commit(false).expect("room");
    let row = keys::object(SHARD, &key("a"));
    assert!(engine.corrupt(Table::Objects, &row, Corruption::Unreadable));
    for _ in 0..2 {
        store.object(SHARD, &key("a")).expect_err("the engine cannot read it");
    }
    let damaged = store.damaged().clone();
    assert_eq!(damaged.len(), 1);
    let anew = || Rewrite::Object(key("a"), object.clone(), ConflictPolicy::Siblings);
    engine.fail_next_commits([FailKind::Full]);
    store.rewrite(SHARD, anew()).expect("staged");
    assert!(store.damaged().is_empty(), "reads of the tick see the row");
    store.commit(false).expect_err("the disk is full");
    assert_eq!((store.damaged(), store.mended()), (&damaged, 0), "it is damaged as before");
    store.object(SHARD, &key("a")).expect_err("never served");
    for _ in 0..20 {
        store.commit(false).expect("nothing is staged");
    }
    store.rewrite(SHARD, anew()).expect("staged");
    store.commit(false).expect("there is room");
    assert_eq!((store.damaged().len(), store.mended(), store.quarantined()), (0, 1, 1));
    assert_eq!(store.object(SHARD, &key("a")), Ok(object));
}

#[test]
fn a_record_of_the_clock_that_is_gone_is_damage_and_one_of_no_clock_is_absent() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    let row = keys::log(SHARD, Dot::new(ORIGIN, 1));
    assert!(engine.corrupt(Table::Log, &row, Corruption::Vanish));
    store.record(SHARD, Dot::new(ORIGIN, 1)).expect_err("gone");
    assert_eq!(store.record(SHARD, Dot::new(ORIGIN, 2)), Ok(None));
    assert_eq!(store.damaged().len(), 1);
    store.rewrite(SHARD, Rewrite::Record(Box::new(record(1, "a")))).expect("staged");
    store.commit(false).expect("room");
    let mut again = open(&engine, true);
    assert_eq!(again.record(SHARD, Dot::new(ORIGIN, 1)), Ok(Some(record(1, "a"))));
}

#[test]
fn slices_bring_every_object_once_and_pass_over_damaged_ones() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=10 {
        stage(&mut store, &record(counter, &format!("k{counter:02}"))).expect("staged");
        if counter == 8 {
            store.commit(false).expect("room");
        }
    }
    let row = keys::object(SHARD, &key("k03"));
    assert!(engine.corrupt(Table::Objects, &row, Corruption::FlipBit(30)));
    let (mut after, mut names, mut damaged) = (None, Vec::new(), 0);
    loop {
        let slice = store.slice(SHARD, after.as_ref(), 3).expect("readable");
        names.extend(slice.objects.into_iter().map(|object| object.key));
        damaged += slice.damaged;
        after = slice.last;
        if after.is_none() {
            break;
        }
    }
    let expected = (1..=10).filter(|&at| at != 3).map(|at| key(&format!("k{at:02}")));
    assert_eq!(names, expected.collect::<Vec<_>>());
    assert_eq!((damaged, store.damaged().len()), (1, 1));
}

#[test]
fn a_damaged_object_is_never_served() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = forgetful(&engine);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    let row = keys::object(SHARD, &key("a"));
    engine.corrupt(Table::Objects, &row, Corruption::FlipBit(30));
    let error = store.object(SHARD, &key("a")).expect_err("damaged");
    assert!(matches!(error, StoreError::Corrupt { .. }));
    assert_eq!(store.quarantined(), 1);
    assert!(store.object(SHARD, &key("b")).expect("others are fine").is_absent());
}

#[test]
fn a_listing_joins_what_is_staged_with_what_is_stored() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for (counter, name) in ["ab", "aa", "b", "ac"].into_iter().enumerate() {
        stage(&mut store, &record(counter as u64 + 1, name)).expect("staged");
        if counter == 1 {
            store.commit(false).expect("room");
        }
    }
    let bucket = "default".parse().expect("a name");
    let mut names = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        let after = after.map(str::as_bytes);
        let listed = store.list(SHARD, &bucket, prefix.as_bytes(), after, limit).expect("readable");
        let name = |key: &Key| String::from_utf8_lossy(key.bytes()).into_owned();
        listed.iter().map(|listed| name(&listed.key)).collect()
    };
    assert_eq!(names("", None, 10), ["aa", "ab", "ac", "b"]);
    assert_eq!(names("a", None, 2), ["aa", "ab"]);
    assert_eq!(names("a", Some("aa"), 10), ["ab", "ac"]);
    assert_eq!(names("c", None, 10), Vec::<String>::new());
}

#[test]
fn a_sweep_forgets_old_requests_only() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=10 {
        stage(&mut store, &record(counter, "a")).expect("staged");
    }
    store.commit(false).expect("room");
    let swept: usize = (0..8)
        .map(|_| {
            let swept = store.sweep_requests(6, 3).expect("readable");
            store.commit(false).expect("room");
            swept
        })
        .sum();
    assert_eq!(swept, 5, "those taken in at 1..=5");
    for counter in 1..=10 {
        let known =
            store.request(SHARD, record(counter, "a").head.write_id(), None).expect("readable");
        assert_eq!(known.is_some(), counter >= 6);
    }
}

#[test]
fn a_clock_that_is_far_ahead_forgets_no_request() {
    let (engine, day_ms) = (Arc::new(MemoryEngine::new()), REQUEST_ID_RETENTION_MS);
    let mut store = open(&engine, true);
    let at = |counter: u64, at_ms: u64| {
        let mut record = record(counter, "a");
        record.head.hlc = Hlc::from_unix_ms(at_ms);
        record
    };
    // What was taken in at 1 ms (see `stage`), issued then; and a write of a day later.
    stage(&mut store, &at(1, 1)).expect("staged");
    stage(&mut store, &at(2, day_ms + 1)).expect("staged");
    store.commit(false).expect("room");
    let ten_years_ms = 3_650 * day_ms;
    assert_eq!(store.forget_requests(ten_years_ms, 10), Ok(0), "the newest write is a day old");
    stage(&mut store, &at(3, day_ms + 2)).expect("staged");
    store.commit(false).expect("room");
    assert_eq!(store.forget_requests(day_ms, 10), Ok(0), "the clock does not say so");
    assert_eq!(store.forget_requests(ten_years_ms, 10), Ok(1), "both do");
}

#[test]
fn a_sync_is_asked_of_the_disk_only_where_something_may_not_be_safe_yet() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, false);
    let syncs = |store: &mut NodeStore<MemoryEngine>| {
        let before = engine.stats().syncs;
        store.commit(true).expect("room");
        assert_eq!(engine.unsynced(), 0);
        engine.stats().syncs - before
    };
    assert_eq!(syncs(&mut store), 1, "an earlier process may have left something unsynced");
    assert_eq!(syncs(&mut store), 0);
    stage(&mut store, &record(1, "a")).expect("room");
    store.commit(false).expect("room");
    assert_eq!(syncs(&mut store), 1);
    assert_eq!(syncs(&mut store), 0);
    stage(&mut store, &record(2, "a")).expect("room");
    assert_eq!(syncs(&mut store), 1, "with what is staged");
    // A process that ended without a sync, and the next one.
    stage(&mut store, &record(3, "a")).expect("room");
    store.commit(false).expect("room");
    let mut store = open(&engine, false);
    assert_eq!(engine.unsynced(), 1);
    assert_eq!(syncs(&mut store), 1);
    // What a failed commit left behind is in doubt.
    stage(&mut store, &record(4, "a")).expect("room");
    engine.fail_next_commits([FailKind::IoKept]);
    store.commit(false).expect_err("it was told to fail");
    assert_eq!(syncs(&mut store), 1);
    assert_eq!(syncs(&mut store), 0);
}
