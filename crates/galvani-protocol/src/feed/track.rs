//! One consumer's way through one shard's log, at the owner that serves it.
//!
//! What comes next is asked of two sets: what this replica has taken in, less what the consumer is done
//! with. Of every origin the lowest counter comes first, and whatever a write replaces comes before it,
//! so events of one key are in causal order however the records arrived. A write whose predecessor is
//! not here waits for it, for a bounded time; only then it goes first, and the other is marked late.
//! Waiting never holds up other keys. Next to read: `page.rs`. Source: algorithms 4.3.

use galvani_model::feed::Cursor;
use galvani_model::ids::{Origin, Shard};
use galvani_model::key::Key;
use galvani_model::store::{Store, StoreError};
use galvani_model::version::{Dot, DotSet, PartitionClock, Range, Record};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a write waits for one that it replaces and that is not here, in microseconds.
pub(crate) const HOLD_MICROS: u64 = 2_000_000;
/// How long it waits when another owner is known to have that one.
const HOLD_FETCHED_MICROS: u64 = 30_000_000;
/// How often a write that has waited for long is looked at again, in microseconds.
const RELOOK_MICROS: u64 = 250_000;
/// Writes of one shard that wait, for one consumer; when there are more, it is not gone on with.
const HELD_MAX: usize = 4_096;
/// Bytes of a value that cost what a record costs that has none, about.
const LOOK_BYTES: usize = 4 << 10;
/// When a record that could not be read is tried again, in microseconds.
const UNREADABLE_MICROS: u64 = 1_000_000;

/// How far a consumer is in one shard, and what waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Track {
    pub(crate) cursor: Cursor,
    held: BTreeMap<Dot, Held>,
    /// The same by key.
    waiting: BTreeMap<Key, BTreeSet<Dot>>,
    /// Records that could not be read, and when that is tried again.
    unreadable: BTreeMap<Dot, u64>,
    /// When everything that had been taken in was delivered, in milliseconds since 1970.
    pub(crate) level_at_ms: u64,
    /// All that was acknowledged before this moment is delivered, in milliseconds since 1970.
    pub(crate) complete_ms: u64,
}

/// A write that waits.
#[derive(Clone, Debug)]
struct Held {
    key: Key,
    since: u64,
    /// When it is looked at again although nothing has happened.
    again: u64,
    why: Why,
}

/// What a write waits for.
#[derive(Clone, Debug)]
enum Why {
    /// Writes that it replaces and that are not here.
    Past(PartitionClock),
    /// An earlier write of its key that waits itself.
    Earlier(Dot),
    /// That more owners have it.
    Unseen,
}

/// What other owners were heard to have, for judging what waits.
pub(crate) struct Others<'a> {
    /// The last clock of each.
    pub(crate) clocks: Vec<&'a PartitionClock>,
    /// Owners that must have a write, beside this one, before it is shown; 0: none.
    pub(crate) needed: usize,
}

impl Others<'_> {
    fn have(&self, dot: Dot) -> usize {
        self.clocks.iter().filter(|clock| clock.contains(dot)).count()
    }
}

/// One write that is ready, or passed over.
#[expect(
    clippy::large_enum_variant,
    reason = "moved once on its way; a box would cost an allocation"
)]
pub(crate) enum Step {
    /// It is to be shown, or left out by the filter; the consumer is done with it.
    Ready(Ready),
    /// It was trimmed from every log before this consumer had it.
    Gone(Dot),
}

/// What becomes of a write that was looked at.
#[expect(
    clippy::large_enum_variant,
    reason = "moved once on its way; a box would cost an allocation"
)]
enum Turn {
    Ready(Ready),
    Waits,
    /// It would have to wait, and so many do that it is not gone on with; it is met again.
    NoRoom,
}

/// A write whose turn it is.
pub(crate) struct Ready {
    pub(crate) record: Record,
    pub(crate) late: bool,
    /// What is overdue from now on, because this write goes before it.
    pub(crate) owed: PartitionClock,
}

impl Track {
    /// A consumer that begins here.
    pub(crate) fn at(cursor: Cursor) -> Track {
        Track { cursor, ..Track::default() }
    }

    /// How many writes wait for something.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether some wait for other owners to have them.
    pub(crate) fn waits_for_owners(&self) -> bool {
        self.held.values().any(|held| matches!(held.why, Why::Unseen))
    }

    /// Whether some wait for what they replace, since before `micros`.
    pub(crate) fn waits_for_past_since(&self, micros: u64) -> bool {
        let mut held = self.held.values();
        held.any(|held| matches!(held.why, Why::Past(_)) && held.since <= micros)
    }

    /// How many records cannot be read.
    pub(crate) fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// Whether a write may wait, too. An earlier one of its origin than those that do takes the place of the
    /// last of them, which is met again: it has to be waited for first.
    fn has_room_for(&mut self, dot: Dot) -> bool {
        if self.held.contains_key(&dot) || self.held.len() < HELD_MAX {
            return true;
        }
        let of_origin = Dot::new(dot.origin, 0)..=Dot::new(dot.origin, u64::MAX);
        let last = self.held.range(of_origin).next_back().map(|(&last, _)| last);
        match last.filter(|&last| last > dot) {
            Some(last) => {
                self.release(last);
                true
            }
            None => false,
        }
    }

    fn hold(&mut self, dot: Dot, held: Held) {
        self.waiting.entry(held.key.clone()).or_default().insert(dot);
        self.held.insert(dot, held);
    }

    fn release(&mut self, dot: Dot) {
        let Some(held) = self.held.remove(&dot) else { return };
        if let Some(dots) = self.waiting.get_mut(&held.key) {
            dots.remove(&dot);
            if dots.is_empty() {
                self.waiting.remove(&held.key);
            }
        }
    }

    /// When something that waits is to be looked at again although nothing has happened.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let held = self.held.values().filter(|held| matches!(held.why, Why::Past(_)));
        let held = held.map(|held| held.again).min();
        held.into_iter().chain(self.unreadable.values().copied()).min()
    }
}

/// One look at a shard: gives out what is ready until the caller has enough.
pub(crate) struct Walk<'a> {
    shard: Shard,
    track: &'a mut Track,
    others: &'a Others<'a>,
    /// What this replica has taken in.
    taken_in: PartitionClock,
    queues: Vec<Queue>,
    now: u64,
    looked: usize,
    progressed: bool,
}

/// What is left of one origin, ascending.
struct Queue {
    origin: Origin,
    ranges: VecDeque<Range>,
    head: Option<Record>,
}

impl Queue {
    fn next(&self) -> Option<u64> {
        self.ranges.front().map(|range| range.first)
    }

    fn pop(&mut self) {
        self.head = None;
        if let Some(range) = self.ranges.front_mut() {
            match range.first == range.last {
                true => drop(self.ranges.pop_front()),
                false => range.first += 1,
            }
        }
    }

    /// Whether something that is left of it is in `past`.
    fn is_named_by(&self, base: u64, cloud: &[u64]) -> bool {
        let Some(next) = self.next() else { return false };
        next <= base
            || cloud.iter().any(|&counter| {
                let mut ranges = self.ranges.iter();
                ranges.any(|range| (range.first..=range.last).contains(&counter))
            })
    }
}

impl<'a> Walk<'a> {
    /// Begins to look at what `track` has not seen of its shard. `now` is in the lane's microseconds.
    pub(crate) fn new(
        store: &mut dyn Store,
        shard: Shard,
        track: &'a mut Track,
        others: &'a Others<'a>,
        now: u64,
    ) -> Result<Walk<'a>, StoreError> {
        let taken_in = store.replica(shard)?.clock.clone();
        track.unreadable.retain(|_, again| *again > now);
        let mut queues: Vec<Queue> = Vec::new();
        for range in track.cursor.pending(&taken_in) {
            match queues.last_mut().filter(|queue| queue.origin == range.origin) {
                Some(queue) => queue.ranges.push_back(range),
                None => queues.push(Queue {
                    origin: range.origin,
                    ranges: VecDeque::from([range]),
                    head: None,
                }),
            }
        }
        Ok(Walk { shard, track, others, taken_in, queues, now, looked: 0, progressed: false })
    }

    /// What the consumer is done with.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.track.cursor
    }

    /// How many writes are left, those that wait or cannot be read included.
    pub(crate) fn left(&self) -> u64 {
        let ranges = self.queues.iter().flat_map(|queue| &queue.ranges);
        let ready = ranges.map(|range| range.last - range.first + 1).sum::<u64>();
        ready + (self.track.held.len() + self.track.unreadable.len()) as u64
    }

    /// Whether writes that waited for one that was given out may be ready now.
    pub(crate) fn may_free_others(&self) -> bool {
        self.progressed && !self.track.held.is_empty()
    }

    /// Records read so far.
    pub(crate) fn looked(&self) -> usize {
        self.looked
    }

    /// The oldest write that was looked at and not given out, as milliseconds since 1970.
    pub(crate) fn oldest_ms(&self) -> Option<u64> {
        let heads = self.queues.iter().filter_map(|queue| queue.head.as_ref());
        heads.map(|record| record.head.hlc.unix_ms()).min()
    }

    /// The next write whose turn it is; `None` when the rest waits, or there is none.
    pub(crate) fn next(&mut self, store: &mut dyn Store) -> Result<Option<Step>, StoreError> {
        loop {
            if let Some(gone) = self.load(store)? {
                // It may have waited for what it replaces, and others for it.
                self.track.release(gone);
                self.track.cursor.deliver(gone);
                self.progressed = true;
                return Ok(Some(Step::Gone(gone)));
            }
            let heads = self.queues.iter().enumerate();
            let first = heads
                .filter_map(|(at, queue)| Some((at, queue.head.as_ref()?)))
                .min_by_key(|(_, record)| (record.head.hlc, record.head.dot))
                .map(|(at, _)| at);
            let Some(first) = first else { return Ok(None) };
            let at = self.unblocked(first);
            let record = self.queues[at].head.take().expect("heads are loaded");
            self.queues[at].pop();
            match self.judge(record) {
                Turn::Ready(ready) => return Ok(Some(Step::Ready(ready))),
                Turn::Waits => {}
                // None of its origin that comes later waits, so nothing is passed over.
                Turn::NoRoom => self.queues[at].ranges.clear(),
            }
        }
    }

    /// Reads the record at the head of every queue. Returns one that is gone for good.
    fn load(&mut self, store: &mut dyn Store) -> Result<Option<Dot>, StoreError> {
        for at in 0..self.queues.len() {
            while self.queues[at].head.is_none() {
                let Some(counter) = self.queues[at].next() else { break };
                let dot = Dot::new(self.queues[at].origin, counter);
                if self.is_unreadable(dot) || self.still_waits(dot) {
                    self.put_off(dot);
                    self.queues[at].pop();
                    continue;
                }
                self.looked += 1;
                match store.record(self.shard, dot) {
                    Ok(Some(record)) => {
                        self.looked += record.value.len() / LOOK_BYTES;
                        self.queues[at].head = Some(record);
                    }
                    Ok(None) if store.replica(self.shard)?.is_trimmed(dot) => {
                        self.queues[at].pop();
                        return Ok(Some(dot));
                    }
                    // Damaged here: it is mended from another owner's copy, and then it is told.
                    Ok(None) | Err(StoreError::Corrupt { .. }) => {
                        if self.track.unreadable.len() >= HELD_MAX {
                            // Another owner is a better one to follow.
                            let what = format!("{}: too many records for the feed", self.shard);
                            return Err(StoreError::Corrupt { what });
                        }
                        self.track.unreadable.insert(dot, self.now + UNREADABLE_MICROS);
                        self.queues[at].pop();
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(None)
    }

    /// A write that waits was looked at.
    fn put_off(&mut self, dot: Dot) {
        let again = self.now + RELOOK_MICROS;
        if let Some(held) = self.track.held.get_mut(&dot).filter(|held| held.again <= self.now) {
            held.again = again;
        }
    }

    fn is_unreadable(&self, dot: Dot) -> bool {
        self.track.unreadable.contains_key(&dot)
    }

    /// Whether a write that waits goes on waiting, as far as can be told without its record.
    fn still_waits(&self, dot: Dot) -> bool {
        let Some(held) = self.track.held.get(&dot) else { return false };
        match &held.why {
            Why::Unseen => self.others.needed > self.others.have(dot),
            Why::Earlier(earlier) => self.track.held.contains_key(earlier),
            Why::Past(absent) => {
                let mut left: PartitionClock =
                    self.taken_in.missing_from(absent).into_iter().collect();
                for &dot in self.track.unreadable.keys().filter(|dot| absent.contains(**dot)) {
                    left.insert(dot);
                }
                !left.is_empty() && self.may_wait(&left, held.since)
            }
        }
    }

    /// The queue that must move on before `from` may: counters of one origin, and what a write replaces
    /// together with it, were all minted before that write, so this comes to an end.
    fn unblocked(&self, from: usize) -> usize {
        let mut at = from;
        // Only a record that lies could lead in a circle.
        for _ in 0..self.queues.len() {
            let Some(record) = &self.queues[at].head else { return from };
            let blocking = record.head.past.iter().find_map(|(origin, base, cloud)| {
                let at = self.queues.iter().position(|queue| queue.origin == origin)?;
                let queue = &self.queues[at];
                let ahead = origin != record.head.dot.origin && queue.head.is_some();
                (ahead && queue.is_named_by(base, cloud)).then_some(at)
            });
            match blocking {
                Some(other) => at = other,
                None => return at,
            }
        }
        from
    }

    /// Gives a write out, or notes what it waits for.
    fn judge(&mut self, record: Record) -> Turn {
        let head = &record.head;
        let since = self.track.held.get(&head.dot).map_or(self.now, |held| held.since);
        let missing = self.missing(&head.past);
        let why = if self.others.needed > self.others.have(head.dot) {
            Some(Why::Unseen)
        } else if !missing.is_empty() && self.may_wait(&missing, since) {
            Some(Why::Past(missing.clone()))
        } else {
            self.earlier(&record).map(Why::Earlier)
        };
        if let Some(why) = why {
            if !self.track.has_room_for(head.dot) {
                return Turn::NoRoom;
            }
            let again = (since + HOLD_MICROS).max(self.now + RELOOK_MICROS);
            self.track.hold(head.dot, Held { key: head.key.clone(), since, again, why });
            return Turn::Waits;
        }
        let late = self.track.cursor.is_late(head.dot);
        self.track.release(head.dot);
        self.track.cursor.deliver(head.dot);
        self.track.cursor.owe_all(&missing);
        self.progressed = true;
        Turn::Ready(Ready { record, late, owed: missing })
    }

    /// What of `past` is neither delivered nor here to be delivered first. A record that cannot be
    /// read does not say whose it is, so whatever names it waits for it.
    fn missing(&self, past: &DotSet) -> PartitionClock {
        let mut absent: PartitionClock = self.taken_in.lacks(past).into_iter().collect();
        for &dot in self.track.unreadable.keys().filter(|dot| past.contains(**dot)) {
            absent.insert(dot);
        }
        match absent.is_empty() {
            true => absent,
            false => self.track.cursor.pending(&absent).into_iter().collect(),
        }
    }

    /// Whether a write goes on waiting for what is missing: for a moment in any case, and as long as
    /// another owner has some of it, because then it is on its way here.
    fn may_wait(&self, missing: &PartitionClock, since: u64) -> bool {
        let waited = self.now.saturating_sub(since);
        if waited < HOLD_MICROS {
            return true;
        }
        let somewhere =
            self.others.clocks.iter().any(|clock| !clock.common_with(missing).is_empty());
        somewhere && waited < HOLD_FETCHED_MICROS
    }

    /// An earlier write of the same key that waits.
    fn earlier(&self, record: &Record) -> Option<Dot> {
        let head = &record.head;
        let mut waiting = self.track.waiting.get(&head.key)?.iter();
        waiting.find(|&&dot| dot != head.dot && head.past.contains(dot)).copied()
    }
}
