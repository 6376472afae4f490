//! The engine on disk: one fjall database per node, shared by all lanes.
//!
//! Read in fjall 3.1's source and relied on: a batch goes to the journal under one mutex, with a
//! checksum over its items and an end mark, before any table sees it. Without a persist mode its
//! tail stays in a buffer of the process; `Buffer` writes that to the file, which survives
//! SIGKILL: every commit here does so. `SyncData` adds `fdatasync` **under the same mutex**, which
//! would make lanes sync one after the other: `group_sync.rs` lets them share one. Opening cuts the
//! journal where an entry does not parse: `journal.rs` looks first. Its way of sealing memtables
//! can lock up its own workers, and a commit that waits for them waits for ever: see `room.rs`.
//! Next to read: `options.rs`, `journal.rs`.

mod errors;
mod files;
mod group_sync;
mod journal;
mod options;
mod room;
mod space;

#[cfg(test)]
mod tests;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use fjall::{Database, Keyspace, OwnedWriteBatch, PersistMode, Slice};
use parking_lot::{Mutex, RwLock};

use super::{Batch, Durability, Engine, EngineError, EngineStats, IoStep, Op, Table, Visit};
use errors::translate;
use group_sync::GroupSync;
pub use journal::{JournalCut, PowerHistory};
pub use options::EngineConfig;
use room::NoRoom;
pub use room::STALL_MAX;
use space::SpaceGuard;

/// The engine on disk. Clones are handles to the same open database.
#[derive(Clone)]
pub struct FjallEngine {
    shared: Arc<Shared>,
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// The end of the journal that was cut off, if any. Batches in it are lost here.
    pub cut: Option<JournalCut>,
}

struct Shared {
    path: PathBuf,
    config: EngineConfig,
    /// `None` only after a failed reopen.
    open: RwLock<Option<Open>>,
    space: SpaceGuard,
    group: GroupSync,
    read_only: AtomicBool,
    /// Set by the first failed sync and never taken back: no lane may open a way around it.
    lost: AtomicBool,
    commits: AtomicU64,
    refused_full: AtomicU64,
    unreadable: AtomicU64,
}

struct Open {
    /// Held while a memtable is sealed.
    sealing: Mutex<()>,
    tables: [Keyspace; Table::COUNT],
    database: Database,
}

impl FjallEngine {
    /// Opens the engine in directory `path`, creating it if it is empty. `history` says whether the
    /// machine may have lost power since the engine was last used; see [`PowerHistory`].
    ///
    /// Fails with [`EngineError::Locked`] if another process or handle has it, with
    /// [`EngineError::Corrupt`] if the journal is damaged where no crash could damage it, with
    /// [`EngineError::Version`] if another format wrote it. Changes nothing in these cases.
    pub fn open(
        path: &Path,
        config: EngineConfig,
        history: PowerHistory,
    ) -> Result<(FjallEngine, OpenReport), EngineError> {
        let open_failed = |error: std::io::Error| EngineError::from_io(IoStep::Open, &error);
        std::fs::create_dir_all(path).map_err(open_failed)?;
        let (open, report) = Open::new(path, &config, history)?;
        let shared = Shared {
            path: path.to_path_buf(),
            space: SpaceGuard::new(path, config.reserve_bytes),
            config,
            open: RwLock::new(Some(open)),
            group: GroupSync::default(),
            read_only: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            commits: AtomicU64::new(0),
            refused_full: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        };
        Ok((FjallEngine { shared: Arc::new(shared) }, report))
    }

    /// Writes the journals of the engine in directory `path`, which nobody has open, once more, durably:
    /// for a start after a process that did not end in order. What the system takes for written may
    /// not be on the disk if a sync of that process failed.
    pub fn renew_journals(path: &Path) -> Result<(), EngineError> {
        match path.exists() {
            true => journal::write_anew(path),
            false => Ok(()),
        }
    }

    /// Runs `read` on the open database; waits while it is being reopened.
    fn with_open<T>(
        &self,
        read: impl FnOnce(&Open) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        // Recursive, so that a scan's visitor may read while a reopen is waiting.
        match &*self.shared.open.read_recursive() {
            Some(open) => read(open),
            None => Err(EngineError::Closed),
        }
    }

    fn check_writable(&self) -> Result<(), EngineError> {
        if self.is_lost() {
            return Err(EngineError::Lost);
        }
        if self.shared.read_only.load(Ordering::Acquire) {
            return Err(EngineError::ReadOnly);
        }
        Ok(())
    }

    /// Translates a failure of a read, and counts it where a file is damaged.
    fn read_failed(&self, table: Table, error: &fjall::Error) -> EngineError {
        let error = translate(IoStep::Read, Some(table), error, &self.shared.space);
        if matches!(error, EngineError::Corrupt { .. }) {
            self.shared.unreadable.fetch_add(1, Ordering::Relaxed);
        }
        error
    }

    /// Translates a failure of a write and stops all further writes.
    fn stop_writes(&self, step: IoStep, error: &fjall::Error) -> EngineError {
        // A worker that failed earlier (`Poisoned`) stops the sync before it begins; nothing is
        // lost by that, and reopening is the way back.
        if step == IoStep::Sync && !matches!(error, fjall::Error::Poisoned) {
            self.shared.lost.store(true, Ordering::Release);
        }
        self.shared.read_only.store(true, Ordering::Release);
        let error = translate(step, None, error, &self.shared.space);
        tracing::error!(%error, ?step, "a write failed, storage is read-only until reopened");
        error
    }

    fn write(&self, open: &Open, batch: &Batch) -> Result<(), EngineError> {
        let space = &self.shared.space;
        let admitted = space.admit(batch.bytes()).or_else(|refused| match batch.is_vital() {
            true => space.admit_vital(batch.bytes(), batch.is_of_facts(), refused),
            false => Err(refused),
        });
        if let Err(error) = admitted {
            self.shared.refused_full.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        room::make_room(open, &self.shared.config, batch).map_err(|why| match why {
            NoRoom::Failed(error) => self.stop_writes(IoStep::Flush, &error),
            NoRoom::Stalled(error) => error,
        })?;
        let mut rows = OwnedWriteBatch::with_capacity(open.database.clone(), batch.len())
            .durability(Some(PersistMode::Buffer));
        for op in batch.iter() {
            match op {
                Op::Put { table, key, value } => {
                    rows.insert(&open.tables[table.index()], key, value);
                }
                Op::Delete { table, key } => rows.remove(&open.tables[table.index()], key),
            }
        }
        rows.commit().map_err(|error| self.stop_writes(IoStep::Commit, &error))?;
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sync_open(&self, open: &Open) -> Result<(), EngineError> {
        self.shared.group.sync(|| {
            // Another lane's failed sync may have come between: never sync again after it, the
            // kernel may have dropped the pages and would report success.
            self.check_writable()?;
            open.database
                .persist(PersistMode::SyncData)
                .map_err(|error| self.stop_writes(IoStep::Sync, &error))
        })
    }
}

impl Open {
    fn new(
        path: &Path,
        config: &EngineConfig,
        history: PowerHistory,
    ) -> Result<(Open, OpenReport), EngineError> {
        files::check_lists(path)?;
        let cut = journal::check(path, history)?;
        let space = SpaceGuard::new(path, config.reserve_bytes);
        let failed =
            |error: fjall::Error| files::named(path, translate(IoStep::Open, None, &error, &space));
        let database = options::database(path, config).map_err(failed)?;
        let mut tables = Vec::with_capacity(Table::COUNT);
        for table in Table::ALL {
            let options = || options::keyspace(table);
            tables.push(database.keyspace(table.name(), options).map_err(failed)?);
        }
        let Ok(tables) = tables.try_into() else {
            unreachable!("one keyspace was opened for each table");
        };
        Ok((Open { sealing: Mutex::new(()), tables, database }, OpenReport { cut }))
    }
}

impl Engine for FjallEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.with_open(|open| match open.tables[table.index()].get(key) {
            Ok(value) => Ok(value.map(to_bytes)),
            Err(error) => Err(self.read_failed(table, &error)),
        })
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        if end.is_some_and(|end| end <= start) {
            return Ok(());
        }
        let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (Bound::Included(start), upper);
        self.with_open(|open| {
            for row in open.tables[table.index()].range::<&[u8], _>(range).take(limit) {
                let (key, value) =
                    row.into_inner().map_err(|error| self.read_failed(table, &error))?;
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        self.with_open(|open| {
            self.check_writable()?;
            if !batch.is_empty() {
                self.write(open, batch)?;
            }
            match durability {
                Durability::Os => Ok(()),
                Durability::Fsync if batch.is_empty() => self.sync_open(open),
                // The batch is written: whatever stops the sync, another lane's failure included,
                // leaves it in doubt.
                Durability::Fsync => self.sync_open(open).map_err(EngineError::in_doubt_at_sync),
            }
        })
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.with_open(|open| {
            self.check_writable()?;
            self.sync_open(open)
        })
    }

    fn reopen(&self) -> Result<(), EngineError> {
        let mut slot = self.shared.open.write();
        // Asked under the lock: a sync that fails holds it, so none can fail in between.
        if self.is_lost() {
            return Err(EngineError::Lost);
        }
        // Dropping the last handles stops the workers, writes out the journal and frees the lock.
        drop(slot.take());
        if let Err(error) = journal::write_anew(&self.shared.path) {
            self.shared.lost.store(true, Ordering::Release);
            return Err(error);
        }
        let history = PowerHistory::SameBoot;
        let (open, _) = Open::new(&self.shared.path, &self.shared.config, history)?;
        *slot = Some(open);
        self.shared.space.forget();
        self.shared.read_only.store(false, Ordering::Release);
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::Acquire)
    }

    fn damaged_files(&self, go_on: &dyn Fn() -> bool) -> Result<Vec<PathBuf>, EngineError> {
        let mut damaged = Vec::new();
        for table in 0..Table::COUNT {
            let listed = || self.with_open(|open| Ok(files::listed(&open.tables[table])));
            for file in listed()? {
                match file.is_whole(go_on) {
                    Some(true) => {}
                    // The engine may have replaced it meanwhile: then it is nobody's any more.
                    Some(false) if !listed()?.contains(&file) => {}
                    Some(false) => damaged.push(file.into_path()),
                    None => return Ok(damaged),
                }
                if !go_on() {
                    return Ok(damaged);
                }
            }
        }
        Ok(damaged)
    }

    fn unreadable(&self) -> u64 {
        self.shared.unreadable.load(Ordering::Relaxed)
    }

    fn stats(&self) -> EngineStats {
        let mut stats = EngineStats {
            disk_bytes: space::allocated_bytes(&self.shared.path),
            free_bytes: self.shared.space.free_bytes().unwrap_or(0),
            commits: self.shared.commits.load(Ordering::Relaxed),
            syncs: self.shared.group.syncs(),
            refused_full: self.shared.refused_full.load(Ordering::Relaxed),
            read_only: self.shared.read_only.load(Ordering::Acquire),
            ..EngineStats::default()
        };
        if let Some(open) = &*self.shared.open.read_recursive() {
            stats.memtable_bytes = open.database.write_buffer_size();
            stats.cache_bytes = open.database.cache_size();
            stats.journals = open.database.journal_count() as u64;
        }
        stats
    }
}

/// A value as `Bytes`. Small ones are copied, so that a row kept for long does not hold the whole
/// block it was read from; large ones share the engine's memory.
fn to_bytes(value: Slice) -> Bytes {
    if value.len() <= COPY_BYTES_MAX {
        Bytes::copy_from_slice(&value)
    } else {
        Bytes::from_owner(value)
    }
}

/// Up to this many bytes a copy costs no more than sharing does.
const COPY_BYTES_MAX: usize = 512;
