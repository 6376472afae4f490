//! Every record any node ever committed, by dot, and every tombstone that was collected.
//!
//! What the white-box oracles ask. It only grows, whatever the disks of the run lose, and it judges
//! nothing. Next to read: `oracles/mod.rs`.

use galvani_model::ids::{Origin, Shard};
use galvani_model::version::{Dot, DotSet, Kind, PartitionClock, Record, Version};
use std::collections::{BTreeMap, BTreeSet};

/// One dot, as it was first committed.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) shard: Shard,
    pub(crate) record: Record,
    /// The logical write of the history, if it is known.
    pub(crate) write: Option<usize>,
}

/// A collected tombstone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Burial {
    /// When it was first collected.
    pub(crate) at: u64,
    /// Its first dot.
    pub(crate) tombstone: Dot,
}

/// Every record any node ever committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<Dot, Entry>,
    by_key: BTreeMap<usize, Vec<Dot>>,
    /// Dots of tombstones that were collected and of all that these replaced: when, and by which.
    buried: BTreeMap<Dot, Vec<Burial>>,
}

impl Ledger {
    /// Notes a committed record of key number `key`. Says what is wrong if the dot names another.
    pub(crate) fn note(&mut self, key: usize, entry: Entry) -> Result<bool, String> {
        let dot = entry.record.head.dot;
        match self.entries.get(&dot) {
            Some(known) if known.record == entry.record && known.shard == entry.shard => Ok(false),
            Some(known) => {
                let (was, is) = (&known.record.head, &entry.record.head);
                Err(format!("{dot} names two records: {was:?} and {is:?}"))
            }
            None => {
                self.entries.insert(dot, entry);
                self.by_key.entry(key).or_default().push(dot);
                Ok(true)
            }
        }
    }

    pub(crate) fn entry(&self, dot: Dot) -> Option<&Entry> {
        self.entries.get(&dot)
    }

    /// The dots of a key, in the order in which they were first committed.
    pub(crate) fn dots_of(&self, key: usize) -> &[Dot] {
        self.by_key.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The records of a key, other writes than `write`, that replace one of `dots` and that `among`
    /// holds.
    pub(crate) fn replaced_by(
        &self,
        key: usize,
        write: Option<usize>,
        dots: &BTreeSet<Dot>,
        among: &dyn Fn(Dot) -> bool,
    ) -> Option<Dot> {
        let mut candidates = self.dots_of(key).iter().copied();
        candidates.find(|&dot| {
            let entry = &self.entries[&dot];
            entry.write != write && covers_any(&entry.record.head.past, dots) && among(dot)
        })
    }

    /// Notes that a tombstone of a key was collected.
    pub(crate) fn bury(&mut self, key: usize, tombstone: &Version, now: u64) {
        for &dot in self.by_key.get(&key).map_or(&[][..], Vec::as_slice) {
            if tombstone.dots.contains(&dot) || tombstone.past.contains(dot) {
                let burial = Burial { at: now, tombstone: tombstone.dots[0] };
                let known = self.buried.entry(dot).or_default();
                if known.iter().all(|one| one.tombstone != burial.tombstone) {
                    known.push(burial);
                }
            }
        }
    }

    /// The collected tombstones with which any of `dots` went.
    pub(crate) fn burials(&self, dots: &BTreeSet<Dot>) -> impl Iterator<Item = Burial> {
        dots.iter().flat_map(|&dot| self.burials_of(dot)).copied()
    }

    /// The collected tombstones with which `dot` went.
    pub(crate) fn burials_of(&self, dot: Dot) -> &[Burial] {
        self.buried.get(&dot).map_or(&[], Vec::as_slice)
    }

    /// Whether any of `dots` went with a tombstone that was collected.
    pub(crate) fn is_buried(&self, dots: &BTreeSet<Dot>) -> bool {
        self.burials(dots).next().is_some()
    }

    /// The highest counter of an origin that any node ever committed.
    pub(crate) fn max_counter(&self, origin: Origin) -> u64 {
        let dots = self.entries.range(Dot::new(origin, 0)..=Dot::new(origin, u64::MAX));
        dots.last().map_or(0, |(dot, _)| dot.counter)
    }

    /// What the tombstones in a clock replace: for each origin all up to a counter, and single ones.
    pub(crate) fn replaced_in(
        &self,
        clock: &PartitionClock,
    ) -> impl Iterator<Item = (Origin, u64, &[u64])> {
        let heads = self.entries.iter().filter(|(dot, _)| clock.contains(**dot));
        let heads = heads.map(|(_, entry)| &entry.record.head);
        heads.filter(|head| head.kind == Kind::Delete).flat_map(|head| head.past.iter())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Whether `set` holds any of `dots`.
pub(crate) fn covers_any(set: &DotSet, dots: &BTreeSet<Dot>) -> bool {
    dots.iter().any(|&dot| set.contains(dot))
}
