//! Hints whose target owns their keys no more: they go to whoever does.
//!
//! Also the hints of a node that is no member any more, whose targets cannot fetch them. Each record is
//! sent to one owner that can be reached, fsynced there, and then let go; where this node is an owner
//! itself, it takes the record in. Anti-entropy does the rest. Next to read: `handoff/mod.rs`.

use super::{PATIENCE_MICROS, Wanted, is_due};
use crate::effect::{Now, PeerLane};
use crate::ops::{ASKS_PER_OP, Ctx, Heard, Step};
use crate::serve;
use galvani_model::ids::{NodeId, Partition, Shard};
use galvani_model::version::{Dot, Record};
use galvani_wire::Message;
use galvani_wire::message::{Replicate, Replicated};
use std::collections::BTreeMap;

/// How often it looks again while there are such hints, in microseconds.
const PACE_MICROS: u64 = 500_000;
/// How long after there may be some it looks, in microseconds: what this tick still holds by the layout
/// before is committed by then.
const LOOK_MICROS: u64 = 10_000;
/// Hints that are sent at once.
const HINTS_MAX: usize = ASKS_PER_OP as usize;
/// Hints that are looked at for a page.
const LOOKED_AT_MAX: usize = 512;
/// Bytes of hints that are read at once.
const CREDIT_BYTES: usize = 256 << 10;

/// What a lane knows of such hints.
#[derive(Debug, Default)]
pub(crate) struct Rehome {
    due_at: Option<u64>,
    under_way: bool,
    /// Where the next look goes on, for targets with many hints.
    after: BTreeMap<NodeId, (Shard, Dot)>,
    /// Counts pages: which owner is tried first.
    tries: usize,
}

/// Some hints.
pub(crate) type Page = Vec<(NodeId, Shard, Record)>;

impl Rehome {
    /// There may be some.
    pub(crate) fn look(&mut self, now: Now) {
        self.due_at = Some(now.micros + LOOK_MICROS);
    }

    /// When [`poll`] has something to do, in the lane's microseconds.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.due_at.filter(|_| !self.under_way)
    }

    /// Whether there are none.
    pub(crate) fn is_settled(&self) -> bool {
        self.due_at.is_none()
    }
}

/// Looks for hints that have to go elsewhere.
pub(crate) fn poll(ctx: &mut Ctx<'_>) -> Option<Wanted> {
    if !ctx.layout.rehome.next_deadline().is_some_and(|at| is_due(at, ctx.now)) {
        return None;
    }
    let (page, more) = find(ctx);
    let rehome = &mut ctx.layout.rehome;
    rehome.due_at = (more || !page.is_empty()).then_some(ctx.now.micros + PACE_MICROS);
    rehome.under_way = !page.is_empty();
    (!page.is_empty()).then_some(Wanted::Rehome(page))
}

/// Some of them, and whether there may be more.
fn find(ctx: &mut Ctx<'_>) -> (Page, bool) {
    let topology = ctx.topology;
    let stays = topology.layout().member(topology.node).is_some();
    let partitions: Vec<Partition> = (0..topology.layout().partitions()).map(Partition).collect();
    let targets: Vec<NodeId> = ctx.store.hint_figures().keys().copied().collect();
    let (mut page, mut more) = (Page::new(), false);
    for target in targets {
        let mut after = ctx.layout.rehome.after.remove(&target);
        let mut looked_at = 0;
        loop {
            // What cannot be read now is looked at again.
            let Ok(found) = ctx.store.hints(target, after, &partitions, CREDIT_BYTES, HINTS_MAX)
            else {
                return (page, true);
            };
            looked_at += found.records.len();
            for (shard, record) in found.records {
                if stays && topology.is_replica(target, shard) {
                    continue;
                }
                if page.len() == HINTS_MAX {
                    return (page, true);
                }
                page.push((target, shard, record));
            }
            if found.last.is_none() {
                break;
            }
            after = found.last;
            if looked_at >= LOOKED_AT_MAX {
                more = true;
                ctx.layout.rehome.after.extend(after.map(|at| (target, at)));
                break;
            }
        }
    }
    (page, more)
}

/// A page under way.
#[derive(Clone, Debug)]
pub(crate) struct RehomeOp {
    /// Who was asked to take in what; `None` when that is over.
    asked: Vec<Option<(PeerLane, NodeId, Shard, Dot)>>,
    delivered: bool,
    pub(super) deadline: u64,
}

impl RehomeOp {
    pub(super) fn start(ctx: &mut Ctx<'_>, op: u64, page: Page) -> Option<RehomeOp> {
        let deadline = ctx.now.micros + PATIENCE_MICROS;
        let mut this = RehomeOp { asked: Vec::new(), delivered: false, deadline };
        for (target, shard, record) in page {
            let dot = record.head.dot;
            if let Ok(policy) = serve::owned(ctx, shard, &record.head.key) {
                // Its own now. The same tick takes it in and lets the hint go.
                let taken = ctx.take_in(shard, record, policy, None);
                this.delivered |= taken.is_ok() && ctx.store.release(target, shard, dot).is_ok();
                continue;
            }
            let mut owners = ctx.topology.replicas(shard);
            let first = ctx.layout.rehome.tries % owners.len().max(1);
            owners.rotate_left(first);
            let to = owners.into_iter().find_map(|node| ctx.reach(node, shard));
            let Some(to) = to else { continue };
            let (epoch, head, value) = (ctx.topology.epoch(), record.head, record.value);
            let replicate = Replicate { shard, head, fsync: true, epoch, timeout_ms: 0, value };
            ctx.ask(to, op, this.asked.len(), Message::Replicate(replicate));
            this.asked.push(Some((to, target, shard, dot)));
        }
        this.progress(ctx).keep(this)
    }

    pub(super) fn on_heard(&mut self, ctx: &mut Ctx<'_>, index: usize, heard: Heard) -> Step {
        let asked = self.asked.get_mut(index).and_then(Option::take);
        if let Some((_, target, shard, dot)) = asked
            && let Heard::Reply(Message::Replicated(Replicated { result: Ok(_) })) = heard
        {
            self.delivered |= ctx.store.release(target, shard, dot).is_ok();
            ctx.counters.hints_delivered += 1;
        }
        self.progress(ctx)
    }

    /// Time is up: what was not taken in is sent again.
    pub(super) fn give_up(&self, ctx: &mut Ctx<'_>) -> Step {
        self.finish(ctx)
    }

    pub(super) fn waits_for(&self, peer: PeerLane) -> Option<usize> {
        self.asked.iter().position(|asked| asked.is_some_and(|(to, ..)| to == peer))
    }

    fn progress(&self, ctx: &mut Ctx<'_>) -> Step {
        if self.asked.iter().any(Option::is_some) {
            return Step::Wait;
        }
        self.finish(ctx)
    }

    fn finish(&self, ctx: &mut Ctx<'_>) -> Step {
        let rehome = &mut ctx.layout.rehome;
        rehome.under_way = false;
        // One that refused is not asked first again.
        rehome.tries = rehome.tries.wrapping_add(usize::from(!self.delivered));
        // What was let go is committed with this tick; the next page comes after it.
        let (now, pace) = (ctx.now.micros, if self.delivered { 1_000 } else { PACE_MICROS });
        // In turn with what repair brings.
        ctx.share.rest(now, ctx.busy);
        let turn = ctx.share.take(now, ctx.busy);
        ctx.layout.rehome.due_at = Some(turn.max(now + pace));
        Step::Done
    }
}
