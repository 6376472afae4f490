//! Messages by which owners keep each other up to date: what they know of each other's writes,
//! anti-entropy, collection of tombstones, and handoff.
//!
//! No client sends them and none waits for them. Next to read: `message.rs`, which lists them;
//! `galvani-protocol/src/sync/`.

use crate::failure::ReplicaError;
use crate::message::Replicate;
use bytes::Bytes;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{LaneIndex, NodeId, Origin, Shard};
use galvani_model::key::Key;
use galvani_model::version::{Digest, Dot, PartitionClock, Record, RecordHead};
use serde::{Deserialize, Serialize};

/// How far each of the sender's own origins got, asked of a peer before they are used again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskKnown {
    /// Shards and origins.
    pub origins: Vec<(Shard, Origin)>,
}

/// The highest counter the answering replica has seen of each origin asked, in order (0: none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The counters.
    pub counters: Vec<u64>,
}

/// What the sender has taken in of some shards that it and the receiver own: the opening of an
/// anti-entropy exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The sender, so that the receiver knows whom to ask for what it lacks itself.
    pub node: NodeId,
    /// The sender's lane.
    pub lane: LaneIndex,
    /// Its shards.
    pub shards: Vec<(Shard, PartitionClock, Digest)>,
}

/// How one shard stands between two owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Comparison {
    /// Equal clocks and equal digests: nothing to do.
    Equal,
    /// Equal clocks, yet different objects: damage, or a bug. Carries the answering replica's digest.
    Unequal(Digest),
    /// Different clocks; this is the answering replica's.
    Differs(PartitionClock),
    /// The answering replica cannot say: it does not serve the shard, or its disk fails.
    Unknown(ReplicaError),
}

/// One [`Comparison`] for each shard of a [`Compare`], in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The comparisons.
    pub shards: Vec<Comparison>,
}

/// Asks an owner of a shard for a part of its objects in the order of their keys: what it adds up
/// to, or what is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskSlice {
    /// The shard.
    pub shard: Shard,
    /// The part begins after this key.
    pub after: Option<Key>,
    /// Whether keys are wanted, and not only what they add up to.
    pub keys: bool,
}

/// A part of an owner's objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceIs {
    /// The part ends with this key; `None`: with the shard.
    pub last: Option<Key>,
    /// The xor of its objects' digests.
    pub digest: Digest,
    /// Objects in it.
    pub rows: u32,
    /// The sender's clock in that instant, if keys were wanted.
    pub clock: Option<PartitionClock>,
    /// Keys with the dots of their live values, if they were wanted.
    pub keys: Vec<(Key, Vec<Dot>)>,
}

/// Asks an owner for records of a shard that the sender has not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// The shard.
    pub shard: Shard,
    /// The dots that are wanted.
    pub wanted: PartitionClock,
    /// Bytes of values that the sender takes at once: its credit. One record more than that may
    /// come, so that a large one comes at all.
    pub credit: u32,
}

/// Records of a shard, ascending per origin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    /// The records without their values.
    pub heads: Vec<RecordHead>,
    /// The last dot that was looked up, whether its record could be read or not.
    pub through: Option<Dot>,
    /// Positions in `heads`, ascending, of values that the sender must not see come to life: what
    /// replaced them was a tombstone, and is collected. They are taken in, and are not live.
    pub hidden: Vec<u16>,
    /// Dots that were asked for, up to `through`, whose records were trimmed: every owner has taken
    /// them in, and nothing needs them any more.
    pub trimmed: PartitionClock,
    /// None of the writes of `trimmed` was issued later, by hybrid time.
    pub trimmed_until: Hlc,
    /// How long whoever gives it wants to be left alone before it is asked for another page, in
    /// milliseconds: clients wait for it.
    pub pause_ms: u16,
    /// The values of `heads`, in the body.
    #[serde(skip)]
    pub values: Vec<Bytes>,
}

impl Pulled {
    /// The records, heads and values put together.
    pub fn into_records(self) -> impl Iterator<Item = Record> {
        self.heads.into_iter().zip(self.values).map(|(head, value)| Record { head, value })
    }
}

/// Asks an owner for its clocks of some shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskClocks {
    /// The sender, an owner of them all.
    pub node: NodeId,
    /// The sender's lane.
    pub lane: LaneIndex,
    /// The shards.
    pub shards: Vec<Shard>,
    /// Whether as they are once they survive power loss: tombstones are collected on the strength of
    /// them. For the feed it is enough that they are what reads are answered from.
    pub durable: bool,
}

/// The clocks asked for, in the order of the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// The epoch of the layout that the answering lane went by when it read them.
    pub epoch: u64,
    /// `None` where the answering replica cannot say.
    pub clocks: Vec<Option<PartitionClock>>,
    /// Of the shards asked about, those of which the answering replica lost something that it had acked.
    pub lacking: Vec<Shard>,
}

/// A record for a node that is no owner to hold until `owner` is back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Whom it is for.
    pub owner: NodeId,
    /// The record; its shard is one that `owner` owns.
    pub record: Replicate,
}

/// Asks a node for the hints it holds for the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullHints {
    /// The sender.
    pub node: NodeId,
    /// The sender's lane: hints of the partitions it serves are wanted.
    pub lane: LaneIndex,
    /// The number of the page that the sender now holds durably, 0 for none: its hints may go.
    pub taken: u64,
    /// Positions in that page of records that the sender could not take in: they are to be kept.
    pub refused: Vec<u16>,
    /// Bytes of records that the sender takes at once.
    pub credit: u32,
}

/// Hints for the node that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintsPulled {
    /// The page's number, for [`PullHints::taken`]; at least 1.
    pub page: u64,
    /// The records' shards, in their order.
    pub shards: Vec<Shard>,
    /// The records. None: there are no more.
    pub records: Pulled,
}

/// Tells an owner that the sender holds hints for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintsWait {
    /// The sender.
    pub node: NodeId,
    /// The sender's lane.
    pub lane: LaneIndex,
}
