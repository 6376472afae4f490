//! A node's disk: the memory engine, and the lies a mutant tells about it.

use bytes::Bytes;
use galvani_storage::engine::{
    Batch, Durability, Engine, EngineError, EngineStats, MemoryEngine, Op, Table, Visit,
};

/// The memory engine as a node's store sees it.
#[derive(Clone)]
pub(crate) struct Disk {
    memory: MemoryEngine,
    /// Writes every batch in two halves (see `mutant.rs`).
    torn: bool,
}

impl Disk {
    pub(crate) fn new(torn: bool) -> Disk {
        Disk { memory: MemoryEngine::new(), torn }
    }

    /// The engine below, for faults and copies.
    pub(crate) fn memory(&self) -> &MemoryEngine {
        &self.memory
    }
}

impl Engine for Disk {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.memory.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
        visit: &mut Visit<'_>,
    ) -> Result<(), EngineError> {
        self.memory.scan(table, start, end, limit, visit)
    }

    fn commit(&self, batch: &Batch, durability: Durability) -> Result<(), EngineError> {
        if !self.torn {
            return self.memory.commit(batch, durability);
        }
        let (mut first, mut second) = (Batch::new(), Batch::new());
        for op in batch.iter() {
            match op {
                Op::Put { table: Table::Clocks, key, value } => {
                    second.put(Table::Clocks, key, value);
                }
                Op::Put { table, key, value } => first.put(table, key, value),
                Op::Delete { table, key } => first.delete(table, key),
            }
        }
        self.memory.commit(&first, durability)?;
        self.memory.commit(&second, durability)
    }

    fn sync(&self) -> Result<(), EngineError> {
        self.memory.sync()
    }

    fn reopen(&self) -> Result<(), EngineError> {
        self.memory.reopen()
    }

    fn is_lost(&self) -> bool {
        self.memory.is_lost()
    }

    fn stats(&self) -> EngineStats {
        self.memory.stats()
    }
}
