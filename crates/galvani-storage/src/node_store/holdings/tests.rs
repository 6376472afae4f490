//! Shards that go page by page and leave nothing, and facts that live and die with their tick.
//!
//! Over the memory engine, as all tests of the store are.

use super::super::tests::{ORIGIN, SHARD, key, open, record, stage};
use crate::engine::{Engine, FailKind, MemoryEngine, Table};
use bytes::Bytes;
use core::ops::ControlFlow;
use galvani_model::store::{Holdings, Store};
use galvani_model::version::Dot;
use std::sync::Arc;

fn rows(engine: &MemoryEngine) -> usize {
    let mut rows = 0;
    for table in Table::ALL {
        let mut count = |_: &[u8], _: &[u8]| {
            rows += 1;
            ControlFlow::Continue(())
        };
        engine.scan(table, &[0], None, usize::MAX, &mut count).expect("readable");
    }
    rows
}

#[test]
fn a_shard_goes_page_by_page_and_leaves_nothing() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=20 {
        stage(&mut store, &record(counter, &format!("k{counter}"))).expect("staged");
        store.commit(false).expect("room");
    }
    assert_eq!(store.held_shards().expect("readable"), [SHARD]);
    let mut pages = 0;
    while !store.empty(SHARD, 7).expect("readable") {
        store.commit(false).expect("room");
        pages += 1;
        assert_eq!(store.held_shards().expect("readable"), [SHARD], "a start would find it");
    }
    // Whoever looks before the commit sees what the disk has of it; nobody does afterwards.
    assert!(!store.replica(SHARD).expect("readable").clock.is_empty());
    store.commit(false).expect("room");
    assert!(pages > 5, "{pages}");
    assert!(store.replica(SHARD).expect("readable").clock.is_empty());
    assert!(store.object(SHARD, &key("k3")).expect("readable").is_absent());
    assert_eq!(store.record(SHARD, Dot::new(ORIGIN, 3)).expect("readable"), None);
    assert!(store.held_shards().expect("readable").is_empty());
    assert_eq!(rows(&engine), 0);
    assert!(open(&engine, true).held_shards().expect("readable").is_empty());
}

#[test]
fn what_is_taken_in_after_it_went_is_all_there_is() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=3 {
        stage(&mut store, &record(counter, "a")).expect("staged");
        store.commit(false).expect("room");
    }
    assert!(store.empty(SHARD, 1_000).expect("readable"));
    // Whatever touches the state in the same tick does not bring it back.
    store.forget_origin(SHARD).expect("readable");
    store.commit(true).expect("room");
    stage(&mut store, &record(1, "b")).expect("staged");
    store.commit(false).expect("room");
    let mut again = open(&engine, true);
    let state = again.replica(SHARD).expect("readable");
    assert_eq!((state.arrivals, state.clock.contains(Dot::new(ORIGIN, 2))), (1, false));
}

#[test]
fn a_shard_stays_where_the_commit_fails() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    assert!(store.empty(SHARD, 1_000).expect("readable"));
    engine.fail_next_commits([FailKind::IoLost]);
    store.commit(false).expect_err("ordered to fail");
    assert!(store.replica(SHARD).expect("readable").clock.contains(Dot::new(ORIGIN, 1)));
    assert_eq!(store.record(SHARD, Dot::new(ORIGIN, 1)).expect("there"), Some(record(1, "a")));
}

#[test]
fn on_a_full_disk_facts_are_kept_and_shards_go_and_writes_stay_refused() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    stage(&mut store, &record(1, "a")).expect("staged");
    store.commit(false).expect("room");
    engine.set_full(true);
    stage(&mut store, &record(2, "b")).expect("nobody knows yet");
    store.commit(false).expect_err("it is full");
    store.set_fact(b"vote", Some(Bytes::from_static(b"1"))).expect("it has the reserve");
    store.commit(true).expect("so has its commit");
    assert!(store.fact(b"vote").expect("readable").is_some());
    assert!(store.empty(SHARD, 1_000).expect("readable"));
    store.commit(true).expect("rows may always go");
    assert_eq!(store.held_shards().expect("readable"), []);
    stage(&mut store, &record(2, "b")).expect_err("the next tick would be lost with it");
}

#[test]
fn facts_are_seen_at_once_and_kept_by_the_commit() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    let value = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
    assert_eq!(store.fact(b"a").expect("readable"), None);
    store.set_fact(b"a", value("one")).expect("room");
    assert_eq!(store.fact(b"a").expect("readable"), value("one"));
    assert_eq!(open(&engine, true).fact(b"a").expect("readable"), None, "not committed yet");
    store.commit(true).expect("room");
    assert_eq!(open(&engine, true).fact(b"a").expect("readable"), value("one"));
    store.set_fact(b"a", None).expect("room");
    engine.fail_next_commits([FailKind::IoLost]);
    store.commit(true).expect_err("ordered to fail");
    assert_eq!(store.fact(b"a").expect("readable"), value("one"), "nothing of the tick is kept");
    store.set_fact(b"a", None).expect("room");
    store.commit(true).expect("room");
    assert_eq!(store.fact(b"a").expect("readable"), None);
}
