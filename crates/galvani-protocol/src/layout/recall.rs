//! A voter with an empty disk: it may have voted in an earlier life, and does not know.
//!
//! Before it votes it asks the other voters what they have promised and accepted for the epoch that
//! comes next: so many that every majority it may have been part of has one of them. With the largest
//! of their promises, and what was accepted last, it is as good as its earlier self. Where none has
//! accepted anything, nothing is decided beyond what it knows: then it says on its disk that it has all
//! its votes, and never asks again. Else it asks once more when that epoch is decided.
//! Next to read: `register.rs`.

use super::register::{self, voters};
use super::{PATIENCE_MICROS, Wanted, adopt, first_lane, is_due};
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use bytes::Bytes;
use galvani_model::ids::{LaneIndex, NodeId};
use galvani_wire::Message;
use galvani_wire::layout::{Ballot, Prepare, Promise, Vote};
use std::collections::{BTreeMap, BTreeSet};

/// How often other voters are asked, in microseconds.
const PACE_MICROS: u64 = 200_000;
/// Under which name a lane keeps that its disk has every vote it ever gave.
const VOTER: &[u8] = b"voter";

/// Whether this node may vote.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    /// Whether its disk has every vote it ever gave; `None`: it was not looked at.
    trusted: Option<bool>,
    /// The epoch that answers are about.
    epoch: u64,
    heard: BTreeMap<NodeId, Promise>,
    /// An epoch for which it may vote, and no later one.
    only: Option<u64>,
    asking: BTreeSet<NodeId>,
    due_at: Option<u64>,
}

impl Recall {
    /// Whether this node may vote on an epoch.
    pub(crate) fn may_vote(&self, epoch: u64) -> bool {
        self.trusted == Some(true) || self.only == Some(epoch)
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at
    }

    /// What was written in a failed tick is looked at again.
    pub(crate) fn unsay(&mut self) {
        (self.trusted, self.only) = (None, None);
        // It is asked for again, if it has to be.
        self.due_at = Some(0);
    }
}

/// The layout may have another state.
pub(crate) fn renew(ctx: &mut Ctx<'_>) {
    if ctx.config.lane != LaneIndex(0) {
        return;
    }
    let recall = &mut ctx.layout.recall;
    let epoch = ctx.topology.epoch() + 1;
    if recall.epoch != epoch {
        (recall.epoch, recall.heard) = (epoch, BTreeMap::new());
    }
    recall.due_at = (recall.trusted != Some(true)).then_some(ctx.now.micros);
}

/// Works out whom to ask, and whether enough was heard.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Vec<Wanted> {
    if !ctx.layout.recall.due_at.is_some_and(|at| is_due(at, ctx.now)) {
        return Vec::new();
    }
    if ctx.config.lane != LaneIndex(0) {
        ctx.layout.recall.due_at = None;
        return Vec::new();
    }
    if !voters(ctx.topology.layout()).any(|voter| voter == ctx.topology.node) {
        // Nobody wants its vote.
        ctx.layout.recall.due_at = None;
        return Vec::new();
    }
    ctx.layout.recall.due_at = Some(ctx.now.micros + PACE_MICROS);
    if ctx.layout.recall.trusted.is_none() {
        // A disk that cannot be read now is looked at again.
        let Ok(kept) = ctx.store.fact(VOTER) else { return Vec::new() };
        ctx.layout.recall.trusted = Some(kept.is_some());
    }
    let epoch = ctx.layout.recall.epoch;
    if ctx.layout.recall.may_vote(epoch) || conclude(ctx) {
        ctx.layout.recall.due_at = None;
        return Vec::new();
    }
    let (me, up) = (ctx.topology.node, ctx.up);
    let others = voters(ctx.topology.layout()).filter(|&node| node != me);
    let others: Vec<NodeId> = others.filter(|node| up.contains(&first_lane(*node))).collect();
    let recall = &mut ctx.layout.recall;
    let unheard = others.into_iter().filter(|node| !recall.heard.contains_key(node));
    unheard
        .filter(|node| recall.asking.insert(*node))
        .map(|node| Wanted::Recall(first_lane(node)))
        .collect()
}

/// Whether so many were heard that this node may vote: then that is on its disk.
fn conclude(ctx: &mut Ctx<'_>) -> bool {
    let all = voters(ctx.topology.layout()).count();
    // Of every majority that this node may have been part of, one of the others was heard.
    let needed = if all == 1 { 0 } else { all - (all / 2 + 1) + 1 };
    if ctx.layout.recall.heard.len() < needed {
        return false;
    }
    let heard = core::mem::take(&mut ctx.layout.recall.heard);
    let undecided = heard.values().all(|promise| promise.accepted.is_none());
    let mut kept = register::raise(ctx, heard.into_values());
    if undecided {
        kept = kept.and_then(|()| ctx.store.set_fact(VOTER, Some(Bytes::from_static(b"1"))));
    }
    let recall = &mut ctx.layout.recall;
    if kept.is_ok() {
        recall.trusted = Some(undecided);
        recall.only = Some(recall.epoch);
    }
    kept.is_ok()
}

/// Another voter is being asked what it keeps.
#[derive(Clone, Debug)]
pub(crate) struct RecallOp {
    pub(super) to: PeerLane,
    epoch: u64,
    pub(super) deadline: u64,
}

impl RecallOp {
    pub(super) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane) -> RecallOp {
        let epoch = ctx.topology.epoch() + 1;
        ctx.ask(to, op, 0, Message::Prepare(Prepare { epoch, ballot: Ballot::default() }));
        RecallOp { to, epoch, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    pub(super) fn on_heard(&self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        ctx.layout.recall.asking.remove(&self.to.node);
        match heard {
            Heard::Reply(Message::Voted(Ok(Vote::Decided(state)))) => adopt(ctx, *state),
            Heard::Reply(Message::Voted(Ok(Vote::Kept(kept)))) if kept.epoch == self.epoch => {
                let recall = &mut ctx.layout.recall;
                if recall.epoch == self.epoch {
                    recall.heard.insert(self.to.node, *kept);
                    recall.due_at = recall.due_at.map(|_| ctx.now.micros);
                }
            }
            Heard::Reply(_) | Heard::Silence => {}
        }
        Step::Done
    }
}
