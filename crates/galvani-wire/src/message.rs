//! Every message there is. A number names each kind for ever; `docs/protocol.md` has the table.
//!
//! Requests carry an id chosen by the sender of the request; the reply carries it back on the same
//! connection. Values travel in the frame's body, in the order in which the header lists them.
//! Next to read: `codec.rs`.

use crate::failure::{Answer, AppliedOutcome, Failure, ReplicaError};
use crate::feed::{FeedNext, FeedOpen, FeedOpened, FeedPage};
use crate::layout::{
    Accept, AskJoiner, AskProgress, ChangeLayout, JoinerIs, Prepare, Progress, Vote,
};
use crate::repair::{Repair, RepairState};
use crate::twin::{Greeting, Twin};
use crate::view::{ClusterView, LinkFaults, NodeStatus};
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{NodeId, Partition, RequestId, Shard, WriteId};
use galvani_model::key::Key;
use galvani_model::placement::{LayoutState, Member};
use galvani_model::request::{ReadOptions, WriteOptions};
use galvani_model::version::{Dot, DotSet, Emit, Kind, Record, RecordHead, Version};
use serde::{Deserialize, Serialize};

pub use crate::upkeep::{
    AskClocks, AskKnown, AskSlice, Clocks, Compare, Compared, Comparison, Hint, HintsPulled,
    HintsWait, Known, Pull, PullHints, Pulled, SliceIs,
};

/// A client's write: a put, or a delete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// Put, delete, or only events.
    pub kind: Kind,
    /// Events of the application that are written with it.
    pub emits: Vec<Emit>,
    /// Which logical write this is; every retry carries the same.
    pub rid: RequestId,
    /// When the client made it, by its own hybrid clock; every retry carries the same.
    pub issued: Hlc,
    /// Whether an earlier attempt may have reached a coordinator: the other owners are asked for it first.
    pub retry: bool,
    /// What it replaces: the token of a read, or nothing (a blind write).
    pub context: Option<Bytes>,
    /// Quorums.
    pub options: WriteOptions,
    /// Milliseconds left to answer in.
    pub timeout_ms: u32,
    /// The value, in the body.
    #[serde(skip)]
    pub value: Bytes,
}

/// A write was stored as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutDone {
    /// The write's name.
    pub dot: Dot,
    /// A context that covers exactly this write and what it replaced.
    pub context: Bytes,
    /// Versions of the key at the coordinator now, tombstones not counted.
    pub siblings: u32,
    /// What each replica answered so far.
    pub answers: Vec<Answer>,
}

/// A client's read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The key.
    pub key: Key,
    /// Quorums.
    pub options: ReadOptions,
    /// Milliseconds left to answer in.
    pub timeout_ms: u32,
}

/// One version as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sibling {
    /// Its name: the first of its dots.
    pub dot: Dot,
    /// Value or tombstone. A value that has expired by the coordinator's clock is a tombstone.
    pub kind: Kind,
    /// When it was written, by hybrid clock.
    pub hlc: Hlc,
    /// The node that minted it.
    pub author: NodeId,
    /// Length of its value in the body.
    pub value_len: u32,
    /// When the value ends, in milliseconds since 1970; 0: never.
    pub expires_ms: u64,
    /// The value, in the body.
    #[serde(skip)]
    pub value: Bytes,
}

/// A read's answer. No siblings: the key is absent, as r replicas agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetDone {
    /// The versions that nothing seen replaces, tombstones included.
    pub siblings: Vec<Sibling>,
    /// What was seen, to write after.
    pub context: Bytes,
    /// What each replica answered so far.
    pub answers: Vec<Answer>,
}

/// A request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Why.
    pub failure: Failure,
    /// Whether a write can ever appear. `No` for reads.
    pub applied: AppliedOutcome,
    /// What each replica answered so far.
    pub answers: Vec<Answer>,
}

/// One page of a bucket's keys in one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The bucket.
    pub bucket: BucketName,
    /// The partition.
    pub partition: Partition,
    /// Only keys that start with this.
    pub prefix: Bytes,
    /// Only keys after this one.
    pub after: Option<Bytes>,
    /// At most this many.
    pub limit: u16,
    /// Quorums, as for a read.
    pub options: ReadOptions,
    /// Milliseconds left to answer in.
    pub timeout_ms: u32,
}

/// A page of keys that have a value, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The keys and how many values each has.
    pub keys: Vec<(Bytes, u32)>,
    /// Where the next page starts; `None` after the last one.
    pub next_after: Option<Bytes>,
}

/// Makes a bucket. Making it again with the same properties is no change and no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateBucket {
    /// Its name.
    pub name: BucketName,
    /// Its properties.
    pub props: BucketProps,
    /// Milliseconds left to answer in.
    pub timeout_ms: u32,
}

/// Where a key lives and what each replica holds of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The key.
    pub key: Key,
    /// Whether those who may stand in are asked what they hold for its owners.
    pub hints: bool,
    /// Milliseconds left to answer in.
    pub timeout_ms: u32,
}

/// What one replica holds of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// Which node.
    pub node: NodeId,
    /// Its versions, or why it did not say.
    pub versions: Result<Vec<Version>, Answer>,
    /// What it has seen of the key.
    pub seen: DotSet,
}

/// Where a key lives and what each replica holds of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The key's placement hash.
    pub hash: u64,
    /// Its shard.
    pub shard: Shard,
    /// The preference list: owners first, then fallbacks.
    pub preference: Vec<NodeId>,
    /// Each owner's view.
    pub replicas: Vec<ReplicaView>,
    /// The owner that asked the others: a read that takes the same way begins with its copy.
    pub coordinator: NodeId,
    /// What those who may stand in hold of the key, if that was asked.
    pub holders: Vec<HolderView>,
    /// Its clock, in milliseconds since 1970: by it values have expired.
    pub now_ms: u64,
}

/// What one node that may stand in holds of a key for its owners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderView {
    /// Which node.
    pub node: NodeId,
    /// Its hints, or why it did not say.
    pub hints: Result<HintsFound, Answer>,
}

/// Asks a node which hints it holds of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindHints {
    /// The key's shard.
    pub shard: Shard,
    /// The key.
    pub key: Key,
}

/// Hints of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintsFound {
    /// Whom each is for, and its dot.
    pub hints: Vec<(NodeId, Dot)>,
    /// Whether there may be more: so many hints wait that not all were looked at.
    pub more: bool,
}

/// Sets faults between the node that is asked and others: for clusters that are broken on purpose.
/// What is set adds to what was set before; a new loss or delay takes the place of an old one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFaults {
    /// Whether all faults that were set before go first.
    pub heal: bool,
    /// What is set, at most [`FAULT_LINKS_MAX`].
    pub links: Vec<LinkFaults>,
}

/// Most links that one [`SetFaults`] names.
pub const FAULT_LINKS_MAX: usize = 1_024;

/// A record for an owner to take in: replication and repair alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicate {
    /// The shard.
    pub shard: Shard,
    /// The record without its value.
    pub head: RecordHead,
    /// Whether the ack must wait for an fsync.
    pub fsync: bool,
    /// The epoch of the layout that the sender went by.
    pub epoch: u64,
    /// Milliseconds after which the work is not worth doing; 0 for repairs, which always are.
    pub timeout_ms: u32,
    /// The value, in the body.
    #[serde(skip)]
    pub value: Bytes,
}

/// What a replica was found to lack of one key, for it to take in before a read is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// The shard.
    pub shard: Shard,
    /// The records without their values.
    pub heads: Vec<RecordHead>,
    /// The epoch of the layout that the sender went by.
    pub epoch: u64,
    /// Milliseconds after which the work is not worth doing.
    pub timeout_ms: u32,
    /// The values of `heads`, in the body.
    #[serde(skip)]
    pub values: Vec<Bytes>,
}

/// A replica took a record in, or had it already; or all records of a [`Supply`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicated {
    /// Stored (true: fsynced), or why not.
    pub result: Result<bool, ReplicaError>,
}

/// What a replica holds of a key; values only of versions the asker does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The shard.
    pub shard: Shard,
    /// The key.
    pub key: Key,
    /// Whether records are wanted at all.
    pub records: bool,
    /// Live dots the asker holds records of.
    pub have: Vec<Dot>,
    /// The logical writes behind them: of one that was replaced here under another dot (a retry),
    /// that dot's record is wanted too.
    pub shown: Vec<WriteId>,
    /// The epoch of the layout that the sender went by.
    pub epoch: u64,
    /// Milliseconds after which the answer is not worth making.
    pub timeout_ms: u32,
}

/// What a replica holds of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its live versions.
    pub versions: Vec<Version>,
    /// What a reader of it has seen, compressed with its clock in the same instant.
    pub seen: DotSet,
    /// Records the asker lacks: of live dots, and of dots under which a write it shows was replaced.
    /// Their values follow in the body.
    pub heads: Vec<RecordHead>,
    /// The values of `heads`, in the body.
    #[serde(skip)]
    pub values: Vec<Bytes>,
}

impl Held {
    /// The records it carries, heads and values put together.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.heads
            .iter()
            .zip(&self.values)
            .map(|(head, value)| Record { head: head.clone(), value: value.clone() })
    }
}

/// One page of one replica's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchPage {
    /// The shard.
    pub shard: Shard,
    /// The bucket.
    pub bucket: BucketName,
    /// Only keys that start with this.
    pub prefix: Bytes,
    /// Only keys after this one.
    pub after: Option<Bytes>,
    /// At most this many.
    pub limit: u16,
    /// How long an answer is waited for, from its arrival, in milliseconds; 0: as long as it takes.
    pub timeout_ms: u32,
    /// The epoch of the layout that the sender went by.
    pub epoch: u64,
}

/// One replica's page: keys and versions, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPage {
    /// The keys and their live versions.
    pub keys: Vec<(Bytes, Vec<Version>)>,
    /// Whether there may be more after the last one.
    pub more: bool,
}

/// Any message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// See [`Put`].
    Put(Put),
    /// See [`PutDone`].
    PutDone(PutDone),
    /// See [`Get`].
    Get(Get),
    /// See [`GetDone`].
    GetDone(GetDone),
    /// See [`Failed`].
    Failed(Failed),
    /// Asks for the [`ClusterView`].
    Describe,
    /// See [`ClusterView`].
    Described(Box<ClusterView>),
    /// See [`List`].
    List(List),
    /// See [`Page`].
    Listed(Page),
    /// See [`CreateBucket`].
    CreateBucket(CreateBucket),
    /// The bucket exists on every node now.
    BucketCreated,
    /// See [`Explain`].
    Explain(Explain),
    /// See [`Explained`].
    Explained(Explained),
    /// Asks for the [`NodeStatus`].
    Status,
    /// See [`NodeStatus`].
    StatusIs(Box<NodeStatus>),
    /// See [`SetFaults`].
    SetFaults(SetFaults),
    /// All faults that are set on the node now.
    FaultsSet(Vec<LinkFaults>),
    /// See [`Repair`].
    Repair(Repair),
    /// See [`RepairState`].
    RepairState(Box<RepairState>),
    /// See [`FeedOpen`].
    FeedOpen(FeedOpen),
    /// See [`FeedOpened`].
    FeedOpened(FeedOpened),
    /// See [`FeedNext`].
    FeedNext(FeedNext),
    /// See [`FeedPage`].
    FeedPage(FeedPage),
    /// See [`ChangeLayout`].
    ChangeLayout(Box<ChangeLayout>),
    /// The layout after a [`ChangeLayout`], as all nodes will know it.
    LayoutChanged(Box<LayoutState>),
    /// See [`Replicate`].
    Replicate(Replicate),
    /// See [`Supply`].
    Supply(Supply),
    /// See [`Replicated`].
    Replicated(Replicated),
    /// See [`Fetch`].
    Fetch(Fetch),
    /// See [`Held`].
    Fetched(Result<Held, ReplicaError>),
    /// See [`FetchPage`].
    FetchPage(FetchPage),
    /// See [`HeldPage`].
    FetchedPage(Result<HeldPage, ReplicaError>),
    /// Tells a node of a bucket (from the node where buckets are made).
    DefineBucket(CreateBucket),
    /// The node knows the bucket, or why it refuses.
    BucketDefined(Result<(), Failure>),
    /// See [`AskKnown`].
    AskKnown(AskKnown),
    /// See [`Known`].
    Known(Known),
    /// See [`Compare`].
    Compare(Compare),
    /// See [`Compared`].
    Compared(Result<Compared, ReplicaError>),
    /// See [`Pull`].
    Pull(Pull),
    /// See [`Pulled`].
    Pulled(Result<Pulled, ReplicaError>),
    /// See [`AskSlice`].
    AskSlice(AskSlice),
    /// See [`SliceIs`].
    SliceIs(Result<SliceIs, ReplicaError>),
    /// See [`Hint`]; answered with [`Replicated`].
    Hint(Hint),
    /// See [`PullHints`].
    PullHints(PullHints),
    /// See [`HintsPulled`].
    HintsPulled(Result<HintsPulled, ReplicaError>),
    /// See [`HintsWait`].
    HintsWait(HintsWait),
    /// See [`AskClocks`].
    AskClocks(AskClocks),
    /// See [`Clocks`].
    Clocks(Result<Clocks, ReplicaError>),
    /// See [`FindHints`].
    FindHints(FindHints),
    /// See [`HintsFound`].
    HintsFound(Result<HintsFound, ReplicaError>),
    /// See [`Greeting`].
    Greet(Greeting),
    /// See [`Twin`].
    Twin(Twin),
    /// A [`HintsWait`], [`Message::LayoutIs`] or [`Message::Announce`] was heard.
    Noted,
    /// Asks for the layout.
    AskLayout,
    /// What the cluster has decided on: the answer to [`Message::AskLayout`], or news.
    LayoutIs(Box<LayoutState>),
    /// See [`Prepare`].
    Prepare(Prepare),
    /// See [`Accept`].
    Accept(Box<Accept>),
    /// See [`Vote`].
    Voted(Result<Vote, ReplicaError>),
    /// See [`AskProgress`].
    AskProgress(AskProgress),
    /// See [`Progress`].
    Progress(Progress),
    /// A node that is no member tells how it would be one.
    Announce(Box<Member>),
    /// See [`AskJoiner`].
    AskJoiner(AskJoiner),
    /// See [`JoinerIs`].
    JoinerIs(Result<JoinerIs, ReplicaError>),
}
