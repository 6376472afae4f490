//! One flipped byte in any file of a closed engine, wherever in it (K3, RR4).
//!
//! The engine opens or says which file is damaged; whatever it then shows is what was written. It
//! never panics, which would end the test. Journals are `damage.rs`.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use fjall::AbstractTree;

use super::damage::copy;
use super::small;
use crate::engine::fjall::{FjallEngine, PowerHistory};
use crate::engine::{Batch, Durability, Engine, EngineError, Table};

const ROWS: u32 = 3_000;
/// Above and below the size from which values have files of their own; each table is flushed.
const LENGTHS: [(Table, usize); 2] = [(Table::Objects, 1_200), (Table::Log, 3_000)];

fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (engine, _) =
        FjallEngine::open(dir.path(), small(), PowerHistory::SameBoot).expect("opens");
    let mut batch = Batch::new();
    for chunk in 0..ROWS / 250 {
        batch.clear();
        for number in chunk * 250..(chunk + 1) * 250 {
            for (table, length) in LENGTHS {
                batch.put(table, &number.to_be_bytes(), &vec![number as u8; length]);
            }
        }
        engine.commit(&batch, Durability::Os).expect("commits");
    }
    drop(engine);
    shorten_journals(dir.path());
    dir
}

/// Takes the zeros off that the engine makes its journals with: copies are made of all this.
fn shorten_journals(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("reads") {
        let path = entry.expect("reads").path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let bytes = std::fs::read(&path).expect("reads");
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let file = std::fs::OpenOptions::new().write(true).open(&path).expect("opens");
            file.set_len(end as u64).expect("shortens");
        }
    }
}

/// The files that an engine reads, journals apart: of the lists only the newest.
fn files(path: &Path, found: &mut Vec<PathBuf>) {
    let current = std::fs::read(path.join("current")).ok();
    let current = current.map(|bytes| u64::from_le_bytes(*bytes.first_chunk().expect("long")));
    for entry in std::fs::read_dir(path).expect("reads") {
        let path = entry.expect("reads").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
        let is_old = current.is_some_and(|now| name.starts_with('v') && name != format!("v{now}"));
        if path.is_dir() {
            files(&path, found);
        } else if !is_old && !name.ends_with(".jnl") && path.metadata().expect("facts").len() > 0 {
            found.push(path);
        }
    }
}

/// Places all over a file, and close to its ends, where its own tables of contents are.
fn places(size: u64) -> Vec<u64> {
    let spread = (0..6).map(|part| size * part / 6 + 2);
    let mut places: Vec<u64> =
        spread.chain([1, 30, 150, 700].map(|at| size.saturating_sub(at))).collect();
    places.retain(|at| *at < size);
    places.dedup();
    places
}

/// Everything that the engine in `dir` shows is right; how often it said that something is damaged.
fn look(dir: &Path, what: &str) -> Result<(u32, Vec<PathBuf>), EngineError> {
    let (engine, _) = FjallEngine::open(dir, small(), PowerHistory::SameBoot)?;
    let mut met = 0;
    for (table, length) in LENGTHS {
        for number in 0..ROWS {
            match engine.get(table, &number.to_be_bytes()) {
                Ok(value) => {
                    let right = vec![number as u8; length];
                    assert!(value.as_deref() == Some(&right[..]), "{what}: {number} of {table:?}");
                }
                Err(EngineError::Corrupt { .. }) => met += 1,
                Err(error) => panic!("{what}: {error}"),
            }
        }
        let mut seen = 0;
        let mut count = |_: &[u8], _: &[u8]| {
            seen += 1;
            ControlFlow::Continue(())
        };
        match engine.scan(table, &[0], None, usize::MAX, &mut count) {
            Ok(()) => assert_eq!(seen, ROWS, "{what}: a scan of {table:?} leaves nothing out"),
            Err(EngineError::Corrupt { .. }) => met += 1,
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert_eq!(engine.unreadable(), u64::from(met), "{what}");
    Ok((met, engine.damaged_files(&|| true).expect("files can be read")))
}

#[test]
fn a_flipped_byte_in_any_file_is_named_or_harmless() {
    let origin = written();
    let mut all = Vec::new();
    files(origin.path(), &mut all);
    let kinds = ["current", "tables", "blobs"].map(|kind| {
        all.iter().filter(|file| file.to_string_lossy().contains(&format!("/{kind}"))).count()
    });
    assert!(kinds.iter().all(|count| *count > 0), "there are files of all kinds: {all:?}");
    let (mut refused, mut met) = (0, 0);
    for file in &all {
        let name = file.strip_prefix(origin.path()).expect("inside");
        let whole = std::fs::read(file).expect("reads");
        for at in places(whole.len() as u64) {
            let what = format!("{} at {at} of {}", name.display(), whole.len());
            let dir = copy(origin.path());
            let mut bytes = whole.clone();
            bytes[at as usize] ^= 0x5a;
            let flipped = dir.path().join(name);
            std::fs::write(&flipped, bytes).expect("writes");
            match look(dir.path(), &what) {
                Ok((count, damaged)) => {
                    assert!(count == 0 || damaged == [flipped], "{what}: {count}, {damaged:?}");
                    met += u32::from(count > 0);
                }
                // Four bytes that say which format it is.
                Err(EngineError::Version) => assert_eq!(name, Path::new("version"), "{what}"),
                Err(EngineError::Corrupt { what: said, .. }) => {
                    let list = flipped.parent().expect("in a folder").display().to_string();
                    assert!(said.contains(&list), "{what}: {said}");
                    refused += 1;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    assert!(refused > 20 && met > 10, "{refused} refused, {met} met");
}

/// Has the engine write the files of all tables anew, as it does by itself when it is written to.
fn compact(engine: &FjallEngine) {
    let compacted = engine.with_open(|open| {
        for table in &open.tables {
            // No reader holds anything older than this.
            table.tree.major_compact(64 << 20, 1 << 40).expect("compacts");
        }
        Ok(())
    });
    compacted.expect("is open");
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    files(dir, &mut all);
    all.retain(|file| file.parent().is_some_and(|folder| folder.ends_with("tables")));
    all
}

#[test]
fn files_that_are_replaced_while_all_are_read_are_given_back_and_not_called_damaged() {
    let dir = written();
    let (engine, _) =
        FjallEngine::open(dir.path(), small(), PowerHistory::SameBoot).expect("opens");
    // Two files in a table, at least: one is being read when both are replaced.
    for number in 0..2_u32 {
        let mut batch = Batch::new();
        for (table, length) in LENGTHS {
            batch.put(table, &number.to_be_bytes(), &vec![number as u8; length]);
        }
        engine.commit(&batch, Durability::Os).expect("commits");
        let flushed = engine.with_open(|open| {
            for table in &open.tables {
                table.rotate_memtable_and_wait().expect("flushes");
            }
            Ok(())
        });
        flushed.expect("is open");
    }
    let before = tables(dir.path());
    let (looks, left) = (Cell::new(0), RefCell::new(Vec::new()));
    let look = || {
        looks.set(looks.get() + 1);
        if looks.get() == 1 {
            compact(&engine);
        }
        *left.borrow_mut() = tables(dir.path());
        true
    };
    assert_eq!(engine.damaged_files(&look).expect("files can be read"), Vec::<PathBuf>::new());
    let left = left.into_inner();
    assert!(before.iter().any(|file| !file.exists()), "something was replaced: {before:?}");
    let held: Vec<&PathBuf> = before.iter().filter(|file| left.contains(file)).collect();
    assert!(held.len() < before.len(), "{held:?} were kept until all was read");
    let listed = engine
        .with_open(|open| Ok(open.tables.iter().flat_map(super::super::files::listed).count()));
    let blobs = listed.expect("is open") - left.len();
    assert!(blobs > 0, "every file that is left is in use: {left:?}");
}

#[test]
fn a_reading_of_all_files_that_is_to_stop_stops() {
    let dir = written();
    let (engine, _) =
        FjallEngine::open(dir.path(), small(), PowerHistory::SameBoot).expect("opens");
    let looks = Cell::new(0);
    let look = || {
        looks.set(looks.get() + 1);
        false
    };
    engine.damaged_files(&look).expect("files can be read");
    assert_eq!(looks.get(), 1);
}
