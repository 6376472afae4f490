//! Whether the files of the tables are what was written, byte for byte.
//!
//! fjall keeps a checksum of every file and looks at none of them when it opens: of a damaged list
//! of files it makes what it likes, and panics on the way. So the lists, which are small, are
//! checked before it sees them. The files themselves are checked block by block when they are read;
//! [`Listed::is_whole`] reads one whole, for somebody who wants to know which of them is damaged.
//! Format (fjall 3), little-endian: `current` = number u64 | xxh3-128 of file `v<number>` | 00.
//! Next to read: `mod.rs`, `journal.rs`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fjall::{AbstractTree, Keyspace};
use xxhash_rust::xxh3::Xxh3;

use crate::engine::{EngineError, IoStep};

/// Checks the lists of files in the engine's directory `path`. Changes nothing.
pub(super) fn check_lists(path: &Path) -> Result<(), EngineError> {
    let failed = |error: io::Error| EngineError::from_io(IoStep::Open, &error);
    let folder = path.join("keyspaces");
    if !folder.try_exists().map_err(failed)? {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        check_list(&entry.map_err(failed)?.path())?;
    }
    Ok(())
}

fn check_list(table: &Path) -> Result<(), EngineError> {
    let current = table.join("current");
    let bytes = match std::fs::read(&current) {
        Ok(bytes) => bytes,
        // A table that was being made when the process ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(EngineError::from_io(IoStep::Open, &error)),
    };
    let damaged = |file: &Path, why: &str| EngineError::Corrupt {
        table: None,
        what: format!("file {}: {why}", file.display()),
    };
    if bytes.len() != CURRENT_BYTES || bytes[CURRENT_BYTES - 1] != XXH3 {
        return Err(damaged(&current, "it is not what was written"));
    }
    let number = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
    let wanted = u128::from_le_bytes(bytes[8..24].try_into().expect("sixteen bytes"));
    let list = table.join(format!("v{number}"));
    match checksum(&list) {
        Ok(found) if found == wanted => Ok(()),
        Ok(_) => Err(damaged(&list, "its checksum is wrong")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(damaged(&current, &format!("it names {}, which is not there", list.display())))
        }
        Err(error) => Err(EngineError::from_io(IoStep::Open, &error)),
    }
}

/// What opening met, with the names of the files that are to blame where its lists tell.
pub(super) fn named(path: &Path, error: EngineError) -> EngineError {
    let EngineError::Corrupt { table, what } = error else { return error };
    let damaged = damaged_by_the_lists(&path.join("keyspaces")).unwrap_or_default();
    let names: Vec<String> = damaged.iter().map(|file| file.display().to_string()).collect();
    let what = match names.as_slice() {
        [] => format!("a file in {}: {what}", path.display()),
        names => format!("file {}: {what}", names.join(", ")),
    };
    EngineError::Corrupt { table, what }
}

/// Files that the newest list of their table names with another checksum. An entry of a list is
/// `number u64 | kind of checksum 00 | checksum`.
fn damaged_by_the_lists(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut damaged = Vec::new();
    for table in std::fs::read_dir(folder)? {
        let table = table?.path();
        let Ok(current) = std::fs::read(table.join("current")) else { continue };
        let Some(number) = current.first_chunk::<8>() else { continue };
        let list = std::fs::read(table.join(format!("v{}", u64::from_le_bytes(*number))))?;
        let lists = |entry: &[u8]| list.windows(entry.len()).any(|bytes| bytes == entry);
        let files = ["tables", "blobs"].map(|kind| std::fs::read_dir(table.join(kind)));
        for file in files.into_iter().flatten().flatten() {
            let file = file?.path();
            let name = file.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
            let Some(name) = name else { continue };
            let mut entry = [&name.to_le_bytes()[..], &[XXH3]].concat();
            let is_listed = lists(&entry);
            entry.extend(checksum(&file)?.to_le_bytes());
            if is_listed && !lists(&entry) {
                damaged.push(file);
            }
        }
    }
    Ok(damaged)
}

/// A file of a table, and what it must add up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    path: PathBuf,
    wanted: u128,
}

/// The files that a table uses now. It holds none of them: the engine removes a file only when
/// nobody holds the version that it belongs to, and a reading of all files takes long.
pub(super) fn listed(table: &Keyspace) -> Vec<Listed> {
    let version = table.tree.current_version();
    let tables = version
        .iter_tables()
        .map(|file| Listed { path: file.path.to_path_buf(), wanted: file.checksum().into_u128() });
    let blobs = version.blob_files.iter().map(|file| Listed {
        path: file.path().to_path_buf(),
        wanted: file.checksum().into_u128(),
    });
    tables.chain(blobs).collect()
}

impl Listed {
    /// Whether the file is what was written, at a pace that leaves the disk to others. One that is
    /// not there or cannot be read is not. `None`: it was to be read no further.
    pub(super) fn is_whole(&self, go_on: &dyn Fn() -> bool) -> Option<bool> {
        let mut rest = |took: Duration| {
            std::thread::sleep(took.max(PAUSE));
            go_on()
        };
        match checksum_until(&self.path, &mut rest) {
            Ok(found) => found.map(|found| found == self.wanted),
            Err(_) => Some(false),
        }
    }

    pub(super) fn into_path(self) -> PathBuf {
        self.path
    }
}

fn checksum(path: &Path) -> io::Result<u128> {
    Ok(checksum_until(path, &mut |_| true)?.expect("it is read to its end"))
}

/// The checksum of a file. After every read `go_on` hears how long it took and says whether to read
/// on.
fn checksum_until(
    path: &Path,
    go_on: &mut dyn FnMut(Duration) -> bool,
) -> io::Result<Option<u128>> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut hash = Xxh3::new();
    loop {
        let began = Instant::now();
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Some(hash.digest128()));
        }
        hash.update(&buffer[..read]);
        if !go_on(began.elapsed()) {
            return Ok(None);
        }
    }
}

const CURRENT_BYTES: usize = 25;
/// The number of the checksum's kind.
const XXH3: u8 = 0;

const READ_BYTES: usize = 256 << 10;
/// Between two reads, at least: some 200 MB a second at most.
const PAUSE: Duration = Duration::from_millis(1);
