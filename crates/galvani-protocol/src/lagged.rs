//! What a lagged replica needs of the machines: taking a record in, and reading what is there.
//!
//! Such a replica is in no layout, mints nothing, and nobody learns anything from it. It takes
//! records in as any replica does, by the one `replica::apply`, and collects no tombstone: what a
//! deletion replaced is asked for by whoever looks at the time before it. Its user is
//! `galvani-lagged`. Source: algorithms 5.2.

use crate::effect::Now;
use crate::replica::{self, As, Taken};
use galvani_model::bucket::ConflictPolicy;
use galvani_model::ids::Shard;
use galvani_model::key::Key;
use galvani_model::store::{Store, StoreError};
use galvani_model::version::{Object, Record, Version};

/// Takes in one record as what it is. Returns false, and has changed nothing, if its dot was taken in
/// before. Durable when the store's tick is committed.
pub fn take_in(
    store: &mut dyn Store,
    shard: Shard,
    record: Record,
    policy: ConflictPolicy,
    now: Now,
) -> Result<bool, StoreError> {
    match replica::apply(store, shard, record, As::Written, policy, None, now)? {
        Taken::New { .. } => Ok(true),
        Taken::Duplicate => Ok(false),
    }
}

/// The versions of a key here that nothing taken in replaces.
pub fn object(store: &mut dyn Store, shard: Shard, key: &Key) -> Result<Object, StoreError> {
    Ok(replica::read(store, shard, key)?.object)
}

/// The record behind a version. A version of which no dot has a record is damage.
pub fn record(
    store: &mut dyn Store,
    shard: Shard,
    version: &Version,
) -> Result<Record, StoreError> {
    for &dot in &version.dots {
        if let Some(record) = store.record(shard, dot)? {
            return Ok(record);
        }
    }
    let first = version.dots.first().copied();
    first.map_or_else(
        || Err(StoreError::Corrupt { what: format!("{shard}: a version without a dot") }),
        |dot| replica::record(store, shard, dot),
    )
}
