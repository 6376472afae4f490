//! Hints that the engine cannot read: what lies behind a damaged part of a file is not held up by it.
//!
//! A scan that meets one ends there. The first key from which it goes on is looked for by growing steps and
//! then by halves, since nothing tells where the part ends; the gap is remembered, counted as one damaged row
//! and reported. What it hides is lost to this node, as is what other files have of those keys: they are read
//! together. It never deletes anything. Next to read: `hints.rs`; `galvani repair` finds the file.

use super::{NodeStore, store_error};
use crate::engine::{Engine, EngineError, Table, Visit};
use crate::format::RowError;
use galvani_model::store::StoreError;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// From which keys on scans go on, each with the first one known from which they did not get there.
pub(super) type Gaps = BTreeMap<Vec<u8>, Vec<u8>>;

/// Bytes of a hint's key: positions between two keys are counted as numbers of so many bytes.
const WIDTH: usize = 43;
/// Gaps of one scan that are looked for exactly; each one after them begins with larger steps, so that a
/// file full of damage is soon behind.
const EXACT: usize = 16;
/// How much larger, in bits.
const COARSER_BITS: usize = 4;

type Position = [u8; WIDTH];

impl<E: Engine> NodeStore<E> {
    /// [`Engine::scan`] of all hints in a range, past what cannot be read. Whether a new gap was met.
    pub(super) fn scan_hints(
        &mut self,
        start: &[u8],
        end: Option<&[u8]>,
        visit: &mut Visit<'_>,
    ) -> Result<bool, StoreError> {
        let (mut from, mut met, mut is_new) = (start.to_vec(), 0, false);
        loop {
            let mut last: Option<Vec<u8>> = None;
            let mut look = |key: &[u8], row: &[u8]| {
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(key);
                visit(key, row)
            };
            let scanned = self.engine.scan(Table::Hints, &from, end, usize::MAX, &mut look);
            let error = match scanned {
                Ok(()) => return Ok(is_new),
                Err(EngineError::Corrupt { what, .. }) => RowError::Unreadable { why: what },
                Err(error) => return Err(store_error(error)),
            };
            if let Some(mut last) = last {
                last.push(0);
                from = last;
            }
            let known =
                self.hints.gaps.range::<Vec<u8>, _>((Bound::Excluded(&from), Bound::Unbounded));
            let known = known.take(1).find(|(_, first)| **first <= from);
            let over = match known {
                Some((over, _)) => over.clone(),
                None => {
                    let coarse = COARSER_BITS * (met + 1usize).saturating_sub(EXACT);
                    let over = self.next_readable(&from, coarse)?;
                    if self.hints.gaps.insert(over.clone(), from).is_none() {
                        self.quarantine("hints".to_owned(), &error);
                        is_new = true;
                    }
                    over
                }
            };
            met += 1;
            if end.is_some_and(|end| *over >= *end) {
                return Ok(is_new);
            }
            from = over;
        }
    }

    /// A key after `from` at which a scan can begin, close to the first one: the steps begin with
    /// `coarse` bits.
    fn next_readable(&self, from: &[u8], coarse: usize) -> Result<Vec<u8>, StoreError> {
        let mut unread = position(from);
        let mut step = coarse;
        let mut read = loop {
            let next = plus(unread, step);
            if next == Position::from([u8::MAX; WIDTH]) || self.reads_from(&next)? {
                break next;
            }
            (unread, step) = (next, step + 1);
        };
        loop {
            let middle = middle(unread, read);
            if middle == unread {
                return Ok(read.to_vec());
            }
            match self.reads_from(&middle)? {
                true => read = middle,
                false => unread = middle,
            }
        }
    }

    fn reads_from(&self, key: &[u8]) -> Result<bool, StoreError> {
        let mut first = |_: &[u8], _: &[u8]| ControlFlow::Break(());
        match self.engine.scan(Table::Hints, key, None, 1, &mut first) {
            Ok(()) => Ok(true),
            Err(EngineError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(store_error(error)),
        }
    }
}

/// The position of a key, or the one before it if it is longer than one.
fn position(key: &[u8]) -> Position {
    let mut position = [0; WIDTH];
    let known = key.len().min(WIDTH);
    position[..known].copy_from_slice(&key[..known]);
    position
}

/// `position` and two to the power of `bit`, at most the last one.
fn plus(mut position: Position, bit: usize) -> Position {
    let Some(at) = (WIDTH - 1).checked_sub(bit / 8) else { return [u8::MAX; WIDTH] };
    let mut carry = 1u8 << (bit % 8);
    for byte in position[..=at].iter_mut().rev() {
        let (sum, over) = byte.overflowing_add(carry);
        *byte = sum;
        if !over {
            return position;
        }
        carry = 1;
    }
    [u8::MAX; WIDTH]
}

/// The position in the middle, `low` if there is none between them.
fn middle(low: Position, high: Position) -> Position {
    let (mut sum, mut carry) = ([0; WIDTH], 0);
    for at in (0..WIDTH).rev() {
        let both = u16::from(low[at]) + u16::from(high[at]) + carry;
        (sum[at], carry) = (both as u8, both >> 8);
    }
    for byte in &mut sum {
        let halved = (carry as u8) << 7 | *byte >> 1;
        (*byte, carry) = (halved, u16::from(*byte & 1));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{Position, WIDTH, middle, plus, position};
    use proptest::{prop_assert_eq, proptest};

    fn last_bytes(number: u128) -> Position {
        let mut position = [0; WIDTH];
        position[WIDTH - 16..].copy_from_slice(&number.to_be_bytes());
        position
    }

    proptest! {
        #[test]
        fn positions_are_numbers(low in 0..u128::MAX / 2, high in 0..u128::MAX / 2, bit in 0..120usize) {
            let (low, high) = (low.min(high), low.max(high));
            prop_assert_eq!(middle(last_bytes(low), last_bytes(high)), last_bytes(low.midpoint(high)));
            prop_assert_eq!(plus(last_bytes(low), bit), last_bytes(low + (1 << bit)));
        }
    }

    #[test]
    fn the_last_position_is_the_end() {
        let last = [u8::MAX; WIDTH];
        assert_eq!(plus(last, 0), last);
        assert_eq!(plus(last_bytes(1), WIDTH * 8), last);
        assert_eq!(middle(last, last), last);
        assert_eq!(position(&[7; WIDTH + 1]), [7; WIDTH]);
    }
}
