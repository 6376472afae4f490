//! Where a key lives and what each owner holds of it, for people.
//!
//! Asks every owner for versions without values and answers with whatever came by the deadline; an
//! owner that did not answer is part of the answer. Changes nothing. Next to read: `get.rs`.

use crate::effect::ReplyTo;
use crate::ops::{Asked, Ctx, Heard, Step};
use crate::refuse;
use crate::replica;
use galvani_model::hash::key_hash;
use galvani_model::ids::{NodeId, Shard};
use galvani_model::key::Key;
use galvani_model::version::{DotSet, Version};
use galvani_wire::Message;
use galvani_wire::failure::{Answer, Failure, Outcome, ReplicaError};
use galvani_wire::message::{Explain, Explained, Fetch, ReplicaView};
use std::collections::BTreeMap;

/// An explanation under way.
#[derive(Clone, Debug)]
pub(crate) struct ExplainOp {
    op: u64,
    reply_to: ReplyTo,
    key: Key,
    shard: Shard,
    asked: Asked,
    heard: BTreeMap<NodeId, (Vec<Version>, DotSet)>,
    /// When the client stops waiting, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl ExplainOp {
    /// Starts; `None` if it was refused or is over at once.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        explain: Explain,
    ) -> Option<ExplainOp> {
        match Self::prepare(ctx, op, reply_to, explain) {
            Ok((mut this, timeout_ms)) => match this.launch(ctx, timeout_ms) {
                Step::Wait => Some(this),
                Step::Done => None,
            },
            Err(failure) => {
                ctx.refuse(reply_to, op, failure);
                None
            }
        }
    }

    fn prepare(
        ctx: &Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        explain: Explain,
    ) -> Result<(ExplainOp, u32), Failure> {
        let Explain { key, timeout_ms } = explain;
        let (_, shard) = ctx.topology.locate(&key).ok_or(Failure::UnknownBucket)?;
        // Leave the owners' answers time to travel back before the client gives up.
        let patience_ms = timeout_ms.saturating_sub(timeout_ms / 4).max(timeout_ms.min(1));
        let deadline = refuse::deadline(ctx, patience_ms)?;
        let asked = Asked::new(&ctx.topology.owners(shard), ctx.now);
        let heard = BTreeMap::new();
        Ok((ExplainOp { op, reply_to, key, shard, asked, heard, deadline }, timeout_ms))
    }

    fn launch(&mut self, ctx: &mut Ctx<'_>, timeout_ms: u32) -> Step {
        for (index, node) in self.asked.pending().collect::<Vec<_>>() {
            if ctx.is_me(node) {
                let said = replica::read(ctx.store, self.shard, &self.key)
                    .map(|local| (local.object.versions().to_vec(), local.seen))
                    .map_err(|error| Outcome::Refused(replica::as_replica_error(&error)));
                self.count(ctx, index, said);
            } else if let Some(lane) = ctx.reach(node, self.shard) {
                let (shard, key) = (self.shard, self.key.clone());
                let (have, shown) = (Vec::new(), Vec::new());
                let fetch = Fetch { shard, key, records: false, have, shown, timeout_ms };
                ctx.ask(lane, self.op, index, Message::Fetch(fetch));
            } else {
                self.count(ctx, index, Err(Outcome::Unreachable));
            }
        }
        self.progress(ctx)
    }

    /// An owner answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        let said = match heard {
            Heard::Reply(Message::Fetched(Ok(held))) => Ok((held.versions, held.seen)),
            Heard::Reply(Message::Fetched(Err(error))) => Err(Outcome::Refused(error)),
            Heard::Reply(_) => Err(Outcome::Refused(ReplicaError::Malformed)),
            Heard::Silence => Err(Outcome::Unreachable),
        };
        self.count(ctx, index, said);
        self.progress(ctx)
    }

    /// The replicas it asked.
    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Time is up: whoever has not answered is shown so.
    pub(crate) fn on_deadline(&mut self, ctx: &mut Ctx<'_>) -> Step {
        self.answer(ctx);
        Step::Done
    }

    fn count(
        &mut self,
        ctx: &Ctx<'_>,
        index: usize,
        said: Result<(Vec<Version>, DotSet), Outcome>,
    ) {
        let outcome = match &said {
            Ok(_) => Outcome::Answered,
            Err(outcome) => outcome.clone(),
        };
        let Some(node) = self.asked.note(index, outcome, ctx.now) else {
            return;
        };
        if let Ok(held) = said {
            self.heard.insert(node, held);
        }
    }

    fn progress(&mut self, ctx: &mut Ctx<'_>) -> Step {
        if !self.asked.is_complete() {
            return Step::Wait;
        }
        self.answer(ctx);
        Step::Done
    }

    fn answer(&mut self, ctx: &mut Ctx<'_>) {
        let mut heard = core::mem::take(&mut self.heard);
        let view = |answer: Answer| {
            let node = answer.node;
            match heard.remove(&node) {
                Some((versions, seen)) => ReplicaView { node, versions: Ok(versions), seen },
                None => ReplicaView { node, versions: Err(answer), seen: DotSet::new() },
            }
        };
        let replicas = self.asked.answers().into_iter().map(view).collect();
        let preference = ctx.topology.layout.preference(self.shard.partition).collect();
        let (hash, shard) = (key_hash(&self.key), self.shard);
        let explained = Explained { hash, shard, preference, replicas };
        ctx.answer(self.reply_to, self.op, Message::Explained(explained));
    }
}
