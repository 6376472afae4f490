//! Records that go out of the log for good.
//!
//! Their dots stay in the clock, and the state says of whole stretches of it that a record which is
//! not there was trimmed (T, a part of S): above them a record that is gone is damage. T is written
//! with the clock row, and once more in a row of its own, because without it the log alone would no
//! longer tell the clock. It decides nothing: `galvani-protocol/src/trim/` says which records may go.
//! Next to read: `state.rs`, `damage.rs`.

use super::state::Arrival;
use super::{NodeStore, store_error};
use crate::engine::{Engine, EngineError, Table};
use crate::format::{RowError, keys, rows};
use galvani_model::hlc::Hlc;
use galvani_model::ids::Shard;
use galvani_model::store::{Damage, LogPage, ReplicaState, Store, StoreError};
use galvani_model::version::{Dot, PartitionClock, Range};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// What a tick trims.
#[derive(Debug, Default)]
pub(super) struct Trimmed {
    /// Records that go.
    pub(super) records: BTreeSet<(Shard, Dot)>,
    /// Shards of which more is trimmed than before.
    shards: BTreeSet<Shard>,
}

impl Trimmed {
    pub(super) fn has(&self, shard: Shard, dot: Dot) -> bool {
        !self.records.is_empty() && self.records.contains(&(shard, dot))
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.shards.clear();
    }
}

/// What was trimmed, as its own row has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrimmedRow {
    /// See [`ReplicaState::trimmed`].
    pub dots: PartitionClock,
    /// See [`ReplicaState::trimmed_until`].
    pub until: Hlc,
    /// See [`ReplicaState::unknown_until`].
    pub unknown_until: Hlc,
}

impl TrimmedRow {
    fn of(state: &ReplicaState) -> TrimmedRow {
        TrimmedRow {
            dots: state.trimmed.clone(),
            until: state.trimmed_until,
            unknown_until: state.unknown_until,
        }
    }
}

impl<E: Engine> NodeStore<E> {
    /// See [`Store::logged`].
    pub(super) fn dots_of_log(
        &mut self,
        shard: Shard,
        from: Dot,
        limit: usize,
    ) -> Result<Vec<Dot>, StoreError> {
        let mut dots: BTreeSet<Dot> = BTreeSet::new();
        let gone = self.trimmed.records.len();
        let mut take = |key: &[u8], _: &[u8]| {
            dots.extend(keys::dot_of_log(key));
            ControlFlow::Continue(())
        };
        let end = keys::after_prefix(&keys::shard(shard));
        let scanned = self.engine.scan(
            Table::Log,
            &keys::log(shard, from),
            end.as_deref(),
            limit.saturating_add(gone),
            &mut take,
        );
        let readable = match scanned {
            Ok(()) => true,
            // Then nothing says what was trimmed, and every dot is named.
            Err(EngineError::Corrupt { .. }) => false,
            Err(error) => return Err(store_error(error)),
        };
        let state = self.replica(shard)?;
        let kept: Vec<Range> = match readable {
            true => state.trimmed.missing_from(&state.clock),
            false => state.clock.ranges().collect(),
        };
        let kept = kept.into_iter();
        let kept = kept.filter(|range| Dot::new(range.origin, range.last) >= from);
        let kept = kept.flat_map(|range| {
            let is_first = range.origin == from.origin;
            let first = if is_first { range.first.max(from.counter) } else { range.first };
            (first..=range.last).map(move |counter| Dot::new(range.origin, counter))
        });
        dots.extend(kept.take(limit));
        let staged = self.records.range((shard, from)..).map(|((of, dot), _)| (*of, *dot));
        dots.extend(staged.take_while(|(of, _)| *of == shard).map(|(_, dot)| dot));
        dots.retain(|dot| !self.trimmed.has(shard, *dot));
        Ok(dots.into_iter().take(limit).collect())
    }

    /// See [`Store::log_page`].
    pub(super) fn page_of_log(
        &mut self,
        shard: Shard,
        from: Dot,
        limit: usize,
    ) -> Result<LogPage, StoreError> {
        let (mut page, mut looked, mut bytes) = (LogPage::default(), 0, 0);
        let mut take = |key: &[u8], row: &[u8]| {
            looked += 1;
            bytes += row.len();
            page.last = keys::dot_of_log(key).or(page.last);
            page.heads.extend(rows::get_head(key, row));
            match bytes < PAGE_BYTES {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        let end = keys::after_prefix(&keys::shard(shard));
        self.engine
            .scan(Table::Log, &keys::log(shard, from), end.as_deref(), limit, &mut take)
            .map_err(store_error)?;
        if looked < limit && bytes < PAGE_BYTES {
            page.last = None;
        }
        page.heads.retain(|head| !self.trimmed.has(shard, head.dot));
        Ok(page)
    }

    /// See [`Store::trim`].
    pub(super) fn stage_trim(
        &mut self,
        shard: Shard,
        dots: &[Dot],
        until: Hlc,
    ) -> Result<(), StoreError> {
        self.accepts()?;
        self.replica(shard)?;
        let state = self.states.get_mut(&shard).expect("loaded above");
        for &dot in dots {
            assert!(state.clock.contains(dot), "{shard}: {dot} goes and was never taken in");
            note(&state.clock, &mut state.trimmed, dot);
            self.batch.delete(Table::Log, &keys::log(shard, dot));
            self.records.remove(&(shard, dot));
            self.trimmed.records.insert((shard, dot));
            self.damaged.stage(Damage::Record(shard, dot));
        }
        state.trimmed_until = state.trimmed_until.max(until);
        self.dirty.insert(shard);
        self.trimmed.shards.insert(shard);
        Ok(())
    }

    /// See [`Store::adopt_trimmed`].
    pub(super) fn stage_adopted(
        &mut self,
        shard: Shard,
        dots: &PartitionClock,
        until: Hlc,
    ) -> Result<(), StoreError> {
        self.accepts()?;
        let news = self.replica(shard)?.clock.missing_from(dots);
        if news.is_empty() {
            return Ok(());
        }
        let state = self.states.get_mut(&shard).expect("loaded above");
        for range in news {
            state.clock.insert_range(range);
            state.trimmed.insert_range(range);
        }
        state.trimmed_until = state.trimmed_until.max(until);
        state.unknown_until = state.unknown_until.max(until);
        self.dirty.insert(shard);
        self.trimmed.shards.insert(shard);
        Ok(())
    }

    /// What a request row said of trimmed records cannot be worked out again: from now on no retry of
    /// their writes is known.
    pub(super) fn forget_trimmed(&mut self, shard: Shard) -> Result<(), StoreError> {
        self.replica(shard)?;
        let state = self.states.get_mut(&shard).expect("loaded above");
        if state.unknown_until < state.trimmed_until {
            state.unknown_until = state.trimmed_until;
            self.dirty.insert(shard);
            self.trimmed.shards.insert(shard);
        }
        Ok(())
    }

    /// See [`Store::trim_arrivals`].
    pub(super) fn stage_trim_arrivals(
        &mut self,
        shard: Shard,
        from: u64,
        limit: usize,
    ) -> Result<Option<u64>, StoreError> {
        self.accepts()?;
        // From the clock row's number on they tell the state, and the one before it how many there were.
        let needed = self.checkpoints.get(&shard).copied().unwrap_or(0).saturating_sub(1);
        let mut seen: Vec<(u64, Option<Dot>)> = Vec::new();
        let mut take = |key: &[u8], row: &[u8]| {
            if let Some(number) = keys::number_of_arrival(key) {
                let dot = rows::get::<Arrival>(key, row).ok().map(|arrival| arrival.dot());
                seen.push((number, dot));
            }
            ControlFlow::Continue(())
        };
        let (start, end) = (keys::arrival(shard, from), keys::arrival(shard, needed.max(from)));
        self.engine
            .scan(Table::Arrivals, &start, Some(&end), limit, &mut take)
            .map_err(store_error)?;
        let next = seen.last().filter(|_| seen.len() >= limit).map(|(number, _)| number + 1);
        for (number, dot) in seen {
            let Some(dot) = dot else { continue };
            let trimmed = self.replica(shard)?.is_trimmed(dot);
            if trimmed && self.get(Table::Log, &keys::log(shard, dot))?.is_none() {
                self.batch.delete(Table::Arrivals, &keys::arrival(shard, number));
            }
        }
        Ok(next)
    }

    /// Stages the second row of what was trimmed, where it has changed.
    pub(super) fn stage_trimmed_again(&mut self) {
        for &shard in &self.trimmed.shards {
            // A shard that this tick has emptied has no state any more.
            let Some(state) = self.states.get(&shard) else { continue };
            let (key, row) = (keys::trimmed(shard), TrimmedRow::of(state));
            self.batch.put_with(Table::Meta, &key, |out| rows::put(&key, &row, out));
        }
    }

    /// What was trimmed, as its second row has it; nothing where that is damaged, too: then what was
    /// trimmed is asked for again.
    pub(super) fn stored_trimmed(&mut self, shard: Shard) -> Result<TrimmedRow, StoreError> {
        let key = keys::trimmed(shard);
        let row = match self.engine.get(Table::Meta, &key) {
            Ok(row) => row,
            Err(EngineError::Corrupt { what, .. }) => {
                self.quarantine(format!("{shard} trimmed"), &RowError::Unreadable { why: what });
                None
            }
            Err(error) => return Err(store_error(error)),
        };
        match row.map(|row| rows::get(&key, &row)) {
            None => Ok(TrimmedRow::default()),
            Some(Ok(trimmed)) => Ok(trimmed),
            Some(Err(error)) => {
                self.quarantine(format!("{shard} trimmed"), &error);
                Ok(TrimmedRow::default())
            }
        }
    }
}

/// Adds to `trimmed` what the clock has of a dot's origin up to it: a stretch costs as little as one
/// dot, and records that are kept in it are there.
fn note(clock: &PartitionClock, trimmed: &mut PartitionClock, dot: Dot) {
    if trimmed.contains(dot) {
        return;
    }
    let all = Range { origin: dot.origin, first: 1, last: dot.counter };
    for range in clock.common_with(&PartitionClock::from_iter([all])) {
        trimmed.insert_range(range);
    }
}

/// Bytes of rows after which a page ends.
const PAGE_BYTES: usize = 1 << 20;
