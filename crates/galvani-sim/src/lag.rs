//! Slow peers: the links of one node take tens to hundreds of milliseconds longer for a while.
//!
//! Towards it, from it, or both ways; nothing is lost by it. Connections between nodes only: clients have
//! theirs. Drawn in some seeds only, from dice of its own. Next to read: `net.rs`, `faults.rs`.

use crate::packet::Event;
use crate::world::World;

/// How much longer messages of one node's links take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lag {
    /// Counts the lags of a run: a later one of the same node takes the place of this.
    pub(crate) number: u64,
    /// Bounds of the time that is added, in microseconds.
    pub(crate) between: (u64, u64),
    /// Whether messages towards the node take longer, and those from it.
    pub(crate) towards: bool,
    pub(crate) from: bool,
}

impl World {
    /// The next node whose links become slow, and when the one after it does.
    pub(crate) fn slow_a_peer(&mut self) {
        let Some(slow) = self.profile.slow_peers.filter(|_| !self.calm) else { return };
        self.lags += 1;
        let (number, dice) = (self.lags, &mut self.dice.lags);
        let node = dice.index(self.nodes.len());
        let (towards, from) =
            dice.pick(&[(true, true), (true, true), (true, false), (false, true)]);
        let shortest = dice.between(SHORTEST_MICROS, slow.longest / 2);
        let lag = Lag { number, between: (shortest, slow.longest), towards, from };
        let (wait, pause) =
            (dice.between(100_000, 5_000_000), dice.between(slow.pace / 4, slow.pace * 2));
        self.coverage.add("fault.slow_peer", 1);
        self.trace.note(self.now, &[33, node as u64, number], || {
            format!("the links of node {node} are slow: {lag:?}")
        });
        self.net.slow_down(node, lag);
        self.queue.push(self.now + wait, Event::Unlag { node, number });
        self.queue.push(self.now + pause, Event::Lag);
    }

    /// A node's links are as usual again, if it is that lag that slows them.
    pub(crate) fn speed_up(&mut self, node: usize, number: u64) {
        if self.net.speed_up(node, number) {
            self.trace.note(self.now, &[34, node as u64, number], || {
                format!("the links of node {node} are as usual")
            });
        }
    }
}

/// The least that is added, in microseconds.
const SHORTEST_MICROS: u64 = 10_000;
