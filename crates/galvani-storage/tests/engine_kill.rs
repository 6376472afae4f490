//! A real SIGKILL: a child process commits numbered batches and prints each number once its
//! commit has returned; it is killed at some moment; everything printed is there, and every batch
//! is whole or absent.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use galvani_storage::engine::{
    Batch, Durability, Engine, EngineConfig, FjallEngine, PowerHistory, Table,
};

const CHILD_DIR: &str = "GALVANI_TEST_KILL_DIR";
const CHILD_DURABILITY: &str = "GALVANI_TEST_KILL_FSYNC";

fn open(path: &Path) -> FjallEngine {
    let config = EngineConfig { memtable_bytes: 0, reserve_bytes: 0, ..EngineConfig::default() };
    FjallEngine::open(path, config, PowerHistory::SameBoot).expect("opens").0
}

fn value(number: u64, part: u64) -> Vec<u8> {
    let length = 20 + (number * 7 + part * 331) % 3_000;
    vec![(number + part) as u8; length as usize]
}

fn fill(batch: &mut Batch, number: u64) {
    batch.clear();
    for part in 0..1 + number % 5 {
        batch.put(
            Table::Log,
            &[number.to_be_bytes(), part.to_be_bytes()].concat(),
            &value(number, part),
        );
    }
    batch.put(Table::Objects, &(number % 100).to_be_bytes(), &number.to_be_bytes());
    batch.put(Table::Arrivals, &number.to_be_bytes(), b"");
    batch.put(Table::Clocks, b"latest", &number.to_be_bytes());
}

fn number_in(row: &[u8]) -> u64 {
    u64::from_be_bytes(row.try_into().expect("eight bytes"))
}

/// The last batch that is there, after checking that all up to it are whole.
fn check(engine: &FjallEngine) -> Option<u64> {
    let latest = number_in(&engine.get(Table::Clocks, b"latest").expect("reads")?);
    for number in 0..=latest {
        for part in 0..1 + number % 5 {
            let key = [number.to_be_bytes(), part.to_be_bytes()].concat();
            let found = engine.get(Table::Log, &key).expect("reads");
            assert_eq!(found.as_deref(), Some(&value(number, part)[..]), "batch {number}");
        }
        let found = engine.get(Table::Arrivals, &number.to_be_bytes()).expect("reads");
        assert!(found.is_some(), "batch {number} is whole");
    }
    for key in 0..=latest.min(99) {
        let row = engine.get(Table::Objects, &key.to_be_bytes()).expect("reads");
        assert_eq!(number_in(&row.expect("written")), latest - (latest - key) % 100);
    }
    let mut beyond = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        beyond += 1;
        std::ops::ControlFlow::Continue(())
    };
    let next = (latest + 1).to_be_bytes();
    engine.scan(Table::Arrivals, &next, None, usize::MAX, &mut count).expect("scans");
    engine.scan(Table::Log, &next, None, usize::MAX, &mut count).expect("scans");
    assert_eq!(beyond, 0, "no part of a batch after {latest} is there");
    Some(latest)
}

/// Not a test of its own: the child's work, when the parent below starts this binary again.
#[test]
fn child_commits_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let durability = match std::env::var_os(CHILD_DURABILITY) {
        Some(_) => Durability::Fsync,
        None => Durability::Os,
    };
    let engine = open(Path::new(&dir));
    let first = check(&engine).map_or(0, |latest| latest + 1);
    let mut batch = Batch::new();
    // Not `println!`: the test harness would keep that back.
    let mut out = std::io::stdout();
    for number in first.. {
        fill(&mut batch, number);
        engine.commit(&batch, durability).expect("commits");
        writeln!(out, "committed {number}").and_then(|()| out.flush()).expect("the parent reads");
    }
}

fn kill_and_check(durability: Durability, kills: u64) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut expected = None;
    let mut batches = 1;
    for kill in 0..kills {
        let mut command = Command::new(std::env::current_exe().expect("this test's binary"));
        command.args(["child_commits_until_killed", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(CHILD_DIR, dir.path()).stdout(Stdio::piped());
        if durability == Durability::Fsync {
            command.env(CHILD_DURABILITY, "1");
        }
        let mut child = command.spawn().expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        // The kill falls after a number of commits that differs each time, and at a moment the
        // scheduler chooses: the child is in the middle of a later commit by then.
        batches = (batches * 31 + kill * 17) % 700 + 1;
        let mut seen = 0;
        for line in lines.by_ref() {
            if let Some(number) = printed(&line.expect("reads")) {
                expected = Some(number);
                seen += 1;
                if seen == batches {
                    break;
                }
            }
        }
        assert_eq!(seen, batches, "the child stopped by itself");
        child.kill().expect("kills");
        child.wait().expect("ends");
        // What it printed before it died counts too; the last line may be cut short.
        for line in lines.map_while(Result::ok) {
            expected = expected.max(printed(&line));
        }
        let found = check(&open(dir.path()));
        assert!(found >= expected, "printed {expected:?}, found {found:?}");
        expected = found;
    }
}

fn printed(line: &str) -> Option<u64> {
    line.strip_prefix("committed ")?.parse().ok()
}

#[test]
fn every_commit_that_returned_survives_sigkill() {
    kill_and_check(Durability::Os, 8);
}

#[test]
fn every_synced_commit_survives_sigkill() {
    kill_and_check(Durability::Fsync, 4);
}
