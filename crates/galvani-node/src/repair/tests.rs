//! The check of the files: for which repairs it is made, and that it ends, whatever happens to it.

use super::FileCheck;
use crate::shared::Shared;
use bytes::Bytes;
use galvani_model::ids::{ClusterId, NodeId, Partition};
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::version::ContextKey;
use galvani_protocol::Topology;
use galvani_storage::engine::{
    Batch, Durability, Engine, EngineError, EngineStats, MemoryEngine, Table, Visit,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What reading the files does.
#[derive(Clone, Copy)]
enum Files {
    AreWhole,
    OneIsDamaged,
    CannotBeRead,
    Panic,
    /// It ends when it is told to stop.
    TakeForEver,
}

struct Checked {
    rows: MemoryEngine,
    files: Files,
    checks: AtomicU32,
}

impl Engine for Checked {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.rows.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.rows.scan(table, start, end, limit, visit)
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        self.rows.commit(batch, durability)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.rows.sync()
    }

    fn reopen(&self) -> Result<(), EngineError> {
        self.rows.reopen()
    }

    fn is_lost(&self) -> bool {
        self.rows.is_lost()
    }

    fn damaged_files(&self, go_on: &dyn Fn() -> bool) -> Result<Vec<PathBuf>, EngineError> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        match self.files {
            Files::AreWhole => {}
            Files::OneIsDamaged => return Ok(vec![PathBuf::from("tables/7")]),
            Files::CannotBeRead => return Err(EngineError::Closed),
            Files::Panic => panic!("this test wants it"),
            Files::TakeForEver => {
                while go_on() {
                    thread::yield_now();
                }
            }
        }
        Ok(Vec::new())
    }

    fn stats(&self) -> EngineStats {
        self.rows.stats()
    }
}

fn engine(files: Files) -> Arc<Checked> {
    Arc::new(Checked { rows: MemoryEngine::new(), files, checks: AtomicU32::new(0) })
}

fn shared(engine: Arc<Checked>) -> Shared<Checked> {
    let address = "127.0.0.1:7000".parse().expect("an address");
    let member = Member::new(NodeId(1), "n1", "z", 100, vec![address]).expect("a member");
    let layout = Layout::compute(ClusterId(5), 1, 16, 1, vec![member]).expect("a layout");
    let topology = Topology::new(
        NodeId(1),
        "test".into(),
        Arc::new(LayoutState::founding(Arc::new(layout))),
        BTreeMap::new(),
        ContextKey([1; 16]),
    );
    Shared::new(engine, topology, 1)
}

fn wait_for_the_end(check: &FileCheck) {
    let began = Instant::now();
    while check.is_running() {
        assert!(began.elapsed() < Duration::from_secs(20), "it never ends");
        thread::yield_now();
    }
}

#[test]
fn files_are_read_for_a_repair_of_all_and_not_for_one_of_a_partition() {
    let engine = engine(Files::AreWhole);
    let shared = shared(engine.clone());
    shared.ask_repair(Some(Partition(3)));
    assert!(!shared.files.is_running());
    assert_eq!(engine.checks.load(Ordering::SeqCst), 0);
    for checks in 1..3 {
        shared.ask_repair(None);
        wait_for_the_end(&shared.files);
        assert_eq!(engine.checks.load(Ordering::SeqCst), checks);
    }
    assert!(shared.files.damaged().is_empty());
}

#[test]
fn a_check_that_panics_is_over_and_not_called_well() {
    let shared = shared(engine(Files::Panic));
    shared.ask_repair(None);
    wait_for_the_end(&shared.files);
    assert!(shared.files.damaged()[0].contains("not all were read"));
}

/// Only for files that were found damaged may a repair end before its end.
#[test]
fn why_files_could_not_be_read_is_told_and_is_no_damaged_file() {
    for (files, found) in
        [(Files::OneIsDamaged, true), (Files::CannotBeRead, false), (Files::Panic, false)]
    {
        let shared = shared(engine(files));
        assert!(!shared.files.has_found());
        shared.ask_repair(None);
        wait_for_the_end(&shared.files);
        assert_eq!(shared.files.damaged().len(), 1);
        assert_eq!(shared.files.has_found(), found);
    }
}

#[test]
fn a_node_that_stops_has_its_engine_for_itself() {
    let engine = engine(Files::TakeForEver);
    let shared = shared(engine.clone());
    shared.ask_repair(None);
    shared.ask_repair(None);
    drop(shared);
    assert_eq!(Arc::strong_count(&engine), 1, "the check has it no more");
    assert!(engine.checks.load(Ordering::SeqCst) <= 1, "the second was joined");
}
