//! Rows that rot: one row of one replica's shard is damaged, and what becomes of it in the end.
//!
//! At most one row of a shard on a node, so that whatever is served can be held against what was
//! written. A damaged replica may answer nothing but that it is damaged, or that all is well because
//! its own row was written anew. Nothing mends a replica yet, so when the faults end the damaged shard
//! is emptied, as an operator would, and comes back from the others. Next to read: `faults.rs`.

use crate::node::state_in;
use crate::world::World;
use galvani_storage::engine::{Batch, Corruption, Durability, Engine, Table};
use galvani_storage::format::keys;
use std::ops::ControlFlow;

/// The tables of a shard.
const TABLES: [Table; 6] = [
    Table::Objects,
    Table::Log,
    Table::Arrivals,
    Table::RequestIds,
    Table::Clocks,
    Table::Tombstones,
];

impl World {
    /// Damages a row of a node's disk, if it has one that is not beside another damaged one.
    pub(crate) fn damage_row(&mut self, node: usize) {
        let (table, name) = self.dice.faults.pick(&[
            (Table::Objects, "fault.damaged_object"),
            (Table::Log, "fault.damaged_record"),
            (Table::Clocks, "fault.damaged_clock"),
        ]);
        let mut rows = self.rows(node, table, &[0]);
        let damaged = &self.nodes[node].damaged;
        rows.retain(|key| keys::shard_of(key).is_some_and(|shard| !damaged.contains_key(&shard)));
        if rows.is_empty() {
            return;
        }
        let key = rows.swap_remove(self.dice.faults.index(rows.len()));
        let at = self.dice.faults.below(4_096) as usize;
        let how = match (table, self.dice.faults.below(4)) {
            (_, 0) => Corruption::Truncate(at % 40),
            // A lost object row looks like absence: nothing on this replica can tell it yet.
            (Table::Log | Table::Clocks, 1) => Corruption::Vanish,
            (Table::Log | Table::Objects, 2) => Corruption::Unreadable,
            _ => Corruption::FlipBit(at),
        };
        let disk = self.nodes[node].disk.clone();
        if disk.memory().corrupt(table, &key, how)
            && let Some(shard) = keys::shard_of(&key)
        {
            self.coverage.add(name, 1);
            let now = self.now;
            self.trace.note(now, &[18, node as u64], || {
                format!("node {node}: {how:?} of a row of {shard} in {}", table.name())
            });
            self.nodes[node].damaged.insert(shard, table);
        }
    }

    /// Empties the shards of a node that have a damaged row. The node must be down.
    pub(crate) fn empty_damaged_shards(&mut self, node: usize) {
        assert!(self.nodes[node].is_down(), "only the disk of a node that is down is touched");
        let disk = self.nodes[node].disk.clone();
        // Rows that cannot be read could not be found either.
        disk.memory().restore(&disk.memory().snapshot());
        let mut batch = Batch::new();
        for (shard, of) in core::mem::take(&mut self.nodes[node].damaged) {
            if of == Table::Clocks && state_in(disk.memory(), shard).is_some() {
                // Written anew since, from what log and objects add up to.
                self.coverage.add("damage.clocks_mended", 1);
                continue;
            }
            self.coverage.add("damage.shards_emptied", 1);
            for table in TABLES {
                for key in self.rows(node, table, &keys::shard(shard)) {
                    if keys::shard_of(&key) == Some(shard) {
                        batch.delete(table, &key);
                    }
                }
            }
        }
        disk.memory().commit(&batch, Durability::Fsync).expect("a healthy disk in memory");
        self.nodes[node].clean = false;
        self.disk_changed(node);
    }

    /// The keys of a table from `start` on, as far as they can be read.
    fn rows(&self, node: usize, table: Table, start: &[u8]) -> Vec<Vec<u8>> {
        let mut rows = Vec::new();
        let mut see = |key: &[u8], _: &[u8]| {
            rows.push(key.to_vec());
            ControlFlow::Continue(())
        };
        // A row that cannot be read ends the scan: those before it are enough to choose from.
        let _ = self.nodes[node].disk.memory().scan(table, start, None, usize::MAX, &mut see);
        rows
    }
}
