//! Read repair: what the replicas a read asked lack of what it found, and how they get it.
//!
//! In the background (the default) a read that has answered sends each replica the records it was
//! seen to lack, within a budget; what is beyond the budget is left to anti-entropy. A blocking read
//! is answered only once r replicas hold what it returns: then a later read that meets one of them
//! shows nothing older. Nothing here decides what a read returns.
//! Next to read: `get.rs`. Sources: DeCandia et al. 2007, section 5; Attiya, Bar-Noy, Dolev 1995.

use crate::effect::PeerLane;
use crate::ops::{ASKS_PER_OP, Ctx, NOBODY};
use crate::topology::Owners;
use galvani_model::ids::{NodeId, Shard, WriteId};
use galvani_model::limits::N_MAX;
use galvani_model::version::{Dot, DotSet, Object, Record};
use galvani_wire::Message;
use galvani_wire::message::{GetDone, Replicate, Supply};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// What one replica that answered shows of a key.
#[derive(Clone, Debug)]
pub(crate) struct HeardFrom {
    pub(crate) node: NodeId,
    /// What a reader of it has seen.
    pub(crate) seen: DotSet,
    /// The logical writes it shows.
    pub(crate) shown: Vec<WriteId>,
}

impl HeardFrom {
    /// The dots whose records this replica lacks of `object`: live ones it has not seen, and where
    /// it shows a write that was replaced under another dot, that dot too.
    fn lacks(&self, ctx: &mut Ctx<'_>, shard: Shard, object: &Object) -> Vec<Dot> {
        let live = object.versions().iter().flat_map(|version| version.dots.iter());
        let mut missing: Vec<Dot> = live.copied().filter(|&dot| !self.seen.contains(dot)).collect();
        let is_live = |write| object.versions().iter().any(|version| version.write == write);
        for &write in self.shown.iter().filter(|&&write| !is_live(write)) {
            // Best effort: storage that cannot say repairs nothing.
            let known = ctx.store.request(shard, write, None).ok().flatten();
            let dots = known.map(|entry| entry.dots).unwrap_or_default();
            missing.extend(dots.into_iter().filter(|&dot| !self.seen.contains(dot)));
        }
        missing
    }
}

/// Sends every replica that answered what it lacks of `object`. Replicas that agree get nothing: a
/// read of agreeing replicas writes nowhere.
pub(crate) fn in_background(
    ctx: &mut Ctx<'_>,
    shard: Shard,
    object: &Object,
    heard: &[HeardFrom],
    records: &BTreeMap<Dot, Record>,
) {
    for replica in heard {
        let Some(lane) = ctx.reach(replica.node, shard) else { continue };
        for dot in replica.lacks(ctx, shard, object) {
            // One that came too late to be kept, and was not taken in here, another read may send.
            let Some(record) = find(ctx, shard, dot, records) else { continue };
            if !ctx.read_repairs.take(ctx.now.micros) {
                ctx.counters.repairs_skipped += 1;
                ctx.sync.note_change(shard, ctx.now);
                return;
            }
            send(ctx, lane, shard, record);
        }
    }
}

fn send(ctx: &mut Ctx<'_>, lane: PeerLane, shard: Shard, Record { head, value }: Record) {
    ctx.counters.repairs_sent += 1;
    let epoch = ctx.topology.epoch();
    let replicate = Replicate { shard, head, fsync: false, epoch, timeout_ms: 0, value };
    ctx.ask(lane, NOBODY, 0, Message::Replicate(replicate));
}

fn find(
    ctx: &mut Ctx<'_>,
    shard: Shard,
    dot: Dot,
    records: &BTreeMap<Dot, Record>,
) -> Option<Record> {
    let here = records.get(&dot).cloned();
    here.or_else(|| ctx.store.record(shard, dot).ok().flatten())
}

/// The first ask index of a blocking read's supplies; below are its questions, one an owner.
const FIRST_SUPPLY: usize = N_MAX as usize + 1;
const _: () = assert!(FIRST_SUPPLY + N_MAX as usize <= ASKS_PER_OP as usize);

/// A blocking read that knows what it returns and waits until r replicas hold it.
#[derive(Clone, Debug)]
pub(crate) struct Confirming {
    /// What the client gets.
    pub(crate) done: GetDone,
    object: Object,
    holders: Owners,
    /// Supplies sent: each replica gets at most one.
    sent: usize,
    /// Ask indices of supplies that were sent and not answered, and to whom.
    supplied: SmallVec<[(usize, NodeId); 4]>,
}

impl Confirming {
    /// `done` shows `object`.
    pub(crate) fn new(done: GetDone, object: Object) -> Confirming {
        Confirming { done, object, holders: Owners::new(), sent: 0, supplied: SmallVec::new() }
    }

    /// How many other replicas hold it.
    pub(crate) fn holders(&self) -> u8 {
        self.holders.len() as u8
    }

    /// Whether the own copy has taken all of it in. Asked anew each time: what a tick staged is gone
    /// if its commit fails.
    pub(crate) fn is_here(&self, ctx: &mut Ctx<'_>, shard: Shard) -> bool {
        let own = ctx.store.replica(shard);
        own.is_ok_and(|own| self.object.dots().into_iter().all(|dot| own.clock.contains(dot)))
    }

    /// Whether no supply is still to be answered.
    pub(crate) fn is_complete(&self) -> bool {
        self.supplied.is_empty()
    }

    /// The ask that waits for `node`, if one does.
    pub(crate) fn waits_for(&self, node: NodeId) -> Option<usize> {
        self.supplied.iter().find(|(_, to)| *to == node).map(|(index, _)| *index)
    }

    /// A replica answered: it holds all of it, or is supplied as operation `op`.
    pub(crate) fn judge(
        &mut self,
        ctx: &mut Ctx<'_>,
        op: u64,
        shard: Shard,
        heard: &HeardFrom,
        records: &BTreeMap<Dot, Record>,
        timeout_ms: u32,
    ) {
        let node = heard.node;
        let missing = heard.lacks(ctx, shard, &self.object);
        if missing.is_empty() {
            self.holders.push(node);
            return;
        }
        let Some(lane) = ctx.reach(node, shard) else { return };
        let (mut heads, mut values) = (Vec::new(), Vec::new());
        for dot in missing {
            // One that nobody has any more cannot be supplied: this replica does not count.
            let Some(Record { head, value }) = find(ctx, shard, dot, records) else { return };
            heads.push(head);
            values.push(value);
        }
        let index = FIRST_SUPPLY + self.sent;
        self.sent += 1;
        ctx.counters.repairs_sent += heads.len() as u64;
        self.supplied.push((index, node));
        let epoch = ctx.topology.epoch();
        let supply = Supply { shard, heads, epoch, timeout_ms, values };
        ctx.ask(lane, op, index, Message::Supply(supply));
    }

    /// The answer to the supply with `index`: whether the replica took it in. False if no such
    /// supply is awaited.
    pub(crate) fn on_supplied(&mut self, index: usize, stored: bool) -> bool {
        let Some(at) = self.supplied.iter().position(|(asked, _)| *asked == index) else {
            return false;
        };
        let (_, node) = self.supplied.remove(at);
        if stored {
            self.holders.push(node);
        }
        true
    }
}
