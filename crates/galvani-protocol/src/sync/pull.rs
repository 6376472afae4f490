//! Records that a peer holds and this replica lacks: asked for by dot, a page at a time.
//!
//! The asker grants a credit of bytes with each page and asks for the next when it has taken one
//! in, so no peer can flood it; while clients wait it pauses in between. Pages ascend by origin and
//! counter, so what a page passes over (a damaged record) is not asked of this peer again, and every
//! page makes progress. Next to read: `../replica.rs`. Source: algorithms 2.5.

use super::Behind;
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use crate::replica::{self, As, Taken};
use crate::serve;
use crate::share::page_bytes;
use galvani_model::hlc::Hlc;
use galvani_model::ids::Shard;
use galvani_model::store::{Damage, StoreError};
use galvani_model::version::{Dot, Kind, PartitionClock, Range, RecordHead};
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{Pull, Pulled};

/// Ranges of dots asked for at once; the rest is asked for after them.
pub(crate) const RANGES_MAX: usize = 1024;
/// Records a page may bring, however small.
const RECORDS_MAX: usize = 512;
/// Dots looked up for one page, damaged ones included.
const LOOKUPS_MAX: usize = 2 * RECORDS_MAX;
/// How long a peer may take to answer, in microseconds.
const PATIENCE_MICROS: u64 = 5_000_000;

/// Pause after a page that could not be taken in, in microseconds.
const FAILED_PAUSE_MICROS: u64 = 1_000_000;

/// A page under way.
#[derive(Clone, Debug)]
pub(crate) struct PullOp {
    /// Who was asked.
    pub(crate) to: PeerLane,
    shard: Shard,
    wanted: PartitionClock,
    /// When the answer is given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

/// How a page went.
enum Page {
    /// It brought records up to this dot.
    Through(Dot),
    /// It brought nothing that was wanted.
    Empty,
    /// It could not be taken in, or did not come.
    Failed,
}

/// Asks a peer for the records of `wanted`, as many as are a few milliseconds of a lane's work. Returns when
/// its answer is given up.
pub(super) fn ask(
    ctx: &mut Ctx<'_>,
    op: u64,
    to: PeerLane,
    shard: Shard,
    wanted: PartitionClock,
) -> u64 {
    ctx.ask(to, op, 0, Message::Pull(Pull { shard, wanted, credit: page_bytes(ctx.busy) }));
    ctx.now.micros + PATIENCE_MICROS
}

impl PullOp {
    /// Asks a peer for the records of `wanted`.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        to: PeerLane,
        shard: Shard,
        wanted: PartitionClock,
    ) -> PullOp {
        let deadline = ask(ctx, op, to, shard, wanted.clone());
        PullOp { to, shard, wanted, deadline }
    }

    /// The peer answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        let (page, pause_ms) = match heard {
            Heard::Reply(Message::Pulled(Ok(pulled))) => {
                let pause_ms = pulled.pause_ms;
                (self.take_in(ctx, pulled), pause_ms)
            }
            Heard::Reply(_) | Heard::Silence => (Page::Failed, 0),
        };
        self.finish(ctx, page, u64::from(pause_ms) * 1_000);
        ctx.share.rest(ctx.now.micros, ctx.busy);
        Step::Done
    }

    /// No answer came in time.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        self.finish(ctx, Page::Failed, 0);
        Step::Done
    }

    fn take_in(&self, ctx: &mut Ctx<'_>, pulled: Pulled) -> Page {
        let mut last = None;
        let through = pulled.through;
        let hidden = pulled.hidden.clone();
        let trimmed = (pulled.trimmed.clone(), pulled.trimmed_until);
        let (mut records_taken, mut bytes_taken) = (0, 0);
        for (index, record) in pulled.into_records().enumerate() {
            let dot = record.head.dot;
            let wanted = self.wanted.contains(dot) && last.is_none_or(|last| last < dot);
            if !wanted || !record.is_intact() {
                return Page::Failed;
            }
            let policy = match serve::owned(ctx, self.shard, &record.head.key) {
                Ok(policy) => policy,
                // All is compared again when this node learns of the bucket.
                Err(ReplicaError::UnknownBucket) => {
                    last = Some(dot);
                    continue;
                }
                Err(_) => return Page::Failed,
            };
            if replica::notice_amnesia_in(ctx.store, self.shard, &record.head) == Ok(true) {
                ctx.on_amnesia();
            }
            let bytes = record.value.len() as u64;
            records_taken += 1;
            bytes_taken += bytes + record.head.about_bytes() as u64;
            let hidden = hidden.binary_search(&(index as u16)).is_ok();
            // A tombstone is never hidden, whoever says so: nothing else would stop a late value.
            let hidden = hidden && record.head.kind == Kind::Put;
            let how = if hidden { As::Hidden } else { As::Written };
            match ctx.take_in_as(how, self.shard, record, policy, None) {
                Ok(Taken::New { discarded, retry }) => {
                    ctx.counters.lww_discarded += u64::from(discarded);
                    ctx.counters.retries_recognised += u64::from(retry);
                    ctx.counters.records_pulled += 1;
                    ctx.counters.bytes_pulled += bytes;
                }
                Ok(Taken::Duplicate) => ctx.counters.duplicates += 1,
                // A row of that key is damaged here: its other dots must not wait for it. The next
                // comparison asks for this one again.
                Err(StoreError::Corrupt { .. }) => {}
                Err(_) => return Page::Failed,
            }
            last = Some(dot);
        }
        ctx.layout.transfer.took(self.shard, records_taken, bytes_taken, ctx.now.micros);
        let last = last.max(through);
        if !trimmed.0.is_empty() && self.adopt(ctx, &trimmed, last).is_none() {
            return Page::Failed;
        }
        last.map_or(Page::Empty, Page::Through)
    }

    /// Takes in dots whose records the peer has trimmed, as far as they were asked for and the page
    /// goes. `None` where it says more than that, or they cannot be taken in.
    fn adopt(
        &self,
        ctx: &mut Ctx<'_>,
        (trimmed, until): &(PartitionClock, Hlc),
        last: Option<Dot>,
    ) -> Option<()> {
        // The layout may have changed while it was on its way.
        serve::mine(ctx, self.shard).ok()?;
        let asked = through(&self.wanted, last?);
        if !asked.missing_from(trimmed).is_empty() {
            return None;
        }
        if replica::notice_amnesia_in_clock(ctx.store, self.shard, trimmed) == Ok(true) {
            ctx.on_amnesia();
        }
        replica::adopt_trimmed(ctx.store, self.shard, trimmed, *until).ok()?;
        ctx.sync.note_change(self.shard, ctx.now);
        ctx.feed.note_change(self.shard);
        Some(())
    }

    fn finish(&self, ctx: &mut Ctx<'_>, page: Page, pause: u64) {
        let now = ctx.now.micros;
        let sync = &mut *ctx.sync;
        sync.pulling.remove(&self.shard);
        if let Some(peer) = sync.peers.get_mut(&self.to) {
            peer.pulling = false;
            peer.pull_at = now + pause;
            let behind = peer.behind.remove(&self.shard);
            match (page, behind) {
                // Nothing else would find it again.
                (Page::Failed, Some(Behind { clock, .. })) if sync.interval == 0 => {
                    let due = now + FAILED_PAUSE_MICROS;
                    peer.behind.insert(self.shard, Behind { clock, due });
                }
                (Page::Failed, _) => {
                    peer.unsaid.insert(self.shard);
                    peer.compare_at = peer.compare_at.max(now + sync.interval);
                    // Whatever it was, a full disk say, the next shard meets it too.
                    peer.pull_at = now + sync.interval.max(FAILED_PAUSE_MICROS);
                }
                // What this page passed over is not asked of this peer again; what the peer has
                // shown meanwhile is.
                (Page::Through(last), Some(Behind { clock, due })) => {
                    let clock: PartitionClock =
                        through(&self.wanted, last).missing_from(&clock).into_iter().collect();
                    peer.behind.insert(self.shard, Behind { clock, due });
                }
                (Page::Empty, Some(Behind { clock, due })) => {
                    let clock = self.wanted.missing_from(&clock).into_iter().collect();
                    peer.behind.insert(self.shard, Behind { clock, due });
                }
                (Page::Through(_) | Page::Empty, None) => {}
            }
        }
        sync.reschedule();
    }
}

/// The dots of `wanted` up to `last`, in the order of pages.
fn through(wanted: &PartitionClock, last: Dot) -> PartitionClock {
    let passed = wanted.ranges().filter_map(|mut range| {
        if range.origin == last.origin {
            range.last = range.last.min(last.counter);
        }
        (range.origin <= last.origin && range.first <= range.last).then_some(range)
    });
    passed.collect()
}

/// Answers a peer's pull with as much as its credit takes.
pub(crate) fn answer(ctx: &mut Ctx<'_>, pull: &Pull) -> Result<Pulled, ReplicaError> {
    serve::mine(ctx, pull.shard)?;
    let failed = |error: StoreError| replica::as_replica_error(&error);
    let state = ctx.store.replica(pull.shard).map_err(failed)?;
    let ranges = state.clock.common_with(&pull.wanted);
    let pause_ms = ctx.share.pause_ms(ctx.now.micros, ctx.busy);
    let trimmed_until = state.trimmed_until;
    let mut page = Pulled { trimmed_until, pause_ms, ..Pulled::default() };
    let mut room = LOOKUPS_MAX;
    let mut left = pull.credit.min(page_bytes(ctx.busy)) as usize;
    for range in ranges {
        let whole = answer_range(ctx, pull.shard, range, &mut page, &mut room, &mut left);
        if !whole.map_err(failed)? {
            break;
        }
    }
    Ok(page)
}

/// Adds the records of a range to a page, as far as there is room: dots to look up, and bytes. What
/// lies between them was trimmed. Returns whether that was all of it.
fn answer_range(
    ctx: &mut Ctx<'_>,
    shard: Shard,
    range: Range,
    page: &mut Pulled,
    room: &mut usize,
    left: &mut usize,
) -> Result<bool, StoreError> {
    let Range { origin, first: mut next, last } = range;
    loop {
        if *room == 0 || page.heads.len() >= RECORDS_MAX || *left == 0 {
            return Ok(false);
        }
        let limit = (*room).min(RECORDS_MAX);
        let dots = ctx.store.logged(shard, Dot::new(origin, next), limit)?;
        let mut is_all = dots.len() < limit;
        for dot in dots {
            if dot.origin != origin || dot.counter > last {
                is_all = true;
                break;
            }
            if *room == 0 || page.heads.len() >= RECORDS_MAX || *left == 0 {
                return Ok(false);
            }
            *room -= 1;
            note_trimmed(ctx, shard, Range { origin, first: next, last: dot.counter - 1 }, page);
            page.through = Some(dot);
            next = dot.counter + 1;
            match ctx.store.record(shard, dot) {
                Ok(Some(record)) => {
                    let bytes = record.value.len() + record.head.about_bytes();
                    *left = left.saturating_sub(bytes);
                    if is_hidden(ctx, shard, &record.head) {
                        page.hidden.push(page.heads.len() as u16);
                    }
                    page.heads.push(record.head);
                    page.values.push(record.value);
                }
                // Named although it was trimmed: what was cannot be told from the rest.
                Ok(None) => {
                    let (first, last) = (dot.counter, dot.counter);
                    note_trimmed(ctx, shard, Range { origin, first, last }, page);
                }
                // Damaged here: another replica has it, and the damage is counted where it was met.
                Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if next > last {
            return Ok(true);
        }
        if is_all {
            note_trimmed(ctx, shard, Range { origin, first: next, last }, page);
            page.through = Some(Dot::new(origin, last));
            return Ok(true);
        }
    }
}

/// Adds dots without a record to what a page says was trimmed; not those that are known to be lost.
fn note_trimmed(ctx: &mut Ctx<'_>, shard: Shard, range: Range, page: &mut Pulled) {
    let Range { origin, mut first, last } = range;
    if first > last {
        return;
    }
    let row = |counter| Damage::Record(shard, Dot::new(origin, counter));
    for lost in ctx.store.damaged().range(row(first)..=row(last)) {
        let Damage::Record(_, lost) = lost else { continue };
        if lost.counter > first {
            page.trimmed.insert_range(Range { origin, first, last: lost.counter - 1 });
        }
        first = lost.counter + 1;
    }
    if first <= last {
        page.trimmed.insert_range(Range { origin, first, last });
    }
}

/// See [`replica::is_hidden`]. Where the rows that would say so cannot be read, nothing is hidden:
/// the tombstone is in the log, too, and follows.
fn is_hidden(ctx: &mut Ctx<'_>, shard: Shard, head: &RecordHead) -> bool {
    let policy = serve::owned(ctx, shard, &head.key);
    policy.is_ok_and(|policy| replica::is_hidden(ctx.store, shard, head, policy) == Ok(true))
}
