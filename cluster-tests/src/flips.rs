//! Flipped bytes in the data files of a node that is down.
//!
//! Only files whose bytes the engine guards, so that a flip is found: journals, tables, the values that
//! have files of their own, and the engine's catalogue among the tables. What finds and mends it is
//! `galvani repair`, or a start that is refused and says what to type.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// All files below `dir`, by name.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a directory of the test's own") {
        let path = entry.expect("a directory of the test's own").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// The files of a node's data directory in which a byte can be flipped: those that hold something.
pub fn data_files(data: &Path) -> Vec<PathBuf> {
    let mut all = files(data);
    all.retain(|path| {
        (is_in(path, "blobs") || is_in(path, "tables") || is_journal(path)) && end(path) > 0
    });
    all
}

/// Flips bits of one byte of a file, at a place that is chosen by where its content ends; the place.
pub fn flip(path: &Path, place: impl FnOnce(u64) -> u64) -> u64 {
    let at = place(end(path));
    let file = File::options().read(true).write(true).open(path).expect("its node is down");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the place is in the file");
    byte[0] ^= 0x5a;
    file.write_all_at(&byte, at).expect("its node is down");
    at
}

/// Whether a file is in a folder of this name.
pub fn is_in(path: &Path, folder: &str) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|name| name == folder)
}

/// Whether a file is a journal of the engine.
pub fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "jnl")
}

/// Where the content of a file ends: journals are made with zeros behind it.
fn end(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("its node is down");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::{data_files, flip};
    use std::fs;

    #[test]
    fn a_byte_is_flipped_where_something_is_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let tables = dir.path().join("keyspaces/0/tables");
        fs::create_dir_all(&tables).expect("made");
        let [journal, empty, table, mark] = [
            dir.path().join("0.jnl"),
            dir.path().join("1.jnl"),
            tables.join("7"),
            dir.path().join("mark"),
        ];
        for (path, bytes) in
            [(&journal, &b"abc\0\0"[..]), (&empty, b"\0\0"), (&table, b"xyz"), (&mark, b"m")]
        {
            fs::write(path, bytes).expect("written");
        }
        assert_eq!(data_files(dir.path()), [journal.clone(), table]);
        assert_eq!(flip(&journal, |end| end - 1), 2);
        assert_eq!(fs::read(&journal).expect("reads"), [b'a', b'b', b'c' ^ 0x5a, 0, 0]);
    }
}
