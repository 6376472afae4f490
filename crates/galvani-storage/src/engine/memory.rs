//! An engine in memory, for the simulator: deterministic, cheap, and honest about crashes.
//!
//! A commit is visible at once; until a sync point it stays undoable. A crash of the process keeps
//! every commit; loss of power keeps what was synced and as many of the later batches, in order and
//! whole, as the caller says. Faults happen only when ordered. It has no clock, thread, file or
//! randomness of its own. Next to read: `galvani-sim`, its user.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Batch, Durability, Engine, EngineError, EngineStats, IoStep, Op, Table, Visit};

/// How many unsynced batches are kept undoable. Beyond it the oldest counts as written out, as an
/// operating system writes back old pages: 1,024 bounds the memory of a run that never syncs.
pub const UNSYNCED_MAX: usize = 1_024;

/// What a crash leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashKeep {
    /// The process died: the operating system still has every committed batch.
    Committed,
    /// The machine died: synced batches, and the first `unsynced` of the later ones.
    Synced {
        /// How many unsynced batches reached the disk, oldest first; more than there are is all.
        unsynced: usize,
    },
}

/// How an ordered commit failure behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailKind {
    /// Refused for lack of space before anything was written; later commits may succeed.
    Full,
    /// The write failed and left nothing; read-only until reopened.
    IoLost,
    /// The write failed, yet the batch is there after the next crash or reopen.
    IoKept,
    /// A worker failed earlier, at a damaged file say: nothing was written; read-only until reopened.
    Poisoned,
}

/// How [`MemoryEngine::corrupt`] damages a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// One bit of the value is turned, counted from the first and wrapped at the value's length.
    FlipBit(usize),
    /// The value ends early.
    Truncate(usize),
    /// The row is gone.
    Vanish,
    /// Reading the row fails with [`EngineError::Corrupt`] until it is written again.
    Unreadable,
}

/// A deterministic engine in memory. Clones are handles to the same data.
#[derive(Clone, Default)]
pub struct MemoryEngine {
    state: Arc<Mutex<State>>,
}

type Rows = BTreeMap<Bytes, Bytes>;

/// A row and what it becomes; `None` is absence.
type Change = (Table, Bytes, Option<Bytes>);

#[derive(Clone, Default)]
struct State {
    tables: [Rows; Table::COUNT],
    unreadable: BTreeSet<(Table, Bytes)>,
    /// Per unsynced batch, oldest first, what it replaced.
    unsynced: VecDeque<Vec<Change>>,
    /// A batch whose commit failed, yet which the next start finds.
    doubtful: Option<Vec<Change>>,
    failures: VecDeque<FailKind>,
    /// Whether the next sync fails.
    fail_sync: bool,
    /// Whether the next reopen fails and leaves the engine closed.
    fail_reopen: bool,
    closed: bool,
    is_full: bool,
    read_only: bool,
    /// Whether a sync has failed since the last crash.
    lost: bool,
    commits: u64,
    syncs: u64,
    refused_full: u64,
}

impl MemoryEngine {
    /// An empty engine.
    pub fn new() -> MemoryEngine {
        MemoryEngine::default()
    }

    /// An independent copy of what is there now, as a copied data directory would hold: all of it
    /// counts as synced and no fault is ordered.
    pub fn snapshot(&self) -> MemoryEngine {
        let tables = self.state.lock().tables.clone();
        MemoryEngine { state: Arc::new(Mutex::new(State { tables, ..State::default() })) }
    }

    /// Puts back what `copy` holds, as restoring an old data directory does. Ordered faults stay.
    pub fn restore(&self, copy: &MemoryEngine) {
        let tables = copy.state.lock().tables.clone();
        let mut state = self.state.lock();
        state.tables = tables;
        state.unreadable.clear();
        state.unsynced.clear();
        state.doubtful = None;
        state.read_only = false;
        state.lost = false;
        state.closed = false;
    }

    /// Crashes and starts again: what `keep` says is there, ordered failures are forgotten, and
    /// the engine takes writes (unless it is still full). A commit that failed in doubt and is
    /// kept counts as the last unsynced batch.
    pub fn crash(&self, keep: CrashKeep) {
        let mut state = self.state.lock();
        match keep {
            CrashKeep::Committed => state.settle_doubt(),
            CrashKeep::Synced { unsynced } => {
                if unsynced > state.unsynced.len() {
                    state.settle_doubt();
                } else {
                    state.doubtful = None;
                }
                while state.unsynced.len() > unsynced {
                    let undo = state.unsynced.pop_back().expect("longer than `unsynced`");
                    state.apply(undo);
                }
                // What survived one loss of power is on the disk.
                state.unsynced.clear();
            }
        }
        state.failures.clear();
        state.fail_sync = false;
        state.fail_reopen = false;
        state.read_only = false;
        state.lost = false;
        state.closed = false;
    }

    /// The next commits fail, one per entry of `kinds`, after the failures already ordered.
    pub fn fail_next_commits(&self, kinds: impl IntoIterator<Item = FailKind>) {
        self.state.lock().failures.extend(kinds);
    }

    /// The next sync fails, alone or as part of a commit. What was not synced stays visible and
    /// can still be lost with the power; nothing is written until a crash.
    pub fn fail_next_sync(&self) {
        self.state.lock().fail_sync = true;
    }

    /// The next reopen fails and leaves the engine closed until one succeeds.
    pub fn fail_next_reopen(&self) {
        self.state.lock().fail_reopen = true;
    }

    /// While `full`, every commit but a vital one ([`Batch::is_vital`]) is refused before anything is
    /// written.
    pub fn set_full(&self, full: bool) {
        self.state.lock().is_full = full;
    }

    /// Damages the row under `key`; returns false, and changes nothing, if there is no such row or
    /// no such bit or byte to damage.
    pub fn corrupt(&self, table: Table, key: &[u8], how: Corruption) -> bool {
        let mut state = self.state.lock();
        let Some(value) = state.tables[table.index()].get(key).cloned() else {
            return false;
        };
        let key = Bytes::copy_from_slice(key);
        match how {
            Corruption::FlipBit(_) if value.is_empty() => return false,
            Corruption::FlipBit(bit) => {
                let mut bytes = value.to_vec();
                let at = bit / 8 % bytes.len();
                bytes[at] ^= 1 << (bit % 8);
                state.tables[table.index()].insert(key, bytes.into());
            }
            Corruption::Truncate(length) if length >= value.len() => return false,
            Corruption::Truncate(length) => {
                state.tables[table.index()].insert(key, value.slice(..length));
            }
            Corruption::Vanish => {
                state.tables[table.index()].remove(&key);
            }
            Corruption::Unreadable => {
                state.unreadable.insert((table, key));
            }
        }
        true
    }

    /// Decides now what becomes of a batch in doubt, and not when the engine is opened again: whoever looks
    /// sees it from here on, if it was kept.
    pub fn settle(&self) {
        self.state.lock().settle_doubt();
    }

    /// How many batches a loss of power could take now, the one in doubt not counted.
    pub fn unsynced(&self) -> usize {
        self.state.lock().unsynced.len()
    }
}

impl Engine for MemoryEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let state = self.state.lock();
        state.check_readable(table, key)?;
        Ok(state.tables[table.index()].get(key).cloned())
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
        let state = self.state.lock();
        let upper = end.map_or(Bound::Unbounded, Bound::Excluded);
        let rows = state.tables[table.index()].range::<[u8], _>((Bound::Included(start), upper));
        for (key, value) in rows.take(limit) {
            state.check_readable(table, key)?;
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        state.check_writable()?;
        if !batch.is_empty() {
            state.write(batch)?;
        }
        match durability {
            Durability::Os => Ok(()),
            Durability::Fsync => state.sync(),
        }
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.state.lock().sync()
    }

    fn reopen(&self) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        if state.lost {
            return Err(EngineError::Lost);
        }
        state.closed = core::mem::take(&mut state.fail_reopen);
        if state.closed {
            let kind = io::ErrorKind::Other;
            return Err(EngineError::Io { step: IoStep::Open, kind, os_code: None });
        }
        state.settle_doubt();
        state.read_only = false;
        // An engine syncs its journal when it opens.
        state.sync()
    }

    fn is_lost(&self) -> bool {
        self.state.lock().lost
    }

    fn stats(&self) -> EngineStats {
        let state = self.state.lock();
        let row_bytes = |rows: &Rows| -> usize {
            rows.iter().map(|(key, value)| key.len() + value.len()).sum()
        };
        EngineStats {
            disk_bytes: state.tables.iter().map(row_bytes).sum::<usize>() as u64,
            free_bytes: if state.is_full { 0 } else { u64::MAX },
            commits: state.commits,
            syncs: state.syncs,
            refused_full: state.refused_full,
            read_only: state.read_only,
            ..EngineStats::default()
        }
    }
}

impl State {
    fn write(&mut self, batch: &Batch) -> Result<(), EngineError> {
        if self.is_full && !batch.is_vital() {
            return Err(self.refuse_full());
        }
        match self.failures.pop_front() {
            None => {
                self.commits += 1;
                self.commit_changes(changes(batch));
                Ok(())
            }
            Some(FailKind::Full) => Err(self.refuse_full()),
            Some(FailKind::IoLost) => {
                self.read_only = true;
                Err(write_failed())
            }
            Some(FailKind::IoKept) => {
                self.read_only = true;
                self.doubtful = Some(changes(batch));
                Err(write_failed())
            }
            Some(FailKind::Poisoned) => {
                self.read_only = true;
                Err(EngineError::ReadOnly)
            }
        }
    }

    fn sync(&mut self) -> Result<(), EngineError> {
        self.check_writable()?;
        if core::mem::take(&mut self.fail_sync) {
            self.lost = true;
            let kind = io::ErrorKind::Other;
            return Err(EngineError::Io { step: IoStep::Sync, kind, os_code: None });
        }
        self.syncs += 1;
        self.unsynced.clear();
        Ok(())
    }

    fn check_writable(&self) -> Result<(), EngineError> {
        if self.lost {
            return Err(EngineError::Lost);
        }
        if self.closed {
            return Err(EngineError::Closed);
        }
        if self.read_only {
            return Err(EngineError::ReadOnly);
        }
        Ok(())
    }

    fn refuse_full(&mut self) -> EngineError {
        self.refused_full += 1;
        EngineError::Full { free_bytes: 0, reserve_bytes: 0, in_doubt: false }
    }

    fn settle_doubt(&mut self) {
        if let Some(changes) = self.doubtful.take() {
            self.commit_changes(changes);
        }
    }

    fn commit_changes(&mut self, changes: Vec<Change>) {
        let undo = self.apply(changes);
        self.unsynced.push_back(undo);
        if self.unsynced.len() > UNSYNCED_MAX {
            self.unsynced.pop_front();
        }
    }

    /// Makes `changes` and returns those that take them back.
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let mut undo = Vec::with_capacity(changes.len());
        for (table, key, value) in changes {
            if !self.unreadable.is_empty() {
                self.unreadable.remove(&(table, key.clone()));
            }
            let rows = &mut self.tables[table.index()];
            let before = match value {
                Some(value) => rows.insert(key.clone(), value),
                None => rows.remove(&key),
            };
            undo.push((table, key, before));
        }
        undo
    }

    fn check_readable(&self, table: Table, key: &[u8]) -> Result<(), EngineError> {
        if self.closed {
            return Err(EngineError::Closed);
        }
        // Almost always empty: the copy of the key is only made when damage was ordered.
        if !self.unreadable.is_empty()
            && self.unreadable.contains(&(table, Bytes::copy_from_slice(key)))
        {
            let what = format!("a row of {} bytes' key cannot be read", key.len());
            return Err(EngineError::Corrupt { table: Some(table), what });
        }
        Ok(())
    }
}

fn changes(batch: &Batch) -> Vec<Change> {
    batch
        .iter()
        .map(|op| match op {
            Op::Put { table, key, value } => {
                (table, Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)))
            }
            Op::Delete { table, key } => (table, Bytes::copy_from_slice(key), None),
        })
        .collect()
}

fn write_failed() -> EngineError {
    EngineError::Io { step: IoStep::Commit, kind: io::ErrorKind::Other, os_code: None }
}

#[cfg(test)]
mod tests;
