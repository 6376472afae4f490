//! An exact set of dots: per origin a base (all of 1..=base) and a cloud of single dots above it.
//!
//! Exact means: it names only dots it was given, or that [`DotSet::compress`] proved harmless.
//! A plain version vector would claim dots of the same key that its holder never saw, because
//! counters are partition-wide and a key's dots have holes; that loses updates silently.
//! Next to read: `clock.rs`. Source: Preguica et al. 2010; version vectors with exceptions.

use super::clock::PartitionClock;
use super::dot::Dot;
use crate::ids::Origin;
use core::fmt;
use serde::{Deserialize, Serialize, Serializer};

/// An exact set of dots. The derived equality is set equality: the form is canonical.
///
/// Laws: [`DotSet::union`] is commutative, associative and idempotent, the empty set is neutral.
#[derive(Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "Vec<Entry>")]
pub struct DotSet {
    /// Sorted by origin; no entry is empty.
    entries: Vec<Entry>,
}

/// One origin's part: all of `1..=base`, and each counter in `cloud` (sorted, all above base + 1).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Entry {
    origin: Origin,
    base: u64,
    cloud: Vec<u64>,
}

/// Why bytes do not spell a dot set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical dot set")]
pub struct DotSetError;

impl DotSet {
    /// The empty set.
    pub fn new() -> DotSet {
        DotSet::default()
    }

    /// Adds one dot. Returns true if it was not in the set.
    pub fn insert(&mut self, dot: Dot) -> bool {
        let entry = self.entry(dot.origin);
        if entry.contains(dot.counter) {
            return false;
        }
        if let Err(at) = entry.cloud.binary_search(&dot.counter) {
            entry.cloud.insert(at, dot.counter);
        }
        entry.absorb();
        true
    }

    /// Adds all of `1..=counter` of an origin; counter 0 adds nothing.
    pub fn insert_through(&mut self, origin: Origin, counter: u64) {
        if counter == 0 {
            return;
        }
        let entry = self.entry(origin);
        entry.base = entry.base.max(counter);
        entry.absorb();
    }

    /// Adds every dot of `other`.
    pub fn union(&mut self, other: &DotSet) {
        for theirs in &other.entries {
            let entry = self.entry(theirs.origin);
            entry.base = entry.base.max(theirs.base);
            entry.cloud.extend_from_slice(&theirs.cloud);
            entry.cloud.sort_unstable();
            entry.cloud.dedup();
            entry.absorb();
        }
    }

    /// Moves cloud dots into the base where `seen`, the clock of the replica that answers, has
    /// every counter below them: such a dot of the same key is either shown by that replica or
    /// replaced there, so claiming it is exact for the reader. Never claims anything else.
    pub fn compress(&mut self, seen: &PartitionClock) {
        for entry in &mut self.entries {
            let reach = seen.contiguous_after(entry.origin, entry.base);
            let covered = entry.cloud.iter().take_while(|&&counter| counter <= reach).count();
            if covered > 0 {
                entry.base = entry.cloud[covered - 1];
                entry.cloud.drain(..covered);
                entry.absorb();
            }
        }
    }

    /// Whether the set holds `dot`.
    pub fn contains(&self, dot: Dot) -> bool {
        match self.position(dot.origin) {
            Ok(at) => self.entries[at].contains(dot.counter),
            Err(_) => false,
        }
    }

    /// Whether the set holds every dot of `other`.
    pub fn includes(&self, other: &DotSet) -> bool {
        other.entries.iter().all(|theirs| match self.position(theirs.origin) {
            Ok(at) => {
                let ours = &self.entries[at];
                let range = ours.base < theirs.base;
                let rest = (ours.base + 1)..=theirs.base;
                (!range || rest.clone().all(|counter| ours.contains(counter)))
                    && theirs.cloud.iter().all(|&counter| ours.contains(counter))
            }
            Err(_) => false,
        })
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many origins it names.
    pub fn origins(&self) -> usize {
        self.entries.len()
    }

    /// Per origin: the origin, its base, and the cloud above it, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, u64, &[u64])> {
        self.entries.iter().map(|entry| (entry.origin, entry.base, entry.cloud.as_slice()))
    }

    /// The highest counter the set names of `origin`, 0 for none.
    pub fn max_counter(&self, origin: Origin) -> u64 {
        match self.position(origin) {
            Ok(at) => self.entries[at].max(),
            Err(_) => 0,
        }
    }

    fn position(&self, origin: Origin) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.origin.cmp(&origin))
    }

    /// The entry of `origin`, made empty if absent; the caller adds to it at once.
    fn entry(&mut self, origin: Origin) -> &mut Entry {
        let at = match self.position(origin) {
            Ok(at) => at,
            Err(at) => {
                self.entries.insert(at, Entry { origin, base: 0, cloud: Vec::new() });
                at
            }
        };
        &mut self.entries[at]
    }
}

impl Entry {
    fn contains(&self, counter: u64) -> bool {
        (counter >= 1 && counter <= self.base) || self.cloud.binary_search(&counter).is_ok()
    }

    fn max(&self) -> u64 {
        self.cloud.last().copied().unwrap_or(self.base)
    }

    /// Restores the canonical form: the cloud starts above base + 1.
    fn absorb(&mut self) {
        let mut taken = 0;
        for &counter in &self.cloud {
            if counter > self.base.saturating_add(1) {
                break;
            }
            self.base = self.base.max(counter);
            taken += 1;
        }
        self.cloud.drain(..taken);
    }

    fn is_canonical(&self) -> bool {
        let ascending = self.cloud.windows(2).all(|pair| pair[0] < pair[1]);
        let above = self.cloud.first().is_none_or(|&first| first > self.base.saturating_add(1));
        ascending && above && (self.base > 0 || !self.cloud.is_empty())
    }
}

// By hand: the derived way through `Vec<Entry>` would copy the set each time that it is written.
impl Serialize for DotSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entries.serialize(serializer)
    }
}

impl TryFrom<Vec<Entry>> for DotSet {
    type Error = DotSetError;
    fn try_from(entries: Vec<Entry>) -> Result<DotSet, DotSetError> {
        let ordered = entries.windows(2).all(|pair| pair[0].origin < pair[1].origin);
        if ordered && entries.iter().all(Entry::is_canonical) {
            Ok(DotSet { entries })
        } else {
            Err(DotSetError)
        }
    }
}

impl FromIterator<Dot> for DotSet {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> DotSet {
        let mut set = DotSet::new();
        for dot in dots {
            set.insert(dot);
        }
        set
    }
}

impl fmt::Display for DotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, entry) in self.entries.iter().enumerate() {
            let gap = if index == 0 { "" } else { " " };
            write!(f, "{gap}{}:{}", entry.origin.short(), entry.base)?;
            for counter in &entry.cloud {
                write!(f, "+{counter}")?;
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for DotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
