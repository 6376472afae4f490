//! Hinted handoff: what stand-ins hold for owners that were away, and how owners come to it.
//!
//! A stand-in keeps the record as a hint, durably, outside of its own shards ([`hold`]), and tells
//! the owner that hints wait whenever it can be reached. The owner fetches them page by page
//! ([`fetch`]): it grants the credit, so it is never flooded, and asks for the next page when this
//! one is fsynced; that very question lets the stand-in drop the page. Nothing expires: a hint may
//! be one of the w copies of its write. A full hint store refuses, and then does not count for w.
//! A node that has just started asks for hints only after the other owners have brought it up to
//! date ([`Patience`]): a hint may be of a value that they have deleted, and whose tombstone they have
//! collected since. They say so when they send it; a stand-in cannot know.
//! It never decides who stands in (`stand_ins.rs`) and is no part of what reads see.
//! Source: DeCandia et al. 2007, section 4.6; algorithms 2.3.

pub(crate) mod fetch;
pub(crate) mod hold;

use crate::effect::{Now, PeerLane};
use crate::ops::{Ctx, NOBODY};
use crate::sync;
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
/// How long a holder whose disk takes nothing, so that it cannot let go what its owner has taken, tells
/// nobody of hints, in microseconds: else all of them are sent again and again.
const REFUSED_MICROS: u64 = 10_000_000;
/// How long after a hint was staged its owner is told, in microseconds: by then it is committed.
const TELL_MICROS: u64 = 10_000;
/// How often a lane that has just started looks whether it is up to date, in microseconds.
const LOOK_MICROS: u64 = 20_000;
/// How long after its start a lane waits for owners that cannot be reached, in microseconds: links
/// between nodes that run are up long before.
const WAIT_FOR_LINKS_MICROS: u64 = 1_000_000;
/// How long after its start a lane fetches hints in any case, in microseconds: they may be copies
/// that a write was acked for.
const WAIT_AT_MOST_MICROS: u64 = 30_000_000;

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
    /// Until when nobody is told.
    silent_until: u64,
    /// Whether hints may be fetched.
    patience: Patience,
    due_at: Option<u64>,
}

/// Whether hints wait for anti-entropy. Only a start can have lost what this replica had taken in,
/// so it is decided once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    /// Nothing was asked for yet.
    Fresh,
    /// The lane started at `since`, and looks again at `look_at`, in its microseconds.
    Waits { since: u64, look_at: u64 },
    /// Hints are fetched as they are told of.
    Over,
}

#[derive(Clone, Debug)]
struct Holder {
    /// When it is asked; `None` when it is not known to hold anything.
    due: Option<u64>,
    asking: bool,
    /// Whether `due` is a turn that was taken for it.
    has_turn: bool,
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
            silent_until: 0,
            patience: Patience::Fresh,
            due_at: Some(0),
        }
    }

    /// A peer can be reached: it may hold something, and something may be held for it. One that is being
    /// asked already is not asked twice: of two chains of pages each would drop what the other has taken.
    pub(crate) fn peer_up(&mut self, peer: PeerLane, now: Now) {
        let asking = self.holders.get(&peer).is_some_and(|holder| holder.asking);
        let holder = Holder {
            due: Some(now.micros),
            asking,
            has_turn: false,
            taken: 0,
            refused: Vec::new(),
        };
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
            (holder.due, holder.has_turn) = (Some(now.micros), false);
        }
        self.reschedule();
    }

    /// A peer says that it holds something for this node.
    pub(crate) fn waits_at(&mut self, peer: PeerLane, now: Now) {
        if let Some(holder) = self.holders.get_mut(&peer) {
            // The turn that it was told to wait for stands, as does the pause after a failure.
            holder.due.get_or_insert(now.micros);
        }
        self.reschedule();
    }

    /// A hint was staged here.
    fn note_held(&mut self, now: Now) {
        let soon = now.micros + TELL_MICROS;
        self.tell_at = Some(self.tell_at.map_or(soon, |at| at.min(soon)));
        self.reschedule();
    }

    /// A hint that its owner has taken in could not be let go.
    fn note_kept(&mut self, now: Now) {
        self.silent_until = now.micros + REFUSED_MICROS;
    }

    /// The tick does not exist: what it took in is not durable here, so nobody may drop it, and it is not
    /// asked for again at once: it would fail as this one did.
    pub(crate) fn unsay(&mut self, now: Now) {
        for holder in self.holders.values_mut() {
            if core::mem::take(&mut holder.taken) > 0 {
                (holder.due, holder.has_turn) = (Some(now.micros + RETRY_MICROS), false);
            }
        }
        self.reschedule();
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
        let ask_at = asks.filter_map(|holder| holder.due).min();
        let ask_at = match self.patience {
            Patience::Waits { look_at, .. } => ask_at.map(|at| at.max(look_at)),
            Patience::Fresh | Patience::Over => ask_at,
        };
        self.due_at = ask_at.into_iter().chain(self.tell_at).min();
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
    if is_too_early(ctx) {
        ctx.handoff.reschedule();
        return asks;
    }
    for (&peer, holder) in &mut ctx.handoff.holders {
        if !holder.asking && holder.due.is_some_and(|due| due <= now) {
            let has_turn = core::mem::take(&mut holder.has_turn);
            let turn = if has_turn { now } else { ctx.share.take(now, ctx.busy) };
            if turn > now {
                (holder.due, holder.has_turn) = (Some(turn), true);
                continue;
            }
            holder.asking = true;
            holder.due = None;
            asks.push(peer);
        }
    }
    ctx.handoff.reschedule();
    asks
}

/// Whether this lane started lately, and may lack what the other owners have.
fn is_too_early(ctx: &mut Ctx<'_>) -> bool {
    let now = ctx.now.micros;
    let since = match ctx.handoff.patience {
        Patience::Over => return false,
        Patience::Fresh => now,
        Patience::Waits { look_at, .. } if now < look_at => return true,
        Patience::Waits { since, .. } => since,
    };
    let links_are_due = now < since + WAIT_FOR_LINKS_MICROS;
    let level = ctx.sync.is_level() && !(links_are_due && sync::misses_owners(ctx));
    let over = level || now >= since + WAIT_AT_MOST_MICROS;
    ctx.handoff.patience = match over {
        true => Patience::Over,
        false => Patience::Waits { since, look_at: now + LOOK_MICROS },
    };
    !over
}

/// The partitions that this lane and a peer's lane both serve: only hints of these can pass between
/// them. Ascending.
fn between(topology: &Topology, mine: LaneIndex, peer: PeerLane) -> Vec<Partition> {
    let all = (0..topology.layout().partitions()).map(Partition);
    all.filter(|&partition| {
        topology.layout().lane(topology.node, partition) == Some(mine)
            && topology.lane_of(peer.node, partition) == Some(peer)
    })
    .collect()
}

fn tell(ctx: &mut Ctx<'_>) {
    let targets: Vec<NodeId> = ctx.store.hint_figures().keys().copied().collect();
    let now = ctx.now.micros;
    let again = (now + TELL_AGAIN_MICROS).max(ctx.handoff.silent_until);
    ctx.handoff.tell_at = (!targets.is_empty()).then_some(again);
    if now < ctx.handoff.silent_until {
        return;
    }
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
