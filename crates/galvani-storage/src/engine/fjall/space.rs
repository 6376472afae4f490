//! Keeping back some free space.
//!
//! The engine needs room of its own to flush and compact; if commits took the last of it, the
//! engine would stop for good instead of refusing for a while. Asked before anything is written;
//! the file system is asked rarely while there is plenty, and every time while there is not.
//! Next to read: `mod.rs`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{EngineError, IoStep};

pub(super) struct SpaceGuard {
    path: PathBuf,
    reserve_bytes: u64,
    began: Instant,
    /// When the file system was last asked, in milliseconds since `began`; `NEVER` at first.
    asked_ms: AtomicU64,
    /// Bytes that may be committed before it is asked again, whatever the time.
    allowance: AtomicU64,
}

impl SpaceGuard {
    pub(super) fn new(path: &Path, reserve_bytes: u64) -> SpaceGuard {
        SpaceGuard {
            path: path.to_path_buf(),
            reserve_bytes,
            began: Instant::now(),
            asked_ms: AtomicU64::new(NEVER),
            allowance: AtomicU64::new(0),
        }
    }

    /// Admits a batch of `bytes`, or refuses it with [`EngineError::Full`].
    pub(super) fn admit(&self, bytes: usize) -> Result<(), EngineError> {
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        let bytes = bytes as u64;
        let now_ms = self.began.elapsed().as_millis() as u64;
        let asked_ms = self.asked_ms.load(Ordering::Relaxed);
        let is_fresh = asked_ms != NEVER && now_ms - asked_ms.min(now_ms) < FRESH_MS;
        let left = self.allowance.load(Ordering::Relaxed);
        if is_fresh && bytes <= left {
            // Lanes may overwrite each other's subtraction: the allowance is far below the space
            // it stands for.
            self.allowance.store(left - bytes, Ordering::Relaxed);
            return Ok(());
        }
        let free_bytes = self.free_bytes()?;
        let spare = free_bytes.saturating_sub(self.reserve_bytes);
        if spare <= bytes {
            self.forget();
            return Err(self.full(free_bytes, false));
        }
        self.allowance.store((spare - bytes) / ALLOWANCE_PART, Ordering::Relaxed);
        self.asked_ms.store(now_ms, Ordering::Relaxed);
        Ok(())
    }

    /// Admits a small batch that must not be refused for want of space ([`Batch::is_vital`]) from the
    /// reserve, down to half of it, and one of facts alone down to a quarter: what takes rows away must
    /// leave room for votes and layouts. `refused` otherwise.
    ///
    /// [`Batch::is_vital`]: crate::engine::Batch::is_vital
    pub(super) fn admit_vital(
        &self,
        bytes: usize,
        is_of_facts: bool,
        refused: EngineError,
    ) -> Result<(), EngineError> {
        let free_bytes = self.free_bytes()?;
        let kept_back = self.reserve_bytes / if is_of_facts { 4 } else { 2 };
        let spare = free_bytes.saturating_sub(kept_back);
        if bytes > VITAL_BYTES_MAX || spare <= bytes as u64 * ALLOWANCE_PART {
            return Err(refused);
        }
        Ok(())
    }

    /// The next batch asks the file system.
    pub(super) fn forget(&self) {
        self.asked_ms.store(NEVER, Ordering::Relaxed);
    }

    /// Bytes this process may still take from the file system.
    pub(super) fn free_bytes(&self) -> Result<u64, EngineError> {
        match rustix::fs::statvfs(&self.path) {
            Ok(facts) => Ok(facts.f_bavail.saturating_mul(facts.f_frsize)),
            Err(error) => Err(EngineError::from_io(IoStep::FreeSpace, &error.into())),
        }
    }

    /// The error for a write that met the end of the disk.
    pub(super) fn full_error(&self, in_doubt: bool) -> EngineError {
        self.full(self.free_bytes().unwrap_or(0), in_doubt)
    }

    fn full(&self, free_bytes: u64, in_doubt: bool) -> EngineError {
        EngineError::Full { free_bytes, reserve_bytes: self.reserve_bytes, in_doubt }
    }
}

/// Bytes allocated to the files under `path`. Files that vanish meanwhile count as nothing.
pub(super) fn allocated_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else {
        return 0;
    };
    let mut total = 0;
    for entry in entries.flatten() {
        let Ok(facts) = entry.metadata() else {
            continue;
        };
        if facts.is_dir() {
            total += allocated_bytes(&entry.path());
        } else {
            total += facts.blocks() * BLOCK_BYTES;
        }
    }
    total
}

/// The largest batch that may use the reserve: far above the layout of a large cluster.
const VITAL_BYTES_MAX: usize = 1 << 20;

const NEVER: u64 = u64::MAX;

/// How long an answer of the file system holds, in milliseconds.
const FRESH_MS: u64 = Duration::from_millis(100).as_millis() as u64;

/// Between two questions, commits may use one part in this many of the spare space. A byte
/// committed can take about 4 on disk for a while: journal, table and compaction.
const ALLOWANCE_PART: u64 = 16;

/// The unit of `st_blocks`, whatever the file system's own block size.
const BLOCK_BYTES: u64 = 512;
