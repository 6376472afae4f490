//! One lane of one node, driven by hand, and the messages it is fed with.
//!
//! It ticks as the driver does; what the lane asks of others is for the test to answer. Next to
//! read: `requests.rs`, `handoff.rs`.

use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{ClusterId, LaneIndex, NodeId, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::request::{Quorum, ReadOptions, WriteOptions};
use galvani_model::store::{Holdings, OwnOrigin};
use galvani_model::version::{ContextKey, Kind};
use galvani_protocol::{Effect, Input, Lane, LaneConfig, Now, PeerLane, ReplyTo, Topology};
use galvani_storage::engine::MemoryEngine;
use galvani_storage::{MemoryConfig, NodeStore, StoreConfig};
use galvani_wire::Message;
use galvani_wire::failure::{AppliedOutcome, Failure};
use galvani_wire::message::{Failed, Get, HintsPulled, Pulled, Put};
use std::collections::BTreeMap;
use std::sync::Arc;

const NODES: usize = 4;

pub(crate) struct Bench {
    pub(crate) lane: Lane,
    pub(crate) store: NodeStore<MemoryEngine>,
    pub(crate) engine: Arc<MemoryEngine>,
    pub(crate) topology: Arc<Topology>,
    pub(crate) now: Now,
    pub(crate) requests: u64,
    pub(crate) starts: u128,
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(BucketName::default_bucket(), name.to_owned()).expect("a key")
}

impl Bench {
    /// Node 1 of four, three copies, all peers up.
    pub(crate) fn new(limits: Limits) -> Bench {
        Bench::of(NodeId(1), limits)
    }

    /// The same as another node.
    pub(crate) fn of(me: NodeId, limits: Limits) -> Bench {
        Bench::among(me, NODES, limits)
    }

    /// The same as one of so many nodes. A restart brings only the first four back.
    pub(crate) fn among(me: NodeId, nodes: usize, limits: Limits) -> Bench {
        let members = (1..=nodes as u16).map(|id| {
            let address = format!("127.0.0.1:{}", 7000 + id).parse().expect("an address");
            Member::new(NodeId(id.into()), format!("n{id}"), "z", 100, vec![address])
        });
        let members: Vec<Member> = members.collect::<Result<_, _>>().expect("members");
        let layout = Layout::compute(ClusterId(5), 1, 16, 3, members).expect("a layout");
        let topology = Arc::new(Topology::new(
            me,
            "test".into(),
            Arc::new(LayoutState::founding(Arc::new(layout))),
            BTreeMap::from([(BucketName::default_bucket(), BucketProps::with_copies(3))]),
            ContextKey([1; 16]),
        ));
        let engine = Arc::new(MemoryEngine::new());
        let config = StoreConfig {
            lane: LaneIndex(0),
            lanes: 1,
            keep_origins: false,
            memory: MemoryConfig::NONE,
            checkpoint_every: 2,
        };
        let mut store = NodeStore::open(engine.clone(), config).expect("empty").store;
        // It has every vote it ever gave: nobody is asked.
        store.set_fact(b"voter", Some(Bytes::from_static(b"1"))).expect("room");
        store.commit(true).expect("room");
        let config = LaneConfig { lane: LaneIndex(0), limits, always_fsync: false, boot: 7 };
        let lane = Lane::new(config, topology.clone(), []);
        let now = Now { micros: 1_000_000, unix_ms: 1_000_000 };
        let mut bench = Bench { lane, store, engine, topology, now, requests: 0, starts: 0 };
        for node in (1..=nodes as u128).map(NodeId).filter(|&node| node != me) {
            bench.handle(Input::PeerUp(peer(node)));
        }
        bench.nobody_holds_hints();
        bench
    }

    /// Every peer that is asked for hints, a moment after the start, says that it has none.
    fn nobody_holds_hints(&mut self) {
        self.tick();
        self.now.micros += 20_000;
        self.handle(Input::Wake);
        for effect in self.tick() {
            if let Effect::Ask { id, message: Message::PullHints(_), .. } = effect {
                let (page, shards, records) = (1, Vec::new(), Pulled::default());
                let none = HintsPulled { page, shards, records };
                self.handle(Input::Reply { id, message: Message::HintsPulled(Ok(none)) });
            }
        }
        self.tick();
    }

    /// A new process on the same disk, its peers up.
    pub(crate) fn restart(&mut self) {
        self.restart_keeping(None);
    }

    /// The same after a clean stop, which keeps who it minted as in a shard; whom it asks how much they
    /// know of that.
    pub(crate) fn restart_with(&mut self, shard: Shard, own: OwnOrigin) -> Vec<(PeerLane, u64)> {
        let effects = self.restart_keeping(Some((shard, own)));
        let known = |effect: &Effect| match effect {
            Effect::Ask { to, id, message: Message::AskKnown(_), .. } => Some((*to, *id)),
            _ => None,
        };
        effects.iter().filter_map(known).collect()
    }

    fn restart_keeping(&mut self, kept: Option<(Shard, OwnOrigin)>) -> Vec<Effect> {
        let limits = Limits::default();
        self.starts += 1;
        let boot = 7 + self.starts;
        let config = LaneConfig { lane: LaneIndex(0), limits, always_fsync: false, boot };
        self.lane = Lane::new(config, self.topology.clone(), kept);
        let me = self.topology.node;
        for node in (1..=NODES as u128).map(NodeId).filter(|&node| node != me) {
            self.handle(Input::PeerUp(peer(node)));
        }
        self.tick()
    }

    pub(crate) fn handle(&mut self, input: Input) {
        self.lane.handle(input, self.now, &mut self.store);
    }

    pub(crate) fn request(&mut self, forwarded: bool, message: Message) -> ReplyTo {
        self.requests += 1;
        let from = ReplyTo { link: 1, id: self.requests };
        let arrived = self.now.micros;
        self.handle(Input::Request { from, forwarded, arrived, message });
        from
    }

    /// Commits and gives out the effects, as the driver does.
    pub(crate) fn tick(&mut self) -> Vec<Effect> {
        let fsync = self.lane.wants_fsync(self.store.has_staged());
        let committed = self.store.commit(fsync);
        self.lane.end_tick(committed)
    }

    /// A key this node owns, or one it does not.
    pub(crate) fn key(&self, owned: bool) -> Key {
        let mut keys = (0..).map(|number| key(&format!("key-{number}")));
        let fits = |key: &Key| self.topology.is_replica(NodeId(1), self.shard(key)) == owned;
        keys.find(fits).expect("some key fits")
    }

    pub(crate) fn shard(&self, key: &Key) -> Shard {
        self.topology.layout().current().shard_of(key, 3)
    }

    /// The layout after the current one: it has the same members and node 99.
    pub(crate) fn next_layout(&self) -> Arc<Layout> {
        let current = self.topology.layout().current();
        let mut members = current.members().to_vec();
        let address = "127.0.0.1:7999".parse().expect("an address");
        members.push(Member::new(NodeId(99), "n99", "z", 100, vec![address]).expect("a member"));
        Arc::new(current.next(members).expect("there are nodes enough"))
    }

    /// The first phase of the change to it.
    pub(crate) fn copying(&self) -> LayoutState {
        self.topology.layout().begin(self.next_layout()).expect("it follows")
    }

    /// The lane hears that this is decided.
    pub(crate) fn adopt(&mut self, state: LayoutState) {
        let topology = Arc::new(self.topology.with_layout(Arc::new(state)));
        self.topology = topology.clone();
        self.handle(Input::Topology(topology));
        self.tick();
    }

    /// Three epochs on: the layout has these members.
    pub(crate) fn change_to(&mut self, members: Vec<Member>) {
        let current = self.topology.layout().current();
        let next: Arc<Layout> = Arc::new(current.next(members).expect("there are enough"));
        for _ in 0..3 {
            let state = self.topology.layout();
            let state = match state.transition() {
                None => state.begin(next.clone()),
                Some(_) => state.advance(),
            };
            self.adopt(state.expect("it follows"));
        }
    }
}

pub(crate) fn peer(node: NodeId) -> PeerLane {
    PeerLane { node, lane: LaneIndex(0) }
}

pub(crate) fn put(key: Key, rid: u128, w: u8) -> Message {
    Message::Put(Put {
        emits: Vec::new(),
        key,
        kind: Kind::Put,
        rid: RequestId(rid),
        issued: Hlc::from_unix_ms(1_000_000),
        retry: false,
        context: None,
        options: WriteOptions { w: Some(Quorum::Exactly(w)), ..WriteOptions::default() },
        timeout_ms: 2000,
        value: Bytes::from_static(b"v"),
    })
}

/// The same write without stand-ins.
pub(crate) fn strict(message: Message) -> Message {
    let Message::Put(mut put) = message else { panic!("only writes are strict: {message:?}") };
    put.options.strict = true;
    Message::Put(put)
}

pub(crate) fn get(key: Key, r: u8) -> Message {
    let options = ReadOptions { r: Some(Quorum::Exactly(r)), ..ReadOptions::default() };
    Message::Get(Get { key, options, timeout_ms: 2000 })
}

pub(crate) fn answers(effects: &[Effect]) -> Vec<&Message> {
    let mut answers = Vec::new();
    for effect in effects {
        if let Effect::Answer { message, .. } = effect {
            answers.push(message);
        }
    }
    answers
}

pub(crate) fn asks(effects: &[Effect]) -> Vec<(PeerLane, u64)> {
    let ask = |effect: &Effect| match effect {
        Effect::Ask { to, id, .. } => Some((*to, *id)),
        _ => None,
    };
    effects.iter().filter_map(ask).collect()
}

pub(crate) fn failure(effects: &[Effect]) -> (Failure, AppliedOutcome) {
    match answers(effects)[..] {
        [Message::Failed(Failed { failure, applied, .. })] => (failure.clone(), *applied),
        ref other => panic!("one failure expected, got {other:?}"),
    }
}
