//! Hinted handoff: what stand-ins hold for owners that were away, and how owners come to it.
//!
//! A stand-in keeps the record as a hint, durably, outside of its own shards ([`hold`]), and tells
//! the owner that hints wait whenever it can be reached. The owner fetches them page by page
//! ([`fetch`]): it grants the credit, so it is never flooded, and asks for the next page when this
//! one is fsynced; that very question lets the stand-in drop the page. Nothing expires: a hint may
//! be one of the w copies of its write. A full hint store refuses, and then does not count for w.
//! It never decides who stands in (`stand_ins.rs`) and is no part of what reads see.
//! Source: DeCandia et al. 2007, section 4.6; algorithms 2.3.

pub(crate) mod fetch;
pub(crate) mod hold;

use crate::effect::{Now, PeerLane};
use crate::ops::{Ctx, NOBODY};
use crate::topology::Topology;
use galvani_model::ids::{LaneIndex, NodeId, Partition, Shard};
use galvani_model::version::Dot;
use galvani_wire::Message;
use galvani_wire::message::HintsWait;
use std::collections::BTreeMap;

/// How long after a failed fetch the next is tried, in microseconds.
const RETRY_MICROS: u64 = 1_000_000;
/// How often an owner that can be reached is told of hints that still wait for it, in
/// microseconds: the first word may have been lost.
const TELL_AGAIN_MICROS: u64 = 2_000_000;
/// How long after a hint was staged its owner is told, in microseconds: by then it is committed.
const TELL_MICROS: u64 = 10_000;

/// What a lane knows of hints for its node, and of those it holds for others.
#[derive(Clone, Debug)]
pub(crate) struct Handoff {
    /// Peers that may hold hints for this node.
    holders: BTreeMap<PeerLane, Holder>,
    /// The page each owner's lane was given last.
    given: BTreeMap<PeerLane, Given>,
    /// The last page's number. Starts at random, so that no page of an earlier process is meant.
    pages: u64,
    /// When owners are told next; `None` when nothing is held.
    tell_at: Option<u64>,
    due_at: Option<u64>,
}

#[derive(Clone, Debug)]
struct Holder {
    /// When it is asked; `None` when it is not known to hold anything.
    due: Option<u64>,
    asking: bool,
    /// The page that is durable here, which it may drop; 0 for none.
    taken: u64,
    /// Positions in that page of records that could not be taken in: those it must keep.
    refused: Vec<u16>,
}

#[derive(Clone, Debug)]
struct Given {
    page: u64,
    hints: Vec<(Shard, Dot)>,
    last: Option<(Shard, Dot)>,
}

impl Handoff {
    /// `random` is any number that no earlier process of this node had.
    pub(crate) fn new(random: u64) -> Handoff {
        Handoff {
            holders: BTreeMap::new(),
            given: BTreeMap::new(),
            pages: random >> 1,
            // Hints may be on the disk from before.
            tell_at: Some(0),
            due_at: Some(0),
        }
    }

    /// A peer can be reached: it may hold something, and something may be held for it.
    pub(crate) fn peer_up(&mut self, peer: PeerLane, now: Now) {
        let holder = Holder { due: Some(now.micros), asking: false, taken: 0, refused: Vec::new() };
        self.holders.insert(peer, holder);
        self.reschedule();
    }

    /// A peer cannot be reached; its operations have heard so already.
    pub(crate) fn peer_down(&mut self, peer: PeerLane) {
        self.holders.remove(&peer);
        self.given.remove(&peer);
        self.reschedule();
    }

    /// Everyone is asked again: what could not be taken in may be taken in now.
    pub(crate) fn ask_all(&mut self, now: Now) {
        for holder in self.holders.values_mut() {
            holder.due = Some(now.micros);
        }
        self.reschedule();
    }

    /// A peer says that it holds something for this node.
    pub(crate) fn waits_at(&mut self, peer: PeerLane, now: Now) {
        if let Some(holder) = self.holders.get_mut(&peer) {
            holder.due = Some(holder.due.map_or(now.micros, |due| due.min(now.micros)));
        }
        self.reschedule();
    }

    /// A hint was staged here.
    fn note_held(&mut self, now: Now) {
        let soon = now.micros + TELL_MICROS;
        self.tell_at = Some(self.tell_at.map_or(soon, |at| at.min(soon)));
        self.reschedule();
    }

    /// The tick does not exist: what it took in is not durable here, so nobody may drop it.
    pub(crate) fn unsay(&mut self) {
        for holder in self.holders.values_mut() {
            holder.taken = 0;
        }
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at
    }

    /// Whether nobody is known to hold anything for this node that can be fetched now, and this
    /// lane holds nothing for anyone.
    pub(crate) fn is_settled(&self) -> bool {
        let at_rest = |holder: &Holder| holder.due.is_none() && !holder.asking;
        self.tell_at.is_none() && self.holders.values().all(at_rest)
    }

    fn reschedule(&mut self) {
        let asks = self.holders.values().filter(|holder| !holder.asking);
        self.due_at = asks.filter_map(|holder| holder.due).chain(self.tell_at).min();
    }
}

/// Tells owners of what waits for them, and works out which peers are to be asked now. The lane
/// starts an operation for each.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<PeerLane> {
    let now = ctx.now.micros;
    if ctx.handoff.due_at.is_none_or(|due| due > now) {
        return Vec::new();
    }
    if ctx.handoff.tell_at.is_some_and(|at| at <= now) {
        tell(ctx);
    }
    let mut asks = Vec::new();
    for (&peer, holder) in &mut ctx.handoff.holders {
        if !holder.asking && holder.due.is_some_and(|due| due <= now) {
            holder.asking = true;
            holder.due = None;
            asks.push(peer);
        }
    }
    ctx.handoff.reschedule();
    asks
}

/// The partitions that this lane and a peer's lane both serve: only hints of these can pass between
/// them. Ascending.
fn between(topology: &Topology, mine: LaneIndex, peer: PeerLane) -> Vec<Partition> {
    let all = (0..topology.layout.partitions()).map(Partition);
    all.filter(|&partition| {
        topology.layout.lane(topology.node, partition) == Some(mine)
            && topology.lane_of(peer.node, partition) == Some(peer)
    })
    .collect()
}

fn tell(ctx: &mut Ctx<'_>) {
    let targets: Vec<NodeId> = ctx.store.hint_figures().keys().copied().collect();
    ctx.handoff.tell_at = (!targets.is_empty()).then_some(ctx.now.micros + TELL_AGAIN_MICROS);
    let lanes: Vec<PeerLane> =
        ctx.up.iter().copied().filter(|lane| targets.contains(&lane.node)).collect();
    for lane in lanes {
        if between(ctx.topology, ctx.config.lane, lane).is_empty() {
            continue;
        }
        let wait = HintsWait { node: ctx.topology.node, lane: ctx.config.lane };
        ctx.ask(lane, NOBODY, 0, Message::HintsWait(wait));
    }
}
