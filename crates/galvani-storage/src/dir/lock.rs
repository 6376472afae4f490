//! The lock that keeps a second process out of a data directory.
//!
//! An advisory lock of the operating system on the file `lock`: it ends with its process, however
//! that ends. The file holds the holder's process number, for people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// The lock of a directory, held until it is dropped.
#[derive(Debug)]
pub struct DirLock {
    file: File,
}

/// Why a directory's lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another process has it")]
    Held {
        /// Its number, if the file says so.
        pid: Option<u32>,
    },
    /// The file could not be opened, locked or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl DirLock {
    /// Takes the lock of the directory `dir`, or says who holds it.
    pub fn take(dir: &Path) -> Result<DirLock, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK_FILE))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = file.take(LOCK_BYTES_MAX).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held { pid });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        note_holder(&mut file)?;
        Ok(DirLock { file })
    }
}

impl Drop for DirLock {
    /// Unlocks by name: a child process that is just being started holds the same open file for
    /// a moment, and closing ours would leave the lock with it.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "the data directory could not be unlocked");
        }
    }
}

fn note_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    writeln!(file, "{}", std::process::id())
}

/// The file's name.
pub const LOCK_FILE: &str = "lock";

/// More than any process number takes.
const LOCK_BYTES_MAX: u64 = 32;
