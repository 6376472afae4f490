//! Lanes driven by hand, without transport: what the machines and the store cost by themselves.
//!
//! A [`DrivenLane`] ticks as the node's loop does: inputs, `Wake`, one commit, effects. Three of
//! them make a [`Trio`], which carries messages from one to the other as values, neither encoded
//! nor sent, unless it is given a [`Wire`]. Time hardly moves in it: nothing of the background becomes due.

use bytes::{Bytes, BytesMut};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{ClusterId, LaneIndex, NodeId, RequestId, Shard};
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::version::{ContextKey, Kind};
use galvani_protocol::{Effect, Input, Lane, LaneConfig, Now, PeerLane, ReplyTo, Topology};
use galvani_storage::engine::Engine;
use galvani_storage::{NodeStore, StoreConfig};
use galvani_wire::Message;
use galvani_wire::codec::{Frame, encode};
use galvani_wire::message::{Get, Put};
use std::collections::BTreeMap;
use std::sync::Arc;

const NODES: usize = 3;
/// The link that clients come by; the others are nodes.
const CLIENT: u64 = 99;
const START_MS: u64 = 1_000_000;

/// One lane with its store.
pub struct DrivenLane<E: Engine> {
    lane: Lane,
    store: NodeStore<E>,
    now: Now,
    requests: u64,
}

impl<E: Engine> DrivenLane<E> {
    /// The only lane of node `node` (1 to 3) of three that hold every key, its peers up.
    pub fn new(node: u16, engine: E) -> DrivenLane<E> {
        let topology = Topology::new(
            NodeId(node.into()),
            format!("n{node}"),
            Arc::new(LayoutState::founding(Arc::new(layout()))),
            BTreeMap::from([(BucketName::default_bucket(), BucketProps::with_copies(3))]),
            ContextKey([1; 16]),
        );
        let config = StoreConfig::of_lane(LaneIndex(0), 1, false);
        let store = NodeStore::open(Arc::new(engine), config).expect("an empty store").store;
        let limits = Limits::default();
        let boot = u128::from(node) << 64 | 7;
        let config = LaneConfig { lane: LaneIndex(0), limits, always_fsync: false, boot };
        let lane = Lane::new(config, Arc::new(topology), []);
        let now = Now { micros: 1_000_000, unix_ms: START_MS };
        let mut driven = DrivenLane { lane, store, now, requests: 0 };
        for peer in (1..=NODES as u16).filter(|peer| *peer != node) {
            let peer = PeerLane { node: NodeId(peer.into()), lane: LaneIndex(0) };
            driven.handle(Input::PeerUp(peer));
        }
        driven.tick();
        driven
    }

    /// Gives the lane one input.
    pub fn handle(&mut self, input: Input) {
        self.lane.handle(input, self.now, &mut self.store);
    }

    /// Gives the lane a request that came by `link` with the id `id`.
    pub fn request(&mut self, from: ReplyTo, message: Message) {
        let arrived = self.now.micros;
        self.handle(Input::Request { from, forwarded: false, arrived, message });
    }

    /// Ends the tick as the node's loop does, and returns what may go out.
    pub fn tick(&mut self) -> Vec<Effect> {
        self.handle(Input::Wake);
        let fsync = self.lane.wants_fsync(self.store.has_staged());
        let committed = self.store.commit(fsync);
        self.now.micros += 1;
        self.lane.end_tick(committed)
    }

    /// A client's request and the tick it comes in; returns what the lane asks of the others.
    pub fn client_tick(&mut self, message: Message) -> Vec<Effect> {
        self.requests += 1;
        let from = ReplyTo { link: CLIENT, id: self.requests };
        self.request(from, message);
        self.tick()
    }
}

/// Encodes what travels between nodes, decodes it again and counts its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// Whether reads ask the other owners for records that the coordinator has itself.
    pub bodies: bool,
    /// Bytes that travelled so far.
    pub bytes: u64,
}

impl Wire {
    fn carry(&mut self, mut message: Message) -> Message {
        if let Message::Fetch(fetch) = &mut message
            && self.bodies
        {
            fetch.have.clear();
            fetch.shown.clear();
            fetch.records = true;
        }
        let mut frame = BytesMut::new();
        encode(1, false, &message, &mut frame).expect("a small header");
        self.bytes += frame.len() as u64;
        Frame::decode(frame.freeze()).expect("a frame of ours").message
    }
}

/// Three lanes of three nodes.
pub struct Trio<E: Engine> {
    lanes: Vec<DrivenLane<E>>,
    /// How messages travel between them; `None`: as they are.
    pub wire: Option<Wire>,
}

impl<E: Engine> Trio<E> {
    /// Three nodes with these engines.
    pub fn new(engines: [E; 3]) -> Trio<E> {
        let nodes = (1..).zip(engines);
        let lanes = nodes.map(|(node, e)| DrivenLane::new(node, e)).collect();
        let mut trio = Trio { lanes, wire: None };
        // What nodes ask each other after a start is answered before anything is measured.
        trio.lanes.iter_mut().for_each(|lane| lane.now.micros += 20_000);
        for node in 0..NODES {
            let effects = trio.lanes[node].tick();
            trio.deliver(node, effects);
        }
        trio
    }

    /// Carries out a client's request at node 1, all that follows from it included, and returns
    /// the answer.
    pub fn run(&mut self, message: Message) -> Message {
        let effects = self.lanes[0].client_tick(message);
        self.deliver(0, effects).expect("an answer to the client")
    }

    fn carry(&mut self, message: Message) -> Message {
        match &mut self.wire {
            Some(wire) => wire.carry(message),
            None => message,
        }
    }

    /// Takes what node `from` (counted from 0) said to those it is for, tick by tick, until
    /// nobody says any more. Returns the first answer to a client.
    fn deliver(&mut self, from: usize, effects: Vec<Effect>) -> Option<Message> {
        let mut answer = None;
        let mut said = vec![(from, effects)];
        while !said.is_empty() {
            let mut told = [false; NODES];
            for (from, effects) in core::mem::take(&mut said) {
                for effect in effects {
                    match effect {
                        Effect::Ask { to, id, message, .. } => {
                            let at = to.node.0 as usize - 1;
                            let message = self.carry(message);
                            let from = ReplyTo { link: from as u64, id };
                            self.lanes[at].request(from, message);
                            told[at] = true;
                        }
                        Effect::Answer { to: ReplyTo { link: CLIENT, .. }, message, .. } => {
                            answer.get_or_insert(message);
                        }
                        Effect::Answer { to, message, .. } => {
                            let at = to.link as usize;
                            let message = self.carry(message);
                            self.lanes[at].handle(Input::Reply { id: to.id, message });
                            told[at] = true;
                        }
                        Effect::Datagram { .. }
                        | Effect::Liveness { .. }
                        | Effect::WentBack(_)
                        | Effect::Adopt(_)
                        | Effect::Unequal { .. }
                        | Effect::DefineBucket { .. } => {}
                    }
                }
            }
            for at in (0..NODES).filter(|at| told[*at]) {
                said.push((at, self.lanes[at].tick()));
            }
        }
        answer
    }
}

/// A client's put of key number `number` at w=2, blind, with a value of 1 KiB.
pub fn put(number: u64) -> Message {
    put_of(number, Bytes::from_static(&[b'x'; 1024]))
}

/// The same with another value.
pub fn put_of(number: u64, value: Bytes) -> Message {
    Message::Put(Put {
        key: crate::key(number),
        kind: Kind::Put,
        emits: Vec::new(),
        rid: RequestId(u128::from(number) << 32 | 1),
        issued: Hlc::from_unix_ms(START_MS),
        retry: false,
        context: None,
        options: WriteOptions { w: Some(Quorum::Exactly(2)), ..WriteOptions::default() },
        timeout_ms: 2000,
        value,
    })
}

/// A client's get of key number `number` at r=2.
pub fn get(number: u64) -> Message {
    let options = ReadOptions { r: Some(Quorum::Exactly(2)), ..ReadOptions::default() };
    Message::Get(Get { key: crate::key(number), options, timeout_ms: 2000 })
}

/// The shard of key number `number`.
pub fn shard_of(number: u64) -> Shard {
    layout().shard_of(&crate::key(number), 3)
}

fn layout() -> Layout {
    let member = |id: u16| {
        let address = format!("127.0.0.1:{}", 7000 + id).parse().expect("an address");
        Member::new(NodeId(id.into()), format!("n{id}"), "z", 100, vec![address])
    };
    let members: Result<Vec<Member>, _> = (1..=NODES as u16).map(member).collect();
    Layout::compute(ClusterId(5), 1, 16, 3, members.expect("members")).expect("a layout")
}

#[cfg(test)]
mod tests {
    use super::{Trio, Wire, get, put};
    use galvani_storage::engine::MemoryEngine;
    use galvani_wire::Message;

    #[test]
    fn a_trio_stores_and_shows_without_a_network() {
        let mut trio = Trio::new([(); 3].map(|()| MemoryEngine::new()));
        let stored = trio.run(put(1));
        assert!(matches!(&stored, Message::PutDone(done) if done.siblings == 1), "{stored:?}");
        let shown = trio.run(get(1));
        let Message::GetDone(done) = shown else { panic!("not read: {shown:?}") };
        assert_eq!(done.siblings.len(), 1);
        assert_eq!(done.siblings[0].value.len(), 1024);
        assert!(done.answers.len() >= 2, "a quorum of 2: {:?}", done.answers);
    }

    #[test]
    fn bodies_from_everybody_are_the_same_answer_and_more_bytes() {
        let mut trio = Trio::new([(); 3].map(|()| MemoryEngine::new()));
        trio.run(put(1));
        let mut read = |bodies| {
            trio.wire = Some(Wire { bodies, bytes: 0 });
            let Message::GetDone(done) = trio.run(get(1)) else { panic!("a read") };
            (done.siblings, trio.wire.expect("just set").bytes)
        };
        let ((plain, few), (full, many)) = (read(false), read(true));
        assert_eq!(plain, full);
        assert_eq!(plain[0].value.len(), 1024);
        assert!(few < 1024 && many >= few + 2 * 1024, "{few} and {many} bytes");
    }
}
