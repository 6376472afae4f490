//! Rows that rot: one row of one replica's shard is damaged, and what becomes of it in the end.
//!
//! At most one row of a shard on a node, so that whatever is served can be held against what was
//! written. A damaged replica may answer nothing but that it is damaged, or that all is well because
//! its own row was written anew. Where anti-entropy runs, the replicas mend themselves when the faults
//! end, and a row that is lost without a trace is found by its digest; a record that no owner can read
//! any more is all that may be left. Elsewhere the damaged shard is emptied, as an operator would, and
//! comes back from the others. Next to read: `faults.rs`.

use crate::node::state_in;
use crate::packet::LaneAt;
use crate::rng::Rng;
use crate::world::World;
use galvani_model::store::{Damage, Store};
use galvani_model::version::{Object, Version};
use galvani_protocol::Input;
use galvani_storage::engine::{Batch, Corruption, Durability, Engine, MemoryEngine, Table};
use galvani_storage::format::{keys, rows};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// The tables of a shard.
const TABLES: [Table; 7] = [
    Table::Objects,
    Table::Log,
    Table::Arrivals,
    Table::RequestIds,
    Table::Clocks,
    Table::Tombstones,
    Table::Expiring,
];

/// Separates these draws from all others of a seed.
const LOST_LABEL: u64 = 0x6c6f_7374;

/// Whether an object row holds lasting values and nothing else.
fn holds_values(memory: &MemoryEngine, key: &[u8]) -> bool {
    let row = memory.get(Table::Objects, key).ok().flatten();
    let object = row.and_then(|row| rows::get::<Object>(key, &row).ok());
    object.is_some_and(|object| object.versions().iter().all(Version::is_lasting))
}

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
            if (table, how) == (Table::Log, Corruption::Vanish) {
                self.vanished.extend(keys::dot_of_log(&key));
            }
            let now = self.now;
            self.trace.note(now, &[18, node as u64], || {
                format!("node {node}: {how:?} of a row of {shard} in {}", table.name())
            });
            self.nodes[node].damaged.insert(shard, table);
        }
    }

    /// An operator asks for a repair everywhere; whatever some owner can still read must be whole
    /// again afterwards, and what cannot be is emptied.
    pub(crate) fn mend_damage(&mut self) {
        if !self.has_anti_entropy() || self.is_over() {
            return;
        }
        self.come_to_rest("before the repair");
        self.lose_object();
        if !self.planted && self.nodes.iter().all(|node| node.damaged.is_empty()) {
            return;
        }
        for node in 0..self.nodes.len() {
            for lane in 0..self.nodes[node].lanes.len() {
                self.push_input(LaneAt { node, lane }, Input::Verify(None));
            }
        }
        self.come_to_rest("after the repair");
        for node in 0..self.nodes.len() {
            self.judge_damage(node);
        }
        self.run_until(self.now + 5_000_000);
    }

    /// Takes an object row away without a trace: on one replica, of a shard that is whole.
    fn lose_object(&mut self) {
        let mut rng = Rng::new(self.seed, LOST_LABEL);
        if !self.profile.faults.damage || !rng.chance(700) || self.is_over() {
            return;
        }
        let node = rng.index(self.nodes.len());
        let mut rows = self.rows(node, Table::Objects, &[0]);
        let nodes = &self.nodes;
        rows.retain(|key| {
            keys::shard_of(key).is_some_and(|shard| {
                shard.n > 1 && nodes.iter().all(|node| !node.damaged.contains_key(&shard))
            })
        });
        // Only values are held again: a tombstone that is lost stays lost.
        let disk = self.nodes[node].disk.clone();
        rows.retain(|key| holds_values(disk.memory(), key));
        if rows.is_empty() {
            return;
        }
        let key = rows.swap_remove(rng.index(rows.len()));
        self.planted = disk.memory().corrupt(Table::Objects, &key, Corruption::Vanish);
        self.coverage.add("fault.lost_object", u64::from(self.planted));
        let now = self.now;
        self.trace.note(now, &[19, node as u64], || format!("node {node} loses an object row"));
    }

    /// Damage that is left on a node must be damage that nobody could mend.
    fn judge_damage(&mut self, node: usize) {
        if self.is_over() {
            return;
        }
        let mut left: BTreeSet<Damage> = BTreeSet::new();
        for slot in &mut self.nodes[node].lanes {
            left.extend(slot.store.inner().damaged().iter().cloned());
        }
        for row in &left {
            if self.could_be_mended(node, row, &left) {
                let what =
                    format!("node {node}: {row:?} could be read elsewhere, and is not mended");
                self.violate("mends", what);
                return;
            }
        }
        let of: BTreeSet<_> = left.iter().map(Damage::shard).collect();
        let damaged = &mut self.nodes[node].damaged;
        self.coverage
            .add("damage.mended", damaged.keys().filter(|key| !of.contains(key)).count() as u64);
        damaged.retain(|shard, _| of.contains(shard));
        if !of.is_empty() {
            for shard in of {
                self.nodes[node].damaged.entry(shard).or_insert(Table::Log);
            }
            self.crash(node, "fault.damage_taken_out");
            self.empty_damaged_shards(node);
            self.start_node(node);
        }
    }

    fn could_be_mended(&mut self, node: usize, row: &Damage, left: &BTreeSet<Damage>) -> bool {
        let log_is_damaged =
            |of| left.iter().any(|row| matches!(row, Damage::Record(shard, _) if *shard == of));
        match row {
            Damage::Record(shard, dot) => {
                let owners = self.layout.owners(*shard);
                let others: Vec<usize> =
                    owners.iter().map(|id| self.by_id[id]).filter(|&other| other != node).collect();
                let lane = usize::from(shard.partition.0 % self.profile.lanes);
                others.into_iter().any(|other| {
                    let store = self.nodes[other].lanes[lane].store.inner();
                    matches!(store.record(*shard, *dot), Ok(Some(_)))
                })
            }
            Damage::Object(shard, _) | Damage::Request(shard, _) => !log_is_damaged(*shard),
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
            batch.delete(Table::Meta, &keys::trimmed(shard));
        }
        disk.memory().commit(&batch, Durability::Fsync).expect("a healthy disk in memory");
        self.nodes[node].clean = false;
        self.disk_changed(node);
        self.nodes[node].lost_unnoticed_at = Some(self.now);
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
