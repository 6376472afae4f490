//! What a consumer of the feed is shown.
//!
//! One [`Event`] for each write, for each event of the application, and now and then a word on how far
//! the feed is. Nothing here talks to a node. Next to read: `stream.rs`, `follower.rs`.

use crate::answer::unpinned;
use crate::directory::Directory;
use bytes::Bytes;
use galvani_model::bucket::BucketName;
use galvani_model::hlc::Hlc;
use galvani_model::ids::{RequestId, Shard};
use galvani_model::topic::Topic;
use galvani_model::version::{Dot, Kind, PartitionClock, Record};
use galvani_wire::feed::FeedEvent;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One thing that a feed tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A key was written.
    Changed(Change),
    /// The application's own event, stored with a write.
    Emitted(Emitted),
    /// A whole record, for those that asked for records.
    Record(ShownRecord),
    /// Writes that no node has any more and that this consumer has not seen. Nothing is left out
    /// without this.
    Gap(Gap),
    /// How far the feed is. Sent at least every few seconds, also when nothing happens.
    Checkpoint(Checkpoint),
}

/// The name of an event, the same whenever and wherever it is delivered: what a consumer needs to see
/// that it has had an event before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventId {
    /// A write, by its dot.
    Write(Dot),
    /// The event of the application at this place of a write's list. A write that was retried has one
    /// request id and may have several dots, so it is named by the former.
    Emit(RequestId, u16),
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventId::Write(dot) => write!(f, "{}.{}", dot.origin, dot.counter),
            EventId::Emit(request, index) => write!(f, "{request}#{index}"),
        }
    }
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Stored a value.
    Put,
    /// Deleted the key.
    Delete,
    /// Stored a value in the place of two or more siblings.
    Resolve,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Put => "put",
            Op::Delete => "delete",
            Op::Resolve => "resolve",
        })
    }
}

/// Where an event comes from: what all kinds of events have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Source {
    /// The shard whose feed it is in. Events of one key are always in one shard.
    pub shard: Shard,
    /// The write, by its dot.
    pub dot: Dot,
    /// The key's bucket.
    pub bucket: BucketName,
    /// The key that was written.
    pub key: Bytes,
    /// When it was written, by hybrid time.
    pub hlc: Hlc,
    /// The node that named the write.
    pub node: String,
    /// Which logical write it is.
    pub request_id: RequestId,
    /// Whether it comes after something that replaces it: the only case in which events of one key are
    /// out of order.
    pub late: bool,
    /// The write's other name, under which it was delivered before: it was retried through another
    /// coordinator. A consumer that has dealt with that one may pass over this.
    pub dup_of: Option<Dot>,
}

impl Source {
    /// When it was written, as far as the writer's clock was right.
    pub fn written_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.hlc.unix_ms())
    }
}

/// A key was written.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// Where it comes from.
    pub source: Source,
    /// What the write did.
    pub op: Op,
    /// The new value. `None`: deleted, or the bucket's feed (or the consumer) keeps values out.
    pub value: Option<Bytes>,
    /// When the value expires.
    pub expires_at: Option<SystemTime>,
    /// The writes that it replaced, as the coordinator saw it.
    pub supersedes: Vec<Dot>,
    /// The values that stayed beside it, as the coordinator saw it: not empty means siblings.
    pub concurrent: Vec<Dot>,
    /// The values that it replaced, where the bucket's feed shows them.
    pub old: Vec<Old>,
}

impl Change {
    /// Its name.
    pub fn id(&self) -> EventId {
        EventId::Write(self.source.dot)
    }
}

/// A value that was replaced.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Old {
    /// The write that stored it.
    pub dot: Dot,
    /// What that write was, with its value if it had one; `None`: the log has it no more.
    pub value: Option<Option<Bytes>>,
}

/// An event of the application.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Emitted {
    /// The write it was stored with.
    pub source: Source,
    /// Its place in that write's list.
    pub index: u16,
    /// What it is about.
    pub topic: Topic,
    /// The application's key for it; empty for none.
    pub key: Bytes,
    /// The event.
    pub payload: Bytes,
}

impl Emitted {
    /// Its name: the same for every retry of the write.
    pub fn id(&self) -> EventId {
        EventId::Emit(self.source.request_id, self.index)
    }
}

/// A whole record.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ShownRecord {
    /// Its shard.
    pub shard: Shard,
    /// The record.
    pub record: Record,
    /// Whether it comes after something that replaces it.
    pub late: bool,
}

/// Writes that are gone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Gap {
    /// The shard.
    pub shard: Shard,
    /// The writes. Each was replaced by another, which may be gone as well if it was a deletion.
    pub gone: PartitionClock,
}

/// How far a feed is.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Writes that the nodes have taken in and that are not delivered yet.
    pub behind: u64,
    /// How old the oldest of them is.
    pub lag: Duration,
    /// Writes that wait for one they replace, or for more owners to have them.
    pub held: u64,
    /// Writes whose record cannot be read now where it is looked for.
    pub unreadable: u64,
    /// Every write that was acknowledged before this moment has been delivered; `None`: not known yet.
    pub complete_through: Option<SystemTime>,
    /// Names of the nodes that keep it from being later.
    pub unheard: Vec<String>,
    /// Shards that no node can be found for now, so that nothing of them comes.
    pub unserved: Vec<Shard>,
}

/// The events in what a gateway sent, in their order.
pub(crate) fn events_of(
    shard: Shard,
    event: FeedEvent,
    shows: &galvani_model::feed::Shows,
    directory: &Directory,
    out: &mut Vec<Event>,
) {
    use galvani_model::feed::Shows;
    let FeedEvent { shard: _, head, late, dup_of, carries, old, values } = event;
    let mut values = values.into_iter();
    let value = carries.then(|| values.next()).flatten();
    if *shows == Shows::Records {
        let record = Record { head, value: value.unwrap_or_default() };
        out.push(Event::Record(ShownRecord { shard, record, late }));
        return;
    }
    let source = Source {
        shard,
        dot: head.dot,
        bucket: head.key.bucket().clone(),
        key: head.key.bytes().clone(),
        hlc: head.hlc,
        node: directory.name_of(head.author),
        request_id: head.rid,
        late,
        dup_of,
    };
    if let Shows::Topics(topics) = shows {
        for (index, emit) in head.emits.into_iter().enumerate() {
            if topics.is_empty() || topics.contains(&emit.topic) {
                out.push(Event::Emitted(Emitted {
                    source: source.clone(),
                    index: index as u16,
                    topic: emit.topic,
                    key: emit.key,
                    payload: emit.payload,
                }));
            }
        }
        return;
    }
    let old = old.into_iter().zip(values).map(|(old, bytes)| Old {
        dot: old.dot,
        value: old.kind.map(|kind| (kind == Kind::Put).then(|| unpinned(bytes))),
    });
    out.push(Event::Changed(Change {
        source,
        op: match head.kind {
            Kind::Delete => Op::Delete,
            Kind::Put | Kind::Emit if head.supersedes.len() > 1 => Op::Resolve,
            Kind::Put | Kind::Emit => Op::Put,
        },
        value: value.filter(|_| head.kind == Kind::Put).map(unpinned),
        expires_at: (head.expires_ms > 0)
            .then(|| UNIX_EPOCH + Duration::from_millis(head.expires_ms)),
        supersedes: head.supersedes.to_vec(),
        concurrent: head.concurrent.to_vec(),
        old: old.collect(),
    }));
}
