//! A batch: the operations that one commit makes true together.
//!
//! Keys and values are copied into one growing buffer that [`Batch::clear`] keeps, so a lane that
//! reuses its batch allocates nothing in steady state. A later operation on the same key of the
//! same table replaces the earlier one at once: engines need not order operations inside a batch.
//! Next to read: `fjall/mod.rs`, which commits it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Table;

/// The longest key, in bytes. Keys have at least one byte.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// The longest value, in bytes: 64 MiB, far above any row and far below the engine's own bound.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// Operations to be committed together.
#[derive(Default)]
pub struct Batch {
    arena: Vec<u8>,
    ops: Vec<Slot>,
    live: usize,
    latest: HashMap<u64, u32, BuildHasherDefault<Prehashed>>,
}

/// One operation of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// `key` has `value` from now on.
    Put {
        /// The table.
        table: Table,
        /// The row's key.
        key: &'a [u8],
        /// The row's value.
        value: &'a [u8],
    },
    /// `key` is absent from now on.
    Delete {
        /// The table.
        table: Table,
        /// The row's key.
        key: &'a [u8],
    },
}

#[derive(Clone)]
struct Slot {
    table: Table,
    key: Range<u32>,
    /// Empty for a delete.
    value: Range<u32>,
    kind: SlotKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SlotKind {
    Put,
    Delete,
    Replaced,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Adds: `key` has `value`. Panics if the key is empty or longer than [`KEY_BYTES_MAX`], or
    /// the value longer than [`VALUE_BYTES_MAX`]: callers bound their rows long before.
    pub fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        self.put_with(table, key, |buffer| buffer.extend_from_slice(value));
    }

    /// Like [`Batch::put`], with the value appended by `encode` straight into the batch's buffer.
    /// `encode` may only append.
    pub fn put_with(&mut self, table: Table, key: &[u8], encode: impl FnOnce(&mut Vec<u8>)) {
        let key = self.push_key(key);
        let start = self.arena.len();
        encode(&mut self.arena);
        let length = self.arena.len().checked_sub(start).expect("encode only appends");
        assert!(length <= VALUE_BYTES_MAX, "a value has at most {VALUE_BYTES_MAX} bytes");
        let value = offset(start)..offset(self.arena.len());
        self.push(Slot { table, key, value, kind: SlotKind::Put });
    }

    /// Adds: `key` is absent. Panics as [`Batch::put`] does.
    pub fn delete(&mut self, table: Table, key: &[u8]) {
        let key = self.push_key(key);
        self.push(Slot { table, key, value: 0..0, kind: SlotKind::Delete });
    }

    /// Removes all operations and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.ops.clear();
        self.latest.clear();
        self.live = 0;
    }

    /// How many operations count.
    pub fn len(&self) -> usize {
        self.live
    }

    /// True if a commit would change nothing.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether it only takes rows away, or writes facts about the store itself: votes, the layout, which
    /// buckets there are. Such a batch may use what is kept back of a full disk: without it a cluster
    /// whose disks are full could not be given more.
    pub fn is_vital(&self) -> bool {
        self.iter().all(|op| match op {
            Op::Put { table, .. } => table == Table::Meta,
            Op::Delete { .. } => true,
        })
    }

    /// Whether it writes facts about the store itself and nothing else.
    pub fn is_of_facts(&self) -> bool {
        self.iter().all(|op| match op {
            Op::Put { table, .. } | Op::Delete { table, .. } => table == Table::Meta,
        })
    }

    /// Bytes of keys and values held, replaced ones included: what the caller bounds ticks by.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The operations that count, each key of a table at most once, in order of their last change.
    pub fn iter(&self) -> impl Iterator<Item = Op<'_>> {
        self.ops.iter().filter_map(|slot| match slot.kind {
            SlotKind::Put => Some(Op::Put {
                table: slot.table,
                key: self.bytes_at(&slot.key),
                value: self.bytes_at(&slot.value),
            }),
            SlotKind::Delete => {
                Some(Op::Delete { table: slot.table, key: self.bytes_at(&slot.key) })
            }
            SlotKind::Replaced => None,
        })
    }

    fn push_key(&mut self, key: &[u8]) -> Range<u32> {
        assert!(
            !key.is_empty() && key.len() <= KEY_BYTES_MAX,
            "a key has 1 to {KEY_BYTES_MAX} bytes, not {}",
            key.len()
        );
        let start = offset(self.arena.len());
        self.arena.extend_from_slice(key);
        start..offset(self.arena.len())
    }

    fn push(&mut self, slot: Slot) {
        let index = u32::try_from(self.ops.len()).expect("every operation takes an arena byte");
        let mut hash = xxh3_64_with_seed(self.bytes_at(&slot.key), slot.table as u64);
        // Two keys with one 64-bit hash take the next free numbers, so equality stays exact.
        loop {
            let Some(&earlier) = self.latest.get(&hash) else {
                self.latest.insert(hash, index);
                self.live += 1;
                break;
            };
            let found = &self.ops[earlier as usize];
            if found.table == slot.table && self.bytes_at(&found.key) == self.bytes_at(&slot.key) {
                self.ops[earlier as usize].kind = SlotKind::Replaced;
                self.latest.insert(hash, index);
                break;
            }
            hash = hash.wrapping_add(1);
        }
        self.ops.push(slot);
    }

    fn bytes_at(&self, range: &Range<u32>) -> &[u8] {
        &self.arena[range.start as usize..range.end as usize]
    }
}

/// Offsets are 32 bits: a batch of 4 GiB is a broken bound upstream.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a batch stays below 4 GiB")
}

/// Passes an already uniform 64-bit hash through.
#[derive(Default)]
struct Prehashed(u64);

impl Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, Op};
    use crate::engine::Table;

    #[test]
    fn the_last_operation_on_a_key_counts() {
        let mut batch = Batch::new();
        batch.put(Table::Objects, b"a", b"1");
        batch.put(Table::Log, b"a", b"other table");
        batch.delete(Table::Objects, b"a");
        batch.put(Table::Objects, b"b", b"2");
        batch.put(Table::Objects, b"a", b"3");
        let ops: Vec<Op<'_>> = batch.iter().collect();
        assert_eq!(
            ops,
            [
                Op::Put { table: Table::Log, key: b"a", value: b"other table" },
                Op::Put { table: Table::Objects, key: b"b", value: b"2" },
                Op::Put { table: Table::Objects, key: b"a", value: b"3" },
            ]
        );
        assert_eq!(batch.len(), 3);
    }

    #[test]
    fn a_cleared_batch_is_empty_and_keeps_its_memory() {
        let mut batch = Batch::new();
        batch.put(Table::Log, b"k", &[7; 1000]);
        let capacity = batch.arena.capacity();
        batch.clear();
        assert!(batch.is_empty());
        assert_eq!(batch.iter().count(), 0);
        assert_eq!(batch.arena.capacity(), capacity);
    }

    #[test]
    fn what_takes_rows_away_or_tells_of_the_store_is_vital_and_nothing_else() {
        let mut batch = Batch::new();
        batch.put(Table::Meta, b"fact", b"1");
        batch.delete(Table::Objects, b"a");
        assert!(batch.is_vital() && !batch.is_of_facts());
        batch.put(Table::Objects, b"a", b"1");
        assert!(!batch.is_vital(), "it writes what users send");
        batch.delete(Table::Objects, b"a");
        assert!(batch.is_vital(), "not any more");
    }

    #[test]
    fn an_empty_value_is_not_a_delete() {
        let mut batch = Batch::new();
        batch.put(Table::Meta, b"k", b"");
        assert_eq!(
            batch.iter().collect::<Vec<_>>(),
            [Op::Put { table: Table::Meta, key: b"k", value: b"" }]
        );
    }

    #[test]
    #[should_panic(expected = "a key has 1 to")]
    fn an_empty_key_breaks_an_invariant() {
        Batch::new().put(Table::Meta, b"", b"x");
    }
}
