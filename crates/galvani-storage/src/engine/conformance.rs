//! One suite for every engine: the laws of [`Engine`], and a naive twin under random operations.
//!
//! A [`Rig`] gives an engine and restarts it, as a clean stop and start would. Engine-specific
//! behaviour (crashes, damage, full disks) is tested beside each engine.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::{
    Batch, Durability, Engine, EngineConfig, FjallEngine, MemoryEngine, PowerHistory, Table,
};

/// An engine that can be stopped and started.
trait Rig {
    /// The engine under test.
    fn engine(&self) -> &dyn Engine;
    /// Stops the engine and starts it again on what it left.
    fn restart(&mut self);
}

struct FjallRig {
    dir: tempfile::TempDir,
    engine: Option<FjallEngine>,
}

impl FjallRig {
    fn new() -> FjallRig {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut rig = FjallRig { dir, engine: None };
        rig.restart();
        rig
    }
}

impl Rig for FjallRig {
    fn engine(&self) -> &dyn Engine {
        self.engine.as_ref().expect("open between restarts")
    }

    fn restart(&mut self) {
        self.engine = None;
        // The smallest memtables, so that flushes happen under the random operations too.
        let config = EngineConfig { memtable_bytes: 0, ..EngineConfig::default() };
        let (engine, report) =
            FjallEngine::open(self.dir.path(), config, PowerHistory::SameBoot).expect("opens");
        assert_eq!(report.cut, None, "a clean stop leaves a whole journal");
        self.engine = Some(engine);
    }
}

struct MemoryRig(MemoryEngine);

impl Rig for MemoryRig {
    fn engine(&self) -> &dyn Engine {
        &self.0
    }

    fn restart(&mut self) {
        self.0.crash(super::CrashKeep::Committed);
    }
}

type Row = (Vec<u8>, Vec<u8>);

fn rows(engine: &dyn Engine, table: Table, start: &[u8], end: Option<&[u8]>) -> Vec<Row> {
    let mut found = Vec::new();
    engine
        .scan(table, start, end, usize::MAX, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .expect("scans");
    found
}

fn put(engine: &dyn Engine, table: Table, key: &[u8], value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(table, key, value);
    engine.commit(&batch, Durability::Os).expect("commits");
}

fn rows_are_found_where_they_were_put(rig: &mut dyn Rig) {
    let long_key = vec![0xab; super::KEY_BYTES_MAX];
    for (number, table) in Table::ALL.into_iter().enumerate() {
        put(rig.engine(), table, b"same key", &[number as u8; 3]);
        put(rig.engine(), table, &long_key, b"");
        put(rig.engine(), table, b"large", &vec![number as u8; 100_000]);
    }
    for _ in 0..2 {
        for (number, table) in Table::ALL.into_iter().enumerate() {
            let get = |key: &[u8]| rig.engine().get(table, key).expect("reads");
            assert_eq!(get(b"same key").as_deref(), Some(&[number as u8; 3][..]));
            assert_eq!(get(&long_key).as_deref(), Some(&[][..]), "an empty value is a value");
            assert_eq!(get(b"large").as_deref(), Some(&vec![number as u8; 100_000][..]));
            assert_eq!(get(b"absent"), None);
            assert_eq!(get(b""), None);
        }
        rig.restart();
    }
}

fn scans_are_ordered_and_bounded(rig: &mut dyn Rig) {
    let engine = rig.engine();
    for key in [&b"b"[..], b"a", b"\xff", b"ab", b"\x00", b"a\x00"] {
        put(engine, Table::Arrivals, key, key);
    }
    let keys = |start: &[u8], end: Option<&[u8]>| -> Vec<Vec<u8>> {
        rows(engine, Table::Arrivals, start, end).into_iter().map(|row| row.0).collect()
    };
    assert_eq!(keys(b"", None), [&b"\x00"[..], b"a", b"a\x00", b"ab", b"b", b"\xff"]);
    assert_eq!(keys(b"a", Some(b"b")), [&b"a"[..], b"a\x00", b"ab"]);
    assert_eq!(keys(b"b", None), [&b"b"[..], b"\xff"]);
    assert_eq!(keys(b"b", Some(b"b")), [&b""[..]; 0]);
    assert_eq!(keys(b"c", Some(b"b")), [&b""[..]; 0]);
    assert_eq!(rows(engine, Table::Log, b"", None), []);

    for (limit, stop_at, expected) in [(2, 9, 2), (9, 3, 3), (0, 9, 0)] {
        let mut seen = 0;
        engine
            .scan(Table::Arrivals, b"", None, limit, &mut |_, _| {
                seen += 1;
                if seen == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .expect("scans");
        assert_eq!(seen, expected);
    }
}

fn the_last_operation_on_a_key_counts(rig: &mut dyn Rig) {
    let mut batch = Batch::new();
    batch.put(Table::Objects, b"put then deleted", b"1");
    batch.delete(Table::Objects, b"put then deleted");
    batch.delete(Table::Objects, b"deleted then put");
    batch.put(Table::Objects, b"deleted then put", b"2");
    batch.put(Table::Objects, b"put twice", b"3");
    batch.put(Table::Objects, b"put twice", b"4");
    rig.engine().commit(&batch, Durability::Fsync).expect("commits");
    for _ in 0..2 {
        let get = |key: &[u8]| rig.engine().get(Table::Objects, key).expect("reads");
        assert_eq!(get(b"put then deleted"), None);
        assert_eq!(get(b"deleted then put").as_deref(), Some(&b"2"[..]));
        assert_eq!(get(b"put twice").as_deref(), Some(&b"4"[..]));
        rig.restart();
    }
}

fn reopening_keeps_everything_and_counts_go_on(rig: &mut dyn Rig) {
    put(rig.engine(), Table::Meta, b"k", b"v");
    rig.engine().reopen().expect("reopens");
    assert_eq!(rig.engine().get(Table::Meta, b"k").expect("reads").as_deref(), Some(&b"v"[..]));
    put(rig.engine(), Table::Meta, b"k", b"w");
    rig.engine().sync().expect("syncs");
    rig.engine().commit(&Batch::new(), Durability::Fsync).expect("an empty batch only syncs");
    let stats = rig.engine().stats();
    assert_eq!(stats.commits, 2, "an empty batch is no commit");
    assert!(stats.syncs >= 2);
    assert!(!stats.read_only);
    assert!(stats.disk_bytes > 0);
}

#[derive(Clone, Debug)]
enum Step {
    Commit { ops: Vec<(Table, u8, Option<usize>)>, durability: Durability },
    Restart,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let table = proptest::sample::select(&Table::ALL[..]);
    // Lengths on both sides of the engine's thresholds for separate values and shared memory.
    let value = prop_oneof![
        Just(None),
        (0..40usize).prop_map(Some),
        (500..1_200usize).prop_map(Some),
        (100_000..120_000usize).prop_map(Some),
    ];
    let durability = prop_oneof![Just(Durability::Os), Just(Durability::Fsync)];
    let ops = proptest::collection::vec((table, 0..12u8, value), 0..12);
    prop_oneof![
        20 => (ops, durability).prop_map(|(ops, durability)| Step::Commit { ops, durability }),
        1 => Just(Step::Restart),
        1 => Just(Step::Reopen),
    ]
}

/// Random commits and restarts leave what a map would hold.
fn agrees_with_a_map<R: Rig>(make: impl Fn() -> R, cases: u32) {
    let mut runner = TestRunner::new(Config { cases, ..Config::default() });
    let steps = proptest::collection::vec(step(), 1..40);
    let run = |(steps, fill): (Vec<Step>, u8)| -> Result<(), TestCaseError> {
        let mut rig = make();
        let mut twin: BTreeMap<(Table, Vec<u8>), Vec<u8>> = BTreeMap::new();
        let mut batch = Batch::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Commit { ops, durability } => {
                    batch.clear();
                    for (table, key, value) in ops {
                        let key = vec![b'k', key];
                        match value {
                            Some(length) => {
                                let value = vec![fill.wrapping_add(number as u8); length];
                                batch.put(table, &key, &value);
                                twin.insert((table, key), value);
                            }
                            None => {
                                batch.delete(table, &key);
                                twin.remove(&(table, key));
                            }
                        }
                    }
                    rig.engine().commit(&batch, durability).expect("commits");
                }
                Step::Restart => rig.restart(),
                Step::Reopen => rig.engine().reopen().expect("reopens"),
            }
        }
        let mut found = BTreeMap::new();
        for table in Table::ALL {
            for (key, value) in rows(rig.engine(), table, b"", None) {
                let read = rig.engine().get(table, &key).expect("reads");
                proptest::prop_assert_eq!(read.as_deref(), Some(&value[..]));
                found.insert((table, key), value);
            }
        }
        proptest::prop_assert_eq!(found, twin);
        Ok(())
    };
    if let Err(failure) = runner.run(&(steps, any::<u8>()), run) {
        panic!("{failure}");
    }
}

const LAWS: [fn(&mut dyn Rig); 4] = [
    rows_are_found_where_they_were_put,
    scans_are_ordered_and_bounded,
    the_last_operation_on_a_key_counts,
    reopening_keeps_everything_and_counts_go_on,
];

#[test]
fn the_engine_on_disk_keeps_the_laws() {
    for law in LAWS {
        law(&mut FjallRig::new());
    }
}

#[test]
fn the_engine_in_memory_keeps_the_laws() {
    for law in LAWS {
        law(&mut MemoryRig(MemoryEngine::new()));
    }
}

#[test]
fn the_engine_on_disk_agrees_with_a_map() {
    agrees_with_a_map(FjallRig::new, 24);
}

#[test]
fn the_engine_in_memory_agrees_with_a_map() {
    agrees_with_a_map(|| MemoryRig(MemoryEngine::new()), 256);
}
