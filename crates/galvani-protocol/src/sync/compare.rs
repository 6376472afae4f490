//! Two owners compare what they have taken in of the shards they share.
//!
//! One message shows many clocks; the answer says for each: equal, or here is mine. Both sides then
//! know what they lack, and each pulls on its own. Equal clocks with unequal digests are damage or
//! a bug: counted, told and mended on both sides.
//! Next to read: `pull.rs`, `unequal.rs`. Source: algorithms 2.5, 6.4.

use super::{AntiEntropy, learn, unequal};
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use crate::replica;
use crate::serve;
use galvani_model::ids::Shard;
use galvani_model::version::{Digest, PartitionClock};
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{Compare, Compared, Comparison};

/// Shards compared in one message: a lane's share of a default cluster, some 25 KB.
pub(crate) const SHARDS_MAX: usize = 256;
/// Ranges of clocks in one message, all shards together (about 1 MB); what is beyond it waits for
/// the next one.
const RANGES_MAX: usize = 50_000;
/// How long a peer may take to answer, in microseconds.
const PATIENCE_MICROS: u64 = 5_000_000;

/// A comparison under way.
#[derive(Clone, Debug)]
pub(crate) struct CompareOp {
    /// Who was asked.
    pub(crate) to: PeerLane,
    shards: Vec<Shard>,
    /// When the answer is given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl CompareOp {
    /// Shows a peer the clocks of `shards`. Those that cannot be read now are left to the sweep.
    pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, to: PeerLane, shards: Vec<Shard>) -> CompareOp {
        let mut shown: Vec<(Shard, PartitionClock, Digest)> = Vec::with_capacity(shards.len());
        let mut ranges = 0;
        let mut left = Vec::new();
        for shard in shards {
            let Ok(state) = ctx.store.replica(shard) else {
                ctx.sync.run.is_compared(to, shard);
                continue;
            };
            ranges += state.clock.range_count();
            if ranges > RANGES_MAX && !shown.is_empty() {
                left.push(shard);
            } else {
                shown.push((shard, state.clock.clone(), state.digest));
            }
        }
        if let Some(peer) = ctx.sync.peers.get_mut(&to) {
            peer.unsaid.extend(left);
        }
        let shards: Vec<Shard> = shown.iter().map(|(shard, ..)| *shard).collect();
        ctx.counters.shards_compared += shards.len() as u64;
        let (node, lane) = (ctx.topology.node, ctx.config.lane);
        ctx.ask(to, op, 0, Message::Compare(Compare { node, lane, shards: shown }));
        CompareOp { to, shards, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    /// The peer answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        match heard {
            Heard::Reply(Message::Compared(Ok(Compared { shards })))
                if shards.len() == self.shards.len() =>
            {
                for (&shard, comparison) in self.shards.iter().zip(shards) {
                    let is_told = !matches!(comparison, Comparison::Unknown(_));
                    self.judge(ctx, shard, comparison);
                    if is_told {
                        ctx.sync.met(self.to, shard);
                    }
                }
                if let Some(peer) = ctx.sync.peers.get_mut(&self.to) {
                    peer.comparing = false;
                    peer.compare_at = ctx.now.micros;
                }
                ctx.sync.reschedule();
            }
            Heard::Reply(_) | Heard::Silence => return self.give_up(ctx),
        }
        Step::Done
    }

    /// No answer came in time.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        ctx.sync.compare_failed(self.to, &self.shards, ctx.now.micros);
        Step::Done
    }

    /// It was never sent, because the tick it was made in does not exist.
    pub(crate) fn unsay(&self, sync: &mut AntiEntropy) {
        sync.compare_failed(self.to, &self.shards, self.deadline - PATIENCE_MICROS);
    }

    fn judge(&self, ctx: &mut Ctx<'_>, shard: Shard, comparison: Comparison) {
        // Compared because one of the two has changed, or now and then.
        ctx.reaper.stir(shard, ctx.now);
        ctx.sync.run.is_compared(self.to, shard);
        match comparison {
            Comparison::Equal => unequal::settled(ctx, self.to, shard),
            Comparison::Unequal(_) => unequal::found(ctx, self.to, shard),
            Comparison::Differs(clock) => {
                ctx.counters.shards_differing += 1;
                learn(ctx, self.to, shard, clock);
            }
            // It says so again at the next sweep, or its disk is mended by then.
            Comparison::Unknown(ReplicaError::NotOwner) => ctx.layout.doubt(),
            Comparison::Unknown(_) => {}
        }
    }
}

/// Answers a peer's comparison, and learns from it.
pub(crate) fn answer(ctx: &mut Ctx<'_>, compare: Compare) -> Result<Compared, ReplicaError> {
    let ranges: usize = compare.shards.iter().map(|(_, clock, _)| clock.range_count()).sum();
    // One clock alone may be larger than a message's share: it is shown in a message of its own.
    let large = ranges > RANGES_MAX && compare.shards.len() > 1;
    if compare.shards.len() > SHARDS_MAX || large {
        return Err(ReplicaError::Malformed);
    }
    let sender = PeerLane { node: compare.node, lane: compare.lane };
    let mut room = RANGES_MAX;
    let mut shards = Vec::with_capacity(compare.shards.len());
    for (shard, clock, digest) in compare.shards {
        shards.push(match one(ctx, sender, shard, clock, digest, room) {
            Ok(comparison) => comparison,
            Err(error) => Comparison::Unknown(error),
        });
        if let Some(Comparison::Differs(clock)) = shards.last() {
            room = room.saturating_sub(clock.range_count());
        }
    }
    ctx.sync.reschedule();
    Ok(Compared { shards })
}

fn one(
    ctx: &mut Ctx<'_>,
    sender: PeerLane,
    shard: Shard,
    theirs: PartitionClock,
    digest: Digest,
    room: usize,
) -> Result<Comparison, ReplicaError> {
    serve::mine(ctx, shard)?;
    let owner = ctx.topology.is_replica(sender.node, shard);
    if !owner || ctx.topology.lane_of(sender.node, shard.partition) != Some(sender) {
        return Err(ReplicaError::NotOwner);
    }
    ctx.reaper.stir(shard, ctx.now);
    let state = ctx.store.replica(shard).map_err(|error| replica::as_replica_error(&error))?;
    let (equal, mine) = (state.clock == theirs, state.digest);
    if equal && mine == digest {
        if let Some(peer) = ctx.sync.peers.get_mut(&sender) {
            // It need not be shown what it has just shown itself.
            peer.unsaid.remove(&shard);
        }
        ctx.sync.run.is_compared(sender, shard);
        ctx.sync.met(sender, shard);
        unequal::settled(ctx, sender, shard);
        return Ok(Comparison::Equal);
    }
    if equal {
        unequal::found(ctx, sender, shard);
        return Ok(Comparison::Unequal(mine));
    }
    let clock = state.clock.clone();
    learn(ctx, sender, shard, theirs);
    if clock.range_count() > room {
        return Err(ReplicaError::AnswerTooLarge);
    }
    if let Some(peer) = ctx.sync.peers.get_mut(&sender) {
        peer.unsaid.remove(&shard);
    }
    ctx.sync.run.is_compared(sender, shard);
    Ok(Comparison::Differs(clock))
}
