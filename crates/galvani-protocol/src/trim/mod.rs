//! Trimming the log: a record goes once nothing needs it, it is old enough for the feed, and every
//! owner has taken in what makes it needless.
//!
//! Every shard has its turn four times in `limits.feed_keep_ms`: its log is walked through, some rows
//! a step, and what could go is asked about in one round of clocks (`round.rs`), as tombstones are
//! before they are collected: owners answer after a sync, an owner that cannot be reached holds it
//! back, and clocks are not kept for the next round. Which records could go, `judge.rs` says. Where an
//! origin's records begin to be young the walk goes on to the next origin. Then the shard's arrivals
//! are walked through, too. Source: algorithms 4.5; `docs/decisions/0012-trimming-the-log.md`.

mod judge;
mod round;

use crate::ops::Ctx;
use crate::sync;
use galvani_model::ids::{NodeId, Origin, Shard};
use galvani_model::limits::Limits;
use galvani_model::store::StoreError;
use galvani_model::version::{Dot, RecordHead};
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

/// What a lane walks through, and when.
#[derive(Clone, Debug)]
pub(crate) struct Trimmer {
    /// How long records are kept, in milliseconds; 0: for ever.
    keep_ms: u64,
    /// When the next shard has its turn; `None` until the first poll.
    turn_at: Option<u64>,
    /// The last shard that had it.
    turn_of: Option<Shard>,
    walk: Option<Walk>,
    /// Whether a round is under way.
    asking: bool,
    next_at: u64,
    /// Owners that could not be reached when records of a shard could have gone.
    waits: BTreeMap<Shard, Vec<NodeId>>,
}

/// A shard's turn.
#[derive(Clone, Copy, Debug)]
struct Walk {
    shard: Shard,
    at: At,
    tries: u32,
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
            turn_at: None,
            turn_of: None,
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

    fn is_due(&self, now: u64) -> bool {
        let is_first = self.turn_at.is_none() && self.walk.is_none();
        self.keep_ms > 0 && (is_first || self.next_deadline().is_some_and(|due| due <= now))
    }

    /// The shard whose turn it is now.
    fn begin(&mut self, owned: &[Shard], now: u64) -> Option<Walk> {
        let first = self.turn_at.is_none();
        let period = self.keep_ms * 1_000 / TURNS_PER_KEEP;
        let apart = (period / owned.len().max(1) as u64).max(APART_MIN_MICROS);
        self.turn_at = Some(now + apart);
        if first {
            return None;
        }
        let next = owned.iter().find(|&&shard| self.turn_of.is_none_or(|last| shard > last));
        let shard = *next.or(owned.first())?;
        self.turn_of = Some(shard);
        self.waits.remove(&shard);
        Some(Walk { shard, at: At::Records(Dot::new(Origin(0), 0)), tries: 0 })
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
            walk.go_on(next);
        }
    }
}

impl Walk {
    /// Goes on in the log; after its end, with the arrivals.
    fn go_on(&mut self, next: Option<Dot>) {
        self.tries = 0;
        self.at = next.map_or(At::Arrivals(0), At::Records);
    }
}

/// One step. Returns a round of clocks to be asked for, if records could go. `busy` says whether
/// clients wait for this lane.
pub(crate) fn poll(ctx: &mut Ctx<'_>, busy: bool) -> Option<TrimRound> {
    let now = ctx.now.micros;
    if !ctx.trimmer.is_due(now) {
        return None;
    }
    if ctx.trimmer.walk.is_none() {
        let owned = sync::owned(ctx.topology, ctx.config.lane);
        ctx.trimmer.walk = ctx.trimmer.begin(&owned, now);
    }
    let mut walk = ctx.trimmer.walk.take()?;
    ctx.trimmer.next_at = now + if busy { PAUSE_MICROS * BUSY } else { PAUSE_MICROS };
    let step = match walk.at {
        At::Records(from) => records(ctx, walk.shard, from),
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
        walk.go_on(next);
        ctx.trimmer.walk = Some(walk);
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
    shard: Shard,
    from: Dot,
) -> Result<(Vec<RecordHead>, Option<Dot>), StoreError> {
    let page = ctx.store.log_page(shard, from, STEP_ROWS)?;
    let written_by = ctx.now.unix_ms.saturating_sub(ctx.trimmer.keep_ms);
    let mut judge = Judge::new(shard, &[]);
    let (mut young, mut could) = (None, Vec::new());
    for head in page.heads {
        if young == Some(head.dot.origin) {
            continue;
        }
        if head.hlc.unix_ms() > written_by {
            young = Some(head.dot.origin);
        } else if judge.may_go(ctx, &head)? {
            could.push(head);
        }
    }
    let next = page.last.and_then(|last| match young == Some(last.origin) {
        true => Some(Dot::new(Origin(last.origin.0.checked_add(1)?), 0)),
        false => Some(Dot::new(last.origin, last.counter.saturating_add(1))),
    });
    Ok((could, next))
}
