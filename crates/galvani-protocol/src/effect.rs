//! What goes into a lane and what comes out of it.
//!
//! Nothing here decides anything. Time comes in as [`Now`]; whatever the lane wants done comes
//! out as an [`Effect`]. Next to read: `lane.rs`.

use crate::topology::Topology;
use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::ids::{LaneIndex, NodeId, Partition, Shard};
use galvani_model::placement::LayoutState;
use galvani_wire::Message;
use std::sync::Arc;

/// The time of one tick: a monotonic reading for deadlines, a wall reading for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Microseconds on a clock that never goes back; its zero is the caller's.
    pub micros: u64,
    /// Milliseconds since 1970; may jump.
    pub unix_ms: u64,
}

/// One lane of one node: who a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerLane {
    /// The node.
    pub node: NodeId,
    /// Its lane.
    pub lane: LaneIndex,
}

/// Where the answer to a request goes. Opaque to the lane: the driver knows the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo {
    /// The driver's number of the connection.
    pub link: u64,
    /// The request's id on that connection.
    pub id: u64,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A request arrived, from a client or a peer.
    Request {
        /// Where its answer goes.
        from: ReplyTo,
        /// Whether another node sent it on.
        forwarded: bool,
        /// When it arrived, in the lane's microseconds: what it waited counts against its timeout.
        arrived: u64,
        /// The request.
        message: Message,
    },
    /// The answer to an [`Effect::Ask`] arrived.
    Reply {
        /// The id that was asked with.
        id: u64,
        /// The answer.
        message: Message,
    },
    /// An [`Effect::Ask`] could not be sent.
    Undelivered {
        /// The id that was asked with.
        id: u64,
    },
    /// A peer's lane can be reached from now on.
    PeerUp(PeerLane),
    /// A peer's lane cannot be reached; whatever was asked of it will not be answered.
    PeerDown(PeerLane),
    /// A datagram of a peer arrived. It may be lost, late, doubled; the sender is who its link's
    /// certificate names.
    Datagram {
        /// Whose it is.
        from: PeerLane,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Another lane of this node found out how a node is.
    Liveness {
        /// The node.
        node: NodeId,
        /// Whether it answers.
        alive: bool,
    },
    /// Another lane of this node found out that the node's disk went back to an earlier state, and named
    /// that so.
    WentBack(u128),
    /// Another process served under this node's id, on a disk of its own, and ends: what it acked in
    /// this node's name may not be here. The number names that loss, the same for every lane; the same
    /// one again changes nothing.
    TwinServed(u128),
    /// Buckets or layout have changed.
    Topology(Arc<Topology>),
    /// The node is stopping: take no new requests, finish those under way.
    Stop,
    /// Read every shard of a partition, or of all, through now: an operator asks for it.
    Verify(Option<Partition>),
    /// Time has passed; `next_deadline` may be due.
    Wake,
}

/// One thing the lane wants done, after what it staged is committed.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a request to a peer's lane; its answer comes back as [`Input::Reply`] with this id.
    Ask {
        /// Who is asked.
        to: PeerLane,
        /// The id to ask with.
        id: u64,
        /// Whether this is a client's request sent on.
        forwarded: bool,
        /// The request.
        message: Message,
    },
    /// Answer a request.
    Answer {
        /// Where it came from.
        to: ReplyTo,
        /// The operation it answers, 0 for a replica's answer to a coordinator.
        op: u64,
        /// The answer.
        message: Message,
    },
    /// Send a datagram, if there is a link and it fits. Nobody waits for it.
    Datagram {
        /// Who it is for.
        to: PeerLane,
        /// Its bytes.
        bytes: Bytes,
    },
    /// Tell every other lane of this node, as [`Input::Liveness`].
    Liveness {
        /// The node.
        node: NodeId,
        /// Whether it answers.
        alive: bool,
    },
    /// Tell every other lane of this node, as [`Input::WentBack`].
    WentBack(u128),
    /// The cluster has decided on a layout: write it down, and then let every lane of this node know,
    /// as [`Input::Topology`].
    Adopt(Arc<LayoutState>),
    /// Write down for people that a shard's objects differ from another owner's although both have
    /// taken in the same, or that they do so no more.
    Unequal {
        /// The other owner.
        peer: PeerLane,
        /// The shard.
        shard: Shard,
        /// Whether it was found before and is equal now.
        mended: bool,
    },
    /// Make a bucket known to every lane of this node, durably, before later effects go out.
    DefineBucket {
        /// Its name.
        name: BucketName,
        /// Its properties.
        props: BucketProps,
    },
}
