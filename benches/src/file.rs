//! The floor under storage: records of 1.1 KiB appended to one file, flushed to the operating
//! system every 32. No index, no second row, no checksum, no fsync.

use std::fs::File;
use std::io::Write;
use tempfile::TempDir;

/// Bytes of a record: a value of 1 KiB and what belongs to it.
pub const RECORD_BYTES: usize = 1_126;
/// Records between two flushes.
pub const FLUSH_EVERY: usize = 32;

/// A file that only grows.
#[derive(Debug)]
pub struct AppendFile {
    file: File,
    buffer: Vec<u8>,
    record: [u8; RECORD_BYTES],
    // Removed with the file in it.
    _dir: TempDir,
}

impl AppendFile {
    /// An empty file in a directory of its own.
    pub fn create() -> AppendFile {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = File::create(dir.path().join("log")).expect("a new file");
        let buffer = Vec::with_capacity(RECORD_BYTES * FLUSH_EVERY);
        AppendFile { file, buffer, record: [b'x'; RECORD_BYTES], _dir: dir }
    }

    /// Appends one record.
    pub fn append(&mut self) {
        self.buffer.extend_from_slice(std::hint::black_box(&self.record));
        if self.buffer.len() >= RECORD_BYTES * FLUSH_EVERY {
            self.file.write_all(&self.buffer).expect("room on the disk");
            self.buffer.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AppendFile, FLUSH_EVERY, RECORD_BYTES};

    #[test]
    fn records_reach_the_system_every_so_many() {
        let mut file = AppendFile::create();
        for _ in 0..FLUSH_EVERY * 2 + 1 {
            file.append();
        }
        let length = file.file.metadata().expect("an open file").len();
        assert_eq!(length, (RECORD_BYTES * FLUSH_EVERY * 2) as u64);
    }
}
