//! A shard's state comes back from its clock row and the arrivals since, or from its other rows.
//!
//! Next to read: `state.rs`, `crash_tests.rs`.

use super::NodeStore;
use super::tests::{SHARD, config, open, record, stage};
use crate::engine::{Corruption, Engine, MemoryEngine, Table};
use crate::format::{keys, rows};
use galvani_model::hlc::Hlc;
use galvani_model::store::{ReplicaState, Store};
use std::sync::Arc;

#[test]
fn the_state_is_what_log_arrivals_and_objects_add_up_to() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=20 {
        stage(&mut store, &record(counter, ["a", "b", "c"][counter as usize % 3])).expect("staged");
        if counter % 4 == 0 {
            store.commit(false).expect("room");
        }
    }
    let mut expected = store.replica(SHARD).expect("loaded").clone();
    expected.own = None;
    assert_eq!(store.derive_state(SHARD), Ok(expected.clone()));
    expected.latest = Hlc(u64::MAX);
    for damage in [Corruption::FlipBit(9), Corruption::Truncate(3), Corruption::Vanish] {
        assert!(engine.corrupt(Table::Clocks, &keys::shard(SHARD), damage));
        let mut again = open(&engine, true);
        assert_eq!(again.replica(SHARD), Ok(&expected), "derived, without the doubtful origin");
        assert_eq!(again.quarantined(), 1, "{damage:?}");
    }
}

#[test]
fn arrivals_tell_what_came_since_the_clock_row() {
    let arrival = |number| keys::arrival(SHARD, number);
    for damage in [Corruption::FlipBit(9), Corruption::Truncate(3)] {
        let engine = Arc::new(MemoryEngine::new());
        let mut store = open(&engine, true);
        let mut known = Vec::new();
        for counter in 1..=6 {
            stage(&mut store, &record(counter, ["a", "b"][counter as usize % 2])).expect("staged");
            store.commit(false).expect("room");
            let row = rows::get::<ReplicaState>(
                &keys::shard(SHARD),
                &engine.get(Table::Clocks, &keys::shard(SHARD)).expect("readable").expect("there"),
            );
            known.push(row.expect("whole").arrivals);
            assert_eq!(open(&engine, true).replica(SHARD), store.replica(SHARD), "{counter}");
        }
        assert_eq!(known, [1, 1, 3, 3, 5, 5], "every second one");
        let mut expected = store.replica(SHARD).expect("loaded").clone();
        assert!(engine.corrupt(Table::Arrivals, &arrival(0), damage), "older than the row");
        assert_eq!(open(&engine, true).replica(SHARD), Ok(&expected));
        assert!(engine.corrupt(Table::Arrivals, &arrival(5), damage));
        let mut again = open(&engine, true);
        (expected.own, expected.latest) = (None, Hlc(u64::MAX));
        assert_eq!(again.replica(SHARD), Ok(&expected), "derived, without the doubtful origin");
        assert_eq!(again.quarantined(), 1, "{damage:?}");
        again.commit(false).expect("room");
        assert_eq!(open(&engine, true).quarantined(), 0, "written anew");
    }
}

#[test]
fn an_unreadable_arrival_does_not_lock_a_shard() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=6 {
        stage(&mut store, &record(counter, "a")).expect("staged");
        store.commit(false).expect("room");
    }
    let mut expected = store.replica(SHARD).expect("loaded").clone();
    (expected.own, expected.latest) = (None, Hlc(u64::MAX));
    assert!(engine.corrupt(Table::Arrivals, &keys::arrival(SHARD, 5), Corruption::Unreadable));
    let mut again = open(&engine, true);
    assert_eq!(again.replica(SHARD), Ok(&expected));
    stage(&mut again, &record(7, "a")).expect("staged");
    again.commit(false).expect("room");
    let state = again.replica(SHARD).expect("loaded").clone();
    let mut last = open(&engine, true);
    assert_eq!(last.replica(SHARD), Ok(&state), "the clock row is past the damage");
    assert_eq!(last.quarantined(), 0);
}

#[test]
fn an_origin_whose_newest_arrival_is_gone_is_not_kept() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=4 {
        stage(&mut store, &record(counter, "a")).expect("staged");
        store.commit(false).expect("room");
    }
    let kept = |engine: &Arc<MemoryEngine>| {
        NodeStore::open(engine.clone(), config(true)).expect("readable").kept.len()
    };
    assert_eq!(kept(&engine), 1);
    assert!(engine.corrupt(Table::Arrivals, &keys::arrival(SHARD, 3), Corruption::Vanish));
    assert_eq!(kept(&engine), 0);
}
