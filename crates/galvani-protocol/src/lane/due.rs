//! When a lane has something to do although nothing arrived.
//!
//! After a failed commit that is a little later than it seems: what was due was not done, is due still, and
//! would be tried thousands of times a second on a disk that takes nothing. What arrives is handled at once
//! also then. Next to read: `failed_tick.rs`, and `on_time` in `lane.rs`.

use super::Lane;
use crate::membership::swim::Swim;

/// How long nothing is due after a failed commit, in microseconds.
const REST_MICROS: u64 = 10_000;

impl Lane {
    /// When the next deadline is due, in the lane's microseconds. Not before ten
    /// milliseconds after a failed commit.
    pub fn next_deadline(&self) -> Option<u64> {
        let background = self.sync.next_deadline().into_iter().chain(self.handoff.next_deadline());
        let background = background.chain(self.reaper.next_deadline());
        let background = background.chain(self.trimmer.next_deadline());
        let liveness = self.swim.iter().map(Swim::next_deadline).chain(self.scores.next_deadline());
        let background = background.chain(self.feed.next_deadline());
        let background = background.chain(self.layout.next_deadline(self.topology.epoch()));
        let due = background.chain(liveness).chain(self.table.next_deadline()).min();
        due.map(|due| due.max(self.rests_until))
    }

    /// The tick's commit failed.
    pub(super) fn rest(&mut self) {
        self.rests_until = self.now.micros + REST_MICROS;
    }
}
