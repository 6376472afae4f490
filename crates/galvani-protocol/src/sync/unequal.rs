//! Equal clocks and unequal objects: found key by key, and mended with presence winning.
//!
//! The peer adds up its objects a slice at a time, in the order of their keys; only the keys of
//! slices that add up to something else here are shown. A value that the peer shows and that this
//! replica has taken in, yet does not hold, was lost here and is held again. What the peer does not
//! show proves nothing: absence is never taken over. Both sides do the same, so both come to hold
//! all that either held. Afterwards the own digest is worked out anew (`verify.rs`) and both
//! compare again; where that finds them unequal still, the pauses grow.
//! Next to read: `../replica.rs`. Source: algorithms 2.5, 6.4.

use crate::effect::{Effect, Now, PeerLane};
use crate::ops::{Ctx, Heard, Step};
use crate::replica;
use crate::serve;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::StoreError;
use galvani_model::version::{Digest, Dot, Object, object_digest};
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{AskSlice, SliceIs};
use std::collections::BTreeMap;

/// Objects of one slice: a millisecond or two of a lane's work.
const SLICE_ROWS: usize = 256;
/// Dots shown in one message; a key with more of them than that is shown with as many.
const DOTS_MAX: usize = 16_384;
/// How long a peer may take to answer, in microseconds.
const PATIENCE_MICROS: u64 = 5_000_000;
/// The first pause after an attempt, in microseconds; it doubles with each one that was in vain.
const PAUSE_MICROS: u64 = 1_000_000;
/// Attempts after which a difference counts as one that cannot be mended: it is still tried, every
/// hour or so.
pub(crate) const TRIES_MAX: u32 = 6;
/// The longest pause, as a power of two of the first one.
const PAUSE_SHIFT_MAX: u32 = 12;

/// Shards that were found unequal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unequal {
    found: BTreeMap<(PeerLane, Shard), Found>,
    /// Whether an attempt is under way: one at a time.
    busy: bool,
}

#[derive(Clone, Copy, Debug)]
struct Found {
    /// Whether it was found since the last attempt.
    fresh: bool,
    not_before: u64,
    tries: u32,
}

impl Unequal {
    /// A comparison found equal clocks and unequal digests; returns whether that is news.
    fn found(&mut self, peer: PeerLane, shard: Shard, now: Now) -> bool {
        let new = Found { fresh: true, not_before: now.micros, tries: 0 };
        let is_news = !self.found.contains_key(&(peer, shard));
        self.found.entry((peer, shard)).or_insert(new).fresh = true;
        is_news
    }

    /// Who differs in what, as far as is known.
    pub(crate) fn all(&self) -> impl Iterator<Item = (PeerLane, Shard)> {
        self.found.keys().copied()
    }

    /// Keeps those that are shared still.
    pub(super) fn retain(&mut self, shared: impl Fn(&PeerLane, &Shard) -> bool) {
        self.found.retain(|(peer, shard), _| shared(peer, shard));
    }

    /// Whether a shard differs from a peer's, as far as is known.
    pub(crate) fn is_found(&self, shard: Shard) -> bool {
        self.found.keys().any(|(_, of)| *of == shard)
    }

    /// A peer cannot be reached; it is compared with when it is back.
    pub(super) fn peer_down(&mut self, peer: PeerLane) {
        self.found.retain(|(of, _), _| *of != peer);
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let fresh = self.found.values().filter(|found| found.fresh && !self.busy);
        fresh.map(|found| found.not_before).min()
    }

    /// Whether nothing is being mended that may still be mended.
    pub(super) fn is_settled(&self) -> bool {
        !self.busy && self.found.values().all(|found| found.tries >= TRIES_MAX)
    }

    /// The attempt that is due.
    pub(super) fn poll(&mut self, now: u64) -> Option<(PeerLane, Shard)> {
        let due =
            |(_, found): &(&(PeerLane, Shard), &Found)| found.fresh && found.not_before <= now;
        if self.busy {
            return None;
        }
        let (&(peer, shard), _) = self.found.iter().find(due)?;
        self.busy = true;
        Some((peer, shard))
    }

    fn tried(&mut self, peer: PeerLane, shard: Shard, now: u64) {
        self.busy = false;
        if let Some(found) = self.found.get_mut(&(peer, shard)) {
            found.fresh = false;
            found.not_before = now + (PAUSE_MICROS << found.tries.min(PAUSE_SHIFT_MAX));
            found.tries = found.tries.saturating_add(1);
        }
    }
}

/// A comparison found equal clocks and unequal digests: damage, or a bug.
pub(super) fn found(ctx: &mut Ctx<'_>, peer: PeerLane, shard: Shard) {
    ctx.counters.digests_unequal += 1;
    if ctx.sync.unequal.found(peer, shard, ctx.now) {
        ctx.effects.push(Effect::Unequal { peer, shard, mended: false });
    }
}

/// A comparison found all equal.
pub(super) fn settled(ctx: &mut Ctx<'_>, peer: PeerLane, shard: Shard) {
    if ctx.sync.unequal.found.remove(&(peer, shard)).is_some() {
        ctx.effects.push(Effect::Unequal { peer, shard, mended: true });
    }
}

/// An attempt under way.
#[derive(Clone, Debug)]
pub(crate) struct UnequalOp {
    /// Who is asked.
    pub(crate) to: PeerLane,
    op: u64,
    shard: Shard,
    /// The slice asked for begins after this key.
    after: Option<Key>,
    /// When the answer is given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl UnequalOp {
    /// Asks a peer for its first slice.
    pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane, shard: Shard) -> UnequalOp {
        let mut this = UnequalOp { to, op, shard, after: None, deadline: 0 };
        this.ask(ctx, false);
        this
    }

    fn ask(&mut self, ctx: &mut Ctx<'_>, keys: bool) {
        let ask = AskSlice { shard: self.shard, after: self.after.clone(), keys };
        ctx.ask(self.to, self.op, 0, Message::AskSlice(ask));
        self.deadline = ctx.now.micros + PATIENCE_MICROS;
    }

    /// The peer answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        let Heard::Reply(Message::SliceIs(Ok(slice))) = heard else { return self.give_up(ctx) };
        // A peer that does not go on would be asked for ever.
        if slice.last.is_some() && slice.last <= self.after {
            return self.give_up(ctx);
        }
        if slice.clock.is_none() && self.differs(ctx, &slice) {
            self.ask(ctx, true);
            return Step::Wait;
        }
        if self.take_in(ctx, &slice).is_err() {
            return self.give_up(ctx);
        }
        if slice.last.is_some() {
            self.after = slice.last;
            self.ask(ctx, false);
            return Step::Wait;
        }
        ctx.sync.verify.digest_of(self.shard);
        self.give_up(ctx)
    }

    /// It ends, with whatever it has mended.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        ctx.sync.unequal.tried(self.to, self.shard, ctx.now.micros);
        ctx.sync.reschedule();
        Step::Done
    }

    /// Whether the own objects of the same part add up to something else.
    fn differs(&self, ctx: &mut Ctx<'_>, theirs: &SliceIs) -> bool {
        let limit = theirs.rows as usize + SLICE_ROWS;
        let Ok(mine) = ctx.store.slice(self.shard, self.after.as_ref(), limit) else { return true };
        let mut digest = Digest::default();
        let inside = |key: &Key| theirs.last.as_ref().is_none_or(|last| key <= last);
        for object in mine.objects.iter().filter(|object| inside(&object.key)) {
            digest.replace(Digest::default(), object_digest(&object.key, &object.object));
        }
        digest != theirs.digest
    }

    /// Holds again what the peer shows and this replica has lost.
    fn take_in(&self, ctx: &mut Ctx<'_>, slice: &SliceIs) -> Result<(), StoreError> {
        let Some(clock) = &slice.clock else { return Ok(()) };
        for (key, dots) in &slice.keys {
            let Ok(policy) = serve::owned(ctx, self.shard, key) else { continue };
            // Whatever this replica knows that the peer did not may be what replaced it.
            let mine = &ctx.store.replica(self.shard)?.clock;
            if !clock.missing_from(mine).is_empty() {
                return Ok(());
            }
            for &dot in dots {
                match ctx.readopt(self.shard, key, dot, policy) {
                    Ok(true) => ctx.counters.readopted += 1,
                    // Its own damage is mended first.
                    Ok(false) | Err(StoreError::Corrupt { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Answers a peer that asks for a slice.
pub(crate) fn answer(ctx: &mut Ctx<'_>, ask: &AskSlice) -> Result<SliceIs, ReplicaError> {
    serve::mine(ctx, ask.shard)?;
    let failed = |error: StoreError| replica::as_replica_error(&error);
    let clock = ctx.store.replica(ask.shard).map_err(failed)?.clock.clone();
    let slice = ctx.store.slice(ask.shard, ask.after.as_ref(), SLICE_ROWS).map_err(failed)?;
    let (mut digest, mut keys, mut room) = (Digest::default(), Vec::new(), DOTS_MAX);
    let rows = slice.objects.len() as u32;
    for object in slice.objects {
        digest.replace(Digest::default(), object_digest(&object.key, &object.object));
        if ask.keys && room > 0 {
            let dots: Vec<Dot> = values(&object.object).take(room).collect();
            room -= dots.len();
            keys.push((object.key, dots));
        }
    }
    let clock = ask.keys.then_some(clock);
    Ok(SliceIs { last: slice.last, digest, rows, clock, keys })
}

/// The dots of an object's live values without an end, which are what the digest covers.
fn values(object: &Object) -> impl Iterator<Item = Dot> {
    let values = object.versions().iter().filter(|version| version.is_lasting());
    values.flat_map(|version| version.dots.iter().copied())
}
