//! Every record any node ever committed, by dot: what the white-box oracles ask.

use galvani_model::ids::{Origin, Shard};
use galvani_model::version::{Dot, DotSet, Record};
use std::collections::{BTreeMap, BTreeSet};

/// One dot, as it was first committed.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) shard: Shard,
    pub(crate) record: Record,
    /// The logical write of the history, if it is known.
    pub(crate) write: Option<usize>,
}

/// Every record any node ever committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<Dot, Entry>,
    by_key: BTreeMap<usize, Vec<Dot>>,
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

    /// The highest counter of an origin that any node ever committed.
    pub(crate) fn max_counter(&self, origin: Origin) -> u64 {
        let dots = self.entries.range(Dot::new(origin, 0)..=Dot::new(origin, u64::MAX));
        dots.last().map_or(0, |(dot, _)| dot.counter)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Whether `set` holds any of `dots`.
pub(crate) fn covers_any(set: &DotSet, dots: &BTreeSet<Dot>) -> bool {
    dots.iter().any(|&dot| set.contains(dot))
}
