//! Torn tails, holes and turned bits in journals and tables (K2, K3).

use std::path::{Path, PathBuf};

use super::{commit, found, open, small};
use crate::engine::fjall::{FjallEngine, JournalCut, PowerHistory};
use crate::engine::{Batch, Durability, Engine, EngineError, Table};

/// A directory with `batches` committed batches and a cleanly closed engine; the journal's path
/// and, per batch, where it ends in the journal.
struct Written {
    dir: tempfile::TempDir,
    journal: PathBuf,
    ends: Vec<u64>,
}

fn write(batches: u32) -> Written {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = open(dir.path());
    let journal = dir.path().join("0.jnl");
    let mut ends = Vec::new();
    for number in 0..batches {
        commit(&engine, number, Durability::Fsync).expect("commits");
        let bytes = std::fs::read(&journal).expect("reads");
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
        ends.push(end as u64 + 1);
    }
    // The engine makes the file with 64 MiB of zeros behind the data; a few are as good.
    drop(engine);
    let file = std::fs::OpenOptions::new().write(true).open(&journal).expect("opens");
    file.set_len(ends.last().expect("a batch") + 10_000).expect("shortens");
    Written { dir, journal, ends }
}

pub(super) fn copy(from: &Path) -> tempfile::TempDir {
    fn copy_into(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).expect("reads") {
            let entry = entry.expect("reads");
            let to = to.join(entry.file_name());
            if entry.file_type().expect("has a type").is_dir() {
                std::fs::create_dir(&to).expect("creates");
                copy_into(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), &to).expect("copies");
            }
        }
    }
    let to = tempfile::tempdir().expect("a temporary directory");
    copy_into(from, to.path());
    to
}

fn try_open(
    path: &Path,
    history: PowerHistory,
) -> Result<(FjallEngine, Option<JournalCut>), EngineError> {
    FjallEngine::open(path, small(), history).map(|(engine, report)| (engine, report.cut))
}

#[test]
fn torn_tail_at_any_byte_of_the_last_batch_keeps_the_batches_before() {
    let written = write(3);
    let whole = std::fs::read(&written.journal).expect("reads");
    let (before, end) = (written.ends[1] as usize, written.ends[2] as usize);
    // Every byte of the marks and small rows, every 37th within the large value.
    let cuts = (before..end).filter(|at| at - before < 120 || end - at < 90 || at % 37 == 0);
    for at in cuts {
        for zeros_behind in [false, true] {
            let dir = copy(written.dir.path());
            let mut bytes = whole[..at].to_vec();
            if zeros_behind {
                bytes.resize(at + 100_000, 0);
            }
            std::fs::write(dir.path().join("0.jnl"), bytes).expect("writes");
            let (engine, cut) = try_open(dir.path(), PowerHistory::SameBoot)
                .unwrap_or_else(|error| panic!("torn at {at}: {error}"));
            assert_eq!(found(&engine, 0..3), [0, 1], "torn at {at}");
            let expected = (at > before).then(|| JournalCut {
                journal: 0,
                at: before as u64,
                bytes: cut.as_ref().map_or(0, |cut| cut.bytes),
                has_hole: false,
            });
            assert_eq!(cut, expected);
            commit(&engine, 7, Durability::Fsync).expect("writes go on");
            drop(engine);
            assert_eq!(found(&open(dir.path()), 0..8), [0, 1, 7]);
        }
    }
}

#[test]
fn bitflip_middle_of_the_journal_is_damage_and_not_a_torn_tail() {
    let written = write(3);
    let whole = std::fs::read(&written.journal).expect("reads");
    // The second batch, in the middle, and the last one, which is whole.
    let (begin, middle, end) =
        (written.ends[0] as usize, written.ends[1] as usize, written.ends[2] as usize);
    let mut unseen = 0;
    let near = |at: usize, mark: usize| at.abs_diff(mark) < 120;
    for at in (begin..end)
        .filter(|at| near(*at, begin) || near(*at, middle) || near(*at, end) || at % 61 == 0)
    {
        for bit in [at % 8, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            std::fs::write(&written.journal, &bytes).expect("writes");
            let error = match try_open(written.dir.path(), PowerHistory::SameBoot) {
                // A batch's number is outside its checksum. Turned so that the order stays, it
                // means nothing: everything must be there.
                Ok((engine, cut)) => {
                    assert_eq!(cut, None, "bit {bit} of {at}");
                    assert_eq!(found(&engine, 0..3), [0, 1, 2], "bit {bit} of {at}");
                    unseen += 1;
                    continue;
                }
                Err(error) => error,
            };
            assert!(matches!(error, EngineError::Corrupt { .. }), "bit {bit} of {at}: {error}");
            let left = std::fs::read(&written.journal).expect("reads");
            assert!(left == bytes, "a refused open changes nothing");
        }
    }
    assert!(unseen <= 16, "only a number's own bytes may turn unseen: {unseen}");
    std::fs::write(&written.journal, &whole).expect("writes");
    assert_eq!(found(&open(written.dir.path()), 0..3), [0, 1, 2]);
}

#[test]
fn a_hole_after_a_power_loss_is_cut_off_with_all_behind_it_and_reported() {
    let written = write(4);
    let mut bytes = std::fs::read(&written.journal).expect("reads");
    bytes[written.ends[1] as usize + 40..written.ends[2] as usize - 20].fill(0);
    std::fs::write(&written.journal, &bytes).expect("writes");
    let refused = try_open(written.dir.path(), PowerHistory::SameBoot).map(|_| ());
    assert!(matches!(refused, Err(EngineError::Corrupt { .. })));
    let (engine, cut) =
        try_open(written.dir.path(), PowerHistory::MayHaveLostPower).expect("opens");
    let expected = JournalCut {
        journal: 0,
        at: written.ends[1],
        bytes: written.ends[3] - written.ends[1],
        has_hole: true,
    };
    assert_eq!(cut, Some(expected));
    assert_eq!(found(&engine, 0..4), [0, 1]);
}

#[test]
fn garbage_behind_the_journal_is_damage() {
    let written = write(2);
    let mut bytes = std::fs::read(&written.journal).expect("reads");
    let at = written.ends[1] as usize + 5_000;
    bytes.resize(bytes.len().max(at + 1), 0);
    bytes[at] = 1;
    std::fs::write(&written.journal, &bytes).expect("writes");
    let refused = try_open(written.dir.path(), PowerHistory::SameBoot).map(|_| ());
    assert!(matches!(refused, Err(EngineError::Corrupt { .. })));
}

/// Writes enough rows for tables and separate values, and closes the engine.
fn write_tables() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let engine = open(dir.path());
    let mut batch = Batch::new();
    for chunk in 0..40u32 {
        batch.clear();
        for number in chunk * 500..(chunk + 1) * 500 {
            batch.put(Table::Objects, &number.to_be_bytes(), &[number as u8; 120]);
            batch.put(Table::Log, &number.to_be_bytes(), &[number as u8; 700]);
        }
        engine.commit(&batch, Durability::Os).expect("commits");
    }
    dir
}

fn files_under(path: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(path).expect("reads") {
        let path = entry.expect("reads").path();
        if path.is_dir() {
            files_under(&path, found);
        } else if path.metadata().expect("has facts").len() > 1_000_000 {
            found.push(path);
        }
    }
}

#[test]
fn a_turned_bit_in_a_table_is_an_error_and_never_a_wrong_value() {
    let dir = write_tables();
    let mut files = Vec::new();
    files_under(&dir.path().join("keyspaces"), &mut files);
    assert!(files.len() >= 2, "tables and values were flushed: {files:?}");
    for file in &files {
        let mut bytes = std::fs::read(file).expect("reads");
        // In the rows, away from the file's own header and footer.
        let stride = (bytes.len() - 200_000) / 10;
        for at in (0..10).map(|part| 4_096 + part * stride) {
            bytes[at] ^= 0x10;
        }
        std::fs::write(file, bytes).expect("writes");
    }
    let engine = open(dir.path());
    let mut damaged = 0;
    for number in 0..20_000u32 {
        for (table, length) in [(Table::Objects, 120), (Table::Log, 700)] {
            match engine.get(table, &number.to_be_bytes()) {
                Ok(value) => assert_eq!(value.as_deref(), Some(&vec![number as u8; length][..])),
                Err(EngineError::Corrupt { table: Some(found), .. }) => {
                    assert_eq!(found, table);
                    damaged += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(damaged > 0, "the damage was met");
    commit(&engine, 50_000, Durability::Os).expect("damaged reads do not stop writes");
}
