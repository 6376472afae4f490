//! Filling a page: what a consumer is shown of the writes whose turn it is.
//!
//! What the filter, or the bucket, keeps out is done with all the same. A page ends with the consumer's
//! credit; it reads no more than that brings. Next to read: `track.rs`, which says whose turn it is.

use super::track::{Ready, Step, Walk};
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps, FeedMode};
use galvani_model::feed::{Cursor, Filter, Shows};
use galvani_model::ids::Shard;
use galvani_model::store::{Store, StoreError};
use galvani_model::version::{Dot, Emit, PartitionClock, Record, RecordHead};
use galvani_wire::feed::{Advance, FeedEvent, OldValue};
use std::collections::BTreeMap;

/// Events of one page, however small.
const EVENTS_MAX: usize = 512;
/// Records read for one page, those that are kept out included: a few milliseconds of a lane's work.
const LOOKS_MAX: usize = 2_048;
/// Bytes of events that a page holds at most, whatever the credit.
const BYTES_MAX: usize = 1 << 20;

/// A page that is being filled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) events: Vec<FeedEvent>,
    pub(crate) advances: Vec<Advance>,
    /// Where in `advances` each shard is.
    places: BTreeMap<Shard, usize>,
    bytes: usize,
    looked: usize,
}

/// What decides what is shown.
pub(crate) struct Lens<'a> {
    pub(crate) filter: &'a Filter,
    pub(crate) buckets: &'a BTreeMap<BucketName, BucketProps>,
}

impl Draft {
    /// Whether there is anything that a consumer should not wait for.
    pub(crate) fn has_news(&self) -> bool {
        !self.events.is_empty() || self.advances.iter().any(|it| !it.gone.is_empty())
    }

    /// Whether it takes no more.
    pub(crate) fn is_full(&self, credit: usize) -> bool {
        self.bytes >= credit.min(BYTES_MAX) || self.events.len() >= EVENTS_MAX
    }

    /// Whether enough was read for one tick.
    pub(crate) fn is_tired(&self) -> bool {
        self.looked >= LOOKS_MAX
    }

    /// Another tick begins: it may read as much again.
    pub(crate) fn rest(&mut self) {
        self.looked = 0;
    }

    /// Takes in what is ready of one shard, as far as there is room.
    pub(crate) fn fill(
        &mut self,
        store: &mut dyn Store,
        walk: &mut Walk<'_>,
        shard: Shard,
        lens: &Lens<'_>,
        credit: usize,
    ) -> Result<(), StoreError> {
        let looked = self.looked;
        while !self.is_full(credit) && !self.is_tired() {
            let step = walk.next(store)?;
            self.looked = looked + walk.looked();
            match step {
                Some(Step::Ready(ready)) => self.take(store, walk.cursor(), shard, lens, ready)?,
                Some(Step::Gone(dot)) => {
                    let place = self.place(shard);
                    self.advances[place].done.insert(dot);
                    self.advances[place].gone.insert(dot);
                }
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        store: &mut dyn Store,
        delivered: &Cursor,
        shard: Shard,
        lens: &Lens<'_>,
        ready: Ready,
    ) -> Result<(), StoreError> {
        let Ready { record, late, owed } = ready;
        let place = self.place(shard);
        self.advances[place].done.insert(record.head.dot);
        self.advances[place].owed.union(&owed);
        let Some(mode) = lens.mode_of(&record.head) else { return Ok(()) };
        let dup_of = earlier_name(store, shard, &record.head, delivered)?;
        let topics = matches!(lens.filter.shows, Shows::Topics(_));
        if topics && dup_of.is_some() {
            // The same events, by the same names, were delivered with the other dot.
            return Ok(());
        }
        let Record { head, value } = record;
        let records = lens.filter.shows == Shows::Records;
        let carries = records || (mode >= FeedMode::New && lens.filter.values && !topics);
        let mut values = Vec::new();
        if carries {
            values.push(value);
        }
        let mut old = Vec::new();
        if mode == FeedMode::NewAndOld && lens.filter.values && lens.filter.shows == Shows::Changes
        {
            for &dot in &head.supersedes {
                let (one, value) = replaced(store, shard, dot)?;
                old.push(one);
                values.push(value);
            }
        }
        let emitted: usize = head.emits.iter().map(Emit::bytes).sum();
        let carried: usize = values.iter().map(Bytes::len).sum();
        self.bytes += HEAD_BYTES + head.key.bytes().len() + emitted + carried;
        let shard = place as u16;
        self.events.push(FeedEvent { shard, head, late, dup_of, carries, old, values });
        Ok(())
    }

    fn place(&mut self, shard: Shard) -> usize {
        *self.places.entry(shard).or_insert_with(|| {
            self.advances.push(Advance {
                shard,
                done: PartitionClock::new(),
                owed: PartitionClock::new(),
                gone: PartitionClock::new(),
            });
            self.advances.len() - 1
        })
    }
}

impl Lens<'_> {
    /// How much of a record is shown; `None`: nothing.
    fn mode_of(&self, head: &RecordHead) -> Option<FeedMode> {
        if !self.filter.asks_for(head) {
            return None;
        }
        let mode = self.buckets.get(head.key.bucket()).map_or(FeedMode::Off, |props| props.feed);
        match self.filter.shows {
            Shows::Changes => (mode != FeedMode::Off).then_some(mode),
            // Who wrote them wanted them to be seen, whatever is shown of the bucket's keys.
            Shows::Records | Shows::Topics(_) => Some(mode),
        }
    }
}

/// Another dot of the same logical write that was delivered before.
fn earlier_name(
    store: &mut dyn Store,
    shard: Shard,
    head: &RecordHead,
    delivered: &Cursor,
) -> Result<Option<Dot>, StoreError> {
    let known = match store.request(shard, head.write_id(), Some(head.hlc)) {
        Ok(known) => known,
        // Then it is not known to be a retry, and is delivered by its own name.
        Err(StoreError::Corrupt { .. }) => None,
        Err(error) => return Err(error),
    };
    let dots = known.map(|entry| entry.dots).unwrap_or_default();
    let earlier = |dot: &&Dot| **dot != head.dot && delivered.delivered().contains(**dot);
    Ok(dots.iter().find(earlier).copied())
}

/// A value that a write replaced, if the log still has it.
fn replaced(
    store: &mut dyn Store,
    shard: Shard,
    dot: Dot,
) -> Result<(OldValue, Bytes), StoreError> {
    match store.record(shard, dot) {
        Ok(Some(record)) => {
            let len = record.value.len() as u32;
            Ok((OldValue { dot, kind: Some(record.head.kind), len }, record.value))
        }
        Ok(None) | Err(StoreError::Corrupt { .. }) => {
            Ok((OldValue { dot, kind: None, len: 0 }, Bytes::new()))
        }
        Err(error) => Err(error),
    }
}

/// About what an event takes beside its key, its value and its application's events.
const HEAD_BYTES: usize = 160;
