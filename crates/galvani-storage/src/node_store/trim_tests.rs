//! What is trimmed stays known: across ticks, failed commits, starts, and a damaged clock row.

use super::tests::{ORIGIN, SHARD, key, open, record, stage};
use crate::engine::{Corruption, Engine, FailKind, MemoryEngine, Table};
use crate::format::keys;
use crate::node_store::NodeStore;
use galvani_model::hlc::Hlc;
use galvani_model::store::{Damage, RequestEntry, Rewrite, Store, StoreError};
use galvani_model::version::{Dot, PartitionClock, Range};
use std::ops::ControlFlow;
use std::sync::Arc;

fn dot(counter: u64) -> Dot {
    Dot::new(ORIGIN, counter)
}

/// Six records of one key each, of which 1, 3 and 4 are trimmed.
fn trimmed() -> (Arc<MemoryEngine>, NodeStore<MemoryEngine>) {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=6 {
        stage(&mut store, &record(counter, &format!("k{counter}"))).expect("staged");
    }
    store.commit(true).expect("room");
    store.trim(SHARD, &[dot(1), dot(3), dot(4)], Hlc(7)).expect("staged");
    (engine, store)
}

fn logged(store: &mut NodeStore<MemoryEngine>) -> Vec<u64> {
    let dots = store.logged(SHARD, dot(1), 100).expect("readable");
    dots.into_iter().map(|dot| dot.counter).collect()
}

fn rows(engine: &MemoryEngine, table: Table) -> usize {
    let mut rows = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        rows += 1;
        ControlFlow::Continue(())
    };
    engine.scan(table, &[0], None, usize::MAX, &mut count).expect("readable");
    rows
}

#[test]
fn what_is_trimmed_is_neither_there_nor_lost() {
    let (engine, mut store) = trimmed();
    for committed in [false, true] {
        assert_eq!(logged(&mut store), [2, 5, 6], "committed: {committed}");
        assert_eq!(store.record(SHARD, dot(3)), Ok(None));
        assert_eq!(store.record_on_disk(SHARD, dot(1)), Ok(None));
        assert_eq!(store.record(SHARD, dot(2)), Ok(Some(record(2, "k2"))));
        let heads = store.log_page(SHARD, dot(1), 100).expect("readable").heads;
        assert_eq!(heads.iter().map(|head| head.dot.counter).collect::<Vec<_>>(), [2, 5, 6]);
        let state = store.replica(SHARD).expect("readable");
        assert!((1..=6).all(|counter| state.clock.contains(dot(counter))));
        assert!((1..=4).all(|counter| state.is_trimmed(dot(counter))));
        assert!(!state.is_trimmed(dot(5)));
        store.commit(false).expect("room");
    }
    let state = store.replica(SHARD).expect("readable").clone();
    let mut again = open(&engine, true);
    assert_eq!(again.replica(SHARD), Ok(&state));
    assert_eq!((logged(&mut again), again.quarantined()), (vec![2, 5, 6], 0));
    assert_eq!(rows(&engine, Table::Log), 3);
}

#[test]
fn a_record_that_is_gone_beyond_what_was_trimmed_is_damage() {
    let (engine, mut store) = trimmed();
    store.commit(true).expect("room");
    for counter in [2, 5] {
        assert!(engine.corrupt(Table::Log, &keys::log(SHARD, dot(counter)), Corruption::Vanish));
    }
    let mut again = open(&engine, true);
    assert_eq!(again.record(SHARD, dot(2)), Ok(None), "it alone says nothing of it");
    assert!(matches!(again.record(SHARD, dot(5)), Err(StoreError::Corrupt { .. })));
    assert!(matches!(again.lost(SHARD, dot(2)), StoreError::Corrupt { .. }));
    let damaged: Vec<Damage> = again.damaged().iter().cloned().collect();
    assert_eq!(damaged, [Damage::Record(SHARD, dot(2)), Damage::Record(SHARD, dot(5))]);
    again.rewrite(SHARD, Rewrite::Record(Box::new(record(2, "k2")))).expect("staged");
    again.trim(SHARD, &[dot(5)], Hlc(7)).expect("staged");
    again.commit(false).expect("room");
    assert!(again.damaged().is_empty());
    assert_eq!(again.record(SHARD, dot(2)), Ok(Some(record(2, "k2"))));
    assert_eq!(again.record(SHARD, dot(5)), Ok(None));
}

#[test]
fn a_commit_that_fails_trims_nothing() {
    let (engine, mut store) = trimmed();
    engine.fail_next_commits([FailKind::IoLost]);
    store.commit(false).expect_err("ordered to fail");
    assert_eq!(logged(&mut store), [1, 2, 3, 4, 5, 6]);
    assert!(!store.replica(SHARD).expect("readable").is_trimmed(dot(1)));
    assert_eq!(store.record(SHARD, dot(3)), Ok(Some(record(3, "k3"))));
}

#[test]
fn a_damaged_clock_row_forgets_nothing_that_was_trimmed() {
    let (engine, mut store) = trimmed();
    store.commit(true).expect("room");
    let clock = store.replica(SHARD).expect("readable").clock.clone();
    assert!(engine.corrupt(Table::Clocks, &keys::shard(SHARD), Corruption::Vanish));
    let mut again = open(&engine, false);
    let state = again.replica(SHARD).expect("worked out");
    assert_eq!(state.clock, clock);
    assert!(state.is_trimmed(dot(3)));
    assert_eq!((state.trimmed_until, state.unknown_until), (Hlc(7), Hlc(0)));
}

#[test]
fn trimmed_dots_of_another_owner_are_taken_in_without_records() {
    let (engine, mut store) = trimmed();
    let range = Range { origin: ORIGIN, first: 4, last: 9 };
    let theirs = PartitionClock::from_iter([range]);
    store.adopt_trimmed(SHARD, &theirs, Hlc(9)).expect("staged");
    store.commit(true).expect("room");
    let mut again = open(&engine, true);
    let state = again.replica(SHARD).expect("readable").clone();
    assert_eq!(state.clock.max_counter(ORIGIN), 9);
    assert!(state.is_trimmed(dot(7)) && !state.is_trimmed(dot(5)), "5 is here");
    assert_eq!((state.trimmed_until, state.unknown_until), (Hlc(9), Hlc(9)));
    assert_eq!(logged(&mut again), [2, 5, 6]);
}

#[test]
fn arrivals_of_trimmed_records_go_where_the_state_does_not_need_them() {
    let (engine, mut store) = trimmed();
    store.commit(true).expect("room");
    assert_eq!(rows(&engine, Table::Arrivals), 6);
    let next = store.trim_arrivals(SHARD, 0, 2).expect("staged");
    assert_eq!(next, Some(2));
    assert_eq!(store.trim_arrivals(SHARD, 2, 100), Ok(None));
    let state = store.replica(SHARD).expect("readable").clone();
    store.commit(true).expect("room");
    assert_eq!(rows(&engine, Table::Arrivals), 3);
    // One more, which the clock row does not know of yet.
    stage(&mut store, &record(7, "k7")).expect("staged");
    store.commit(true).expect("room");
    let mut again = open(&engine, true);
    assert_eq!(again.replica(SHARD).expect("readable").arrivals, state.arrivals + 1);
    assert!(!again.object(SHARD, &key("k7")).expect("readable").is_absent());
}

#[test]
fn a_request_row_of_several_dots_stays_as_long_as_the_log_has_one_of_them() {
    let (_, mut store) = trimmed();
    let write = record(2, "k2").head.write_id();
    let entry = RequestEntry { dots: [dot(2), dot(5)].into_iter().collect(), at_ms: 1 };
    store.rewrite(SHARD, Rewrite::Request(write, Some(entry.clone()))).expect("staged");
    store.commit(false).expect("room");
    let state = store.replica(SHARD).expect("readable");
    assert_eq!(state.unknown_until, Hlc(7), "another row may have named what was trimmed");
    assert_eq!(store.sweep_requests(10, 100), Ok(5), "all others");
    store.trim(SHARD, &[dot(2)], Hlc(7)).expect("staged");
    store.commit(false).expect("room");
    assert_eq!(store.sweep_requests(10, 100), Ok(0));
    assert_eq!(store.request(SHARD, write, None), Ok(Some(entry)));
    store.trim(SHARD, &[dot(5)], Hlc(7)).expect("staged");
    store.commit(false).expect("room");
    assert_eq!(store.sweep_requests(10, 100), Ok(1));
}
