//! What only the engine on disk can go through: locks, torn and damaged journals, damaged tables,
//! full disks, lanes that sync together. The kill is in `tests/engine_kill.rs`.

mod damage;
mod flips;
mod full_disk;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{EngineConfig, FjallEngine, PowerHistory};
use crate::engine::{Batch, Durability, Engine, EngineError, IoStep, Table};

fn open(path: &Path) -> FjallEngine {
    let (engine, report) = FjallEngine::open(path, small(), PowerHistory::SameBoot).expect("opens");
    assert_eq!(report.cut, None);
    engine
}

fn small() -> EngineConfig {
    EngineConfig { memtable_bytes: 0, reserve_bytes: 0, ..EngineConfig::default() }
}

/// Commits batch `number`: one row in each of three tables.
fn commit(engine: &FjallEngine, number: u32, durability: Durability) -> Result<(), EngineError> {
    let mut batch = Batch::new();
    fill(&mut batch, number);
    engine.commit(&batch, durability)
}

fn fill(batch: &mut Batch, number: u32) {
    let key = number.to_be_bytes();
    batch.put(Table::Objects, &key, &key);
    batch.put(Table::Log, &key, &vec![number as u8; 700]);
    batch.put(Table::Clocks, b"latest", &key);
}

/// The batches that are there, after checking that each is whole.
fn found(engine: &FjallEngine, numbers: impl Iterator<Item = u32>) -> Vec<u32> {
    let get = |table, key: &[u8]| engine.get(table, key).expect("reads");
    let mut found = Vec::new();
    for number in numbers {
        let key = number.to_be_bytes();
        let object = get(Table::Objects, &key);
        let record = get(Table::Log, &key);
        assert_eq!(object.is_some(), record.is_some(), "batch {number} is whole or absent");
        if let (Some(object), Some(record)) = (object, record) {
            assert_eq!(object, key[..]);
            assert_eq!(record, vec![number as u8; 700]);
            found.push(number);
        }
    }
    let latest = get(Table::Clocks, b"latest");
    assert_eq!(
        latest.as_deref(),
        found.last().map(|last| last.to_be_bytes()).as_ref().map(|b| &b[..])
    );
    found
}

#[test]
fn a_second_holder_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = open(dir.path());
    let second = FjallEngine::open(dir.path(), small(), PowerHistory::SameBoot);
    assert_eq!(second.map(|_| ()).expect_err("held"), EngineError::Locked);
    drop(first);
    open(dir.path());
}

#[test]
fn a_newer_engine_format_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    drop(open(dir.path()));
    std::fs::write(dir.path().join("version"), b"FJL\x09").expect("writes");
    let error = FjallEngine::open(dir.path(), small(), PowerHistory::SameBoot);
    assert_eq!(error.map(|_| ()).expect_err("refused"), EngineError::Version);
}

#[test]
fn lanes_share_syncs_and_lose_nothing() {
    const LANES: u32 = 4;
    const EACH: u32 = 100;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = open(dir.path());
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let engine = engine.clone();
            std::thread::spawn(move || {
                let mut batch = Batch::new();
                for number in lane * EACH..(lane + 1) * EACH {
                    batch.clear();
                    batch.put(Table::Objects, &number.to_be_bytes(), b"object");
                    batch.put(Table::Log, &number.to_be_bytes(), &[7; 600]);
                    engine.commit(&batch, Durability::Fsync).expect("commits");
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.join().expect("no lane panics");
    }
    let stats = engine.stats();
    assert_eq!(stats.commits, u64::from(LANES * EACH));
    assert!(stats.syncs <= stats.commits);
    drop(engine);
    let engine = open(dir.path());
    for number in 0..LANES * EACH {
        for table in [Table::Objects, Table::Log] {
            assert!(engine.get(table, &number.to_be_bytes()).expect("reads").is_some());
        }
    }
}

#[test]
fn after_a_failed_sync_no_handle_writes_syncs_or_reopens() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = open(dir.path());
    let other_lane = engine.clone();
    commit(&engine, 1, Durability::Fsync).expect("commits");
    let failed = fjall::Error::Io(std::io::Error::from_raw_os_error(5));
    let error = engine.stop_writes(IoStep::Sync, &failed);
    assert!(error.is_in_doubt(), "{error}");
    assert!(other_lane.is_lost());
    assert_eq!(other_lane.reopen(), Err(EngineError::Lost));
    for durability in [Durability::Os, Durability::Fsync] {
        assert_eq!(commit(&other_lane, 2, durability), Err(EngineError::Lost));
    }
    assert_eq!(other_lane.commit(&Batch::new(), Durability::Fsync), Err(EngineError::Lost));
    assert_eq!(other_lane.sync(), Err(EngineError::Lost));
    assert_eq!(found(&other_lane, 1..=2), [1], "reads go on");
    drop((engine, other_lane));
    commit(&open(dir.path()), 2, Durability::Fsync).expect("a new start writes again");
}

#[test]
fn a_failed_write_that_was_no_sync_is_mended_by_a_reopen() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = open(dir.path());
    for (step, error) in [
        (IoStep::Commit, fjall::Error::Io(std::io::Error::from_raw_os_error(5))),
        (IoStep::Sync, fjall::Error::Poisoned),
    ] {
        engine.stop_writes(step, &error);
        assert_eq!(commit(&engine, 1, Durability::Os), Err(EngineError::ReadOnly));
        engine.reopen().expect("reopens");
        commit(&engine, 1, Durability::Fsync).expect("writes go on");
    }
}

#[test]
fn a_reopen_writes_the_journals_once_more_and_ends_where_that_cannot_be_done() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = open(dir.path());
    commit(&engine, 1, Durability::Os).expect("commits");
    let journal = || {
        let entries = std::fs::read_dir(dir.path()).expect("readable").flatten();
        let is_journal = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "jnl");
        let mut journals: Vec<_> = entries.map(|entry| entry.path()).filter(is_journal).collect();
        assert_eq!(journals.len(), 1, "{journals:?}");
        journals.remove(0)
    };
    let inode = || std::fs::metadata(journal()).expect("there").ino();
    let before = inode();
    engine.stop_writes(IoStep::Sync, &fjall::Error::Poisoned);
    engine.reopen().expect("reopens");
    assert_ne!(inode(), before, "a file of its own, and no page of the old one");
    assert_eq!(found(&engine, 1..=1), [1]);
    commit(&engine, 2, Durability::Fsync).expect("writes go on");
    // Something stands where the copy has to be: the disk does not do what it must.
    let number = journal().file_stem().expect("a number").to_owned();
    let copy = dir.path().join(number).with_extension("anew");
    std::fs::create_dir(&copy).expect("room");
    engine.stop_writes(IoStep::Sync, &fjall::Error::Poisoned);
    engine.reopen().expect_err("the journal is not known to be on the disk");
    assert!(engine.is_lost());
    std::fs::remove_dir(&copy).expect("empty");
    drop(engine);
    FjallEngine::renew_journals(dir.path()).expect("nobody has it open");
    assert_eq!(found(&open(dir.path()), 1..=2), [1, 2]);
}

#[test]
fn memory_for_new_rows_stays_bounded_under_sustained_writes() {
    const MEMORY_MAX: u64 = 4 * (8 << 20);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = open(dir.path());
    let lanes: Vec<_> = (0..2u32)
        .map(|lane| {
            let engine = engine.clone();
            std::thread::spawn(move || {
                let mut batch = Batch::new();
                // Small batches: far more commits than the engine's queues have places.
                for number in 0..60_000u32 {
                    batch.clear();
                    let key = [lane.to_be_bytes(), number.to_be_bytes()].concat();
                    batch.put(Table::Log, &key, &[number as u8; 1_100]);
                    batch.put(Table::Objects, &key, &[number as u8; 120]);
                    engine.commit(&batch, Durability::Os).expect("commits");
                    if number % 1_000 == 0 {
                        let held = engine.stats().memtable_bytes;
                        assert!(held < MEMORY_MAX, "{held} bytes after {number} commits");
                    }
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.join().expect("no lane panics");
    }
}

#[test]
fn rows_survive_flushes_compactions_and_deletes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = open(dir.path());
    let mut batch = Batch::new();
    // Rewrites 2,000 records many times: far more than the memtables and one journal hold.
    for round in 0..60u32 {
        for chunk in 0..20u32 {
            batch.clear();
            for number in chunk * 100..(chunk + 1) * 100 {
                let value = [(round ^ number) as u8; 900];
                batch.put(Table::Log, &number.to_be_bytes(), &value);
                batch.put(Table::Arrivals, &(round * 2_000 + number).to_be_bytes(), b"dot");
                if round > 0 {
                    let old = ((round - 1) * 2_000 + number).to_be_bytes();
                    batch.delete(Table::Arrivals, &old);
                }
            }
            engine.commit(&batch, Durability::Os).expect("commits");
        }
    }
    for _ in 0..2 {
        let mut arrivals = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            arrivals += 1;
            std::ops::ControlFlow::Continue(())
        };
        engine.scan(Table::Arrivals, b"", None, usize::MAX, &mut count).expect("scans");
        assert_eq!(arrivals, 2_000);
        for number in 0..2_000u32 {
            let value = engine.get(Table::Log, &number.to_be_bytes()).expect("reads");
            assert_eq!(value.as_deref(), Some(&[(59 ^ number) as u8; 900][..]));
        }
        engine.reopen().expect("reopens");
    }
    let stats = engine.stats();
    assert!(stats.disk_bytes < 400 << 20, "{} bytes for 2 MB of rows", stats.disk_bytes);
}
