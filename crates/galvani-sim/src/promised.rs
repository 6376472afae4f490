//! What stand-ins have said they hold, for whom, and what became of it.
//!
//! A promise begins when a hint is committed, or when an ack names a stand-in that stored it: a stand-in
//! that lies is in it, too. It ends only where a disk really lost what was promised. It judges nothing.
//! Next to read: `oracles/hinted.rs`.

use crate::world::{World, node_id};
use galvani_model::ids::{NodeId, Shard};
use galvani_model::version::Dot;
use galvani_wire::failure::Outcome;
use galvani_wire::message::PutDone;
use std::collections::BTreeMap;

/// A record that one node holds for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Promise {
    pub(crate) holder: usize,
    pub(crate) owner: usize,
    pub(crate) shard: Shard,
    pub(crate) dot: Dot,
}

/// Who answers for a record that was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its holder, which has the hint.
    Held,
    /// Its owner, which was given the record.
    Given,
    /// Nobody: the disk of whoever did has lost it.
    Gone,
}

/// Every promise of a run.
pub(crate) type Promises = BTreeMap<Promise, State>;

impl World {
    /// A hint was committed.
    pub(crate) fn note_promised(&mut self, holder: usize, owner: NodeId, shard: Shard, dot: Dot) {
        let owner = self.by_id[&owner];
        self.promises.insert(Promise { holder, owner, shard, dot }, State::Held);
    }

    /// An ack leaves that names its stand-ins. What one of them has lost since it answered is known already.
    pub(crate) fn note_stand_ins(&mut self, shard: Shard, done: &PutDone) {
        for answer in &done.answers {
            let stored = matches!(answer.outcome, Outcome::Stored | Outcome::StoredDurably);
            let Some(owner) = answer.stands_in_for.filter(|_| stored) else { continue };
            self.coverage.add("hints.acked", 1);
            let (holder, owner, dot) = (self.by_id[&answer.node], self.by_id[&owner], done.dot);
            let promise = Promise { holder, owner, shard, dot };
            self.promises.entry(promise).or_insert(State::Held);
        }
    }

    /// A hint was let go. An owner that has lost the record since it had it may say so honestly.
    pub(crate) fn note_given(&mut self, holder: usize, owner: NodeId, shard: Shard, dot: Dot) {
        let owner = self.by_id[&owner];
        let node = &self.nodes[owner];
        let lost = node.lost_data_at.is_some() && !node.clock_on_disk(shard).contains(dot);
        let state = if lost { State::Gone } else { State::Given };
        self.promises.insert(Promise { holder, owner, shard, dot }, state);
    }

    /// A node's disk has lost something: what it answered for and has no more is nobody's.
    pub(crate) fn doubt_promises(&mut self, lost: usize) {
        let node = &self.nodes[lost];
        let hints = node.all_hints_on_disk();
        for (promise, state) in &mut self.promises {
            let Promise { holder, owner, shard, dot } = *promise;
            let still = match *state {
                State::Held if holder == lost => hints.contains(&(node_id(owner), shard, dot)),
                State::Given if owner == lost => node.clock_on_disk(shard).contains(dot),
                State::Held | State::Given | State::Gone => true,
            };
            if !still {
                *state = State::Gone;
            }
        }
    }
}
