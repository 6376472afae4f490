//! Messages of the change feed between a consumer and an owner that serves it (the gateway).
//!
//! A consumer opens a session with one lane, for shards that the lane serves, and asks for one page
//! after the other: nothing is sent unasked, so a slow consumer costs the gateway a few positions in
//! memory. The consumer keeps its position itself; a session that is lost is opened again, here or
//! with another owner. Next to read: `galvani-protocol/src/feed/`; `docs/protocol.md`.

use bytes::Bytes;
use galvani_model::feed::{Cursor, Filter};
use galvani_model::ids::{NodeId, Shard};
use galvani_model::version::{Dot, Kind, PartitionClock, RecordHead};
use serde::{Deserialize, Serialize};

/// Where a consumer begins in a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begin {
    /// After what it is done with; the empty position is the beginning of what is kept.
    At(Cursor),
    /// After what the gateway has taken in when the session is opened.
    Now,
}

/// Opens a session: the feed of some shards, all served by the lane that is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedOpen {
    /// What is shown.
    pub filter: Filter,
    /// The shards, and where in each to begin. At most [`FEED_SHARDS_MAX`].
    pub shards: Vec<(Shard, Begin)>,
    /// Milliseconds left to answer in.
    pub timeout_ms: u32,
}

/// A session is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedOpened {
    /// Its number.
    pub session: u64,
    /// Where each shard begins, in the order they were asked for; `None` where that was said.
    pub began: Vec<Option<Cursor>>,
    /// Shards that were asked for and are not served here: their owners, or the layout, changed.
    pub elsewhere: Vec<Shard>,
}

/// Asks for the next page of a session. It is answered when there is one, or after `wait_ms` with an
/// empty one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedNext {
    /// The session.
    pub session: u64,
    /// How many pages of it have come so far: a session whose consumer lost one is not gone on with.
    pub page: u64,
    /// Bytes of events that the consumer takes at once: its credit. One event more than that may
    /// come, so that a large one comes at all.
    pub credit: u32,
    /// How long to wait for something new, in milliseconds.
    pub wait_ms: u32,
    /// Whether the consumer only gives its session up.
    pub close: bool,
}

/// A value that an event's write replaced where it was minted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldValue {
    /// The write that stored it.
    pub dot: Dot,
    /// What that write was; `None`: the log has it no more.
    pub kind: Option<Kind>,
    /// Bytes of it in the body.
    pub len: u32,
}

/// One write, as the feed shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEvent {
    /// Which of the page's shards it is in.
    pub shard: u16,
    /// The record without its value. Of the application's events, only those asked for.
    pub head: RecordHead,
    /// Whether it comes after something that replaces it.
    pub late: bool,
    /// Another name under which the same logical write was delivered before: it was retried through
    /// another coordinator.
    pub dup_of: Option<Dot>,
    /// Whether the value is in the body.
    pub carries: bool,
    /// The values it replaced, in the body after it, where the bucket shows them.
    pub old: Vec<OldValue>,
    /// The value and the old values, in the body.
    #[serde(skip)]
    pub values: Vec<Bytes>,
}

/// How far a page brings a consumer in one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// The shard.
    pub shard: Shard,
    /// Writes it is done with when it has seen the page's events: those of the
    /// events, and those that it did not ask for.
    pub done: PartitionClock,
    /// Writes that are overdue from then on.
    pub owed: PartitionClock,
    /// Of `done`: writes that no owner has any more, and that the consumer has not seen. All of them
    /// were replaced, by writes that still come or by deletions that may not.
    pub gone: PartitionClock,
}

/// How a session stands after a page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedState {
    /// Writes taken in by the gateway and not delivered yet.
    pub behind: u64,
    /// Hybrid time of the oldest of them that was looked at, as milliseconds since 1970.
    pub oldest_ms: Option<u64>,
    /// Writes that wait for one they replace, or for more owners to have them.
    pub held: u64,
    /// Writes whose record cannot be read here now.
    pub unreadable: u64,
    /// Every write that was acknowledged before this moment of the gateway's clock, by as many owners
    /// as its bucket asks for, is delivered; milliseconds since 1970, 0: not known yet.
    pub complete_through_ms: u64,
    /// Owners that were asked for their clocks and did not answer: why that moment stands still.
    pub unheard: Vec<NodeId>,
    /// The gateway's clock, in milliseconds since 1970.
    pub now_ms: u64,
}

/// Events of a session, in the order in which they are to be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedPage {
    /// The session.
    pub session: u64,
    /// The events. Their values are in the body.
    pub events: Vec<FeedEvent>,
    /// How far it brings the consumer, shard by shard; events point into it.
    pub advances: Vec<Advance>,
    /// How the session stands.
    pub state: FeedState,
}

/// Most shards of one session: all partitions a cluster can have, for one n.
pub const FEED_SHARDS_MAX: usize = galvani_model::limits::PARTITIONS_MAX as usize;
