//! What a store remembers is what it committed, and never hides the disk from those who check it.
//!
//! Next to read: `memory.rs`, which has the property test of request rows.

use super::tests::{ORIGIN, SHARD, key, open, record, stage};
use crate::engine::{Corruption, FailKind, MemoryEngine, Table};
use crate::format::keys;
use galvani_model::hlc::Hlc;
use galvani_model::store::Store;
use galvani_model::version::Dot;
use std::sync::Arc;

#[test]
fn what_is_remembered_is_what_was_committed() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    engine.corrupt(Table::Objects, &keys::object(SHARD, &key("a")), Corruption::FlipBit(30));
    let committed = store.object(SHARD, &key("a")).expect("not read again");
    for fails in [FailKind::Full, FailKind::IoLost] {
        stage(&mut store, &record(2, "a")).expect("staged");
        assert_ne!(store.object(SHARD, &key("a")), Ok(committed.clone()), "staged");
        let write = record(2, "a").head.write_id();
        assert!(store.request(SHARD, write, Some(Hlc(2))).expect("staged").is_some());
        engine.fail_next_commits([fails]);
        store.commit(false).expect_err("it was told to fail");
        assert_eq!(store.request(SHARD, write, Some(Hlc(2))), Ok(None), "{fails:?}");
        match fails {
            FailKind::Full => assert_eq!(store.object(SHARD, &key("a")), Ok(committed.clone())),
            // In doubt: whatever was remembered is read anew.
            _ => drop(store.object(SHARD, &key("a")).expect_err("the damaged row")),
        }
        store.try_disk_again();
    }
}

#[test]
fn whoever_checks_the_disk_reads_the_disk() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    let dot = Dot::new(ORIGIN, 1);
    assert!(store.record(SHARD, dot).is_ok() && store.object(SHARD, &key("a")).is_ok());
    engine.corrupt(Table::Objects, &keys::object(SHARD, &key("a")), Corruption::FlipBit(30));
    engine.corrupt(Table::Log, &keys::log(SHARD, dot), Corruption::FlipBit(30));
    assert!(store.record(SHARD, dot).is_ok() && store.object(SHARD, &key("a")).is_ok());
    assert_eq!(store.quarantined(), 0);
    store.record_on_disk(SHARD, dot).expect_err("damaged");
    store.object_on_disk(SHARD, &key("a")).expect_err("damaged");
    assert_eq!((store.quarantined(), store.damaged().len()), (2, 2));
    // What the tick has staged is not missing there.
    stage(&mut store, &record(2, "b")).expect("staged");
    assert_eq!(store.record_on_disk(SHARD, Dot::new(ORIGIN, 2)), Ok(Some(record(2, "b"))));
    assert_eq!(store.object_on_disk(SHARD, &key("b")).map(|it| it.versions().len()), Ok(1));
    assert_eq!(store.quarantined(), 2);
}

#[test]
fn what_a_tick_sweeps_and_writes_again_is_remembered_as_written() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    assert_eq!(store.sweep_requests(2, 10), Ok(1));
    let mut again = record(1, "a");
    again.head.dot.counter = 2;
    let write = again.head.write_id();
    stage(&mut store, &again).expect("staged");
    store.commit(false).expect("room");
    for issued in [None, Some(Hlc(1))] {
        assert!(store.request(SHARD, write, issued).expect("readable").is_some(), "{issued:?}");
    }
    // And the other way round.
    stage(&mut store, &record(3, "b")).expect("staged");
    store.commit(false).expect("room");
    assert_eq!(store.sweep_requests(9, 10), Ok(2));
    store.commit(false).expect("room");
    assert_eq!(store.request(SHARD, write, Some(Hlc(1))), Ok(None));
}
