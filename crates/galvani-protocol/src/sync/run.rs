//! A repair that an operator asked for: which shards are still to be read, which to be compared.
//!
//! It only keeps count. Reading, mending and comparing are what they always are (`verify.rs`,
//! `damage.rs`, `compare.rs`), so a repair is nothing that could go wrong in a way of its own. One
//! that is asked for while another runs joins it: what that has read is not read again, shards that
//! it does not read are added.

use super::{AntiEntropy, owned};
use crate::effect::Now;
use crate::effect::PeerLane;
use crate::topology::Topology;
use galvani_model::ids::{LaneIndex, Partition, Shard};
use std::collections::BTreeSet;

/// The repair that was asked for last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    number: u64,
    /// Shards it is to read.
    shards: BTreeSet<Shard>,
    /// Of those, shards that are not read yet.
    left: BTreeSet<Shard>,
    /// Of those, shards that could not be read through in many attempts.
    unread: BTreeSet<Shard>,
    /// What was read and is to be shown to another owner.
    unsaid: BTreeSet<(PeerLane, Shard)>,
}

/// How far a lane is with the repair that was asked for last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairProgress {
    /// Which one it is since the lane was made; 0: nobody has asked for any.
    pub number: u64,
    /// Whether it is still at work.
    pub running: bool,
    /// Shards it reads.
    pub shards: u32,
    /// Shards that it has read through.
    pub read: u32,
    /// Shards that it could not read through.
    pub unread: u32,
    /// Shards that were read and are still to be compared with another owner.
    pub comparing: u32,
}

impl AntiEntropy {
    /// Every owned shard of a partition, or of all, is to be read through and compared now.
    pub(crate) fn repair(
        &mut self,
        topology: &Topology,
        mine: LaneIndex,
        partition: Option<Partition>,
    ) {
        self.mender.try_all();
        let progress = self.repair_progress();
        if !progress.running {
            self.run = Run { number: progress.number + 1, ..Run::default() };
        }
        let asked = |shard: &Shard| partition.is_none_or(|of| of == shard.partition);
        for shard in owned(topology, mine).into_iter().filter(asked) {
            // Each of them says whether it is news: shards that were read stay read.
            if self.run.shards.insert(shard) | self.run.unread.remove(&shard) {
                self.run.left.insert(shard);
                self.verify.all_of(shard);
            }
        }
    }

    /// The tick is committed: shards that it has read to their ends, and put on the list of those
    /// that are shown again, are read.
    pub(crate) fn committed(&mut self, topology: &Topology) {
        for shard in self.verify.take_committed() {
            if !self.run.left.remove(&shard) {
                continue;
            }
            for node in topology.replicas(shard) {
                let lane = topology.lane_of(node, shard.partition);
                let lane = lane.filter(|lane| self.interval > 0 && self.peers.contains_key(lane));
                self.run.unsaid.extend(lane.map(|lane| (lane, shard)));
            }
        }
    }

    /// The tick's commit failed: they are read again.
    pub(crate) fn unsay(&mut self, now: Now) {
        for shard in self.verify.unsay(now.micros) {
            self.run.is_unread(shard);
        }
    }

    /// How far that is.
    pub(crate) fn repair_progress(&self) -> RepairProgress {
        let run = &self.run;
        let count = |of: &BTreeSet<Shard>| of.len() as u32;
        let comparing = run.unsaid.iter().map(|(_, shard)| *shard).collect::<BTreeSet<_>>();
        let mended = run.unsaid.is_empty()
            && self.mender.is_settled()
            && self.unequal.is_settled()
            && self.verify.is_settled();
        RepairProgress {
            number: run.number,
            running: run.number > 0 && !(run.left.is_empty() && (self.interval == 0 || mended)),
            shards: count(&run.shards),
            read: count(&run.shards) - count(&run.left) - count(&run.unread),
            unread: count(&run.unread),
            comparing: count(&comparing),
        }
    }
}

impl Run {
    /// A peer cannot be reached: what it was to be shown it is shown when it is back.
    pub(super) fn peer_down(&mut self, peer: PeerLane) {
        self.unsaid.retain(|(to, _)| *to != peer);
    }

    /// A shard cannot be read through.
    pub(super) fn is_unread(&mut self, shard: Shard) {
        if self.left.remove(&shard) {
            self.unread.insert(shard);
        }
    }

    /// A peer knows how a shard stands here.
    pub(super) fn is_compared(&mut self, peer: PeerLane, shard: Shard) {
        self.unsaid.remove(&(peer, shard));
    }
}
