//! What a commit brings to a disk, noted in the ledger and judged in the same instant.
//!
//! Called before any effect of the tick leaves, so that oracles know every record that a message may name. It
//! decides nothing. Next to read: `drive.rs`, `ledger.rs`.

use crate::ledger::Entry;
use crate::oracles::{buried, dense, expiry, handed, trimmed};
use crate::packet::LaneAt;
use crate::store::{Staged, StagedHints};
use crate::world::{World, at};
use galvani_model::ids::Shard;
use galvani_model::version::{Dot, Kind, Version};

impl World {
    /// Changes are on a node's disk.
    pub(crate) fn note_committed(&mut self, to: LaneAt, staged: &[Staged]) {
        for change in staged {
            let head = &change.record.head;
            let dot = head.dot;
            self.nodes[to.node].unsynced.insert((change.shard, dot));
            let Some(&key) = self.key_index.get(&head.key) else {
                self.violate("invention", format!("{dot} is of {}, no key of the run", head.key));
                return;
            };
            let write = self.history.by_rid.get(&head.rid).copied();
            self.trace.mix(head.dot.counter ^ head.dot.origin.0 as u64);
            let entry = Entry { shard: change.shard, record: change.record.clone(), write };
            match self.ledger.note(key, entry) {
                Ok(false) => {}
                Ok(true) => self.note_first(dot, write),
                Err(why) if change.minted => {
                    if self.is_unknowable(to.node, change.shard, dot) {
                        self.coverage.add("ended.unknowable_amnesia", 1);
                        self.ended = true;
                        return;
                    }
                    self.violate("one_dot_one_record", why);
                }
                Err(why) => self.violate("one_dot_one_record", why),
            }
            self.nodes[to.node].minted |= change.minted;
            if change.minted
                && let Some(why) = dense::check(&self.nodes[to.node], change.shard)
            {
                self.violate("dense_own_counter", format!("{}: {why}", at(to)));
            }
        }
    }

    /// Hints came, or went.
    pub(crate) fn note_hints(&mut self, node: usize, hints: &StagedHints) {
        self.coverage.add("hints.held", hints.held.len() as u64);
        self.coverage.add("hints.released", hints.released.len() as u64);
        for &(owner, shard, dot) in &hints.held {
            self.nodes[node].unsynced.insert((shard, dot));
            self.note_promised(node, owner, shard, dot);
        }
        for &(target, shard, dot) in &hints.released {
            self.note_given(node, target, shard, dot);
            if let Err(why) = handed::check(self, node, target, shard, dot) {
                self.violate("handed_over_durably", why);
                return;
            }
        }
    }

    /// Versions were collected.
    pub(crate) fn note_collected(&mut self, node: usize, collected: &[(Shard, Version)]) {
        for (shard, tombstone) in collected {
            match tombstone.kind {
                Kind::Delete => self.coverage.add("tombstones.collected", 1),
                Kind::Put => self.coverage.add("expired.collected", 1),
                Kind::Emit => self.violate("no_version", "events became a version".into()),
            }
            if let Err(why) = expiry::over(self, node, tombstone) {
                self.violate("collected_after_its_end", why);
                return;
            }
            if let Err(why) = buried::proven(self, *shard, tombstone) {
                self.violate("collected_by_proof", why);
                return;
            }
            let entry = self.ledger.entry(tombstone.dots[0]);
            let key = entry.and_then(|entry| self.key_index.get(&entry.record.head.key));
            if let Some(&key) = key {
                self.ledger.bury(key, tombstone, self.now);
            }
        }
    }

    /// Records were trimmed.
    pub(crate) fn note_trimmed(&mut self, node: usize, trimmed: &[(Shard, Dot)]) {
        self.coverage.add("records.trimmed", trimmed.len() as u64);
        for &(shard, dot) in trimmed {
            if let Err(why) = trimmed::needless(self, node, shard, dot) {
                self.violate("trimmed_by_proof", why);
                return;
            }
        }
    }

    fn note_first(&mut self, dot: Dot, write: Option<usize>) {
        self.coverage.add("records", 1);
        let Some(number) = write else {
            self.violate("invention", format!("{dot} has a request id that no client chose"));
            return;
        };
        let ends_ms = self.ledger.entry(dot).map(|entry| entry.record.head.expires_ms);
        let write = &mut self.history.writes[number];
        if ends_ms != Some(write.expires_ms) {
            let what = format!("write {number} ends at {}, {dot} at {ends_ms:?}", write.expires_ms);
            return self.violate("expiry_as_asked", what);
        }
        write.dots.insert(dot);
        if write.dots.len() == 2 {
            self.coverage.add("writes.with_aliases", 1);
        }
        if write.impossible || self.history.is_denied(number) {
            let details = format!("write {number} was answered \"never stored\", yet {dot} is");
            self.violate("denied_stays_absent", details);
        }
    }
}
