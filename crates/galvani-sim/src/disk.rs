//! A node's disk: the memory engine, and the lies a mutant tells about it.
//!
//! Without a mutant every call passes untouched; oracles look at the engine below, never at this.
//! Next to read: `mutant.rs`, `damage.rs`.

use crate::mutant::Mutant;
use bytes::Bytes;
use galvani_storage::engine::{
    Batch, Durability, Engine, EngineError, EngineStats, IoStep, MemoryEngine, Op, Table, Visit,
};
use galvani_storage::format::{RowError, keys, rows};
use serde::de::IgnoredAny;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The memory engine as a node's store sees it.
#[derive(Clone)]
pub(crate) struct Disk {
    memory: MemoryEngine,
    mutant: Option<Mutant>,
    /// Whether it says of itself that every vote is on it that its node ever gave.
    voter: bool,
    /// Whether it opens, for all lanes of the node.
    opening: Arc<Opening>,
}

/// Whether an engine can be opened again after a failure. What is on the disk is not touched by it.
#[derive(Default)]
struct Opening {
    fails_next: AtomicBool,
    closed: AtomicBool,
}

impl Disk {
    pub(crate) fn new(mutant: Option<Mutant>, voter: bool) -> Disk {
        Disk { memory: MemoryEngine::new(), mutant, voter, opening: Arc::default() }
    }

    /// The engine below, for faults, copies and oracles.
    pub(crate) fn memory(&self) -> &MemoryEngine {
        &self.memory
    }

    /// The next time that it is opened again fails, and leaves it closed until one succeeds.
    pub(crate) fn fail_next_reopen(&self) {
        self.opening.fails_next.store(true, Relaxed);
    }

    /// A process starts: no failure of the one before is left.
    pub(crate) fn open_anew(&self) {
        self.opening.fails_next.store(false, Relaxed);
        self.opening.closed.store(false, Relaxed);
    }

    fn check_open(&self) -> Result<(), EngineError> {
        if self.opening.closed.load(Relaxed) { Err(EngineError::Closed) } else { Ok(()) }
    }

    /// What a mutant makes of a row that was read.
    fn tampered(&self, table: Table, key: &[u8], row: Option<Bytes>) -> Option<Bytes> {
        let damaged = row.as_ref().is_some_and(|row| is_damaged(key, row));
        match (self.mutant, table) {
            (Some(Mutant::StaleClocks), Table::Clocks) if damaged => {
                let stale = self.memory.get(Table::Meta, key);
                stale.ok().flatten().or(row)
            }
            (Some(Mutant::DamageIsAbsence), _) if damaged => None,
            (Some(Mutant::IgnoresChecksums), _) if damaged => row.map(|row| resealed(key, &row)),
            _ => row,
        }
    }

    /// The batch, and each clock row as it was before it (see [`Mutant::StaleClocks`]).
    fn with_stale_clocks(&self, batch: &Batch) -> Batch {
        let mut more = Batch::new();
        for op in batch.iter() {
            match op {
                Op::Put { table, key, value } => more.put(table, key, value),
                Op::Delete { table, key } => more.delete(table, key),
            }
            if let Op::Put { table: Table::Clocks, key, .. } = op
                && let Ok(Some(before)) = self.memory.get(Table::Clocks, key)
                && !is_damaged(key, &before)
            {
                more.put(Table::Meta, key, &before);
            }
        }
        more
    }

    fn commit_torn(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        let (mut first, mut second) = (Batch::new(), Batch::new());
        for op in batch.iter() {
            match op {
                Op::Put { table: table @ (Table::Clocks | Table::Arrivals), key, value } => {
                    second.put(table, key, value);
                }
                Op::Put { table, key, value } => first.put(table, key, value),
                Op::Delete { table, key } => first.delete(table, key),
            }
        }
        self.memory.commit(&first, durability)?;
        self.memory.commit(&second, durability)
    }
}

impl Engine for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.check_open()?;
        if self.voter && table == Table::Meta && key == keys::fact(b"voter") {
            let mut row = Vec::new();
            rows::put(key, &b"1".to_vec(), &mut row);
            return Ok(Some(row.into()));
        }
        match self.memory.get(table, key) {
            Err(EngineError::Corrupt { .. }) if self.mutant == Some(Mutant::DamageIsAbsence) => {
                Ok(None)
            }
            row if self.mutant.is_none() => row,
            row => Ok(self.tampered(table, key, row?)),
        }
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.check_open()?;
        if self.mutant == Some(Mutant::StaleClocks) && table == Table::Arrivals {
            let clock = &start[..keys::SHARD_BYTES.min(start.len())];
            let row = self.memory.get(Table::Clocks, clock).ok().flatten();
            if row.is_some_and(|row| is_damaged(clock, &row)) {
                return Ok(());
            }
        }
        self.memory.scan(table, start, end, limit, visit)
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        self.check_open()?;
        let committed = match self.mutant {
            Some(Mutant::TornBatches) => self.commit_torn(batch, durability),
            Some(Mutant::StaleClocks) => {
                self.memory.commit(&self.with_stale_clocks(batch), durability)
            }
            _ => self.memory.commit(batch, durability),
        };
        if committed.is_err() {
            // What the disk has of it is known to the oracles at once, whenever it is opened again.
            self.memory.settle();
        }
        committed
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.check_open()?;
        self.memory.sync()
    }

    fn reopen(&self) -> Result<(), EngineError> {
        self.memory.reopen()?;
        let fails = self.opening.fails_next.swap(false, Relaxed);
        self.opening.closed.store(fails, Relaxed);
        if fails {
            let kind = io::ErrorKind::Other;
            return Err(EngineError::Io { step: IoStep::Open, kind, os_code: None });
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.memory.is_lost()
    }

    fn stats(&self) -> EngineStats {
        self.memory.stats()
    }
}

/// Whether the store would find a row damaged by its checksum.
fn is_damaged(key: &[u8], row: &[u8]) -> bool {
    matches!(rows::get::<IgnoredAny>(key, row), Err(RowError::Checksum | RowError::Short))
}

/// A row with the checksum that its bytes should have had.
fn resealed(key: &[u8], row: &[u8]) -> Bytes {
    let sealed = &row[..row.len().saturating_sub(4)];
    let crc = key.iter().chain(sealed).fold(!0u32, |crc, &byte| crc32c_byte(crc, byte));
    [sealed, &(!crc).to_le_bytes()].concat().into()
}

fn crc32c_byte(crc: u32, byte: u8) -> u32 {
    (0..8).fold(
        crc ^ u32::from(byte),
        |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
        },
    )
}
