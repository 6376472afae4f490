//! A replica's side: what a coordinator asks of an owner, answered at once.
//!
//! Nothing here waits, retries or decides a quorum. Each answer leaves after the tick's commit, so
//! an ack is as durable as it says. Next to read: `replica.rs`.

use crate::effect::ReplyTo;
use crate::list;
use crate::ops::Ctx;
use crate::replica::{self, Taken};
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::StoreError;
use galvani_model::version::Record;
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{Fetch, FetchPage, Held, HeldPage, Replicate, Replicated, Supply};

/// The operation number of a replica's answers: no operation of this lane.
const REPLICA: u64 = 0;

/// Takes a record in and acks it.
pub(crate) fn on_replicate(ctx: &mut Ctx<'_>, from: ReplyTo, replicate: Replicate) {
    let fsync = replicate.fsync;
    let result = take_in(ctx, replicate).map(|()| fsync || ctx.config.always_fsync);
    ctx.answer(from, REPLICA, Message::Replicated(Replicated { result }));
}

/// Takes all records of a supply in, and acks them as one.
pub(crate) fn on_supply(ctx: &mut Ctx<'_>, from: ReplyTo, supply: Supply) {
    let Supply { shard, heads, epoch, timeout_ms: _, values } = supply;
    let records = heads.into_iter().zip(values).map(|(head, value)| Record { head, value });
    let mut result = current(ctx, epoch, shard).map(|()| ctx.config.always_fsync);
    let records = if result.is_ok() { Some(records) } else { None };
    for record in records.into_iter().flatten() {
        // What was taken in before another record was refused stays: it is only not acked.
        if let Err(error) = take_in_record(ctx, shard, record) {
            result = Err(error);
            break;
        }
    }
    ctx.answer(from, REPLICA, Message::Replicated(Replicated { result }));
}

fn take_in(ctx: &mut Ctx<'_>, replicate: Replicate) -> Result<(), ReplicaError> {
    let Replicate { shard, head, fsync, epoch, timeout_ms: _, value } = replicate;
    current(ctx, epoch, shard)?;
    take_in_record(ctx, shard, Record { head, value })?;
    *ctx.fsync |= fsync;
    Ok(())
}

fn take_in_record(ctx: &mut Ctx<'_>, shard: Shard, record: Record) -> Result<(), ReplicaError> {
    let policy = owned(ctx, shard, &record.head.key)?;
    if !record.is_intact() || record.head.dot.counter == 0 {
        return Err(ReplicaError::Malformed);
    }
    let store = |error: StoreError| replica::as_replica_error(&error);
    if replica::notice_amnesia_in(ctx.store, shard, &record.head).map_err(store)? {
        ctx.on_amnesia();
    }
    match ctx.take_in(shard, record, policy, None).map_err(store)? {
        Taken::New { discarded, retry } => {
            ctx.counters.replicated += 1;
            ctx.counters.lww_discarded += u64::from(discarded);
            ctx.counters.retries_recognised += u64::from(retry);
        }
        Taken::Duplicate => ctx.counters.duplicates += 1,
    }
    Ok(())
}

/// Tells what this replica holds of a key.
pub(crate) fn on_fetch(ctx: &mut Ctx<'_>, from: ReplyTo, fetch: Fetch) {
    let held = held(ctx, fetch);
    ctx.answer(from, REPLICA, Message::Fetched(held));
}

fn held(ctx: &mut Ctx<'_>, fetch: Fetch) -> Result<Held, ReplicaError> {
    let Fetch { shard, key, records, have, shown, epoch, timeout_ms: _ } = fetch;
    current(ctx, epoch, shard)?;
    owned(ctx, shard, &key)?;
    let store = |error: StoreError| replica::as_replica_error(&error);
    let past = Default::default();
    if replica::notice_amnesia(ctx.store, shard, &have, &past).map_err(store)? {
        ctx.on_amnesia();
    }
    whole(ctx, shard)?;
    let local = replica::read(ctx.store, shard, &key).map_err(store)?;
    let (mut heads, mut values) = (Vec::new(), Vec::new());
    if records {
        let live = local.object.dots();
        let mut wanted = live.clone();
        for write in shown {
            let live = local.object.versions().iter().any(|version| version.write == write);
            if !live && let Some(known) = ctx.store.request(shard, write, None).map_err(store)? {
                wanted.extend(known.dots);
            }
        }
        for dot in wanted.into_iter().filter(|dot| !have.contains(dot)) {
            let record = match live.contains(&dot) {
                true => replica::record(ctx.store, shard, dot).map(Some),
                // It may have been trimmed.
                false => ctx.store.record(shard, dot),
            };
            let Some(record) = record.map_err(store)? else { continue };
            heads.push(record.head);
            values.push(record.value);
        }
    }
    Ok(Held { versions: local.object.versions().to_vec(), seen: local.seen, heads, values })
}

/// The records that an answer brings, if they are of `key` and are what it says of them.
pub(crate) fn vetted(held: &Held, key: &Key) -> Option<Vec<Record>> {
    let is_right = |record: &Record| {
        let named = record.head.dot.counter > 0 && record.head.key == *key;
        let agrees = held.versions.iter().all(|version| {
            !version.dots.contains(&record.head.dot) || version.agrees_with(&record.head)
        });
        named && agrees && record.is_intact()
    };
    held.records().map(|record| is_right(&record).then_some(record)).collect()
}

/// Tells a page of this replica's keys.
pub(crate) fn on_fetch_page(ctx: &mut Ctx<'_>, from: ReplyTo, fetch: FetchPage) {
    let page = page(ctx, fetch);
    ctx.answer(from, REPLICA, Message::FetchedPage(page));
}

fn page(ctx: &mut Ctx<'_>, fetch: FetchPage) -> Result<HeldPage, ReplicaError> {
    if !ctx.topology.buckets.contains_key(&fetch.bucket) {
        return Err(ReplicaError::UnknownBucket);
    }
    current(ctx, fetch.epoch, fetch.shard)?;
    mine(ctx, fetch.shard)?;
    list::own_page(ctx, &fetch)
}

/// The bucket's policy, if this lane of this node owns the key's shard.
pub(crate) fn owned(
    ctx: &Ctx<'_>,
    shard: Shard,
    key: &Key,
) -> Result<ConflictPolicy, ReplicaError> {
    let (props, located) = ctx.topology.locate(key).ok_or(ReplicaError::UnknownBucket)?;
    if located != shard {
        return Err(ReplicaError::Malformed);
    }
    mine(ctx, shard)?;
    Ok(props.policy)
}

/// Whether this lane of this node holds `shard`, or is to. Two lanes must never write one shard.
pub(crate) fn mine(ctx: &Ctx<'_>, shard: Shard) -> Result<(), ReplicaError> {
    let (layout, me) = (ctx.topology.layout(), ctx.topology.node);
    let here = layout.contains(shard)
        && layout.is_replica(me, shard)
        && layout.lane(me, shard.partition) == Some(ctx.config.lane)
        && !ctx.layout.transfer.is_being_emptied(shard);
    if here { Ok(()) } else { Err(ReplicaError::NotOwner) }
}

/// Whether what this node has acked of `shard` is here: reads count on it. A lost disk has to be filled
/// again first, and one that comes to own it has to catch up.
pub(crate) fn whole(ctx: &Ctx<'_>, shard: Shard) -> Result<(), ReplicaError> {
    let lacks = ctx.layout.refill.lacks(shard) || ctx.layout.transfer.is_coming(shard);
    match lacks {
        true => Err(ReplicaError::Refilling),
        false => Ok(()),
    }
}

/// Whether this lane of this node answers reads of `shard`: not while it catches up, and not once
/// others do in its place.
pub(crate) fn reads(ctx: &Ctx<'_>, shard: Shard) -> Result<(), ReplicaError> {
    mine(ctx, shard)?;
    whole(ctx, shard)?;
    match ctx.topology.owners(shard).contains(&ctx.topology.node) {
        true => Ok(()),
        false => Err(ReplicaError::NotOwner),
    }
}

/// Refuses what goes by owners that the shard has no more: quorums of then and of now need not
/// overlap. What goes by owners that it does not have yet is served: more copies never hurt.
pub(crate) fn current(ctx: &mut Ctx<'_>, epoch: u64, shard: Shard) -> Result<(), ReplicaError> {
    ctx.layout.heard_of(epoch);
    match ctx.topology.is_stale(epoch, shard) {
        true => Err(ReplicaError::LayoutChanged),
        false => Ok(()),
    }
}
