//! Who stands in for owners of a write that are away: the sloppy quorum.
//!
//! The fallbacks of the preference list, in its order, each at most once a write; only those that
//! can be reached when the write begins. A strict write has none. It counts nothing: the tracker
//! does. Next to read: `put.rs`, `handoff/`. Source: DeCandia et al. 2007, section 4.6.

use crate::effect::PeerLane;
use crate::ops::Ctx;
use galvani_model::ids::{NodeId, Shard};

/// Stand-ins of one write. Where there are no fallbacks it holds no memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct StandIns {
    /// Fallbacks that can be reached and were not asked yet, best last.
    left: Vec<PeerLane>,
    /// Who was asked: the index of the ask, and in whose place.
    asked: Vec<(usize, NodeId)>,
}

impl StandIns {
    /// The fallbacks of a shard that can be reached now.
    pub(crate) fn of(ctx: &Ctx<'_>, shard: Shard) -> StandIns {
        let fallbacks = ctx.topology.layout().fallbacks(shard);
        let reached = fallbacks.filter_map(|node| ctx.reach(node, shard));
        let mut left: Vec<PeerLane> = reached.collect();
        // Those that are expected to answer first; the order is kept otherwise.
        left.sort_by_key(|&lane| ctx.presumed_away(lane));
        left.truncate(STAND_INS_MAX);
        left.reverse();
        StandIns { left, asked: Vec::new() }
    }

    /// How many may still be asked.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// The next to ask.
    pub(crate) fn next(&mut self) -> Option<PeerLane> {
        self.left.pop()
    }

    /// Notes that the ask `index` is in the place of `owner`.
    pub(crate) fn note(&mut self, index: usize, owner: NodeId) {
        self.asked.push((index, owner));
    }

    /// In whose place the ask `index` was made, if it was made to a stand-in.
    pub(crate) fn owner_of(&self, index: usize) -> Option<NodeId> {
        self.asked.iter().find(|(asked, _)| *asked == index).map(|(_, owner)| *owner)
    }

    /// Whether someone was asked in the place of `owner`.
    pub(crate) fn has_for(&self, owner: NodeId) -> bool {
        self.asked.iter().any(|(_, other)| *other == owner)
    }
}

/// Stand-ins one write asks at most: one for each owner, and as many again when some refuse.
/// With the owners they fit in the ids of one operation's asks.
pub(crate) const STAND_INS_MAX: usize = 8;
