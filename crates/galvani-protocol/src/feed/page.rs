//! Filling a page: what a consumer is shown of the writes whose turn it is.
//!
//! What the filter, or the bucket, keeps out is done with all the same. A page ends with the consumer's
//! credit; it reads no more than that brings. Next to read: `track.rs`, which says whose turn it is.

use super::track::{Ready, Step, Walk};
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps, FeedMode};
use galvani_model::feed::{Cursor, Filter, Shows};
use galvani_model::ids::Shard;
use galvani_model::limits::VALUE_BYTES_MAX;
use galvani_model::store::{Store, StoreError};
use galvani_model::version::{Dot, PartitionClock, Record, RecordHead};
use galvani_wire::feed::{Advance, FeedEvent, OldValue};
use std::collections::BTreeMap;

/// Events of one page, however small.
const EVENTS_MAX: usize = 512;
/// Bytes of events that a page holds at most before one more is added, whatever the credit: with an
/// event of the largest size it still fits a frame.
const BYTES_MAX: usize = 256 << 10;
/// Bytes of values that one event carries at most; old ones beyond it are told without their value.
const EVENT_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// A page that is being filled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) events: Vec<FeedEvent>,
    pub(crate) advances: Vec<Advance>,
    /// Where in `advances` each shard is.
    places: BTreeMap<Shard, usize>,
    bytes: usize,
    /// Records that may still be read in this tick.
    looks: usize,
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
        self.looks == 0
    }

    /// Another tick begins, in which so many records may be read.
    pub(crate) fn may_look(&mut self, looks: usize) {
        self.looks = looks;
    }

    /// How many of them are left.
    pub(crate) fn looks_left(&self) -> usize {
        self.looks
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
        let looks = self.looks;
        while !self.is_full(credit) && !self.is_tired() {
            let step = walk.next(store)?;
            self.looks = looks.saturating_sub(walk.looked());
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
        let topics = matches!(lens.filter.shows, Shows::Topics(_));
        // Whoever gets whole records knows retries by what they say.
        let dup_of = match lens.filter.shows {
            Shows::Records => None,
            Shows::Changes | Shows::Topics(_) => {
                earlier_name(store, shard, &record.head, delivered)?
            }
        };
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
            let mut room = EVENT_BYTES_MAX.saturating_sub(head.value_len as usize);
            for &dot in &head.supersedes {
                let (one, value) = replaced(store, shard, dot, &mut room)?;
                self.looks = self.looks.saturating_sub(1);
                old.push(one);
                values.push(value);
            }
        }
        let carried: usize = values.iter().map(Bytes::len).sum();
        self.bytes += head.about_bytes() + carried;
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

/// A value that a write replaced, if the log still has it and there is room for it.
fn replaced(
    store: &mut dyn Store,
    shard: Shard,
    dot: Dot,
    room: &mut usize,
) -> Result<(OldValue, Bytes), StoreError> {
    let record = match *room {
        0 => Ok(None),
        _ => store.record(shard, dot),
    };
    match record {
        Ok(Some(record)) if record.value.len() <= *room => {
            *room -= record.value.len();
            let len = record.value.len() as u32;
            Ok((OldValue { dot, kind: Some(record.head.kind), len }, record.value))
        }
        Ok(Some(_)) => {
            // No smaller one behind it is shown either: what is shown is the beginning.
            *room = 0;
            Ok((OldValue { dot, kind: None, len: 0 }, Bytes::new()))
        }
        Ok(None) | Err(StoreError::Corrupt { .. }) => {
            Ok((OldValue { dot, kind: None, len: 0 }, Bytes::new()))
        }
        Err(error) => Err(error),
    }
}
