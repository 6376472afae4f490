//! The one error of this crate: what failed, why, what became of a write, and who said what.
//!
//! Fields, not sentences: [`ErrorKind`] carries need and got, [`Applied`] says whether a failed
//! write can still appear, [`Trace`] lists the attempts and each replica's answer. `Display` is one
//! full line for people. Next to read: `failure.rs`, which makes these from what servers say.

mod words;

use self::words::{Tail, unfit, verb};
use crate::answer::ReplicaAnswer;
use galvani_model::bucket::BucketNameError;
use galvani_model::ids::{NodeId, RequestId, Shard};
use galvani_model::key::KeyError;
use galvani_model::limits::{EMIT_BYTES_MAX, EMITS_MAX};
use galvani_model::request::Quorum;
use galvani_model::span::Span;
use galvani_wire::ReplicaError;
use galvani_wire::failure::QuorumKind;
use galvani_wire::layout::Unfit;
use std::fmt;
use std::time::Duration;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What became of a change (a write, a new bucket) that failed. For reads always `No`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was never stored and never will be seen.
    No,
    /// It may be stored and may spread. Repeating the call loses nothing; repeated under the same
    /// context (or as an `update`) it also leaves no second value for good.
    Maybe {
        /// Replicas known to hold it; there may be more.
        acks: u8,
    },
}

/// One try of a request at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The node's name, or its address while the name is not known.
    pub node: String,
    /// From sending (or starting to connect) to the outcome.
    pub took: Duration,
    /// What came of it, for people.
    pub outcome: String,
}

/// How a request went: its id, its attempts, and what each replica said in the last answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The id all attempts of a write share; `None` for requests that are not writes.
    pub request_id: Option<RequestId>,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// Each replica's part, as the last server that spoke of replicas told it.
    pub answers: Vec<ReplicaAnswer>,
}

/// Why a request failed. See [`ErrorKind`] for the cases and [`Error::applied`] for writes.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    op: &'static str,
    subject: String,
    kind: ErrorKind,
    applied: Applied,
    trace: Trace,
}

impl Error {
    pub(crate) fn new(op: &'static str, subject: impl Into<String>, kind: ErrorKind) -> Error {
        Error(Box::new(Inner {
            op,
            subject: subject.into(),
            kind,
            applied: Applied::No,
            trace: Trace::default(),
        }))
    }

    /// The error of a [`Value`](crate::Value) that does not decode or encode: `what` is wrong.
    pub fn value(what: impl fmt::Display) -> Error {
        let what = what.to_string();
        Error::new("decode", "value", ErrorKind::Value { what })
    }

    pub(crate) fn with_applied(mut self, applied: Applied) -> Error {
        self.0.applied = applied;
        self
    }

    pub(crate) fn with_trace(mut self, trace: Trace) -> Error {
        self.0.trace = trace;
        self
    }

    /// The same cause, told of the call it happened in.
    pub(crate) fn within(mut self, op: &'static str, subject: impl Into<String>) -> Error {
        self.0.op = op;
        self.0.subject = subject.into();
        self
    }

    /// Never less in doubt than `earlier`, a write of the same call.
    pub(crate) fn after_write(mut self, earlier: Applied) -> Error {
        self.0.applied = worse(earlier, self.0.applied);
        self
    }

    /// Why it failed, with need and got.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Whether the write of this call can still appear. `No` for reads.
    pub fn applied(&self) -> Applied {
        self.0.applied
    }

    /// Whether the same call may succeed later without any change to it. A repeated call is a new
    /// logical write: repeat it under the same context (or as an `update`), so that it replaces
    /// what the first may have left.
    pub fn is_retryable(&self) -> bool {
        self.0.kind.is_retryable()
    }

    /// The attempts, and what each replica answered.
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// Which operation failed: `get`, `put`, `delete`, `update`, `connect`, ...
    pub fn operation(&self) -> &'static str {
        self.0.op
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { op, subject, kind, trace, .. } = &*self.0;
        write!(f, "{op}")?;
        if !subject.is_empty() {
            write!(f, " {subject}")?;
        }
        write!(f, ": {kind}")?;
        match trace.request_id {
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { op, subject, kind, applied, trace } = &*self.0;
        f.debug_struct("Error")
            .field("op", op)
            .field("subject", subject)
            .field("kind", kind)
            .field("applied", applied)
            .field("trace", trace)
            .finish()
    }
}

impl std::error::Error for Error {}

/// Why a request failed. More cases may come; unless a case says otherwise it is final and the
/// request must change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Too few replicas answered. For writes see [`Error::applied`]. May succeed later.
    #[error(
        "{what}={need} not reached, {got} of {n} {} in {}{}",
        verb(.what),
        Span(*.after),
        Tail(.detail)
    )]
    Quorum {
        /// Which number was not reached.
        what: QuorumKind,
        /// Answers needed.
        need: u8,
        /// Answers that came.
        got: u8,
        /// Of how many replicas.
        n: u8,
        /// Time since the call began.
        after: Duration,
        /// Who did not do their part, and why.
        detail: String,
    },
    /// Refused before anything was done: too few replicas are reachable. May succeed later.
    #[error("{what}={need} needs {need} of {n} replicas, {up} reachable{}", Tail(.detail))]
    ReplicasDown {
        /// Which number cannot be reached.
        what: QuorumKind,
        /// Replicas needed.
        need: u8,
        /// Replicas reachable.
        up: u8,
        /// Of how many.
        n: u8,
        /// Which are not reachable.
        detail: String,
    },
    /// The number can never be met. Nothing was done.
    #[error("{what}={asked} asks for more copies than exist (n={n})")]
    QuorumTooLarge {
        /// Which number.
        what: QuorumKind,
        /// What was asked.
        asked: Quorum,
        /// Of how many replicas.
        n: u8,
    },
    /// n on the request is zero or above the bucket's. Nothing was done.
    #[error("n={asked} is not between 1 and the bucket's n={n}")]
    TooManyCopies {
        /// What was asked.
        asked: u8,
        /// The bucket's n.
        n: u8,
    },
    /// The deadline passed. For writes see [`Error::applied`]. May succeed later.
    #[error("no answer in {}{}", Span(*.after), Tail(.detail))]
    Timeout {
        /// Time since the call began.
        after: Duration,
        /// Who was asked and did not answer.
        detail: String,
    },
    /// A write carries too many events, or too large ones. Nothing was written.
    #[error(
        "{count} events of {bytes} bytes with one write, the limits are {EMITS_MAX} and {EMIT_BYTES_MAX}"
    )]
    EmitsTooLarge {
        /// Bytes of topics, keys and payloads.
        bytes: u64,
        /// How many events.
        count: u32,
    },
    /// The node does not know this session of the feed any more. A feed opens another by itself.
    #[error("the node has ended this session of the feed")]
    NoSession,
    /// Writes that the feed has not shown are gone: its consumer was away for longer than they are
    /// kept. Begin anew, or go on with [`crate::OnGap::Tell`] or [`crate::OnGap::Restart`].
    #[error("{writes} writes of {shard} that the feed has not shown are not kept any more")]
    FeedGap {
        /// The shard.
        shard: Shard,
        /// How many.
        writes: u64,
    },
    /// The position is of another cluster, or of another question.
    #[error("the position belongs to another {}", if *cluster { "cluster" } else { "filter" })]
    FeedTokenOfAnother {
        /// Whether the cluster is another; else the filter is.
        cluster: bool,
    },
    /// A group's name cannot be one. Nothing was sent.
    #[error("{name:?} is not a group: 1 to 60 of a-z 0-9 . _ - starting with a letter or digit")]
    GroupName {
        /// The text that was refused.
        name: String,
    },
    /// There is no such group. A group is made by its first member.
    #[error("no group {group:?}")]
    UnknownGroup {
        /// The name.
        group: String,
    },
    /// The group follows something else. Join with its filter, or under another name.
    #[error("group {group} follows {follows}, and not {asked}")]
    GroupFollows {
        /// The group.
        group: String,
        /// What it follows.
        follows: String,
        /// What was asked for.
        asked: String,
    },
    /// What the group keeps in the store cannot be read: it was altered, or a newer version wrote it.
    #[error("{key} of the group cannot be read: {why}")]
    GroupDamaged {
        /// The key, in bucket `feed.groups` or that of the dead letters.
        key: String,
        /// Why.
        why: String,
    },
    /// An event was delivered as often as it may be, and the group halts its shard then. Retry its dead
    /// letter, or drop it.
    #[error("event {event} was given up after {attempts} deliveries, and {shard} stands still")]
    GroupHalted {
        /// The shard.
        shard: Shard,
        /// The event.
        event: String,
        /// How often it was delivered.
        attempts: u32,
    },
    /// The node serves as many consumers of the feed as it may. May succeed later.
    #[error("the node serves {limit} consumers of the feed already")]
    TooManySessions {
        /// How many it serves at most.
        limit: u32,
    },
    /// The key has several values and nothing says which to take.
    #[error("{siblings} siblings (concurrent writes) and no resolver")]
    Conflict {
        /// How many values.
        siblings: u32,
    },
    /// No seed answered, or no node of the cluster can be reached. May succeed later.
    #[error("no galvani server reachable: {detail}")]
    Unreachable {
        /// Every address tried, and why it failed.
        detail: String,
    },
    /// The other side is not trusted, or does not trust this client's certificate.
    #[error("not trusted: {detail}")]
    Tls {
        /// What failed, and where.
        detail: String,
    },
    /// There is no identity, or it cannot prove who this client is. Nothing was sent.
    #[error("identity: {what}")]
    Identity {
        /// What is wrong with it.
        what: String,
    },
    /// The connection broke before an answer came. May succeed later.
    #[error("connection lost: {detail}")]
    ConnectionLost {
        /// To whom, and why.
        detail: String,
    },
    /// The node has more work than it takes on. May succeed after the time it names.
    #[error("overloaded, retry after {}", Span(*.retry_after))]
    Overloaded {
        /// When to come again.
        retry_after: Duration,
    },
    /// This client's identity sends more than it may. Nothing was done; comes again after the time
    /// named.
    #[error("rate limited, retry after {}", Span(*.retry_after))]
    RateLimited {
        /// When to come again.
        retry_after: Duration,
    },
    /// No owner of the key is reachable from the nodes that were asked. May succeed later.
    #[error("no owner of the key is reachable")]
    NoOwnerReachable,
    /// The node is stopping and no other took over in time. May succeed later.
    #[error("the node is stopping")]
    Stopping,
    /// The coordinating node could not do its own part. May succeed later.
    #[error("the coordinating node failed: {why}")]
    Coordinator {
        /// What it said.
        why: ReplicaError,
    },
    /// The value is over the limit. Nothing was written.
    #[error("{size} bytes is over the {limit} byte limit")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The key is empty or too long. Nothing was sent.
    #[error("{0}")]
    Key(KeyError),
    /// The bucket's name cannot be one. Nothing was sent.
    #[error("{0}")]
    BucketName(BucketNameError),
    /// No such bucket.
    #[error("no bucket {bucket:?}")]
    UnknownBucket {
        /// The name.
        bucket: String,
    },
    /// The bucket exists with other properties.
    #[error("the bucket exists with other properties")]
    BucketExists,
    /// The bucket's properties do not hold together.
    #[error("the bucket is refused: {why}")]
    BucketRefused {
        /// Why.
        why: String,
    },
    /// Every node must know of a new bucket, and this one is known to be down. Nothing was
    /// defined. May succeed once it is back.
    #[error("node {node} is down, and every node must know of a new bucket")]
    NodeDown {
        /// Its name.
        node: String,
    },
    /// Buckets are made on another node, and the client could not find its way there.
    #[error("buckets are made on node {node}")]
    BucketHome {
        /// Its name.
        node: String,
    },
    /// The context was not made by this cluster, or was altered. Nothing was written.
    #[error("the context was not made by this cluster, or was altered")]
    ContextForged,
    /// The context is of another key. Nothing was written.
    #[error("the context belongs to another key")]
    ContextOtherKey,
    /// The context is too long to be one, or its text is not one. Nothing was written.
    #[error("this is not a context")]
    ContextMalformed,
    /// The key has as many siblings as it may have. Nothing was written; merge them first.
    #[error("{count} siblings are over the limit of {limit}: read, merge and write after the read")]
    TooManySiblings {
        /// How many there would be.
        count: u32,
        /// How many there may be.
        limit: u32,
    },
    /// This machine's clock is too far ahead. Nothing was written; set the clock.
    #[error("this machine's clock is {} ahead of the cluster's", Span(*.ahead))]
    ClockAhead {
        /// By how much.
        ahead: Duration,
    },
    /// This try stored nothing: no owner that was reached can tell whether the write, issued so long
    /// ago, is a retry of one that was replaced since. Or this machine's clock is behind: set it.
    #[error(
        "a write issued {} ago may be a retry of one that was replaced since, and no owner that can \
         tell was reached",
        Span(*.age)
    )]
    RetryTooLate {
        /// How long ago it was issued, by the coordinator's clock.
        age: Duration,
    },
    /// A value cannot live so long, or so shortly. Nothing was written.
    #[error("a ttl of {} is not between 1s and ten years", Span(*.ttl))]
    TtlImpossible {
        /// What was asked.
        ttl: Duration,
    },
    /// The role of this client's certificate does not allow it.
    #[error("the role of this certificate does not allow it")]
    NotPermitted,
    /// The node's configuration does not let anybody set faults on it. Nothing was changed.
    #[error("this node's configuration does not allow faults")]
    FaultsNotAllowed,
    /// Client and server do not understand each other; most likely their versions differ.
    #[error("protocol error: {what}")]
    Protocol {
        /// What was not understood.
        what: String,
    },
    /// A typed value does not decode or encode.
    #[error("{what}")]
    Value {
        /// What is wrong with it.
        what: String,
    },
    /// A setting of the client or of the request is out of its bounds. Nothing was sent.
    #[error("{what}")]
    Setting {
        /// Which, and what it may be.
        what: String,
    },
    /// The key has other owners by now than the request went by: it may be made again.
    #[error("the layout has changed meanwhile")]
    LayoutChanged,
    /// The layout cannot be changed so; nothing was.
    #[error("the layout was not changed: {why}")]
    LayoutRefused {
        /// Why.
        why: String,
    },
    /// A node cannot become a member now; nothing was changed.
    #[error("node {node} cannot become a member now: {}", unfit(*why))]
    JoinerUnfit {
        /// The node.
        node: NodeId,
        /// Why.
        why: Unfit,
    },
    /// The client was closed, or the runtime it lives on is gone.
    #[error("the client is closed")]
    Closed,
}

impl ErrorKind {
    fn is_retryable(&self) -> bool {
        match self {
            ErrorKind::Quorum { .. }
            | ErrorKind::ReplicasDown { .. }
            | ErrorKind::Timeout { .. }
            | ErrorKind::Unreachable { .. }
            | ErrorKind::ConnectionLost { .. }
            | ErrorKind::Overloaded { .. }
            | ErrorKind::RateLimited { .. }
            | ErrorKind::NoOwnerReachable
            | ErrorKind::NodeDown { .. }
            | ErrorKind::Stopping
            | ErrorKind::LayoutChanged
            | ErrorKind::NoSession
            | ErrorKind::TooManySessions { .. }
            | ErrorKind::Coordinator { .. } => true,
            ErrorKind::QuorumTooLarge { .. }
            | ErrorKind::TooManyCopies { .. }
            | ErrorKind::Conflict { .. }
            | ErrorKind::Tls { .. }
            | ErrorKind::Identity { .. }
            | ErrorKind::TooLarge { .. }
            | ErrorKind::EmitsTooLarge { .. }
            | ErrorKind::FeedGap { .. }
            | ErrorKind::FeedTokenOfAnother { .. }
            | ErrorKind::GroupName { .. }
            | ErrorKind::UnknownGroup { .. }
            | ErrorKind::GroupFollows { .. }
            | ErrorKind::GroupDamaged { .. }
            | ErrorKind::GroupHalted { .. }
            | ErrorKind::Key(_)
            | ErrorKind::BucketName(_)
            | ErrorKind::UnknownBucket { .. }
            | ErrorKind::BucketExists
            | ErrorKind::BucketRefused { .. }
            | ErrorKind::BucketHome { .. }
            | ErrorKind::ContextForged
            | ErrorKind::ContextOtherKey
            | ErrorKind::ContextMalformed
            | ErrorKind::TooManySiblings { .. }
            | ErrorKind::ClockAhead { .. }
            | ErrorKind::RetryTooLate { .. }
            | ErrorKind::TtlImpossible { .. }
            | ErrorKind::NotPermitted
            | ErrorKind::FaultsNotAllowed
            | ErrorKind::LayoutRefused { .. }
            | ErrorKind::JoinerUnfit { .. }
            | ErrorKind::Protocol { .. }
            | ErrorKind::Value { .. }
            | ErrorKind::Setting { .. }
            | ErrorKind::Closed => false,
        }
    }
}

/// The greater doubt of the two. Acks are not added up: both may speak of the same replicas.
pub(crate) fn worse(one: Applied, other: Applied) -> Applied {
    match (one, other) {
        (Applied::No, Applied::No) => Applied::No,
        (Applied::Maybe { acks }, Applied::No) | (Applied::No, Applied::Maybe { acks }) => {
            Applied::Maybe { acks }
        }
        (Applied::Maybe { acks: a }, Applied::Maybe { acks: b }) => {
            Applied::Maybe { acks: a.max(b) }
        }
    }
}

#[cfg(test)]
mod tests;
