//! Asking a node how much it knows of our kept origins, before they are used again.
//!
//! Sent once to each member when it can first be reached after a clean start: owners know by what they
//! have taken in, any other node by the hints that it holds for owners. One that knows more than we do
//! proves that our disk is older than our writes: a new incarnation, then.
//! Next to read: `origins.rs`. Source: algorithms 2.2, rule 3.

use crate::effect::PeerLane;
use crate::layout::refill;
use crate::ops::{Ctx, Heard, Step};
use crate::replica;
use galvani_model::ids::Shard;
use galvani_model::store::{OwnOrigin, StoreError};
use galvani_wire::Message;
use galvani_wire::message::{AskKnown, Known};

/// Most origins asked about in one message; the rest follow in further ones.
const ORIGINS_PER_ASK: usize = 256;

/// A question under way.
#[derive(Clone, Debug)]
pub(crate) struct KnownOp {
    /// Who was asked.
    pub(crate) to: PeerLane,
    asked: Vec<(Shard, OwnOrigin)>,
    /// When the question is given up, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl KnownOp {
    /// The questions for a peer that can be reached from now on: shards of whose kept origin it has not
    /// spoken yet.
    pub(crate) fn questions(
        ctx: &mut Ctx<'_>,
        to: PeerLane,
    ) -> Result<Vec<Vec<(Shard, OwnOrigin)>>, StoreError> {
        let mut asked = Vec::new();
        for shard in ctx.origins.to_ask(to.node) {
            if ctx.topology.lane_of(to.node, shard.partition) != Some(to) {
                continue;
            }
            if let Some(own) = ctx.store.replica(shard)?.own {
                asked.push((shard, own));
            }
        }
        Ok(asked.chunks(ORIGINS_PER_ASK).map(<[_]>::to_vec).collect())
    }

    /// Asks one of the [`KnownOp::questions`].
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        to: PeerLane,
        asked: Vec<(Shard, OwnOrigin)>,
    ) -> KnownOp {
        let origins = asked.iter().map(|(shard, own)| (*shard, own.origin)).collect();
        ctx.ask(to, op, 0, Message::AskKnown(AskKnown { origins }));
        KnownOp { to, asked, deadline: ctx.now.micros + PATIENCE_MICROS }
    }

    /// The peer answered, or cannot: then it is asked again when it is next up.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) -> Step {
        if let Heard::Reply(Message::Known(Known { counters })) = heard
            && counters.len() == self.asked.len()
        {
            for ((shard, own), known) in self.asked.iter().zip(counters) {
                self.judge(ctx, *shard, *own, known);
            }
        }
        Step::Done
    }

    fn judge(&self, ctx: &mut Ctx<'_>, shard: Shard, asked: OwnOrigin, known: u64) {
        // If storage fails here the origin stays unconfirmed, and the next mint renews it.
        let Ok(state) = ctx.store.replica(shard) else { return };
        match state.own {
            // It may have minted since it asked.
            Some(own) if own.origin == asked.origin => {
                if known > own.counter {
                    if ctx.store.forget_origin(shard).is_err() {
                        return;
                    }
                    ctx.on_amnesia();
                }
            }
            // A write that could not wait has taken a new one: what is gone is gone all the same.
            Some(_) | None => {
                if known > asked.counter {
                    refill::on_amnesia(ctx);
                }
            }
        }
        ctx.origins.confirm(shard, self.to.node);
    }
}

/// How long a peer may take to answer before it is asked again at its next return.
const PATIENCE_MICROS: u64 = 10_000_000;

/// Answers a peer's question.
pub(crate) fn answer(ctx: &mut Ctx<'_>, ask: &AskKnown) -> Result<Known, StoreError> {
    let mut counters = Vec::with_capacity(ask.origins.len().min(ORIGINS_PER_ASK));
    for &(shard, origin) in ask.origins.iter().take(ORIGINS_PER_ASK) {
        let owned = ctx.topology.layout().contains(shard)
            && ctx.topology.is_replica(ctx.topology.node, shard);
        let taken_in = if owned { replica::known(ctx.store, shard, origin)? } else { 0 };
        counters.push(taken_in.max(ctx.store.hinted(shard, origin)?));
    }
    Ok(Known { counters })
}
