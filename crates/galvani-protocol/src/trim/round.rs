//! A round of clocks before records go: what every owner has taken in, as it survives power loss.
//!
//! The records were looked at before the owners were asked, and are judged again when all have
//! answered, by their clocks and by what this replica holds then. It proves nothing while another
//! owner has taken in what this one lacks: that could be what replaced a value here.
//! Next to read: `judge.rs`, `../reap.rs`, which asks the same.

use super::judge::Judge;
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use crate::reap::ask_durably;
use crate::replica;
use galvani_model::hlc::Hlc;
use galvani_model::ids::Shard;
use galvani_model::store::StoreError;
use galvani_model::version::{Dot, PartitionClock, RecordHead};
use galvani_wire::Message;
use galvani_wire::message::Clocks;

/// Records that could go, and whom to ask.
#[derive(Clone, Debug)]
pub(crate) struct TrimRound {
    pub(super) shard: Shard,
    pub(super) heads: Vec<RecordHead>,
    /// Where the walk goes on.
    pub(super) next: Option<Dot>,
    pub(super) peers: Vec<PeerLane>,
}

/// A round under way.
#[derive(Clone, Debug)]
pub(crate) struct TrimOp {
    round: TrimRound,
    /// What each peer answered.
    heard: Vec<Option<PartitionClock>>,
    /// The epoch of the layout by which it asked.
    epoch: u64,
    /// When answers are given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl TrimOp {
    /// Asks the other owners; where there are none it is over at its deadline, at once.
    pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, round: TrimRound) -> TrimOp {
        let deadline = ask_durably(ctx, op, &round.peers, &[round.shard]);
        let heard = vec![None; round.peers.len()];
        TrimOp { round, heard, epoch: ctx.topology.epoch(), deadline }
    }

    /// The index of the ask that waits for `peer`.
    pub(crate) fn waits_for(&self, peer: PeerLane) -> Option<usize> {
        let at = self.round.peers.iter().position(|&asked| asked == peer)?;
        self.heard[at].is_none().then_some(at)
    }

    /// An owner answered, or cannot. `busy` says whether clients wait for this lane.
    pub(crate) fn on_heard(
        &mut self,
        ctx: &mut Ctx<'_>,
        index: usize,
        heard: Heard,
        busy: bool,
    ) -> Step {
        let clock = match heard {
            Heard::Reply(Message::Clocks(Ok(Clocks { epoch, mut clocks })))
                if clocks.len() == 1 =>
            {
                ctx.layout.heard_of(epoch);
                clocks.pop().flatten()
            }
            Heard::Reply(_) | Heard::Silence => None,
        };
        match (clock, self.heard.get_mut(index)) {
            (Some(clock), Some(slot)) => *slot = Some(clock),
            (None, _) | (_, None) => {
                ctx.trimmer.over(false, self.round.next, ctx.now.micros, busy);
                return Step::Done;
            }
        }
        if self.heard.iter().any(Option::is_none) {
            return Step::Wait;
        }
        self.finish(ctx, busy);
        Step::Done
    }

    /// Time is up.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        if self.round.peers.is_empty() {
            self.finish(ctx, false);
        } else {
            ctx.trimmer.over(false, self.round.next, ctx.now.micros, false);
        }
        Step::Done
    }

    fn finish(&self, ctx: &mut Ctx<'_>, busy: bool) {
        let trimmed = self.trim(ctx);
        let proved = trimmed.unwrap_or(false);
        ctx.trimmer.over(proved, self.round.next, ctx.now.micros, busy);
    }

    /// Lets go what the clocks prove. Returns whether they could prove anything.
    fn trim(&self, ctx: &mut Ctx<'_>) -> Result<bool, StoreError> {
        let shard = self.round.shard;
        // Something is lost on one of the replicas, and what is here may be needed to hold it again.
        // Or those that were asked are not all that hold it by now.
        if ctx.sync.unequal.is_found(shard) || ctx.topology.is_stale(self.epoch, shard) {
            return Ok(false);
        }
        let own = ctx.store.replica(shard)?.clock.clone();
        if self.heard.iter().flatten().any(|theirs| !own.missing_from(theirs).is_empty()) {
            return Ok(false);
        }
        let clocks: Vec<&PartitionClock> = self.heard.iter().flatten().chain([&own]).collect();
        let mut judge = Judge::new(shard, &clocks);
        let (mut dots, mut bytes, mut until) = (Vec::new(), 0, Hlc::default());
        for head in &self.round.heads {
            if judge.may_go(ctx, head)? {
                dots.push(head.dot);
                bytes += u64::from(head.value_len);
                until = until.max(head.hlc);
                ctx.trimmer.gone(head);
            }
        }
        if !dots.is_empty() {
            replica::trim(ctx.store, shard, &dots, until)?;
            ctx.counters.records_trimmed += dots.len() as u64;
            ctx.counters.bytes_trimmed += bytes;
        }
        Ok(true)
    }
}
