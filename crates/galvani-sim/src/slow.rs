//! Slow disks: a commit or a sync that takes long, while the lane that waits for it does nothing.
//!
//! The tick's inputs are handled before, and its effects leave after. In between a batch is on the disk
//! already and not known to be, or it is not: what a crash leaves is right either way. Drawn in some seeds
//! only, from dice of its own. Next to read: `drive.rs`.

use crate::mutant::Mutant;
use crate::packet::{Event, LaneAt};
use crate::world::World;
use galvani_model::store::StoreError;

/// A tick whose inputs are handled.
pub(crate) struct Handled {
    /// How many inputs it had.
    pub(crate) count: usize,
    /// The node's date when they were handled, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// How its commit went, where that is done.
    pub(crate) committed: Option<Result<(), StoreError>>,
}

/// How often a node that stands still is looked at, in microseconds.
const LOOK_MICROS: u64 = 20_000;

impl World {
    /// Gives the tick back unless its disk takes long: then it is gone on with later.
    pub(crate) fn unless_slow(&mut self, to: LaneAt, mut handled: Handled) -> Option<Handled> {
        let here = |node: Option<usize>| node.is_none_or(|node| node == to.node);
        let slow = self.profile.slow_disks.filter(|slow| !self.calm && here(slow.only));
        let Some(slow) = slow.filter(|_| self.mutant != Some(Mutant::EffectsFirst)) else {
            return Some(handled);
        };
        let slot = &mut self.nodes[to.node].lanes[to.lane];
        let staged = slot.store.inner().has_staged();
        let writes = staged || slot.lane.wants_fsync(staged);
        if !writes || !self.dice.disks.chance(slow.share) {
            return Some(handled);
        }
        self.coverage.add("fault.slow_commit", 1);
        if self.dice.disks.chance(500) {
            handled.committed = Some(self.commit_tick(to));
        }
        let wait = self.dice.disks.between(slow.longest / 10, slow.longest);
        let node = &mut self.nodes[to.node];
        node.lanes[to.lane].writing = Some(handled);
        self.queue.push(self.now + wait, Event::Written { at: to, boot: node.boot });
        None
    }

    /// A slow disk is done.
    pub(crate) fn written(&mut self, at: LaneAt, boot: u64) {
        let node = &mut self.nodes[at.node];
        if node.boot != boot || node.is_down() {
            return;
        }
        if !node.is_awake() {
            self.queue.push(self.now + LOOK_MICROS, Event::Written { at, boot });
        } else if let Some(handled) = node.lanes[at.lane].writing.take() {
            self.end_tick(at, handled);
        }
    }

    /// How much longer a request may take because disks are slow, in microseconds: it may wait for the
    /// commit before its own, and for its own, on its way there, at an owner, and back.
    pub(crate) fn slow_micros(&self) -> u64 {
        self.profile.slow_disks.map_or(0, |slow| 6 * slow.longest)
    }
}
