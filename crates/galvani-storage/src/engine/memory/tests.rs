use super::{Corruption, CrashKeep, FailKind, MemoryEngine, UNSYNCED_MAX};
use crate::engine::{Batch, Durability, Engine, EngineError, Table};

fn put(engine: &MemoryEngine, number: u64, durability: Durability) -> Result<(), EngineError> {
    let mut batch = Batch::new();
    batch.put(Table::Log, &number.to_be_bytes(), b"value");
    batch.put(Table::Clocks, b"latest", &number.to_be_bytes());
    engine.commit(&batch, durability)
}

fn latest(engine: &MemoryEngine) -> Option<u64> {
    let row = engine.get(Table::Clocks, b"latest").expect("readable")?;
    Some(u64::from_be_bytes(row.as_ref().try_into().expect("eight bytes")))
}

fn has(engine: &MemoryEngine, number: u64) -> bool {
    engine.get(Table::Log, &number.to_be_bytes()).expect("readable").is_some()
}

#[test]
fn a_process_crash_keeps_every_commit() {
    let engine = MemoryEngine::new();
    for number in 0..5 {
        put(&engine, number, Durability::Os).expect("committed");
    }
    engine.crash(CrashKeep::Committed);
    assert_eq!(latest(&engine), Some(4));
    assert_eq!(engine.unsynced(), 5, "a later power loss can still take them");
}

#[test]
fn a_power_loss_keeps_a_prefix_of_whole_batches() {
    for kept in 0..=7 {
        let engine = MemoryEngine::new();
        put(&engine, 1, Durability::Os).expect("committed");
        put(&engine, 2, Durability::Fsync).expect("committed");
        for number in 3..=7 {
            put(&engine, number, Durability::Os).expect("committed");
        }
        engine.crash(CrashKeep::Synced { unsynced: kept });
        let last = (2 + kept as u64).min(7);
        assert_eq!(latest(&engine), Some(last));
        for number in 1..=7 {
            assert_eq!(has(&engine, number), number <= last);
        }
        assert_eq!(engine.unsynced(), 0);
    }
}

#[test]
fn a_failed_write_makes_it_read_only_until_reopened() {
    for (kind, kept) in [(FailKind::IoLost, false), (FailKind::IoKept, true)] {
        let engine = MemoryEngine::new();
        put(&engine, 1, Durability::Os).expect("committed");
        engine.fail_next_commits([kind]);
        let error = put(&engine, 2, Durability::Os).expect_err("ordered to fail");
        assert!(error.is_in_doubt());
        assert_eq!(latest(&engine), Some(1), "reads go on and do not show the doubtful batch");
        assert_eq!(put(&engine, 3, Durability::Os), Err(EngineError::ReadOnly));
        engine.reopen().expect("reopened");
        assert_eq!(has(&engine, 2), kept);
        put(&engine, 4, Durability::Os).expect("writes go on");
    }
}

#[test]
fn a_failed_sync_is_the_last_word_until_a_crash() {
    let engine = MemoryEngine::new();
    put(&engine, 1, Durability::Os).expect("committed");
    engine.fail_next_sync();
    let error = put(&engine, 2, Durability::Fsync).expect_err("ordered to fail");
    assert!(error.is_in_doubt());
    assert!(engine.is_lost());
    assert!(has(&engine, 2), "written and visible, and not known to be safe");
    assert_eq!(engine.sync(), Err(EngineError::Lost));
    assert_eq!(engine.reopen(), Err(EngineError::Lost));
    assert_eq!(put(&engine, 3, Durability::Os), Err(EngineError::Lost));
    assert_eq!(engine.unsynced(), 2, "no later sync has made it safe");
    engine.crash(CrashKeep::Synced { unsynced: 1 });
    assert!(has(&engine, 1) && !has(&engine, 2) && !engine.is_lost());
    put(&engine, 3, Durability::Fsync).expect("a new start writes again");
}

#[test]
fn a_failed_reopen_closes_it_until_one_succeeds() {
    let engine = MemoryEngine::new();
    put(&engine, 1, Durability::Os).expect("committed");
    engine.fail_next_reopen();
    engine.reopen().expect_err("ordered to fail");
    assert_eq!(engine.get(Table::Clocks, b"latest"), Err(EngineError::Closed));
    assert_eq!(put(&engine, 2, Durability::Os), Err(EngineError::Closed));
    engine.reopen().expect("opens");
    assert_eq!(latest(&engine), Some(1));
}

#[test]
fn a_doubtful_batch_is_the_last_one_a_power_loss_may_keep() {
    for (unsynced, kept) in [(1, false), (2, true)] {
        let engine = MemoryEngine::new();
        put(&engine, 1, Durability::Os).expect("committed");
        engine.fail_next_commits([FailKind::IoKept]);
        put(&engine, 2, Durability::Os).expect_err("ordered to fail");
        engine.crash(CrashKeep::Synced { unsynced });
        assert!(has(&engine, 1));
        assert_eq!(has(&engine, 2), kept);
    }
}

#[test]
fn full_refuses_before_writing_and_ends_with_the_shortage() {
    let engine = MemoryEngine::new();
    put(&engine, 1, Durability::Os).expect("committed");
    engine.set_full(true);
    let error = put(&engine, 2, Durability::Os).expect_err("full");
    assert!(!error.is_in_doubt());
    assert_eq!(latest(&engine), Some(1));
    let mut vital = Batch::new();
    vital.put(Table::Meta, b"fact", b"1");
    engine.commit(&vital, Durability::Os).expect("there is a reserve for it");
    engine.set_full(false);
    engine.fail_next_commits([FailKind::Full]);
    put(&engine, 2, Durability::Os).expect_err("ordered to fail");
    put(&engine, 2, Durability::Os).expect("space is back");
    assert_eq!(engine.stats().refused_full, 2);
}

#[test]
fn damage_is_seen_as_ordered() {
    let engine = MemoryEngine::new();
    put(&engine, 1, Durability::Os).expect("committed");
    let key = 1u64.to_be_bytes();
    assert!(engine.corrupt(Table::Log, &key, Corruption::FlipBit(8)));
    assert_eq!(engine.get(Table::Log, &key).expect("readable").as_deref(), Some(&b"v`lue"[..]));
    assert!(engine.corrupt(Table::Log, &key, Corruption::Truncate(2)));
    assert_eq!(engine.get(Table::Log, &key).expect("readable").as_deref(), Some(&b"v`"[..]));
    assert!(!engine.corrupt(Table::Log, &key, Corruption::Truncate(2)));
    assert!(engine.corrupt(Table::Log, &key, Corruption::Unreadable));
    let error = engine.get(Table::Log, &key).expect_err("unreadable");
    assert!(matches!(error, EngineError::Corrupt { table: Some(Table::Log), .. }));
    put(&engine, 1, Durability::Os).expect("written again");
    assert!(has(&engine, 1));
    assert!(engine.corrupt(Table::Log, &key, Corruption::Vanish));
    assert!(!has(&engine, 1));
    assert!(!engine.corrupt(Table::Log, &key, Corruption::Vanish));
}

#[test]
fn a_snapshot_stands_alone_and_can_be_put_back() {
    let engine = MemoryEngine::new();
    put(&engine, 1, Durability::Os).expect("committed");
    let yesterday = engine.snapshot();
    put(&engine, 2, Durability::Os).expect("committed");
    assert_eq!(latest(&yesterday), Some(1));
    yesterday.crash(CrashKeep::Synced { unsynced: 0 });
    assert_eq!(latest(&yesterday), Some(1));
    engine.restore(&yesterday);
    assert_eq!(latest(&engine), Some(1));
}

#[test]
fn a_run_that_never_syncs_stays_bounded() {
    let engine = MemoryEngine::new();
    for number in 0..UNSYNCED_MAX as u64 + 10 {
        put(&engine, number, Durability::Os).expect("committed");
    }
    assert_eq!(engine.unsynced(), UNSYNCED_MAX);
}
