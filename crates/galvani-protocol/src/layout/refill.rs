//! An owner whose disk was lost, or went back to an earlier state: what it has acked may not be there.
//!
//! Until it has caught up with the other owners (`sources.rs`) it answers no read of the shards that may
//! lack something, says so when others ask for its clock, and gives out no feed of them. So r + w > n
//! holds over a lost disk. It takes in writes meanwhile, and those count: they are here. Where it cannot
//! catch up, because too many owners are away, it stays out until one is back or a change gives it up.
//! It copies nothing itself: the records come by anti-entropy (`sync/`), also where that is off for all
//! else. The same for votes is `recall.rs`. Next to read: `sources.rs`, `serve.rs`; decision 0018.

use super::sources::{Own, Sources};
use super::{PATIENCE_MICROS, Wanted, fact_of, is_due, recall};
use crate::effect::{Effect, Now, PeerLane};
use crate::feed;
use crate::ops::{Ctx, Heard, Step};
use crate::reap::SHARDS_MAX;
use crate::sync;
use bytes::Bytes;
use galvani_model::ids::{LaneIndex, NodeId, Shard};
use galvani_model::store::StoreError;
use galvani_wire::Message;
use galvani_wire::message::Clocks;
use galvani_wire::view::Refilling;
use std::collections::{BTreeMap, BTreeSet};

/// How often it looks whether clocks are covered, in microseconds.
const PACE_MICROS: u64 = 50_000;
/// Under which name a node keeps when it last lost what it had: any bytes that no earlier loss was given.
/// A node without it has all it ever acked.
pub const LOSS: &[u8] = b"loss";

/// What a node writes down before its lanes start if its disk is new, or may be of an earlier time; `name` is
/// one that no earlier loss had. It also forgets that it has all its votes.
pub fn facts_of_a_loss(name: u128) -> [(&'static [u8], Option<Bytes>); 2] {
    let name = Bytes::copy_from_slice(&name.to_be_bytes());
    [(LOSS, Some(name)), (recall::VOTER, None)]
}

/// What a lane of a node that lost its disk has yet to get back.
#[derive(Debug, Default)]
pub(crate) struct Refill {
    /// The last loss, once it was looked at.
    loss: Option<Option<Bytes>>,
    /// What this process has found out itself: its disk went back.
    found: Option<Found>,
    shards: BTreeMap<Shard, Sources>,
    /// What this tick noted to be whole.
    noted: Vec<(Shard, Sources)>,
    /// Whether a loss that this process found out itself is on the disk.
    kept: Kept,
    /// Whom it asked about which shards last, so that all have their turn.
    turn: usize,
    asking: BTreeSet<PeerLane>,
    due_at: Option<u64>,
}

/// A loss that was found out while the process ran.
#[derive(Clone, Debug)]
struct Found {
    name: Bytes,
    /// Whether this lane found it: it tells those that are not there, too.
    first: bool,
}

/// What the disk says of the last loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kept {
    #[default]
    Yes,
    /// Once this tick is committed.
    Staged,
    No,
}

impl Refill {
    /// Whether something that this node acked may not be here.
    pub(crate) fn lacks(&self, shard: Shard) -> bool {
        !self.shards.is_empty() && self.shards.contains_key(&shard)
    }

    /// How far it is, for people.
    pub(crate) fn figures(&self) -> Refilling {
        let missing = self.shards.values().map(Sources::missing);
        let waits = self.shards.values().flat_map(Sources::unmet);
        Refilling {
            left: self.shards.len() as u32,
            records_left: missing.fold(0, u64::saturating_add),
            waits: waits.collect::<BTreeSet<NodeId>>().into_iter().collect(),
        }
    }

    /// Whether the disk may say still that nothing was lost.
    pub(super) fn is_unwritten(&self) -> bool {
        self.kept != Kept::Yes
    }

    /// Whether anything lacks, or is to be looked at or written down.
    fn has_work(&self) -> bool {
        self.kept == Kept::No || self.loss.is_none() || !self.shards.is_empty()
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at
    }

    /// A peer is there or is not any more: its node is asked again. Another lane of it says the same.
    pub(crate) fn doubt_peer(&mut self, peer: PeerLane, now: Now) {
        self.shards.values_mut().for_each(|it| it.doubt(peer.node));
        self.due_at = self.due_at.map(|at| at.min(now.micros + PACE_MICROS));
    }

    /// What this tick noted is on the disk.
    pub(crate) fn committed(&mut self) {
        self.noted.clear();
        if self.kept == Kept::Staged {
            self.kept = Kept::Yes;
        }
    }

    /// Nothing of a failed tick is there: neither records that covered clocks, nor what was noted.
    pub(crate) fn unsay(&mut self, now: Now) {
        if !self.noted.is_empty() {
            // The layout may have moved on in that very tick.
            self.loss = None;
        }
        self.shards.extend(core::mem::take(&mut self.noted));
        self.shards.values_mut().for_each(Sources::forget);
        if self.kept == Kept::Staged {
            self.kept = Kept::No;
        }
        if self.has_work() {
            let later = now.micros + PACE_MICROS;
            self.due_at = Some(self.due_at.map_or(later, |at| at.min(later)));
        }
    }
}

/// The fact that a shard has all again that this node had acked of it before its last loss.
fn whole(shard: Shard) -> Vec<u8> {
    fact_of(b"whole/", shard)
}

/// The last loss that some lane of this node found out while it ran.
const FOUND: &[u8] = b"loss/found";

/// The last one of those that a lane knows of.
fn known_to(lane: LaneIndex) -> Vec<u8> {
    [b"loss/", &lane.0.to_be_bytes()[..]].concat()
}

/// The last loss: the one that the node noted before it started, and the one that was found out later.
/// `None` if there was none.
fn loss(ctx: &mut Ctx<'_>) -> Result<Option<Bytes>, StoreError> {
    if let Some(loss) = &ctx.layout.refill.loss {
        return Ok(loss.clone());
    }
    let lane = ctx.config.lane;
    let mut kept = |name: &[u8]| match ctx.store.fact(name) {
        // It said something once. No shard was ever said to be whole after a loss of this name.
        Err(StoreError::Corrupt { .. }) => Ok(Some(Bytes::new())),
        kept => kept,
    };
    let (noted, found, mut known) = (kept(LOSS)?, kept(FOUND)?, kept(&known_to(lane))?);
    if let Some(name) = found
        && ctx.layout.refill.found.is_none()
        && known.as_ref() != Some(&name)
    {
        // The process ended before this lane heard of it.
        known = Some(name.clone());
        ctx.layout.refill.found = Some(Found { name, first: false });
        keep(ctx);
    }
    let loss = (noted.is_some() || known.is_some()).then(|| {
        let (noted, known) = (noted.unwrap_or_default(), known.unwrap_or_default());
        Bytes::from([noted, known].concat())
    });
    ctx.layout.refill.loss = Some(loss.clone());
    Ok(loss)
}

/// Its disk went back in time: others know more of its own writes than it does. So did what its other lanes
/// have.
pub(crate) fn on_amnesia(ctx: &mut Ctx<'_>) {
    let name = ctx.config.boot ^ 1;
    if ctx.layout.refill.found.is_none() {
        ctx.effects.push(Effect::WentBack(name));
        went_back(ctx, name, true);
    }
}

/// The same, found out by another lane.
pub(crate) fn on_told(ctx: &mut Ctx<'_>, name: u128) {
    if ctx.layout.refill.found.is_none() {
        went_back(ctx, name, false);
    }
}

/// Another process served as this node. That its disk is not this one's is as if this one had lost
/// what was acked on it, however much was lost and filled again before.
pub(crate) fn on_twin(ctx: &mut Ctx<'_>, name: u128) {
    let found = ctx.layout.refill.found.as_ref();
    if found.is_none_or(|found| found.name[..] != name.to_be_bytes()) {
        // Every lane is told; one of them writes it down for those that end before they are.
        went_back(ctx, name, ctx.config.lane == LaneIndex(0));
    }
}

fn went_back(ctx: &mut Ctx<'_>, name: u128, first: bool) {
    let name = Bytes::copy_from_slice(&name.to_be_bytes());
    ctx.layout.refill.found = Some(Found { name, first });
    keep(ctx);
    renew(ctx);
    // Whoever was met before may have been met before what is missing now was acked.
    ctx.layout.refill.shards.values_mut().for_each(Sources::forget);
    ctx.layout.transfer.on_loss(ctx.now);
    // What follows this lane's shards is to follow those of others.
    feed::on_layout(ctx);
}

/// Writes down what was found out. Votes may be gone, too.
fn keep(ctx: &mut Ctx<'_>) {
    let Some(Found { name, first }) = ctx.layout.refill.found.clone() else { return };
    let mut staged = ctx.store.set_fact(&known_to(ctx.config.lane), Some(name.clone())).is_ok();
    if first {
        staged &= ctx.store.set_fact(FOUND, Some(name)).is_ok();
    }
    *ctx.fsync |= staged;
    // A disk that takes nothing now is tried again.
    ctx.layout.refill.kept = if staged { Kept::Staged } else { Kept::No };
    ctx.layout.refill.loss = None;
    if ctx.config.lane == LaneIndex(0) {
        recall::distrust(ctx);
    }
}

/// A shard has all that is to be read from it.
pub(super) fn note_whole(ctx: &mut Ctx<'_>, shard: Shard) -> Result<(), StoreError> {
    match loss(ctx)? {
        Some(loss) => ctx.store.set_fact(&whole(shard), Some(loss)),
        None => Ok(()),
    }
}

/// The layout may have another state, or there may be more buckets.
pub(crate) fn renew(ctx: &mut Ctx<'_>) {
    let loss = match loss(ctx) {
        // What went back stays lost, whether or not the disk says so yet.
        Ok(None) if ctx.layout.refill.found.is_none() => {
            ctx.layout.refill.shards.clear();
            ctx.layout.refill.due_at = None;
            return;
        }
        Ok(loss) => loss,
        // Nothing can be read from such a disk; it is looked at again.
        Err(_) => None,
    };
    let (me, topology) = (ctx.topology.node, ctx.topology);
    let read: Vec<Shard> = sync::owned(topology, ctx.config.lane)
        .into_iter()
        .filter(|&shard| topology.owners(shard).contains(&me))
        .collect();
    ctx.layout.refill.shards.retain(|shard, _| read.binary_search(shard).is_ok());
    for shard in read {
        let others = topology.owners(shard).into_iter().filter(|&node| node != me);
        let is_whole = loss.is_some() && ctx.store.fact(&whole(shard)) == Ok(loss.clone());
        let shards = &mut ctx.layout.refill.shards;
        match shards.get_mut(&shard) {
            _ if is_whole => drop(shards.remove(&shard)),
            Some(sources) if sources.are(others.clone()) => sources.ask_again(),
            Some(_) | None => drop(shards.insert(shard, Sources::new(others, Own::Lost))),
        }
    }
    let refill = &mut ctx.layout.refill;
    refill.due_at = refill.has_work().then_some(ctx.now.micros);
}

/// Looks what is covered, and works out whom to ask.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<Wanted> {
    if !ctx.layout.refill.due_at.is_some_and(|at| is_due(at, ctx.now)) {
        return Vec::new();
    }
    if ctx.layout.refill.kept == Kept::No {
        keep(ctx);
    }
    if ctx.layout.refill.loss.is_none() {
        renew(ctx);
    }
    let shards: Vec<Shard> = ctx.layout.refill.shards.keys().copied().collect();
    let mut by_source: BTreeMap<PeerLane, Vec<Shard>> = BTreeMap::new();
    for &shard in &shards {
        let Ok(state) = ctx.store.replica(shard) else { continue };
        let Some(sources) = ctx.layout.refill.shards.get_mut(&shard) else { continue };
        // A change that gives a node up may be given up itself, as long as this one is read from.
        sources.look(&state.clock, ctx.down, |_| false, ctx.now.micros);
        if sources.is_done() && note_whole(ctx, shard).is_ok() {
            let refill = &mut ctx.layout.refill;
            refill.noted.extend(refill.shards.remove_entry(&shard));
            continue;
        }
        for node in ctx.layout.refill.shards[&shard].to_ask(ctx.now.micros) {
            if let Some(lane) = ctx.reach(node, shard) {
                by_source.entry(lane).or_default().push(shard);
            }
        }
    }
    let refill = &mut ctx.layout.refill;
    refill.due_at = refill.has_work().then_some(ctx.now.micros + PACE_MICROS);
    let (asking, turn) = (&mut refill.asking, &mut refill.turn);
    let wanted = by_source.into_iter().filter_map(|(lane, mut shards)| {
        // Those that nobody answers for must not keep the others from being asked about.
        let first = if shards.len() > SHARDS_MAX { *turn % shards.len() } else { 0 };
        shards.rotate_left(first);
        shards.truncate(SHARDS_MAX);
        let asked = asking.insert(lane);
        *turn = turn.wrapping_add(if asked { SHARDS_MAX } else { 0 });
        asked.then_some(Wanted::Refill(lane, shards))
    });
    wanted.collect()
}

/// Another owner is being asked for its clocks.
#[derive(Clone, Debug)]
pub(crate) struct RefillOp {
    pub(super) to: PeerLane,
    shards: Vec<Shard>,
    /// The last loss that was found by then.
    found: Option<Bytes>,
    pub(super) deadline: u64,
}

impl RefillOp {
    pub(super) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane, shards: Vec<Shard>) -> RefillOp {
        ctx.ask_clocks(to, op, 0, &shards, false);
        let found = ctx.layout.refill.found.as_ref().map(|found| found.name.clone());
        RefillOp { to, shards, found, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    pub(super) fn on_heard(&self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        ctx.layout.refill.asking.remove(&self.to);
        let Heard::Reply(Message::Clocks(Ok(Clocks { epoch, clocks, lacking }))) = heard else {
            return Step::Done;
        };
        ctx.layout.heard_of(epoch);
        if clocks.len() != self.shards.len() {
            return Step::Done;
        }
        let found = ctx.layout.refill.found.as_ref().map(|found| found.name.clone());
        if found != self.found {
            // Asked before the last loss, of which it says nothing.
            return Step::Done;
        }
        let mut took = false;
        for (&shard, clock) in self.shards.iter().zip(clocks) {
            let Some(clock) = clock else { continue };
            let (whole, now) = (!lacking.contains(&shard), ctx.now.micros);
            let sources = ctx.layout.refill.shards.get_mut(&shard);
            if sources.is_some_and(|it| it.heard(self.to.node, &clock, whole, now)) {
                sync::learn_now(ctx, self.to, shard, clock);
                took = true;
            }
        }
        if took {
            ctx.layout.refill.due_at = ctx.layout.refill.due_at.map(|_| ctx.now.micros);
        }
        Step::Done
    }
}
