//! Operations under way, by number, with their deadlines.
//!
//! Those that somebody waits for are bounded by `Limits::inflight`, which the lane asks before it
//! starts one; those that only listen to late replicas by a multiple of it. Next to read: `lane.rs`.

use crate::buckets::BucketOp;
use crate::effect::PeerLane;
use crate::explain::ExplainOp;
use crate::feed::clocks::HearOp;
use crate::forward::ForwardOp;
use crate::get::GetOp;
use crate::handoff::fetch::FetchHintsOp;
use crate::known::KnownOp;
use crate::layout::LayoutOp;
use crate::list::ListOp;
use crate::ops::{Asked, ask_id};
use crate::put::PutOp;
use crate::reap::ReapOp;
use crate::retried::RetriedOp;
use crate::sync::compare::CompareOp;
use crate::sync::damage::RecoverOp;
use crate::sync::pull::PullOp;
use crate::sync::unequal::UnequalOp;
use crate::topology::Topology;
use crate::trim::TrimOp;
use galvani_model::ids::Shard;
use std::collections::{BTreeMap, BTreeSet};

/// One operation under way.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(PutOp, Shard),
    Retried(RetriedOp, Shard),
    Get(GetOp, Shard),
    List(ListOp, Shard),
    Explain(ExplainOp, Shard),
    Forward(ForwardOp),
    Bucket(BucketOp),
    Known(KnownOp),
    Compare(CompareOp),
    Pull(PullOp),
    Recover(RecoverOp),
    Unequal(UnequalOp),
    FetchHints(FetchHintsOp),
    Reap(ReapOp),
    Hear(HearOp),
    Trim(TrimOp),
    Layout(LayoutOp),
}

impl Op {
    fn deadline(&self) -> u64 {
        match self {
            Op::Put(op, _) => op.wake_at(),
            Op::Retried(op, _) => op.deadline,
            Op::Get(op, _) => op.deadline,
            Op::List(op, _) => op.deadline,
            Op::Explain(op, _) => op.deadline,
            Op::Forward(op) => op.wake_at(),
            Op::Bucket(op) => op.deadline,
            Op::Known(op) => op.deadline,
            Op::Compare(op) => op.deadline,
            Op::Pull(op) => op.deadline,
            Op::Recover(op) => op.deadline,
            Op::Unequal(op) => op.deadline,
            Op::FetchHints(op) => op.deadline,
            Op::Reap(op) => op.clocks.deadline,
            Op::Hear(op) => op.deadline,
            Op::Trim(op) => op.clocks.deadline,
            Op::Layout(op) => op.deadline(),
        }
    }

    /// Whether somebody still waits for it.
    fn is_waited_for(&self) -> bool {
        match self {
            Op::Put(op, _) => !op.is_answered(),
            Op::Get(op, _) => !op.is_answered(),
            Op::Retried(..) | Op::List(..) | Op::Explain(..) => true,
            Op::Forward(..) | Op::Bucket(_) => true,
            Op::Known(_) | Op::Compare(_) | Op::Pull(_) | Op::Trim(_) => false,
            Op::FetchHints(_) | Op::Reap(_) | Op::Recover(_) | Op::Unequal(_) => false,
            Op::Hear(_) => false,
            Op::Layout(op) => op.is_waited_for(),
        }
    }

    /// Bytes of values it holds.
    fn held(&self) -> usize {
        match self {
            Op::Get(op, _) => op.held(),
            Op::Put(op, _) => op.held(),
            Op::Retried(op, _) => op.held(),
            Op::Forward(op) => op.held(),
            Op::List(op, _) => op.held(),
            Op::Explain(..) => 0,
            Op::Bucket(_) | Op::Known(_) | Op::Compare(_) | Op::Pull(_) | Op::Trim(_) => 0,
            Op::FetchHints(_) | Op::Reap(_) | Op::Recover(_) | Op::Unequal(_) => 0,
            Op::Hear(_) | Op::Layout(_) => 0,
        }
    }

    /// The index of its ask that waits for `peer`, if one does.
    fn waits_for(&self, peer: PeerLane, topology: &Topology) -> Option<usize> {
        let of = |asked: &Asked, shard: &Shard| {
            let lane = topology.lane_of(peer.node, shard.partition);
            let mut pending = asked.pending();
            (lane == Some(peer)).then(|| pending.find(|(_, node)| *node == peer.node))?
        };
        match self {
            Op::Put(op, shard) => of(op.asked(), shard).map(|(index, _)| index),
            Op::Retried(op, shard) => of(op.asked(), shard).map(|(index, _)| index),
            Op::Get(op, shard) => {
                let lane = topology.lane_of(peer.node, shard.partition);
                (lane == Some(peer)).then(|| op.waits_for(peer.node))?
            }
            Op::List(op, shard) => of(op.asked(), shard).map(|(index, _)| index),
            Op::Explain(op, shard) => of(op.asked(), shard).map(|(index, _)| index),
            Op::Forward(op) => op.waits_for(peer),
            Op::Bucket(op) => (op.waits_for() == Some(peer)).then_some(0),
            Op::Known(op) => (op.to == peer).then_some(0),
            Op::Compare(op) => (op.to == peer).then_some(0),
            Op::Pull(op) => (op.to == peer).then_some(0),
            Op::Recover(op) => (op.to == peer).then_some(0),
            Op::Unequal(op) => (op.to == peer).then_some(0),
            Op::FetchHints(op) => (op.to == peer).then_some(0),
            Op::Reap(op) => op.clocks.waits_for(peer),
            Op::Hear(op) => (op.to == peer).then_some(0),
            Op::Trim(op) => op.clocks.waits_for(peer),
            Op::Layout(op) => op.waits_for(peer),
        }
    }
}

/// The lane's operations.
#[derive(Debug)]
pub(crate) struct OpTable {
    ops: BTreeMap<u64, Op>,
    deadlines: BTreeSet<(u64, u64)>,
    last: u64,
    /// Operations that somebody waits for.
    waiting: usize,
    /// Bytes of values that operations hold.
    held: usize,
}

impl OpTable {
    pub(crate) fn new() -> OpTable {
        OpTable { ops: BTreeMap::new(), deadlines: BTreeSet::new(), last: 0, waiting: 0, held: 0 }
    }

    /// A number no operation of this lane has had.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(crate) fn insert(&mut self, id: u64, op: Op) {
        self.deadlines.insert((op.deadline(), id));
        self.waiting += usize::from(op.is_waited_for());
        self.held += op.held();
        self.ops.insert(id, op);
    }

    pub(crate) fn take(&mut self, id: u64) -> Option<Op> {
        let op = self.ops.remove(&id)?;
        self.deadlines.remove(&(op.deadline(), id));
        self.waiting -= usize::from(op.is_waited_for());
        self.held -= op.held();
        Some(op)
    }

    /// An operation whose deadline is at or before `micros`.
    pub(crate) fn take_due(&mut self, micros: u64) -> Option<(u64, Op)> {
        let &(deadline, id) = self.deadlines.first()?;
        if deadline > micros {
            return None;
        }
        self.take(id).map(|op| (id, op))
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whether nothing is under way, not even for the lane itself.
    pub(crate) fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of values that operations hold.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Bytes of values that the operation holds which holds most. Looks at all of them.
    pub(crate) fn held_most(&self) -> usize {
        self.ops.values().map(Op::held).max().unwrap_or(0)
    }

    /// Answered reads and writes that listen to late replicas. Looks at all operations.
    pub(crate) fn lingering(&self) -> usize {
        let puts = |op: &Op| matches!(op, Op::Put(op, _) if op.is_answered());
        let gets = |op: &Op| matches!(op, Op::Get(op, _) if op.is_answered());
        self.ops.values().filter(|op| puts(op) || gets(op)).count()
    }

    /// Operations that somebody waits for.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// An operation that nobody waits for, to give up when there are more than `most` of them: the one
    /// that would be given up first anyway. Never one of layouts: a proposal that is woken early tries
    /// again instead, and would be taken again without end.
    pub(crate) fn take_lingering_above(&mut self, most: usize) -> Option<(u64, Op)> {
        if self.ops.len() - self.waiting <= most {
            return None;
        }
        let lingers = |&&(_, id): &&(u64, u64)| {
            let op = &self.ops[&id];
            !op.is_waited_for() && !matches!(op, Op::Layout(_))
        };
        let id = self.deadlines.iter().find(lingers).map(|&(_, id)| id)?;
        self.take(id).map(|op| (id, op))
    }

    /// The ids of all asks that wait for `peer`.
    pub(crate) fn asks_of(&self, peer: PeerLane, topology: &Topology) -> Vec<u64> {
        let asks = self.ops.iter().filter_map(|(&op, under_way)| {
            under_way.waits_for(peer, topology).map(|index| ask_id(op, index))
        });
        asks.collect()
    }
}
