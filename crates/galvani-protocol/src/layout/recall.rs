//! A voter whose disk may lack votes that it gave: it is empty, restored, or its rows are damaged.
//!
//! Before it votes it asks the other voters what they keep of the epoch that comes next. Only the word
//! of those counts that have every vote they ever gave themselves. Where so many of them answer that they
//! can decide alone, that epoch is left to them: a promise of its earlier self may still be under way, and
//! nobody can tell it. Nothing was accepted in it: then it never voted on a later one, and has all its
//! votes from there on. Else it asks anew in the next epoch. Where the others cannot decide without it, it
//! takes over the largest of their promises and what was accepted last, and votes. A node that is to
//! become a voter asks before it is one, and then has every vote from its first. Next to read: `register.rs`.

use super::register::{self, voters};
use super::steward::{PROPOSE_MICROS, majority};
use super::{PATIENCE_MICROS, Wanted, adopt, first_lane, is_due};
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use bytes::Bytes;
use galvani_model::ids::{LaneIndex, NodeId};
use galvani_model::store::StoreError;
use galvani_wire::Message;
use galvani_wire::layout::{Ballot, Prepare, Promise, Vote};
use std::collections::{BTreeMap, BTreeSet};

/// How often other voters are asked, in microseconds.
const PACE_MICROS: u64 = 200_000;
/// Under which name a lane keeps that its disk has every vote it ever gave.
pub(super) const VOTER: &[u8] = b"voter";

/// Whether this node may vote.
#[derive(Debug, Default)]
pub(crate) struct Recall {
    /// Whether its disk has every vote it ever gave; `None`: it was not looked at.
    trusted: Option<bool>,
    /// The epoch that answers are about.
    epoch: u64,
    heard: BTreeMap<NodeId, Word>,
    /// An epoch for which it may vote, and no later one.
    only: Option<u64>,
    /// An epoch that is left to the others, and whether it has every vote on those after it.
    left_out: Option<(u64, bool)>,
    /// When that epoch is proposed again, so that it is decided.
    propose_at: u64,
    asking: BTreeSet<NodeId>,
    due_at: Option<u64>,
}

/// What another voter keeps.
#[derive(Clone, Debug)]
struct Word {
    promise: Promise,
    /// Whether that is every vote it ever gave.
    whole: bool,
}

impl Word {
    fn is_blank(&self) -> bool {
        self.promise.promised == Ballot::default() && self.promise.accepted.is_none()
    }
}

/// What can be concluded from what was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    TooLittle,
    /// It has every vote it ever gave that still counts.
    Whole,
    /// It may vote on this epoch, and has to ask anew for the next one.
    This,
    /// This epoch is left to the others. Whether it has every vote on later ones.
    LeftOut(bool),
}

impl Recall {
    /// Whether this node may vote on an epoch.
    pub(crate) fn may_vote(&self, epoch: u64) -> bool {
        self.is_whole() || self.only == Some(epoch)
    }

    /// Whether its disk is known to have every vote it ever gave.
    pub(crate) fn is_whole(&self) -> bool {
        self.trusted == Some(true)
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at
    }

    /// What was written in a failed tick is looked at again.
    pub(crate) fn unsay(&mut self) {
        (self.trusted, self.only, self.left_out) = (None, None, None);
        // It is asked for again, if it has to be.
        self.due_at = Some(0);
    }
}

/// Its disk lacks votes, or may: from now on it asks before it votes, also after a restart.
pub(crate) fn distrust(ctx: &mut Ctx<'_>) {
    let recall = &mut ctx.layout.recall;
    if recall.trusted == Some(false) && recall.only.is_none() {
        // Where a failed tick was to say so, the disk may still say the contrary.
        *ctx.fsync |= ctx.store.set_fact(VOTER, None).is_ok();
        return;
    }
    (recall.only, recall.left_out) = (None, None);
    recall.heard.clear();
    recall.due_at = Some(ctx.now.micros);
    // Should that fail: whatever made it doubtful is met again by the next process.
    let noted = ctx.store.set_fact(VOTER, None).is_ok();
    *ctx.fsync |= noted;
    // The disk is looked at again.
    ctx.layout.recall.trusted = if noted { None } else { Some(false) };
}

/// Looks on the disk whether every vote is there, where that is not known.
pub(crate) fn look(ctx: &mut Ctx<'_>) -> Result<(), StoreError> {
    if ctx.layout.recall.trusted.is_none() && ctx.layout.refill.is_unwritten() {
        // Whatever the disk says, it does not know yet.
        ctx.layout.recall.trusted = Some(false);
    }
    if ctx.layout.recall.trusted.is_none() {
        let kept = match ctx.store.fact(VOTER) {
            // It said something once, and what cannot be read is not known.
            Err(StoreError::Corrupt { .. }) => None,
            kept => kept?,
        };
        ctx.layout.recall.trusted = Some(kept.is_some());
    }
    Ok(())
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
    let me = ctx.topology.node;
    let is_wanted = is_voter(ctx) || ctx.topology.layout().member(me).is_some();
    if ctx.config.lane != LaneIndex(0) || !is_wanted {
        // Nobody wants its vote.
        ctx.layout.recall.due_at = None;
        return Vec::new();
    }
    ctx.layout.recall.due_at = Some(ctx.now.micros + PACE_MICROS);
    if look(ctx).is_err() {
        // A disk that cannot be read now is looked at again.
        return Vec::new();
    }
    let epoch = ctx.layout.recall.epoch;
    if ctx.layout.recall.may_vote(epoch) || conclude(ctx) {
        ctx.layout.recall.due_at = None;
        return Vec::new();
    }
    if ctx.layout.recall.left_out.is_some_and(|(of, _)| of == epoch) {
        return have_it_decided(ctx).into_iter().collect();
    }
    let up = ctx.up;
    let others = voters(ctx.topology.layout()).filter(|&node| node != me);
    let others: Vec<NodeId> = others.filter(|node| up.contains(&first_lane(*node))).collect();
    let recall = &mut ctx.layout.recall;
    let unheard = others.into_iter().filter(|node| !recall.heard.contains_key(node));
    unheard
        .filter(|node| recall.asking.insert(*node))
        .map(|node| Wanted::Recall(first_lane(node)))
        .collect()
}

fn is_voter(ctx: &Ctx<'_>) -> bool {
    voters(ctx.topology.layout()).any(|voter| voter == ctx.topology.node)
}

/// Proposes to the others that everything stays as it is: the epoch that this node keeps out of is to be
/// over, so that it can vote again.
fn have_it_decided(ctx: &mut Ctx<'_>) -> Option<Wanted> {
    let recall = &mut ctx.layout.recall;
    if !is_due(recall.propose_at, ctx.now) {
        return None;
    }
    recall.propose_at = ctx.now.micros + PROPOSE_MICROS;
    Some(Wanted::Propose(ctx.topology.layout().again()))
}

fn judge(ctx: &Ctx<'_>) -> Finding {
    let recall = &ctx.layout.recall;
    let all = voters(ctx.topology.layout()).count();
    let whole = recall.heard.values().filter(|word| word.whole).count();
    let undecided = recall.heard.values().all(|word| word.promise.accepted.is_none());
    if !is_voter(ctx) {
        // Nothing is decided beyond what it knows: so it was no voter later on in any earlier life.
        return match whole >= majority(all) && undecided {
            true => Finding::Whole,
            false => Finding::TooLittle,
        };
    }
    // Of every majority that this node may have been part of, one of the others is among so many.
    let needed = if all == 1 { 0 } else { all - majority(all) + 1 };
    let heard = recall.heard.len();
    // The cluster is new, and nobody voted yet: nobody has anything to remember.
    let new = ctx.topology.epoch() == 1 && recall.heard.values().all(Word::is_blank);
    if new && heard >= needed {
        return Finding::Whole;
    }
    if whole >= majority(all) {
        return Finding::LeftOut(undecided);
    }
    // Everybody has spoken: there is no more to know, whoever lost what.
    if whole >= needed || heard + 1 == all {
        return if undecided { Finding::Whole } else { Finding::This };
    }
    Finding::TooLittle
}

/// Whether so much was heard that this node may vote: then that is on its disk.
fn conclude(ctx: &mut Ctx<'_>) -> bool {
    let (epoch, left_out) = (ctx.layout.recall.epoch, ctx.layout.recall.left_out);
    let finding = match left_out {
        Some((of, true)) if of < epoch => Finding::Whole,
        Some((of, _)) if of == epoch => return false,
        Some(_) | None => judge(ctx),
    };
    let others: Vec<Promise> = match finding {
        Finding::TooLittle => return false,
        Finding::LeftOut(whole_then) => {
            ctx.layout.recall.left_out = Some((epoch, whole_then));
            return false;
        }
        Finding::Whole | Finding::This => {
            ctx.layout.recall.heard.values().map(|word| word.promise.clone()).collect()
        }
    };
    let mut kept = register::raise(ctx, others.into_iter());
    if finding == Finding::Whole {
        kept = kept.and_then(|()| ctx.store.set_fact(VOTER, Some(Bytes::from_static(b"1"))));
    }
    let recall = &mut ctx.layout.recall;
    if kept.is_ok() {
        recall.heard.clear();
        recall.trusted = Some(finding == Finding::Whole);
        (recall.only, recall.left_out) = (Some(epoch), None);
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

    /// It was never sent, because the tick it was made in does not exist.
    pub(crate) fn unsay(&self, recall: &mut Recall) {
        recall.asking.remove(&self.to.node);
    }

    pub(super) fn on_heard(&self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        ctx.layout.recall.asking.remove(&self.to.node);
        let (promise, whole) = match heard {
            Heard::Reply(Message::Voted(Ok(Vote::Decided(state)))) => {
                adopt(ctx, *state);
                return Step::Done;
            }
            Heard::Reply(Message::Voted(Ok(Vote::Kept(kept)))) => (*kept, true),
            Heard::Reply(Message::Voted(Ok(Vote::Forgot(kept)))) => (*kept, false),
            Heard::Reply(_) | Heard::Silence => return Step::Done,
        };
        let recall = &mut ctx.layout.recall;
        if promise.epoch == self.epoch && recall.epoch == self.epoch {
            recall.heard.insert(self.to.node, Word { promise, whole });
            recall.due_at = recall.due_at.map(|_| ctx.now.micros);
        }
        Step::Done
    }
}
