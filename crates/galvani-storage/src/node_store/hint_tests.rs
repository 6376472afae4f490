//! Hints: held once, given in order, counted, and let go by the lane whose they are.
//!
//! Beside `tests.rs`, whose records and stores these use.

use super::tests::{ORIGIN, SHARD, config, open, record};
use super::{NodeStore, StoreConfig};
use crate::engine::{Corruption, FailKind, MemoryEngine, Table};
use crate::format::keys;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, NodeId, Origin, Partition, Shard};
use galvani_model::store::{HintFigures, Store};
use galvani_model::version::Dot;
use std::sync::Arc;

const TARGET: NodeId = NodeId(8);

fn held(store: &mut NodeStore<MemoryEngine>, after: Option<(Shard, Dot)>) -> Vec<u64> {
    let page = store.hints(TARGET, after, &[SHARD.partition], 1 << 20, 100).expect("readable");
    page.records.iter().map(|(_, record)| record.head.dot.counter).collect()
}

#[test]
fn hint_replay_dup_reorder_is_held_once_and_paged_in_order() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in [3, 1, 2, 3] {
        store.hold(TARGET, SHARD, &record(counter, "a")).expect("room");
    }
    store.hold(NodeId(9), SHARD, &record(1, "a")).expect("room");
    assert!(held(&mut store, None).is_empty(), "not before the commit");
    let (one, all) = store.hint_bytes(TARGET);
    assert!(one > 0 && all > one, "but its bytes count already");
    store.commit(false).expect("room");
    assert_eq!(held(&mut store, None), [1, 2, 3]);
    assert_eq!(held(&mut store, Some((SHARD, Dot::new(ORIGIN, 1)))), [2, 3]);
    assert_eq!(store.hint_figures()[&TARGET].count, 3);
    assert_eq!(store.hint_bytes(TARGET), (one, all));
    let small = store.hints(TARGET, None, &[SHARD.partition], 1, 100).expect("readable");
    assert_eq!(small.records.len(), 1, "one record starts within any credit");

    store.release(TARGET, SHARD, Dot::new(ORIGIN, 2)).expect("readable");
    store.release(TARGET, SHARD, Dot::new(ORIGIN, 77)).expect("an unknown one is none");
    store.commit(false).expect("room");
    let mut again = open(&engine, false);
    for store in [&mut store, &mut again] {
        assert_eq!(held(store, None), [1, 3]);
        assert_eq!(store.hint_figures()[&TARGET].count, 2);
    }
    assert_eq!(again.hint_bytes(TARGET).0, store.hint_bytes(TARGET).0, "counted from the disk");
}

#[test]
fn a_lane_is_given_its_own_hints_only() {
    let engine = Arc::new(MemoryEngine::new());
    let lane_of = |lane| {
        let config = StoreConfig { lane: LaneIndex(lane), lanes: 2, ..config(true) };
        NodeStore::open(engine.clone(), config).expect("opens").store
    };
    let mut lanes = [lane_of(0), lane_of(1)];
    let all: Vec<Partition> = (0..4).map(Partition).collect();
    for &partition in &all {
        let store = &mut lanes[usize::from(partition.0 % 2)];
        store.hold(TARGET, Shard { partition, ..SHARD }, &record(1, "a")).expect("room");
        store.commit(false).expect("room");
    }
    for (lane, store) in lanes.iter_mut().enumerate() {
        let page = store.hints(TARGET, None, &all, 1 << 20, 100).expect("readable");
        let given: Vec<u16> = page.records.iter().map(|(shard, _)| shard.partition.0).collect();
        assert_eq!(given, [lane as u16, lane as u16 + 2], "whatever partitions are asked for");
    }
}

#[test]
fn the_last_hint_of_an_origin_is_found_whoever_it_is_for_and_whatever_is_between() {
    let mut store = open(&Arc::new(MemoryEngine::new()), true);
    assert_eq!(store.hinted(SHARD, ORIGIN), Ok(0));
    let mut last = 0;
    for (number, counter) in
        [1, 2, 3, 40, 41, 10_000, 1 << 40, u64::MAX - 1].into_iter().enumerate()
    {
        // For one target and the other by turns, so that neither has them all.
        let target = NodeId(8 + number as u128 % 2);
        store.hold(target, SHARD, &record(counter, "a")).expect("room");
        assert_eq!(store.hinted(SHARD, ORIGIN), Ok(last), "not before the commit");
        store.commit(false).expect("room");
        last = counter;
        assert_eq!(store.hinted(SHARD, ORIGIN), Ok(last));
    }
    assert_eq!(store.hinted(SHARD, Origin(ORIGIN.0 + 1)), Ok(0));
    assert_eq!(store.hinted(Shard { n: SHARD.n + 1, ..SHARD }, ORIGIN), Ok(0));
    store.release(NodeId(9), SHARD, Dot::new(ORIGIN, u64::MAX - 1)).expect("room");
    store.commit(false).expect("room");
    assert_eq!(store.hinted(SHARD, ORIGIN), Ok(1 << 40));
}

#[test]
fn a_hint_of_a_failed_commit_does_not_count_and_a_damaged_one_is_taken_away() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    engine.fail_next_commits([FailKind::Full]);
    store.hold(TARGET, SHARD, &record(1, "a")).expect("staged");
    store.commit(false).expect_err("no room");
    assert_eq!((store.hint_bytes(TARGET), store.hint_figures().len()), ((0, 0), 0));
    store.try_disk_again();
    for counter in 1..=3 {
        store.hold(TARGET, SHARD, &record(counter, "a")).expect("room again");
    }
    store.commit(false).expect("room");
    let row = keys::hint(TARGET, SHARD, Dot::new(ORIGIN, 2));
    assert!(engine.corrupt(Table::Hints, &row, Corruption::FlipBit(77)));
    assert_eq!(held(&mut store, None), [1, 3], "a damaged hint is never given out");
    assert_eq!(store.quarantined(), 1);
    store.commit(false).expect("room");
    assert_eq!(store.hint_figures()[&TARGET].count, 2);
}

#[test]
fn hints_behind_what_cannot_be_read_are_given_and_what_is_lost_is_not_counted() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    let others = Shard { partition: Partition(SHARD.partition.0 + 2), ..SHARD };
    for counter in 1..=9 {
        store.hold(TARGET, SHARD, &record(counter, "a")).expect("room");
    }
    store.hold(TARGET, others, &record(1, "a")).expect("room");
    store.commit(false).expect("room");
    for counter in [1, 4, 5, 9] {
        let row = keys::hint(TARGET, SHARD, Dot::new(ORIGIN, counter));
        assert!(engine.corrupt(Table::Hints, &row, Corruption::Unreadable));
    }
    let mut again = open(&engine, true);
    for store in [&mut store, &mut again] {
        for _ in 0..3 {
            assert_eq!(held(store, None), [2, 3, 6, 7, 8]);
            assert_eq!(held(store, Some((SHARD, Dot::new(ORIGIN, 4)))), [6, 7, 8]);
        }
        let all = [SHARD.partition, others.partition];
        let page = store.hints(TARGET, None, &all, 1 << 20, 100).expect("readable");
        assert_eq!(page.records.len(), 6, "nor is the next partition held up");
        assert_eq!(store.hint_figures()[&TARGET].count, 6);
        assert_eq!(store.quarantined(), 3, "each gap is reported once");
    }
    for counter in [2, 3, 6, 7, 8] {
        store.release(TARGET, SHARD, Dot::new(ORIGIN, counter)).expect("readable");
    }
    store.release(TARGET, others, Dot::new(ORIGIN, 1)).expect("readable");
    store.commit(false).expect("room");
    assert!(store.hint_figures().is_empty(), "nobody waits for what nobody can read");
}

#[test]
fn a_file_full_of_damage_is_soon_behind() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    for counter in 1..=3_000 {
        store.hold(TARGET, SHARD, &record(counter, "a")).expect("room");
    }
    store.hold(TARGET, Shard { n: 5, ..SHARD }, &record(1, "a")).expect("room");
    store.commit(false).expect("room");
    for counter in (1..=3_000).step_by(2) {
        let row = keys::hint(TARGET, SHARD, Dot::new(ORIGIN, counter));
        assert!(engine.corrupt(Table::Hints, &row, Corruption::Unreadable));
    }
    let page = store.hints(TARGET, None, &[SHARD.partition], 1 << 20, 100).expect("readable");
    assert_eq!(page.records.last().map(|(shard, _)| shard.n), Some(5), "the next shard is met");
    assert!(store.quarantined() < 100, "{}", store.quarantined());
}

#[test]
fn a_hint_that_goes_and_comes_again_in_one_tick_is_counted_once() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    store.hold(TARGET, SHARD, &record(1, "a")).expect("room");
    store.commit(false).expect("room");
    let before = store.hint_figures()[&TARGET];
    store.release(TARGET, SHARD, Dot::new(ORIGIN, 1)).expect("readable");
    store.hold(TARGET, SHARD, &record(1, "a")).expect("room");
    store.commit(false).expect("room");
    assert_eq!(held(&mut store, None), [1]);
    assert_eq!(store.hint_figures()[&TARGET], before);
    // One that is damaged is written anew, and is still one.
    let row = keys::hint(TARGET, SHARD, Dot::new(ORIGIN, 1));
    assert!(engine.corrupt(Table::Hints, &row, Corruption::FlipBit(77)));
    store.hold(TARGET, SHARD, &record(1, "a")).expect("room");
    store.commit(false).expect("room");
    assert_eq!(held(&mut store, None), [1]);
    assert_eq!(store.hint_figures()[&TARGET], before);
    store.release(TARGET, SHARD, Dot::new(ORIGIN, 1)).expect("readable");
    store.commit(false).expect("room");
    assert!(store.hint_figures().is_empty());
}

#[test]
fn the_oldest_is_told_also_after_some_went_and_after_a_restart() {
    let engine = Arc::new(MemoryEngine::new());
    let mut store = open(&engine, true);
    let (step, at) = (HintFigures::SINCE_STEP_MS, |span: u64| {
        Hlc::from_unix_ms(span * HintFigures::SINCE_STEP_MS + 7)
    });
    for (counter, span) in [(1, 40), (2, 10), (3, 20), (4, 10)] {
        let mut record = record(counter, "a");
        record.head.hlc = at(span);
        store.hold(TARGET, SHARD, &record).expect("room");
    }
    store.commit(false).expect("room");
    let since = |store: &NodeStore<MemoryEngine>| store.hint_figures()[&TARGET].since_ms;
    assert_eq!(since(&store), 10 * step);
    for (counter, oldest) in [(2, 10), (4, 20), (3, 40)] {
        store.release(TARGET, SHARD, Dot::new(ORIGIN, counter)).expect("readable");
        store.commit(false).expect("room");
        assert_eq!(since(&store), oldest * step, "after {counter} went");
        assert_eq!(since(&open(&engine, false)), oldest * step, "and a restart");
    }
}
