//! Hints in damaged files of the real engine: all but those in damaged blocks are given, and only those
//! are counted.
//!
//! Its scans end a few rows before what they cannot read, and at once where it is the first block of a file;
//! `hint_tests.rs` has the engine in memory, which ends row by row.

use super::NodeStore;
use super::tests::{ORIGIN, SHARD, config, record};
use crate::engine::{EngineConfig, FjallEngine, PowerHistory};
use bytes::Bytes;
use galvani_model::ids::{NodeId, Origin};
use galvani_model::store::{Store, StoreError};
use galvani_model::version::{Dot, Kind, Record, value_hash};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TARGETS: [NodeId; 3] = [NodeId(7), NodeId(8), NodeId(9)];
const EACH: u64 = 10_000;
/// Hints in a block, with room to spare.
const IN_BLOCK_MAX: usize = 30;

/// One that is large, but not so large that its value has a file of its own.
fn large(counter: u64) -> Record {
    let mut record = record(counter, "a");
    record.value = Bytes::from(vec![counter as u8; 300]);
    record.head.value_len = 300;
    record.head.value_hash = value_hash(Kind::Put, &record.value);
    record
}

fn open(dir: &Path) -> NodeStore<FjallEngine> {
    let config_of_engine =
        EngineConfig { memtable_bytes: 0, reserve_bytes: 0, ..Default::default() };
    let opened = FjallEngine::open(dir, config_of_engine, PowerHistory::SameBoot).expect("opens");
    NodeStore::open(Arc::new(opened.0), config(true)).expect("opens").store
}

/// All that is given for a target, page by page.
fn given(store: &mut NodeStore<FjallEngine>, target: NodeId) -> BTreeSet<u64> {
    let (mut all, mut after) = (BTreeSet::new(), None);
    loop {
        let page = store.hints(target, after, &[SHARD.partition], 1 << 16, 100).expect("readable");
        if page.last.is_none() {
            return all;
        }
        for (_, record) in &page.records {
            assert!(record.is_intact(), "{}", record.head.dot);
            assert!(all.insert(record.head.dot.counter), "{} is given once", record.head.dot);
        }
        after = page.last;
    }
}

/// The tables that hold hints: the engine has numbered them after its own, in the order of `Table::ALL`.
fn tables(dir: &Path) -> Vec<PathBuf> {
    let dir = dir.join("keyspaces/7/tables");
    let files = std::fs::read_dir(dir).expect("reads").map(|file| file.expect("reads").path());
    files.filter(|file| file.metadata().expect("facts").len() > 100_000).collect()
}

#[test]
fn damaged_blocks_of_hints_hide_nothing_beside_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut store = open(dir.path());
    for chunk in 0..EACH / 100 {
        for counter in chunk * 100 + 1..=(chunk + 1) * 100 {
            for target in TARGETS {
                store.hold(target, SHARD, &large(counter)).expect("room");
            }
        }
        store.commit(false).expect("room");
    }
    drop(store);
    let files = tables(dir.path());
    assert!(!files.is_empty(), "hints were flushed");
    let mut flipped = 0;
    for file in &files {
        let mut bytes = std::fs::read(file).expect("reads");
        // The first block, and one in the middle.
        for at in [100, bytes.len() / 2] {
            bytes[at] ^= 0x10;
            flipped += 1;
        }
        std::fs::write(file, bytes).expect("writes");
    }
    let mut store = open(dir.path());
    for round in 0..2 {
        let mut lost = BTreeSet::new();
        for target in TARGETS {
            let given = given(&mut store, target);
            let counted = store.hint_figures().get(&target).map_or(0, |figures| figures.count);
            assert_eq!(counted, given.len() as u64, "round {round}: {target}");
            lost.extend((1..=EACH).filter(|it| !given.contains(it)).map(|it| (target, it)));
        }
        assert!(!lost.is_empty() && lost.len() <= flipped * IN_BLOCK_MAX, "{}", lost.len());
        assert!((1..=flipped as u64).contains(&store.quarantined()), "{}", store.quarantined());
        // What is hidden would be counted and never given.
        for &(target, counter) in &lost {
            let refused = store.hold(target, SHARD, &large(counter));
            assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{counter}: {refused:?}");
        }
        // Not committed: the engine may have come to the damage by itself, and be shut.
        let mut new = large(1);
        new.head.dot = Dot::new(Origin(ORIGIN.0 + 1), 1);
        store.hold(TARGETS[2], SHARD, &new).expect("it lies behind all of them");
    }
}
