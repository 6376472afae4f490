//! A write that is tried again: whether another owner has it already is asked before a dot is minted.
//!
//! Two coordinators that do not know of each other give one write two dots. Both are one write to whoever
//! knows both, but until they meet a reader may see one of them beside what replaced the other. So an owner
//! that does not know the write asks those that can be reached, takes in what they have of it, and goes on
//! as with any write: `put.rs` finds it then. It waits for as long as it does not know the write, and for
//! [`LOOK_MICROS`] at most; an owner that cannot be asked, or that the first try reaches later, may have it
//! all the same. It never decides what becomes of the write.
//! Next to read: `put.rs`, `serve.rs`. Source: algorithms 2.6.

use crate::ops::{Asked, Ctx, Heard, Step};
use crate::route::Came;
use crate::{put, refuse, replica, serve};
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::{NodeId, Shard, WriteId};
use galvani_model::version::{Dot, Kind, Record, RecordHead, emitted_bytes};
use galvani_wire::Message;
use galvani_wire::failure::{Outcome, ReplicaError};
use galvani_wire::message::{Fetch, Held, Put};
use smallvec::SmallVec;

/// How long owners are waited for, in microseconds: far above a healthy round trip with its commit. Never
/// more than half of the time that the write has left.
const LOOK_MICROS: u64 = 100_000;

/// A retry that waits for the other owners.
#[derive(Clone, Debug)]
pub(crate) struct RetriedOp {
    came: Came,
    put: Box<Put>,
    shard: Shard,
    write: WriteId,
    policy: ConflictPolicy,
    asked: Asked,
    /// When it came, in the lane's microseconds.
    started: u64,
    /// When it waits no longer, in the lane's microseconds.
    pub(crate) deadline: u64,
}

impl RetriedOp {
    /// Asks the other owners; the write is given back where there is nothing to ask: it is known here, or
    /// refused, or nobody else can be reached.
    pub(crate) fn start(
        ctx: &mut Ctx<'_>,
        op: u64,
        came: Came,
        put: Box<Put>,
        shard: Shard,
    ) -> Result<RetriedOp, Box<Put>> {
        let Some((write, policy)) = unknown(ctx, shard, &put) else { return Err(put) };
        let Ok(object) = ctx.store.object(shard, &put.key) else { return Err(put) };
        let reached = |node: NodeId| {
            let lane = ctx.reach(node, shard).filter(|&lane| !ctx.presumed_away(lane))?;
            Some((node, lane))
        };
        let others: SmallVec<[_; 4]> = ctx.topology.others(shard).filter_map(reached).collect();
        let deadline = match refuse::deadline(ctx, put.timeout_ms) {
            Ok(deadline) if !others.is_empty() => deadline,
            Ok(_) | Err(_) => return Err(put),
        };
        let now = ctx.now.micros;
        let patience = (deadline.saturating_sub(now) / 2).min(LOOK_MICROS);
        let nodes: SmallVec<[NodeId; 4]> = others.iter().map(|(node, _)| *node).collect();
        for (index, &(_, lane)) in others.iter().enumerate() {
            let fetch = Fetch {
                shard,
                key: put.key.clone(),
                records: true,
                have: object.dots().into_vec(),
                shown: vec![write],
                epoch: ctx.topology.epoch(),
                timeout_ms: (patience / 1_000) as u32 + 1,
            };
            ctx.ask(lane, op, index, Message::Fetch(fetch));
        }
        let asked = Asked::new(&nodes, ctx.now);
        let deadline = now + patience;
        Ok(RetriedOp { came, put, shard, write, policy, asked, started: now, deadline })
    }

    /// An owner answered, or cannot: over once all have, or one had it.
    pub(crate) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        if self.asked.awaited(index).is_none() {
            return Step::Wait;
        }
        let outcome = match heard {
            Heard::Reply(Message::Fetched(Ok(held))) => self.take_in(ctx, &held),
            Heard::Reply(Message::Fetched(Err(error))) => Outcome::Refused(error),
            Heard::Reply(_) => Outcome::Refused(ReplicaError::Malformed),
            Heard::Silence => Outcome::Unreachable,
        };
        self.asked.note(index, outcome, ctx.now);
        let known = matches!(ctx.store.request(self.shard, self.write, None), Ok(Some(_)));
        if self.asked.is_complete() || known { Step::Done } else { Step::Wait }
    }

    /// The owners it asked.
    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Bytes of values and events it holds.
    pub(crate) fn held(&self) -> usize {
        self.put.value.len() + emitted_bytes(&self.put.emits)
    }

    /// The write, to go on with, and how it came. Without time left it is refused as too late.
    pub(crate) fn into_put(mut self, now: u64) -> (Came, Put) {
        let waited_ms = (now.saturating_sub(self.started) / 1_000) as u32;
        self.put.timeout_ms = self.put.timeout_ms.saturating_sub(waited_ms);
        (Came { looked: true, ..self.came }, *self.put)
    }

    /// Takes in what an owner shows of the key that this one lacks, and the write with what replaced it.
    /// A value that nothing there shows or replaces stays out: it may be what was deleted and collected.
    fn take_in(&self, ctx: &mut Ctx<'_>, held: &Held) -> Outcome {
        let brings: usize = held.values.iter().map(bytes::Bytes::len).sum();
        if !ctx.may_hold(brings) {
            return Outcome::Refused(ReplicaError::Overloaded);
        }
        if let Err(error) = serve::mine(ctx, self.shard) {
            return Outcome::Refused(error);
        }
        let Some(records) = serve::vetted(held, &self.put.key) else {
            return Outcome::Refused(ReplicaError::Malformed);
        };
        let stands = |dot: Dot| {
            let mut versions = held.versions.iter();
            versions.any(|version| version.dots.contains(&dot) || version.past.contains(dot))
        };
        // Events make no version, and an `lww` bucket collects nothing.
        let lasts =
            |head: &RecordHead| head.kind == Kind::Emit || self.policy == ConflictPolicy::Lww;
        let safe = |record: &Record| stands(record.head.dot) || lasts(&record.head);
        for record in records.into_iter().filter(safe) {
            if replica::notice_amnesia_in(ctx.store, self.shard, &record.head) == Ok(true) {
                ctx.on_amnesia();
            }
            // Best effort, as a read: then the write gets a dot of its own here.
            let _ = ctx.take_in(self.shard, record, self.policy, None);
        }
        Outcome::Answered
    }
}

/// The name of a write that has been tried before and is not known here, with its bucket's policy.
fn unknown(ctx: &mut Ctx<'_>, shard: Shard, put: &Put) -> Option<(WriteId, ConflictPolicy)> {
    let (props, _) = ctx.topology.locate(&put.key)?;
    refuse::write_quorum(&put.options, props).ok()?;
    let context = refuse::write_shape(ctx, put, props).ok()?;
    let expires_ms = refuse::expiry(put, props).ok()?;
    let head = put::unminted(ctx.topology.node, put.clone(), context, expires_ms);
    let known = ctx.store.request(shard, head.write_id(), Some(head.hlc)).ok()?;
    known.is_none().then(|| (head.write_id(), props.policy))
}
