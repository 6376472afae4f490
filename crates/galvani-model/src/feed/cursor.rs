//! How far a consumer is in the feed of one shard: the exact set of writes it is done with.
//!
//! Positions join: two members of a group that were handed the same shard commit theirs in any order,
//! and nothing that either is done with comes again. Next to read: `token.rs`.

use crate::version::{Dot, DotSet, PartitionClock, Range};
use serde::{Deserialize, Serialize};

/// A consumer's position in one shard.
///
/// Laws: [`Cursor::join`] is commutative, associative and idempotent, the empty position is neutral;
/// of two with different [`Cursor::resets`] the one with more stands alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// How often the consumer was put somewhere else on purpose (a rewind, say).
    pub resets: u32,
    /// Writes that were delivered, or passed over because the consumer did not ask for them.
    delivered: PartitionClock,
    /// Writes that were not delivered although something that replaces them was. Should one still
    /// come, it is marked late.
    owed: PartitionClock,
}

impl Cursor {
    /// The position of a consumer that is done with exactly these writes.
    pub fn at(delivered: PartitionClock) -> Cursor {
        Cursor { resets: 0, delivered, owed: PartitionClock::new() }
    }

    /// The beginning, after so many [`Cursor::resets`].
    pub fn anew(resets: u32) -> Cursor {
        Cursor { resets, ..Cursor::default() }
    }

    /// What it is done with.
    pub fn delivered(&self) -> &PartitionClock {
        &self.delivered
    }

    /// What is overdue.
    pub fn owed(&self) -> &PartitionClock {
        &self.owed
    }

    /// How many ranges it holds: what it costs in memory, in units of some 50 bytes.
    pub fn range_count(&self) -> usize {
        self.delivered.range_count() + self.owed.range_count()
    }

    /// Whether `dot`, should it be delivered now, comes after something that replaces it.
    pub fn is_late(&self, dot: Dot) -> bool {
        self.owed.contains(dot)
    }

    /// It is done with `dot`.
    pub fn deliver(&mut self, dot: Dot) {
        self.delivered.insert(dot);
    }

    /// It is done with all of `done`.
    pub fn pass(&mut self, done: &PartitionClock) {
        self.delivered.union(done);
    }

    /// Something that replaces all of `past` is delivered: what of `past` was not is overdue.
    pub fn owe(&mut self, past: &DotSet) {
        for range in self.delivered.lacks(past) {
            self.owed.insert_range(range);
        }
    }

    /// These writes are overdue.
    pub fn owe_all(&mut self, owed: &PartitionClock) {
        self.owed.union(owed);
    }

    /// What `taken_in` has and it is not done with, ascending per origin.
    pub fn pending(&self, taken_in: &PartitionClock) -> Vec<Range> {
        self.delivered.missing_from(taken_in)
    }

    /// Is done with whatever either is done with.
    pub fn join(&mut self, other: &Cursor) {
        if other.resets > self.resets {
            *self = other.clone();
        } else if other.resets == self.resets {
            self.delivered.union(&other.delivered);
            self.owed.union(&other.owed);
            self.settle();
        }
    }

    /// Forgets what was overdue and has been delivered since. Positions are equal after it whenever
    /// they mean the same.
    pub fn settle(&mut self) {
        if !self.owed.is_empty() {
            self.owed = self.delivered.missing_from(&self.owed).into_iter().collect();
        }
    }
}
