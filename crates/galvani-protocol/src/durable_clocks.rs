//! What the other owners of some shards have taken in, as it survives power loss: asked of all of them at
//! once, and heard one by one.
//!
//! What is thrown away is proved by these clocks, and never by those that a power cut could take back. It
//! decides nothing itself. Next to read: `reap.rs` (tombstones, expired values), `trim/round.rs` (the log).

use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard};
use crate::topology::Topology;
use galvani_model::ids::Shard;
use galvani_model::version::PartitionClock;
use galvani_wire::Message;
use galvani_wire::message::Clocks;

/// How long a peer may take to answer, in microseconds.
const PATIENCE_MICROS: u64 = 5_000_000;

/// Owners that are asked for their clocks.
#[derive(Clone, Debug)]
pub(crate) struct DurableClocks {
    peers: Vec<PeerLane>,
    shards: Vec<Shard>,
    /// What each peer answered, in the order of the shards.
    heard: Vec<Option<Vec<Option<PartitionClock>>>>,
    /// The epoch of the layout by which they are asked.
    epoch: u64,
    /// When answers are given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

/// How far an answer has brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Others have not answered yet.
    Waiting,
    /// All have answered.
    Complete,
    /// One cannot answer, or said what was not asked.
    Failed,
}

impl DurableClocks {
    /// Asks the other owners of these shards; where there are none its deadline is now.
    pub(crate) fn ask(
        ctx: &mut Ctx<'_>,
        op: u64,
        peers: Vec<PeerLane>,
        shards: Vec<Shard>,
    ) -> DurableClocks {
        for (index, &peer) in peers.iter().enumerate() {
            ctx.ask_clocks(peer, op, index, &shards, true);
        }
        let patience = if peers.is_empty() { 0 } else { PATIENCE_MICROS };
        let (heard, epoch) = (vec![None; peers.len()], ctx.topology.epoch());
        DurableClocks { peers, shards, heard, epoch, deadline: ctx.now.micros + patience }
    }

    /// An owner answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Progress {
        match heard {
            Heard::Reply(Message::Clocks(Ok(Clocks { epoch, clocks, .. })))
                if clocks.len() == self.shards.len() && index < self.heard.len() =>
            {
                ctx.layout.heard_of(epoch);
                self.heard[index] = Some(clocks);
            }
            Heard::Reply(_) | Heard::Silence => return Progress::Failed,
        }
        match self.heard.iter().any(Option::is_none) {
            true => Progress::Waiting,
            false => Progress::Complete,
        }
    }

    /// The index of the ask that waits for `peer`.
    pub(crate) fn waits_for(&self, peer: PeerLane) -> Option<usize> {
        let at = self.peers.iter().position(|&asked| asked == peer)?;
        self.heard[at].is_none().then_some(at)
    }

    /// What they are asked about.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Whether there are no other owners.
    pub(crate) fn asks_nobody(&self) -> bool {
        self.peers.is_empty()
    }

    /// Whether the owner that was asked with this `index` has told its clock of the shard in place `at`.
    pub(crate) fn has_told(&self, index: usize, at: usize) -> bool {
        let told = self.heard.get(index).and_then(Option::as_ref).and_then(|all| all.get(at));
        told.is_some_and(Option::is_some)
    }

    /// The other owners' clocks of the shard in place `at`; `None` where one of them has not told its own, or
    /// where those that were asked are not all that hold the shard by now.
    pub(crate) fn of(&self, topology: &Topology, at: usize) -> Option<Vec<&PartitionClock>> {
        let fresh = !topology.is_stale(self.epoch, *self.shards.get(at)?);
        let clocks = self.heard.iter().map(|all| all.as_ref()?.get(at)?.as_ref());
        fresh.then(|| clocks.collect())?
    }
}
