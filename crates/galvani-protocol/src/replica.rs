//! One replica of one shard: the only place where a record changes anything (invariant I3), and
//! where a tombstone or an expired value goes.
//!
//! [`apply`] takes in one record, whatever brought it: a client's write, replication, read repair,
//! a hint, anti-entropy. It is idempotent: a dot already in the partition clock changes
//! nothing, which also kills late copies of replaced and collected versions. It never asks why a
//! record came. Next to read: `put.rs` and `get.rs`, its callers. Source: algorithms 2.3, 2.6.

use crate::effect::Now;
use galvani_model::bucket::ConflictPolicy;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{Origin, Shard};
use galvani_model::key::Key;
use galvani_model::store::{Change, OwnOrigin, RequestEntry, Rewrite, Store, StoreError};
use galvani_model::version::{
    Dot, DotSet, Kind, Object, PartitionClock, Record, RecordHead, Version, object_digest,
};
use galvani_wire::ReplicaError;
use smallvec::SmallVec;

/// What taking in a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was new here.
    New {
        /// Versions an `lww` bucket dropped because of it.
        discarded: u32,
        /// Whether it was another dot of a logical write already known.
        retry: bool,
    },
    /// Its dot was taken in before; nothing changed.
    Duplicate,
}

/// A key as one replica holds it.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    /// Its live versions.
    pub(crate) object: Object,
    /// What its reader has seen, compressed with this replica's clock in the same instant.
    pub(crate) seen: DotSet,
}

/// How a record is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// As what it is.
    Written,
    /// As a value that is collected where the record came from, or that a tombstone replaced which
    /// is: it is logged and remembered, and shows nothing. Only `sync/pull.rs` says so.
    Hidden,
}

/// Takes in one record. `minted` is the vnode's actor after it, when this vnode has just minted it.
pub(crate) fn apply(
    store: &mut dyn Store,
    shard: Shard,
    record: Record,
    how: As,
    policy: ConflictPolicy,
    minted: Option<OwnOrigin>,
    now: Now,
) -> Result<Taken, StoreError> {
    let state = store.replica(shard)?;
    if state.clock.contains(record.head.dot) {
        return Ok(Taken::Duplicate);
    }
    let mut digest = state.digest;
    let write = record.head.write_id();
    let known = store.request(shard, write, Some(record.head.hlc))?;
    let retry = known.is_some();
    // No earlier than it was issued: else a clock that is put right after it was far behind forgets it.
    let at_ms = now.unix_ms.max(record.head.hlc.unix_ms());
    let mut request = known.unwrap_or_else(|| RequestEntry { dots: SmallVec::new(), at_ms });
    request.dots.push(record.head.dot);
    let mut object = store.object(shard, &record.head.key)?;
    let before = object_digest(&record.head.key, &object);
    let applied = match how {
        As::Written => object.apply(&record.head, retry, policy),
        As::Hidden => object.apply_hidden(&record.head, retry, policy),
    };
    digest.replace(before, object_digest(&record.head.key, &object));
    store.stage(Change { shard, record, object, request, own: minted, digest, policy })?;
    Ok(Taken::New { discarded: applied.discarded, retry })
}

/// How many versions were collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Tombstones.
    pub(crate) tombstones: u64,
    /// Values that had expired.
    pub(crate) expired: u64,
}

/// Takes away the tombstones, and the values that expired at or before `expired_by` (milliseconds
/// since 1970), of a key that are live here and of which `proven` is true: that every owner has
/// taken in all their dots and all that they replaced. From then on a late copy of anything they
/// replaced is a duplicate everywhere, so nothing needs them. Source: algorithms 2.7.
pub(crate) fn collect(
    store: &mut dyn Store,
    shard: Shard,
    key: &Key,
    expired_by: u64,
    proven: impl Fn(&Version) -> bool,
) -> Result<Gone, StoreError> {
    let before = store.object(shard, key)?;
    let is_over = |it: &Version| it.kind == Kind::Delete || it.has_ended(expired_by);
    let after = before.without_ended(|it| is_over(it) && proven(it));
    let mut gone = Gone::default();
    for version in before.versions().iter().filter(|it| !after.versions().contains(it)) {
        match version.kind {
            Kind::Delete => gone.tombstones += 1,
            Kind::Put => gone.expired += 1,
            // It makes no version.
            Kind::Emit => {}
        }
    }
    if gone != Gone::default() {
        store.stage_collected(shard, key, after)?;
    }
    Ok(gone)
}

/// Whether a record is a value that a tombstone replaced which is collected here: it is not live, or
/// came hidden itself, and nothing live replaces any dot of its write. A peer that lacks it must not
/// show it, because the tombstone may reach that peer later. An `lww` bucket collects nothing: there
/// a value also goes because a later one outranks it. A value that expires may itself be what was
/// collected, or lost: [`Object::apply_hidden`] has it replace what it replaces, until its end.
pub(crate) fn is_hidden(
    store: &mut dyn Store,
    shard: Shard,
    head: &RecordHead,
    policy: ConflictPolicy,
) -> Result<bool, StoreError> {
    if head.kind != Kind::Put || policy == ConflictPolicy::Lww {
        return Ok(false);
    }
    let object = store.object(shard, &head.key)?;
    let write = head.write_id();
    let versions = object.versions();
    if versions.iter().any(|version| version.write == write && !version.hidden) {
        return Ok(false);
    }
    let known = store.request(shard, write, Some(head.hlc))?;
    let mut dots = known.map(|entry| entry.dots).unwrap_or_default();
    dots.push(head.dot);
    let replaces = |past: &DotSet| dots.iter().any(|&dot| past.contains(dot));
    for version in versions.iter().filter(|it| it.write != write && replaces(&it.past)) {
        // What it has inherited is in no record, so the peer does not learn it from that one.
        let record = version.dots.iter().find_map(|&dot| store.record(shard, dot).ok().flatten());
        if record.is_none_or(|record| replaces(&record.head.past)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Holds a value again that another owner shows and that this one has taken in before, but lost.
/// The caller has made sure that the other owner knew everything that this one knows: so nothing
/// this replica has taken in replaces it. A tombstone is never held again, nor a value that expires
/// (the digest knows neither), nor one that a live version here replaces. Returns whether anything changed.
pub(crate) fn readopt(
    store: &mut dyn Store,
    shard: Shard,
    key: &Key,
    dot: Dot,
    policy: ConflictPolicy,
) -> Result<bool, StoreError> {
    let state = store.replica(shard)?;
    let mut digest = state.digest;
    if !state.clock.contains(dot) {
        // News come as records.
        return Ok(false);
    }
    let mut object = store.object(shard, key)?;
    if object.versions().iter().any(|version| version.dots.contains(&dot)) {
        return Ok(false);
    }
    let head = record(store, shard, dot)?.head;
    if head.kind != Kind::Put || head.expires() || head.key != *key {
        return Ok(false);
    }
    let write = head.write_id();
    let replaced = |object: &Object| {
        let mut others = object.versions().iter().filter(|version| version.write != write);
        others.any(|version| version.past.contains(dot))
    };
    if replaced(&object) {
        return Ok(false);
    }
    let before = object_digest(key, &object);
    if !object.apply(&head, false, policy).live {
        return Ok(false);
    }
    digest.replace(before, object_digest(key, &object));
    store.rewrite(shard, Rewrite::Object(key.clone(), object, policy))?;
    store.rewrite(shard, Rewrite::Digest(digest))?;
    Ok(true)
}

/// Writes a damaged row anew. It must say what the row said.
pub(crate) fn mend(store: &mut dyn Store, shard: Shard, row: Rewrite) -> Result<(), StoreError> {
    store.rewrite(shard, row)
}

/// The key as this replica holds it.
pub(crate) fn read(store: &mut dyn Store, shard: Shard, key: &Key) -> Result<Local, StoreError> {
    let object = store.object(shard, key)?;
    let mut seen = object.seen();
    seen.compress(&store.replica(shard)?.clock);
    Ok(Local { object, seen })
}

/// What the author of a write that is taken in here has seen of its key, and the key.
pub(crate) fn seen_by_author(
    store: &mut dyn Store,
    shard: Shard,
    head: &RecordHead,
) -> Result<(DotSet, Object), StoreError> {
    let object = store.object(shard, &head.key)?;
    let seen = object.seen_by_author(head, &store.replica(shard)?.clock);
    Ok((seen, object))
}

/// The log record behind a live dot. A live dot without its record is damage, not absence: nothing
/// live is ever trimmed.
pub(crate) fn record(store: &mut dyn Store, shard: Shard, dot: Dot) -> Result<Record, StoreError> {
    store.record(shard, dot)?.ok_or_else(|| store.lost(shard, dot))
}

/// Lets records go that nothing needs any more: `trim/judge.rs` says which. Their dots stay taken in.
/// None of their writes was issued after `until`.
pub(crate) fn trim(
    store: &mut dyn Store,
    shard: Shard,
    dots: &[Dot],
    until: Hlc,
) -> Result<(), StoreError> {
    store.trim(shard, dots, until)
}

/// Takes in dots whose records another owner has trimmed: each of them is dead on every owner, and
/// whatever says so of a version that is live here is still in that owner's log and comes as a
/// record. Retries of their writes, issued up to `until`, are not known here from then on. Only
/// `sync/pull.rs` asks for it.
pub(crate) fn adopt_trimmed(
    store: &mut dyn Store,
    shard: Shard,
    dots: &PartitionClock,
    until: Hlc,
) -> Result<(), StoreError> {
    store.adopt_trimmed(shard, dots, until)
}

/// Whether `dots` or `past` speak of more of our own writes than we have minted: then our counter
/// went back (a restored disk, say), and the vnode takes a new incarnation before it mints again.
/// Also asked on paths that coordinate nothing. Source: algorithms 2.2, rule 4.
pub(crate) fn notice_amnesia(
    store: &mut dyn Store,
    shard: Shard,
    dots: &[Dot],
    past: &DotSet,
) -> Result<bool, StoreError> {
    let Some(own) = store.replica(shard)?.own else {
        return Ok(false);
    };
    let named = dots.iter().filter(|dot| dot.origin == own.origin).map(|dot| dot.counter).max();
    let ahead = named.unwrap_or(0).max(past.max_counter(own.origin)) > own.counter;
    if ahead {
        store.forget_origin(shard)?;
    }
    Ok(ahead)
}

/// [`notice_amnesia`] for a record that arrived.
pub(crate) fn notice_amnesia_in(
    store: &mut dyn Store,
    shard: Shard,
    head: &RecordHead,
) -> Result<bool, StoreError> {
    notice_amnesia(store, shard, &[head.dot], &head.past)
}

/// [`notice_amnesia`] for a peer's partition clock.
pub(crate) fn notice_amnesia_in_clock(
    store: &mut dyn Store,
    shard: Shard,
    clock: &PartitionClock,
) -> Result<bool, StoreError> {
    let Some(own) = store.replica(shard)?.own else {
        return Ok(false);
    };
    let ahead = clock.max_counter(own.origin) > own.counter;
    if ahead {
        store.forget_origin(shard)?;
    }
    Ok(ahead)
}

/// The highest counter taken in from `origin`.
pub(crate) fn known(
    store: &mut dyn Store,
    shard: Shard,
    origin: Origin,
) -> Result<u64, StoreError> {
    Ok(store.replica(shard)?.clock.max_counter(origin))
}

/// What a storage error means to a peer.
pub(crate) fn as_replica_error(error: &StoreError) -> ReplicaError {
    match error {
        StoreError::Full => ReplicaError::DiskFull,
        StoreError::Corrupt { .. } => ReplicaError::Damaged,
        StoreError::Failed { .. } | StoreError::InDoubt { .. } => ReplicaError::StorageFailed,
    }
}
