//! What travels, where answers go, and everything that can happen next.
//!
//! Plain names and values; nothing here does anything. Next to read: `world.rs`, which routes them.

use bytes::Bytes;
use galvani_wire::Message;

/// A lane of a node, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LaneAt {
    pub(crate) node: usize,
    pub(crate) lane: usize,
}

/// A connection: who asks, who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId {
    pub(crate) asker: LaneAt,
    pub(crate) server: LaneAt,
}

/// An ask of one life of a connection and of its asker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AskRef {
    pub(crate) conn: ConnId,
    pub(crate) epoch: u64,
    pub(crate) asker_boot: u64,
    pub(crate) id: u64,
}

/// A message under way.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// A lane asks a lane.
    Ask { ask: AskRef, forwarded: bool, message: Message },
    /// A lane answers a lane.
    Reply { ask: AskRef, message: Message },
    /// A lane sends a lane a datagram, in one life of a connection.
    Datagram { conn: ConnId, epoch: u64, bytes: Bytes },
    /// A client asks a lane.
    Request { to: LaneAt, boot: u64, call: usize, message: Message },
    /// A consumer of the feed asks a lane.
    Question { to: LaneAt, boot: u64, consumer: usize, ask: u64, message: Message },
    /// A lane, in one life of its node, answers a consumer.
    Told { from: LaneAt, boot: u64, consumer: usize, ask: u64, message: Message },
    /// A lane answers a client.
    Answer { call: usize, message: Message },
}

/// Where the answer to a request goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Route {
    Peer(AskRef),
    Client(usize),
    /// A consumer of the feed, and the number of its question.
    Consumer(usize, u64),
    /// Nobody waits for it: the simulator itself asked.
    Nobody,
}

/// What can happen next.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A lane works on what has arrived.
    Tick { at: LaneAt, boot: u64 },
    /// A slow disk is done with a lane's commit.
    Written { at: LaneAt, boot: u64 },
    /// A message arrives.
    Arrive(Box<Packet>),
    /// A lane notices that a connection is dead, if it still is.
    Detect { conn: ConnId, epoch: u64 },
    /// A lane tries to connect.
    Dial { conn: ConnId, boot: u64 },
    /// A client goes on.
    ClientNext { client: usize },
    /// A client has waited long enough.
    Patience { call: usize },
    /// A consumer of the feed goes on.
    ConsumerNext { consumer: usize },
    /// A consumer has waited long enough.
    ConsumerPatience { consumer: usize, ask: u64 },
    /// A client makes a bucket.
    MakeBucket { bucket: usize },
    /// The next fault.
    Nemesis,
    /// The next clock that goes wrong, or is put right.
    Clocks,
    /// The next node whose links become slow.
    Lag,
    /// A node's links are as usual again.
    Unlag { node: usize, number: u64 },
    /// A client has lost its patience with a write.
    Hurry { write: usize },
    /// Somebody asks for another layout; so many more come after this one.
    ChangeLayout { left: u32 },
    /// A fault that is aimed at a node's going to the next epoch.
    Border { node: usize, boot: u64 },
    /// A lane hears of an epoch later than its node's other lanes.
    Adopt { at: LaneAt, boot: u64 },
    /// Links that were cut work again.
    Heal { pairs: Vec<(usize, usize)> },
    /// A paused node goes on.
    Resume { node: usize, boot: u64 },
    /// A node that is down starts.
    Start { node: usize },
    /// A node that is stopping is down when its operations are over or time is up.
    Stopped { node: usize, boot: u64, until: u64 },
    /// A client comes to a node that was rolled back.
    Probe { node: usize, left: u32 },
    /// A full disk has space again.
    DiskFree { node: usize },
}
