//! A disk that fills up (K1): the guard, and the real end of the disk without it.
//!
//! Needs a small file system of its own. Where none can be mounted the tests say so and pass,
//! except under `CI=true`, where they fail: there the mount must work.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{commit, found, small};
use crate::engine::fjall::{EngineConfig, FjallEngine, PowerHistory};
use crate::engine::{Batch, Durability, Engine, EngineError, Table};

/// A file system in memory, unmounted when dropped.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "galvani-test"])
            .arg(dir.path())
            .output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(SmallDisk { dir }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot mount: {why}");
        eprintln!("SKIPPED: this test needs to mount a tmpfs and cannot: {why}");
        None
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.dir.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a failed test that still holds files does not leave the mount behind.
        let unmounted = Command::new("umount").arg("-l").arg(self.dir.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("could not unmount {}", self.dir.path().display());
        }
    }
}

fn open(path: &Path, reserve_bytes: u64) -> FjallEngine {
    let config = EngineConfig { reserve_bytes, ..small() };
    FjallEngine::open(path, config, PowerHistory::SameBoot).expect("opens").0
}

/// Commits numbered batches until one fails; returns how many went well, and the failure.
fn fill_up(engine: &FjallEngine, from: u32) -> (u32, EngineError) {
    for number in from..1_000_000 {
        if let Err(error) = commit(engine, number, Durability::Os) {
            return (number, error);
        }
    }
    panic!("the disk never filled up");
}

#[test]
fn below_the_reserve_commits_are_refused_and_accepted_again_when_space_returns() {
    let Some(disk) = SmallDisk::mount("160m") else {
        return;
    };
    let engine = open(&disk.data(), 96 << 20);
    commit(&engine, 0, Durability::Os).expect("there is room");
    std::fs::write(disk.ballast(), vec![1; 50 << 20]).expect("writes");

    let (refused, error) = fill_up(&engine, 1);
    let EngineError::Full { free_bytes, reserve_bytes, in_doubt } = error else {
        panic!("not full but {error}");
    };
    assert!(!in_doubt, "nothing was written");
    assert_eq!(reserve_bytes, 96 << 20);
    assert!(free_bytes > 80 << 20, "the reserve was kept: {free_bytes} bytes are free");
    assert_eq!(found(&engine, 0..refused + 1).len() as u32, refused, "reads go on");
    assert!(commit(&engine, refused, Durability::Fsync).is_err(), "and it stays refused");
    engine.sync().expect("what is there can still be synced");
    // Votes, layouts, and rows that go have the reserve, down to half of it.
    let vital = |bytes: usize| {
        let mut batch = Batch::new();
        batch.put(Table::Meta, b"fact", &vec![7; bytes]);
        batch.delete(Table::Log, &0u32.to_be_bytes());
        batch.delete(Table::Objects, &0u32.to_be_bytes());
        engine.commit(&batch, Durability::Fsync)
    };
    vital(1_000).expect("it is small, and there is room for it");
    let error = vital(2 << 20).expect_err("that is not small");
    assert!(matches!(error, EngineError::Full { in_doubt: false, .. }), "{error}");
    let half = std::fs::write(disk.dir.path().join("more"), vec![1; 46 << 20]);
    half.expect("writes");
    let error = vital(1_000).expect_err("half of the reserve is the engine's own");
    assert!(matches!(error, EngineError::Full { in_doubt: false, .. }), "{error}");
    std::fs::remove_file(disk.dir.path().join("more")).expect("removes");
    commit(&engine, 0, Durability::Os).expect_err("it is as full as before");

    std::fs::remove_file(disk.ballast()).expect("removes");
    commit(&engine, refused, Durability::Os).expect("space is back, with no restart");
    let stats = engine.stats();
    assert!(stats.refused_full >= 2);
    assert!(!stats.read_only);
    drop(engine);
    let there = found(&open(&disk.data(), 0), 0..refused + 1).len() as u32;
    assert_eq!(there, refused, "all but the one that was taken away");
}

#[test]
fn at_the_real_end_of_the_disk_nothing_committed_is_lost() {
    let Some(disk) = SmallDisk::mount("24m") else {
        return;
    };
    let engine = open(&disk.data(), 0);
    std::fs::write(disk.ballast(), vec![1; 4 << 20]).expect("writes");

    let (failed, error) = fill_up(&engine, 0);
    assert!(failed > 1_000, "there was room for more than {failed} batches");
    match error {
        EngineError::Full { in_doubt: true, .. } | EngineError::ReadOnly => {}
        other => panic!("{other}"),
    }
    assert_eq!(commit(&engine, failed, Durability::Os), Err(EngineError::ReadOnly));
    assert_eq!(engine.sync(), Err(EngineError::ReadOnly));
    assert_eq!(found(&engine, 0..failed + 1).len() as u32, failed, "reads go on");

    std::fs::remove_file(disk.ballast()).expect("removes");
    engine.reopen().expect("reopens when space is back");
    let there = found(&engine, 0..failed + 1).len() as u32;
    assert!(there == failed || there == failed + 1, "{there} of {failed}, the last in doubt");
    commit(&engine, failed, Durability::Fsync).expect("writes go on");
    drop(engine);
    assert_eq!(found(&open(&disk.data(), 0), 0..failed + 1).len() as u32, failed + 1);
}

#[test]
fn a_batch_larger_than_the_space_left_is_torn_and_gone_after_a_restart() {
    let Some(disk) = SmallDisk::mount("8m") else {
        return;
    };
    let engine = open(&disk.data(), 0);
    for number in 0..10 {
        commit(&engine, number, Durability::Os).expect("there is room");
    }
    let mut batch = Batch::new();
    for part in 0..20u32 {
        batch.put(Table::Log, &(1_000 + part).to_be_bytes(), &vec![3; 1 << 20]);
    }
    let error = engine.commit(&batch, Durability::Os).expect_err("larger than the disk");
    assert!(matches!(error, EngineError::Full { in_doubt: true, .. }), "{error}");
    drop(engine);
    let engine = open(&disk.data(), 0);
    assert_eq!(found(&engine, 0..10).len(), 10);
    for part in 0..20u32 {
        assert_eq!(engine.get(Table::Log, &(1_000 + part).to_be_bytes()), Ok(None));
    }
}
