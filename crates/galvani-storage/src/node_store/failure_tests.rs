//! What a store does after its disk has failed: lost syncs, engines that stay shut, a full disk.
//!
//! Beside `tests.rs`, whose records and stores these use.

use super::tests::{SHARD, key, open, record, stage};
use super::{MemoryConfig, NodeStore, StoreConfig};
use crate::engine::{Engine, FailKind, MemoryEngine, Table};
use crate::format::{keys, rows};
use galvani_model::ids::{LaneIndex, NodeId, Partition, Shard};
use galvani_model::store::{ReplicaState, Store, StoreError};
use std::sync::Arc;

/// Lane 1 of the same node, and a shard of it.
const OTHER: Shard = Shard { partition: Partition(5), n: 3 };

#[test]
fn a_failed_sync_of_one_lane_stops_every_lane() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    let config = StoreConfig {
        lane: LaneIndex(1),
        lanes: 2,
        keep_origins: true,
        memory: MemoryConfig::of_lane(1),
        checkpoint_every: 2,
    };
    let mut other = NodeStore::open(engine.clone(), config).expect("readable").store;
    other.commit(true).expect("nothing is wrong yet");
    engine.fail_next_sync();
    stage(&mut store, &record(1, "a")).expect("staged");
    let error = store.commit(true).expect_err("the sync fails");
    assert!(matches!(error, StoreError::InDoubt { .. }), "{error}");
    for lane in [&mut store, &mut other] {
        assert!(lane.is_lost());
        // Also a commit that has nothing to write: a recognised retry would be acked after it.
        for fsync in [false, true] {
            assert!(matches!(lane.commit(fsync), Err(StoreError::Failed { .. })));
        }
        assert!(lane.close().is_err(), "no clean stop");
        assert_eq!(lane.object(OTHER, &key("b")).map(|object| object.is_absent()), Ok(true));
    }
    assert!(engine.is_lost(), "no lane has opened it again");
}

#[test]
fn an_engine_that_could_not_be_opened_again_is_tried_no_more_often_than_the_driver_says() {
    for fail in [FailKind::IoKept, FailKind::IoLost] {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine, true);
        stage(&mut store, &record(1, "a")).expect("staged");
        store.commit(false).expect("room");
        engine.fail_next_commits([fail]);
        engine.fail_next_reopen();
        stage(&mut store, &record(2, "a")).expect("staged");
        store.commit(false).expect_err("it was told to fail");
        for _ in 0..1_000 {
            store.commit(false).expect_err("closed, and nothing is tried yet");
        }
        assert!(store.object(SHARD, &key("a")).is_err(), "{fail:?}: closed");
        engine.fail_next_reopen();
        store.try_disk_again();
        store.commit(false).expect_err("closed, and could not be opened by this");
        store.commit(false).expect_err("closed, and nothing is tried yet");
        assert!(store.object(SHARD, &key("a")).is_err(), "{fail:?}: still closed");
        store.try_disk_again();
        store.commit(false).expect_err("closed, and opened again by this");
        assert!(!store.object(SHARD, &key("a")).expect("readable").is_absent(), "{fail:?}");
        stage(&mut store, &record(3, "b")).expect("staged");
        store.commit(false).expect("writes go on");
    }
}

#[test]
fn an_engine_that_fails_again_soon_is_opened_more_and_more_seldom() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    let mut counter = 0;
    let mut write = |store: &mut NodeStore<MemoryEngine>| {
        counter += 1;
        stage(store, &record(counter, "a")).and_then(|_| store.commit(false))
    };
    write(&mut store).expect("room");
    // As a compaction that meets a damaged block: each time it is opened it fails at the next write.
    let mut rests = Vec::new();
    for _ in 0..8 {
        engine.fail_next_commits([FailKind::IoLost]);
        let mut asked = 0;
        assert_eq!(store.fails_again(), rests.len() > 1, "{rests:?}");
        write(&mut store).expect_err("it was told to fail");
        while store.commit(false).is_err() {
            store.try_disk_again();
            asked += 1;
        }
        rests.push(asked);
    }
    assert_eq!(rests[0], 0, "the first one at once: {rests:?}");
    assert!(rests.is_sorted() && rests[3] >= 4 && rests[7] <= 40, "{rests:?}");
    // Once it has been quiet for a while it is opened at once again.
    for _ in 0..50 {
        write(&mut store).expect("it goes on");
        store.try_disk_again();
    }
    assert!(!store.fails_again());
    engine.fail_next_commits([FailKind::IoLost]);
    write(&mut store).expect_err("it was told to fail");
    write(&mut store).expect("it was opened at once");
}

#[test]
fn a_shut_engine_refuses_writes_before_they_are_staged_and_fails_no_reads() {
    for fsync in [false, true] {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine, true);
        stage(&mut store, &record(1, "a")).expect("staged");
        store.commit(fsync).expect("room");
        // The first time it is opened at once, the second time it rests.
        for _ in 0..2 {
            engine.fail_next_commits([FailKind::Poisoned]);
            stage(&mut store, &record(2, "a")).expect("nobody knows yet");
            store.commit(fsync).expect_err("it was told to fail");
        }
        let refused = stage(&mut store, &record(2, "a"));
        assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
        let refused = store.hold(NodeId(8), SHARD, &record(1, "a"));
        assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
        assert_eq!(store.sweep_requests(u64::MAX, 10), Ok(0), "a sweep must not cost a tick");
        assert!(!store.has_staged());
        assert_eq!(store.object(SHARD, &key("a")).expect("reads go on").versions().len(), 1);
        store.commit(false).expect("nothing staged, nothing lost: reads are in such ticks");
        store.commit(true).expect_err("what must survive the power is not known to");
        store.close().expect_err("nor is a stop clean");
        let opened = (0..100).find(|_| {
            store.try_disk_again();
            let staged = stage(&mut store, &record(2, "b")).is_ok();
            store.commit(fsync).is_ok() && staged
        });
        assert!(opened.is_some(), "it is opened again in time");
        assert_eq!(store.object(SHARD, &key("b")).expect("readable").versions().len(), 1);
    }
}

#[test]
fn a_lane_uses_the_engine_that_another_lane_has_opened_again() {
    let engine = Arc::new(MemoryEngine::new());
    let (mut one, mut other) = (open(&engine, true), open(&engine, true));
    engine.fail_next_commits([FailKind::IoKept]);
    for store in [&mut one, &mut other] {
        stage(store, &record(1, "a")).expect("staged");
    }
    for store in [&mut one, &mut other] {
        engine.fail_next_reopen();
        store.commit(false).expect_err("it was told to fail, or finds it closed");
    }
    one.try_disk_again();
    one.commit(false).expect_err("closed, and opened again by this");
    stage(&mut other, &record(2, "b")).expect_err("it rests yet");
    engine.fail_next_reopen();
    other.try_disk_again();
    other.commit(false).expect("nothing is opened anew under the other lane");
    stage(&mut other, &record(2, "b")).expect("it takes writes again");
    other.commit(false).expect("nothing is opened anew under the other lane");
}

#[test]
fn a_full_disk_refuses_writes_before_they_are_staged_and_recovers() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    engine.set_full(true);
    stage(&mut store, &record(2, "a")).expect("nobody knows yet");
    assert_eq!(store.commit(false), Err(StoreError::Full));
    assert_eq!(stage(&mut store, &record(2, "a")), Err(StoreError::Full));
    assert_eq!(store.sweep_requests(u64::MAX, 10), Ok(0), "a sweep must not cost a tick");
    assert!(!store.has_staged());
    assert_eq!(store.object(SHARD, &key("a")).expect("reads go on").versions().len(), 1);
    for _ in 0..100 {
        store.commit(false).expect("nothing staged, nothing refused: reads are in such ticks");
    }
    store.try_disk_again();
    store.commit(false).expect("that it is full still fails nobody's tick");
    engine.set_full(false);
    store.try_disk_again();
    store.commit(false).expect("there is room again");
    let own = engine.get(Table::Clocks, &keys::shard(SHARD)).expect("readable").expect("there");
    let state: ReplicaState = rows::get(&keys::shard(SHARD), &own).expect("whole");
    assert_eq!(state.own, None, "an origin in doubt goes from the disk as soon as it can");
    store.try_disk_again();
    stage(&mut store, &record(2, "a")).expect("the next write finds out");
    store.commit(false).expect("there is room again");
    engine.set_full(true);
    stage(&mut store, &record(3, "a")).expect("nobody knows yet");
    assert_eq!(store.commit(false), Err(StoreError::Full));
    engine.set_full(false);
    // Without being told, one of the next commits tries again.
    let recovered = (0..100).any(|_| {
        let staged = stage(&mut store, &record(3, "b")).is_ok();
        store.commit(false).is_ok() && staged
    });
    assert!(recovered);
    assert_eq!(store.object(SHARD, &key("b")).expect("readable").versions().len(), 1);
}

#[test]
fn an_engine_that_takes_nothing_is_opened_again_also_by_a_probe_of_a_full_disk() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    engine.fail_next_commits([FailKind::Full]);
    stage(&mut store, &record(2, "a")).expect("nobody knows yet");
    assert_eq!(store.commit(false), Err(StoreError::Full));
    // The next thing that is written is the probe.
    engine.fail_next_commits([FailKind::IoLost]);
    store.try_disk_again();
    store.commit(false).expect_err("the disk failed");
    store.try_disk_again();
    store.commit(false).expect("it was opened again");
    stage(&mut store, &record(2, "a")).expect("there is room");
    store.commit(false).expect("and it takes writes");
}
