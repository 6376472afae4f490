//! Why a request failed, what became of it, and what each replica said.
//!
//! Each variant carries fields, not sentences: the client and the command line word them. Whether
//! a failed write can ever appear is part of the answer ([`AppliedOutcome`]), never a guess.

use crate::layout::Unfit;
use galvani_model::ids::NodeId;
use galvani_model::request::Quorum;
use serde::{Deserialize, Serialize};

/// Which of a request's numbers was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuorumKind {
    /// Answers of a read.
    R,
    /// Answers of a read from owners.
    Pr,
    /// Acks of a write.
    W,
    /// Acks of a write from owners.
    Pw,
    /// Acks of a write from replicas that fsynced.
    Dw,
}

impl core::fmt::Display for QuorumKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            QuorumKind::R => "r",
            QuorumKind::Pr => "pr",
            QuorumKind::W => "w",
            QuorumKind::Pw => "pw",
            QuorumKind::Dw => "dw",
        })
    }
}

/// Whether a failed write can ever be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppliedOutcome {
    /// It was never stored anywhere and never will be.
    No,
    /// It is on `acks` replicas that said so, perhaps on more, and may spread.
    Maybe {
        /// Replicas that said they stored it.
        acks: u8,
    },
}

/// Why one replica could not do its part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ReplicaError {
    /// Its disk is full.
    #[error("its disk is full")]
    DiskFull,
    /// Its copy of this key is damaged; it is quarantined, and not an answer of absence.
    #[error("its copy is damaged and quarantined")]
    Damaged,
    /// It lost its disk, and has not got back all it had acked of the partition.
    #[error("it lost its disk and is being filled again")]
    Refilling,
    /// Its storage failed.
    #[error("its storage failed")]
    StorageFailed,
    /// It does not own this shard in the layout it knows.
    #[error("it does not own this partition")]
    NotOwner,
    /// The partition has other owners by now than the sender went by.
    #[error("the partition has other owners by now")]
    LayoutChanged,
    /// It does not know the bucket.
    #[error("it does not know the bucket")]
    UnknownBucket,
    /// The deadline had passed when it got to it; nothing was done.
    #[error("the deadline had passed")]
    Expired,
    /// It has more work than it takes on.
    #[error("it is overloaded")]
    Overloaded,
    /// What it was sent does not hold together.
    #[error("it refused a malformed message")]
    Malformed,
    /// Its answer does not fit in one frame.
    #[error("its answer is too large to send")]
    AnswerTooLarge,
    /// It holds as many hints for that owner, or in all, as it may.
    #[error("it holds as many hints as it may")]
    HintsFull,
}

/// What one replica answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Stored, as durable as the node's mode promises.
    Stored,
    /// Stored and fsynced.
    StoredDurably,
    /// Answered a read.
    Answered,
    /// Asked, no answer yet.
    Pending,
    /// Not connected, or the connection broke before it answered.
    Unreachable,
    /// It said why not.
    Refused(ReplicaError),
}

/// One replica's part in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which node.
    pub node: NodeId,
    /// The owner in whose place it was asked, if it is none itself: it holds a hint.
    pub stands_in_for: Option<NodeId>,
    /// What it said.
    pub outcome: Outcome,
    /// Microseconds from the coordinator's asking to its answer (0 if there is none).
    pub micros: u32,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// Too few replicas answered before the deadline, or too many said no.
    QuorumNotMet {
        /// Which number was not reached.
        what: QuorumKind,
        /// How many were needed.
        need: u8,
        /// How many there were.
        got: u8,
        /// Of how many replicas.
        n: u8,
    },
    /// The number can never be met; refused before anything was done.
    QuorumImpossible {
        /// Which number.
        what: QuorumKind,
        /// What was asked.
        asked: Quorum,
        /// Of how many replicas.
        n: u8,
    },
    /// n on the request is zero or above the bucket's n.
    CopiesImpossible {
        /// What was asked.
        asked: u8,
        /// The bucket's n.
        n: u8,
    },
    /// Too few of the replicas are reachable for this write, known before anything was written.
    ReplicasDown {
        /// Which number cannot be reached.
        what: QuorumKind,
        /// How many are needed.
        need: u8,
        /// How many are reachable.
        up: u8,
        /// Of how many replicas.
        n: u8,
    },
    /// No such bucket.
    UnknownBucket,
    /// The bucket exists with other properties.
    BucketExists,
    /// The bucket's properties do not hold together, or its n is above the number of nodes.
    BucketRefused {
        /// Why, as a sentence fragment.
        why: String,
    },
    /// Buckets are made on another node, so that two makers cannot cross.
    BucketHome {
        /// The node to ask.
        node: NodeId,
    },
    /// Every node must know of it, and this one is known to be down; nothing was done.
    MemberDown {
        /// The node that cannot be reached.
        node: NodeId,
    },
    /// There is no such session of the feed here any more: it was idle for too long, the node was
    /// started anew, or a page of it was lost. Nothing is: the consumer opens another.
    NoSession,
    /// A lane serves so many consumers of the feed already.
    TooManySessions {
        /// How many it serves at most.
        limit: u32,
    },
    /// A write carries more events, or larger ones, than it may.
    EmitsTooLarge {
        /// Bytes of them.
        bytes: u64,
        /// How many there are.
        count: u32,
    },
    /// The key has other owners by now than the request went by: it is to be made again.
    LayoutChanged,
    /// The layout was made after another version than the cluster is at; nothing was changed.
    LayoutOutdated {
        /// The version it was made after.
        made_after: u64,
        /// The version the cluster is at.
        version: u64,
    },
    /// The layout is changing; nothing was done.
    LayoutChanging {
        /// The version it is changing to.
        version: u64,
    },
    /// The layout cannot be changed so; nothing was.
    LayoutRefused {
        /// Why, as a sentence fragment.
        why: String,
    },
    /// A node cannot become a member now; nothing was changed.
    JoinerUnfit {
        /// The node.
        node: NodeId,
        /// Why.
        why: Unfit,
    },
    /// The value is over the bucket's limit.
    ValueTooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The context was not made by this cluster, or was altered.
    ContextForged,
    /// The context is of another key.
    ContextOtherKey,
    /// The context is too long to be one.
    ContextTooLong,
    /// The key has as many siblings as it may have, and this write would add one.
    TooManySiblings {
        /// How many there would be.
        count: u32,
        /// How many there may be.
        limit: u32,
    },
    /// The client's clock is too far ahead for a write to be dated by it.
    ClockAhead {
        /// By how many milliseconds.
        ahead_ms: u64,
    },
    /// The write was issued so long ago that it may be a retry of one whose records were trimmed, and
    /// no owner that was reached can tell whether it is.
    RetryTooLate {
        /// How long ago, in milliseconds by the coordinator's clock.
        age_ms: u64,
    },
    /// A value cannot live so long, or so shortly.
    TtlImpossible {
        /// What was asked, in milliseconds.
        ttl_ms: u64,
    },
    /// The node has more requests than it takes on at once.
    Overloaded {
        /// When to come again, in milliseconds.
        retry_after_ms: u32,
    },
    /// The coordinator could not do its own part.
    Coordinator(ReplicaError),
    /// No owner of the key is reachable from the node that was asked.
    NoOwnerReachable,
    /// The deadline passed.
    DeadlinePassed,
    /// The node is stopping.
    Stopping,
    /// The role of this certificate does not allow it.
    NotPermitted,
    /// The node's configuration does not allow faults to be set; nothing was changed.
    FaultsNotAllowed,
    /// The message does not hold together.
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// This client's identity sends more requests than it may; nothing was done.
    RateLimited {
        /// When to come again, in milliseconds.
        retry_after_ms: u32,
    },
}
