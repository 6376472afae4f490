//! One process has a directory, and only the directory of its cluster.

mod common;

use common::{LAG_MS, at, config, key, page, write};
use galvani_lagged::{AsOf, Lagged, LaggedConfig, OpenError};
use galvani_model::ids::ClusterId;
use std::fs;

#[test]
fn what_came_is_there_after_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("lagged");
    let (old, new) = (write("k", (1, 1), &[], 0), write("k", (2, 1), &[], 5));
    let mut replica = Lagged::open(&path, config()).expect("made");
    replica.heard(1, 0, at(0)).expect("room");
    replica.arrive(page(std::slice::from_ref(&old)), at(10)).expect("room");
    while replica.step(at(10 + LAG_MS)).expect("room").due_in_ms == Some(0) {}
    replica.arrive(page(std::slice::from_ref(&new)), at(20)).expect("room");
    replica.set_lag(2 * LAG_MS, at(30)).expect("in range");
    let before = replica.positions();
    replica.heard(7, 0, at(30)).expect("room");
    replica.rest(at(30)).expect("room");
    drop(replica);

    let mut replica = Lagged::open(&path, config()).expect("opens");
    assert_eq!(replica.positions(), before);
    let status = replica.status(at(30)).expect("readable");
    assert_eq!(status.complete_through_ms, Some(7));
    assert_eq!((status.applied, status.journal_records, status.lag_target_ms), (1, 1, 2 * LAG_MS));
    assert!(status.disk_free_bytes > 0 && status.disk_free_bytes < u64::MAX);
    let moment = replica.moment(AsOf::Latest, 0).expect("always");
    let found = replica.read_at(&key("k"), &moment, None).expect("readable").expect("there");
    let mut values = Vec::new();
    for version in found.values(0).cloned().collect::<Vec<_>>() {
        values.push(replica.value(found.shard, &version).expect("kept"));
    }
    assert_eq!(values, [old.value, new.value]);
}

#[test]
fn a_second_holder_is_refused_and_told_who_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let held = Lagged::open(dir.path(), config()).expect("made");
    match Lagged::open(dir.path(), config()).map(drop) {
        Err(OpenError::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(held);
    Lagged::open(dir.path(), config()).expect("free again");
}

#[test]
fn the_directory_of_another_cluster_or_shape_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(Lagged::open(dir.path(), config()).expect("made"));
    let other = LaggedConfig { cluster: ClusterId(2), ..config() };
    let refused = Lagged::open(dir.path(), other).map(drop);
    assert!(matches!(refused, Err(OpenError::Cluster { found: ClusterId(1), .. })));
    let other = LaggedConfig { partitions: 8, ..config() };
    let refused = Lagged::open(dir.path(), other).map(drop);
    assert!(matches!(refused, Err(OpenError::Partitions { found: 4, expected: 8, .. })));
    drop(Lagged::open(dir.path(), config()).expect("as it was"));
}

#[test]
fn a_newer_or_damaged_marker_and_foreign_files_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(Lagged::open(dir.path(), config()).expect("made"));
    let marker = dir.path().join("lagged.json");
    let text = fs::read_to_string(&marker).expect("text");
    let as_format = |format: &str| {
        let line = text.lines().next().expect("one").replace("\"format\":2", format);
        let sum = xxhash_rust::xxh3::xxh3_64(line.as_bytes());
        fs::write(&marker, format!("{line}\n{sum:016x}\n")).expect("written");
    };
    as_format("\"format\":1");
    drop(Lagged::open(dir.path(), config()).expect("it becomes one of this format"));
    assert_eq!(fs::read_to_string(&marker).expect("text"), text);
    as_format("\"format\":9");
    let refused = Lagged::open(dir.path(), config()).map(drop);
    assert!(matches!(refused, Err(OpenError::Format { found: 9, .. })));
    for damaged in ["", "{}", &text.replace("partitions", "Partitions"), &text[..text.len() / 2]] {
        fs::write(&marker, damaged).expect("written");
        let refused = Lagged::open(dir.path(), config()).map(drop);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{damaged:?}");
    }
    fs::remove_file(&marker).expect("there");
    let refused = Lagged::open(dir.path(), config()).map(drop);
    assert!(matches!(refused, Err(OpenError::Foreign { .. })), "engines of nobody");
    fs::write(&marker, text).expect("written");
    drop(Lagged::open(dir.path(), config()).expect("as it was"));
}

#[test]
fn a_start_that_was_cut_short_before_the_marker_is_made_again() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("lock"), "7\n").expect("written");
    fs::write(dir.path().join("lagged.json.new"), "{\"fo").expect("written");
    let mut replica = Lagged::open(dir.path(), config()).expect("made");
    replica.arrive(page(&[write("k", (1, 1), &[], 0)]), at(0)).expect("room");
    drop(replica);
    let replica = Lagged::open(dir.path(), config()).expect("opens");
    assert_eq!(replica.positions().len(), 1);
}
