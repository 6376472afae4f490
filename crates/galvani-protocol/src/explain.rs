//! Where a key lives and what each owner holds of it, for people.
//!
//! Asks every owner for versions without values, and if it is wanted those who may stand in which
//! hints they hold, and answers with whatever came by the deadline; one that did not answer is part
//! of the answer. Changes nothing. Next to read: `get.rs`.

use crate::effect::ReplyTo;
use crate::ops::{Asked, Ctx, Heard, Step};
use crate::refuse;
use crate::replica;
use crate::serve;
use crate::stand_ins::STAND_INS_MAX;
use galvani_model::hash::key_hash;
use galvani_model::ids::{NodeId, Shard};
use galvani_model::key::Key;
use galvani_model::version::{DotSet, Version};
use galvani_wire::Message;
use galvani_wire::failure::{Answer, Failure, Outcome, ReplicaError};
use galvani_wire::message::{
    Explain, Explained, Fetch, FindHints, HintsFound, HolderView, ReplicaView,
};
use std::collections::BTreeMap;

/// An explanation under way.
#[derive(Clone, Debug)]
pub(crate) struct ExplainOp {
    op: u64,
    reply_to: ReplyTo,
    key: Key,
    shard: Shard,
    asked: Asked,
    /// How many of those that are asked own the key; the others may hold hints.
    owners: usize,
    heard: BTreeMap<NodeId, (Vec<Version>, DotSet)>,
    found: BTreeMap<NodeId, HintsFound>,
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
        let timeout_ms = explain.timeout_ms;
        let prepared = Self::prepare(ctx, op, reply_to, explain);
        ctx.begin(reply_to, op, prepared, |this, ctx| this.launch(ctx, timeout_ms))
    }

    fn prepare(
        ctx: &Ctx<'_>,
        op: u64,
        reply_to: ReplyTo,
        explain: Explain,
    ) -> Result<ExplainOp, Failure> {
        let Explain { key, hints, timeout_ms } = explain;
        let (_, shard) = ctx.topology.locate(&key).ok_or(Failure::UnknownBucket)?;
        // Leave the owners' answers time to travel back before the client gives up.
        let patience_ms = timeout_ms.saturating_sub(timeout_ms / 4).max(timeout_ms.min(1));
        let deadline = refuse::deadline(ctx, patience_ms)?;
        let mut nodes = ctx.topology.replicas(shard).to_vec();
        let owners = nodes.len();
        if hints {
            nodes.extend(ctx.topology.layout().fallbacks(shard).take(STAND_INS_MAX));
        }
        let asked = Asked::new(&nodes, ctx.now);
        let (heard, found) = (BTreeMap::new(), BTreeMap::new());
        Ok(ExplainOp { op, reply_to, key, shard, asked, owners, heard, found, deadline })
    }

    fn launch(&mut self, ctx: &mut Ctx<'_>, timeout_ms: u32) -> Step {
        for (index, node) in self.asked.pending().collect::<Vec<_>>() {
            if ctx.is_me(node) {
                let said = self.read_own(ctx).map_err(Outcome::Refused);
                self.count(ctx, index, said);
            } else if let Some(lane) = ctx.reach(node, self.shard)
                && index >= self.owners
            {
                let find = FindHints { shard: self.shard, key: self.key.clone() };
                ctx.ask(lane, self.op, index, Message::FindHints(find));
            } else if let Some(lane) = ctx.reach(node, self.shard) {
                let (shard, key) = (self.shard, self.key.clone());
                let (have, shown) = (Vec::new(), Vec::new());
                let epoch = ctx.topology.epoch();
                let fetch = Fetch { shard, key, records: false, have, shown, epoch, timeout_ms };
                ctx.ask(lane, self.op, index, Message::Fetch(fetch));
            } else {
                self.count(ctx, index, Err(Outcome::Unreachable));
            }
        }
        self.progress(ctx)
    }

    fn read_own(&self, ctx: &mut Ctx<'_>) -> Result<(Vec<Version>, DotSet), ReplicaError> {
        serve::whole(ctx, self.shard)?;
        let local = replica::read(ctx.store, self.shard, &self.key);
        let local = local.map_err(|error| replica::as_replica_error(&error))?;
        Ok((local.object.versions().to_vec(), local.seen))
    }

    /// An owner answered, or cannot.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        if let Heard::Reply(Message::HintsFound(Ok(found))) = heard {
            if let Some(node) = self.asked.note(index, Outcome::Answered, ctx.now) {
                self.found.insert(node, found);
            }
            return self.progress(ctx);
        }
        let said = match heard {
            Heard::Reply(Message::HintsFound(Err(error))) => Err(Outcome::Refused(error)),
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
        let mut found = core::mem::take(&mut self.found);
        let holder = |answer: Answer| {
            let node = answer.node;
            HolderView { node, hints: found.remove(&node).ok_or(answer) }
        };
        let mut answers = self.asked.answers();
        let holders = answers.split_off(self.owners).into_iter().map(holder).collect();
        let replicas = answers.into_iter().map(view).collect();
        let preference = ctx.topology.layout().reading().preference(self.shard.partition).collect();
        let (hash, shard) = (key_hash(&self.key), self.shard);
        let coordinator = ctx.topology.node;
        let now_ms = ctx.now.unix_ms;
        let explained =
            Explained { hash, shard, preference, replicas, coordinator, holders, now_ms };
        ctx.answer(self.reply_to, self.op, Message::Explained(explained));
    }
}
