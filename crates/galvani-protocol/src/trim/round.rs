//! A round of clocks before records go: what every owner has taken in, as it survives power loss.
//!
//! The records were looked at before the owners were asked, and are judged again when all have
//! answered, by their clocks and by what this replica holds then. It proves nothing while another
//! owner has taken in what this one lacks: that could be what replaced a value here.
//! Next to read: `judge.rs`, `../durable_clocks.rs`, and `../reap.rs`, which asks the same.

use super::judge::Judge;
use crate::durable_clocks::{DurableClocks, Progress};
use crate::effect::PeerLane;
use crate::ops::{Ctx, Heard, Step};
use crate::replica;
use galvani_model::hlc::Hlc;
use galvani_model::ids::Shard;
use galvani_model::store::StoreError;
use galvani_model::version::{Dot, RecordHead};

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
    /// Of the other owners of its shard.
    pub(crate) clocks: DurableClocks,
}

impl TrimOp {
    /// Asks the other owners; where there are none it is over at its deadline, at once.
    pub(crate) fn start(ctx: &mut Ctx<'_>, op: u64, round: TrimRound) -> TrimOp {
        let clocks = DurableClocks::ask(ctx, op, round.peers.clone(), vec![round.shard]);
        TrimOp { round, clocks }
    }

    /// An owner answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        match self.clocks.on_heard(ctx, index, heard) {
            // There is one shard: without this owner's clock of it nothing more need be heard.
            Progress::Waiting | Progress::Complete if !self.clocks.has_told(index, 0) => {
                self.fail(ctx);
            }
            Progress::Waiting => return Step::Wait,
            Progress::Complete => self.finish(ctx),
            Progress::Failed => self.fail(ctx),
        }
        Step::Done
    }

    /// Time is up.
    pub(crate) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        match self.clocks.asks_nobody() {
            true => self.finish(ctx),
            false => self.fail(ctx),
        }
        Step::Done
    }

    fn fail(&self, ctx: &mut Ctx<'_>) {
        ctx.trimmer.over(false, self.round.next, ctx.now.micros, ctx.busy);
    }

    fn finish(&self, ctx: &mut Ctx<'_>) {
        let trimmed = self.trim(ctx);
        let proved = trimmed.unwrap_or(false);
        ctx.trimmer.over(proved, self.round.next, ctx.now.micros, ctx.busy);
    }

    /// Lets go what the clocks prove. Returns whether they could prove anything.
    fn trim(&self, ctx: &mut Ctx<'_>) -> Result<bool, StoreError> {
        let shard = self.round.shard;
        // Something is lost on one of the replicas, and what is here may be needed to hold it again.
        if ctx.sync.unequal.is_found(shard) {
            return Ok(false);
        }
        let Some(mut clocks) = self.clocks.of(ctx.topology, 0) else { return Ok(false) };
        let own = ctx.store.replica(shard)?.clock.clone();
        if clocks.iter().any(|theirs| !own.missing_from(theirs).is_empty()) {
            return Ok(false);
        }
        clocks.push(&own);
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
