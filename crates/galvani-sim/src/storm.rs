//! Storms of retries: clients with short deadlines that ask again and again, several nodes at once.
//!
//! Beside the calls of `client.rs`, which go on as they are: each write that is not acked soon goes out
//! again under its own request id, through any lane of any node, until it is acked or was sent often
//! enough. Nobody waits for these calls; their answers are heard. Drawn in some seeds only, from dice of
//! its own. Next to read: `hear.rs`.

use crate::packet::{Event, LaneAt};
use crate::world::World;

impl World {
    /// The deadline of a write that would have been given `timeout_ms`.
    pub(crate) fn stormy_timeout(&self, timeout_ms: u32) -> u32 {
        self.profile.storm.map_or(timeout_ms, |storm| storm.patience_ms)
    }

    /// A client will lose its patience with a write that it has just sent.
    pub(crate) fn hurry_soon(&mut self, write: usize) {
        if let Some(storm) = self.profile.storm {
            let patience = u64::from(storm.patience_ms) * 1_000;
            let wait = self.dice.storms.between(patience / 4, patience);
            self.queue.push(self.now + wait, Event::Hurry { write });
        }
    }

    /// It has lost it: the write goes out again.
    pub(crate) fn hurry(&mut self, write: usize) {
        let known = &self.history.writes[write];
        let Some(storm) = self.profile.storm.filter(|_| !self.calm) else { return };
        let (acked, tries) = (known.acked_at.is_some(), known.calls.len());
        if acked || tries >= storm.tries {
            self.coverage.add("storm.acked", u64::from(acked && tries > 1));
            return;
        }
        for _ in 0..storm.at_once {
            let node = self.dice.storms.index(self.nodes.len());
            let lane = self.dice.storms.index(usize::from(self.profile.lanes));
            self.coverage.add("storm.retries", 1);
            self.send_write(None, write, LaneAt { node, lane });
        }
        self.hurry_soon(write);
    }
}
