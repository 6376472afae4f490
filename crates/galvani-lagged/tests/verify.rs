//! What a comparison found is kept, what is wrong or near a bound is said, and damaged files are found.

mod common;

use common::{KEEP_MS, LAG_MS, START_MS, at, config, page, record};
use galvani_lagged::{Lagged, Status, Verified};
use galvani_storage::engine::{EngineConfig, FjallEngine, PowerHistory};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[test]
fn what_the_last_comparison_found_is_there_after_the_next_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut replica = Lagged::open(dir.path(), config()).expect("made");
    assert_eq!(replica.status(at(0)).expect("readable").verified_at_ms, None);
    let found = Verified { ended_ms: START_MS + 5, keys: 9, lost: 1, ..Verified::default() };
    let replaced = Verified { ended_ms: START_MS + 4, ..Verified::default() };
    replica.note_verified(replaced, at(4)).expect("room");
    replica.note_verified(found.clone(), at(5)).expect("room");
    drop(replica);
    let mut replica = Lagged::open(dir.path(), config()).expect("opens");
    let status = replica.status(at(6)).expect("readable");
    assert_eq!(
        (status.verified_at_ms, status.verified),
        (Some(START_MS + 5), Some(Box::new(found)))
    );
}

#[test]
fn names_are_bounded() {
    let mut found = Verified::default();
    (0..100).for_each(|number| found.name(|| number.to_string()));
    assert!(found.named.len() < 100 && found.named[0] == "0");
    assert!(found.is_well(), "a name is no finding");
    assert!(!Verified { damaged_files: vec!["x".into()], ..Verified::default() }.is_well());
}

#[test]
fn each_bound_that_is_near_has_a_line_of_its_own() {
    let now_ms = START_MS + 3 * 24 * 3_600_000;
    let well = Status {
        lag_target_ms: LAG_MS,
        lag_actual_ms: Some(LAG_MS + 60_000),
        protected_since_ms: Some(START_MS),
        complete_through_ms: Some(now_ms - 60_000),
        disk_seconds_left: Some(24 * 3600),
        feed_keep_ms: KEEP_MS,
        seconds_to_truncation: Some(KEEP_MS / 4_000),
        verified_at_ms: Some(now_ms - 2 * 24 * 3_600_000),
        verified: Some(Box::default()),
        ..Status::default()
    };
    assert_eq!(well.warnings(now_ms), [""; 0]);
    let wrong = |what: fn(&mut Status)| {
        let mut status = well.clone();
        what(&mut status);
        let lines = status.warnings(now_ms);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    };
    let late = |ms: u64| Some(ms - 60_001);
    assert!(
        Status { complete_through_ms: late(now_ms), ..well.clone() }.warnings(now_ms).len() == 1
    );
    assert!(wrong(|it| it.lag_actual_ms = Some(LAG_MS + 60_001)).contains("waits to be applied"));
    assert!(wrong(|it| it.disk_seconds_left = Some(86_399)).contains("full in 23 h"));
    assert!(wrong(|it| it.seconds_to_truncation = Some(249)).contains("may drop"));
    assert!(wrong(|it| it.verified_at_ms = Some(START_MS)).contains("two days"));
    assert!(wrong(|it| it.verified_at_ms = None).contains("two days"));
    let found = |found: Verified| {
        let lines = Status { verified: Some(Box::new(found)), ..well.clone() }.warnings(now_ms);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    };
    assert!(found(Verified { lost: 2, ..Verified::default() }).ends_with("does not show: 2"));
    assert!(found(Verified { missing: 3, ..Verified::default() }).contains("did not come here"));
    assert!(found(Verified { damaged: 1, ..Verified::default() }).contains("cannot be read"));
    // A pause is no delay.
    let paused = Status { paused_since_ms: Some(1), lag_actual_ms: Some(u64::MAX), ..well.clone() };
    assert_eq!(paused.warnings(now_ms), [""; 0]);
}

const VALUE_BYTES: usize = 256 << 10;
/// Values until both engines have written files of their tables: many times what that takes.
const VALUES_MAX: u64 = 2_000;

#[test]
fn a_byte_that_flips_in_a_file_of_journal_or_base_is_found_and_the_file_named() {
    for (damaged, other) in [("base", "journal"), ("journal", "base")] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut replica = open(dir.path());
        replica.heard(1, 0, at(0)).expect("room");
        let mut n = 0;
        while ["journal", "base"].iter().any(|it| values_in(&dir.path().join(it)).is_empty()) {
            n += 1;
            assert!(n <= VALUES_MAX, "no file was written");
            let value = Some(format!("{n:04}").repeat(VALUE_BYTES / 4));
            let record = record(&format!("k{n}"), (1, n), &[], 1_000 * n, value);
            replica.arrive(page(&[record]), at(1_000 * n)).expect("room");
            while replica.step(at(1_000 * n)).expect("room").due_in_ms == Some(0) {}
        }
        assert_eq!(replica.files().damaged(&|| true).expect("readable"), [""; 0]);
        drop(replica);
        let flipped = flip(&dir.path().join(damaged));
        let replica = open(dir.path());
        let found = replica.files().damaged(&|| true).expect("readable");
        assert!(!found.is_empty(), "one of {flipped:?}");
        for file in found {
            assert!(flipped.iter().any(|path| *path == Path::new(&file)), "{file}: {flipped:?}");
            assert!(!file.contains(&format!("/{other}/")), "{file}");
        }
    }
}

fn open(dir: &Path) -> Lagged<FjallEngine> {
    let engine = |name: &str| {
        let config = EngineConfig { memtable_bytes: 0, ..EngineConfig::default() };
        let opened = FjallEngine::open(&dir.join(name), config, PowerHistory::SameBoot);
        Arc::new(opened.expect("opens").0)
    };
    Lagged::over(engine("journal"), engine("base"), config()).expect("opens")
}

/// Flips a byte in the middle of every file with values; those files.
fn flip(dir: &Path) -> Vec<PathBuf> {
    let all = values_in(dir);
    for path in &all {
        let mut bytes = fs::read(path).expect("reads");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x5a;
        fs::write(path, bytes).expect("writes");
    }
    all
}

fn values_in(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(dir, &mut found);
    found
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("there") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.parent().is_some_and(|it| it.ends_with("blobs"))
            && path.metadata().is_ok_and(|facts| facts.len() > 0)
        {
            found.push(path);
        }
    }
}

#[test]
fn how_long_the_disk_lasts_is_known_after_a_minute_in_which_something_came() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut replica = open(dir.path());
    replica.step(at(0)).expect("room");
    assert_eq!(replica.status(at(0)).expect("readable").disk_seconds_left, None);
    for n in 1..=20 {
        let value = Some(format!("{n:04}").repeat(VALUE_BYTES / 4));
        let record = record(&format!("k{n}"), (1, n), &[], n, value);
        replica.arrive(page(&[record]), at(n)).expect("room");
    }
    replica.step(at(LAG_MS)).expect("room");
    let status = replica.status(at(LAG_MS)).expect("readable");
    // 20 values of 256 KiB in a minute, and what engines need besides.
    let most = status.disk_free_bytes / (20 * VALUE_BYTES as u64) * 60;
    assert!(status.disk_seconds_left.is_some_and(|left| left <= most), "{status:?}");
}
