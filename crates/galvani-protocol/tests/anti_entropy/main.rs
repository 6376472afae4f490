//! Anti-entropy between two owners by hand: what is shown, what is pulled, what is passed over.
//!
//! Whole clusters under faults are the simulator's; here every message can be looked at.

mod asked;
mod busy;
mod collect;
mod equality;
mod expire;
mod interrupted;
mod mend;
mod refill;
mod trim;

use bytes::Bytes;
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{ClusterId, LaneIndex, NodeId, Origin, RequestId, Shard};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::request::{Quorum, WriteOptions};
use galvani_model::store::{Holdings, Store, StoreError};
use galvani_model::version::{ContextKey, Digest, Dot, Emit, Kind, PartitionClock, Range};
use galvani_protocol::{Effect, Input, Lane, LaneConfig, Now, PeerLane, ReplyTo, Topology};
use galvani_storage::engine::{Corruption, MemoryEngine, Table};
use galvani_storage::format::keys;
use galvani_storage::{MemoryConfig, NodeStore, StoreConfig};
use galvani_wire::Message;
use galvani_wire::failure::ReplicaError;
use galvani_wire::message::{Clocks, Compare, Compared, Comparison, Pull, Pulled, Put};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Two owners of everything, joined by a link that a test may cut.
struct Pair {
    sides: [Side; 2],
    now: Now,
    linked: bool,
    /// Whether what reads ask for is lost on the way.
    deaf: bool,
    /// Shown keys on their way, where they take long: for whom, and the answer.
    late: Option<Vec<(usize, Input)>>,
    /// Every ask and answer that went over the link.
    seen: Vec<Message>,
    /// What each side said of shards that it found unequal: side, shard, whether it is mended.
    told: Vec<(usize, Shard, bool)>,
    rids: u128,
}

struct Side {
    lane: Lane,
    store: NodeStore<MemoryEngine>,
    engine: Arc<MemoryEngine>,
}

const SHARD: Shard = Shard { partition: galvani_model::ids::Partition(0), n: 2 };

fn node(side: usize) -> NodeId {
    NodeId(side as u128 + 1)
}

fn peer(side: usize) -> PeerLane {
    PeerLane { node: node(side), lane: LaneIndex(0) }
}

fn topology(side: usize, partitions: u16) -> Arc<Topology> {
    let members = (1..=2u16).map(|id| {
        let address = format!("127.0.0.1:{}", 7000 + id).parse().expect("an address");
        Member::new(NodeId(id.into()), format!("n{id}"), "z", 100, vec![address])
    });
    let members: Vec<Member> = members.collect::<Result<_, _>>().expect("members");
    let layout = Layout::compute(ClusterId(5), 1, partitions, 2, members).expect("a layout");
    Arc::new(Topology::new(
        node(side),
        "pair".into(),
        Arc::new(LayoutState::founding(Arc::new(layout))),
        BTreeMap::from([(BucketName::default_bucket(), BucketProps::with_copies(2))]),
        ContextKey([1; 16]),
    ))
}

impl Pair {
    fn new() -> Pair {
        Pair::of(1, Limits::default())
    }

    /// Whose stores remember no rows: what a test plants on their disks is met at once.
    fn forgetful() -> Pair {
        Pair::remembering(|side| topology(side, 1), Limits::default(), MemoryConfig::NONE)
    }

    /// Side 1 goes on for so many milliseconds, and is answered nothing but that side 0 has taken this in.
    fn hears_only(&mut self, clock: &PartitionClock, millis: u64) {
        for _ in 0..millis {
            self.now.micros += 1_000;
            self.handle(1, Input::Wake);
            for effect in self.tick(1) {
                let Effect::Ask { id, message: Message::AskClocks(ask), .. } = effect else {
                    continue;
                };
                let clocks = vec![Some(clock.clone()); ask.shards.len()];
                let told = Clocks { epoch: 1, clocks, lacking: Vec::new() };
                self.handle(1, Input::Reply { id, message: Message::Clocks(Ok(told)) });
            }
        }
    }

    fn of(partitions: u16, limits: Limits) -> Pair {
        Pair::with(|side| topology(side, partitions), limits)
    }

    /// With a bucket of one copy beside the default one: of each partition there are two shards.
    fn of_two_shards() -> Pair {
        let two = |side| {
            let mut topology = Topology::clone(&topology(side, 1));
            let other = "other".parse().expect("a name");
            topology.buckets.insert(other, BucketProps::with_copies(1));
            Arc::new(topology)
        };
        Pair::with(two, Limits::default())
    }

    fn with(topology: impl Fn(usize) -> Arc<Topology>, limits: Limits) -> Pair {
        Pair::remembering(topology, limits, MemoryConfig::of_lane(1))
    }

    fn remembering(
        topology: impl Fn(usize) -> Arc<Topology>,
        limits: Limits,
        memory: MemoryConfig,
    ) -> Pair {
        let side = |side: usize| {
            let engine = Arc::new(MemoryEngine::new());
            let config = StoreConfig {
                lane: LaneIndex(0),
                lanes: 1,
                keep_origins: false,
                memory,
                checkpoint_every: 2,
            };
            let mut store = NodeStore::open(engine.clone(), config).expect("empty").store;
            // It has every vote it ever gave: nobody is asked.
            store.set_fact(b"voter", Some(Bytes::from_static(b"1"))).expect("room");
            store.commit(true).expect("room");
            let config = LaneConfig {
                lane: LaneIndex(0),
                limits: limits.clone(),
                always_fsync: false,
                boot: 7 + side as u128,
            };
            Side { lane: Lane::new(config, topology(side), []), store, engine }
        };
        let now = Now { micros: 1_000_000, unix_ms: 1_000_000 };
        Pair {
            sides: [side(0), side(1)],
            now,
            linked: false,
            deaf: false,
            late: None,
            seen: Vec::new(),
            told: Vec::new(),
            rids: 0,
        }
    }

    fn link(&mut self, up: bool) {
        self.linked = up;
        for side in 0..2 {
            let other = peer(1 - side);
            let input = if up { Input::PeerUp(other) } else { Input::PeerDown(other) };
            self.handle(side, input);
        }
        self.flow();
    }

    fn handle(&mut self, side: usize, input: Input) {
        let Side { lane, store, .. } = &mut self.sides[side];
        lane.handle(input, self.now, store);
    }

    fn tick(&mut self, side: usize) -> Vec<Effect> {
        let Side { lane, store, .. } = &mut self.sides[side];
        let committed = store.commit(false);
        lane.end_tick(committed)
    }

    /// Lets every message arrive that is under way, and those that follow from them.
    fn flow(&mut self) {
        loop {
            let mut moved = false;
            for side in 0..2 {
                for effect in self.tick(side) {
                    moved = true;
                    self.deliver(side, effect);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn deliver(&mut self, from: usize, effect: Effect) {
        match effect {
            Effect::Ask { id, .. } if !self.linked => self.handle(from, Input::Undelivered { id }),
            Effect::Ask { message: Message::Fetch(_), .. } if self.deaf => {}
            Effect::Ask { id, forwarded, message, .. } => {
                self.seen.push(message.clone());
                let (from, to) = (ReplyTo { link: 10 + from as u64, id }, 1 - from);
                let arrived = self.now.micros;
                self.handle(to, Input::Request { from, forwarded, arrived, message });
            }
            Effect::Answer { to, message, .. } if to.link >= 10 => {
                self.seen.push(message.clone());
                let shows =
                    matches!(&message, Message::SliceIs(Ok(slice)) if slice.clock.is_some());
                let (to, input) = ((to.link - 10) as usize, Input::Reply { id: to.id, message });
                match &mut self.late {
                    Some(late) if shows => late.push((to, input)),
                    _ => self.handle(to, input),
                }
            }
            Effect::Unequal { peer: other, shard, mended } => {
                assert_eq!(other, peer(1 - from), "it names the other owner");
                self.told.push((from, shard, mended));
            }
            _ => {}
        }
    }

    /// Lets time pass in steps, and everything that is due happen.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now.micros += 1_000;
            for side in 0..2 {
                self.handle(side, Input::Wake);
            }
            self.flow();
        }
    }

    fn put(&mut self, side: usize, name: &str, value: Vec<u8>) {
        self.put_with(side, name, value, Vec::new());
    }

    fn put_with(&mut self, side: usize, name: &str, value: Vec<u8>, emits: Vec<Emit>) {
        self.rids += 1;
        let key = Key::new(BucketName::default_bucket(), name.to_owned()).expect("a key");
        let put = Put {
            emits,
            key,
            kind: Kind::Put,
            rid: RequestId(self.rids),
            issued: Hlc::from_unix_ms(1_000_000),
            retry: false,
            context: None,
            options: WriteOptions { w: Some(Quorum::Exactly(1)), ..WriteOptions::default() },
            timeout_ms: 2000,
            value: Bytes::from(value),
        };
        self.request(side, Message::Put(put));
        self.flow();
    }

    /// Somebody asks one side for something.
    fn request(&mut self, side: usize, message: Message) {
        let (from, arrived) = (ReplyTo { link: 1, id: 0 }, self.now.micros);
        self.handle(side, Input::Request { from, forwarded: false, arrived, message });
    }

    fn clock(&mut self, side: usize) -> PartitionClock {
        self.sides[side].store.replica(SHARD).expect("no damage").clock.clone()
    }

    fn ask(&mut self, side: usize, message: Message) -> Vec<Message> {
        self.request(side, message);
        let answers = self.tick(side).into_iter().filter_map(|effect| match effect {
            Effect::Answer { message, .. } => Some(message),
            _ => None,
        });
        answers.collect()
    }

    fn pages(&self) -> Vec<&Pulled> {
        let page = |message: &'_ Message| matches!(message, Message::Pulled(Ok(_)));
        let pages = self.seen.iter().filter(|message| page(message));
        pages
            .map(|message| match message {
                Message::Pulled(Ok(pulled)) => pulled,
                _ => unreachable!("filtered above"),
            })
            .collect()
    }
}

#[test]
fn a_returning_owner_pulls_exactly_what_it_lacks() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "before", b"v".to_vec());
    pair.link(false);
    for number in 0..50 {
        pair.put(0, &format!("a{number}"), b"a".to_vec());
        pair.put(1, &format!("b{number}"), b"b".to_vec());
    }
    assert_ne!(pair.clock(0), pair.clock(1));
    pair.link(true);
    pair.pass(100);
    assert_eq!(pair.clock(0), pair.clock(1));
    pair.pass(2_000);
    for side in 0..2 {
        assert_eq!(pair.sides[side].lane.counters().records_pulled, 50, "side {side}");
        assert_eq!(pair.sides[side].lane.counters().duplicates, 0, "side {side}");
        assert!(pair.sides[side].lane.is_settled());
    }
}

#[test]
fn what_replication_brings_is_not_pulled_and_rest_is_silent() {
    let mut pair = Pair::new();
    pair.link(true);
    for number in 0..20 {
        pair.put(0, &format!("k{number}"), b"v".to_vec());
    }
    pair.pass(3_000);
    assert!(pair.pages().is_empty(), "nothing was missing");
    let said = pair.seen.len();
    pair.pass(10_000);
    assert_eq!(pair.seen.len(), said, "nothing changed, so nothing is said");
}

#[test]
fn an_ack_that_got_lost_is_made_good_after_the_next_comparison() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.pass(1_000);
    pair.linked = false; // the record is lost, and nobody notices
    pair.put(0, "k", b"v".to_vec());
    pair.linked = true;
    pair.pass(2_500);
    assert_eq!(pair.clock(0), pair.clock(1));
    assert_eq!(pair.sides[1].lane.counters().records_pulled, 1);
}

#[test]
fn a_page_keeps_to_its_credit_and_all_pages_bring_everything() {
    let mut pair = Pair::new();
    for number in 0..100 {
        pair.put(0, &format!("k{number}"), vec![7; 20_000]);
    }
    pair.link(true);
    pair.pass(200);
    assert_eq!(pair.clock(0), pair.clock(1));
    let sizes: Vec<usize> =
        pair.pages().iter().map(|page| page.values.iter().map(Bytes::len).sum()).collect();
    assert!(sizes.len() >= 7, "{sizes:?}");
    assert!(sizes.iter().all(|&size| size <= (256 << 10) + 20_000), "{sizes:?}");
    assert_eq!(pair.sides[1].lane.counters().duplicates, 0, "no record is sent twice");
}

#[test]
fn events_count_against_the_credit_of_a_page_and_each_page_can_be_sent() {
    let mut pair = Pair::new();
    for number in 0..100 {
        let emit = Emit {
            topic: "t".parse().expect("a topic"),
            key: Bytes::new(),
            payload: vec![7; 200_000].into(),
        };
        pair.put_with(0, &format!("k{number}"), b"small".to_vec(), vec![emit]);
    }
    pair.link(true);
    pair.pass(1_000);
    assert_eq!(pair.clock(0), pair.clock(1));
    let pages = pair.pages();
    assert!(pages.len() >= 50, "{} pages", pages.len());
    for page in pages {
        let mut frame = bytes::BytesMut::new();
        let message = Message::Pulled(Ok(page.clone()));
        galvani_wire::encode(1, false, &message, &mut frame).expect("a receiver takes it");
        assert!(frame.len() <= (256 << 10) + 201_000, "{}", frame.len());
    }
}

#[test]
fn a_damaged_record_is_passed_over_and_never_spread() {
    let mut pair = Pair::new();
    for number in 0..10 {
        pair.put(0, &format!("k{number}"), b"v".to_vec());
    }
    let origin = pair.clock(0).ranges().next().expect("writes").origin;
    let damaged = Dot::new(origin, 4);
    let row = keys::log(SHARD, damaged);
    assert!(pair.sides[0].engine.corrupt(Table::Log, &row, Corruption::FlipBit(200)));
    pair.link(true);
    pair.pass(3_000);
    let clock = pair.clock(1);
    assert_eq!(clock.len(), 9);
    assert!(!clock.contains(damaged), "its clock does not run ahead of its data");
    assert!(pair.sides[1].lane.is_settled(), "it does not ask for ever");
}

#[test]
fn a_damaged_row_of_the_receiver_holds_up_no_other_record() {
    let mut pair = Pair::forgetful();
    pair.link(true);
    pair.put(1, "k3", b"old".to_vec());
    pair.link(false);
    for number in 0..10 {
        pair.put(0, &format!("k{number}"), b"v".to_vec());
    }
    let key = Key::new(BucketName::default_bucket(), "k3").expect("a key");
    let row = keys::object(SHARD, &key);
    assert!(pair.sides[1].engine.corrupt(Table::Objects, &row, Corruption::FlipBit(60)));
    pair.link(true);
    pair.pass(30);
    assert!(pair.clock(1).len() >= 10, "all but the write to the damaged key");
    pair.pass(10_000);
    assert_eq!(pair.clock(1).len(), 11, "and that one when the row is mended");
    let pages = pair.pages().len();
    assert!((2..=12).contains(&pages), "it is asked for again, without haste: {pages}");
}

#[test]
fn equal_clocks_with_unequal_digests_are_counted_on_both_sides() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    let clock = pair.clock(1);
    let compare = |digest| {
        let shards = vec![(SHARD, clock.clone(), digest)];
        Message::Compare(Compare { node: node(0), lane: LaneIndex(0), shards })
    };
    let true_digest = pair.sides[1].store.replica(SHARD).expect("no damage").digest;
    let said = pair.ask(1, compare(Digest::default()));
    let unequal = Compared { shards: vec![Comparison::Unequal(true_digest)] };
    assert_eq!(said, [Message::Compared(Ok(unequal))]);
    assert_eq!(pair.sides[1].lane.counters().digests_unequal, 1);
    let said = pair.ask(1, compare(true_digest));
    assert_eq!(said, [Message::Compared(Ok(Compared { shards: vec![Comparison::Equal] }))]);
}

#[test]
fn absurd_clocks_and_strangers_cost_nothing() {
    let mut pair = Pair::new();
    pair.put(1, "k", b"v".to_vec());
    let own = pair.clock(1).ranges().next().expect("a write").origin;
    let all = |origin| Range { origin, first: 1, last: u64::MAX };
    let absurd: PartitionClock = [all(own), all(Origin(9))].into_iter().collect();
    let said = pair.ask(1, Message::Pull(Pull { shard: SHARD, wanted: absurd, credit: u32::MAX }));
    match &said[..] {
        [Message::Pulled(Ok(pulled))] => assert_eq!(pulled.heads.len(), 1),
        other => panic!("one page expected, got {other:?}"),
    }
    let stranger = Compare {
        node: NodeId(77),
        lane: LaneIndex(0),
        shards: vec![(SHARD, PartitionClock::new(), Digest::default())],
    };
    let unknown = Comparison::Unknown(ReplicaError::NotOwner);
    let said = pair.ask(1, Message::Compare(stranger.clone()));
    assert_eq!(said, [Message::Compared(Ok(Compared { shards: vec![unknown] }))]);
    let many = vec![stranger.shards[0].clone(); 257];
    let said = pair.ask(1, Message::Compare(Compare { shards: many, ..stranger }));
    assert_eq!(said, [Message::Compared(Err(ReplicaError::Malformed))]);
}

#[test]
fn peers_know_more_of_me_than_i_do_and_i_take_a_new_incarnation() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.put(0, "k", b"v".to_vec());
    let own = pair.clock(0).ranges().next().expect("a write").origin;
    let ahead: PartitionClock = [Range { origin: own, first: 1, last: 2 }].into_iter().collect();
    let shards = vec![(SHARD, ahead, Digest::default())];
    pair.ask(0, Message::Compare(Compare { node: node(1), lane: LaneIndex(0), shards }));
    pair.put(0, "l", b"v".to_vec());
    assert_eq!(pair.clock(0).ranges().count(), 2, "the next write has another origin");
}

#[test]
fn nothing_of_a_failed_tick_is_shown() {
    let mut pair = Pair::new();
    pair.link(true);
    pair.pass(100);
    pair.put(0, "k", b"v".to_vec());
    pair.now.micros += 5_000_000;
    pair.handle(0, Input::Wake);
    let compares = |effects: &[Effect]| {
        let compare =
            |effect: &&Effect| matches!(effect, Effect::Ask { message: Message::Compare(_), .. });
        effects.iter().filter(compare).count()
    };
    let left = pair.sides[0].lane.end_tick(Err(StoreError::Full));
    assert_eq!(compares(&left), 0);
    assert!(!pair.sides[0].lane.is_settled());
    pair.now.micros += 1_000_000;
    pair.handle(0, Input::Wake);
    assert_eq!(compares(&pair.tick(0)), 1, "it is made again");
    let pull = Pull { shard: SHARD, wanted: PartitionClock::new(), credit: 1 };
    let from = ReplyTo { link: 1, id: 0 };
    pair.handle(
        0,
        Input::Request {
            from,
            forwarded: false,
            arrived: pair.now.micros,
            message: Message::Pull(pull),
        },
    );
    let failed = pair.sides[0].lane.end_tick(Err(StoreError::Full));
    let error = Message::Pulled(Err(ReplicaError::DiskFull));
    assert!(matches!(&failed[..], [Effect::Answer { message, .. }] if *message == error));
}
