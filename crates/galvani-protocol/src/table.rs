//! Operations under way, by number, with their deadlines.
//!
//! Bounded by `Limits::inflight`, which the lane asks before it starts one. Next to read: `lane.rs`.

use crate::buckets::BucketOp;
use crate::effect::PeerLane;
use crate::explain::ExplainOp;
use crate::forward::ForwardOp;
use crate::get::GetOp;
use crate::known::KnownOp;
use crate::list::ListOp;
use crate::ops::{Asked, ask_id};
use crate::put::PutOp;
use crate::topology::Topology;
use galvani_model::ids::Shard;
use std::collections::{BTreeMap, BTreeSet};

/// One operation under way.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put(PutOp, Shard),
    Get(GetOp, Shard),
    List(ListOp, Shard),
    Explain(ExplainOp, Shard),
    Forward(ForwardOp, PeerLane),
    Bucket(BucketOp),
    Known(KnownOp),
}

impl Op {
    fn deadline(&self) -> u64 {
        match self {
            Op::Put(op, _) => op.deadline,
            Op::Get(op, _) => op.deadline,
            Op::List(op, _) => op.deadline,
            Op::Explain(op, _) => op.deadline,
            Op::Forward(op, _) => op.deadline,
            Op::Bucket(op) => op.deadline,
            Op::Known(op) => op.deadline,
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
            Op::Get(op, shard) => of(op.asked(), shard).map(|(index, _)| index),
            Op::List(op, shard) => of(op.asked(), shard).map(|(index, _)| index),
            Op::Explain(op, shard) => of(op.asked(), shard).map(|(index, _)| index),
            Op::Forward(_, to) => (*to == peer).then_some(0),
            Op::Bucket(op) => (op.waits_for() == Some(peer)).then_some(0),
            Op::Known(op) => (op.to == peer).then_some(0),
        }
    }
}

/// The lane's operations.
#[derive(Debug)]
pub(crate) struct OpTable {
    ops: BTreeMap<u64, Op>,
    deadlines: BTreeSet<(u64, u64)>,
    last: u64,
}

impl OpTable {
    pub(crate) fn new() -> OpTable {
        OpTable { ops: BTreeMap::new(), deadlines: BTreeSet::new(), last: 0 }
    }

    /// A number no operation of this lane has had.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(crate) fn insert(&mut self, id: u64, op: Op) {
        self.deadlines.insert((op.deadline(), id));
        self.ops.insert(id, op);
    }

    pub(crate) fn take(&mut self, id: u64) -> Option<Op> {
        let op = self.ops.remove(&id)?;
        self.deadlines.remove(&(op.deadline(), id));
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

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// The ids of all asks that wait for `peer`.
    pub(crate) fn asks_of(&self, peer: PeerLane, topology: &Topology) -> Vec<u64> {
        let asks = self.ops.iter().filter_map(|(&op, under_way)| {
            under_way.waits_for(peer, topology).map(|index| ask_id(op, index))
        });
        asks.collect()
    }
}
