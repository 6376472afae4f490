//! The driver by hand, over the engine in memory: ticks end in time, and what cannot be sent or was
//! not written down is told as that.
//!
//! Whole nodes are in `tests/three_nodes.rs` and in `cluster-tests`.

use super::twins::ENDS_MICROS;
use super::{LaneLoop, TICK_BYTES_MAX, Twins, class_of, is_bucket_ask, unsendable, without_bucket};
use crate::client_rates::ClientRates;
use crate::clock::Clock;
use crate::config::DurabilityMode;
use crate::faults::{self, NodeFaults};
use crate::figures;
use crate::links::Links;
use crate::shared::{Control, Shared};
use bytes::{Bytes, BytesMut};
use galvani_model::bucket::{BucketName, BucketProps};
use galvani_model::hlc::Hlc;
use galvani_model::ids::{
    BootId, ClusterId, LaneIndex, NodeId, Origin, Partition, RequestId, Shard,
};
use galvani_model::key::Key;
use galvani_model::limits::Limits;
use galvani_model::placement::{Layout, LayoutState, Member};
use galvani_model::request::{Quorum, ReadOptions};
use galvani_model::version::{
    ContextKey, Dot, DotSet, Kind, PartitionClock, Range, RecordHead, value_hash,
};
use galvani_protocol::{Effect, Input, Lane, LaneConfig, Now, PeerLane, ReplyTo, Topology};
use galvani_storage::engine::{Engine, FailKind, MemoryEngine};
use galvani_storage::{MemoryConfig, NodeStore, StoreConfig};
use galvani_transport::pki::ClusterCa;
use galvani_transport::{
    Class, Config, Event, LaneEndpoint, LinkId, Network, PeerIdentity, Role, TransportKeys,
};
use galvani_wire::Message;
use galvani_wire::codec::encode;
use galvani_wire::failure::{Answer, AppliedOutcome, Failure, Outcome, ReplicaError};
use galvani_wire::message::{
    AskSlice, CreateBucket, Failed, FetchPage, Get, Page, Pull, PutDone, Replicate, SetFaults,
};
use galvani_wire::twin::{Greeting, Twin};
use galvani_wire::view::LinkFaults;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

struct Bench {
    lane: LaneLoop<MemoryEngine>,
    engine: Arc<MemoryEngine>,
    /// A link that node 2 has dialed, as the lane sees it.
    link: LinkId,
}

/// The only lane of node 1, with node 2 linked to it. Call it inside a runtime.
fn bench() -> Bench {
    bench_with(Limits::default())
}

fn bench_with(limits: Limits) -> Bench {
    let members = (1..=3u16).map(|id| {
        let address = format!("127.0.0.1:{}", 7000 + id).parse().expect("an address");
        Member::new(NodeId(id.into()), format!("n{id}"), "z", 100, vec![address]).expect("a member")
    });
    let layout = Layout::compute(ClusterId(5), 1, 16, 3, members.collect()).expect("a layout");
    let topology = Topology::new(
        NodeId(1),
        "test".into(),
        Arc::new(LayoutState::founding(Arc::new(layout))),
        BTreeMap::from([(BucketName::default_bucket(), BucketProps::with_copies(3))]),
        ContextKey([1; 16]),
    );
    let me = PeerLane { node: NodeId(1), lane: LaneIndex(0) };
    let member = topology.layout().member(me.node).expect("one of the three").clone();
    let links = Links::new(topology.layout().members(), me, 1);
    let engine = Arc::new(MemoryEngine::new());
    let shared = Arc::new(Shared::new(engine.clone(), topology, 1));
    let config = StoreConfig {
        lane: me.lane,
        lanes: 1,
        keep_origins: false,
        memory: MemoryConfig::of_lane(1),
        checkpoint_every: 2,
    };
    let store = NodeStore::open(engine.clone(), config).expect("empty").store;
    let rates = ClientRates::new(&limits);
    let config = LaneConfig { lane: me.lane, limits, always_fsync: false, boot: 7 };
    let ca = ClusterCa::create("abcd").expect("an authority");
    let identity = ca.issue_node(&format!("{:032x}", 1), &[]).expect("an identity");
    let keys = TransportKeys::generate().expect("keys");
    let any = "127.0.0.1:0".parse().expect("an address");
    let endpoint = LaneEndpoint::bind(any, &identity, &keys, Config::default()).expect("bound");
    let (_, control) = mpsc::unbounded_channel();
    let link = endpoint.dial(endpoint.local_addr(), None, 0);
    let clock = Clock::start(Network::os());
    let mut lane = LaneLoop {
        me,
        member,
        announced_at: 0,
        lane: Lane::new(config, shared.topology(), []),
        store,
        endpoint,
        links,
        rates,
        shared,
        clock: clock.clone(),
        durability: DurabilityMode::Os,
        control,
        published_at: 0,
        tended_at: 0,
        repair: Default::default(),
        twins: Twins::new(BootId(7), any, clock.now()),
        costs: Default::default(),
    };
    let peer = PeerIdentity::Node { id: NodeId(2).to_bytes() };
    let remote = lane.endpoint.local_addr();
    let up = Event::LinkUp { link, peer, remote, dialed: false, tag: 0 };
    let now = lane.clock.now();
    lane.on_events(&mut vec![up], now);
    Bench { lane, engine, link }
}

impl Bench {
    fn frame(&self, id: u64, message: &Message) -> Event {
        let mut bytes = BytesMut::new();
        encode(id, false, message, &mut bytes).expect("a small header");
        let (class, arrived) = (Class::Replication, Instant::now());
        Event::Frame { link: self.link, class, arrived, payload: bytes.freeze() }
    }

    /// A link of a client of this name, as the lane sees it.
    fn client(&mut self, name: &str) -> LinkId {
        let peer = PeerIdentity::Client { name: name.into(), role: Role::ReadWrite };
        let remote = self.lane.endpoint.local_addr();
        let link = self.lane.endpoint.dial(remote, None, 0);
        let up = Event::LinkUp { link, peer, remote, dialed: false, tag: 0 };
        let now = self.lane.clock.now();
        self.lane.on_events(&mut vec![up], now);
        link
    }

    fn replicate(&self, counter: u64, bytes: usize) -> Event {
        let value = Bytes::from(vec![7; bytes]);
        let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
        let shard = self.lane.shared.topology().layout().current().shard_of(&key, 3);
        let head = RecordHead {
            dot: Dot::new(Origin(9), counter),
            key,
            past: DotSet::new(),
            hlc: Hlc(counter),
            rid: RequestId(counter.into()),
            author: NodeId(2),
            kind: Kind::Put,
            value_len: bytes as u32,
            value_hash: value_hash(Kind::Put, &value),
            expires_ms: 0,
            supersedes: Default::default(),
            concurrent: Default::default(),
            emits: Vec::new(),
        };
        let replicate =
            Replicate { shard, head, fsync: false, epoch: 1, timeout_ms: 60_000, value };
        self.frame(counter, &Message::Replicate(replicate))
    }
}

#[tokio::test]
async fn a_tick_ends_when_it_has_staged_enough() {
    const EACH: usize = 1 << 20;
    let mut bench = bench();
    let count = 2 * TICK_BYTES_MAX / EACH;
    let mut events: Vec<Event> =
        (1..=count as u64).map(|counter| bench.replicate(counter, EACH)).collect();
    let now = bench.lane.clock.now();
    let before = bench.engine.stats().commits;
    bench.lane.on_events(&mut events, now);
    assert!(bench.engine.stats().commits > before, "committed before all of it was staged");
    assert!(bench.lane.store.staged_bytes() <= TICK_BYTES_MAX + 2 * EACH);
    bench.lane.end_tick(now);
    assert_eq!(bench.lane.lane.counters().replicated, count as u64);
}

#[tokio::test]
async fn a_tick_ends_when_its_answers_hold_enough() {
    const EACH: usize = 8 << 20;
    let mut bench = bench();
    let now = bench.lane.clock.now();
    let mut written = vec![bench.replicate(1, EACH)];
    bench.lane.on_events(&mut written, now);
    bench.lane.end_tick(now);
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let options = ReadOptions { r: Some(Quorum::Exactly(1)), ..ReadOptions::default() };
    let get = Message::Get(Get { key, options, timeout_ms: 60_000 });
    let mut most = 0;
    for id in 2..=12 {
        let mut asked = vec![bench.frame(id, &get)];
        bench.lane.on_events(&mut asked, now);
        most = most.max(bench.lane.lane.held_back());
    }
    assert!(most >= EACH, "the value was read");
    assert!(most <= TICK_BYTES_MAX, "of 88 MiB in all: {most}");
}

#[tokio::test]
async fn a_tick_ends_when_its_pages_of_keys_hold_enough() {
    let mut bench = bench();
    let now = bench.lane.clock.now();
    let mut written: Vec<Event> = (1..=1_000).map(|number| bench.replicate(number, 1)).collect();
    bench.lane.on_events(&mut written, now);
    bench.lane.end_tick(now);
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let shard = bench.lane.shared.topology().layout().current().shard_of(&key, 3);
    let fetch = Message::FetchPage(FetchPage {
        shard,
        bucket: BucketName::default_bucket(),
        prefix: Bytes::new(),
        after: None,
        limit: 1_000,
        timeout_ms: 60_000,
        epoch: 1,
    });
    let (mut most, mut all) = (0, 0);
    for id in 2_000..4_000 {
        let mut asked = vec![bench.frame(id, &fetch)];
        bench.lane.on_events(&mut asked, now);
        let held = bench.lane.lane.held_back();
        all += held.saturating_sub(most);
        most = most.max(held);
    }
    assert!(all > 0, "pages were read");
    assert!(most <= TICK_BYTES_MAX, "{most}");
}

#[tokio::test]
async fn a_page_is_measured_and_a_request_is_not() {
    let mut bench = bench();
    let now = bench.lane.clock.now();
    let mut written = vec![bench.replicate(1, 10)];
    bench.lane.on_events(&mut written, now);
    assert!(!bench.lane.costs.any());
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let shard = bench.lane.shared.topology().layout().current().shard_of(&key, 3);
    let wanted = PartitionClock::from_iter([Range { origin: Origin(9), first: 1, last: 1 }]);
    let mut asked = vec![bench.frame(2, &Message::Pull(Pull { shard, wanted, credit: 1 << 20 }))];
    bench.lane.on_events(&mut asked, now);
    assert!(bench.lane.costs.any());
    bench.lane.end_tick(now);
    assert!(!bench.lane.costs.any(), "it is paid with the tick's end");
}

/// A client waits for something, and node 2 asks for a page: when it may ask for the next, in milliseconds.
fn pause_after_a_page(bench: &mut Bench, now: Now) -> u16 {
    wait_for_node_2(bench, now);
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let shard = bench.lane.shared.topology().layout().current().shard_of(&key, 3);
    let wanted = PartitionClock::from_iter([Range { origin: Origin(9), first: 1, last: 1 }]);
    let mut asked = vec![bench.frame(2, &Message::Pull(Pull { shard, wanted, credit: 1 << 20 }))];
    bench.lane.on_events(&mut asked, now);
    let committed = bench.lane.store.commit(false);
    let effects = bench.lane.lane.end_tick(committed);
    let pause = effects.iter().find_map(|effect| match effect {
        Effect::Answer { message: Message::Pulled(Ok(page)), .. } => Some(page.pause_ms),
        _ => None,
    });
    pause.expect("a page is given")
}

/// A read that waits for node 2, until the tick ends.
fn wait_for_node_2(bench: &mut Bench, now: Now) {
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let options = ReadOptions { r: Some(Quorum::Exactly(2)), ..ReadOptions::default() };
    let get = Message::Get(Get { key, options, timeout_ms: 60_000 });
    let mut asked = vec![bench.frame(3, &get)];
    bench.lane.on_events(&mut asked, now);
    assert_eq!(bench.lane.lane.inflight(), 1);
}

#[tokio::test]
async fn what_pages_took_is_paid_when_the_tick_ends() {
    // However long this takes: the pauses are counted from the beginning.
    let linked = || {
        let mut bench = bench();
        let now = bench.lane.clock.now();
        let up = Input::PeerUp(PeerLane { node: NodeId(2), lane: LaneIndex(0) });
        bench.lane.lane.handle(up, now, &mut bench.lane.store);
        bench.lane.end_tick(now);
        (bench, now)
    };
    let (mut bench, now) = linked();
    assert!(pause_after_a_page(&mut bench, now) <= 20, "nothing is owed");
    let (mut bench, now) = linked();
    wait_for_node_2(&mut bench, now);
    bench.lane.costs.add(200_000, 0, false);
    bench.lane.end_tick(now);
    assert!(pause_after_a_page(&mut bench, now) >= 600, "three times as long for clients");
}

#[tokio::test]
async fn a_bucket_that_was_not_written_down_is_not_known_and_comes_again() {
    let mut bench = bench();
    let name: BucketName = "late".parse().expect("a name");
    let props = BucketProps::with_copies(3);
    let define =
        Message::DefineBucket(CreateBucket { name: name.clone(), props, timeout_ms: 1000 });
    let now = bench.lane.clock.now();
    bench.engine.fail_next_commits([FailKind::Full]);
    for known in [false, true] {
        let mut events = vec![bench.frame(1, &define)];
        bench.lane.on_events(&mut events, now);
        bench.lane.end_tick(now);
        assert_eq!(bench.lane.shared.topology().buckets.contains_key(&name), known);
    }
}

#[tokio::test]
async fn buckets_that_are_told_together_are_written_together() {
    let mut bench = bench();
    let (heard, mut control) = mpsc::unbounded_channel();
    bench.lane.shared.add_control(heard);
    let props = BucketProps::with_copies(3);
    let define = |name: &str, props: &BucketProps| {
        let (name, props) = (name.parse().expect("a name"), props.clone());
        Message::DefineBucket(CreateBucket { name, props, timeout_ms: 0 })
    };
    let mut messages: Vec<Message> =
        (0..500).map(|number| define(&format!("b{number}"), &props)).collect();
    // Another node was told otherwise: the first one counts, and the rest are not lost for it.
    messages.insert(250, define("b0", &BucketProps::with_copies(2)));
    messages.insert(300, messages[10].clone());
    let mut events: Vec<Event> = messages.iter().map(|one| bench.frame(0, one)).collect();
    let (now, before) = (bench.lane.clock.now(), bench.engine.stats().commits);
    bench.lane.on_events(&mut events, now);
    bench.lane.end_tick(now);
    assert_eq!(bench.engine.stats().commits, before + 1);
    let topology = bench.lane.shared.topology();
    assert_eq!(topology.buckets.len(), 501, "and the default one");
    assert_eq!(topology.buckets[&"b0".parse::<BucketName>().expect("a name")], props);
    assert!(control.try_recv().is_ok());
    assert!(control.try_recv().is_err(), "lanes hear of all of them at once");
    let other = CreateBucket {
        name: "b0".parse().expect("a name"),
        props: BucketProps::with_copies(2),
        timeout_ms: 0,
    };
    assert!(bench.lane.shared.contradicts(&other), "such a one is told in the log");
}

#[tokio::test]
async fn who_asks_for_figures_often_does_not_keep_a_shut_engine_shut() {
    let mut bench = bench();
    let mut now = bench.lane.clock.now();
    bench.engine.fail_next_commits([FailKind::IoLost]);
    bench.engine.fail_next_reopen();
    let mut counter = 0;
    let mut is_taken = |bench: &mut Bench, now: Now| {
        counter += 1;
        let mut events = vec![bench.replicate(counter, 1), bench.frame(counter, &Message::Status)];
        bench.lane.on_events(&mut events, now);
        bench.lane.end_tick(now);
        bench.lane.tend(now);
        bench.lane.publish(now);
        bench.lane.store.shards().is_ok_and(|shards| !shards.is_empty())
    };
    assert!(!is_taken(&mut bench, now), "its commit fails, and then it does not open");
    let opened = (0..20).any(|_| {
        now.micros += 50_000;
        is_taken(&mut bench, now)
    });
    assert!(opened, "it is opened again while figures are asked for twenty times a second");
}

#[tokio::test]
async fn a_greedy_client_is_refused_and_a_modest_one_untouched() {
    let limits =
        Limits { client_requests_per_second: 1, client_requests_burst: 20, ..Limits::default() };
    let mut bench = bench_with(limits);
    // Two links of one certificate have one bucket.
    let greedy = [bench.client("greedy"), bench.client("greedy")];
    let modest = bench.client("modest");
    let key = Key::new(BucketName::default_bucket(), "k".to_owned()).expect("a key");
    let options = ReadOptions { r: Some(Quorum::Exactly(1)), ..ReadOptions::default() };
    let get = Message::Get(Get { key, options, timeout_ms: 2_000 });
    let now = bench.lane.clock.now();
    let send = |bench: &mut Bench, link: LinkId, count: u64| {
        for id in 0..count {
            let event = bench.frame(id, &get);
            let Event::Frame { class, arrived, payload, .. } = event else { panic!("a frame") };
            let event = Event::Frame { link, class, arrived, payload };
            bench.lane.on_events(&mut vec![event], now);
        }
    };
    send(&mut bench, greedy[0], 15);
    send(&mut bench, greedy[1], 85);
    assert_eq!(bench.lane.rates.refused(), 80);
    send(&mut bench, modest, 10);
    assert_eq!(bench.lane.rates.refused(), 80, "what another one does is not held against it");
    bench.lane.end_tick(now);
    let counters = bench.lane.lane.counters();
    assert_eq!(counters.gets + counters.refused, 30, "the rest never came to the lane");
}

#[tokio::test]
async fn faults_are_set_only_where_the_configuration_allows_them() {
    let bench = bench();
    let heal = SetFaults { heal: true, links: Vec::new() };
    let refused = Failed {
        failure: Failure::FaultsNotAllowed,
        applied: AppliedOutcome::No,
        answers: Vec::new(),
    };
    assert_eq!(faults::answer(&bench.lane.shared, &heal), Message::Failed(refused));
    let shared = Arc::into_inner(bench.lane.shared).expect("the only one");
    let shared = shared.allowing_faults(Some(NodeFaults::new(1)));
    let cut = LinkFaults { cut_in: true, ..LinkFaults::none(NodeId(2)) };
    let wanted = SetFaults { heal: false, links: vec![cut.clone()] };
    assert_eq!(faults::answer(&shared, &wanted), Message::FaultsSet(vec![cut.clone()]));
    let status = figures::status(&shared, &Clock::start(Network::os()), DurabilityMode::Os);
    assert_eq!(status.faults, [cut], "so that nobody forgets them");
}

#[test]
fn nobody_is_told_of_a_bucket_that_was_lost() {
    let to = ReplyTo { link: 1, id: 1 };
    let why = BucketProps::with_copies(3);
    let refused = Failure::BucketRefused { why: "full".into() };
    let answer = |message| Effect::Answer { to, op: 1, message };
    let told = without_bucket(answer(Message::BucketDefined(Ok(()))), "full");
    assert_eq!(told, answer(Message::BucketDefined(Err(refused.clone()))));
    let told = without_bucket(answer(Message::BucketCreated), "full");
    let failed = Failed { failure: refused, applied: AppliedOutcome::No, answers: Vec::new() };
    assert_eq!(told, answer(Message::Failed(failed)));
    let name = "late".parse().expect("a name");
    let message = Message::DefineBucket(CreateBucket { name, props: why, timeout_ms: 1000 });
    let peer = PeerLane { node: NodeId(2), lane: LaneIndex(0) };
    let ask = Effect::Ask { to: peer, id: 8, forwarded: false, message };
    assert!(is_bucket_ask(&ask), "such an ask is not sent at all");
    assert!(!is_bucket_ask(&answer(Message::BucketCreated)));
}

#[test]
fn an_answer_that_finds_its_outbox_full_becomes_a_small_refusal() {
    let why = ReplicaError::Overloaded;
    let fetched = unsendable(Message::FetchedPage(Err(ReplicaError::DiskFull)), why.clone());
    assert_eq!(fetched, Message::FetchedPage(Err(why.clone())));
    let stored =
        |node, outcome| Answer { node: NodeId(node), stands_in_for: None, outcome, micros: 1 };
    let answers = vec![stored(1, Outcome::Stored), stored(2, Outcome::StoredDurably)];
    let answers = [answers, vec![stored(3, Outcome::Pending)]].concat();
    let (dot, context) = (Dot::new(Origin(1), 1), Bytes::new());
    let done = Message::PutDone(PutDone { dot, context, siblings: 1, answers });
    let (failure, applied) = (Failure::Coordinator(why.clone()), AppliedOutcome::Maybe { acks: 2 });
    let failed = Failed { failure, applied, answers: Vec::new() };
    assert_eq!(unsendable(done, why.clone()), Message::Failed(failed), "stored is not denied");
    let failed = |applied| {
        let failure = Failure::Coordinator(ReplicaError::Overloaded);
        Message::Failed(Failed { failure, applied, answers: Vec::new() })
    };
    let made = failed(AppliedOutcome::Maybe { acks: 0 });
    assert_eq!(unsendable(Message::BucketCreated, why.clone()), made, "nor is what was made");
    let page = Message::Listed(Page { keys: Vec::new(), next_after: None });
    assert_eq!(unsendable(page, why), failed(AppliedOutcome::No));
}

#[test]
fn mending_travels_behind_replication() {
    let shard = Shard { partition: Partition(0), n: 3 };
    let ask = Message::AskSlice(AskSlice { shard, after: None, keys: true });
    assert!(matches!(class_of(&ask), Class::Background));
}

/// What a twin acks while it ends is not on this disk either.
#[tokio::test]
async fn a_twin_is_counted_with_when_it_is_met_and_once_more_when_it_has_ended() {
    let mut bench = bench();
    let (control, mut told) = mpsc::unbounded_channel();
    bench.lane.shared.add_control(control);
    let peer = PeerLane { node: NodeId(2), lane: LaneIndex(0) };
    let address = "127.0.0.1:7001".parse().expect("an address");
    let later = Greeting { boot: BootId(9), up_ms: 5, since_ms: u64::MAX, address };
    let now = bench.lane.clock.now();
    bench.lane.on_twin(bench.link, peer, Twin::Runs(later), now);
    let mut said = || match told.try_recv() {
        Ok(Control::TwinServed(name)) => Some(name),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    assert_eq!(said(), Some(9));
    let at = |micros| Now { micros: now.micros + micros, ..now };
    for (micros, name) in [(ENDS_MICROS - 1, None), (ENDS_MICROS, Some(!9)), (ENDS_MICROS, None)] {
        bench.lane.look_for_twins(at(micros));
        assert_eq!(said(), name, "{micros}");
    }
}
