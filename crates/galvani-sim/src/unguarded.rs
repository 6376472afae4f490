//! What a mutant does that goes beyond messages and rows: it takes a lane through another course of time.
//!
//! Never called without a mutant. Next to read: `mutant.rs`, `oracles/still.rs`.

use crate::world::World;
use galvani_protocol::{Input, Now};

/// Steps in which a node lives through the time in which it stood still, in microseconds.
const STEP_MICROS: u64 = 20_000;

impl World {
    /// A node's lanes see every moment since they stood still, and nothing that arrived in that time.
    pub(crate) fn live_through(&mut self, node: usize, since: u64) {
        for lane in 0..self.nodes[node].lanes.len() {
            let writing = self.nodes[node].lanes[lane].writing.is_some();
            let mut at = if writing { self.now } else { since };
            while at < self.now {
                let now = Now { micros: self.nodes[node].clock.shows(at), ..self.now_of(node) };
                let slot = &mut self.nodes[node].lanes[lane];
                if slot.lane.next_deadline().is_some_and(|due| due <= now.micros) {
                    slot.lane.handle(Input::Wake, now, &mut slot.store);
                }
                at += STEP_MICROS;
            }
        }
    }
}
