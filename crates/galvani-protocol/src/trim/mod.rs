//! Trimming the log: a record goes once nothing needs it, it is old enough for the feed, and every
//! owner has taken in what makes it needless.
//!
//! Every shard has its turn four times in `limits.feed_keep_ms`: its log is walked through, some rows
//! a step, and what could go is asked about in one round of clocks (`round.rs`), as tombstones are
//! before they are collected: owners answer after a sync, an owner that cannot be reached holds it
//! back, and clocks are not kept for the next round. Which records could go, `judge.rs` says. Where an
//! origin's records begin to be young the walk goes on to the next origin. Then the shard's arrivals
//! are walked through, too. With `limits.feed_bytes` walks weigh the young ones as well, and a shard that may
//! keep more than its share has its turn at once (`gauge.rs`).
//! Source: algorithms 4.5; `docs/decisions/0012-trimming-the-log.md`.

mod gauge;
mod judge;
mod round;

use crate::effect::Now;
use crate::ops::Ctx;
use crate::sync;
use galvani_model::ids::{NodeId, Origin, Shard};
use galvani_model::limits::{Limits, TIMEOUT_MS_MAX};
use galvani_model::store::StoreError;
use galvani_model::version::{Dot, RecordHead};
use gauge::{Gauge, Measure};
use judge::Judge;
pub(crate) use round::{TrimOp, TrimRound};
use std::collections::{BTreeMap, BTreeSet};

/// Turns of a shard in the time for which records are kept.
const TURNS_PER_KEEP: u64 = 4;
/// The least time between the turns of two shards, in microseconds.
const APART_MIN_MICROS: u64 = 1_000;
/// Rows of one step.
const STEP_ROWS: usize = 256;
/// Pause between two steps, in microseconds: some 5,000 rows a second are looked at.
const PAUSE_MICROS: u64 = 50_000;
/// Pause after a step that cost the other owners a sync, in microseconds: some 2,500 records a second
/// go at most, and half of it on a busy lane, which is as many as it takes in while it is that busy.
const ROUND_PAUSE_MICROS: u64 = 100_000;
/// How many times as long it pauses while clients wait for this lane.
const BUSY: u64 = 2;
/// Pause after a round that proved nothing, in microseconds.
const RETRY_MICROS: u64 = 1_000_000;
/// Rounds for the same rows; then they wait for the shard's next turn.
const TRIES_MAX: u32 = 4;
/// How often it is looked which shards may keep more than their share of bytes, in microseconds.
const CHECK_MICROS: u64 = 5_000_000;
/// When a shard that did is looked at again, if nothing more could go at once, in microseconds.
const AGAIN_MICROS: u64 = 30_000_000;

/// What a lane walks through, and when.
#[derive(Clone, Debug)]
pub(crate) struct Trimmer {
    /// How long records are kept, in milliseconds; 0: for ever.
    keep_ms: u64,
    /// Bytes of them that are kept at most; 0: any number.
    keep_bytes: u64,
    /// When it is looked whose turn it is; `None` until the first poll.
    turn_at: Option<u64>,
    /// When the next shard has its turn by the clock.
    clock_at: u64,
    /// The last shard that had it.
    turn_of: Option<Shard>,
    /// What each shard keeps, where bytes are counted.
    measured: BTreeMap<Shard, Measured>,
    walk: Option<Walk>,
    /// Whether a round is under way.
    asking: bool,
    next_at: u64,
    /// Owners that could not be reached when records of a shard could have gone.
    waits: BTreeMap<Shard, Vec<NodeId>>,
}

/// What is known of what a shard keeps.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    /// `None`: no walk came to its end.
    last: Option<Measure>,
    /// Not before that it has a turn because of its bytes, in the lane's microseconds.
    not_before: u64,
}

/// A shard's turn.
#[derive(Clone, Debug)]
struct Walk {
    shard: Shard,
    at: At,
    tries: u32,
    /// What its log keeps; `None` where bytes are not counted.
    gauge: Option<Gauge>,
    /// Bytes that it may keep.
    share: u64,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// The log, from this dot on.
    Records(Dot),
    /// The arrivals, from this number on.
    Arrivals(u64),
}

impl Trimmer {
    /// Trims what is older than the limits say; never if that is 0, and not without anti-entropy: a
    /// replica that lacks what was trimmed can only be told by it.
    pub(crate) fn new(limits: &Limits) -> Trimmer {
        Trimmer {
            keep_ms: if limits.anti_entropy_ms > 0 { limits.feed_keep_ms } else { 0 },
            keep_bytes: if limits.anti_entropy_ms > 0 { limits.feed_bytes } else { 0 },
            turn_at: None,
            clock_at: u64::MAX,
            turn_of: None,
            measured: BTreeMap::new(),
            walk: None,
            asking: false,
            next_at: 0,
            waits: BTreeMap::new(),
        }
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        match (&self.walk, self.asking) {
            (_, true) => None,
            (Some(_), false) => Some(self.next_at),
            (None, false) => self.turn_at,
        }
    }

    /// Owners that hold trimming back because they cannot be reached.
    pub(crate) fn waits(&self) -> BTreeSet<NodeId> {
        self.waits.values().flatten().copied().collect()
    }

    /// How long a record is kept after it was written, in milliseconds, as it is now: as the limits say, or
    /// less, where a shard's share of bytes does not reach so far back. 0: for ever.
    pub(crate) fn keeps_ms(&self) -> u64 {
        let reaches = self.measured.values().filter_map(|it| it.last);
        let reaches = reaches.filter(|it| it.written_by_ms > 0).map(|it| it.reach_ms.max(1));
        reaches.chain((self.keep_ms > 0).then_some(self.keep_ms)).min().unwrap_or(0)
    }

    fn is_due(&self, now: u64) -> bool {
        let is_first = self.turn_at.is_none() && self.walk.is_none();
        let trims = self.keep_ms > 0 || self.keep_bytes > 0;
        trims && (is_first || self.next_deadline().is_some_and(|due| due <= now))
    }

    /// The shard whose turn it is now. `taken_in`: how many writes a shard has taken in.
    fn begin(
        &mut self,
        owned: &[Shard],
        now: Now,
        mut taken_in: impl FnMut(Shard) -> Option<u64>,
    ) -> Option<Walk> {
        let first = self.turn_at.is_none();
        let period = self.keep_ms * 1_000 / TURNS_PER_KEEP;
        let apart = (period / owned.len().max(1) as u64).max(APART_MIN_MICROS);
        let apart = if self.keep_ms > 0 { apart } else { u64::MAX / 2 };
        let share = self.keep_bytes / owned.len().max(1) as u64;
        if first {
            self.clock_at = now.micros.saturating_add(apart);
        }
        let heavy = self.heaviest(owned, share, now.micros, &mut taken_in);
        let shard = match heavy {
            Some(shard) => Some(shard),
            None if now.micros >= self.clock_at => {
                self.clock_at = now.micros.saturating_add(apart);
                let next = owned.iter().find(|&&it| self.turn_of.is_none_or(|last| it > last));
                self.turn_of = next.or(owned.first()).copied();
                self.turn_of
            }
            None => None,
        };
        let check = match heavy {
            Some(_) => now.micros + APART_MIN_MICROS,
            None if self.keep_bytes > 0 => now.micros + CHECK_MICROS,
            None => u64::MAX,
        };
        self.turn_at = Some(self.clock_at.min(check));
        let shard = shard?;
        self.waits.remove(&shard);
        let gauge = match self.keep_bytes {
            0 => None,
            _ => {
                let before = self.measured.get(&shard).and_then(|it| it.last);
                Some(Gauge::begin(now.unix_ms, taken_in(shard)?, before))
            }
        };
        let at = At::Records(Dot::new(Origin(0), 0));
        Some(Walk { shard, at, tries: 0, gauge, share })
    }

    /// A shard that was not measured yet, or may well keep more than its share.
    fn heaviest(
        &mut self,
        owned: &[Shard],
        share: u64,
        now: u64,
        taken_in: &mut impl FnMut(Shard) -> Option<u64>,
    ) -> Option<Shard> {
        if self.keep_bytes == 0 {
            return None;
        }
        self.measured.retain(|shard, _| owned.contains(shard));
        let heavy = owned.iter().copied().find(|&shard| {
            let known = self.measured.get(&shard).copied().unwrap_or_default();
            let exceeds = |last: Measure| last.may_exceed(share, taken_in(shard).unwrap_or(0));
            known.not_before <= now && known.last.is_none_or(exceeds)
        })?;
        self.measured.entry(heavy).or_default().not_before = now + AGAIN_MICROS;
        Some(heavy)
    }

    /// Records of the shard that were written by then go, in milliseconds since 1970.
    fn written_by_ms(&self, shard: Shard, now_ms: u64) -> u64 {
        let by_time = if self.keep_ms > 0 { now_ms.saturating_sub(self.keep_ms) } else { 0 };
        let measured = self.measured.get(&shard).and_then(|it| it.last);
        // Tries of a call that is still under way must find what the first one left.
        let by_bytes = now_ms.saturating_sub(u64::from(TIMEOUT_MS_MAX));
        let by_bytes = measured.map_or(0, |last| last.written_by_ms.min(by_bytes));
        by_bytes.max(by_time)
    }

    /// The round under way is over. What it was about is tried again if it proved nothing, and
    /// otherwise the walk goes on from `next`.
    fn over(&mut self, proved: bool, next: Option<Dot>, now: u64, busy: bool) {
        self.asking = false;
        let Some(walk) = &mut self.walk else { return };
        let pause = if proved { ROUND_PAUSE_MICROS } else { RETRY_MICROS };
        self.next_at = now + if busy { pause * BUSY } else { pause };
        walk.tries += 1;
        if proved || walk.tries >= TRIES_MAX {
            self.go_on(next);
        }
    }

    /// A record goes out of the log.
    fn gone(&mut self, head: &RecordHead) {
        if let Some(gauge) = self.walk.as_mut().and_then(|walk| walk.gauge.as_mut()) {
            gauge.gone(head);
        }
    }

    /// Goes on in the log; after its end, with the arrivals.
    fn go_on(&mut self, next: Option<Dot>) {
        let Some(walk) = &mut self.walk else { return };
        walk.tries = 0;
        walk.at = next.map_or(At::Arrivals(0), At::Records);
        if let (None, Some(gauge)) = (next, walk.gauge.take()) {
            let measured = self.measured.entry(walk.shard).or_default();
            let (last, more) = gauge.finish(walk.share, measured.last.unwrap_or_default());
            measured.last = Some(last);
            if more {
                measured.not_before = 0;
            }
        }
    }
}

/// One step. Returns a round of clocks to be asked for, if records could go.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Option<TrimRound> {
    let now = ctx.now.micros;
    if !ctx.trimmer.is_due(now) {
        return None;
    }
    if ctx.trimmer.walk.is_none() {
        let owned = sync::owned(ctx.topology, ctx.config.lane);
        let store = &mut *ctx.store;
        let taken_in = |shard| store.replica(shard).ok().map(|state| state.clock.len());
        ctx.trimmer.walk = ctx.trimmer.begin(&owned, ctx.now, taken_in);
    }
    let mut walk = ctx.trimmer.walk.take()?;
    ctx.trimmer.next_at = now + if ctx.busy { PAUSE_MICROS * BUSY } else { PAUSE_MICROS };
    let step = match walk.at {
        At::Records(from) => records(ctx, &mut walk, from),
        At::Arrivals(from) => {
            let next = ctx.store.trim_arrivals(walk.shard, from, STEP_ROWS);
            ctx.trimmer.walk =
                next.ok().flatten().map(|next| Walk { at: At::Arrivals(next), ..walk });
            return None;
        }
    };
    // What cannot be read is met again by whoever needs it; the shard's next turn tries again.
    let (heads, next) = step.ok()?;
    if heads.is_empty() {
        ctx.trimmer.walk = Some(walk);
        ctx.trimmer.go_on(next);
        return None;
    }
    let shard = walk.shard;
    let others = ctx.topology.others(shard);
    let (mut peers, mut away) = (Vec::new(), Vec::new());
    for node in others {
        match ctx.reach(node, shard) {
            Some(lane) => peers.push(lane),
            None => away.push(node),
        }
    }
    if !away.is_empty() {
        ctx.trimmer.waits.insert(shard, away);
        return None;
    }
    ctx.trimmer.walk = Some(walk);
    ctx.trimmer.asking = true;
    Some(TrimRound { shard, heads, next, peers })
}

/// Records from `from` on that could go as far as this replica knows, and where the walk goes on.
fn records(
    ctx: &mut Ctx<'_>,
    walk: &mut Walk,
    from: Dot,
) -> Result<(Vec<RecordHead>, Option<Dot>), StoreError> {
    let shard = walk.shard;
    let page = ctx.store.log_page(shard, from, STEP_ROWS)?;
    let written_by = ctx.trimmer.written_by_ms(shard, ctx.now.unix_ms);
    let mut judge = Judge::new(shard, &[]);
    let (mut young, mut could) = (None, Vec::new());
    for head in page.heads {
        let is_young = head.hlc.unix_ms() > written_by;
        if let Some(gauge) = &mut walk.gauge {
            gauge.meet(&head);
            if is_young && gauge.judges && judge.may_go(ctx, &head)? {
                gauge.keep(&head);
            }
        } else if young == Some(head.dot.origin) {
            continue;
        } else if is_young {
            young = Some(head.dot.origin);
        }
        if !is_young && judge.may_go(ctx, &head)? {
            if let Some(gauge) = &mut walk.gauge {
                gauge.let_go(&head);
            }
            could.push(head);
        }
    }
    let next = page.last.and_then(|last| match young == Some(last.origin) {
        true => Some(Dot::new(Origin(last.origin.0.checked_add(1)?), 0)),
        false => Some(Dot::new(last.origin, last.counter.saturating_add(1))),
    });
    Ok((could, next))
}
