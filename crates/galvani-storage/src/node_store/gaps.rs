//! Hints that the engine cannot read: what lies behind a damaged part of a file is not held up by it.
//!
//! A scan that meets one ends, before it or a few rows early. Where it begins and ends is looked for by
//! growing steps and then by halves, since nothing else tells; the gap is remembered, counted as one damaged
//! row and reported. What it hides is lost to this node, as is what other files have of those keys: they
//! are read together. Nothing is held there from then on. It never deletes anything.
//! Next to read: `hints.rs`; `galvani repair` finds the file.

use super::{NodeStore, store_error};
use crate::engine::{Engine, EngineError, Table, Visit};
use crate::format::{RowError, keys};
use galvani_model::store::StoreError;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// By the first key behind each gap, the first one in it.
pub(super) type Gaps = BTreeMap<Vec<u8>, Vec<u8>>;

/// Positions between two keys are counted as numbers of so many bytes.
const WIDTH: usize = keys::HINT_BYTES;
/// Gaps of one scan that are looked for exactly; each one after them begins with larger steps, so that a
/// file full of damage is soon behind.
const EXACT: usize = 16;
/// How much larger, in bits.
const COARSER_BITS: usize = 4;

type Position = [u8; WIDTH];

const LAST: Position = [u8::MAX; WIDTH];

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
            // As far as the next gap, if the range goes so far.
            let gap = self.next_gap(&from);
            let gap = gap.filter(|(first, _)| end.is_none_or(|end| **first < *end));
            let until = gap.as_ref().map(|(first, _)| &first[..]).or(end);
            let (mut last, mut broke): (Option<Vec<u8>>, _) = (None, false);
            let mut look = |key: &[u8], row: &[u8]| {
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(key);
                let flow = visit(key, row);
                broke = flow.is_break();
                flow
            };
            let over = match self.engine.scan(Table::Hints, &from, until, usize::MAX, &mut look) {
                Ok(()) => match gap {
                    Some((_, over)) if !broke => over,
                    Some(_) | None => return Ok(is_new),
                },
                Err(EngineError::Corrupt { what, .. }) => {
                    if let Some(last) = last {
                        from = after(last);
                    }
                    let coarse = COARSER_BITS * (met + 1usize).saturating_sub(EXACT);
                    met += 1;
                    let (first, over) = self.unreadable(&from, coarse)?;
                    if over <= from {
                        return Ok(is_new);
                    }
                    self.quarantine("hints".to_owned(), &RowError::Unreadable { why: what });
                    self.hints.gaps.insert(over, first);
                    is_new = true;
                    continue;
                }
                Err(error) => return Err(store_error(error)),
            };
            if over <= from || end.is_some_and(|end| *over >= *end) {
                return Ok(is_new);
            }
            from = over;
        }
    }

    /// Whether a scan would not come to this key.
    pub(super) fn is_in_gap(&self, key: &[u8]) -> bool {
        self.next_gap(key).is_some_and(|(first, _)| *first <= *key)
    }

    /// The first gap that does not end at `from` or before it: its first key, and the first one behind it.
    fn next_gap(&self, from: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
        let after = (Bound::Excluded(from), Bound::Unbounded);
        let (over, first) = self.hints.gaps.range::<[u8], _>(after).next()?;
        Some((first.clone(), over.clone()))
    }

    /// What cannot be read after `from`, as [`Self::next_gap`] says it: it is looked for by steps that begin
    /// with `coarse` bits.
    fn unreadable(&self, from: &[u8], coarse: usize) -> Result<(Vec<u8>, Vec<u8>), StoreError> {
        let (mut before, mut step) = (position(from), coarse);
        let mut behind = loop {
            let next = plus(before, step);
            if next == LAST || self.is_behind(from, &next)? {
                break next;
            }
            (before, step) = (next, step + 1);
        };
        let is_behind = |at: &Position| self.is_behind(from, at);
        halve(&mut before, &mut behind, is_behind)?;
        let over = behind;
        // What lies before it is read by a scan that ends there.
        let mut first = position(from);
        halve(&mut first, &mut behind, |at| Ok(!self.reads(from, at)?))?;
        let first = if first == position(from) { from.to_vec() } else { first.to_vec() };
        Ok((first, over.to_vec()))
    }

    /// Whether what cannot be read after `from` ends before `at`.
    fn is_behind(&self, from: &[u8], at: &Position) -> Result<bool, StoreError> {
        // A longer scan would begin with the first part of every file in it.
        let alone = self.reads(at, &plus(*at, 0))?;
        Ok(alone && !self.reads(from, at)?)
    }

    fn reads(&self, from: &[u8], end: &Position) -> Result<bool, StoreError> {
        let mut see = |_: &[u8], _: &[u8]| ControlFlow::Continue(());
        match self.engine.scan(Table::Hints, from, Some(end), usize::MAX, &mut see) {
            Ok(()) => Ok(true),
            Err(EngineError::Corrupt { .. }) => Ok(false),
            Err(error) => Err(store_error(error)),
        }
    }
}

/// Moves both together until nothing lies between them; what is asked is true of `high` and not of `low`.
fn halve(
    low: &mut Position,
    high: &mut Position,
    is_high: impl Fn(&Position) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    loop {
        let middle = middle(*low, *high);
        if middle == *low {
            return Ok(());
        }
        match is_high(&middle)? {
            true => *high = middle,
            false => *low = middle,
        }
    }
}

/// The next key.
fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
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
    let Some(at) = (WIDTH - 1).checked_sub(bit / 8) else { return LAST };
    let mut carry = 1u8 << (bit % 8);
    for byte in position[..=at].iter_mut().rev() {
        let (sum, over) = byte.overflowing_add(carry);
        *byte = sum;
        if !over {
            return position;
        }
        carry = 1;
    }
    LAST
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
        let last = super::LAST;
        assert_eq!(plus(last, 0), last);
        assert_eq!(plus(last_bytes(1), WIDTH * 8), last);
        assert_eq!(middle(last, last), last);
        assert_eq!(position(&[7; WIDTH + 1]), [7; WIDTH]);
    }
}
