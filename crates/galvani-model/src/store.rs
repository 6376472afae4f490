//! The one door to a disk: what the machines ask of storage, and how they change it.
//!
//! A machine reads rows, works out a [`Change`], and stages it; the driver commits everything one
//! tick staged as one atomic batch and only then lets effects out. Later reads of the same tick see
//! what was staged. The trait stands on this floor so that the machines (floor 3) and the storage
//! (floor 3) need not know each other: `docs/decisions/0001-store-trait-floor.md`.

use crate::bucket::{BucketName, ConflictPolicy};
use crate::hlc::Hlc;
use crate::ids::{NodeId, Origin, Partition, Shard, WriteId};
use crate::key::Key;
use crate::version::{Digest, Dot, Object, PartitionClock, Record, RecordHead};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Why storage did not do what it was asked. Nothing of the failed step is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, or below its reserve. Reads go on; writes succeed again when space returns.
    #[error("the disk is full")]
    Full,
    /// A row failed its checksum or does not decode: it is quarantined, counted, never served.
    #[error("a damaged row was quarantined: {what}")]
    Corrupt {
        /// Which row, for people.
        what: String,
    },
    /// The engine failed; nothing of this step was written.
    #[error("storage failed: {what}")]
    Failed {
        /// What the engine said.
        what: String,
    },
    /// The engine failed while it wrote: the tick is whole or absent on disk, and nobody knows
    /// which until it is read again.
    #[error("storage failed and the last write is in doubt: {what}")]
    InDoubt {
        /// What the engine said.
        what: String,
    },
}

/// The vnode's own actor: who it mints dots as, and how many it has minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnOrigin {
    /// The current incarnation.
    pub origin: Origin,
    /// Dots minted so far, dense from 1 (INV-3: they are all in the clock).
    pub counter: u64,
}

/// What one node holds of one shard, beside the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaState {
    /// S: the exact set of writes taken in.
    pub clock: PartitionClock,
    /// Who this vnode mints as; `None` until it first mints after a doubtful start.
    pub own: Option<OwnOrigin>,
    /// Records taken in so far, in order of arrival: the next arrival's number.
    pub arrivals: u64,
    /// The xor digest of every live value without an end.
    pub digest: Digest,
    /// Dots of live tombstones that wait for collection: rows of their index.
    #[serde(default)]
    pub tombstones: u64,
    /// Dots of live values that expire: rows of their index.
    #[serde(default)]
    pub expiring: u64,
    /// No write taken in was issued later, by hybrid time. The last there is where that is not known.
    pub latest: Hlc,
    /// T, a part of S: where there is no record of one of these dots, it was trimmed, not lost. It
    /// has whole stretches, so records that are kept in between are named, too.
    #[serde(default)]
    pub trimmed: PartitionClock,
    /// No record that was trimmed was of a write issued later, by hybrid time.
    #[serde(default)]
    pub trimmed_until: Hlc,
    /// Writes issued up to here may have been taken in without a record and are not remembered: what
    /// they were was trimmed before it came here, or what said so was damaged. Of later ones every retry
    /// is known.
    #[serde(default)]
    pub unknown_until: Hlc,
}

impl ReplicaState {
    /// Whether a dot whose record is not here was trimmed. Of one that is here it says nothing.
    pub fn is_trimmed(&self, dot: Dot) -> bool {
        self.trimmed.contains(dot)
    }
}

/// What a replica remembers of a logical write, so that it knows a retry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEntry {
    /// Its dots that came here, in order of arrival; at least one.
    pub dots: SmallVec<[Dot; 1]>,
    /// When it was taken in (milliseconds since 1970 on this node), for retention.
    pub at_ms: u64,
}

/// Everything one record changes; staged and committed whole or not at all (INV-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The shard it belongs to.
    pub shard: Shard,
    /// The log row; its dot joins the clock and takes the next arrival number.
    pub record: Record,
    /// The object row after it; absent means the row goes.
    pub object: Object,
    /// The request row, under the record's write id.
    pub request: RequestEntry,
    /// The vnode's own actor after it, when this vnode minted the dot.
    pub own: Option<OwnOrigin>,
    /// The shard's digest after it.
    pub digest: Digest,
    /// The bucket's policy: where siblings are kept, tombstones and expiring values of the object are
    /// indexed for collection; an `lww` bucket keeps both.
    pub policy: ConflictPolicy,
}

/// One key of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: Key,
    /// Its object here.
    pub object: Object,
}

/// What a lane holds for one owner that was away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintFigures {
    /// Records.
    pub count: u64,
    /// Bytes of their rows.
    pub bytes: u64,
    /// When the oldest of them was written, in milliseconds since 1970 by hybrid time, to within
    /// [`HintFigures::SINCE_STEP_MS`]; 0 where no row of them can be read.
    pub since_ms: u64,
}

impl HintFigures {
    /// How exact `since_ms` is, in milliseconds: what is held is counted by spans of this length.
    pub const SINCE_STEP_MS: u64 = 8_192;

    /// Adds what another lane holds for the same owner.
    pub fn add(&mut self, other: &HintFigures) {
        self.since_ms = match self.count {
            0 => other.since_ms,
            _ => self.since_ms.min(other.since_ms),
        };
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

/// Hints for one target, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HintPage {
    /// The records, with their shards.
    pub records: Vec<(Shard, Record)>,
    /// The last hint looked at, damaged ones included; `None` if there was none.
    pub last: Option<(Shard, Dot)>,
}

/// A row that cannot be read: its checksum fails, or it is gone although others prove it. Records
/// come first: objects and requests are rebuilt from them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Damage {
    /// The log row of a dot.
    Record(Shard, Dot),
    /// The object row of a key.
    Object(Shard, Key),
    /// The request row of a logical write.
    Request(Shard, WriteId),
}

impl Damage {
    /// The shard whose row it is.
    pub fn shard(&self) -> Shard {
        match self {
            Damage::Record(shard, _) | Damage::Object(shard, _) | Damage::Request(shard, _) => {
                *shard
            }
        }
    }
}

/// A row written anew, because it was damaged or lost. It brings no news: the clock stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// The log row of a dot that is in the clock.
    Record(Box<Record>),
    /// The object row of a key, in a bucket of this policy.
    Object(Key, Object, ConflictPolicy),
    /// The request row of a logical write; `None` where the log knows of no dot of it.
    Request(WriteId, Option<RequestEntry>),
    /// The shard's digest, as its data has it.
    Digest(Digest),
}

/// Some objects of a shard, in the order of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The objects; damaged rows are passed over (and listed as damaged).
    pub objects: Vec<Listed>,
    /// The last key looked at, if there are more rows after it.
    pub last: Option<Key>,
    /// Rows that were passed over.
    pub damaged: usize,
}

/// Some rows of an index of a shard, in its order: what they name, and whose key that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexPage<At> {
    /// The rows; those whose key nothing tells any more are passed over.
    pub rows: Vec<(At, Key)>,
    /// The last row looked at.
    pub last: Option<At>,
    /// Rows looked at, those passed over included: fewer than asked for only at the end.
    pub looked: usize,
}

/// Some records of a shard's log, ascending, without their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// Their heads; rows that cannot be read are passed over.
    pub heads: Vec<RecordHead>,
    /// The last row looked at, if there may be more after it.
    pub last: Option<Dot>,
}

/// A row of one of the indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Indexed {
    /// A dot of a tombstone.
    Tombstone(Dot),
    /// A value that expires: when, in milliseconds since 1970, and a dot of it.
    Expiring(u64, Dot),
}

impl Indexed {
    /// Whether an object has what the row names.
    pub fn is_of(&self, object: &Object) -> bool {
        match self {
            Indexed::Tombstone(dot) => object.tombstones().contains(dot),
            Indexed::Expiring(expires_ms, dot) => object.expiring().contains(&(*expires_ms, *dot)),
        }
    }
}

/// Whole shards of one lane, and the few facts it keeps of itself.
pub trait Holdings {
    /// Every shard of which there are committed rows, ascending.
    fn held_shards(&mut self) -> Result<Vec<Shard>, StoreError>;

    /// Stages that up to `limit` rows of a shard go for good; whether that is all there are. Nothing
    /// else of the shard may be staged in the same tick, and nobody may serve it meanwhile.
    fn empty(&mut self, shard: Shard, limit: usize) -> Result<bool, StoreError>;

    /// A fact that the lane keeps under this name, staged ones included.
    fn fact(&mut self, name: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Stages a fact, or that it goes.
    fn set_fact(&mut self, name: &[u8], value: Option<Bytes>) -> Result<(), StoreError>;
}

/// Rows of one lane's shards. Only `galvani-protocol/src/replica.rs` calls [`Store::stage`]
/// and [`Store::rewrite`].
pub trait Store: Holdings {
    /// The live versions of a key here; absent if nothing is known.
    fn object(&mut self, shard: Shard, key: &Key) -> Result<Object, StoreError>;

    /// The log record of a dot, if it is kept here.
    fn record(&mut self, shard: Shard, dot: Dot) -> Result<Option<Record>, StoreError>;

    /// [`Store::record`] as the disk has it, whatever a store remembers, for whoever checks the disk;
    /// one that this tick takes in as it will be.
    fn record_on_disk(&mut self, shard: Shard, dot: Dot) -> Result<Option<Record>, StoreError>;

    /// [`Store::object`] as the disk has it, for whoever checks the disk; where this tick changes it,
    /// as it will be.
    fn object_on_disk(&mut self, shard: Shard, key: &Key) -> Result<Object, StoreError>;

    /// What is remembered of a logical write. Whoever knows when it was issued says so: then a new one
    /// can mostly be told without reading anything.
    fn request(
        &mut self,
        shard: Shard,
        write: WriteId,
        issued: Option<Hlc>,
    ) -> Result<Option<RequestEntry>, StoreError>;

    /// Clock, actor, arrivals and digest of a shard; empty if it was never touched.
    fn replica(&mut self, shard: Shard) -> Result<&ReplicaState, StoreError>;

    /// Stages what one record changes. Reads see it at once; the disk has it after the tick.
    fn stage(&mut self, change: Change) -> Result<(), StoreError>;

    /// Up to `limit` dots of committed tombstones that wait for collection, ascending, after `after`
    /// (exclusive), with their keys. One may have been replaced or collected by this very tick.
    fn tombstones(
        &mut self,
        shard: Shard,
        after: Option<Dot>,
        limit: usize,
    ) -> Result<IndexPage<Dot>, StoreError>;

    /// Up to `limit` dots of committed values that expire at or before `until_ms`, in the order of
    /// their expiry, after `after` (exclusive). One may have been replaced or collected by this tick.
    fn expiring(
        &mut self,
        shard: Shard,
        after: Option<(u64, Dot)>,
        until_ms: u64,
        limit: usize,
    ) -> Result<IndexPage<(u64, Dot)>, StoreError>;

    /// Stages that a committed row of an index goes which names nothing that its key's object has: a
    /// row that is left where an object was written anew. Any other row stays.
    fn unindex(&mut self, shard: Shard, key: &Key, row: Indexed) -> Result<(), StoreError>;

    /// Stages a key's object without tombstones and expired values that were collected; the digest
    /// knows none of them.
    fn stage_collected(
        &mut self,
        shard: Shard,
        key: &Key,
        object: Object,
    ) -> Result<(), StoreError>;
    /// Stages a row that was damaged or lost, or a digest that the data does not bear out.
    fn rewrite(&mut self, shard: Shard, row: Rewrite) -> Result<(), StoreError>;

    /// Up to `limit` dots from `from` on, ascending, of which a record is here or should be: all that
    /// the log has, and what the clock has and was never trimmed.
    fn logged(&mut self, shard: Shard, from: Dot, limit: usize) -> Result<Vec<Dot>, StoreError>;

    /// Up to `limit` committed records of the log from `from` on.
    fn log_page(&mut self, shard: Shard, from: Dot, limit: usize) -> Result<LogPage, StoreError>;

    /// Stages that records which are here go for good: their dots stay in the clock.
    /// None of their writes was issued after `until`.
    fn trim(&mut self, shard: Shard, dots: &[Dot], until: Hlc) -> Result<(), StoreError>;

    /// Stages that dots are taken in without their records, which were trimmed where they were asked
    /// for. Those that are here already change nothing.
    /// None of their writes was issued after `until`; none of them is remembered here.
    fn adopt_trimmed(
        &mut self,
        shard: Shard,
        dots: &PartitionClock,
        until: Hlc,
    ) -> Result<(), StoreError>;

    /// Looks at up to `limit` arrivals from number `from` on, and stages that those go whose records
    /// were trimmed and that the state does not need. Returns where to go on, if there are more.
    fn trim_arrivals(
        &mut self,
        shard: Shard,
        from: u64,
        limit: usize,
    ) -> Result<Option<u64>, StoreError>;

    /// Lists the record of a dot that is live, and is not here, as damaged: the store alone takes it
    /// for trimmed. Returns what to say of it.
    fn lost(&mut self, shard: Shard, dot: Dot) -> StoreError;

    /// Damaged rows met and not yet mended, as far as there is room to list them.
    fn damaged(&self) -> &BTreeSet<Damage>;

    /// A number that is another one whenever [`Store::damaged`] has changed.
    fn damage_changes(&self) -> u64;

    /// Up to `limit` rows of a shard's objects after `after` (exclusive), staged ones included.
    fn slice(
        &mut self,
        shard: Shard,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Slice, StoreError>;

    /// Forgets who this vnode mints as: its next mint starts a new incarnation. Kept by the tick.
    fn forget_origin(&mut self, shard: Shard) -> Result<(), StoreError>;

    /// Stages a hint: a record held for an owner that is away, outside of this node's own shards.
    /// One that is held already changes nothing.
    fn hold(&mut self, target: NodeId, shard: Shard, record: &Record) -> Result<(), StoreError>;

    /// Committed hints for `target` in these partitions (ascending), in the order of their keys,
    /// after `after` (exclusive): at most `limit`, and none that starts beyond `credit` bytes.
    fn hints(
        &mut self,
        target: NodeId,
        after: Option<(Shard, Dot)>,
        partitions: &[Partition],
        credit: usize,
        limit: usize,
    ) -> Result<HintPage, StoreError>;

    /// Stages that a hint goes: its target holds the record durably. While the disk is full it stays.
    fn release(&mut self, target: NodeId, shard: Shard, dot: Dot) -> Result<(), StoreError>;

    /// Bytes of hints for `target`, and for all targets together, staged ones included.
    fn hint_bytes(&self, target: NodeId) -> (u64, u64);

    /// The highest counter of `origin` among the committed hints of `shard`, whomever they are for (0: none).
    fn hinted(&mut self, shard: Shard, origin: Origin) -> Result<u64, StoreError>;

    /// Committed hints by target; none is empty.
    fn hint_figures(&self) -> &BTreeMap<NodeId, HintFigures>;

    /// Up to `limit` keys of a bucket in one shard, ascending, after `after` (exclusive), that
    /// start with `prefix`.
    fn list(
        &mut self,
        shard: Shard,
        bucket: &BucketName,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError>;
}
