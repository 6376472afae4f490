//! A stand-in's side of handoff: holding hints, and giving them to their owner.
//!
//! A hint is acked like any record, after the tick's commit. It goes when its owner asks for the
//! page after the one that brought it. Next to read: `fetch.rs`.

use super::Given;
use crate::effect::{PeerLane, ReplyTo};
use crate::ops::{Ctx, NOBODY};
use crate::replica;
use crate::serve;
use crate::share::page_bytes;
use galvani_model::ids::NodeId;
use galvani_model::store::StoreError;
use galvani_model::version::Record;
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{
    FindHints, Hint, HintsFound, HintsPulled, PullHints, Pulled, Replicate, Replicated,
};

/// Bytes looked through at once for the hints of a key.
const CREDIT_BYTES_MAX: u32 = 1 << 20;
/// Records given at once.
const RECORDS_MAX: usize = 512;
/// Hints for one owner that are looked at to find those of a key: it is for people.
const LOOKED_AT_MAX: usize = 4_096;
/// Bytes of their values that are read for it, about: a few milliseconds of a lane's work.
const LOOKED_AT_BYTES: usize = 4 << 20;
/// Hints of one key that are named.
const FOUND_MAX: usize = 256;

/// Holds a record for an owner that is away, and acks it.
pub(crate) fn on_hint(ctx: &mut Ctx<'_>, from: ReplyTo, hint: Hint) {
    let fsync = hint.record.fsync;
    let result = hold(ctx, hint).map(|()| fsync || ctx.config.always_fsync);
    ctx.answer(from, NOBODY, Message::Replicated(Replicated { result }));
}

fn hold(ctx: &mut Ctx<'_>, hint: Hint) -> Result<(), ReplicaError> {
    let Hint { owner, record: Replicate { shard, head, fsync, epoch, timeout_ms: _, value } } =
        hint;
    serve::current(ctx, epoch, shard)?;
    let (topology, me) = (ctx.topology, ctx.topology.node);
    let (_, located) = topology.locate(&head.key).ok_or(ReplicaError::UnknownBucket)?;
    let record = Record { head, value };
    if located != shard || !record.is_intact() || record.head.dot.counter == 0 {
        return Err(ReplicaError::Malformed);
    }
    let here = topology.layout().lane(me, shard.partition) == Some(ctx.config.lane);
    let stands_in = topology.is_replica(owner, shard) && !topology.is_replica(me, shard);
    if !here || !stands_in {
        return Err(ReplicaError::NotOwner);
    }
    let (for_owner, in_all) = ctx.store.hint_bytes(owner);
    let size = weight(&record) as u64;
    let limits = &ctx.config.limits;
    if for_owner + size > limits.hint_bytes_per_owner || in_all + size > limits.hint_bytes {
        ctx.counters.hints_refused += 1;
        return Err(ReplicaError::HintsFull);
    }
    let failed = |error: StoreError| replica::as_replica_error(&error);
    ctx.store.hold(owner, shard, &record).map_err(failed)?;
    *ctx.fsync |= fsync;
    ctx.counters.hints_held += 1;
    ctx.handoff.note_held(ctx.now);
    Ok(())
}

/// About what a hint takes.
fn weight(record: &Record) -> usize {
    record.head.about_bytes() + record.value.len()
}

/// Gives an owner its next page, and drops the one that it now holds durably.
pub(crate) fn give(ctx: &mut Ctx<'_>, pull: &PullHints) -> Result<HintsPulled, ReplicaError> {
    let owner = PeerLane { node: pull.node, lane: pull.lane };
    let mut after = None;
    if let Some(given) = ctx.handoff.given.remove(&owner)
        && given.page == pull.taken
    {
        after = given.last;
        for (index, (shard, dot)) in given.hints.into_iter().enumerate() {
            if pull.refused.contains(&(index as u16)) {
                continue;
            }
            match ctx.store.release(owner.node, shard, dot) {
                Ok(()) => ctx.counters.hints_delivered += 1,
                // It stays, and is given again: a disk that takes nothing must not hold up the rest.
                Err(StoreError::Full | StoreError::Failed { .. }) => ctx.handoff.note_kept(ctx.now),
                Err(error) => return Err(replica::as_replica_error(&error)),
            }
        }
    }
    page(ctx, owner, after, pull.credit)
}

/// Which hints are held of one key: looks at no more than [`LOOKED_AT_MAX`] for each owner, and reads no more
/// than [`LOOKED_AT_BYTES`] for all of them.
pub(crate) fn find(ctx: &mut Ctx<'_>, find: &FindHints) -> Result<HintsFound, ReplicaError> {
    let mut found = HintsFound::default();
    let mut bytes = 0;
    for owner in ctx.topology.replicas(find.shard) {
        let (mut after, mut looked_at) = (None, 0);
        loop {
            let partitions = [find.shard.partition];
            let credit = CREDIT_BYTES_MAX as usize;
            let page = ctx.store.hints(owner, after, &partitions, credit, RECORDS_MAX);
            let page = page.map_err(|error| replica::as_replica_error(&error))?;
            looked_at += page.records.len();
            bytes += page.records.iter().map(|(_, record)| weight(record)).sum::<usize>();
            let of_key = page
                .records
                .iter()
                .filter(|(shard, record)| *shard == find.shard && record.head.key == find.key);
            found.hints.extend(of_key.map(|(_, record)| (owner, record.head.dot)));
            if page.last.is_none() {
                break;
            }
            if looked_at >= LOOKED_AT_MAX || bytes >= LOOKED_AT_BYTES {
                found.more = true;
                break;
            }
            after = page.last;
        }
    }
    found.more |= found.hints.len() > FOUND_MAX;
    found.hints.truncate(FOUND_MAX);
    Ok(found)
}

fn page(
    ctx: &mut Ctx<'_>,
    owner: PeerLane,
    mut after: Option<(galvani_model::ids::Shard, galvani_model::version::Dot)>,
    credit: u32,
) -> Result<HintsPulled, ReplicaError> {
    let credit = credit.min(page_bytes(ctx.busy)) as usize;
    let node: NodeId = owner.node;
    let partitions = super::between(ctx.topology, ctx.config.lane, owner);
    let records = loop {
        let found = ctx.store.hints(node, after, &partitions, credit, RECORDS_MAX);
        let found = found.map_err(|error| replica::as_replica_error(&error))?;
        // A page of damaged hints only is none: the next one, then.
        if !found.records.is_empty() || found.last.is_none() {
            after = found.last;
            break found.records;
        }
        after = found.last;
    };
    // The empty page, with which it ends, costs nobody anything.
    let pause_ms = match records.is_empty() {
        true => 0,
        false => ctx.share.pause_ms(ctx.now.micros, ctx.busy),
    };
    let handoff = &mut *ctx.handoff;
    handoff.pages += 1;
    let hints = records.iter().map(|(shard, record)| (*shard, record.head.dot)).collect();
    if !records.is_empty() {
        handoff.given.insert(owner, Given { page: handoff.pages, hints, last: after });
    }
    let (mut shards, mut heads, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (shard, record) in records {
        shards.push(shard);
        heads.push(record.head);
        values.push(record.value);
    }
    Ok(HintsPulled {
        page: handoff.pages,
        shards,
        records: Pulled { heads, values, pause_ms, ..Pulled::default() },
    })
}
