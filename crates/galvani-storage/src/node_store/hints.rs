//! Hints: records held for owners that were away, outside of this node's own shards.
//!
//! A hint is one row under its target, shard and dot, so that one target's hints are one range. What
//! a tick stages is in its batch; figures follow the commit. A hint leaves only when its target has
//! said that it holds the record durably; nothing expires. It decides neither who holds hints nor
//! when they go. Next to read: `mod.rs`; `galvani-protocol/src/handoff/`.

use super::gaps::Gaps;
use super::{NodeStore, store_error};
use crate::engine::{Engine, Table};
use crate::format::{keys, rows};
use bytes::Bytes;
use galvani_model::ids::{LaneIndex, NodeId, Origin, Partition, Shard};
use galvani_model::store::{HintFigures, HintPage, StoreError};
use galvani_model::version::{Dot, Record, RecordHead};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What one lane holds for others, and what the tick changes of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hints {
    /// Per target, as committed.
    pub(super) figures: BTreeMap<NodeId, HintFigures>,
    /// Rows the tick puts (bytes) or takes away, by key.
    staged: BTreeMap<Vec<u8>, Staged>,
    /// Bytes of the rows the tick puts, per target.
    staged_bytes: BTreeMap<NodeId, u64>,
    /// How many of a target's were written in each span of [`HintFigures::SINCE_STEP_MS`], as committed. One
    /// that was damaged since stays counted until the target has none left.
    written: BTreeMap<NodeId, BTreeMap<u64, u64>>,
    /// What of the table cannot be read.
    pub(super) gaps: Gaps,
}

/// How a row stands after the tick, and what that changes of the figures.
#[derive(Clone, Copy, Debug)]
struct Staged {
    target: NodeId,
    /// Whether it is there.
    there: bool,
    count: i64,
    bytes: i64,
    /// The span in which its record was written, if it can be read.
    span: Option<u64>,
}

impl Hints {
    /// What the tick staged is on disk.
    pub(super) fn committed(&mut self) {
        self.staged_bytes.clear();
        for row in core::mem::take(&mut self.staged).into_values() {
            let figures = self.figures.entry(row.target).or_default();
            figures.count = figures.count.saturating_add_signed(row.count);
            figures.bytes = figures.bytes.saturating_add_signed(row.bytes);
            if figures.count == 0 {
                self.figures.remove(&row.target);
                self.written.remove(&row.target);
                continue;
            }
            let written = self.written.entry(row.target).or_default();
            if let Some(span) = row.span.filter(|_| row.count != 0) {
                let of = written.entry(span).or_default();
                *of = of.saturating_add_signed(row.count);
                if *of == 0 {
                    written.remove(&span);
                }
            }
            figures.since_ms = since_ms(written);
        }
    }

    /// What the tick staged is gone.
    pub(super) fn forget_tick(&mut self) {
        self.staged.clear();
        self.staged_bytes.clear();
    }

    /// Bytes held for `target`, staged ones included, and for all targets.
    fn bytes(&self, target: NodeId) -> (u64, u64) {
        let one = self.figures.get(&target).map_or(0, |figures| figures.bytes);
        let all: u64 = self.figures.values().map(|figures| figures.bytes).sum();
        let staged = self.staged_bytes.get(&target).copied().unwrap_or(0);
        (one + staged, all + self.staged_bytes.values().sum::<u64>())
    }
}

fn span_of(head: &RecordHead) -> u64 {
    head.hlc.unix_ms() / HintFigures::SINCE_STEP_MS
}

/// When the first of the spans begins.
fn since_ms(written: &BTreeMap<u64, u64>) -> u64 {
    written.first_key_value().map_or(0, |(span, _)| span * HintFigures::SINCE_STEP_MS)
}

impl<E: Engine> NodeStore<E> {
    /// See [`galvani_model::store::Store::hold`].
    pub(super) fn hold_hint(
        &mut self,
        target: NodeId,
        shard: Shard,
        record: &Record,
    ) -> Result<(), StoreError> {
        self.accepts()?;
        let key = keys::hint(target, shard, record.head.dot);
        if self.is_in_gap(&key) {
            return Err(StoreError::Corrupt {
                what: format!("hints for {target} beside this one"),
            });
        }
        let staged = self.hints.staged.get(&key[..]).map(|row| row.there);
        let stored = self.get(Table::Hints, &key)?;
        let whole = stored.as_ref().is_some_and(|row| rows::get_record(&key, row).is_ok());
        if staged.unwrap_or(whole) {
            return Ok(());
        }
        let mut row = Vec::new();
        rows::put_record(&key, record, &mut row);
        self.batch.put(Table::Hints, &key, &row);
        // A row that is on disk is counted already: damaged, or taken away by this very tick.
        let counted = stored.map(|row| row.len() as i64);
        let count = i64::from(counted.is_none());
        let bytes = row.len() as i64 - counted.unwrap_or(0);
        let span = Some(span_of(&record.head));
        let after = Staged { target, there: true, count, bytes, span };
        self.hints.staged.insert(key.to_vec(), after);
        *self.hints.staged_bytes.entry(target).or_default() += row.len() as u64;
        Ok(())
    }

    /// See [`galvani_model::store::Store::hint_bytes`].
    pub(super) fn bytes_of_hints(&self, target: NodeId) -> (u64, u64) {
        self.hints.bytes(target)
    }

    /// See [`galvani_model::store::Store::hints`].
    pub(super) fn page_of_hints(
        &mut self,
        target: NodeId,
        after: Option<(Shard, Dot)>,
        partitions: &[Partition],
        credit: usize,
        limit: usize,
    ) -> Result<HintPage, StoreError> {
        let mut page = HintPage::default();
        if !self.hints.figures.contains_key(&target) {
            return Ok(page);
        }
        let (mut used, mut damaged, mut uncounted) = (0, Vec::new(), false);
        let mut take = |key: &[u8], row: &[u8]| {
            let Some((_, shard, dot)) = keys::split_hint(key) else {
                damaged.push((key.to_vec(), row.len() as u64, rows::RowError::Short));
                return ControlFlow::Continue(());
            };
            if used >= credit || page.records.len() >= limit {
                return ControlFlow::Break(());
            }
            page.last = Some((shard, dot));
            match rows::get_record(key, &Bytes::copy_from_slice(row)) {
                Ok(record) if record.head.dot == dot => {
                    used += row.len();
                    page.records.push((shard, record));
                }
                Ok(_) => damaged.push((key.to_vec(), row.len() as u64, rows::RowError::Checksum)),
                Err(error) => damaged.push((key.to_vec(), row.len() as u64, error)),
            }
            ControlFlow::Continue(())
        };
        // One range for each partition. Hints of another lane are for that lane to count and to let go.
        let (lane, lanes) = (self.config.lane, self.config.lanes);
        let mine = |partition: &&Partition| LaneIndex::of(**partition, lanes) == lane;
        for &partition in partitions.iter().filter(mine) {
            let (mut start, end) = keys::hints_of(target, partition);
            if let Some((shard, dot)) = after {
                if partition < shard.partition {
                    continue;
                }
                if partition == shard.partition {
                    start = keys::hint(target, shard, dot).to_vec();
                    start.push(0);
                }
            }
            uncounted |= self.scan_hints(&start, end.as_deref(), &mut take)?;
        }
        if uncounted {
            self.count_hints()?;
        }
        for (key, bytes, error) in damaged {
            self.quarantine(format!("hint for {target}"), &error);
            let hopeless = !matches!(error, rows::RowError::NewerVersion { .. });
            // Of no use to anyone, and it would be met again and again: counted, then taken away.
            if hopeless && self.accepts().is_ok() {
                self.take_away(target, key, bytes, None);
            }
        }
        Ok(page)
    }

    /// See [`galvani_model::store::Store::hinted`]. A search by halves, so that a flood of hints costs no
    /// more than a few dozen looks.
    pub(super) fn last_hinted(&self, shard: Shard, origin: Origin) -> Result<u64, StoreError> {
        let mut last = 0;
        for &target in self.hints.figures.keys() {
            let end = keys::hint(target, shard, Dot::new(origin, u64::MAX));
            // The first hint from a counter on, if there is one.
            let first_from = |counter: u64| {
                let start = keys::hint(target, shard, Dot::new(origin, counter));
                let mut found = None;
                let mut visit = |key: &[u8], _: &[u8]| {
                    found = keys::split_hint(key).map(|(_, _, dot)| dot.counter);
                    ControlFlow::Break(())
                };
                self.engine
                    .scan(Table::Hints, &start, Some(&end), 1, &mut visit)
                    .map_err(store_error)?;
                Ok::<_, StoreError>(found)
            };
            let mut beyond = u64::MAX;
            while last + 1 < beyond {
                // Close to what is there first: counters are small numbers.
                let middle = last + 1 + (beyond - last - 1).min(last.max(1)) / 2;
                match first_from(middle)? {
                    Some(counter) => last = counter,
                    None => beyond = middle,
                }
            }
        }
        Ok(last)
    }

    /// See [`galvani_model::store::Store::release`].
    pub(super) fn release_hint(
        &mut self,
        target: NodeId,
        shard: Shard,
        dot: Dot,
    ) -> Result<(), StoreError> {
        self.accepts()?;
        let key = keys::hint(target, shard, dot);
        if let Some(row) = self.get(Table::Hints, &key)? {
            let span = rows::get_head(&key, &row).ok().map(|head| span_of(&head));
            self.take_away(target, key.to_vec(), row.len() as u64, span);
        }
        Ok(())
    }

    fn take_away(&mut self, target: NodeId, key: Vec<u8>, bytes: u64, span: Option<u64>) {
        self.batch.delete(Table::Hints, &key);
        let after = Staged { target, there: false, count: -1, bytes: -(bytes as i64), span };
        self.hints.staged.insert(key, after);
    }

    /// Counts what the disk holds and can be read.
    pub(super) fn count_hints(&mut self) -> Result<(), StoreError> {
        let mut figures: BTreeMap<NodeId, HintFigures> = BTreeMap::new();
        let mut written: BTreeMap<NodeId, BTreeMap<u64, u64>> = BTreeMap::new();
        let config = self.config;
        let mut count = |key: &[u8], row: &[u8]| {
            if let Some((target, shard, _)) = keys::split_hint(key)
                && LaneIndex::of(shard.partition, config.lanes) == config.lane
            {
                let of = figures.entry(target).or_default();
                of.count += 1;
                of.bytes += row.len() as u64;
                if let Ok(head) = rows::get_head(key, row) {
                    *written.entry(target).or_default().entry(span_of(&head)).or_default() += 1;
                }
            }
            ControlFlow::Continue(())
        };
        self.scan_hints(&[0], None, &mut count)?;
        for (target, spans) in &written {
            figures.entry(*target).or_default().since_ms = since_ms(spans);
        }
        (self.hints.figures, self.hints.written) = (figures, written);
        Ok(())
    }
}
